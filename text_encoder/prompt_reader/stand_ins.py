"""Which known thing stands for a noun that a model does not know, and what kind of word any English word is.

Both tables are data: `stand_ins.json` lies in a model folder beside vocabulary.json and is made for its things by
`maskgil export stand-ins`; `words/english_words.txt` lies beside this file. Nothing else is needed to read them.
"""

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from text_encoder.prompt_reader.english_phrases import WORDS
from text_encoder.prompt_reader.word_forms import IRREGULAR, american, singulars, verb_stems

STAND_INS = "stand_ins.json"
ENGLISH_WORDS = WORDS / "english_words.txt"
HOW = ("synonym", "kind", "example", "kin", "distant")
REASONS = {
    "synonym": "another word for it",
    "kind": "the kind of thing that it is",
    "example": "one kind of {family}",
    "kin": "the nearest {family}",
    "distant": "the nearest {family}, as nothing else of the prompt can be drawn",
}


class StandIn(NamedTuple):
    """`name` of the vocabulary that is drawn instead.

    how     "synonym"; "kind": a poodle is a dog; "example": a parrot is a bird; "kin": of one family; "distant": of one
            large family, for prompts that would be refused otherwise
    family  what both are, for the note
    """

    name: str
    how: str
    family: str = ""

    @property
    def is_distant(self) -> bool:
        return self.how == "distant"

    @property
    def why(self) -> str:
        return REASONS[self.how].format(family=self.family)


@dataclass(frozen=True)
class StandInTable:
    """Stand-ins by noun, singular and in lower case; None for a phrase that must not be read as its last word. `emoji`
    has for an emoji the words that it stands for, `near` for a noun the things that are nearest to it in meaning."""

    nouns: dict[str, StandIn | None] = field(default_factory=dict)
    emoji: dict[str, str] = field(default_factory=dict)
    near: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> "StandInTable":
        """The table of a model folder; an empty one where the folder has none. ValueError for a damaged file."""
        path = folder / STAND_INS
        if not path.is_file():
            return cls()
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (
            json.JSONDecodeError,
            UnicodeDecodeError,
            TypeError,
            KeyError,
            AttributeError,
            ValueError,
            IndexError,
        ) as error:
            raise ValueError(f"{path} is damaged ({error}): fetch the model folder again") from None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "StandInTable":
        nouns = {str(noun): StandIn(*map(str, entry)) if entry else None for noun, entry in values["nouns"].items()}
        if wrong := {entry.how for entry in nouns.values() if entry} - set(HOW):
            raise ValueError(f"{', '.join(sorted(wrong))} is no way to stand for a noun")
        emoji = {str(sign): str(words) for sign, words in values.get("emoji", {}).items()}
        things = values.get("things", [])
        near = {str(noun): tuple(str(things[i]) for i in places) for noun, places in values.get("near", {}).items()}
        return cls(nouns, emoji, near)

    def nearest(self, phrase: str) -> tuple[str, ...]:
        """Things that are near to a phrase in meaning, by its last noun that is known; empty for none."""
        for word in reversed(phrase.lower().split()):
            for form in (word, *singulars(word)):
                if names := self.near.get(form):
                    return names
        return ()


@cache
def english_words() -> dict[str, str]:
    """Word -> its class, of the commonest English words: "n" noun, "m" mostly noun and sometimes verb, "b" mostly verb
    and sometimes noun, "v" verb, "a" adjective or adverb."""
    lines = ENGLISH_WORDS.read_text(encoding="utf-8").split("\n")
    return {word: line[0] for line in lines if line[1:2] == "\t" for word in line[2:].split()}


@cache
def word_class(word: str) -> str:
    """The class of a word or of what it is a form of; empty for a word that is not English."""
    classes = english_words()
    word = american(word)
    if word in IRREGULAR and word not in classes:  # "leaves" are leaves
        word = IRREGULAR[word]
    if word in classes:
        return classes[word]
    for stem in verb_stems(word):
        if classes.get(stem) in ("v", "b") or (stem in classes and word.endswith(("ing", "ed"))):
            return "v"
    for singular in singulars(word):
        if singular in classes:
            return classes[singular]
    for ending, rest in (("ly", ""), ("er", ""), ("est", ""), ("er", "e"), ("est", "e"), ("ish", ""), ("y", "")):
        if word.endswith(ending) and word.removesuffix(ending) + rest in classes:
            return "a"
    return ""


def can_be_verb(word: str) -> bool:
    """Whether a word has the ending of a verb and a stem that is one: "jumps", "hits", "breathing"."""
    classes = english_words()
    stems = [classes.get(stem, "") for stem in verb_stems(word)]
    if word.endswith(("ing", "ed")):
        return any(stems)
    return word.endswith("s") and any(kind in ("v", "b") for kind in stems)
