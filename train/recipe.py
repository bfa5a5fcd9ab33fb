"""What a run needs, as values: losses, optimized modules, and the recipe that names them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from train.optim import OptimConfig


@dataclass(frozen=True)
class SumAndCount:
    """A loss that is a mean over items, of which this batch holds `count` with the sum `total`.

    The trainer divides the gradients of all totals by all counts, over accumulation steps and processes, so every
    masked token has the same weight. A loss may also be a plain mean; then every batch has the same weight.
    """

    total: Tensor
    count: Tensor

    @property
    def mean(self) -> Tensor:
        return self.total / self.count.clamp_min(1)


@dataclass(frozen=True)
class OptimizedModule:
    """One optimized module; a recipe with two of them trains adversarially.

    `loss(modules, batch, generator, step)` may read every module of the recipe, but only this one's parameters are
    trained. It returns the loss and the values to log.
    """

    module: nn.Module
    loss: Callable[[list, dict, torch.Generator, int], tuple[Tensor | SumAndCount, dict]]
    optim: OptimConfig = field(default_factory=OptimConfig)


@dataclass(frozen=True)
class Recipe:
    """What is trained, on what, by which loss, and how long.

    batch_at    makes batch number `index`; it must be picklable, because it runs in worker processes
    modules     the first one is averaged, sampled and exported
    provenance  fingerprints of the models that made the data, by name; a resumed run must have the same
    options     the recipe's options, for the run's folder
    chosen      every option of the command, for config.toml in the run's folder
    """

    name: str
    steps: int
    modules: tuple[OptimizedModule, ...]
    batch_at: Callable[[int], dict[str, Any]]
    provenance: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    chosen: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    accumulate: int = 1  # batches a step of each process ...
    batches: int | None = None  # ... or of all processes together: the run is then the same with any number of them
    precision: Literal["auto", "bf16", "no"] = "auto"  # auto: the format that the device multiplies faster
    schedule: Callable[[int, int], float] | None = None  # (step, steps) -> share of the rate; None: the optimizer's own
    shard: bool = False  # FSDP2
    # torch.compile of each transformer block, and computing its activations again in the backward pass. None: as
    # `activations` bytes fit the GPU (plan_memory)
    compile: bool | None = False
    activation_checkpointing: bool | None = False
    activations: float = 0.0
    ema: float = 0.999
    workers: int = 1
    save_every: int = 500  # steps; 0 = never, here and in the next two
    sample_every: int = 1000
    valid_every: int = 1000
    valid_at: Callable[[int], dict[str, Any]] | None = None  # batches for the validation loss of the average
    valid_batches: int = 16
    wandb: str | None = None  # project that also gets tensorboard's numbers
    after_step: Callable[[nn.Module, dict, torch.Generator, int], None] | None = None
    sample: Callable[[nn.Module, Path], None] | None = None  # (averaged module, PNG path)
    export: Callable[[nn.Module, Path], None] | None = None  # (averaged module, folder)
    flops: Callable[[dict[str, Any]], float] | None = None  # of forward and backward of a batch, for MFU

    def __post_init__(self) -> None:
        """ValueError for an impossible number."""
        if self.steps < 1 or self.accumulate < 1 or (self.batches is not None and self.batches < 1):
            raise ValueError(f"{self.name}: steps={self.steps} and batches a step must be 1 or more")
        if not 0 <= self.ema < 1:
            raise ValueError(f"{self.name}: ema={self.ema} is not the decay of an average: give 0 or more, less than 1")


def batches_of_process(recipe: Recipe, world: int) -> int:
    """Batches a step for each of `world` processes. ValueError when they cannot be shared evenly."""
    if recipe.batches is None:
        return recipe.accumulate
    if recipe.batches % world:
        raise ValueError(
            f"{recipe.batches} batches a step cannot be shared by {world} processes: change batch= or micro= so that "
            f"batch / micro is a multiple of {world}, or the number of processes"
        )
    return recipe.batches // world


def describe_world_change(recipe: Recipe, before: int, world: int) -> str:
    """A line that says what continuing with another number of processes changes."""
    if recipe.batches is None:
        return (
            f"{before} processes before, {world} now: a step has {recipe.accumulate * world} batches instead of "
            f"{recipe.accumulate * before}; data are read from another place on"
        )
    return (
        f"{before} processes before, {world} now: each does {batches_of_process(recipe, world)} batches a step instead "
        f"of {recipe.batches // before}; the data, their order and the masks stay the same"
    )
