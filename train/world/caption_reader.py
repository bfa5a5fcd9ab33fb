"""Parses captions of phrases.py back to what they tell.

It reads only the language that `say` writes, for tests and for evaluations. Prompts in free English go through
text_encoder/prompt_reader first. The longest phrase that fits is read, so that "pine forest" is not read as a pine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from train.world.arrangement import Group
from train.world.backdrops import COLOURS, PLAIN
from train.world.phrases import (
    COLOUR_WORDS,
    NUMBERS,
    PLACE_PHRASES,
    RELATION_PHRASES,
    SIZE_WORDS,
    STYLE_AFTER,
    STYLE_BEFORE,
    TIME_PHRASES,
    WALL_PHRASES,
    WEATHER_PHRASES,
    names_of,
)
from train.world.thing_table import WorldThing


@dataclass(frozen=True)
class ToldScene:
    """What a caption tells. `relation`: of the first group to the second."""

    groups: tuple[Group, ...]
    relation: str = ""
    place: str = PLAIN  # a place, a colour of the wall, or PLAIN
    time: str = "day"
    weather: str = "clear"
    style: str = "3d"


Meaning = tuple[str, object]


@lru_cache(maxsize=4)
def _lexicon(things: tuple[WorldThing, ...]) -> tuple[dict[tuple[str, ...], Meaning], int]:
    """({words of a phrase: its meaning}, the number of words of the longest phrase)."""
    lexicon: dict[tuple[str, ...], Meaning] = {}

    def enter(phrase: str, kind: str, value: object) -> None:
        lexicon.setdefault(tuple(phrase.split()), (kind, value))

    for thing in things:
        for name, plural in names_of(thing).items():
            enter(name, "thing", thing)
            enter(plural, "thing", thing)
    tables = (("place", PLACE_PHRASES), ("time", TIME_PHRASES), ("weather", WEATHER_PHRASES), ("style", STYLE_BEFORE),
              ("style", STYLE_AFTER), ("size", SIZE_WORDS), ("number", NUMBERS),
              ("relation", RELATION_PHRASES))  # fmt: skip
    for kind, table in tables:
        for value, phrases in table.items():
            for phrase in phrases:
                enter(phrase, kind, value)
    for colour in COLOURS:
        for word in COLOUR_WORDS.get(colour, (colour,)):
            enter(word, "colour", colour)
            for phrase in WALL_PHRASES:
                enter(phrase.format(c=word).replace(" a orange", " an orange"), "place", colour)
    enter("on the left", "side", "left of")
    enter("on the right", "side", "right of")
    return lexicon, max(map(len, lexicon))


def _meanings(caption: str, things: tuple[WorldThing, ...]) -> list[Meaning]:
    """The meanings of the phrases of a caption, in order. Words between phrases are ignored."""
    lexicon, longest = _lexicon(things)
    words, found, start = caption.replace(",", " ").split(), [], 0
    while start < len(words):
        for length in range(min(longest, len(words) - start), 0, -1):
            meaning = lexicon.get(tuple(words[start : start + length]))
            bare_wall = meaning and meaning[0] == "place" and meaning[1] in COLOURS and length == 2
            if length == 1 and words[start] in COLOURS and _names_thing(words[start + 1 :], things):
                meaning = "colour", words[start]  # "an orange deer" names no orange
            if bare_wall and start + 2 < len(words) and _names_thing(words[start + 2 :], things):
                continue  # "on red apples" names no wall
            if meaning:
                found.append(meaning)
                start += length
                break
        else:
            start += 1
    return found


def _names_thing(words: list[str], things: tuple[WorldThing, ...]) -> bool:
    lexicon, longest = _lexicon(things)
    heads = (lexicon.get(tuple(words[:length])) for length in range(min(longest, len(words)), 0, -1))
    return next((meaning[0] == "thing" for meaning in heads if meaning), False)


def read_caption(caption: str, things: Sequence[WorldThing]) -> ToldScene:
    """What a caption tells. ValueError where it names no thing."""
    groups: list[Group] = []
    number, size, colour, told = 1, "", "", {}
    for kind, value in _meanings(caption, tuple(things)):
        if kind == "number":
            number = value
        elif kind == "size":
            size = value
        elif kind == "colour":
            colour = value
        elif kind == "thing":
            groups.append(Group(value, number, size, colour))
            number, size, colour = 1, "", ""
        elif kind == "side":
            told.setdefault("relation", value)
        elif kind == "relation" and len(groups) == 1:
            told.setdefault("relation", value)
        elif kind in ("place", "time", "weather", "style"):
            told.setdefault(kind, value)
    if not groups:
        raise ValueError(f"{caption!r} names no thing of this world")
    return ToldScene(tuple(groups), **told)
