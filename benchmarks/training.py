"""What a training step costs: `maskgil bench training --models t2i-xl t2i-xxl --batch 32`.

Prints step time, pictures a second, model FLOP utilization (MFU) and peak memory of the project's own loop on made-up
tokens of 256 x 256 px (256 image tokens, 120 text tokens), and the machine.

MFU counts what the model needs, 6 FLOP a weight and token (4 where LoRA leaves the weights as they are) plus attention,
not what recomputation adds; its whole is the chip's dense bfloat16 rate by its data sheet, or, for an unknown chip, a
large matrix multiplication measured here.
"""

import resource
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from maskgil.models.config import PRESETS, ModelConfig
from maskgil.models.maskgil import MaskGIL
from train.losses.conditioned import Conditioned
from train.losses.masked_token import MaskedTokenLoss
from train.model_flops import chip, step_flops, wait_for
from train.optim import OptimConfig
from train.processes import shutdown_distributed
from train.recipe import OptimizedModule, Recipe
from train.trainer import train

TEXT = PRESETS["t2i-xl"]
MODELS = {
    "t2i-xl": TEXT,
    "t2i-xxl": replace(PRESETS["xxl"], classes=None, text_dim=2048, null_length=120),
    "tiny": ModelConfig(codebook_size=64, dim=32, layers=2, heads=2, text_dim=16, text_length=120),
}


@dataclass(frozen=True)
class MadeUp:
    """Random tokens and states; the same batch every time, so that reading costs nothing."""

    config: ModelConfig
    batch: int
    grid: tuple[int, int]

    def __call__(self, index: int) -> dict[str, Any]:
        draw = torch.Generator().manual_seed(0)
        length, tokens = self.config.text_length, self.grid[0] * self.grid[1]
        return {
            "tokens": torch.randint(self.config.codebook_size, (self.batch, tokens), generator=draw),
            "states": torch.randn(self.batch, length, self.config.text_dim, generator=draw),
            "mask": torch.ones(self.batch, length, dtype=torch.bool),
            "numbers": torch.arange(self.batch) + index * self.batch,
            "grid": self.grid,
        }


class Stopwatch:
    """A loss that notes when each step begins."""

    def __init__(self, loss: MaskedTokenLoss, device: torch.device):
        self.loss, self.device, self.starts = loss, device, {}

    def __call__(self, modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple:
        if step not in self.starts:
            wait_for(self.device)
            self.starts[step] = time.perf_counter()
        return self.loss(modules, batch, generator, step)

    def seconds(self) -> float:
        """Median of the steps after the first three, which compile and allocate."""
        starts = [self.starts[step] for step in sorted(self.starts)]
        return statistics.median(b - a for a, b in zip(starts[3:], starts[4:], strict=False))


def measure_step(name: str, batch: int, size: int, steps: int, rank: int, **options: bool) -> str:
    """One line of the table: `batch` pictures a GPU in each step."""
    config, device = MODELS[name], torch.device("cuda" if torch.cuda.is_available() else "cpu")
    grid = (size // 16, size // 16)
    torch.manual_seed(0)
    with device:  # random numbers for a billion weights take a CPU longer than all steps
        model = Conditioned(MaskGIL(config))
    if rank:
        from train.lora import adapted

        adapted(model.to(torch.bfloat16).generator, rank)
    watch = Stopwatch(MaskedTokenLoss(), device)
    recipe = Recipe(
        name,
        steps,
        (OptimizedModule(model, watch, OptimConfig(lr=1e-5)),),
        MadeUp(config, batch, grid),
        workers=0,
        precision="bf16",
        save_every=0,
        sample_every=0,
        **options,
    )
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        train(recipe, Path(folder))
    seconds = watch.seconds()
    chip_name, rate, origin = chip(device)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    used = step_flops(config, batch, grid[0] * grid[1], frozen=rank > 0) / seconds / rate
    what = ", ".join([key for key, value in options.items() if value] + ([f"LoRA rank {rank}"] if rank else []))
    return (
        f"{name} at {size} px{f' ({what})' if what else ''}: {seconds * 1e3:.0f} ms a step of {batch}, "
        f"{batch / seconds:.1f} pictures/s a device, MFU {used:.1%}, peak {peak / 1e9:.1f} GB "
        f"[{chip_name}; {rate / 1e12:.3g} TFLOP/s {origin}; torch {torch.__version__}]"
    )


def bench_training(
    models: tuple[Literal["t2i-xl", "t2i-xxl", "tiny"], ...] = ("t2i-xl", "t2i-xxl"),
    batch: int = 32,
    size: int = 256,
    steps: int = 12,
    rank: int = 0,
    shard: bool = False,
    activation_checkpointing: bool = False,
    compile: bool = False,
) -> None:
    """Step time, pictures a second, model FLOP utilization and peak memory of a training step on made-up tokens.

    Many GPUs: torchrun --nproc_per_node 8 -m app bench training ...

    Args:
        models: Presets to measure; tiny checks that the command works.
        batch: Pictures a GPU in each step.
        size: Side of the pictures in pixels.
        steps: Steps to run; the first three are not counted.
        rank: LoRA of this rank; 0: all weights are trained.
        shard: FSDP2.
        activation_checkpointing: Compute activations again in the backward pass.
        compile: torch.compile.
    """
    if steps < 6:
        raise ValueError("give at least 6 steps: the first three are not counted")
    options = {"shard": shard, "activation_checkpointing": activation_checkpointing, "compile": compile}
    for name in models:
        print(measure_step(name, batch, size, steps, rank, **options), flush=True)
    shutdown_distributed()


if __name__ == "__main__":
    raise SystemExit("error: this command is `maskgil bench training` now")
