"""The judge of the open world: a network that detects what a picture shows.

Outputs for each cell are the thing whose centre is there (or none), its size and its given colour; outputs for the
whole picture are backdrop, time, weather and style. The judge is trained only on renders, of all combinations. It is
never used to train a generator or to select the pictures that are scored.

Axes: B pictures, H W pixels, h w cells, T things.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from maskgil import checkpoint
from train.optim import OptimConfig
from train.recipe import OptimizedModule, Recipe
from train.scenes.judge import augment
from train.world.answers import COLOUR_CLASSES
from train.world.arrangement import SIDES, STYLES
from train.world.backdrops import BACKDROPS, TIMES, WEATHERS
from train.world.thing_table import all_things
from train.world.world_data import JudgePictures, WorldScenes

CELL = 12  # pixels of a cell in the judge's input
NOTHING = 0  # class of a cell without a centre; thing i is class i + 1
WHOLE = {"backdrop": BACKDROPS, "time": TIMES, "weather": WEATHERS, "style": STYLES}  # answers of the whole picture


@dataclass(frozen=True)
class WorldJudgeConfig:
    """`things`: it knows the first so many of the table; `widths`: channels at 3, 6 and 12 px."""

    things: int
    widths: tuple[int, ...] = (64, 128, 256)
    blocks: int = 2

    @classmethod
    def from_dict(cls, values: dict) -> "WorldJudgeConfig":
        return cls(**(values | {"widths": tuple(values["widths"])}))


@dataclass(frozen=True)
class SeenThing:
    thing: int  # index into the table
    x: float  # centre, cells
    y: float
    side: int  # cells, one of SIDES
    colour: str  # "": its natural colours
    confidence: float


@dataclass(frozen=True)
class SeenScene:
    things: tuple[SeenThing, ...]
    backdrop: str
    time: str
    weather: str
    style: str


class JudgeBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        return x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))


class WorldJudge(nn.Module):
    """Pixels in [-1, 1], CELL px a cell."""

    def __init__(self, config: WorldJudgeConfig):
        super().__init__()
        self.config = config
        first, *_, last = config.widths
        layers: list[nn.Module] = [nn.PixelUnshuffle(CELL // 4), nn.Conv2d(3 * (CELL // 4) ** 2, first, 3, padding=1)]
        for level, width in enumerate(config.widths):
            if level:
                layers.append(nn.Conv2d(config.widths[level - 1], width, 2, stride=2))
            layers += [JudgeBlock(width) for _ in range(config.blocks)]
        self.trunk = nn.Sequential(*layers, nn.GroupNorm(8, last), nn.SiLU())
        cell = {"thing": config.things + 1, "side": len(SIDES), "colour": len(COLOUR_CLASSES)}
        self.cell_heads = nn.ModuleDict({name: nn.Conv2d(last, n, 3, padding=1) for name, n in cell.items()})
        self.whole_heads = nn.ModuleDict({name: nn.Linear(2 * last, len(o)) for name, o in WHOLE.items()})

    def features(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        """Pooled trunk features: the space of distances between pictures."""
        x = self.trunk(pixels).float()
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> dict[str, Tensor]:
        """Logits: "thing", "side", "colour" (B, K, h, w); "backdrop", "time", "weather", "style" (B, K)."""
        x = self.trunk(pixels)
        pooled = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)
        return {name: head(x) for name, head in self.cell_heads.items()} | {
            name: head(pooled) for name, head in self.whole_heads.items()
        }

    @torch.no_grad()
    def read(self, pixels: Float[Tensor, "B 3 H W"]) -> list[SeenScene]:
        """What each picture shows: the things of cells where a centre is more likely than none, and at least as likely
        as in each neighbouring cell."""
        out = self(pixels)
        chances = out["thing"].float().softmax(1)
        present = 1 - chances[:, NOTHING]
        peak = (present > 0.5) & (present >= F.max_pool2d(present[:, None], 3, 1, 1)[:, 0])
        best, sides, colours = chances[:, 1:].argmax(1), out["side"].argmax(1), out["colour"].argmax(1)
        whole = {name: out[name].argmax(1) for name in WHOLE}
        return [
            SeenScene(
                tuple(
                    SeenThing(
                        int(best[b, i, j]), j + 0.5, i + 0.5, SIDES[int(sides[b, i, j])],
                        COLOUR_CLASSES[int(colours[b, i, j])], float(present[b, i, j]),
                    )
                    for i, j in peak[b].nonzero().tolist()
                ),
                **{name: options[int(whole[name][b])] for name, options in WHOLE.items()},
            )
            for b in range(len(pixels))
        ]  # fmt: skip


def world_judge_loss(modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[Tensor, dict]:
    """Cross-entropy of every answer; cells without a centre have the weight 1/20, because most cells have none."""
    out = modules[0](augment(batch["pixels"], generator).contiguous(memory_format=torch.channels_last))
    weight = torch.ones(out["thing"].shape[1], device=out["thing"].device)
    weight[NOTHING] = 0.05
    loss = F.cross_entropy(out["thing"].float(), batch["thing"], weight=weight)
    for name in ("side", "colour"):
        loss = loss + 0.3 * F.cross_entropy(out[name].float(), batch[name], ignore_index=-1)
    for name in WHOLE:
        loss = loss + 0.2 * F.cross_entropy(out[name].float(), batch[name])
    there = batch["thing"] > 0
    with torch.no_grad():
        shares = {"thing": (out["thing"].argmax(1) == batch["thing"])[there].float().mean()}
        shares |= {
            name: (out[name].argmax(1) == batch[name])[batch[name] >= 0].float().mean() for name in ("side", "colour")
        }
        shares |= {name: (out[name].argmax(1) == batch[name]).float().mean() for name in WHOLE}
    return loss, {"loss": loss.item()} | {f"accuracy/{name}": share.item() for name, share in shares.items()}


checkpoint.KINDS["world-judge"] = lambda config: WorldJudge(WorldJudgeConfig.from_dict(config))


def save_world_judge(judge: WorldJudge, folder: Path) -> None:
    checkpoint.save(folder, judge, "world-judge", asdict(judge.config) | {"widths": list(judge.config.widths)})


def judge_recipe(drawings: str, things: int, steps: int, batch: int, precision: str) -> Recipe:
    """The recipe of the judge, on renders of which half are crowded. ValueError where the table has fewer things."""
    if things > len(all_things()):
        raise ValueError(f"the table has {len(all_things())} things, {things} were asked for")
    torch.manual_seed(0)
    model = WorldJudge(WorldJudgeConfig(things)).to(memory_format=torch.channels_last)
    scenes = WorldScenes(drawings, things, batch, seed=1, crowds=0.5, held_out=None)
    return Recipe(
        name="world-judge",
        steps=steps,
        modules=(OptimizedModule(model, world_judge_loss, OptimConfig(lr=1e-3, muon_lr=0.02, warmup=50, decay=0.6)),),
        batch_at=JudgePictures(scenes, CELL),
        precision=precision,
        ema=0.99,
        save_every=20,
        export=save_world_judge,
    )
