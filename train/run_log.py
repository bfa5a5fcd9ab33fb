"""The log of a run: log.jsonl, tensorboard events, sample sheets and the progress line."""

import contextlib
import json
import math
import secrets
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from train.recipe import Recipe
from train.run_state import writing

FILE = "log.jsonl"

# Keys that runs before 2026-11-29 wrote, and their present names.
LEGACY = {
    "looks": "loss/perceptual",
    "judge": "d/loss",
    "told apart": "d/accuracy",
    "fooling": "g/adversarial",
    "right": "accuracy",
    "read whole": "caption_exact_match",
    "named": "cell_accuracy",
    "taught": "loss/distill",
    "on objects": "l1/foreground",
    "grad": "grad_norm",
}


def load_run_log(folder: Path) -> dict[int, dict[str, float]]:
    """The values of each step of a run, by the present keys. If a step was done twice, the later values count. Values
    that were not finite are NaN."""
    rows: dict[int, dict[str, float]] = {}
    *lines, rest = (folder / FILE).read_text(encoding="utf-8").split("\n")
    for line in lines:  # a kill cut the rest, or it is being written
        row = json.loads(line)
        step = row.pop("step")
        rows[step] = {LEGACY.get(k, k): math.nan if v is None else v for k, v in row.items()}
    return rows


def drop_cut_line(path: Path) -> None:
    """Remove the part of a line that a kill left, so that the next record starts on a line of its own."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        data = file.read()
        if data and not data.endswith(b"\n"):
            file.truncate(data.rfind(b"\n") + 1)


def start_wandb(recipe: Recipe, out: Path) -> None:
    """Start wandb, which copies the tensorboard events. ValueError when it is not installed or refuses.

    The run's id is drawn once and kept in its folder, because folder names are not unique in a project.
    """
    try:
        import wandb
    except ImportError:
        raise ValueError("wandb= needs the package: pip install wandb; tensorboard works without") from None
    note = out / "wandb.id"
    if not note.is_file():
        note.write_text(secrets.token_hex(8))
    options = {"project": recipe.wandb, "name": out.name, "dir": str(out), "id": note.read_text()}
    try:
        wandb.init(**options, resume="allow", sync_tensorboard=True)
    except wandb.Error as error:
        raise ValueError(f"wandb does not start: {(str(error).strip() or repr(error)).splitlines()[0]}") from None


class RunLog:
    """The log of one process; all but the main one write nothing."""

    def __init__(self, recipe: Recipe, out: Path, step: int, main: bool):
        self.out, self.main, self.writer = out, main, None
        self.bar = tqdm(total=recipe.steps, initial=step, desc=recipe.name, disable=not main, mininterval=5)
        if main:
            with writing(out):
                drop_cut_line(out / FILE)
                if recipe.wandb:
                    start_wandb(recipe, out)
                self._open(step)

    def _open(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(self.out / "tensorboard"), purge_step=step)

    def step(self, step: int, values: dict[str, Any]) -> None:
        """Write the values of a step. Numbers that are not finite become null, because JSON has none."""
        self.bar.update()
        if not self.main:
            return
        numbers = {key: float(value) for key, value in values.items()}
        self.bar.set_postfix({k: f"{v:.4g}" for k, v in numbers.items()}, refresh=False)
        written = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
        with writing(self.out):
            with (self.out / FILE).open("a", encoding="utf-8") as log:
                log.write(json.dumps({"step": step, **written}, allow_nan=False) + "\n")
            for key, value in numbers.items():
                self.writer.add_scalar(key, value, step)

    def say(self, line: str) -> None:
        """Print one line above the progress bar."""
        if self.main:
            tqdm.write(line)

    def go_back(self, step: int) -> None:
        """Tell the log that the steps after `step` will be done again."""
        if self.main:
            self.writer.close()
            self._open(step)
            self.bar.n = step
            self.bar.refresh()

    def show(self, sheet: Path, step: int) -> None:
        """Put a sample sheet on the dashboard."""
        pixels = np.asarray(Image.open(sheet).convert("RGB"))
        self.writer.add_image("samples", pixels, step, dataformats="HWC")

    def close(self) -> None:
        self.bar.close()
        if self.writer:
            with contextlib.suppress(OSError):  # a full disk has been reported already
                self.writer.close()
