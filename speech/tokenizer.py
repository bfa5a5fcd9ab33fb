"""The bundled recognizer's own vocabulary: whole words of the scenes' grammar, and pieces that spell any other word.

A tiktoken encoding over lower-case letters and the apostrophe. It looks a word up whole first and otherwise merges
pieces, so a word can be added without a chain of merges leading to it. Released models bring whisper's own.
"""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import tiktoken

END, START, NO_SPEECH = range(3)
SPECIAL = {"<|endoftext|>": END, "<|startoftranscript|>": START, "<|nospeech|>": NO_SPEECH}
LETTERS = " 'abcdefghijklmnopqrstuvwxyz"


class ASRTokenizer:
    """Text <-> ids. `tokens` in order of rank: the single LETTERS, then merged pieces, then whole words (" cat")."""

    def __init__(self, tokens: Sequence[str]) -> None:
        if "".join(tokens[: len(LETTERS)]) != LETTERS or len(set(tokens)) != len(tokens):
            raise ValueError(f"a vocabulary is {LETTERS!r} followed by distinct longer tokens; got {tokens[:30]!r}...")
        self.tokens = tuple(tokens)
        self._encoding = tiktoken.Encoding(
            name="scenes",
            pat_str=r" ?[a-z']+",
            mergeable_ranks={token.encode(): len(SPECIAL) + i for i, token in enumerate(tokens)},
            special_tokens=SPECIAL,
            explicit_n_vocab=len(SPECIAL) + len(tokens),
        )

    def __len__(self) -> int:
        return len(SPECIAL) + len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """Ids of the text's words, without START and END. Any text: it is normalized first (`normalize_transcript`)."""
        words = normalize_transcript(text)
        return self._encoding.encode_ordinary(" " + words) if words else []

    def decode(self, ids: Sequence[int]) -> str:
        return self._encoding.decode([i for i in ids if i >= len(SPECIAL)]).strip()

    @classmethod
    def load(cls, path: str | Path) -> "ASRTokenizer":
        """Reads tokens.json. Raises ValueError when it is missing or no vocabulary."""
        try:
            tokens = json.loads(Path(path).read_text(encoding="utf-8"))["tokens"]
        except FileNotFoundError:
            raise ValueError(f"{path} is missing: the recognizer cannot spell without its vocabulary") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no vocabulary ({error}): restore it from the repository") from None
        return cls(tokens)

    def save(self, path: str | Path) -> None:
        """Writes tokens.json whole or not at all."""
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps({"tokens": self.tokens}, indent=0), encoding="utf-8")
        os.replace(partial, path)


def normalize_transcript(text: str) -> str:
    """Lower-case words of letters and apostrophes, one space apart: what the recognizer writes and is scored on."""
    return " ".join(re.findall(r"[a-z](?:[a-z']*[a-z])?", text.lower().replace("’", "'")))
