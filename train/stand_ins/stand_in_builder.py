"""Builds the table of stand-ins of a vocabulary: WordNet says what may stand for what, word vectors choose among them.

In this order: another word for a thing (palace, castle); the kind that a noun belongs to (poodle, dog); a thing of the
kind that a noun names (bird, parrot); the nearest thing of one small family (eagle, owl). Else the noun has none.
Pairs that a person looked at come last and win (reviewed.tsv).
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from train.stand_ins.families import family_lines
from train.stand_ins.word_vectors import SIZE, WordVectors
from train.stand_ins.wordnet import ANIMAL, DRAWABLE, FOOD, PERSON, PLANT, WordNet

SENSES = Path(__file__).with_name("thing_senses.tsv")
REVIEWED = Path(__file__).with_name("reviewed.tsv")
COMMON_WORD, COMMON_IN_COMPOUND = 80_000, 25_000  # ranks of words that the table is made for
COMMON_NOUN, SUGGESTED = 12_000, 3  # rank of nouns that get suggestions, and how many each gets
NEAR = 0.4  # cosine from which a thing is suggested
MAX_SENSE = 3  # rarer meanings of a noun are not what people mean
MAX_EXAMPLE_STEPS = 4  # from a kind down to its example
MIN_EXAMPLE_DEPTH = 6  # kinds above are too general: "object", "organism"
MIN_LIKENESS = 0.2  # cosine of GloVe vectors inside one family
NO_STAND_IN = ("", "", "")  # of a phrase that must not be read as its last word
ALIKE_FILES = ({ANIMAL, FOOD, PLANT},)  # a plant, its fruit and an animal on a plate look alike


class ThingMeanings(NamedTuple):
    """A thing of a vocabulary with its meanings in WordNet."""

    name: str
    words: tuple[str, ...]
    offsets: tuple[int, ...]


class Match(NamedTuple):
    """How a thing may stand for a noun; the best is the largest."""

    level: int  # 3 synonym, 2 kind, 1 example, 0 kin
    closeness: float
    name: str
    family: str


@dataclass(frozen=True)
class StandInBuilder:
    """`things` of a vocabulary; `known`: every word for them, which need no stand-in."""

    wordnet: WordNet
    vectors: WordVectors
    things: tuple[ThingMeanings, ...]
    known: frozenset[str]
    families: dict[int, str]

    @classmethod
    def of(cls, wordnet: WordNet, vectors: WordVectors, objects: list[dict]) -> "StandInBuilder":
        """The builder for the "objects" of a vocabulary.json."""
        senses = read_senses()
        things = tuple(_thing(wordnet, entry, senses) for entry in objects)
        known = {str(word) for e in objects for word in (e["name"], e.get("plural", ""), *e.get("synonyms", ()))}
        families = {wordnet.meaning(lemma, number): said for lemma, number, said in family_lines()}
        return cls(wordnet, vectors, things, frozenset(known), families)

    def table(self) -> dict[str, tuple[str, str, str]]:
        """Noun -> (name of a thing, how it stands for it, family), in alphabetical order."""
        reviewed = read_reviewed({thing.name for thing in self.things})
        table = {}
        for noun in self.nouns():
            if noun in reviewed or self._begins_with_quality(noun):
                continue
            match = self.match(noun)
            if match is not None and (" " not in noun or match.level >= 2):
                table[noun] = (match.name, ("kin", "example", "kind", "synonym")[match.level], match.family)
        table |= {noun: entry for noun, entry in reviewed.items() if entry and noun not in self.known}
        table |= {
            noun: NO_STAND_IN
            for noun, entry in reviewed.items()
            if entry is None and noun not in self.known and self._would_be_read(noun, table)
        }
        return dict(sorted(table.items()))

    def near_things(self, most: int = COMMON_NOUN) -> dict[str, list[int]]:
        """Common noun -> indices of the things that are nearest to it in meaning, to suggest in its place."""
        near = {}
        for noun in sorted(self.wordnet.senses):
            if " " in noun or noun in self.known or self.vectors.rank(noun) >= most:
                continue
            if self.wordnet.word_class(noun) in ("n", "m"):
                likeness = np.array(self._likeness(noun))
                places = [int(i) for i in np.argsort(likeness)[::-1][:SUGGESTED] if likeness[i] >= NEAR]
                if places:
                    near[noun] = places
        return near

    def _begins_with_quality(self, noun: str) -> bool:
        """Whether a phrase is an adjective and a noun: "red fox" is read as a fox that is red."""
        first, space, _ = noun.partition(" ")
        return bool(space) and self.wordnet.classes.get(first, set()) & {"a"} != set()

    def _would_be_read(self, noun: str, table: dict[str, tuple[str, str, str]]) -> bool:
        """Whether a phrase would be read as its last word."""
        return " " in noun and noun.split()[-1] in self.known | table.keys()

    def nouns(self) -> Iterator[str]:
        """The common nouns of WordNet that have a meaning which can be drawn."""
        for noun, offsets in self.wordnet.senses.items():
            most = COMMON_IN_COMPOUND if " " in noun else COMMON_WORD
            if noun in self.known or not noun.replace(" ", "").isalpha() or len(noun) < 3 or noun.count(" ") > 2:
                continue
            if self.vectors.rank(noun) < most and any(
                self.wordnet.synsets[o].file in DRAWABLE for o in offsets[:MAX_SENSE]
            ):
                yield noun

    def match(self, noun: str) -> Match | None:
        """The best stand-in of a noun, by its most usual meaning that has one."""
        for number, offset in enumerate(self.wordnet.senses[noun][:MAX_SENSE]):
            if self.wordnet.synsets[offset].file not in DRAWABLE:
                continue
            if matches := list(self._matches(noun, offset)):
                best = max(matches)
                if number == 0 or best.level >= 2 or best.closeness > 0.45:
                    return best
            if number == 0 and self.wordnet.synsets[offset].file == PERSON:
                return None
        return None

    @cached_property
    def _thing_vectors(self) -> tuple[Float[np.ndarray, "words D"], Int[np.ndarray, " things"]]:
        """Vectors of all words of the things, and where each thing's begin."""
        vectors = [self.vectors.vector(word) for thing in self.things for word in thing.words]
        rows = np.stack([np.zeros(SIZE, np.float32) if row is None else row for row in vectors])
        return rows, np.cumsum([0, *(len(thing.words) for thing in self.things[:-1])])

    def _likeness(self, noun: str) -> list[float]:
        """Cosine of a noun and each thing, by the nearest of the thing's words; 0 for a noun without a vector."""
        rows, starts = self._thing_vectors
        vector = self.vectors.vector(noun)
        if vector is None:
            return [0.0] * len(self.things)
        return np.maximum.reduceat(rows @ vector, starts).tolist()

    def _matches(self, noun: str, offset: int) -> Iterator[Match]:
        kinds = self.wordnet.kinds(offset)
        depth = self.wordnet.depth(offset)
        for thing, likeness in zip(self.things, self._likeness(noun), strict=True):
            for own in thing.offsets:
                own_kinds = self.wordnet.kinds(own)
                if own == offset:
                    yield Match(3, likeness, thing.name, "")
                elif own in kinds:
                    yield Match(2, likeness - kinds[own], thing.name, "")
                elif own_kinds.get(offset, 99) <= MAX_EXAMPLE_STEPS and depth >= MIN_EXAMPLE_DEPTH:
                    yield Match(1, likeness - 0.1 * own_kinds[offset], thing.name, noun)
                elif likeness >= MIN_LIKENESS:
                    shared = [f for f in self.families if f in kinds and f in own_kinds]
                    if shared:
                        family = min(shared, key=lambda f: kinds[f] + own_kinds[f])
                        yield Match(
                            0, likeness - 0.03 * (kinds[family] + own_kinds[family]), thing.name, self.families[family]
                        )


def _thing(wordnet: WordNet, entry: dict, senses: dict[str, tuple[str, ...]]) -> ThingMeanings:
    """A thing with the meanings of thing_senses.tsv or, where it has none there, the first that can be drawn."""
    name = str(entry["name"])
    words = (name, *map(str, entry.get("synonyms", ())))
    if name in senses:
        keys = [key.rpartition(" ") for key in senses[name]]
        return ThingMeanings(name, words, tuple(wordnet.meaning(lemma, int(number)) for lemma, _, number in keys))
    offsets = [o for o in wordnet.senses.get(name, []) if wordnet.synsets[o].file in DRAWABLE]
    offsets = [o for o in offsets if wordnet.synsets[o].file != PERSON] or offsets
    first = wordnet.synsets[offsets[0]].file if offsets else 0
    alike = next((files for files in ALIKE_FILES if first in files), {first})
    chosen = offsets[:1] + [
        o for o in offsets[1:3] if wordnet.synsets[o].file in alike and first in (FOOD, PLANT, ANIMAL)
    ]
    return ThingMeanings(name, words, tuple(chosen))


def _rows(path: Path) -> Iterable[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]


def read_senses() -> dict[str, tuple[str, ...]]:
    """ThingMeanings -> its meanings as "lemma number"; an empty tuple for a thing that stands for nothing else."""
    return {name: () if keys == "-" else tuple(keys.split(",")) for name, keys in _rows(SENSES)}


def read_reviewed(things: set[str]) -> dict[str, tuple[str, str, str] | None]:
    """Noun -> its stand-in among `things`, or None: it has none.

    A line may name several things, the best first, with one way and one family for all of them or one for each: a
    robin is a kind of bird and, where no bird is known, kin of a parrot.
    """
    reviewed: dict[str, tuple[str, str, str] | None] = {}
    for nouns, *columns in _rows(REVIEWED):
        names, ways, families = (column.split(",") for column in columns)
        choice = next((i for i, name in enumerate(names) if name in things), None)
        for noun in nouns.split(","):
            reviewed[noun] = None if choice is None else (names[choice], _nth(ways, choice), _nth(families, choice))
    return reviewed


def _nth(values: list[str], index: int) -> str:
    """The value at `index`, or the only one."""
    return values[index] if len(values) > 1 else values[0]
