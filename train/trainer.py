"""The only training loop. A recipe names the modules, the data and the losses; the trainer runs it.

Random numbers of a step (batch, loss, dropout) are a function of (seed, step, process). A run that was killed and
started again has the same losses, and no random state is stored.

A run's folder holds `state.pt` (weights, averages, optimizers, step; written whole or not at all; with `shard` a folder
`sharded-<step>`), those that are kept beside it (train/kept_checkpoints.py), `run.json` (command, options, versions),
`log.jsonl`, `loss.png`, tensorboard events, `samples/` from time to time and, at the end, `export/` and, where another
step was the best by validation, `export-best/`. A lock keeps a second run out of it.

Many processes: each takes its share of a step's batches and holds the whole model (DDP), or a piece of it (FSDP2).

train/step_guard.py decides what happens after a step whose loss or gradient is not finite, and after an exploded loss.
"""

import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from train.activation_checkpointing import bytes_needed, check_memory, compiled, plan_memory, recomputed
from train.batch_loader import fetch_batches, open_loader, stop_workers
from train.ema import EMA
from train.loss_curve import draw_loss_curve
from train.precision import chosen_precision, precision_line
from train.processes import join_processes, stop_signal
from train.recipe import Recipe, batches_of_process, describe_world_change
from train.run_config import note_config
from train.run_lock import RunLock
from train.run_log import RunLog, load_run_log
from train.run_meter import MEASURED, WARM, PictureClock, RunMeter
from train.run_options import RunOptions
from train.run_state import RunState, frozen, writing
from train.step_guard import Verdict
from train.training_step import agreed, autocast, backward, move_batch, step_generator, validate

PREFLIGHT_STEPS = WARM + MEASURED


class Run:
    """A run of a recipe in a folder, continued from its checkpoint. Other modules call `train`."""

    def __init__(
        self, recipe: Recipe, out: Path, accelerator: Accelerator, say: Callable[[str], None], options: RunOptions
    ):
        self.recipe, self.out, self.accelerator, self.say, self.options = recipe, out, accelerator, say, options
        self.device, self.rank = accelerator.device, accelerator.process_index
        self.world, self.main = accelerator.num_processes, accelerator.is_main_process
        self.accumulate = batches_of_process(recipe, self.world)
        self.state = self._build()
        before = self._load()
        self._settle_precision()
        if self.state.step:
            say(f"{recipe.name}: going on from step {self.state.step} of {recipe.steps}")
            if before != self.world:
                say(f"{recipe.name}: {describe_world_change(recipe, before, self.world)}")
        self.modules = self.state.modules
        if self.world > 1 and not recipe.shard:
            where = [self.device.index] if self.device.type == "cuda" else None
            self.modules = [DistributedDataParallel(m, device_ids=where, gradient_as_bucket_view=True)
                            for m in self.state.modules]  # fmt: skip

    def _load(self) -> int:
        """Load the newest whole checkpoint; returns the number of processes that wrote it, 0 if there is none."""
        before = self.state.load()
        for line in self.state.broken:
            self.say(f"{self.recipe.name}: {line}")
        return before

    def _build(self) -> RunState:
        """Put modules and average on their device; compile, checkpoint and shard them as the recipe says."""
        recipe, device = self.recipe, self.device
        raw = [part.module for part in recipe.modules]
        pieces, room = self.world if recipe.shard else 1, 0
        if device.type == "cuda":
            room = torch.cuda.get_device_properties(device).total_memory
            check_memory(recipe.name, raw, pieces, room)
        asked = (recipe.compile, recipe.activation_checkpointing)
        plan = plan_memory(device, bytes_needed(raw, pieces), recipe.activations, room, recipe.steps, *asked)
        if device.type == "cuda" and None in asked:
            self.say(
                f"{recipe.name}: blocks are {'compiled' if plan.compile else 'not compiled'}, activations "
                f"{'computed again' if plan.recompute else 'kept'}: about {recipe.activations / 1e9:.1f} GB of a GPU's "
                f"{room / 1e9:.0f} GB (--compile and --recompute, yes or no, decide)"
            )
        if not recipe.shard:  # else piece by piece as it is cut: all of it may be more than the device holds
            for module in raw:
                module.to(device)
        average = EMA(raw[0], recipe.ema)
        if recipe.shard:
            if len(raw) > 1 or recipe.after_step or recipe.modules[0].optim.muon_lr:
                raise ValueError(
                    f"{recipe.name} cannot be sharded: that needs one module, only AdamW and no after_step"
                )
            from train import fsdp  # loading torch's checkpointing takes seconds

            fsdp.join(device)
            self.shape = fsdp.skeleton(average.model)
        for module in raw:
            if plan.compile:
                compiled(module)
            if plan.recompute:
                recomputed(module)
        if recipe.shard:
            for module in (raw[0], average.model):
                fsdp.shard(module, device, self._measured_precision())
        fingerprint = "" if recipe.shard else frozen(raw)
        return RunState(recipe, self.out, raw, average, fingerprint, self.world, self.main, keep=self.options.keep)

    def _measured_precision(self) -> str:
        """The recipe's precision; if it is measured, all processes take the same."""
        slow = [float(chosen_precision(self.recipe.precision, self.device) != "bf16")]
        return "no" if agreed(slow, self.device)[0] else "bf16"

    def _settle_precision(self) -> None:
        """Keep the measured precision that the run began with."""
        automatic = self.recipe.precision == "auto"
        kept = self.state.precision if automatic and not self.recipe.shard else ""
        self.state.precision = kept or self._measured_precision()
        self.recipe = replace(self.recipe, precision=self.state.precision)
        if automatic:
            self.say(f"{self.recipe.name}: {precision_line(self.state.precision, self.device)}")

    def loader(self, stop: int) -> Iterator[dict]:
        """This process's batches from the current step on."""
        first = (self.state.step + self.state.guard.batches_passed) * self.accumulate
        count = (stop - self.state.step) * self.accumulate
        return open_loader(self.recipe, first, count, self.rank, self.world)

    def batches_of_step(self) -> str:
        """The numbers of the batches of the current step, for messages."""
        first = (self.state.step + self.state.guard.batches_passed) * self.accumulate * self.world
        last = first + self.accumulate * self.world - 1
        return f"batch {first}" if first == last else f"batches {first} to {last}"

    def step(self, micro: list[dict]) -> tuple[Verdict, dict[str, float]]:
        """One step of every module on these batches; returns the guard's verdict and the values to log."""
        recipe, state = self.recipe, self.state
        generator = step_generator(recipe.seed, state.step, self.rank, self.device)
        logged: dict[str, float] = {}
        first_loss, taken = 0.0, []
        for part, own, group in zip(recipe.modules, self.modules, state.optimizers, strict=True):
            factor = (recipe.schedule or part.optim.factor)(state.step, recipe.steps)
            for optimizer in group:
                for g in optimizer.param_groups:
                    g["lr"] = g["full_lr"] * factor
            loss, metrics = backward(part, own, self.modules, micro, generator, state.step, recipe.precision)
            norm = nn.utils.clip_grad_norm_(own.parameters(), part.optim.clip or float("inf"))
            norm = float(norm.full_tensor() if recipe.shard else norm)
            finite = torch.tensor([loss, norm], dtype=torch.float64).isfinite().all()
            bad, total = agreed([float(not finite), loss], self.device)
            first_loss = first_loss if taken else total / self.world
            taken.append(not bad)
            if not bad:
                for optimizer in group:
                    optimizer.step()
            for module in self.modules:
                module.zero_grad(set_to_none=True)
            logged.update(metrics, grad_norm=norm)
        whole = True
        if taken[0]:
            if recipe.after_step:
                recipe.after_step(state.modules[0], micro[-1], generator, state.step)
            whole = state.average.update(state.modules[0], state.step)
        broken = agreed([float(not whole)], self.device)[0]
        verdict = state.guard.judge(state.step, first_loss, all(taken), not broken)
        return verdict, logged | {"skipped": state.guard.skipped}

    def finished(self) -> nn.Module | None:
        """The averaged module on the main process; None in other processes of a sharded run."""
        if not self.recipe.shard:
            return self.state.average.model
        from train import fsdp

        return fsdp.whole(self.state.average.model, self.shape)

    def save(self) -> bool:
        """Write the checkpoint, unless a weight is not finite or the run only measures."""
        if self.options.preflight:
            return True
        saved = self.state.save()
        self.accelerator.wait_for_everyone()
        return saved

    def validate(self) -> float:
        """Measure the average's loss on the validation batches, and keep the checkpoint with the lowest."""
        value = validate(self.recipe, self.state.average.model, self.accelerator)
        if value < self.state.best:
            self.state.best, self.state.best_step = value, self.state.step
            if self.save() and not self.options.preflight:
                self.state.keep_best()
        return value

    def draw_curve(self) -> None:
        """Draw the losses so far as loss.png."""
        if self.main:
            with writing(self.out):
                title = f"{self.recipe.name}, step {self.state.step:,} of {self.recipe.steps:,}"
                draw_loss_curve(load_run_log(self.out), title, self.out / "loss.png")

    def show(self, log: RunLog) -> None:
        """Draw a sample sheet of the averaged module."""
        drawn = self.finished()
        if not self.main:
            return
        sheet = self.out / "samples" / f"{self.state.step:07d}.png"
        with writing(self.out), autocast(self.recipe.precision, self.device):
            sheet.parent.mkdir(exist_ok=True)
            # A sharded model is gathered on the CPU, where a large one samples for minutes. The other processes wait in
            # their next step, at most as long as the process group allows.
            self.recipe.sample(drawn.to(self.device), sheet)
            log.show(sheet, self.state.step)

    def go_back(self, log: RunLog) -> None:
        """Return to the last checkpoint. ValueError when there is none, or after too many returns."""
        guard, failed = self.state.guard, self.state.step
        passed, batches = guard.batches_passed, self.batches_of_step()
        kept = (guard.skipped, guard.returns, guard.tolerated, guard.why)
        if not self._load():
            raise ValueError(
                f"{guard.why} ({batches}), and there is no checkpoint to go back to: lower the learning rate, or look "
                "at the data"
            )
        self.state.precision = self.recipe.precision
        guard.batches_passed = passed
        guard.skipped, guard.returns, guard.tolerated, guard.why = kept
        guard.went_back(failed - self.state.step)
        log.say(
            f"{self.recipe.name}: {guard.why} ({batches}): back to step {self.state.step}, on to the batches after them"
        )
        log.go_back(self.state.step)

    def end(self) -> None:
        """Export the averaged module, and that of the best checkpoint. ValueError when it is not finite."""
        self._export("export")
        if self.state.best_step not in (None, self.state.step) and self.state.load_best():
            self.say(
                f"{self.recipe.name}: the lowest validation loss, {self.state.best:.4g}, was that of step "
                f"{self.state.best_step}: export-best/ is of it"
            )
            self._export("export-best")

    def _export(self, name: str) -> None:
        if not self.state.finite():
            raise ValueError(f"{self.out}: a weight is not finite; nothing is exported, the last checkpoint is kept")
        result = self.finished()
        if self.main:
            with writing(self.out):
                self.recipe.export(result, self.out / name)
        self.accelerator.wait_for_everyone()


def _is_due(every: int, step: int, stop: int) -> bool:
    return bool(every) and (step % every == 0 or step == stop)


def _steps(run: Run, log: RunLog, stop: int, asked_to_stop: threading.Event) -> None:
    """Train until step `stop`, or until the run is asked to stop."""
    recipe, state = run.recipe, run.state
    meter = RunMeter(recipe, state.modules, run.device, run.world)
    clock = PictureClock(run.options.picture_minutes)
    loader = run.loader(stop)
    try:
        while state.step < stop:
            micro, fault = fetch_batches(loader, run.accumulate)
            told = [asked_to_stop.is_set(), bool(fault), run.main and clock.due(), not state.written]
            stopping, lost, drawing, still_writing = agreed([float(each) for each in told], run.device)
            if not still_writing:
                state.finish_save()
            if stopping or lost:
                run.save()
                state.finish_save()
                if lost:
                    raise ValueError(
                        f"the data cannot be read any more: {fault or 'another process says why'}; the state of step "
                        f"{state.step} is saved, and the same command goes on from it"
                    )
                log.say(f"{recipe.name}: stopped at step {state.step}, saved; the same command goes on from it")
                return
            micro = [move_batch(batch, run.device) for batch in micro]
            verdict, values = run.step(micro)
            if verdict is Verdict.SKIP:
                log.say(f"step {state.step}: the loss or its gradient is not finite: {run.batches_of_step()} left out")
            state.step += 1
            values |= meter.step(micro)
            if meter.due():
                for line in meter.report(state.step, run.options):
                    log.say(line)
            if verdict is not Verdict.GO_BACK:
                if recipe.valid_at and _is_due(recipe.valid_every, state.step, stop):
                    values["valid"] = run.validate()
                    meter.restart()
                log.step(state.step, values)
                if _is_due(recipe.save_every, state.step, stop) and not run.save():
                    verdict, state.guard.why = Verdict.GO_BACK, f"a weight is not finite at step {state.step}"
            if verdict is Verdict.GO_BACK:
                state.step -= 1
                run.go_back(log)
                stop_workers(loader, recipe)
                loader = run.loader(stop)
                meter.restart()
                continue
            if recipe.sample and (drawing or _is_due(recipe.sample_every, state.step, stop)):
                run.show(log)
                meter.restart()
            if drawing or state.step == stop:
                run.draw_curve()
                clock.drawn()
        state.finish_save()
    finally:
        stop_workers(loader, recipe)


def train(
    recipe: Recipe,
    out: Path,
    *,
    stop_at: int | None = None,
    options: RunOptions = RunOptions(),  # noqa: B008
) -> nn.Module:
    """Run the recipe in folder `out`, from its checkpoint if there is one; return the averaged module.

    `stop_at` ends the run at that step with a checkpoint; the same command later continues from it.
    ValueError for a folder that another run uses, a full disk, data that do not fit or cannot be read, and a run that
    keeps failing.
    """
    if options.preflight:
        if recipe.steps < PREFLIGHT_STEPS:
            raise ValueError(f"--preflight measures {PREFLIGHT_STEPS} steps, and the run has {recipe.steps}: run it")
        with tempfile.TemporaryDirectory() as folder:
            short = replace(recipe, sample=None, export=None, valid_at=None, wandb=None)
            return _train(short, Path(folder), PREFLIGHT_STEPS, options)
    return _train(recipe, out, stop_at, options)


def _train(recipe: Recipe, out: Path, stop_at: int | None, options: RunOptions) -> nn.Module:
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    accelerator = join_processes()

    def say(line: str) -> None:
        if accelerator.is_main_process:
            print(line)

    lock = RunLock(out)
    lock.acquire(accelerator.process_index, accelerator.device)
    try:
        run = Run(recipe, out, accelerator, say, options)
        if accelerator.is_main_process:
            note_config(run.recipe, out, run.world, run.state.step, say)
        stop = max(run.state.step, min(recipe.steps, stop_at or recipe.steps))
        if run.state.step >= stop:
            say(f"{recipe.name}: {out} is at step {run.state.step} already: nothing is left to train")
        log = RunLog(recipe, out, run.state.step, run.main)
        try:
            with stop_signal() as asked_to_stop:
                _steps(run, log, stop, asked_to_stop)
        finally:
            log.close()
        if recipe.export and run.state.step >= recipe.steps:
            run.end()
    finally:
        lock.release()
    accelerator.wait_for_everyone()
    return run.state.average.model
