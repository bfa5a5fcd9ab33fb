"""Labels of a scene, as training targets.

`cell_answers`: what each cell shows; for tokenizers and generators.
`centre_answers`: where each thing has its centre; for the judge.
`told_facts`: what a caption tells; for the text encoder.

Axes: B scenes, h w cells of a picture, N = h w.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from train.world.arrangement import CONVERSE, MOST_OF_A_THING, PAINTED_STYLES, RELATIONS, SIDES, STYLES, WorldScene
from train.world.backdrops import BACKDROPS, COLOURS, TIMES, WEATHERS

COLOUR_CLASSES = ("", *COLOURS)  # of a thing; "": its natural colours
PARTS = 4  # a drawing is divided into PARTS x PARTS parts
# The first five have the names of LAYOUT in train/losses, the label heads of a generator.
CELL_ANSWERS = ("things", "parts", "grounds", "styles", "colours", "times", "weathers")
ROLES = (*RELATIONS, "under", "around")  # "under" and "around": the second thing of "on" and "inside"
OF_A_THING = (*map(str, range(1, MOST_OF_A_THING + 1)), "small", "large", *ROLES, *COLOURS)
OF_A_SCENE = (*BACKDROPS, *TIMES, *WEATHERS, *STYLES)


def answer_counts(things: int) -> tuple[int, ...]:
    """The number of classes of each of CELL_ANSWERS, "no thing" included. `things`: how many things the world has."""
    return things + 1, PARTS**2 + 1, len(BACKDROPS), len(STYLES), len(COLOUR_CLASSES), len(TIMES), len(WEATHERS)


def cover(scene: WorldScene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(thing, part, colour) of the topmost thing at the centre of each cell (h, w). Thing i is class i + 1. A part is
    the row and column in a 4 x 4 division of the thing's box. A colour is an index into COLOUR_CLASSES. 0 where no
    thing is."""
    shape = scene.rows, scene.columns
    thing, part, colour = (np.zeros(shape, np.int64) for _ in range(3))
    y, x = np.mgrid[0 : scene.rows, 0 : scene.columns] + 0.5
    for placed in scene.placed:
        across, down = (x - placed.x) / placed.width, (y - placed.y) / placed.height
        inside = (across >= 0) & (across < 1) & (down >= 0) & (down < 1)
        number = 1 + np.floor(down * PARTS) * PARTS + np.floor(across * PARTS)
        thing[inside] = placed.thing.index + 1
        part[inside] = number[inside]
        colour[inside] = COLOUR_CLASSES.index(placed.colour)
    return thing, part, colour


def cell_answers(scenes: Sequence[WorldScene]) -> dict[str, Int[Tensor, "B N"]]:
    """CELL_ANSWERS of scenes of one shape. Ground (the backdrop), time, weather and style are the same in all cells."""
    things, parts, colours = (
        torch.from_numpy(np.stack(answer)).flatten(1) for answer in zip(*map(cover, scenes), strict=True)
    )

    def everywhere(options: Sequence[str], names: list[str]) -> Int[Tensor, "B N"]:
        return torch.tensor([options.index(name) for name in names])[:, None].expand_as(things)

    return dict(zip(CELL_ANSWERS, (
        things,
        parts,
        everywhere(BACKDROPS, [scene.backdrop for scene in scenes]),
        everywhere(STYLES, [scene.style for scene in scenes]),
        colours,
        everywhere(TIMES, [scene.time for scene in scenes]),
        everywhere(WEATHERS, [scene.weather for scene in scenes]),
    ), strict=True))  # fmt: skip


def centre_answers(scene: WorldScene) -> dict[str, np.ndarray | int]:
    """Targets of the judge. Of each cell (h, w): "thing" (0 where no thing has its centre), "side" (an index into
    SIDES) and "colour", which are -1 there. Of the whole picture: "backdrop", "time", "weather" and "style"."""
    shape = scene.rows, scene.columns
    thing, side, colour = np.zeros(shape, np.int64), np.full(shape, -1, np.int64), np.full(shape, -1, np.int64)
    for placed in scene.placed:
        x, y = placed.centre
        cell = min(int(y), scene.rows - 1), min(int(x), scene.columns - 1)
        thing[cell] = placed.thing.index + 1
        longer = max(placed.width, placed.height)
        side[cell] = min(range(len(SIDES)), key=lambda i: abs(SIDES[i] - longer))
        if scene.style in PAINTED_STYLES:  # a sketch has no colours, not even natural ones
            colour[cell] = COLOUR_CLASSES.index(placed.colour)
    return {
        "thing": thing, "side": side, "colour": colour, "backdrop": BACKDROPS.index(scene.backdrop),
        "time": TIMES.index(scene.time), "weather": WEATHERS.index(scene.weather), "style": STYLES.index(scene.style),
    }  # fmt: skip


def fact_count(things: int) -> int:
    return things * len(OF_A_THING) + len(OF_A_SCENE)


def told_facts(scene: WorldScene, things: int) -> list[int]:
    """Indices of the facts in a caption of the scene: count, size word, colour and role of each thing; backdrop, time,
    weather and style of the scene. `things`: how many things the world has."""
    found = []
    for place, group in enumerate(scene.groups):
        role = ""
        if scene.relation and place < 2:
            second = {"on": "under", "inside": "around"} | CONVERSE
            role = scene.relation if place == 0 else second[scene.relation]
        told = [str(group.count), *(word for word in (group.word, role, group.colour) if word)]
        found += [group.thing.index * len(OF_A_THING) + OF_A_THING.index(word) for word in told]
    first = things * len(OF_A_THING)
    offsets = np.cumsum([0, len(BACKDROPS), len(TIMES), len(WEATHERS)])
    answers = (BACKDROPS.index(scene.backdrop), TIMES.index(scene.time), WEATHERS.index(scene.weather),
               STYLES.index(scene.style))  # fmt: skip
    return [*found, *(first + int(offset) + answer for offset, answer in zip(offsets, answers, strict=True))]
