"""WordNet's nouns: senses, how common they are, and the kinds that each belongs to (Miller 1995; WordNet 3.0).

The files are those of Debian's package wordnet-base: data.noun, index.noun, index.verb and so on, cntlist.rev.
"""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

DEFAULT_FOLDER = Path("/usr/share/wordnet")
ANIMAL, ARTIFACT, FOOD, OBJECT, PERSON, PLANT = 5, 6, 13, 17, 18, 20  # lexicographer files of what can be drawn
DRAWABLE = frozenset((ANIMAL, ARTIFACT, FOOD, OBJECT, PERSON, PLANT))
CLASS_OF = {"1": "n", "2": "v", "3": "a", "4": "a", "5": "a"}  # the first digit of a sense key -> word class


@dataclass(frozen=True)
class Synset:
    """One meaning: the lexicographer file, its words, and the offsets of the kinds right above it."""

    offset: int
    file: int
    words: tuple[str, ...]
    above: tuple[int, ...]


@dataclass
class WordNet:
    """`senses`: noun -> offsets of its meanings, the most usual first. `counts`: word -> class -> how often it was seen
    in WordNet's tagged texts. `classes`: word -> all classes that it has."""

    synsets: dict[int, Synset]
    senses: dict[str, list[int]]
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    classes: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path = DEFAULT_FOLDER) -> "WordNet":
        """Read the files of a folder. ValueError when they are not there."""
        if not (folder / "data.noun").is_file():
            raise ValueError(f"{folder} holds no WordNet: install Debian's wordnet-base, or name its folder")
        synsets = {synset.offset: synset for synset in map(_synset, _lines(folder / "data.noun"))}
        senses = {}
        for line in _lines(folder / "index.noun"):
            words = line.split()
            senses[words[0].replace("_", " ")] = [int(offset) for offset in words[-int(words[2]) :]]
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for line in _lines(folder / "cntlist.rev"):
            key, _, count = line.split()
            lemma, _, sense = key.partition("%")
            counts[lemma][CLASS_OF[sense[0]]] += int(count)
        classes: dict[str, set[str]] = defaultdict(set)
        for name, kind in (("noun", "n"), ("verb", "v"), ("adj", "a"), ("adv", "a")):
            for line in _lines(folder / f"index.{name}"):
                classes[line.split()[0]].add(kind)
        return cls(synsets, senses, counts, classes)

    @cached_property
    def _above(self) -> dict[int, dict[int, int]]:
        return {}

    def kinds(self, offset: int) -> dict[int, int]:
        """Every kind that a meaning belongs to -> how many steps above it; itself with 0."""
        known = self._above.get(offset)
        if known is None:
            known, todo = {offset: 0}, [offset]
            while todo:
                here = todo.pop(0)
                for above in self.synsets[here].above:
                    if above not in known:
                        known[above] = known[here] + 1
                        todo.append(above)
            self._above[offset] = known
        return known

    def depth(self, offset: int) -> int:
        """Steps from the most general noun."""
        return max(self.kinds(offset).values())

    def meaning(self, word: str, number: int = 1) -> int:
        """The offset of a word's meaning by its number, which begins with 1. ValueError for one that is not there."""
        offsets = self.senses.get(word, [])
        if not 1 <= number <= len(offsets):
            raise ValueError(f"WordNet has {len(offsets)} meanings of {word!r}, not number {number}")
        return offsets[number - 1]

    def word_class(self, word: str) -> str:
        """ "n" noun only, "m" mostly noun and sometimes verb, "b" mostly verb and sometimes noun, "v" verb, "a"
        adjective or adverb."""
        classes, counts = self.classes[word], self.counts.get(word, Counter())
        best = max(sorted(classes), key=lambda kind: (counts[kind], "avn".index(kind)))
        if best == "n" and "v" in classes:
            return "m"
        return "b" if best == "v" and "n" in classes else best


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line[:1] != " "]


def _synset(line: str) -> Synset:
    fields = line.partition(" | ")[0].split()
    count = int(fields[3], 16)
    words = tuple(re.sub(r"\(.*\)", "", fields[4 + 2 * i]).replace("_", " ") for i in range(count))
    pointers = fields[5 + 2 * count :]
    above = tuple(
        int(pointers[i + 1])
        for i in range(0, len(pointers) - 3, 4)
        if pointers[i] in ("@", "@i") and pointers[i + 2] == "n"
    )
    return Synset(int(fields[0]), int(fields[1]), words, above)
