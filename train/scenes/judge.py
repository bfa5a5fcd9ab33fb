"""The judge: a network that detects the things of a picture, and the rules that compare them with a prompt.

Axes: B batch, H W pixels, h w cells of 16 px, T things.

Outputs for each cell are the thing whose centre is there (or none), its size and its given colour; outputs for the
whole picture are background and style. The judge is trained only on renders, of all combinations. It is never used to
train a generator or to select the pictures that are scored.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from maskgil import checkpoint
from train.scenes.scene import BACKGROUNDS, COLOUR_CLASSES, HUGE, LARGE, MEDIUM, PAINTED_STYLES, SMALL, STYLES, Scene
from train.scenes.sprites import things

CELL = 16
SIDES = (SMALL, MEDIUM, LARGE, HUGE)
NOTHING = 0  # class 0 of a cell; thing i is class i + 1


@dataclass(frozen=True)
class DetectedThing:
    thing: int  # index into things()
    x: float  # centre, px
    y: float
    size: int  # one of SIDES
    confidence: float
    colour: str = ""  # "": its natural colours


@dataclass(frozen=True)
class SceneDetection:
    items: tuple[DetectedThing, ...]
    background: str
    style: str


@dataclass(frozen=True)
class SceneJudgeConfig:
    widths: tuple[int, ...] = (48, 96, 192)
    blocks: int = 2
    things: int = len(things())

    def to_dict(self) -> dict:
        return {"widths": list(self.widths), "blocks": self.blocks, "things": self.things}

    @classmethod
    def from_dict(cls, values: dict) -> "SceneJudgeConfig":
        return cls(**(values | {"widths": tuple(values["widths"])}))


class Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        return x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))


class SceneJudge(nn.Module):
    """Pixels in [-1, 1], any sides divisible by 16."""

    def __init__(self, config: SceneJudgeConfig = SceneJudgeConfig()):
        super().__init__()
        self.config = config
        first, *_, last = config.widths
        layers: list[nn.Module] = [nn.PixelUnshuffle(4), nn.Conv2d(48, first, 3, padding=1)]
        for before, width in zip((first, *config.widths), config.widths, strict=False):
            if before != width:
                layers.append(nn.Conv2d(before, width, 2, stride=2))
            layers += [Residual(width) for _ in range(config.blocks)]
        self.trunk = nn.Sequential(*layers, nn.GroupNorm(8, last), nn.SiLU())
        self.thing_head = nn.Conv2d(last, config.things + 1, 3, padding=1)
        self.size_head = nn.Conv2d(last, len(SIDES), 3, padding=1)
        self.colour_head = nn.Conv2d(last, len(COLOUR_CLASSES), 3, padding=1)
        self.background_head = nn.Linear(2 * last, len(BACKGROUNDS))
        self.style_head = nn.Linear(2 * last, len(STYLES))

    def features(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        """Pooled trunk features: the space of the Fréchet distance."""
        x = self.trunk(pixels).float()
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> dict[str, Tensor]:
        """Logits: thing (B T+1 h w), size (B 4 h w), colour (B C h w), background (B K), style (B S)."""
        x = self.trunk(pixels)
        pooled = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)
        return {
            "thing": self.thing_head(x),
            "size": self.size_head(x),
            "colour": self.colour_head(x),
            "background": self.background_head(pooled),
            "style": self.style_head(pooled),
        }

    @torch.no_grad()
    def read(self, pixels: Float[Tensor, "B 3 H W"]) -> list[SceneDetection]:
        """The things of each picture: those of cells where a centre is more likely than none, and at least as likely
        as in each neighbouring cell."""
        out = self(pixels)
        chances = out["thing"].float().softmax(1)
        present = 1 - chances[:, NOTHING]
        peak = (present > 0.5) & (present >= F.max_pool2d(present[:, None], 3, 1, 1)[:, 0])
        best = chances[:, 1:].argmax(1)
        sizes, colours = out["size"].argmax(1), out["colour"].argmax(1)
        readings = []
        for b in range(len(pixels)):
            items = tuple(
                DetectedThing(int(best[b, i, j]), (j + 0.5) * CELL, (i + 0.5) * CELL, SIDES[int(sizes[b, i, j])],
                     float(present[b, i, j]), COLOUR_CLASSES[int(colours[b, i, j])])
                for i, j in peak[b].nonzero().tolist()
            )  # fmt: skip
            background = BACKGROUNDS[int(out["background"][b].argmax())]
            readings.append(SceneDetection(items, background, STYLES[int(out["style"][b].argmax())]))
        return readings


def with_more_things(judge: SceneJudge, count: int) -> SceneJudge:
    """The judge with classes for the first `count` things of the table; new things start with a low probability."""
    grown = SceneJudge(replace(judge.config, things=count))
    state, fresh = judge.state_dict(), grown.state_dict()
    for name in ("thing_head.weight", "thing_head.bias"):
        known = len(state[name])
        if known > len(fresh[name]):
            raise ValueError(f"the judge knows {known - 1} things, the corpus has {count}")
        state[name] = torch.cat([state[name], 0.1 * fresh[name][known:]])
    state["thing_head.bias"][len(judge.state_dict()["thing_head.bias"]) :] = -4.0
    grown.load_state_dict(state)
    return grown


def in_scene_size(pixels: Float[Tensor, "B 3 H W"], width: int) -> Float[Tensor, "B 3 _ _"]:
    """Pictures scaled down to the size of their scenes (`width` px wide), of which they are a whole multiple."""
    return F.avg_pool2d(pixels, pixels.shape[3] // width)


def targets(scene: Scene) -> dict[str, np.ndarray | int]:
    """Targets of the judge: "thing" (the class of each cell), "size" and "colour" (of each cell, -1 where no thing has
    its centre), "background" and "style"."""
    h, w = scene.height // CELL, scene.width // CELL
    thing, size, colour = np.zeros((h, w), np.int64), np.full((h, w), -1, np.int64), np.full((h, w), -1, np.int64)
    for item in scene.items:
        x, y = item.centre
        cell = min(int(y // CELL), h - 1), min(int(x // CELL), w - 1)
        thing[cell] = item.thing.index + 1
        size[cell] = min(range(len(SIDES)), key=lambda i: abs(SIDES[i] - item.size))
        if scene.style in PAINTED_STYLES:  # a sketch has no colours
            colour[cell] = COLOUR_CLASSES.index(item.colour)
    background, style = BACKGROUNDS.index(scene.background), STYLES.index(scene.style)
    return {"thing": thing, "size": size, "colour": colour, "background": background, "style": style}


def covers(scene: Scene) -> Int[np.ndarray, "h w"]:
    """The thing (class, as above) at the centre of each cell."""
    out = np.zeros((scene.height // CELL, scene.width // CELL), np.int64)
    for item in scene.items:
        low = [-(-(start - CELL // 2) // CELL) for start in (item.y, item.x)]
        high = [-(-(start + item.size - CELL // 2) // CELL) for start in (item.y, item.x)]
        out[low[0] : high[0], low[1] : high[1]] = item.thing.index + 1
    return out


def augment(pixels: UInt8[Tensor, "B 3 H W"], generator: torch.Generator) -> Float[Tensor, "B 3 H W"]:
    """Renders with the faults of generated pictures: blurred, noisy, with shifted colours. Values about [-1, 1]."""
    x = pixels.float().div(127.5).sub(1)
    b = len(x)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=x.device)

    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    softer = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
    which = draw(b, 1, 1, 1)
    x = torch.where(which < 0.3, x.lerp(soft, draw(b, 1, 1, 1)), torch.where(which > 0.8, x.lerp(softer, 0.8), x))
    x = x * (0.85 + 0.3 * draw(b, 1, 1, 1)) + 0.2 * (draw(b, 3, 1, 1) - 0.5)
    return x + 0.12 * draw(b, 1, 1, 1) * torch.randn(x.shape, generator=generator, device=x.device)


def judge_loss(modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[Tensor, dict]:
    """Cross-entropy of every answer; cells without a thing have the weight 1/20, because most cells have none."""
    pixels = augment(batch["pixels"], generator).contiguous(memory_format=torch.channels_last)
    out = modules[0](pixels)
    weight = torch.ones(out["thing"].shape[1], device=pixels.device)
    weight[NOTHING] = 0.05
    thing = F.cross_entropy(out["thing"].float(), batch["thing"], weight=weight)
    size = F.cross_entropy(out["size"].float(), batch["size"], ignore_index=-1)
    colour = F.cross_entropy(out["colour"].float(), batch["colour"], ignore_index=-1)
    background = F.cross_entropy(out["background"].float(), batch["background"])
    style = F.cross_entropy(out["style"].float(), batch["style"])
    there = batch["thing"] > 0
    right = (out["thing"].argmax(1) == batch["thing"])[there].float().mean()
    loss = thing + 0.3 * (size + colour + style) + 0.2 * background
    return loss, {
        "loss": loss.item(), "accuracy": right.item(), "colour": colour.item(), "background": background.item(),
        "style": style.item(),
    }  # fmt: skip


checkpoint.KINDS["reader"] = lambda config: SceneJudge(SceneJudgeConfig.from_dict(config))


def save_judge(reader: SceneJudge, folder: Path) -> None:
    checkpoint.save(folder, reader, "reader", reader.config.to_dict())


CHECKS = ("objects", "background", "relation", "size", "style", "colour")


def verdict(asked: Scene, seen: SceneDetection) -> dict[str, bool]:
    """{each of CHECKS: whether the picture agrees with the prompt}. `objects`: it shows exactly the things and counts
    that were asked for. `colour`: if a colour was asked for, all things have the right colour; a thing without one has
    its natural colours."""
    wanted = Counter({t.index: n for t, n in asked.groups})
    kept = {
        "objects": Counter(i.thing for i in seen.items) == wanted,
        "background": seen.background == asked.background,
        "style": seen.style == asked.style,
    }
    if asked.relation and kept["objects"]:
        first, second = (next(i for i in seen.items if i.thing == t.index) for t, _ in asked.groups)
        dx, dy = second.x - first.x, second.y - first.y
        kept["relation"] = {
            "left of": dx > abs(dy), "right of": -dx > abs(dy), "above": dy > abs(dx), "below": -dy > abs(dx),
        }[asked.relation]  # fmt: skip
    else:
        kept["relation"] = not asked.relation
    sizes = {item.thing.index: item.size for item in asked.items if item.word}
    kept["size"] = all(i.size == sizes[i.thing] for i in seen.items if i.thing in sizes)
    colours = {thing.index: colour for thing, colour in asked.colours.items()}
    kept["colour"] = not any(colours.values()) or all(i.colour == colours.get(i.thing, "") for i in seen.items)
    return kept
