"""Parts of a step: gradients over many batches and processes, autocast, the validation loss."""

import contextlib
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from train.recipe import OptimizedModule, Recipe, SumAndCount


def step_generator(seed: int, step: int, rank: int, device: torch.device) -> torch.Generator:
    mixed = (seed * 1_000_003 + step * 7919 + rank * 104_729) % 2**63
    torch.manual_seed(mixed)  # dropout uses the global generator
    return torch.Generator(device).manual_seed(mixed)


def agreed(values: list[float], device: torch.device) -> list[float]:
    """The sum of each value over all processes; every process must call it with the same number of values."""
    if not dist.is_initialized():
        return values
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return sums.tolist()


def move_batch(batch: dict, device: torch.device) -> dict:
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}


def unwrapped(module: nn.Module) -> nn.Module:
    """The recipe's module, taken out of DDP."""
    return module.module if isinstance(module, DistributedDataParallel) else module


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """bfloat16 autocast where the run uses it. Accelerate's autocast is per process, not per recipe."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def backward(
    part: OptimizedModule,
    own: nn.Module,
    modules: list,
    micro: list[dict],
    generator: torch.Generator,
    step: int,
    precision: str,
) -> tuple[float, dict[str, Any]]:
    """Gradients of a module's loss over the batches of all processes.

    Returns the loss over all of them (over this process's batches if it is a plain mean) and the values to log, means
    over this process's batches.
    """
    logged: dict[str, float] = {}
    sums: list[SumAndCount] = []
    mean = 0.0
    for number, batch in enumerate(micro):
        waits = isinstance(own, DistributedDataParallel) and number < len(micro) - 1
        with own.no_sync() if waits else contextlib.nullcontext():  # gradients are exchanged once a step
            with autocast(precision, generator.device):
                loss, metrics = part.loss(modules, batch, generator, step)
            if isinstance(loss, SumAndCount):
                sums.append(SumAndCount(loss.total.detach().float(), loss.count.float()))
                loss.total.backward()
            else:
                mean += float(loss.detach()) / len(micro)
                (loss / len(micro)).backward()
        for key, value in metrics.items():
            logged[key] = logged.get(key, 0.0) + float(value) / len(micro)
    if sums:
        assert len(sums) == len(micro), "a loss is a SumAndCount for every batch or for none"
        total = torch.stack([sum(s.total for s in sums), sum(s.count for s in sums)])
        world = dist.get_world_size() if dist.is_initialized() else 1
        if dist.is_initialized():
            dist.all_reduce(total)
        # DDP and FSDP average over processes; a sum is needed
        gradients = [p.grad for p in own.parameters() if p.grad is not None]
        torch._foreach_mul_(gradients, float(world / total[1].clamp_min(1)))
        logged["loss"] = mean = float(total[0] / total[1].clamp_min(1))
    return mean, logged


@torch.no_grad()
def validate(recipe: Recipe, average: nn.Module, accelerator: Accelerator) -> float:
    """The first module's loss of the averaged module on the validation batches, shared among the processes."""
    rank, world, device = accelerator.process_index, accelerator.num_processes, accelerator.device
    sums = torch.zeros(2, device=device)
    for start in range(0, recipe.valid_batches, world):
        # a sharded model must run equally often in all processes: one without a batch repeats one, unscored
        number = start + rank
        batch = move_batch(recipe.valid_at(number % recipe.valid_batches), device)
        with autocast(recipe.precision, device):
            loss, _ = recipe.modules[0].loss([average], batch, torch.Generator(device).manual_seed(number), 0)
        if number < recipe.valid_batches:
            part = loss if isinstance(loss, SumAndCount) else SumAndCount(loss, torch.ones_like(loss))
            sums += torch.stack([part.total.float(), part.count.float()])
    if dist.is_initialized():
        dist.all_reduce(sums)
    return float(sums[0] / sums[1])
