"""Scenes: objects with their counts, sizes, positions and colours, a background and a style; and the combinations that
are held out.

Positions are multiples of `snap` pixels. The bundled model uses 16, its tokenizer's cell: an object then has the same
tokens wherever it stands, which saves many hours of training. Sizes are sides of a square in pixels. Boxes never
overlap and never leave the picture.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from train.scenes.sprites import Thing, things

SMALL, MEDIUM, LARGE, HUGE = 32, 48, 64, 80
COLOURS = {
    "red": (222, 60, 56),
    "orange": (245, 150, 50),
    "yellow": (250, 218, 80),
    "green": (92, 180, 92),
    "blue": (72, 132, 226),
    "purple": (150, 94, 200),
    "pink": (247, 160, 196),
    "brown": (146, 102, 70),
    "black": (34, 34, 38),
    "white": (252, 252, 252),
}
COLOUR_CLASSES = ("", *COLOURS)  # of a thing; "": its natural colours
PLACES = ("beach", "meadow", "snow", "night", "sunset", "underwater", "desert", "sky", "space", "forest")
PLAIN = "plain"  # no background was asked for
BACKGROUNDS = (PLAIN, *COLOURS, *PLACES)
PAINTS = COLOURS | {"white": (208, 214, 228)}  # of things: a white one stays visible on PLAIN
STYLES = ("3d", "flat", "pixel art", "sketch", "silhouette")
PAINTED_STYLES = ("3d", "flat", "pixel art")  # styles in which things may have other than their natural colours
RELATIONS = ("left of", "right of", "above", "below")
HELD_OUT_SHARE = 0.1
KNOWN_THINGS = 111  # rows of the table that the bundled generators had learned before further rows were added


@dataclass(frozen=True)
class Item:
    thing: Thing
    x: int  # left edge
    y: int  # top edge
    size: int
    word: str = ""  # the size word of its caption: "", "small" or "large"
    colour: str = ""  # one of COLOURS, or "" for its natural colours
    drawing: int = 0  # number of the drawing of the thing

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.size / 2, self.y + self.size / 2


@dataclass(frozen=True)
class Scene:
    width: int
    height: int
    items: tuple[Item, ...]
    background: str = PLAIN
    style: str = "3d"
    relation: str = ""  # of the first item to the second

    @property
    def groups(self) -> tuple[tuple[Thing, int], ...]:
        """(thing, count) in order of first appearance."""
        counts: dict[Thing, int] = {}
        for item in self.items:
            counts[item.thing] = counts.get(item.thing, 0) + 1
        return tuple(counts.items())

    @property
    def colours(self) -> dict[Thing, str]:
        """{thing: the colour that it was given, or ""}."""
        return {item.thing: item.colour for item in self.items}


def _held(*parts: object) -> bool:
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def held_out_relation(a: Thing, relation: str, b: Thing) -> bool:
    """Whether a relation of two things is held out. "a right of b" and "b left of a" are one combination."""
    if relation in ("right of", "below"):
        a, b = b, a
    return _held("relation", a.name, {"right of": "left of", "below": "above"}.get(relation, relation), b.name)


def held_out_background(thing: Thing, background: str) -> bool:
    return background != PLAIN and _held("background", thing.name, background)


def held_out_count(thing: Thing, count: int) -> bool:
    return count > 1 and _held("count", thing.name, count)


def held_out_colour(thing: Thing, colour: str) -> bool:
    return colour != "" and _held("colour", thing.name, colour)


def is_held_out(scene: Scene) -> bool:
    """True when training must never show this scene."""
    if any(held_out_background(t, scene.background) for t, _ in scene.groups):
        return True
    if any(held_out_count(t, n) for t, n in scene.groups):
        return True
    if any(held_out_colour(t, c) for t, c in scene.colours.items()):
        return True
    if len(scene.items) == 2 and len(scene.groups) == 2:
        a, b = scene.items
        (ax, ay), (bx, by) = a.centre, b.centre
        relation = (
            ("left of" if ax < bx else "right of")
            if abs(ax - bx) >= abs(ay - by)
            else ("above" if ay < by else "below")
        )
        return held_out_relation(a.thing, relation, b.thing)
    return False


def _regions(count: int, width: int, height: int, relation: str, rng: np.random.Generator) -> list[tuple]:
    """`count` disjoint areas (x, y, w, h), in the order in which items are placed."""
    if count == 1:
        return [(0, 0, width, height)]
    if count == 2:
        wide = relation in ("left of", "right of") or (not relation and (width >= height or rng.random() < 0.25))
        if wide:
            halves = [(0, 0, width // 2, height), (width // 2, 0, width - width // 2, height)]
        else:
            halves = [(0, 0, width, height // 2), (0, height // 2, width, height - height // 2)]
        return halves[::-1] if relation in ("right of", "below") else halves
    if count == 3 and width > height:
        third = width // 3 // 16 * 16
        return [(0, 0, third, height), (third, 0, width - 2 * third, height), (width - third, 0, third, height)]
    if count == 3 and height > width:
        third = height // 3 // 16 * 16
        return [(0, 0, width, third), (0, third, width, height - 2 * third), (0, height - third, width, third)]
    w, h = width // 2, height // 2
    corners = [(0, 0, w, h), (w, 0, width - w, h), (0, h, w, height - h), (w, h, width - w, height - h)]
    if count == 3:
        return [(w // 2 // 16 * 16, 0, w, h), corners[2], corners[3]]
    return corners


def _place(region: tuple, size: int, jitter: int, snap: int, rng: np.random.Generator) -> tuple[int, int]:
    """A lattice point near the middle of the region."""
    position = []
    for start, length in ((region[0], region[2]), (region[1], region[3])):
        low, high = -(-start // snap), (start + length - size) // snap  # lattice steps that keep the box inside
        high = max(high, low)
        middle = (start + (length - size) / 2) / snap
        reach = jitter / snap
        near = [k for k in range(low, high + 1) if abs(k - middle) <= reach] or [min(max(round(middle), low), high)]
        position.append(int(rng.choice(near)) * snap)
    return position[0], position[1]


def _drawing(thing: Thing, rng: np.random.Generator) -> int:
    return int(rng.integers(thing.drawings)) if thing.drawings > 1 else 0


def arrange(
    wanted: list[tuple[Thing, int, str]],
    width: int,
    height: int,
    background: str,
    style: str,
    relation: str,
    rng: np.random.Generator,
    snap: int = 16,
) -> Scene:
    """A scene of (thing, count, size word) groups. A single object is large, several are medium; size words make them
    smaller or larger. ValueError for no object and for more than four."""
    total = sum(n for _, n, _ in wanted)
    if not 1 <= total <= 4:
        raise ValueError(f"a scene holds 1 to 4 objects, got {total}")
    regions = _regions(total, width, height, relation, rng)
    flat = [(thing, word) for thing, n, word in wanted for _ in range(n)]
    items = []
    for (thing, word), region in zip(flat, regions, strict=True):
        usual, large = (LARGE, HUGE) if total == 1 else (MEDIUM, LARGE)
        size = {"": usual, "small": SMALL, "large": large}[word]
        size = min(size, min(region[2], region[3]) // 16 * 16)
        x, y = _place(region, size, 16, snap, rng)
        items.append(Item(thing, x, y, size, word, drawing=_drawing(thing, rng)))
    return Scene(width, height, tuple(items), background, style, relation)


def paints(thing: Thing, background: str) -> list[str]:
    """The colours that a thing may be given: not the natural colour that a synonym names ("red apple"), not the colour
    of the background, and none for people, who are drawn in every skin tone."""
    if thing.is_person:
        return []
    invisible = {"night": "black", "space": "black", "snow": "white"}.get(background, background)
    natural = {synonym.removesuffix(f" {thing.name}") for synonym in thing.synonyms}
    return [colour for colour in COLOURS if colour != invisible and colour not in natural]


def recolored(scene: Scene, colours: dict[Thing, str]) -> Scene:
    """The scene with new colours for the things in `colours`."""
    items = tuple(replace(item, colour=colours.get(item.thing, item.colour)) for item in scene.items)
    return replace(scene, items=items)


STYLE_SHARES = {"3d": 0.62, "flat": 0.12, "pixel art": 0.1, "sketch": 0.09, "silhouette": 0.07}
PAINTED_SHARE = 0.45  # of scenes in PAINTED_STYLES; each thing of such a scene has a colour with probability 0.8
SIZES = {(128, 128): 0.7, (96, 96): 0.1, (160, 96): 0.1, (96, 160): 0.1}  # (width, height): share of scenes


def sample_size(rng: np.random.Generator) -> tuple[int, int]:
    return list(SIZES)[rng.choice(len(SIZES), p=list(SIZES.values()))]


def _background(style: str, rng: np.random.Generator) -> str:
    if style == "sketch":
        return PLAIN  # paper
    u = rng.random()
    if u < 0.3:
        return PLAIN
    choices = list(COLOURS) if u < 0.6 else list(PLACES)
    if style == "silhouette":
        choices = [c for c in choices if c not in ("black", "night", "space")]
    return choices[rng.integers(len(choices))]


def _paint(scene: Scene, rng: np.random.Generator) -> Scene:
    """Give colours to the things of a share of the scenes."""
    if scene.style not in PAINTED_STYLES or rng.random() >= PAINTED_SHARE:
        return scene
    colours = {}
    for thing, _ in scene.groups:
        choices = paints(thing, scene.background)
        if choices and rng.random() < 0.8:
            colours[thing] = choices[rng.integers(len(choices))]
    return recolored(scene, colours)


def random_scene(
    rng: np.random.Generator, width: int, height: int, *, held_out: bool | None = False, snap: int = 16
) -> Scene:
    """A random scene. `held_out`: False: no held-out combination, for training; True: one with such a combination;
    None: any."""
    table = things()
    while True:
        style = list(STYLE_SHARES)[rng.choice(len(STYLES), p=list(STYLE_SHARES.values()))]
        background = _background(style, rng)
        kind = rng.choice(4, p=[0.42, 0.18, 0.3, 0.1])
        word = rng.choice(["", "small", "large"], p=[0.6, 0.2, 0.2])
        relation = ""
        if kind == 0:
            wanted = [(table[rng.integers(len(table))], 1, str(word))]
        elif kind == 1:
            wanted = [(table[rng.integers(len(table))], int(rng.integers(2, 5)), "")]
        else:
            a, b = (table[i] for i in rng.choice(len(table), 2, replace=False))
            if kind == 2:
                relation = str(rng.choice(["", *RELATIONS], p=[0.2, 0.2, 0.2, 0.2, 0.2]))
                words = [str(rng.choice(["", "small", "large"], p=[0.8, 0.1, 0.1])) for _ in range(2)]
                wanted = [(a, 1, words[0]), (b, 1, words[1])]
            else:
                wanted = [(a, int(rng.integers(1, 4)), ""), (b, 1, "")]
        if sum(n for _, n, _ in wanted) > 3 and min(width, height) < 96:
            continue
        scene = _paint(arrange(wanted, width, height, background, style, relation, rng, snap), rng)
        if held_out is None or is_held_out(scene) == held_out:
            return scene


def paired(rng: np.random.Generator, width: int, height: int, snap: int = 16) -> Scene:
    """A training scene of two kinds of things, of which at least one has a colour.

    A generator takes longest to learn which of two things has which colour, and only one random scene in nine is of
    this kind.
    """
    while True:
        scene = random_scene(rng, width, height, snap=snap)
        if len(scene.groups) == 2 and any(scene.colours.values()):
            return scene


def several(rng: np.random.Generator, width: int, height: int, snap: int = 16) -> Scene:
    """A training scene of three or four different things, most of them rows of the table after KNOWN_THINGS. New things
    are learned faster from one picture of four things than from four pictures of one."""
    table = things()
    weights = np.array([1.0 if thing.index < KNOWN_THINGS else 3.0 for thing in table])
    while True:
        style = list(STYLE_SHARES)[rng.choice(len(STYLES), p=list(STYLE_SHARES.values()))]
        background = _background(style, rng)
        count = 3 if min(width, height) < 128 else 4
        chosen = rng.choice(len(table), count, replace=False, p=weights / weights.sum())
        wanted = [(table[i], 1, "") for i in chosen]
        scene = _paint(arrange(wanted, width, height, background, style, "", rng, snap), rng)
        if not is_held_out(scene):
            return scene


def new_things(rng: np.random.Generator, width: int, height: int, snap: int = 16) -> Scene:
    """A training scene of any kind that shows a row of the table after KNOWN_THINGS, for the training of an expert.

    Raises ValueError for a table without such rows.
    """
    if len(things()) <= KNOWN_THINGS:
        raise ValueError(f"the table has no things after the first {KNOWN_THINGS}: raise CORPUS_THINGS first")
    while True:
        scene = (random_scene, paired, several)[rng.choice(3, p=[0.5, 0.25, 0.25])](rng, width, height, snap=snap)
        if any(thing.index >= KNOWN_THINGS for thing, _ in scene.groups):
            return scene


def crowded(rng: np.random.Generator, width: int, height: int, snap: int = 16) -> Scene:
    """A scene with as many objects as fit, of all sizes: the tokenizer and the judge learn most from such a picture."""
    table = things()
    style = list(STYLE_SHARES)[rng.choice(len(STYLES), p=[0.5, 0.2, 0.12, 0.1, 0.08])]
    background = _background(style, rng)
    allowed = [t for t in table if not held_out_background(t, background)]
    taken = np.zeros((height // 16 + 1, width // 16 + 1), bool)
    items = []
    for _ in range(24):
        size = int(rng.choice([SMALL, MEDIUM, LARGE, HUGE], p=[0.3, 0.35, 0.25, 0.1]))
        if size > min(width, height):
            continue
        x = int(rng.integers(0, (width - size) // snap + 1)) * snap
        y = int(rng.integers(0, (height - size) // snap + 1)) * snap
        cells = np.s_[y // 16 : -(-(y + size) // 16), x // 16 : -(-(x + size) // 16)]
        if not taken[cells].any():
            taken[cells] = True
            thing, colour = allowed[rng.integers(len(allowed))], ""
            if style in PAINTED_STYLES and rng.random() < PAINTED_SHARE:
                choices = [c for c in paints(thing, background) if not held_out_colour(thing, c)]
                colour = choices[rng.integers(len(choices))] if choices else ""
            items.append(Item(thing, x, y, size, colour=colour, drawing=_drawing(thing, rng)))
    return Scene(width, height, tuple(items), background, style)
