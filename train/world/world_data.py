"""Batches of rendered scenes, for the stages that are trained on pictures.

Every batch is a function of (seed, number), so that a run that was stopped continues with the same pictures.
Axes: B scenes, h w cells, H W pixels.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from train.world.answers import centre_answers, cover
from train.world.arrangement import WorldScene
from train.world.renderer import DrawingPack, render_scene
from train.world.scene_sampling import CROWDS, Shares, sample_scene, sample_shape
from train.world.thing_table import first_things


@lru_cache(maxsize=2)
def open_pack(path: str) -> DrawingPack:
    """The drawings of a file, shared by all batches of a process."""
    return DrawingPack(path)


@dataclass(frozen=True)
class WorldScenes:
    """Batches of scenes of one shape. `crowds`: the share of crowded ones, whose pictures show more things.

    things    take the first so many things of the table
    held_out  False: no held-out combination; None: any, for a judge
    """

    drawings: str
    things: int
    batch: int
    seed: int
    crowds: float = 0.0
    held_out: bool | None = False
    square: bool = False

    def __call__(self, index: int) -> tuple[list[WorldScene], np.random.Generator]:
        """(scenes of batch `index`, the generator that made them)."""
        rng = np.random.default_rng([self.seed, index])
        columns, rows = (12, 12) if self.square else sample_shape(rng)
        pack, things = open_pack(self.drawings), first_things(self.things)
        crowded = rng.random(self.batch) < self.crowds
        scenes = [
            sample_scene(things, pack, columns, rows, rng, held_out=self.held_out, shares=CROWDS if c else Shares())
            for c in crowded
        ]
        return scenes, rng


def rendered(scenes: list[WorldScene], drawings: str, cell: int) -> torch.Tensor:
    """Pictures of scenes, (B, 3, H, W) uint8."""
    pictures = np.stack([render_scene(scene, open_pack(drawings), cell) for scene in scenes])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class CodeBatches:
    """For a tokenizer: {"pixels": (B, 3, H, W) uint8, "things", "parts" and "colours": (B, h, w)}."""

    scenes: WorldScenes
    cell: int

    def __call__(self, index: int) -> dict:
        scenes, _ = self.scenes(index)
        things, parts, colours = (torch.from_numpy(np.stack(part)) for part in zip(*map(cover, scenes), strict=True))
        pixels = rendered(scenes, self.scenes.drawings, self.cell)
        return {"pixels": pixels, "things": things, "parts": parts, "colours": colours}


@dataclass(frozen=True)
class JudgePictures:
    """For a judge: {"pixels"} as above, and its targets (centre_answers)."""

    scenes: WorldScenes
    cell: int

    def __call__(self, index: int) -> dict:
        scenes, _ = self.scenes(index)
        answers = [centre_answers(scene) for scene in scenes]
        told = {name: torch.from_numpy(np.stack([a[name] for a in answers])) for name in answers[0]}
        return {"pixels": rendered(scenes, self.scenes.drawings, self.cell)} | told
