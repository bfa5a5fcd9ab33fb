"""`maskgil train check`: trains a tiny model for a minute or two, or reads a finished run, and compares the loss with a
reference curve.

The data are synthetic: striped grids of codes, whose condition names the pattern. They need no weights and no files, so
the curve depends on the trainer, the model and the machine only.

Axes: B pictures, N tokens, T text tokens, E width of a text state.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskgil.command_line import CommandFailed
from maskgil.models.config import ModelConfig
from maskgil.models.maskgil import MaskGIL
from train.losses.conditioned import Conditioned
from train.losses.masked_token import MaskedTokenLoss
from train.optim import OptimConfig
from train.recipe import OptimizedModule, Recipe
from train.reference_curve import ReferenceCurve, bundled_curves, compare_with_curve
from train.run_log import load_run_log
from train.trainer import train

SIDE, KINDS, TEXT, WIDTH, CODES = 8, 16, 6, 32, 64
NOISE = 0.05  # share of tokens that are any code
STEPS = 200


@dataclass(frozen=True)
class StripedGrids:
    """Batches of grids with stripes; the text states name direction, distance and codes of the stripes."""

    batch: int
    seed: int

    def __call__(self, index: int) -> dict[str, Any]:
        draw = np.random.default_rng([self.seed, index])
        states = np.random.default_rng(0).standard_normal((KINDS, TEXT, WIDTH), np.float32)
        kind = draw.integers(KINDS, size=self.batch)
        period, down = 2 + kind // 2 % 4, kind % 2
        row, column = np.mgrid[:SIDE, :SIDE]
        place = np.where(down[:, None, None], row, column) + draw.integers(SIDE, size=(self.batch, 1, 1))
        striped = place % period[:, None, None] == 0
        tokens = np.where(striped, 4 * kind[:, None, None], 4 * kind[:, None, None] + 1 + (row + column) % 3)
        noise = draw.random(tokens.shape) < NOISE
        tokens = np.where(noise, draw.integers(CODES, size=tokens.shape), tokens)
        return {
            "tokens": torch.from_numpy(tokens.reshape(self.batch, -1)).long(),
            "states": torch.from_numpy(states[kind]),
            "mask": torch.ones(self.batch, TEXT, dtype=torch.bool),
            "numbers": torch.arange(self.batch) + index * self.batch,
            "grid": (SIDE, SIDE),
        }


def check_recipe(seed: int = 0) -> Recipe:
    """The tiny recipe whose curve `maskgil train check` compares."""
    torch.manual_seed(seed)
    config = ModelConfig(
        codebook_size=CODES, dim=64, layers=2, heads=2, text_dim=WIDTH, text_length=TEXT, qk_norm="layer",
        norm="post", dropout=0.0,
    )  # fmt: skip
    part = OptimizedModule(
        Conditioned(MaskGIL(config)),
        MaskedTokenLoss(smoothing=0.1, seed=seed),
        OptimConfig(lr=3e-3, warmup=30, clip=1.0),
    )
    return Recipe(
        "check", STEPS, (part,), StripedGrids(8, seed), seed=seed, precision="no", workers=0, save_every=0,
        sample_every=0, options={"seed": seed},
    )  # fmt: skip


def check(run: Path | None = None, out: Path | None = None, seed: int = 0, steps: int = STEPS) -> None:
    """Train a tiny model for a minute or two and compare its loss with the reference curve.

    Args:
        run: Folder of a run of your own, which is compared with the curve of its recipe instead.
        out: Folder of the tiny run. Left out: none is kept.
        seed: Of the tiny run: its weights, data and masks.
        steps: Of the tiny run.
    """
    if run is not None:
        _judge(run, _curve_of(run))
        return
    if not 1 <= steps <= STEPS:
        raise ValueError(f"steps={steps}: give 1 to {STEPS}, the length of the reference curve")
    with tempfile.TemporaryDirectory() as scratch:
        folder = out or Path(scratch) / "check"
        train(check_recipe(seed), folder, stop_at=steps)
        _judge(folder, bundled_curves()["check"])


def _curve_of(run: Path) -> ReferenceCurve:
    """The bundled curve of the recipe that a folder is of. ValueError where there is none."""
    if not (run / "run.json").is_file():
        raise ValueError(f"{run} is no folder of a run: it has no run.json")
    name, curves = json.loads((run / "run.json").read_text(encoding="utf-8"))["recipe"], bundled_curves()
    if name not in curves:
        raise ValueError(f"there is no reference curve of {name}; there are those of {', '.join(curves)}")
    return curves[name]


def _judge(folder: Path, curve: ReferenceCurve) -> None:
    """Print the table. CommandFailed when a window is outside the band."""
    rows = compare_with_curve(load_run_log(folder), curve)
    print(f"{'step':>6} {'loss':>8} {'expected':>9} {'band':>8}")
    for row in rows:
        print(f"{row.step:6d} {row.loss:8.4f} {row.expected:9.4f} {row.band:8.4f}{'' if row.normal else '  outside'}")
    outside = [row for row in rows if not row.normal]
    if outside:
        raise CommandFailed(
            f"{len(outside)} of {len(rows)} windows are outside the band, the first at step {outside[0].step}: this "
            "run is not normal"
        )
    print(f"normal: all {len(rows)} windows are inside the band ({curve.made})")
