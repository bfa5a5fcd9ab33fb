"""The state of a run at a step: weights, their average, optimizers. It is saved and loaded whole or not at all."""

import contextlib
import errno
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from maskgil import checkpoint
from maskgil.fileio import atomic_write
from train.ema import EMA, all_finite
from train.kept_checkpoints import BEST, BEST_SHARDED, STATE, candidates, keep_best, keep_best_sharded, keep_newest
from train.optim import build_optimizers
from train.recipe import Recipe
from train.step_guard import StepGuard


class CheckpointWriteError(ValueError):
    """A checkpoint could not be written. Earlier checkpoints are whole, and the same command continues from them."""


def _kept(folder: Path) -> str:
    """A sentence about the checkpoint that remains after a failed write."""
    there = (folder / STATE).is_file() or any(folder.glob("sharded-*"))
    return "the last checkpoint is untouched" if there else "there is no checkpoint yet"


NO_PLACE = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS)


def _remedy(error: BaseException, folder: Path) -> str:
    """What to do about a failed write, and what it leaves."""
    if getattr(error, "errno", None) in NO_PLACE:
        return "give a folder that can be written to"
    return f"free space, {_kept(folder)}"


def save_whole(payload: Any, path: Path) -> None:
    """torch.save to a file that is replaced whole or not at all. CheckpointWriteError on a full disk."""
    try:
        with atomic_write(path) as partial:
            torch.save(payload, partial)
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError on a full disk
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        if isinstance(error, RuntimeError):
            reason = f"the disk is full or gone ({reason})"
        raise CheckpointWriteError(f"could not write {path}: {reason}; {_remedy(error, path.parent)}") from None


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn a full disk into a CheckpointWriteError of one line, for files that are not part of a checkpoint."""
    try:
        yield
    except OSError as error:
        raise CheckpointWriteError(f"could not write to {out}: {error}; {_remedy(error, out)}") from None


def stored(module: nn.Module) -> dict[str, Tensor]:
    """The tensors that a checkpoint keeps. Frozen weights are left out, because the recipe loads them from their
    folder."""
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
    return {name: tensor for name, tensor in module.state_dict().items() if name not in frozen}


def restore(module: nn.Module, like: nn.Module, saved: dict[str, Tensor]) -> None:
    """Load what `stored` gave for `like`, whose shape `module` has. ValueError where the two differ."""
    other = (stored(like).keys() - saved.keys()) | (saved.keys() - like.state_dict().keys())
    own = module.state_dict()
    other |= {name for name, tensor in saved.items() if name in own and own[name].shape != tensor.shape}
    if other:
        raise ValueError(f"the checkpoint is of another recipe: it differs in {', '.join(sorted(other)[:3])}")
    module.load_state_dict(saved, strict=False)


def frozen(modules: Sequence[nn.Module]) -> str:
    """A fingerprint of the frozen weights, which `stored` leaves out."""
    held = {
        f"{number}.{name}": parameter.detach()
        for number, module in enumerate(modules)
        for name, parameter in module.named_parameters()
        if not parameter.requires_grad
    }
    return checkpoint.fingerprint(held) if held else ""


def check_provenance(out: Path, before: dict[str, str], now: dict[str, str]) -> None:
    """ValueError when the data were made by another tokenizer or text encoder than at the start of the run: the shapes
    may fit although the tokens mean something else. Checkpoints without provenance are accepted."""
    for part, made_by in now.items():
        if before.get(part, made_by) != made_by:
            raise ValueError(
                f"{out} was begun with the {part.replace('_', ' ')} {before[part]}, and this command's data are of "
                f"{made_by}: give another out=, or the data that it was begun with"
            )


def load_optimizer_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load an optimizer's moments. Rates and decays stay those of the recipe, which may have changed."""
    asked = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(saved)
    for group, values in zip(optimizer.param_groups, asked, strict=True):
        group.update(values)


@dataclass
class RunState:
    """The state of a run.

    modules     those of the recipe, on their device, perhaps sharded
    average     the moving average of the first module
    optimizers  one or two of each module
    frozen      fingerprint of the frozen weights
    precision   "bf16" or "no", as at the start of the run
    """

    recipe: Recipe
    out: Path
    modules: list[nn.Module]
    average: EMA
    frozen: str
    world: int
    main: bool  # whether this is the process that writes
    precision: str = ""
    step: int = 0
    saved_step: int | None = None  # of the checkpoint that this process wrote last, until one is loaded
    keep: int = 1  # checkpoints that stay
    best: float = float("inf")  # the lowest validation loss so far, and its step
    best_step: int | None = None

    def __post_init__(self) -> None:
        self.guard = StepGuard()
        self.saver: Any = None  # of a sharded run, from its first checkpoint on
        self.broken: list[str] = []  # errors of checkpoints that could not be read
        self.optimizers = [
            build_optimizers(m, part.optim) for m, part in zip(self.modules, self.recipe.modules, strict=True)
        ]

    def load(self) -> int:
        """Load the folder's checkpoint, if there is one; returns the number of processes that wrote it, else 0.

        If it is broken, its error is added to `broken` and an earlier one is tried. ValueError when the checkpoint is
        of another recipe, of data made by other models, or written with another `shard`, and when all are broken.
        """
        self.saved_step = None  # training from here on may give another checkpoint of the same step
        self.broken.clear()
        self.finish_save()
        whole, out = self.out / STATE, self.out
        if self.recipe.shard:
            if whole.is_file():
                raise ValueError(f"{out} was begun without --shard: go on without it, or give another folder")
            return self._load_sharded()
        if list(out.glob("sharded-*")):
            raise ValueError(f"{out} was begun with --shard: go on with it, or give another folder")
        found = list(candidates(out))
        for path in found:
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
            except (RuntimeError, OSError, EOFError, KeyError, pickle.UnpicklingError) as error:
                reason = (str(error).strip() or repr(error)).splitlines()[0][:160]
                self.broken.append(f"{path} is broken and left aside ({reason})")
                continue
            return self._take_whole(state)
        if found:
            raise ValueError(
                f"{self.broken[0]}; there is no other checkpoint in {out}: delete it to begin anew, and "
                "use --keep 2 or more"
            )
        return 0

    def _load_sharded(self) -> int:
        from train import fsdp  # loading torch's checkpointing takes seconds

        first: Exception | None = None
        for path in reversed(fsdp.checkpoints(self.out)):
            try:
                parts = (self.modules[0], self.optimizers[0][0], self.average.model)
                about = fsdp.load_from(path, *parts)
            except (ValueError, OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
                first = first or error
                reason = (str(error).strip() or repr(error)).splitlines()[0][:160]
                self.broken.append(f"{path} is broken and left aside ({reason})")
                continue
            check_provenance(self.out, about.get("made_of", {}), self.recipe.provenance)
            self._take(about)
            return about["world"]
        if first is None:
            return 0
        self.broken.clear()
        if isinstance(first, ValueError):
            raise first
        raise ValueError(f"the checkpoints in {self.out} are broken: {first!r}; delete them to begin anew")

    def _take_whole(self, state: dict[str, Any]) -> int:
        check_provenance(self.out, state.get("made_of", {}), self.recipe.provenance)
        for module, saved in zip(self.modules, state["modules"], strict=True):
            restore(module, module, saved)
        if state.get("frozen", self.frozen) != self.frozen:
            raise ValueError(
                f"{self.out} was begun with other weights that stay as they are (a text encoder, say) than this "
                "command names: give another out=, or the weights that it was begun with"
            )
        for group, saved in zip(self.optimizers, state["optimizers"], strict=True):
            for optimizer, values in zip(group, saved, strict=True):
                load_optimizer_state(optimizer, values)
        restore(self.average.model, self.modules[0], state["average"])
        self._take(state)
        return state.get("world", 1)

    def _take(self, about: dict[str, Any]) -> None:
        self.step = about["step"]
        self.precision = about.get("precision", "")
        self.best, self.best_step = about.get("best") or (float("inf"), None)
        self.guard.restore(about.get("guard", {}))

    def about(self) -> dict[str, Any]:
        """The values of a checkpoint beside its tensors."""
        return {
            "step": self.step,
            "world": self.world,
            "made_of": self.recipe.provenance,
            "precision": self.precision,
            "guard": self.guard.state(),
            "best": None if self.best_step is None else [self.best, self.best_step],
        }

    def finite(self) -> bool:
        """Whether every weight and every average is finite, in all processes."""
        parts = [p for module in (*self.modules, self.average.model) for p in module.parameters()]
        broken = torch.tensor(float(not all_finite(parts)), device=parts[0].device)
        if dist.is_initialized():
            dist.all_reduce(broken, op=dist.ReduceOp.MAX)
        return not broken

    def save(self) -> bool:
        """Write the checkpoint, unless that of this step was written; all processes must call it. If a weight is not
        finite, nothing is written and False is returned.

        CheckpointWriteError on a full disk.
        """
        if self.saved_step == self.step:
            return True
        if not self.finite():
            return False
        if self.recipe.shard:
            from train import fsdp

            if self.saver is None:
                self.saver = fsdp.ShardedSaver(self.out, self.keep)
            self.saver.begin(self.about(), self.modules[0], self.optimizers[0][0], self.average.model)
        elif self.main:
            keys = stored(self.modules[0]).keys()
            tensors = {
                "frozen": self.frozen,
                "modules": [stored(module) for module in self.modules],
                "optimizers": [[o.state_dict() for o in group] for group in self.optimizers],
                "average": {name: t for name, t in self.average.model.state_dict().items() if name in keys},
            }
            save_whole(self.about() | tensors, self.out / STATE)
            with writing(self.out):
                keep_newest(self.out, self.step, self.keep)
        self.guard.returns, self.saved_step = 0, self.step
        return True

    @property
    def written(self) -> bool:
        """Whether all background writes of this process are done."""
        return self.saver is None or self.saver.written

    def finish_save(self) -> None:
        """Wait for the background write; all processes must call it. ValueError when it failed."""
        if self.saver is not None:
            self.saver.finish()

    def keep_best(self) -> None:
        """Keep the checkpoint that was just written as the best by validation."""
        self.finish_save()
        if not self.main:
            return
        with writing(self.out):
            if self.recipe.shard:
                from train import fsdp

                keep_best_sharded(self.out, fsdp.checkpoints(self.out)[-1])
            else:
                keep_best(self.out)

    def load_best(self) -> bool:
        """Load the average of the best checkpoint. If that checkpoint is gone, return False and change nothing. The
        training state cannot be used afterwards."""
        if self.recipe.shard:
            from train import fsdp

            where = self.out / BEST_SHARDED
            parts = (self.modules[0], self.optimizers[0][0], self.average.model)
            return fsdp.load_from(where, *parts) is not None if where.is_dir() else False
        if not (self.out / BEST).is_file():
            return False
        state = torch.load(self.out / BEST, map_location="cpu", weights_only=True)
        restore(self.average.model, self.modules[0], state["average"])
        return True
