"""What a model can draw and which words it knows, read from the `vocabulary.json` that lies in its folder.

A bundled model learned a small language; a word outside it changes nothing for good. So the page marks such words and
the command line refuses them, both with the nearest words that the model does know.
"""

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from maskgil.fileio import parse_json
from text_encoder.prompt_reader.word_forms import with_an

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
SPOKEN_3D = re.compile(r"\bthree[ -]d\b", re.IGNORECASE)  # how the bundled recognizer, which has no digits, writes "3d"
NAMED = ("counts", "relations", "colours")  # lists of plain words


class VocabularyEntry(NamedTuple):
    """Something that the model can draw: its name, other words for it, and for places and styles how to say them. In a
    colourless style nothing has the colours that it is given."""

    name: str
    synonyms: tuple[str, ...] = ()
    say: tuple[str, ...] = ()
    plural: str = ""
    colourless: bool = False
    kind: str = ""  # of a background: "place", "color", "time" or "weather"; empty: a place that takes no other


@dataclass(frozen=True)
class PromptVocabulary:
    """`words` is every word that the model saw, in lower case. Empty means: a model for free text, all words known.

    `aliases` are words that it reads as others, where they are no part of a longer name: "tree" as "pine tree", "bird"
    as "parrot".

    `colours` are those that it can give to things; empty: things have colours of their own.
    `max_kinds`, `max_things`: how many kinds of things, and things in all, a picture holds.
    """

    objects: tuple[VocabularyEntry, ...] = ()
    backgrounds: tuple[VocabularyEntry, ...] = ()
    styles: tuple[VocabularyEntry, ...] = ()
    counts: tuple[str, ...] = ()
    relations: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    words: frozenset[str] = field(default=frozenset(), repr=False)
    aliases: dict[str, str] = field(default_factory=dict, repr=False, hash=False)
    max_kinds: int = 2
    max_things: int = 4

    @classmethod
    def load(cls, folder: Path) -> "PromptVocabulary":
        """The vocabulary of a model folder; the empty one when the folder has none."""
        path = folder / "vocabulary.json"
        if not path.is_file():
            return cls()
        try:
            return cls.from_dict(parse_json(path.read_text(encoding="utf-8")))
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}): fetch the model folder again") from None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PromptVocabulary":
        things = {name: tuple(_thing(v) for v in values.get(name, ())) for name in ("objects", "backgrounds", "styles")}
        names = {name: tuple(_thing(v).name for v in values.get(name, ())) for name in NAMED}
        words = frozenset(str(word).lower() for word in values.get("words", ()))
        aliases = {str(word).lower(): str(name) for word, name in values.get("aliases", {}).items()}
        examples = tuple(values.get("examples", ()))
        limits = values.get("limits", {})
        most = max((int(count) for count in names["counts"] if str(count).isdigit()), default=4)
        return cls(
            **things, **names, examples=examples, words=words, aliases=aliases,
            max_kinds=int(limits.get("kinds", 2)), max_things=int(limits.get("things", most)),
        )  # fmt: skip

    def _whole(self, prompt: str) -> set[int]:
        """Where the words of longer names and of places begin."""
        found = set()
        for name in self._longer:
            for match in name.finditer(prompt):
                found.update(match.start() + word.start() for word in WORD.finditer(match[0]))
        return found

    @cached_property
    def _longer(self) -> list[re.Pattern]:
        names = [name for thing in self.objects for name in (thing.name, thing.plural, *thing.synonyms)]
        names += [phrase for place in self.backgrounds for phrase in place.say]
        split = [WORD.findall(name) for name in names]
        between = r"s?[\W_]+"  # fire trucks, slices of pizza
        return [re.compile(rf"\b{between.join(words)}s?\b", re.IGNORECASE) for words in split if len(words) > 1]

    def knows(self, word: str) -> bool:
        word = word.lower().replace("’", "'")
        return not self.words or any(w in self.words or w in self.aliases for w in (word, word.removesuffix("'s")))

    def normalize(self, prompt: str) -> str:
        """The prompt as the model learned to read it: "three d", where it knows the word, is "3d", a "tree" a pine."""
        if self.aliases:
            whole = self._whole(prompt)

            def meant(word: re.Match) -> str:
                return word[0] if word.start() in whole else self.aliases.get(word[0].lower(), word[0])

            prompt = WORD.sub(meant, prompt)
        return self._digits(prompt)

    def _digits(self, prompt: str) -> str:
        return SPOKEN_3D.sub("3d", prompt) if self.knows("3d") else prompt


def _thing(value: str | int | dict[str, Any]) -> VocabularyEntry:
    if isinstance(value, dict):
        synonyms, say = (tuple(with_an(str(word)) for word in value.get(key, ())) for key in ("synonyms", "say"))
        return VocabularyEntry(
            str(value["name"]), synonyms, say, str(value.get("plural", "")), bool(value.get("colourless")),
            str(value.get("kind", "")),
        )  # fmt: skip
    return VocabularyEntry(str(value))
