"""The table of things: their names, where they stand, their sizes and their drawings.

`things.tsv` is ordered by how often prompts name a thing: first GenEval's 80 names, then the things of the bundled
models, then people and what everyday prompts name most. Training takes the first `count` rows, so the order of the rows
must not change.

A drawing is named by a word of the column `drawings`. A hand is a set of emoji drawings.

    🐈          every hand that has the glyph: Fluent 3D, Noto, Fluent flat, Twemoji
    🐈:fn       only these hands: f Fluent 3D, n Noto, m Fluent flat, t Twemoji
    🧍+         the glyph in each of the five skin tones, as one drawing each
    svg:bench   a drawing of this repository, svg/bench.svg
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

TABLE = Path(__file__).with_name("things.tsv")
Stands = Literal["ground", "indoors", "small", "water", "sea", "air", "sky"]
HANDS = {"f": "fluent", "n": "noto", "m": "fluent-flat", "t": "twemoji"}
SKIN_TONES = ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff")
VARIATION = "fe0f"  # selects the coloured form of a character; only some sets have it in their file names


@dataclass(frozen=True)
class Glyph:
    """One emoji and the hands that draw it. `tone`: index of the skin tone, or -1."""

    codepoints: tuple[str, ...]
    hands: str = "fnmt"
    tone: int = -1


@dataclass(frozen=True)
class WorldThing:
    """One row of the table.

    stands  ground and indoors: on the floor; small: on the floor or on another thing; water: afloat; sea: under water;
            air: flying; sky: high up
    size    1 (a key) to 5 (a castle)
    on      height at which another thing stands on it, as a share from its top; None: no thing stands on it
    inside  height of its opening, as a share from its top; None: no thing is put into it
    fixed   whether it must not be mirrored, because it has letters or the hands of a clock
    """

    index: int
    name: str
    plural: str
    synonyms: tuple[str, ...]
    stands: Stands
    size: int
    on: float | None
    inside: float | None
    fixed: bool
    glyphs: tuple[Glyph, ...]
    svgs: tuple[str, ...]

    @property
    def is_person(self) -> bool:
        """Whether it is drawn with skin tones. Such a thing is never given a colour."""
        return any(glyph.tone >= 0 for glyph in self.glyphs)


def in_skin_tones(points: Sequence[str]) -> list[tuple[str, ...]]:
    """The code points of an emoji of a person in each of the five skin tones, which follow its first character."""
    rest = tuple(points[1:])
    if rest[:1] == (VARIATION,):
        rest = rest[1:]
    return [(points[0], tone, *rest) for tone in SKIN_TONES]


def _glyphs(word: str) -> list[Glyph]:
    glyph, _, hands = word.partition(":")
    toned = glyph.endswith("+")
    points = tuple(f"{ord(c):04x}" for c in glyph.rstrip("+"))
    if not toned:
        return [Glyph(points, hands or "fnmt")]
    return [Glyph(form, hands or "fnmt", tone) for tone, form in enumerate(in_skin_tones(points))]


def _height(words: str, key: str) -> float | None:
    values = dict(word.split("=") for word in words.split() if "=" in word)
    return float(values[key]) if key in values else None


def _thing(index: int, row: dict[str, str]) -> WorldThing:
    if row["stands"] not in get_args(Stands):
        raise ValueError(f"{TABLE.name}: {row['name']} stands {row['stands']!r}; one of {', '.join(get_args(Stands))}")
    words = row["drawings"].split()
    return WorldThing(
        index=index,
        name=row["name"],
        plural=row["plural"],
        synonyms=tuple(s for s in row["synonyms"].split(",") if s),
        stands=row["stands"],
        size=int(row["size"]),
        on=_height(row["rest"], "on"),
        inside=_height(row["rest"], "in"),
        fixed="fixed" in row["rest"].split(),
        glyphs=tuple(glyph for word in words if not word.startswith("svg:") for glyph in _glyphs(word)),
        svgs=tuple(word.removeprefix("svg:") for word in words if word.startswith("svg:")),
    )


@cache
def all_things() -> tuple[WorldThing, ...]:
    """Every row of the table, in its order: an index stands for the same thing in every model."""
    with TABLE.open(encoding="utf-8") as file:
        return tuple(_thing(i, row) for i, row in enumerate(csv.DictReader(file, delimiter="\t")))


def first_things(count: int) -> tuple[WorldThing, ...]:
    """The first `count` things. ValueError where the table has fewer."""
    if not 1 <= count <= len(all_things()):
        raise ValueError(f"the table has {len(all_things())} things, {count} were asked for")
    return all_things()[:count]
