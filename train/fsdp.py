"""FSDP2: parameters, gradients, optimizer and average cut into one piece a process (torch's own fully_shard).

Checkpoints go through torch.distributed.checkpoint: a folder `sharded-<step>` that is renamed into place when every
process has written its piece, so that a kill in the middle leaves the one before. Any number of processes can read it.
"""

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from train.activation_checkpointing import blocks

ABOUT = "about.json"


def join(device: torch.device) -> None:
    """A process that runs alone becomes a group of one, so that its checkpoints are those of many."""
    if not dist.is_initialized():
        backend = "gloo" if device.type == "cpu" else "nccl"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


def shard(module: nn.Module, device: torch.device, precision: str) -> None:
    """Cut the module in place: each block a group that is gathered when it runs, all the rest another.

    Weights stay float32; in bf16 they are gathered as bfloat16 and gradients are summed in float32. Inputs are not cast
    (autocast does that where it is right): rotations would lose their precision.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    if precision == "bf16":
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    for block in blocks(module):
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


def skeleton(module: nn.Module) -> nn.Module:
    """The module's shape without its memory, for `whole`: copied, but for its tensors."""
    shapes: dict[int, Tensor] = {id(p): nn.Parameter(p.detach().to("meta")) for p in module.parameters()}
    shapes |= {id(buffer): buffer.to("meta") for buffer in module.buffers()}
    return copy.deepcopy(module, shapes).eval().requires_grad_(False)


def whole(module: nn.Module, shape: nn.Module) -> nn.Module | None:
    """The module with all its weights, on the CPU of the first process; None elsewhere. All processes must call it."""
    state = get_model_state_dict(module, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if dist.get_rank():
        return None
    full = copy.deepcopy(shape).to_empty(device="cpu")
    full.load_state_dict(state)
    return full


def _state(module: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module) -> tuple[dict, dict]:
    """(what is stored, the optimizer's whole state dict). Rates and decays are not stored: the recipe has them."""
    optimizing = get_optimizer_state_dict(module, optimizer)
    stored = {
        "module": get_model_state_dict(module),
        "average": get_model_state_dict(average),
        "optimizer": optimizing["state"],
    }
    return stored, optimizing


def save_sharded(
    out: Path, about: dict[str, Any], module: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module
) -> None:
    """Write `sharded-<step>` and drop the checkpoints before it. `about`: its "step" and what else is to be kept in
    JSON. ValueError on a full disk; the last checkpoint stays."""
    path = out / f"sharded-{about['step']:07d}"
    partial = path.with_suffix(".partial")
    first = dist.get_rank() == 0
    if first:
        for rest in out.glob("sharded-*.partial"):
            shutil.rmtree(rest)
    dist.barrier()
    try:
        dcp.save(_state(module, optimizer, average)[0], checkpoint_id=partial)
        if first:
            (partial / ABOUT).write_text(json.dumps(about | {"world": dist.get_world_size()}))
            if path.exists():
                shutil.rmtree(path)
            os.replace(partial, path)
    except (OSError, dcp.CheckpointException) as error:
        if first:
            shutil.rmtree(partial, ignore_errors=True)
        reason = (str(error).strip() or repr(error)).splitlines()[-1]
        raise ValueError(f"could not write {path}: {reason}; free space, the last checkpoint is untouched") from None
    if first:
        for old in checkpoints(out)[:-1]:
            shutil.rmtree(old)
    dist.barrier()


def checkpoints(out: Path) -> list[Path]:
    """Whole checkpoints of a run, the newest last."""
    return sorted(path for path in out.glob("sharded-*") if (path / ABOUT).is_file() and path.suffix != ".partial")


def load_sharded(
    out: Path, module: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module
) -> dict[str, Any] | None:
    """Read the newest checkpoint in place; returns what `save` was told `about` it, with the "world" of processes that
    wrote it. None when there is none, ValueError when it is of another model, or broken."""
    if not (found := checkpoints(out)):
        return None
    stored, optimizing = _state(module, optimizer, average)
    written = dcp.FileSystemReader(found[-1]).read_metadata().state_dict_metadata
    ours = {f"module.{name}" for name in stored["module"]}
    if more := {name for name in written if name.startswith("module.")} - ours:  # torch would leave them aside
        raise ValueError(f"the checkpoint {found[-1]} is of another recipe: it holds {min(more)}, too")
    try:
        dcp.load(stored, checkpoint_id=found[-1])
    except dcp.CheckpointException as error:  # none of Python's Exceptions: nothing else would catch it
        first, _ = next(iter(error.failures.values()))
        reason = (str(first).strip() or repr(first)).splitlines()[0]
        raise ValueError(f"the checkpoint is of another recipe, or {found[-1]} is broken: {reason}") from None
    set_model_state_dict(module, stored["module"])
    set_model_state_dict(average, stored["average"])
    set_optimizer_state_dict(module, optimizer, optimizing | {"state": stored["optimizer"]})
    return json.loads((found[-1] / ABOUT).read_text())
