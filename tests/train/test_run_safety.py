"""A run cannot be lost: not by a batch of NaN, an exploding loss, a second run in its folder, or data that vanish."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_trainer import Tiny, batch_at, loss, recipe
from torch import nn

from maskgil import checkpoint
from maskgil.models.config import ModelConfig
from maskgil.models.maskgil import MaskGIL
from train.batch_loader import fetch_batches, open_loader, stop_workers
from train.ema import EMA
from train.optim import OptimConfig
from train.precision import bfloat16_gain, chosen_precision
from train.recipe import OptimizedModule
from train.run_log import load_run_log
from train.step_guard import StepGuard, Verdict
from train.trainer import train

ROOT = Path(__file__).resolve().parents[2]


def finite(module: nn.Module) -> bool:
    return all(p.isfinite().all() for p in module.parameters())


def poisoned(*numbers: int):
    """batch_at with infinity in these batches."""

    def read(index: int) -> dict:
        batch = batch_at(index)
        if index in numbers:
            batch["x"][0, 0] = float("inf")
        return batch

    return read


def test_a_batch_that_is_not_finite_is_left_out(tmp_path, capsys):
    average = train(replace(recipe(20), batch_at=poisoned(7)), tmp_path)
    log = load_run_log(tmp_path)
    assert finite(average) and log[20]["skipped"] == 1 and math.isnan(log[8]["loss"]) and log[9]["loss"] < 10
    assert "step 7: the loss or its gradient is not finite: batch 7 left out" in capsys.readouterr().out
    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["guard"]["skipped"] == 1 and all(t.isfinite().all() for t in state["modules"][0].values())


def test_the_steps_before_a_failed_one_and_its_data_alone_decide(tmp_path):
    """A step that is left out changes nothing, and a run that is stopped around it goes on to the same weights."""
    made = replace(recipe(20), batch_at=poisoned(7))
    whole = train(made, tmp_path / "whole")
    train(replace(recipe(20), batch_at=poisoned(7)), tmp_path / "parts", stop_at=8)
    parts = train(replace(recipe(20), batch_at=poisoned(7)), tmp_path / "parts")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_many_failed_steps_lead_back_to_the_checkpoint_and_past_their_batches(tmp_path, capsys):
    average = train(replace(recipe(30), batch_at=poisoned(*range(13, 18))), tmp_path)
    said = capsys.readouterr().out
    assert "5 steps in a row had a loss or gradient that is not finite (batch 17): back to step 10" in said
    assert finite(average) and torch.load(tmp_path / "state.pt", weights_only=True)["guard"]["batches_passed"] == 8


def test_weights_that_are_not_finite_are_never_averaged_or_written(tmp_path, capsys):
    """One step with an infinite rate: its gradient is finite, the weights afterwards are not."""
    done = []

    def schedule(step: int, steps: int) -> float:
        return float("inf") if step == 14 and not done and not done.append(step) else 1.0

    average = train(recipe(30, schedule=schedule), tmp_path)
    assert "the weights are not finite after step 14 (batch 14): back to step 10" in capsys.readouterr().out
    assert finite(average)


def test_a_run_that_cannot_be_saved_says_so_and_exports_nothing(tmp_path):
    exported = []
    options = {"schedule": lambda step, steps: float("inf"), "export": lambda model, folder: exported.append(folder)}
    with pytest.raises(ValueError, match="not finite after step 0 .*there is no checkpoint to go back to"):
        train(recipe(30, **options), tmp_path)
    assert not exported and not (tmp_path / "state.pt").exists()


def test_a_run_that_fails_again_and_again_is_given_up(tmp_path):
    with pytest.raises(ValueError, match="went back to its last checkpoint 3 times and failed each time"):
        train(replace(recipe(60), batch_at=poisoned(*range(13, 1000))), tmp_path)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 10


def test_an_exploding_loss_leads_back_once():
    """With other batches it may not come again; if it does, it belongs to the objective."""
    guard, returned = StepGuard(), []
    step = 0
    while step < 400:
        value = 5.0 + 0.01 * (step % 7) + (100.0 if step >= 200 else 0.0)
        if guard.judge(step, value, True, True) is Verdict.GO_BACK:
            returned.append(step)
            guard.went_back(step - 150)
            step = 150
        else:
            step += 1
    assert returned == [204] and "the loss rose from 5.03 to 105" in guard.why


@pytest.mark.parametrize("value", [6.9, 4.0, -1.0])
def test_a_loss_that_falls_or_rises_slowly_is_no_explosion(value):
    guard = StepGuard()
    verdicts = {guard.judge(s, 5 + (value - 5) * s / 300 + 0.1 * math.sin(s), True, True) for s in range(300)}
    assert verdicts == {Verdict.TAKE}


def test_the_average_is_guarded():
    model = nn.Linear(2, 2)
    average = EMA(model, 0.9)
    before = average.model.weight.clone()
    with torch.no_grad():
        model.weight[0, 0] = float("nan")
    assert not average.update(model, 5) and torch.equal(average.model.weight, before)


def test_models_that_are_not_finite_are_neither_written_nor_opened(tmp_path):
    config = ModelConfig(codebook_size=8, dim=16, layers=1, heads=1, classes=3)
    model = MaskGIL(config)
    checkpoint.save(tmp_path / "good", model, "maskgil", config.to_dict())
    with torch.no_grad():
        model.output.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite, in 1 of .* tensors \\(first output.weight\\)"):
        checkpoint.save(tmp_path / "good", model, "maskgil", config.to_dict())
    assert finite(checkpoint.load(tmp_path / "good"))
    from safetensors.torch import load_file, save_file

    held = load_file(tmp_path / "good" / checkpoint.WEIGHTS)
    held["output.weight"][1, 1] = float("inf")
    save_file(held, tmp_path / "good" / checkpoint.WEIGHTS)
    with pytest.raises(ValueError, match="not finite"):
        checkpoint.load(tmp_path / "good")


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    """The lock is freed when its process ends, however it ends."""
    code = (
        "import sys, time; from pathlib import Path; import torch; from train.run_lock import RunLock\n"
        f"lock = RunLock(Path({str(tmp_path)!r})); lock.acquire(0, torch.device('cpu')); print('held', flush=True)\n"
        "time.sleep(100)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"process {holder.pid} on .* is training in"):
            train(recipe(), tmp_path)
        assert not (tmp_path / "log.jsonl").exists()
    finally:
        holder.kill()
        holder.wait()
    train(recipe(), tmp_path, stop_at=2)


def test_data_that_vanish_stop_the_run_with_its_state(tmp_path):
    (tmp_path / "row").write_text("0")

    def read(index: int) -> dict:
        (tmp_path / "row").read_text()
        if index == 12:
            (tmp_path / "row").unlink()
        return batch_at(index)

    with pytest.raises(ValueError, match="cannot be read any more: .*No such file.*step 13 is saved") as error:
        train(replace(recipe(), batch_at=read, workers=1), tmp_path / "run")
    assert "\n" not in str(error.value)
    train(recipe(), tmp_path / "run")
    whole = train(recipe(), tmp_path / "whole")
    again = train(recipe(), tmp_path / "run")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_a_worker_that_is_killed_stops_the_run_with_its_state(tmp_path):
    """As a file that is cut while it lies in memory does it: SIGBUS."""

    def read(index: int) -> dict:
        if index == 12 and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            os.kill(os.getpid(), signal.SIGBUS)
        return batch_at(index)

    with pytest.raises(ValueError, match="killed by signal: Bus error: a file was cut.*is saved") as error:
        train(replace(recipe(20), batch_at=read, workers=1), tmp_path / "run")
    assert "\n" not in str(error.value)
    train(replace(recipe(20), batch_at=read, workers=1), tmp_path / "run")
    assert sorted(load_run_log(tmp_path / "run")) == list(range(1, 21))


def test_a_worker_that_is_killed_interrupts_nothing_but_the_reading():
    """PyTorch's handler of SIGCHLD would raise in whatever runs then: a checkpoint, an optimizer's step."""
    made = replace(recipe(20), workers=1)
    loader = open_loader(made, 0, 20, 0, 1)
    assert fetch_batches(loader, 1)[1] == ""
    worker = loader._workers[0]
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(60)  # the signal of its death comes to this process meanwhile, and raises nothing
    read, why = [None], ""
    while read:  # what was fetched before is still there
        read, why = fetch_batches(loader, 1)
    assert f"DataLoader worker {worker.pid} is killed by signal: Killed" in why
    stop_workers(loader, made)


@pytest.mark.parametrize(
    ("end", "words"), [(lambda: os._exit(3), "ended with status 3"), (lambda: os.kill(os.getpid(), 9), "Killed")]
)
def test_a_worker_that_ends_while_it_writes_is_told(end, words):
    """Half of a batch that is larger than a pipe: its rest is not waited for."""

    def read(index: int) -> dict:
        threading.Timer(2, end).start()  # while the batch is written, and nobody reads it
        return {"text": ["a long caption"] * 100_000}

    made = replace(recipe(20), batch_at=read, workers=1)
    loader = open_loader(made, 0, 20, 0, 1)
    loader._workers[0].join(60)
    assert words in fetch_batches(loader, 1)[1]
    stop_workers(loader, made)


@pytest.mark.parametrize("inside", [False, True])
def test_a_file_in_place_of_the_folder_is_no_full_disk(tmp_path, inside):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(ValueError, match="could not write to .*; give a folder that can be written to") as error:
        train(recipe(), tmp_path / "file" / "run" if inside else tmp_path / "file")
    assert "free space" not in str(error.value)


def test_a_run_keeps_how_it_was_started_and_says_what_changed(tmp_path, capsys):
    train(recipe(options={"data": "cats"}), tmp_path, stop_at=10)
    capsys.readouterr()
    made = recipe(options={"data": "dogs"})
    player = OptimizedModule(Tiny(), loss, OptimConfig(lr=1e-4, muon_lr=0.01, warmup=5))
    train(replace(made, modules=(player,)), tmp_path, stop_at=20)
    assert "changed since the run was begun: lr 0.003 -> 0.0001, data cats -> dogs" in capsys.readouterr().out
    noted = json.loads((tmp_path / "run.json").read_text())
    assert noted["options"]["lr"] == 1e-4 and noted["history"][0]["options"]["data"] == "cats"
    assert noted["history"][0]["until"] == 10 and noted["versions"]["torch"] == torch.__version__


def test_precision_is_what_the_device_multiplies_faster(tmp_path, monkeypatch):
    gains = {"cpu": 0.0125}
    monkeypatch.setattr("train.precision.bfloat16_gain", gains.get)
    assert chosen_precision("auto", torch.device("cpu")) == "no" and chosen_precision("bf16") == "bf16"
    train(recipe(precision="auto"), tmp_path, stop_at=2)
    gains["cpu"] = 4.0
    assert chosen_precision("auto", torch.device("cpu")) == "bf16"
    train(recipe(precision="auto"), tmp_path, stop_at=4)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["precision"] == "no", "a run keeps what it began with"


def test_precision_is_measured_once_and_shortly():
    gain = bfloat16_gain("cpu")
    assert gain > 0 and bfloat16_gain("cpu") is gain


@pytest.mark.parametrize("decay", [7, 1.0, -0.1])
def test_an_average_that_cannot_be_is_refused(decay):
    with pytest.raises(ValueError, match=f"ema={decay} is not the decay"):
        recipe(ema=decay)
