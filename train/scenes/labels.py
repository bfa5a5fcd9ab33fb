"""What is true of a scene, in numbers a network can be asked for: beside tokens, which say everything at once.

`facts` are what a caption tells: they teach a text encoder to read before it has to help anyone draw. `parts` are what
each cell of a picture shows: they teach a generator where things go and which piece of them a cell is.

Axes: B batch, L text tokens, E width of a text state, h w cells, F facts.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from train.scenes.captions import MIRROR
from train.scenes.scene import BACKGROUNDS, COLOUR_CLASSES, COLOURS, RELATIONS, STYLES, Scene
from train.scenes.sprites import things

CELL = 16
OF_A_THING = ("1", "2", "3", "4", "small", "large", *RELATIONS, *COLOURS)
FACTS = len(things()) * len(OF_A_THING) + len(BACKGROUNDS) + len(STYLES)
SIDES = (2, 3, 4, 5)  # cells along an object
FIRST_PART = {side: 1 + sum(s * s for s in SIDES if s < side) for side in SIDES}
CELLS = ("things", "parts", "grounds", "styles", "colours")  # what is told of a cell, in the order of `kinds`
PARTS = 1 + sum(side * side for side in SIDES)  # 0: nothing is there


def facts(scene: Scene) -> list[int]:
    """Indices of what the scene's captions say: of each thing its count, its size word, its colour and where it stands
    to the other; the background; the style."""
    found = []
    for place, (thing, count) in enumerate(scene.groups):
        word = next(item.word for item in scene.items if item.thing is thing)
        relation = scene.relation if place == 0 or not scene.relation else MIRROR[scene.relation]
        said = [str(count), *(s for s in (word, relation, scene.colours[thing]) if s)]
        found += [thing.index * len(OF_A_THING) + OF_A_THING.index(s) for s in said]
    behind = len(things()) * len(OF_A_THING)
    return [*found, behind + BACKGROUNDS.index(scene.background), behind + len(BACKGROUNDS) + STYLES.index(scene.style)]


def parts(scene: Scene) -> tuple[Int[np.ndarray, "h w"], Int[np.ndarray, "h w"], Int[np.ndarray, "h w"]]:
    """(thing class, part, colour) of each cell of a scene on the lattice: thing i is class i + 1, a part says how large
    its object is and which row and column of it the cell holds, colour i that it was given is i + 1. 0 where there is
    none of it."""
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
    """What each cell of scenes of one size shows: "things", "parts" and "colours"; and what all cells of a scene share:
    "grounds", the number of its background, and "styles"."""
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
    """How many answers each of `cells` has, in their order; no thing is one, too."""
    return len(things()) + 1, PARTS, len(BACKGROUNDS), len(STYLES), len(COLOUR_CLASSES)


class CaptionLabelProbe(nn.Module):
    """A text encoder and, while it learns to read, a head over its states: a fact holds if some token tells it.

    That a thing has a number, size or place is told by a token that tells the thing and tells the number: two answers,
    not one for each pair. With one for each pair the encoder learned pairs by heart: of the captions with a number of a
    thing that training never showed it read none, and "three cats" became giraffes. So it reads 92% of them, after 240
    steps instead of 900.
    """

    def __init__(self, text_encoder: nn.Module):
        super().__init__()
        self.text_encoder = text_encoder
        self.kinds = (len(things()), len(OF_A_THING), len(BACKGROUNDS) + len(STYLES))
        self.head = nn.Linear(text_encoder.width, sum(self.kinds))
        # about the share of facts that hold, over a caption's tokens; a pair needs both halves
        nn.init.constant_(self.head.bias, -7.0)
        nn.init.constant_(self.head.bias[: sum(self.kinds[:2])], -3.0)

    def forward(self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B F"]:
        """Logits."""
        thing, what, scene = self.head(self.text_encoder(ids, mask)).float().split(self.kinds, dim=-1)
        thing, what = -thing[..., :, None], -what[..., None, :]
        # sigmoid(t) sigmoid(w) as a logit: -log(e^-t + e^-w + e^-(t + w))
        pairs = -torch.logaddexp(torch.logaddexp(thing, what), thing + what)
        told = torch.cat([pairs.flatten(2), scene], dim=-1)
        return told.masked_fill(~mask[..., None], float("-inf")).logsumexp(1)


def label_probe_loss(modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[Tensor, dict]:
    """Cross-entropy of each fact, summed over the facts of a caption."""
    logits = modules[0](batch["ids"], batch["mask"])
    loss = F.binary_cross_entropy_with_logits(logits, batch["facts"], reduction="sum") / len(logits)
    with torch.no_grad():
        right = ((logits > 0) == (batch["facts"] > 0.5)).all(1).float().mean()
    return loss, {"loss": loss.item(), "read whole": right.item()}
