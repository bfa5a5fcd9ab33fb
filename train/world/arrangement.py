"""Scenes of the open world: a request (things, counts, backdrop) and its arrangement (sizes and positions).

Lengths are in cells of the tokenizer, so that a scene does not depend on the number of pixels a cell. Boxes have the
sides of the drawings and need not be square. Things are listed in the order in which they are painted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from train.world.backdrops import PLAIN, place_of
from train.world.thing_table import WorldThing

STYLES = ("3d", "flat", "pixel art", "sketch", "silhouette")
PAINTED_STYLES = ("3d", "flat", "pixel art")  # styles in which a thing may have other than its natural colours
RELATIONS = ("left of", "right of", "above", "below", "next to", "in front of", "behind", "on", "inside")
CONVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above",
            "in front of": "behind", "behind": "in front of", "next to": "next to"}  # fmt: skip
MOST_OF_A_THING, MOST_GROUPS, MOST_THINGS = 6, 4, 9
SIDES = (2, 3, 4, 5, 6, 7, 8, 9, 10)  # cells of a drawing's longer side
BY_COMPANY = {
    1: 6.6,
    2: 4.8,
    3: 4.0,
    4: 3.6,
    5: 3.2,
    6: 3.0,
    7: 2.8,
    8: 2.6,
    9: 2.5,
}  # number of things: usual side on 12 x 12
BY_SIZE = {1: 0.8, 2: 0.9, 3: 1.0, 4: 1.15, 5: 1.3}  # by the column `size` of the table
BY_WORD = {"": 1.0, "small": 0.58, "large": 1.5}


@runtime_checkable
class Drawings(Protocol):
    """The sizes of drawings, which an arrangement needs."""

    def sizes(self, thing: WorldThing, style: str) -> Sequence[tuple[int, int]]:
        """(width, height) of each drawing that a thing has in a style, in any unit."""


@dataclass(frozen=True)
class PlacedThing:
    """A drawing of a thing with its box in cells. `word`: the size word of its caption, or "". `colour`: "" for natural
    colours."""

    thing: WorldThing
    drawing: int
    x: float
    y: float
    width: float
    height: float
    word: str = ""
    colour: str = ""
    mirrored: bool = False

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height

    def overlap(self, other: "PlacedThing") -> float:
        """The intersection of both boxes as a share of the smaller one."""
        wide = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        high = min(self.bottom, other.bottom) - max(self.y, other.y)
        smaller = min(self.width * self.height, other.width * other.height)
        return max(wide, 0) * max(high, 0) / smaller


@dataclass(frozen=True)
class Group:
    """`count` things of one kind, with one colour and one size word."""

    thing: WorldThing
    count: int = 1
    word: str = ""
    colour: str = ""


@dataclass(frozen=True)
class WorldScene:
    """An arranged scene. `relation`: of the first group to the second, or ""."""

    columns: int
    rows: int
    groups: tuple[Group, ...]
    placed: tuple[PlacedThing, ...]
    backdrop: str = PLAIN
    time: str = "day"
    weather: str = "clear"
    style: str = "3d"
    relation: str = ""
    variant: int = 0


@dataclass(frozen=True)
class SceneRequest:
    """What a scene should show, without positions."""

    groups: tuple[Group, ...]
    backdrop: str = PLAIN
    time: str = "day"
    weather: str = "clear"
    style: str = "3d"
    relation: str = ""

    def __post_init__(self) -> None:
        total = sum(group.count for group in self.groups)
        if not 1 <= len(self.groups) <= MOST_GROUPS or not 1 <= total <= MOST_THINGS:
            raise ValueError(
                f"a scene holds 1 to {MOST_GROUPS} kinds and 1 to {MOST_THINGS} things, "
                f"got {len(self.groups)} and {total}"
            )


def requested_side(group: Group, total: int, columns: int, rows: int) -> int:
    """Cells of the longer side of a group's drawings where `total` things share the picture and nothing is cramped."""
    unit = (columns * rows) ** 0.5 / 12
    side = BY_COMPANY[total] * BY_SIZE[group.thing.size] * BY_WORD[group.word] * unit
    return int(np.clip(round(side), SIDES[0], min(SIDES[-1], min(columns, rows) - 1)))


def _band(thing: WorldThing, backdrop: str, rows: int, height: float) -> tuple[float, float]:
    """The least and largest bottom, in cells, of a thing of that height that stands, floats or flies."""
    place, low, high = place_of(backdrop), height + 0.2, rows - 0.2
    if place is None or place.kind == "free":
        return low, high
    ground = place.horizon * rows
    if thing.stands in ("air", "sky"):
        return low, max(low, min(ground, 0.75 * rows) - (0.5 if thing.stands == "air" else 1.5))
    if place.water and (thing.stands in ("water", "sea") or ground > 0.9 * rows):
        top, bottom = (share * rows for share in place.water)
        return max(low, top + 0.6), max(low, min(high, bottom - 0.2))
    if place.name == "sea":
        return max(low, ground + 1), high
    return max(low, ground + 0.08 * rows), high


def _snapped(value: float, snap: float) -> float:
    return round(value / snap) * snap


class _Arranger:
    """Places things one after another."""

    def __init__(
        self, request: SceneRequest, drawings: Drawings, columns: int, rows: int, snap: float, rng: np.random.Generator
    ):
        self.request, self.drawings, self.columns, self.rows = request, drawings, columns, rows
        self.snap, self.rng = snap, rng
        self.total = sum(group.count for group in request.groups)
        self.chosen: dict[int, tuple[int, bool]] = {}

    def blank(self, group: Group, shrink: float = 1.0) -> PlacedThing:
        """A drawing of the group's thing in its size, without a position. In most cases all things of a group have the
        same drawing."""
        sizes = self.drawings.sizes(group.thing, self.request.style)
        fresh = int(self.rng.integers(len(sizes))), bool(self.rng.random() < 0.5) and not group.thing.fixed
        drawing, mirrored = self.chosen.setdefault(group.thing.index, fresh) if self.rng.random() < 0.7 else fresh
        side = max(SIDES[0], round(requested_side(group, self.total, self.columns, self.rows) * shrink))
        wide, high = sizes[drawing]
        scale = side / max(wide, high)
        return PlacedThing(group.thing, drawing, 0, 0, wide * scale, high * scale, group.word, group.colour, mirrored)

    def at(self, thing: PlacedThing, centre: float, bottom: float, exact: bool = False) -> PlacedThing:
        """The thing with that horizontal centre and bottom, moved into the picture. Both are rounded to the lattice
        unless `exact`."""
        if not exact:
            centre, bottom = _snapped(centre, self.snap), _snapped(bottom, self.snap)
        x = float(np.clip(centre - thing.width / 2, 0, self.columns - thing.width))
        y = float(np.clip(bottom - thing.height, 0, self.rows - thing.height))
        return replace(thing, x=x, y=y)

    def foot(self, thing: PlacedThing) -> float:
        low, high = _band(thing.thing, self.request.backdrop, self.rows, thing.height)
        return float(self.rng.uniform(low, max(low, high)))

    def anywhere(self, thing: PlacedThing) -> PlacedThing:
        half = thing.width / 2
        if self.total == 1:  # a single thing stands near the middle
            span = max(0.0, min(0.22 * self.columns, self.columns / 2 - half))
            centre = self.columns / 2 + float(self.rng.uniform(-span, span))
        else:
            centre = float(self.rng.uniform(half, max(half, self.columns - half)))
        return self.at(thing, centre, self.foot(thing))

    def related(self, a: PlacedThing, b: PlacedThing) -> tuple[PlacedThing, PlacedThing] | None:
        """Both things in the request's relation; None where this random attempt does not fit."""
        relation, rng, columns = self.request.relation, self.rng, self.columns
        if relation in CONVERSE and relation in ("right of", "below", "behind"):
            flipped = _Arranger(replace(self.request, relation=CONVERSE[relation]), self.drawings, columns, self.rows,
                            self.snap, rng).related(b, a)  # fmt: skip
            return None if flipped is None else flipped[::-1]
        if relation in ("left of", "next to"):
            gap = float(rng.uniform(0.2, 1.6 if relation == "next to" else 3))
            span = a.width + gap + b.width
            if span > columns:
                return None
            left = float(rng.uniform(0, columns - span))
            feet = self.foot(a), self.foot(b)
            if abs(feet[0] - feet[1]) > (1.6 if relation == "next to" else 3.2):
                return None
            pair = [self.at(t, c, f) for t, c, f in zip(
                (a, b), (left + a.width / 2, left + a.width + gap + b.width / 2), feet, strict=True)]  # fmt: skip
            if relation == "next to" and rng.random() < 0.5:
                second = self.at(b, left + b.width / 2, feet[1])
                return self.at(a, left + b.width + gap + a.width / 2, feet[0]), second
            return pair[0], pair[1]
        if relation == "above":
            low, high = _band(b.thing, self.request.backdrop, self.rows, b.height)
            foot = float(rng.uniform(max(low, a.height + b.height + 0.3), max(high, a.height + b.height + 0.3)))
            if foot > self.rows:
                return None
            centre = float(rng.uniform(b.width / 2, columns - b.width / 2))
            below = self.at(b, centre, foot)
            upper = self.at(a, centre + float(rng.uniform(-1, 1)), below.y - float(rng.uniform(0.2, 1.2)))
            return upper, below
        if relation == "in front of":
            back = self.anywhere(b)
            side = float(rng.choice([-1, 1])) * float(rng.uniform(0.2, 0.4)) * back.width
            front = self.at(a, back.centre[0] + side, back.bottom + float(rng.uniform(0.4, 1.2)))
            return (front, back) if 0.08 < front.overlap(back) < 0.7 else None
        support = self.anywhere(b)
        if relation == "on":
            share = b.thing.on if b.thing.on is not None else 0.0
            centre = support.centre[0] + float(rng.uniform(-0.2, 0.2)) * support.width
            top = support.y + share * support.height + 0.04 * a.height
            return self.at(a, centre, top, exact=True), support
        share = b.thing.inside if b.thing.inside is not None else 0.3
        foot = support.y + share * support.height + 0.28 * min(a.height, support.height)
        centre = support.centre[0] + float(rng.uniform(-0.08, 0.08)) * support.width
        return self.at(a, centre, foot, exact=True), support

    def holds(self, a: PlacedThing, b: PlacedThing) -> bool:
        return relation_holds(self.request.relation, a, b)

    def attempt(self, shrink: float, room: float) -> tuple[PlacedThing, ...] | None:
        """All things with positions at which no two overlap by more than `room`, or None. `shrink`: factor of all
        sizes."""
        groups, placed = list(self.request.groups), []
        if self.request.relation:
            first = [self.blank(group, shrink) for group in groups[:2]]
            if self.request.relation in ("on", "inside"):  # the thing that carries is the larger one
                carrier = replace_side(first[1], max(max(first[1].width, first[1].height), 4.0))
                limit = 0.8 if self.request.relation == "on" else 0.62
                first = [fit_width(first[0], limit * carrier.width, 0.9 * carrier.height + 1), carrier]
            pair = self.related(*first)
            if pair is None or not self.holds(*pair):
                return None
            placed, groups = list(pair), groups[2:]
        for group in groups:
            for _ in range(group.count):
                for _ in range(14):
                    thing = self.anywhere(self.blank(group, shrink))
                    if all(thing.overlap(other) <= room for other in placed):
                        placed.append(thing)
                        break
                else:
                    return None
        return tuple(self.in_order(placed))

    def in_order(self, placed: list[PlacedThing]) -> list[PlacedThing]:
        """The order of painting: things further back come first; a relation decides the order of its two things."""
        order = sorted(placed, key=lambda t: (t.thing.stands not in ("air", "sky"), t.bottom))
        if self.request.relation in ("on", "inside", "in front of", "behind"):
            a, b = placed[0], placed[1]
            front, back = (b, a) if self.request.relation in ("inside", "behind") else (a, b)
            order = [t for t in order if t is not front]
            order.insert(order.index(back) + 1, front)
        return order


def replace_side(thing: PlacedThing, side: float) -> PlacedThing:
    """The thing scaled so that its longer side has `side` cells."""
    scale = side / max(thing.width, thing.height)
    return replace(thing, width=thing.width * scale, height=thing.height * scale)


def fit_width(thing: PlacedThing, width: float, height: float) -> PlacedThing:
    """The thing scaled down to at most that width and height. Its longer side is a whole number of cells, but at least
    1.5."""
    scale = min(1.0, width / thing.width, height / thing.height)
    side = max(thing.width, thing.height) * scale
    return replace_side(thing, max(float(int(side)), 1.5))


def relation_holds(relation: str, a: PlacedThing, b: PlacedThing) -> bool:
    """Whether the boxes of two things are in a relation."""
    (ax, ay), (bx, by) = a.centre, b.centre
    if relation in ("right of", "below", "behind"):
        return relation_holds(CONVERSE[relation], b, a)
    if relation == "left of":
        return a.x + a.width <= b.x + 0.35 and bx - ax > abs(by - ay)
    if relation == "above":
        return a.bottom <= b.y + 0.35 and by - ay > abs(bx - ax)
    if relation == "next to":
        apart = max(b.x - a.x - a.width, a.x - b.x - b.width)
        return -0.35 <= apart <= 2.6 and abs(bx - ax) > abs(by - ay)
    if relation == "in front of":
        return a.bottom > b.bottom and a.overlap(b) > 0.05
    if relation == "on":
        return b.x - 0.3 * a.width <= ax <= b.x + b.width + 0.3 * a.width and b.y - 0.3 <= a.bottom < b.bottom
    if relation == "inside":
        return b.x <= ax <= b.x + b.width and b.y < a.bottom <= b.bottom and a.y < b.y + 0.8 * b.height
    raise ValueError(f"no relation is called {relation!r}")


def arrange(
    request: SceneRequest, drawings: Drawings, columns: int, rows: int, rng: np.random.Generator, snap: float = 1.0
) -> WorldScene:
    """Arrange a request as a scene. Sizes depend on the number of things. Each thing stands, floats or flies as the
    table says. Things overlap only where a relation needs it. All things are scaled down where they do not fit.
    ValueError where no arrangement is found."""
    for shrink, room in ((1.0, 0.02), (1.0, 0.12), (0.85, 0.12), (0.7, 0.16), (0.55, 0.25)):
        for _ in range(10):
            placed = _Arranger(request, drawings, columns, rows, snap, rng).attempt(shrink, room)
            if placed is not None:
                return WorldScene(
                    columns, rows, request.groups, placed, request.backdrop, request.time, request.weather,
                    request.style, request.relation, int(rng.integers(2**31)),
                )  # fmt: skip
    raise ValueError(f"no arrangement of {request} on {columns} x {rows} cells was found")
