"""What people call colors, places, times, weathers and styles, and which of a model's own stand for each.

A line `words: names` of words/colors.txt and its neighbors says that each of the words means the first one, and is
drawn as the first of the names that a model has. A name that is one of the words is drawn as said; any
other is the nearest that is left, and the reading says so.
"""

from collections.abc import Iterator, Set
from functools import cache

from text_encoder.prompt_reader.english_phrases import Meaning, split_table, table_lines

KINDS = ("color", "place", "time", "weather", "style")
# Colors that are also words for things: a misspelling is not mended to one.
COLOR_NAMES = frozenset(
    "tan peach mint plum coral copper bronze chestnut ruby amber salmon cream olive lavender dark rusty".split()
)
# What belongs to a place, to draw there when a place alone is asked for and the model draws no empty one.
COMPANIONS = {
    "field of flowers": ("flower", "sunflower", "tulip"),
    "beach": ("palm tree", "crab"), "meadow": ("pine tree", "tree", "tulip"), "snow": ("pine tree", "snowman"),
    "night": ("moon", "star"), "sunset": ("palm tree", "pine tree"), "underwater": ("fish",), "desert": ("cactus",),
    "sky": ("balloon", "bird"), "space": ("star", "rocket"), "forest": ("pine tree", "tree", "mushroom"),
}  # fmt: skip


def _lines(kind: str) -> Iterator[tuple[list[str], list[str]]]:
    """(words, names that may stand for them) of each line of a table."""
    for line in table_lines(f"{kind}s"):
        words, _, names = line.partition(":")
        yield split_table(words), split_table(names)


@cache
def candidates_of() -> dict[tuple[str, str], tuple[str, ...]]:
    """(kind, concept) -> names that may be drawn for it. A concept is a line's first word."""
    return {(kind, words[0]): tuple(names) for kind in KINDS for words, names in _lines(kind)}


@cache
def _homes() -> dict[str, list[tuple[str, frozenset[str]]]]:
    """A concept of a place -> (name of the place that is drawn for those who live there, their names)."""
    homes: dict[str, list[tuple[str, frozenset[str]]]] = {}
    for line in table_lines("homes"):
        concepts, name, things = line.split(":")
        for concept in split_table(concepts):
            homes.setdefault(concept, []).append((name.strip(), frozenset(split_table(things))))
    return homes


def home_of(concept: str, things: Set[str]) -> str:
    """The place that stands best for another where only such things are drawn as live there; empty for none."""
    return next((name for name, dwellers in _homes().get(concept, ()) if things and things <= dwellers), "")


@cache
def scene_meanings() -> dict[tuple[str, ...], list[Meaning]]:
    """What each word of the tables means: a concept of each table that has it."""
    meanings: dict[tuple[str, ...], list[Meaning]] = {}
    for kind in KINDS:
        for words, _ in _lines(kind):
            for word in words:
                meanings.setdefault(tuple(word.split()), []).append((kind, words[0]))
    return meanings


@cache
def quality_words() -> tuple[str, ...]:
    """Qualities that no drawing shows."""
    return tuple(word for line in table_lines("qualities") for word in split_table(line))
