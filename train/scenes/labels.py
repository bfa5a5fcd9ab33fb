"""Labels of a scene, as targets beside its tokens.

`facts` are the contents of a caption. They train a text encoder before it is used with a generator. `parts` are the
contents of each cell of a picture. They train a generator to place things, and to draw the right part of a thing in
each cell.

Axes: B batch, h w cells, F facts.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from train.scenes.captions import MIRROR
from train.scenes.scene import BACKGROUNDS, COLOUR_CLASSES, COLOURS, RELATIONS, STYLES, Scene
from train.scenes.sprites import things

CELL = 16
OF_A_THING = ("1", "2", "3", "4", "small", "large", *RELATIONS, *COLOURS)
FACTS = len(things()) * len(OF_A_THING) + len(BACKGROUNDS) + len(STYLES)
SIDES = (2, 3, 4, 5)  # cells along an object
FIRST_PART = {side: 1 + sum(s * s for s in SIDES if s < side) for side in SIDES}
CELLS = ("things", "parts", "grounds", "styles", "colours")  # labels of a cell, in the order of `kinds`
PARTS = 1 + sum(side * side for side in SIDES)  # 0: nothing is there


def facts(scene: Scene) -> list[int]:
    """Indices of the facts in the scene's captions: count, size word, colour and relation of each thing; the
    background; the style."""
    found = []
    for place, (thing, count) in enumerate(scene.groups):
        word = next(item.word for item in scene.items if item.thing is thing)
        relation = scene.relation if place == 0 or not scene.relation else MIRROR[scene.relation]
        said = [str(count), *(s for s in (word, relation, scene.colours[thing]) if s)]
        found += [thing.index * len(OF_A_THING) + OF_A_THING.index(s) for s in said]
    behind = len(things()) * len(OF_A_THING)
    return [*found, behind + BACKGROUNDS.index(scene.background), behind + len(BACKGROUNDS) + STYLES.index(scene.style)]


def parts(scene: Scene) -> tuple[Int[np.ndarray, "h w"], Int[np.ndarray, "h w"], Int[np.ndarray, "h w"]]:
    """(thing class, part, colour) of each cell of a scene on the lattice. Thing i is class i + 1. A part stands for the
    size of an object and for the row and column of it that the cell shows. Colour i of COLOURS is class i + 1. 0: no
    thing, no part, natural colours."""
    thing = np.zeros((scene.height // CELL, scene.width // CELL), np.int64)
    part, colour = np.zeros_like(thing), np.zeros_like(thing)
    for item in scene.items:
        side, top, left = item.size // CELL, item.y // CELL, item.x // CELL
        area = np.s_[top : top + side, left : left + side]
        thing[area] = item.thing.index + 1
        part[area] = FIRST_PART[side] + np.arange(side * side).reshape(side, side)
        colour[area] = COLOUR_CLASSES.index(item.colour)
    return thing, part, colour


def cells(scenes: Sequence[Scene]) -> dict[str, Int[Tensor, "B N"]]:
    """Labels of each cell, for scenes of one size: "things", "parts", "colours", and those that all cells of a scene
    share: "grounds" (the number of its background) and "styles"."""
    thing, part, colour = zip(*(parts(scene) for scene in scenes), strict=True)
    things = torch.from_numpy(np.stack(thing)).flatten(1)

    def everywhere(numbers: list[int]) -> Int[Tensor, "B N"]:
        return torch.tensor(numbers)[:, None].expand_as(things)

    return {
        "things": things,
        "parts": torch.from_numpy(np.stack(part)).flatten(1),
        "grounds": everywhere([BACKGROUNDS.index(scene.background) for scene in scenes]),
        "styles": everywhere([STYLES.index(scene.style) for scene in scenes]),
        "colours": torch.from_numpy(np.stack(colour)).flatten(1),
    }


def kinds() -> tuple[int, int, int, int, int]:
    """Number of classes of each of CELLS, in their order, "no thing" included."""
    return len(things()) + 1, PARTS, len(BACKGROUNDS), len(STYLES), len(COLOUR_CLASSES)


def label_kinds() -> tuple[int, int, int]:
    """How many things, labels of a thing and labels of a scene `facts` has, for a LabelProbe."""
    return len(things()), len(OF_A_THING), len(BACKGROUNDS) + len(STYLES)
