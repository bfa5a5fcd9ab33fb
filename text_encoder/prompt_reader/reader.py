"""Free English in, a caption that the text encoder knows out, and what became of every word in between."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from text_encoder.prompt_reader.asked_scene import AskedScene
from text_encoder.prompt_reader.caption_writer import suggested_words, write_caption
from text_encoder.prompt_reader.lexicon import BACKDROPS, Chunk, Lexicon
from text_encoder.prompt_reader.prompt_reading import (
    AVOIDED,
    DRAWN,
    LANGUAGE,
    LEFT_OUT,
    REPLACED,
    PromptReading,
    PromptSpan,
)
from text_encoder.prompt_reader.prompt_vocabulary import PromptVocabulary
from text_encoder.prompt_reader.scene_fitting import SceneFitter
from text_encoder.prompt_reader.scene_parser import parse_scene
from text_encoder.prompt_reader.stand_ins import STAND_INS, StandInTable
from text_encoder.prompt_reader.text_normalizer import tokenize_prompt
from text_encoder.prompt_reader.unwanted import Unwanted

MAX_READINGS = 1024  # kept for each reader
SUGGESTIONS = 3


class PromptReader:
    """Reads prompts for the model of one folder.

    A vocabulary without words is that of a model for free text: `read` gives every prompt back as it is.
    """

    def __init__(self, vocabulary: PromptVocabulary, stand_ins: StandInTable | None = None):
        self.vocabulary = vocabulary
        self.stand_ins = stand_ins or StandInTable()
        self.is_free_text = not vocabulary.words or not vocabulary.objects
        if not self.is_free_text:
            self._lexicon = Lexicon(vocabulary, self.stand_ins)
            self._fitter = SceneFitter(self._lexicon)
        self.read = lru_cache(MAX_READINGS)(self._read)

    @classmethod
    def load(cls, folder: str | Path) -> "PromptReader":
        """The reader of a model folder, made once for each version of its files. ValueError for damaged files."""
        paths = [Path(folder) / name for name in ("vocabulary.json", STAND_INS)]
        return _load(Path(folder), tuple(path.stat().st_mtime_ns if path.is_file() else 0 for path in paths))

    @classmethod
    def from_dict(cls, vocabulary: dict[str, Any], stand_ins: dict[str, Any] | None = None) -> "PromptReader":
        """A reader from the contents of vocabulary.json and stand_ins.json."""
        table = StandInTable.from_dict(stand_ins) if stand_ins else None
        return cls(PromptVocabulary.from_dict(vocabulary), table)

    def _read(self, prompt: str, avoid: str = "") -> PromptReading:
        """What is drawn of a prompt; `avoid`: a negative prompt, whose things are left out of it."""
        if self.is_free_text:
            return PromptReading(prompt, prompt, (PromptSpan(prompt),) if prompt else ())
        chunks, asked = self._parse(prompt)
        fitted = self._fitter.fit(asked, self._named_in(avoid))
        drawn = write_caption(fitted)
        spans = _spans(prompt, chunks)
        if not drawn:
            return PromptReading(prompt, "", spans, refused=self._refusal(chunks))
        return PromptReading(prompt, drawn, spans, fitted.scene())

    def read_negative(self, prompt: str) -> PromptReading:
        """A negative prompt: what the encoder gets of it, and which of its words keep nothing out of the picture."""
        if self.is_free_text or not prompt.strip():
            return PromptReading(prompt, prompt.strip())
        chunks, asked = self._parse(prompt)
        drawn = write_caption(self._fitter.fit(asked))
        for chunk in self._fitter.named_in(asked).phrases():
            chunk.mark(DRAWN)
        return PromptReading(prompt, drawn, _spans(prompt, chunks))

    def _parse(self, prompt: str) -> tuple[list[Chunk], AskedScene]:
        """The phrases of a prompt and what they ask for. Where no thing is asked for that the model knows, things that
        stand for others from far are taken, or things that only describe others."""
        tokens = tokenize_prompt(prompt, self.stand_ins.emoji)
        first = chunks = self._lexicon.chunks(tokens)
        asked = parse_scene(chunks)
        for kind, distant in (("distant", True), ("thing", False)):
            if not asked.groups and any(chunk.is_a(kind) for chunk in first):
                others = self._lexicon.chunks(tokens, distant)
                other = parse_scene(others, takes_modifiers=not distant)
                if other.groups:
                    chunks, asked = others, other
        return chunks, asked

    def _named_in(self, avoid: str) -> Unwanted:
        """What a negative prompt names."""
        if not avoid.strip():
            return Unwanted()
        asked = parse_scene(self._lexicon.chunks(tokenize_prompt(avoid, self.stand_ins.emoji)))
        return self._fitter.unwanted_of(self._fitter.named_in(asked), is_field=True)

    def _refusal(self, chunks: list[Chunk]) -> str:
        """Why nothing is drawn, with things that are."""
        words, not_wanted = asked_words(chunks), asked_words(chunks, AVOIDED)
        names = self.suggestions(words)
        if words:
            said = f"none of {', '.join(repr(word[:40]) for word in words[:4])} can be drawn"
        elif not_wanted:
            said = f"nothing is named but what is not wanted, {', '.join(repr(word[:40]) for word in not_wanted[:4])}"
        else:
            said = "no thing is named"
        return f"{said}: try {', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else said

    def alternatives(self, span: PromptSpan) -> list[str]:
        """Things to say instead of a stretch that is left out or replaced, the nearest in meaning first."""
        if span.status not in (LEFT_OUT, REPLACED) or self._is_backdrop(span.text):
            return []
        return [name for name in self.stand_ins.nearest(span.text) if name != span.by][:SUGGESTIONS]

    def _is_backdrop(self, text: str) -> bool:
        """Whether a stretch says where or when, and no thing: no thing is meant in its place."""
        if self.is_free_text:
            return False
        chunks = self._lexicon.chunks(tokenize_prompt(text, self.stand_ins.emoji))
        says_where = any(chunk.is_a("background", *BACKDROPS) for chunk in chunks)
        return says_where and not any(chunk.is_a("thing") for chunk in chunks)

    def suggestions(self, words: list[str], n: int = SUGGESTIONS) -> list[str]:
        """Things that can be drawn, the nearest in meaning to these words; examples where none is near."""
        near = dict.fromkeys(name for word in words for name in self.stand_ins.nearest(word))
        names = [suggested_words(name) for name in near][:n]
        return [f"“{text}”" for text in (names or self.vocabulary.examples[:n])]


@lru_cache(16)
def _load(folder: Path, versions: tuple[int, ...]) -> PromptReader:
    return PromptReader(PromptVocabulary.load(folder), StandInTable.load(folder))


def asked_words(chunks: list[Chunk], status: str = LEFT_OUT) -> list[str]:
    """What was left out, or is not wanted, for a refusal."""
    return [chunk.text for chunk in chunks if chunk.status == status and chunk.head is None]


def _fate(chunk: Chunk) -> tuple[str, str, str]:
    """(status, by, why) of a chunk: its own, or that of the chunk that it belongs to."""
    if chunk.head is not None and chunk.status == LANGUAGE:
        return LANGUAGE, "", ""
    return (
        chunk.status,
        chunk.by if chunk.status == REPLACED else "",
        chunk.why if chunk.status in (REPLACED, LEFT_OUT, AVOIDED) else "",
    )


def _spans(prompt: str, chunks: list[Chunk]) -> tuple[PromptSpan, ...]:
    """The whole prompt in stretches, neighbors of one fate joined."""
    pieces: list[tuple[int, int, tuple[str, str, str]]] = []
    for chunk in chunks:
        if chunk.is_a("mark"):
            continue
        fate = _fate(chunk)
        if pieces and pieces[-1][1] > chunk.start:
            continue  # several words of one emoji
        if (
            pieces
            and fate == pieces[-1][2]
            and fate[0] in (LEFT_OUT, AVOIDED)
            and not prompt[pieces[-1][1] : chunk.start].strip()
        ):
            pieces[-1] = (pieces[-1][0], chunk.end, fate)
        else:
            pieces.append((chunk.start, chunk.end, fate))
    spans: list[PromptSpan] = []
    at = 0

    def add(span: PromptSpan) -> None:
        if spans and span.status == spans[-1].status == LANGUAGE:
            span = PromptSpan(spans.pop().text + span.text)
        spans.append(span)

    for start, end, (status, by, why) in pieces:
        if start > at:
            add(PromptSpan(prompt[at:start]))
        add(PromptSpan(prompt[start:end], status, by, why))
        at = end
    if at < len(prompt):
        add(PromptSpan(prompt[at:]))
    return tuple(spans)
