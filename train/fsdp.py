"""FSDP2 (torch's fully_shard): parameters, gradients, optimizer and average are cut into one piece a process.

Checkpoints are written by torch.distributed.checkpoint to a folder `sharded-<step>`, in the background. It is renamed
into place when every process has written its piece, so a kill leaves the previous checkpoint. Any number of processes
can read it.
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
    """Make a single process a group of one, so that its checkpoints have the same format as those of several."""
    if not dist.is_initialized():
        backend = "gloo" if device.type == "cpu" else "nccl"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


def shard(module: nn.Module, device: torch.device, precision: str) -> None:
    """Shard the module in place: each block is a group that is gathered when it runs, the remaining parameters are
    another.

    Weights stay float32. In bf16 they are gathered as bfloat16 and gradients are summed in float32. Inputs are not
    cast, because rotations would lose precision; autocast casts where that is safe.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    if precision == "bf16":
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    for block in blocks(module):
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


def skeleton(module: nn.Module) -> nn.Module:
    """A copy of the module with tensors that take no memory, for `whole`."""
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
    """(what is stored, the optimizer's full state dict). Rates and decays are not stored; the recipe sets them."""
    optimizing = get_optimizer_state_dict(module, optimizer)
    stored = {
        "module": get_model_state_dict(module),
        "average": get_model_state_dict(average),
        "optimizer": optimizing["state"],
    }
    return stored, optimizing


class ShardedSaver:
    """Writes checkpoints `sharded-<step>` during training: `begin` copies the state to host memory, a thread writes it,
    `finish` renames it into place. All processes must call each method.

    It has a gloo process group of its own, because the run's group is in use and may not support CPU tensors.
    """

    def __init__(self, out: Path, keep: int = 1):
        self.out, self.keep = out, keep
        self.group = dist.new_group(backend="gloo")
        self.pending: tuple[Any, Path, dict[str, Any]] | None = None

    @property
    def written(self) -> bool:
        """Whether this process has written everything."""
        return self.pending is None or self.pending[0].done()

    def begin(
        self, about: dict[str, Any], module: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module
    ) -> None:
        """Start to write a checkpoint; a previous one is finished first. `about`: its "step" and other JSON values.
        ValueError on a full disk; the last checkpoint stays."""
        self.finish()
        path = self.out / f"sharded-{about['step']:07d}"
        partial = path.with_suffix(".partial")
        if dist.get_rank() == 0:
            for rest in self.out.glob("sharded-*.partial"):
                shutil.rmtree(rest)
        dist.barrier(self.group)
        stored = _state(module, optimizer, average)[0]
        try:
            future = dcp.async_save(stored, checkpoint_id=partial, process_group=self.group)
        except (OSError, dcp.CheckpointException) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise _not_written(path, error) from None
        self.pending = (future, path, about)

    def finish(self) -> None:
        """Wait until the current checkpoint is written, rename it into place, and delete all but the last `keep`.
        ValueError in every process when one could not write."""
        if self.pending is None:
            return
        (future, path, about), self.pending = self.pending, None
        partial = path.with_suffix(".partial")
        fault: BaseException | None = None
        try:
            future.result()
        except (OSError, dcp.CheckpointException) as error:
            fault = error
        if not self._anywhere(fault) and dist.get_rank() == 0:
            try:
                (partial / ABOUT).write_text(json.dumps(about | {"world": dist.get_world_size()}))
                if path.exists():
                    shutil.rmtree(path)
                os.replace(partial, path)
                for old in checkpoints(self.out)[: -self.keep]:
                    shutil.rmtree(old)
            except OSError as error:
                fault = error
        if self._anywhere(fault):
            if dist.get_rank() == 0:
                shutil.rmtree(partial, ignore_errors=True)
            raise _not_written(path, fault or OSError("another process says why"))

    def _anywhere(self, fault: BaseException | None) -> bool:
        """Whether any process failed."""
        found = torch.tensor(float(fault is not None))
        dist.all_reduce(found, op=dist.ReduceOp.MAX, group=self.group)
        return bool(found)


def _not_written(path: Path, error: BaseException) -> ValueError:
    reason = (str(error).strip() or repr(error)).splitlines()[-1]
    return ValueError(f"could not write {path}: {reason}; free space, the last checkpoint is untouched")


def checkpoints(out: Path) -> list[Path]:
    """Whole checkpoints of a run, the newest last."""
    return sorted(path for path in out.glob("sharded-*") if (path / ABOUT).is_file() and path.suffix != ".partial")


def load_from(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module) -> dict[str, Any]:
    """Load a checkpoint into the module and its optimizers; returns its `about`, with "world", the number of processes
    that wrote it. ValueError when it is of another model, or broken."""
    stored, optimizing = _state(module, optimizer, average)
    written = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
    ours = {f"module.{name}" for name in stored["module"]}
    if more := {name for name in written if name.startswith("module.")} - ours:  # torch would leave them aside
        raise ValueError(f"the checkpoint {path} is of another recipe: it holds {min(more)}, too")
    try:
        dcp.load(stored, checkpoint_id=path)
    except dcp.CheckpointException as error:  # none of Python's Exceptions: nothing else would catch it
        first, _ = next(iter(error.failures.values()))
        reason = (str(first).strip() or repr(first)).splitlines()[0]
        raise ValueError(f"the checkpoint is of another recipe, or {path} is broken: {reason}") from None
    set_model_state_dict(module, stored["module"])
    set_model_state_dict(average, stored["average"])
    set_optimizer_state_dict(module, optimizer, optimizing | {"state": stored["optimizer"]})
    return json.loads((path / ABOUT).read_text())
