"""The stages of the open world: python -m train.world.world_stages codes --out runs/world/codes

Each stage goes on from the state in its folder; the same command resumes it. README.md beside this file lists the
stages, their order and their cost.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from PIL import Image

Stage = Literal["codes"]


@dataclass(frozen=True)
class StageOptions:
    """One stage of the open world's training."""

    stage: tyro.conf.Positional[Stage]
    out: Path
    drawings: Path = Path("cache/world/drawings.zip")
    things: int = 240  # the first so many of the table
    steps: int = 4000
    batch: int = 16
    threads: int = 2
    stop_at: int | None = None  # end early at this step, state saved
    precision: Literal["auto", "bf16", "no"] = "auto"  # auto: bf16 where the processor or the GPU multiplies it fast


def write_rows(rows: list[torch.Tensor], path: Path) -> None:
    """Write rows of (B, 3, H, W) pixels in [-1, 1] as one sheet."""
    sheet = torch.cat([torch.cat(list(row.cpu()), -1) for row in rows], -2)
    array = sheet.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(np.ascontiguousarray(array)).save(path)


def chosen_precision(precision: str) -> str:
    """ "bf16" or "no". A processor without bfloat16 units is 80 times slower with it than with float32."""
    if precision != "auto":
        return precision
    return "bf16" if torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported() else "no"


def run_stage(options: StageOptions) -> None:
    """Train a stage up to its last step, or to `stop_at`."""
    from train.trainer import train
    from train.world.code_stage import code_recipe

    torch.set_num_threads(options.threads)
    precision = chosen_precision(options.precision)
    recipe = {"codes": code_recipe}[options.stage](
        str(options.drawings), options.things, options.steps, options.batch, precision
    )
    train(recipe, options.out, stop_at=options.stop_at)


if __name__ == "__main__":
    try:
        run_stage(tyro.cli(StageOptions))
    except ValueError as error:
        print(f"world_stages: {error}", file=sys.stderr)
        sys.exit(2)
