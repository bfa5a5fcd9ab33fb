"""Random scenes for training, the judge and evaluations, and the combinations that are held out of training."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.world.arrangement import (
    CONVERSE,
    MOST_OF_A_THING,
    MOST_THINGS,
    PAINTED_STYLES,
    STYLES,
    Drawings,
    Group,
    SceneRequest,
    WorldScene,
    arrange,
)
from train.world.backdrops import COLOURS, COUNTRY, PLACE_NAMES, PLAIN, TIMES, WEATHERS, has_weather
from train.world.thing_table import WorldThing

HELD_OUT_SHARE = 0.1
SHAPES = {(12, 12): 0.64, (15, 9): 0.12, (9, 15): 0.12, (15, 15): 0.12}  # (columns, rows): share in training


def _held(*parts: object) -> bool:
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def is_held_out(request: SceneRequest) -> bool:
    """Whether a request has a combination that is held out of training: a thing and a place, a count, a colour, or a
    relation to another thing."""
    for group in request.groups:
        name = group.thing.name
        if request.backdrop not in (PLAIN, COUNTRY) and _held("place", name, request.backdrop):
            return True
        if group.count > 1 and _held("count", name, group.count):
            return True
        if group.colour and _held("colour", name, group.colour):
            return True
    if request.relation:
        a, relation, b = request.groups[0].thing.name, request.relation, request.groups[1].thing.name
        if relation in ("right of", "below", "behind"):
            a, relation, b = b, CONVERSE[relation], a
        return _held("relation", a, relation, b)
    return False


@dataclass(frozen=True)
class Shares:
    """Shares of training scenes. `kinds`: of one thing, one counted group, two things, two counted groups, three
    different things, four different things, and a crowd."""

    kinds: tuple[float, ...] = (0.2, 0.14, 0.28, 0.1, 0.1, 0.08, 0.1)
    styles: tuple[float, ...] = (0.68, 0.11, 0.08, 0.07, 0.06)
    walls: float = 0.28  # before a coloured wall
    plain: float = 0.22  # before a plain wall
    painted: float = 0.45  # with colours for things, among those of PAINTED_STYLES
    sized: float = 0.3  # of things with a size word, in scenes of one thing or of two single things


CROWDS = Shares(kinds=(0.0, 0.0, 0.0, 0.15, 0.1, 0.15, 0.6))
PAIRS = Shares(kinds=(0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0), painted=0.9)


def _pick(options: Sequence, rng: np.random.Generator):
    return options[int(rng.integers(len(options)))]


def _backdrop(style: str, shares: Shares, rng: np.random.Generator) -> tuple[str, str, str]:
    """(backdrop, time, weather)."""
    u = rng.random()
    if style == "sketch" or u < shares.plain:
        return PLAIN, "day", "clear"
    if u < shares.plain + shares.walls:
        walls = [c for c in COLOURS if style != "silhouette" or c not in ("black", "brown", "purple", "blue")]
        return _pick(walls, rng), "day", "clear"
    places = [p for p in PLACE_NAMES if style != "silhouette" or p not in ("space", "moon", "cave", "library")]
    backdrop = _pick(places, rng) if rng.random() < 0.85 else COUNTRY
    if not has_weather(backdrop):
        return backdrop, "day", "clear"
    v = rng.random()
    time = _pick(TIMES[1:], rng) if v < 0.42 else "day"
    weather = _pick(WEATHERS[1:], rng) if rng.random() < 0.3 else "clear"
    if backdrop == COUNTRY and (time, weather) == ("day", "clear"):
        time = _pick(TIMES[1:], rng)
    if style == "silhouette" and time == "night":
        time = "sunset"
    return backdrop, time, weather


def _colour(thing: WorldThing, backdrop: str, rng: np.random.Generator) -> str:
    """A colour that differs from the backdrop and that no name of the thing contains."""
    names = {word for name in (thing.name, *thing.synonyms) for word in name.split()}
    return _pick([c for c in COLOURS if c not in names and c != backdrop], rng)


def _groups(kind: int, things: Sequence[WorldThing], rng: np.random.Generator) -> list[tuple[WorldThing, int]]:
    different = (1, 1, 2, 2, 3, 4, int(rng.integers(2, 5)))[kind]
    chosen = [things[i] for i in rng.choice(len(things), different, replace=False)]
    if kind == 1:
        counts = [int(rng.choice([2, 3, 4, 5, 6], p=[0.28, 0.25, 0.22, 0.13, 0.12]))]
    elif kind == 3:
        counts = [int(rng.integers(2, 5)), int(rng.integers(1, 5))]
    elif kind == 6:
        total = int(rng.integers(5, MOST_THINGS + 1))
        counts = [1] * different
        while sum(counts) < total and min(counts) < MOST_OF_A_THING:
            counts[int(rng.integers(different))] += 1
        counts = [min(count, MOST_OF_A_THING) for count in counts]
    else:
        counts = [1] * different
    return list(zip(chosen, counts, strict=True))


def _relation(groups: list[tuple[WorldThing, int]], rng: np.random.Generator) -> str:
    if len(groups) < 2 or groups[0][1] > 1 or groups[1][1] > 1 or len(groups) > 3:
        return ""
    b = groups[1][0]
    choices = ["", "left of", "right of", "above", "below", "next to", "in front of", "behind"]
    chances = [0.12, 0.15, 0.15, 0.15, 0.15, 0.08, 0.1, 0.1]
    if b.on is not None:
        choices, chances = [*choices, "on"], [*chances, 0.7]
    if b.inside is not None:
        choices, chances = [*choices, "inside"], [*chances, 0.7]
    return choices[rng.choice(len(choices), p=np.array(chances) / sum(chances))]


def sample_request(things: Sequence[WorldThing], rng: np.random.Generator, shares: Shares = Shares()) -> SceneRequest:
    """A random request, which may be held out."""
    style = STYLES[rng.choice(len(STYLES), p=shares.styles)]
    backdrop, time, weather = _backdrop(style, shares, rng)
    kind = int(rng.choice(len(shares.kinds), p=shares.kinds))
    counted = _groups(kind, things, rng)
    painted = style in PAINTED_STYLES and rng.random() < shares.painted
    groups = []
    for thing, count in counted:
        word = str(rng.choice(["small", "large"])) if rng.random() < shares.sized and kind in (0, 2) else ""
        colour = _colour(thing, backdrop, rng) if painted and not thing.is_person and rng.random() < 0.8 else ""
        groups.append(Group(thing, count, word, colour))
    return SceneRequest(tuple(groups), backdrop, time, weather, style, _relation(counted, rng))


def sample_shape(rng: np.random.Generator) -> tuple[int, int]:
    """A random shape (columns, rows)."""
    return list(SHAPES)[rng.choice(len(SHAPES), p=list(SHAPES.values()))]


def sample_scene(
    things: Sequence[WorldThing],
    drawings: Drawings,
    columns: int,
    rows: int,
    rng: np.random.Generator,
    *,
    held_out: bool | None = False,
    shares: Shares = Shares(),
    snap: float = 1.0,
) -> WorldScene:
    """A random scene. `held_out`: False: no held-out combination, for training; True: one with such a combination;
    None: any."""
    while True:
        request = sample_request(things, rng, shares)
        if held_out is not None and is_held_out(request) != held_out:
            continue
        try:
            return arrange(request, drawings, columns, rows, rng, snap)
        except ValueError:
            continue  # the things do not fit into this shape
