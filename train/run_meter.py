"""Measures a run: rows a second, FLOP utilization, memory, and after a few steps an estimate for the whole run."""

import resource
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from train.model_flops import chip, wait_for
from train.recipe import Recipe
from train.run_options import RunOptions

WARM, MEASURED = 2, 6  # the first steps compile and allocate, so they are not timed
RATE_STEPS = 20  # steps over which the rates of a running step are averaged


def peak_bytes(device: torch.device) -> float:
    """Peak memory of this process in bytes: on the GPU, or in host memory."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held * (1 if sys.platform == "darwin" else 1024)


def rows_of(micro: Sequence[dict[str, Any]]) -> int:
    """Rows (pictures, sentences) of a step's batches."""
    return sum(len(next(value for value in batch.values() if isinstance(value, Tensor))) for batch in micro)


def tokens_of(micro: Sequence[dict[str, Any]]) -> int:
    """Tokens of a step's batches; 0 where the batches have none."""
    grids = [batch["tokens"] for batch in micro if isinstance(batch.get("tokens"), Tensor)]
    return sum(grid.shape[0] * grid.shape[1] for grid in grids if grid.dim() > 1)


class RunMeter:
    """`step` counts a step and returns the values to log; `report` estimates once what the whole run needs."""

    def __init__(self, recipe: Recipe, modules: Sequence[nn.Module], device: torch.device, world: int):
        self.recipe, self.device, self.world = recipe, device, world
        parameters = [p for module in modules for p in module.parameters()]
        self.parameters = sum(p.numel() for p in parameters)
        self.moved = sum(p.numel() for p in parameters if p.requires_grad)
        self.peak = chip(device, recipe.precision)[1] if recipe.flops else 0.0
        self.times: deque[tuple[float, int, float]] = deque(maxlen=RATE_STEPS + 1)
        self.steps, self.rows, self.tokens, self.flops = 0, 0, 0, 0.0
        self.restart()

    def restart(self) -> None:
        """Forget the times so far, after the run did something other than steps."""
        self.times.clear()
        self.times.append((time.monotonic(), self.rows, self.flops))

    def step(self, micro: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Count a step with these batches of this process; other processes have as many."""
        if self.steps < WARM + MEASURED:
            wait_for(self.device)
        self.steps += 1
        self.rows += rows_of(micro) * self.world
        self.tokens += tokens_of(micro) * self.world
        self.flops += sum(self.recipe.flops(batch) for batch in micro) * self.world if self.recipe.flops else 0.0
        self.times.append((time.monotonic(), self.rows, self.flops))
        (start, rows, flops), (end, all_rows, all_flops) = self.times[0], self.times[-1]
        seconds = max(end - start, 1e-9)
        values = {"rows/s": (all_rows - rows) / seconds, "memory_gb": peak_bytes(self.device) / 1e9}
        if self.peak:
            values["mfu"] = (all_flops - flops) / seconds / (self.peak * self.world)
        return values

    def due(self) -> bool:
        """Whether the report can be made and was not made yet."""
        return self.steps == WARM + MEASURED

    def seconds_per_step(self) -> float:
        """Mean over the measured steps."""
        measured = list(self.times)[-MEASURED - 1 :]
        return (measured[-1][0] - measured[0][0]) / (len(measured) - 1)

    def report(self, step: int, options: RunOptions) -> list[str]:
        """What the run needs from `step` on, as lines."""
        seconds, left = self.seconds_per_step(), self.recipe.steps - step
        kind = "GPU" if self.device.type == "cuda" else "processor"
        moving = "all trained" if self.moved == self.parameters else f"{self.moved / 1e6:,.1f}M trained"
        rows, tokens = self.rows / self.steps, self.tokens / self.steps
        processes = "1 process" if self.world == 1 else f"{self.world} processes"
        hours = seconds * left / 3600
        mfu = ""
        if self.peak:
            mfu = f", MFU {100 * self.flops / self.steps / seconds / (self.peak * self.world):.0f}%"
        cost = hours * self.world * options.price_per_hour
        return [
            f"{self.recipe.name}: {self.parameters / 1e6:,.1f}M parameters, {moving}; {rows:,.0f} rows"
            + (f" and {tokens:,.0f} tokens" if tokens else "")
            + f" a step on {processes}",
            f"{self.recipe.name}: {seconds:.3g} s a step, {rows / seconds:,.1f} rows a second{mfu}, "
            f"{peak_bytes(self.device) / 1e9:.1f} GB of {'GPU ' if kind == 'GPU' else ''}memory a process",
            f"{self.recipe.name}: {left:,} steps to go take {hours / 24:.2f} days, "
            f"{hours * self.world:,.2f} {kind} hours"
            + (f", and cost {cost:,.2f} at {options.price_per_hour:g} an hour" if options.price_per_hour else ""),
        ]


class PictureClock:
    """Tells when the next loss curve and sample sheet are due."""

    def __init__(self, minutes: float):
        self.seconds, self.last = minutes * 60, time.monotonic()

    def due(self) -> bool:
        return bool(self.seconds) and time.monotonic() - self.last >= self.seconds

    def drawn(self) -> None:
        self.last = time.monotonic()
