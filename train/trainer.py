"""The only training loop. A recipe says what is trained, on what, by which loss; the loop does the rest.

Everything random in a step is a function of (seed, step, process): the batch, the draws of the loss, dropout. So a run
that was killed and started again goes on to the same losses, and no random state has to be stored.

A run's folder holds `state.pt` (parameters, averages, optimizers, step; written whole or not at all; with `shard` a
folder `sharded-<step>`), `log.jsonl`, tensorboard events, `samples/` from time to time and, at the end, `export/`.

Many processes: each takes its share of a step's batches and holds the whole model (DDP), or a piece of it (FSDP2).
"""

import contextlib
import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from maskgil import checkpoint
from train.activation_checkpointing import check_memory, compiled, recomputed
from train.ema import EMA
from train.optim import OptimConfig, build


@dataclass(frozen=True)
class SumAndCount:
    """A loss that is a mean over things, of which this batch holds `count` with the sum `total`.

    The loop divides the gradients of all totals by all counts, over accumulation steps and processes: masked tokens
    then weigh the same wherever they fall. A loss may also be a plain mean; batches then weigh the same.
    """

    total: Tensor
    count: Tensor


@dataclass(frozen=True)
class OptimizedModule:
    """One optimized module; two of them make an adversarial game. `loss(modules, batch, generator, step)` may look at
    every player's module, but only this one's parameters move."""

    module: nn.Module
    loss: Callable[[list, dict, torch.Generator, int], tuple[Tensor | SumAndCount, dict]]
    optim: OptimConfig = field(default_factory=OptimConfig)


@dataclass(frozen=True)
class Recipe:
    """`batch_at(index)` makes batch number `index` (picklable: it runs in worker processes). `players[0]` is what is
    averaged, sampled and exported. `made_of`: fingerprints of what made the data, by name; a run keeps to them."""

    name: str
    steps: int
    modules: tuple[OptimizedModule, ...]
    batch_at: Callable[[int], dict[str, Any]]
    provenance: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    accumulate: int = 1  # batches a step of each process ...
    batches: int | None = None  # ... or of all together: the run is then the same with any number of processes
    precision: str = "bf16"  # or "no"
    schedule: Callable[[int, int], float] | None = None  # (step, steps) -> share of the rate; None: the optimizer's own
    shard: bool = False  # FSDP2
    compile: bool = False  # torch.compile of each transformer block
    activation_checkpointing: bool = False  # activations of a transformer block anew in the backward pass
    ema: float = 0.999
    workers: int = 1
    save_every: int = 500  # 0 = never; so for the other two
    sample_every: int = 1000
    valid_every: int = 1000
    valid_at: Callable[[int], dict[str, Any]] | None = None  # batches of the validation loss, which the average has
    valid_batches: int = 16
    wandb: str | None = None  # project: tensorboard's numbers go there too
    after_step: Callable[[nn.Module, dict, torch.Generator, int], None] | None = None
    sample: Callable[[nn.Module, Path], None] | None = None  # (averaged module, PNG path)
    export: Callable[[nn.Module, Path], None] | None = None  # (averaged module, folder)


class _Batches(Dataset):
    def __init__(self, batch_at: Callable[[int], dict], start: int, stop: int, rank: int, world: int):
        self.batch_at, self.start, self.stop, self.rank, self.world = batch_at, start, stop, rank, world

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> dict:
        return self.batch_at((self.start + index) * self.world + self.rank)


def _quiet(_: int) -> None:
    """A worker takes one core, and leaves signals to the run it serves: Ctrl-C and Slurm reach every process of a run,
    and with its workers dead it could not finish its step and save."""
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _generator(seed: int, step: int, rank: int, device: torch.device) -> torch.Generator:
    mixed = (seed * 1_000_003 + step * 7919 + rank * 104_729) % 2**63
    torch.manual_seed(mixed)  # dropout draws from the global generator
    return torch.Generator(device).manual_seed(mixed)


@contextlib.contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """Set by SIGTERM or the first Ctrl-C: the step in hand is finished and saved. A second Ctrl-C stops at once.
    Afterwards the signals mean again what they meant before."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _agreed(asked: threading.Event, device: torch.device) -> bool:
    """Whether any process was asked to stop: all must leave at the same step."""
    if not dist.is_initialized():
        return asked.is_set()
    flag = torch.tensor(float(asked.is_set()), device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag)


def shutdown_distributed() -> None:
    """End the group of processes, all of them, while Python still runs: what a gloo thread holds of the last exchange
    needs the interpreter to be freed, and a process that is already closing down is aborted (SIGABRT) for it."""
    if dist.is_initialized():
        dist.barrier()  # nobody closes a connection that another one still reads
        dist.destroy_process_group()


class CheckpointWriteError(ValueError):
    """The disk took no more. What was saved before is whole, and the same command goes on from it."""


def save_whole(payload: Any, path: Path) -> None:
    """torch.save that leaves the old file or the new one, never half of one."""
    partial = path.with_name(path.name + ".partial")
    try:
        torch.save(payload, partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # a full disk is a RuntimeError of torch's own writer
        partial.unlink(missing_ok=True)
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise CheckpointWriteError(
            f"could not write {path}: {reason}; free space, the last checkpoint is untouched"
        ) from None
    os.replace(partial, path)


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """A full disk becomes a ValueError of one line: nothing that is written here is part of a checkpoint."""
    try:
        yield
    except OSError as error:
        raise CheckpointWriteError(
            f"could not write to {out}: {error}; free space, the last checkpoint is untouched"
        ) from None


def _move(batch: dict, device: torch.device) -> dict:
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}


def unwrapped(module: nn.Module) -> nn.Module:
    """The recipe's own module, inside DDP or not."""
    return module.module if isinstance(module, DistributedDataParallel) else module


def stored(module: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint keeps: not the weights that never move, which the recipe reads from where they are."""
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
    return {name: tensor for name, tensor in module.state_dict().items() if name not in frozen}


def restore(module: nn.Module, like: nn.Module, saved: dict[str, Tensor]) -> None:
    """Load what `stored` gave for `like`, whose shape `module` has."""
    other = (stored(like).keys() - saved.keys()) | (saved.keys() - like.state_dict().keys())
    own = module.state_dict()
    other |= {name for name, tensor in saved.items() if name in own and own[name].shape != tensor.shape}
    if other:
        raise ValueError(f"the checkpoint is of another recipe: it differs in {', '.join(sorted(other)[:3])}")
    module.load_state_dict(saved, strict=False)


def frozen(modules: Sequence[nn.Module]) -> str:
    """A fingerprint of the weights that never move, which `stored` leaves where they are."""
    held = {
        f"{number}.{name}": parameter.detach()
        for number, module in enumerate(modules)
        for name, parameter in module.named_parameters()
        if not parameter.requires_grad
    }
    return checkpoint.fingerprint(held) if held else ""


def check_provenance(out: Path, before: dict[str, str], now: dict[str, str]) -> None:
    """ValueError when the data are of another tokenizer or text encoder than those the run began with: their numbers
    may fit the model and mean something else. A checkpoint that does not say is taken as it is."""
    for part, made_by in now.items():
        if before.get(part, made_by) != made_by:
            raise ValueError(
                f"{out} was begun with the {part.replace('_', ' ')} {before[part]}, and this command's data are of "
                f"{made_by}: give another out=, or the data that it was begun with"
            )


def load_optimizer_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load what an optimizer has gathered; rates and decays are the recipe's, which may be asked for anew."""
    asked = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(saved)
    for group, values in zip(optimizer.param_groups, asked, strict=True):
        group.update(values)


def follow_in_wandb(recipe: Recipe, out: Path) -> None:
    """Start wandb, which then copies what is written for tensorboard. ValueError when it is not there or refuses.

    The run's id is drawn once and kept in its folder: the folder's name may be that of another run of the project.
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


def share(recipe: Recipe, world: int) -> int:
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
    """What going on with another number of processes means."""
    if recipe.batches is None:
        return (
            f"{before} processes before, {world} now: a step has {recipe.accumulate * world} batches instead of "
            f"{recipe.accumulate * before}; data are read from another place on"
        )
    return (
        f"{before} processes before, {world} now: each does {share(recipe, world)} batches a step instead of "
        f"{recipe.batches // before}; the data, their order and the masks stay the same"
    )


def _autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Not accelerate's: its precision belongs to the process, not to the recipe."""
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")


def backward(
    recipe: Recipe,
    player: OptimizedModule,
    own: nn.Module,
    modules: list,
    micro: list[dict],
    generator: torch.Generator,
    step: int,
    world: int,
) -> dict[str, Any]:
    """Gradients of the player's loss over the batches of all processes; what to log, the loss over all of them."""
    shown: dict[str, Any] = {}
    parts: list[SumAndCount] = []
    for number, batch in enumerate(micro):
        waits = isinstance(own, DistributedDataParallel) and number < len(micro) - 1
        with own.no_sync() if waits else contextlib.nullcontext():  # gradients are exchanged once a step
            with _autocast(recipe, generator.device):
                loss, metrics = player.loss(modules, batch, generator, step)
            if isinstance(loss, SumAndCount):
                parts.append(SumAndCount(loss.total.detach().float(), loss.count.float()))
                loss.total.backward()
            else:
                (loss / len(micro)).backward()
        shown.update(metrics)
    if parts:
        assert len(parts) == len(micro), "a loss is a Part for every batch or for none"
        sums = torch.stack([sum(p.total for p in parts), sum(p.count for p in parts)])
        if dist.is_initialized():
            dist.all_reduce(sums)
        # DDP and FSDP average over processes what is to be a sum
        gradients = [p.grad for p in own.parameters() if p.grad is not None]
        torch._foreach_mul_(gradients, float(world / sums[1].clamp_min(1)))
        shown["loss"] = sums[0] / sums[1].clamp_min(1)
    return shown


@torch.no_grad()
def validate(recipe: Recipe, average: nn.Module, accelerator: Accelerator) -> float:
    """The first player's loss of the averaged module on the validation batches, shared among the processes."""
    rank, world, device = accelerator.process_index, accelerator.num_processes, accelerator.device
    sums = torch.zeros(2, device=device)
    for start in range(0, recipe.valid_batches, world):
        # pieces of a sharded model must run equally often everywhere: who has no batch left repeats one unscored
        number = start + rank
        batch = _move(recipe.valid_at(number % recipe.valid_batches), device)
        with _autocast(recipe, device):
            loss, _ = recipe.modules[0].loss([average], batch, torch.Generator(device).manual_seed(number), 0)
        if number < recipe.valid_batches:
            part = loss if isinstance(loss, SumAndCount) else SumAndCount(loss, torch.ones_like(loss))
            sums += torch.stack([part.total.float(), part.count.float()])
    if dist.is_initialized():
        dist.all_reduce(sums)
    return float(sums[0] / sums[1])


def train(recipe: Recipe, out: Path, *, stop_at: int | None = None) -> nn.Module:
    """Run the recipe in folder `out`, going on from its checkpoint if there is one; return the averaged module.

    `stop_at` ends the run early at that step, checkpoint written: the same command later goes on from there.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator()
    device, rank, world = accelerator.device, accelerator.process_index, accelerator.num_processes
    if (started := int(os.environ.get("WORLD_SIZE", 1))) > world:
        raise ValueError(
            f"{started} processes were started and none would know of the others: without GPUs, set "
            "ACCELERATE_USE_CPU=true"
        )
    accumulate = share(recipe, world)
    raw = [player.module for player in recipe.modules]
    if device.type == "cuda":
        room = torch.cuda.get_device_properties(device).total_memory
        check_memory(recipe.name, raw, world if recipe.shard else 1, room)
    if not recipe.shard:  # else piece by piece as it is cut: all of it may be more than the device holds
        for module in raw:
            module.to(device)
    average, own_frozen = EMA(raw[0], recipe.ema), "" if recipe.shard else frozen(raw)
    if recipe.shard:
        if len(raw) > 1 or recipe.after_step or recipe.modules[0].optim.muon_lr:
            raise ValueError(f"{recipe.name} cannot be sharded: that needs one module, AdamW alone and no after_step")
        # Here, since loading torch's checkpointing takes seconds
        from train import fsdp

        fsdp.join(device)
        shape = fsdp.skeleton(average.model)
    for module in raw:
        if recipe.compile:
            compiled(module)
        if recipe.activation_checkpointing:
            recomputed(module)
    if recipe.shard:
        for module in (raw[0], average.model):
            fsdp.shard(module, device, recipe.precision)
    optimizers = [build(module, player.optim) for module, player in zip(raw, recipe.modules, strict=True)]
    step, before = 0, world
    if recipe.shard:
        if (out / "state.pt").is_file():
            raise ValueError(f"{out} was begun without shard=yes: go on without it, or give another folder")
        if held := fsdp.load(out, raw[0], optimizers[0][0], average.model):
            check_provenance(out, held.get("made_of", {}), recipe.provenance)
            step, before = held["step"], held["world"]
    elif list(out.glob("sharded-*")):
        raise ValueError(f"{out} was begun with shard=yes: go on with it, or give another folder")
    elif (out / "state.pt").is_file():
        state = torch.load(out / "state.pt", map_location="cpu", weights_only=True)
        check_provenance(out, state.get("made_of", {}), recipe.provenance)
        for module, saved in zip(raw, state["modules"], strict=True):
            restore(module, module, saved)
        if state.get("frozen", own_frozen) != own_frozen:
            raise ValueError(
                f"{out} was begun with other weights that stay as they are (a text encoder, say) than this command "
                "names: give another out=, or the weights that it was begun with"
            )
        for group, saved in zip(optimizers, state["optimizers"], strict=True):
            for optimizer, values in zip(group, saved, strict=True):
                load_optimizer_state(optimizer, values)
        restore(average.model, raw[0], state["average"])
        step, before = state["step"], state.get("world", 1)
        del state
    if step and accelerator.is_main_process:
        print(f"{recipe.name}: going on from step {step} of {recipe.steps}")
        if before != world:
            print(f"{recipe.name}: {describe_world_change(recipe, before, world)}")
    modules = raw
    if world > 1 and not recipe.shard:
        where = [device.index] if device.type == "cuda" else None
        modules = [DistributedDataParallel(module, device_ids=where, gradient_as_bucket_view=True) for module in raw]

    def save() -> None:
        if recipe.shard:
            fsdp.save(out, step, raw[0], optimizers[0][0], average.model, recipe.provenance)
        elif accelerator.is_main_process:
            keys = stored(raw[0]).keys()
            save_whole(
                {
                    "step": step,
                    "world": world,
                    "frozen": own_frozen,
                    "made_of": recipe.provenance,
                    "modules": [stored(module) for module in raw],
                    "optimizers": [[o.state_dict() for o in group] for group in optimizers],
                    "average": {name: t for name, t in average.model.state_dict().items() if name in keys},
                },
                out / "state.pt",
            )
        accelerator.wait_for_everyone()

    def finished() -> nn.Module | None:
        """The averaged module, whole, on the main process."""
        return fsdp.whole(average.model, shape) if recipe.shard else average.model

    def show() -> None:
        if recipe.sample:
            drawn = finished()
            if accelerator.is_main_process:
                sheet = out / "samples" / f"{step:07d}.png"
                with writing(out):
                    sheet.parent.mkdir(exist_ok=True)
                    # A sharded model is gathered on the CPU, where a large one draws for minutes: the others wait in
                    # their next step, and not for longer than the process group allows.
                    recipe.sample(drawn.to(device), sheet)
                    writer.add_image("samples", np.asarray(Image.open(sheet).convert("RGB")), step, dataformats="HWC")

    stop = min(recipe.steps, stop_at or recipe.steps)
    if step >= stop and accelerator.is_main_process:
        print(f"{recipe.name}: {out} is at step {step} already: nothing is left to train")
    stop = max(step, stop)
    signals = contextlib.ExitStack()
    batches = _Batches(recipe.batch_at, step * accumulate, stop * accumulate, rank, world)
    loader = iter(
        DataLoader(
            batches,
            batch_size=None,
            num_workers=recipe.workers,
            prefetch_factor=4 if recipe.workers else None,
            worker_init_fn=_quiet,
        )
    )
    writer = None
    try:
        if accelerator.is_main_process:
            from torch.utils.tensorboard import SummaryWriter

            with writing(out):
                if recipe.wandb:
                    follow_in_wandb(recipe, out)
                writer = SummaryWriter(str(out / "tensorboard"), purge_step=step)
        quiet = not accelerator.is_main_process
        bar = tqdm(total=recipe.steps, initial=step, desc=recipe.name, disable=quiet, mininterval=5)
        rows, since, shown, valid, stopping = 0, time.monotonic(), {}, None, False
        asked_to_stop = signals.enter_context(_stop_signal())
        while step < stop and not stopping:
            micro = [_move(next(loader), device) for _ in range(accumulate)]
            generator = _generator(recipe.seed, step, rank, device)
            for player, own, group in zip(recipe.modules, modules, optimizers, strict=True):
                factor = (recipe.schedule or player.optim.factor)(step, recipe.steps)
                for optimizer in group:
                    for g in optimizer.param_groups:
                        g["lr"] = g["full_lr"] * factor
                shown.update(backward(recipe, player, own, modules, micro, generator, step, world))
                if player.optim.clip:
                    norm = nn.utils.clip_grad_norm_(own.parameters(), player.optim.clip)
                    shown["grad"] = float(norm.full_tensor() if recipe.shard else norm)
                for optimizer in group:
                    optimizer.step()
                for module in modules:
                    module.zero_grad(set_to_none=True)
            if recipe.after_step:
                recipe.after_step(raw[0], micro[-1], generator, step)
            average.update(raw[0], step)
            step += 1
            rows += sum(len(next(iter(b.values()))) for b in micro) * world
            bar.update()
            if recipe.valid_at and recipe.valid_every and (step % recipe.valid_every == 0 or step == stop):
                valid = validate(recipe, average.model, accelerator)
            if writer and (step % 20 == 0 or step == stop):
                rate = rows / (time.monotonic() - since)
                rows, since = 0, time.monotonic()
                values = {k: float(v) for k, v in shown.items()} | {"rows/s": rate}
                bar.set_postfix({k: f"{v:.4g}" for k, v in values.items()})
                if valid is not None:
                    values, valid = values | {"valid": valid}, None
                with writing(out):
                    with (out / "log.jsonl").open("a") as log:
                        log.write(json.dumps({"step": step, **values}) + "\n")
                    for key, value in values.items():
                        writer.add_scalar(key, value, step)
            stopping = _agreed(asked_to_stop, device)
            if stopping or (recipe.save_every and (step % recipe.save_every == 0 or step == stop)):
                save()
            if recipe.sample_every and (step % recipe.sample_every == 0 or step == stop):
                show()
    finally:
        # Its workers would end with it, but a failure's traceback may keep it. They take no SIGTERM (_quiet), so that
        # at exit they would be waited for, for ever.
        if recipe.workers:
            loader._shutdown_workers()
        del loader
        if writer:
            with contextlib.suppress(OSError):  # a full disk has been said already, by whatever found it first
                writer.close()
        signals.close()
    bar.close()
    if recipe.export and step >= recipe.steps:
        result = finished()
        if accelerator.is_main_process:
            with writing(out):
                recipe.export(result, out / "export")
    accelerator.wait_for_everyone()
    return average.model
