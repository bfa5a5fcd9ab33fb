"""What a step costs in memory, and what trades time for it: recomputed activations, compiled blocks.

Both change blocks in place. Parameter names and results stay the same.
"""

import importlib.util
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from maskgil.models import diffusion_head, emigm, transformer

# The repeated blocks of the large models. eMIGM's head is among them: it sees each hidden token several times and takes
# a quarter of a step's activations.
BLOCKS = (transformer.Block, emigm.ViTBlock, diffusion_head.ResidualBlock)


def blocks(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.modules() if isinstance(part, BLOCKS)]


def recomputed(module: nn.Module) -> None:
    """Keep only the inputs of each block for the backward pass (Chen et al. 2016)."""
    for block in blocks(module):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def compiled(module: nn.Module) -> None:
    """Apply torch.compile to each block by itself. The blocks are alike, so they share one compilation.

    Call it before `recomputed`: torch leaves a recomputed block uncompiled without a warning, and recomputes a compiled
    one.
    """
    for block in blocks(module):
        block.forward = torch.compile(block.forward)


def bytes_needed(modules: list[nn.Module], pieces: int = 1) -> int:
    """Bytes on each process: weights and their average, and for trained weights the gradient and AdamW's two moments.

    If all weights are trained in float32 that is 20 bytes a parameter, divided by the number of pieces. Activations are
    not counted.
    """
    parameters = [p for module in modules for p in module.parameters()]
    held = sum(p.numel() * p.element_size() * 2 for p in parameters)
    moved = sum(p.numel() * p.element_size() * 3 for p in parameters if p.requires_grad)
    return (held + moved) // pieces


def check_memory(name: str, modules: list[nn.Module], pieces: int, room: int) -> None:
    """ValueError when a device of `room` bytes cannot even hold its piece of the model, with what would help."""
    needed = bytes_needed(modules, pieces)
    if needed > room:
        processes = bytes_needed(modules) // room + 1
        raise ValueError(
            f"{name} needs {needed / 1e9:.1f} GB a GPU for weights, gradients, optimizer and average, this one has "
            f"{room / 1e9:.1f} GB: use --shard on {processes} GPUs or more"
        )


SPARE = 0.9  # share of a device's memory that a run may plan with
COMPILED_SHARE = 0.7  # of its activations is what a compiled model keeps (t2i-xl, docs/performance.md)
LONG_RUN = 1000  # steps: compilation takes about a minute, and wins back 70 ms a step at 775M


@dataclass(frozen=True)
class MemoryPlan:
    """Whether blocks are compiled, and whether their activations are computed again in the backward pass."""

    compile: bool
    recompute: bool


def plan_memory(
    device: torch.device,
    held: float,
    activations: float,
    room: float,
    steps: int,
    compile: bool | None,
    recompute: bool | None,
) -> MemoryPlan:
    """What is None is chosen: on a CPU neither. On a GPU of `room` bytes, which holds `held` bytes of weights and
    optimizer, blocks are compiled in runs of LONG_RUN steps and more, and where the `activations` fit only so;
    activations are computed again where they do not fit even then."""
    if device.type != "cuda":
        return MemoryPlan(bool(compile), bool(recompute))
    fits = held + activations <= SPARE * room
    if compile is None:
        compile = has_triton() and (steps >= LONG_RUN or not (fits or recompute))
    if recompute is None:
        recompute = held + activations * (COMPILED_SHARE if compile else 1.0) > SPARE * room
    return MemoryPlan(compile, recompute)


def has_triton() -> bool:
    """Whether torch.compile can make kernels for a GPU here."""
    return importlib.util.find_spec("triton") is not None
