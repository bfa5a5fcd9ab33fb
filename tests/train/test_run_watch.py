"""What a run tells and keeps: preflight, configuration files, kept checkpoints, the loss curve, the reference curve."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import pytest
import torch
from commands import maskgil
from PIL import Image
from test_trainer import batch_at, losses, recipe
from torch import nn
from tyro.conf import arg

from maskgil.command_line import CommandFailed
from maskgil.config_file import read_option_file, to_toml, with_config
from train import commands
from train.check_run import StripedGrids, check
from train.commands import chosen_recipe
from train.kept_checkpoints import BEST, EARLIER, STATE
from train.loss_curve import draw_loss_curve, ticks
from train.recipe import Recipe
from train.reference_curve import bundled_curves, compare_with_curve, measured_curve, window_means
from train.run_config import CONFIG_FILE
from train.run_log import load_run_log
from train.run_options import RunOptions
from train.trainer import train


def test_preflight_says_what_a_run_needs_and_writes_nothing(tmp_path, capsys):
    train(recipe(500), tmp_path / "run", options=RunOptions(preflight=True, price_per_hour=3.0))
    said = capsys.readouterr().out
    assert "all trained; 8 rows a step on 1 process" in said and "492 steps to go take" in said
    assert "s a step" in said and "processor hours, and cost" in said and "at 3 an hour" in said
    assert not (tmp_path / "run").exists()


def test_utilization_is_logged_where_the_recipe_counts_its_work(tmp_path):
    train(recipe(12, flops=lambda batch: 1e6 * len(batch["x"])), tmp_path)
    row = load_run_log(tmp_path)[12]
    assert 0 < row["mfu"] < 10 and row["memory_gb"] > 0 and row["rows/s"] > 0


@pytest.mark.parametrize("values", [{"keep": 0}, {"price_per_hour": -1.0}, {"picture_minutes": math.nan}])
def test_run_options_are_bounded(values):
    with pytest.raises(ValueError, match=f"{next(iter(values))}=.*give"):
        RunOptions(**values)


def test_checkpoints_are_kept_and_a_broken_one_is_passed_over(tmp_path, capsys):
    train(recipe(60), tmp_path / "run", stop_at=40, options=RunOptions(keep=3))
    assert sorted(p.name for p in (tmp_path / "run" / EARLIER).iterdir()) == ["0000020.pt", "0000030.pt", "0000040.pt"]
    data = (tmp_path / "run" / STATE).read_bytes()
    (tmp_path / "run" / STATE).unlink()
    (tmp_path / "run" / EARLIER / "0000040.pt").unlink()
    (tmp_path / "run" / STATE).write_bytes(data[: len(data) // 2])
    whole = train(recipe(60), tmp_path / "whole")
    again = train(recipe(60), tmp_path / "run", options=RunOptions(keep=2))
    said = capsys.readouterr().out
    assert "state.pt is broken and left aside" in said and "going on from step 30" in said
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    assert sorted(p.name for p in (tmp_path / "run" / EARLIER).iterdir()) == ["0000050.pt", "0000060.pt"]


def test_a_broken_checkpoint_without_another_is_said(tmp_path):
    train(recipe(20), tmp_path, stop_at=10)
    (tmp_path / STATE).write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ValueError, match="no other checkpoint in .*--keep 2"):
        train(recipe(20), tmp_path)


def _exports(model: nn.Module, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    torch.save(model.state_dict(), folder / "weights.pt")


def test_the_best_by_validation_is_kept_and_exported(tmp_path, capsys):
    """With a rate that turns the ascent on, the loss rises after step 20."""
    validation = {"valid_at": batch_at, "valid_every": 10, "valid_batches": 2, "ema": 0.5, "export": _exports}
    rising = {"schedule": lambda step, steps: 1.0 if step < 20 else -1.0}
    average = train(recipe(50, **validation, **rising), tmp_path)
    values = {step: row["valid"] for step, row in load_run_log(tmp_path).items() if "valid" in row}
    best = min(values, key=values.get)
    assert best < 50 and f"that of step {best}: export-best/" in capsys.readouterr().out
    kept = torch.load(tmp_path / BEST, weights_only=True)
    assert kept["step"] == best
    exported = torch.load(tmp_path / "export-best" / "weights.pt", weights_only=True)
    assert all(torch.equal(exported[name], kept["average"][name]) for name in exported)
    last = torch.load(tmp_path / "export" / "weights.pt", weights_only=True)
    assert any(not torch.equal(last[name], exported[name]) for name in last) and average is not None


def test_a_line_that_a_kill_has_cut_does_not_spoil_the_log(tmp_path):
    train(recipe(20), tmp_path, stop_at=10)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 11, "lo')
    assert max(load_run_log(tmp_path)) == 10
    train(recipe(20), tmp_path)
    assert sorted(load_run_log(tmp_path)) == list(range(1, 21))


def test_the_loss_curve_is_drawn(tmp_path):
    train(recipe(12), tmp_path)
    with Image.open(tmp_path / "loss.png") as picture:
        assert picture.size == (900, 480) and len(picture.getcolors(1 << 20)) > 3


@pytest.mark.parametrize("log", [{}, {1: {"loss": math.nan}}, {1: {"loss": 5.0}}, {1: {"loss": 2.0}, 2: {"loss": 2.0}}])
def test_a_curve_of_any_log_can_be_drawn(log, tmp_path):
    draw_loss_curve(log, "a run", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").exists() == any(not math.isnan(row["loss"]) for row in log.values())


def test_ticks_are_round_numbers():
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10] and ticks(0.95, 2.05) == pytest.approx([1.0, 1.2, 1.4, 1.6, 1.8, 2.0])


def test_a_run_too_short_to_measure_and_a_step_that_there_is_not_are_refused(tmp_path):
    with pytest.raises(ValueError, match="measures 8 steps, and the run has 7"):
        train(recipe(7), tmp_path, options=RunOptions(preflight=True))
    with pytest.raises(ValueError, match=r"^keep=0: give 1 to 10000"):
        maskgil("train", "scenes-text", "--keep=0", "--out", tmp_path / "run")
    for step in ("0", "-5"):
        with pytest.raises(ValueError, match=f"stop_at={step}: give the number of a step"):
            maskgil("train", "scenes-text", f"--stop-at={step}", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pictures_come_by_the_clock(tmp_path):
    drawn = []

    def sample(model: nn.Module, path: Path) -> None:
        drawn.append(path.name)
        Image.new("RGB", (8, 8)).save(path)

    train(recipe(3, sample=sample, sample_every=0), tmp_path, options=RunOptions(picture_minutes=1e-9))
    assert drawn == ["0000001.png", "0000002.png", "0000003.png"] and (tmp_path / "loss.png").is_file()


def test_a_file_gives_options_and_the_command_line_overrides_them(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('recipe = "t2i"\nsteps = 50\nlr = 1e-3\ndata = "cache"\nshard = true\nsize = [512, 256]\n')
    options = dict.fromkeys(("config", "steps", "lr", "data", "shard", "size", "out"), str)
    words = with_config(["--config", str(path), "--lr", "2", "--no-shard"], options, "t2i")
    assert sorted(words[:-5]) == sorted(["--steps=50", "--data=cache", "--size", "512", "256"])
    assert words[-5:] == ["--config", str(path), "--lr", "2", "--no-shard"]
    assert chosen_recipe(["--config", str(path)])[0] == "t2i" and chosen_recipe(["--check"]) == ["check"]
    choice = dict.fromkeys(("config", "compile"), Annotated[Literal["auto", "yes", "no"], arg(help="")])
    for before, now in (("true", "yes"), ("false", "no"), ('"auto"', "auto")):
        path.write_text(f"compile = {before}\n")  # true and false are what runs of before wrote
        assert with_config(["--config", str(path)], choice, "t2i")[0] == f"--compile={now}"
    for line, message in (
        ("stepps = 3", "t2i has no option 'stepps'"),
        ("[a]\nb = 1", "has a table"),
        ("steps = ", "no TOML"),
        ('recipe = "lora"', "is for lora"),
    ):
        path.write_text(line)
        with pytest.raises(ValueError, match=message):
            with_config(["--config", str(path)], options, "t2i")
    with pytest.raises(ValueError, match="No such file"):
        with_config(["--config", "gone.toml"], options, "t2i")


def test_options_written_as_toml_are_read_back(tmp_path):
    values = {"a": 'x "quoted" \\ é\n', "b": 1e-7, "c": True, "d": [1, 2], "e": 3, "init": ""}
    (tmp_path / "c.toml").write_text(to_toml(values | {"none": None}))
    assert read_option_file(tmp_path / "c.toml") == values


def test_a_runs_folder_holds_the_options_that_make_it_again(tmp_path, monkeypatch, capsys):
    def small(steps: int = 6, lr: float = 1e-3, note: str = "") -> Recipe:
        """A small recipe."""
        return replace(recipe(steps), options={"lr": lr})

    monkeypatch.setattr(commands, "recipes", lambda: {"small": small})
    monkeypatch.setattr(commands, "recipe_help", lambda: {"small": "A small recipe."})
    maskgil("train", "small", "--lr", "2e-3", "--keep", "2", "--out", tmp_path / "a")
    held = read_option_file(tmp_path / "a" / CONFIG_FILE)
    assert held["out"] == str(tmp_path / "a")
    assert held["recipe"] == "small" and held["lr"] == 2e-3 and held["keep"] == 2 and held["steps"] == 6
    maskgil("train", "--config", tmp_path / "a" / CONFIG_FILE, "--steps", "8", "--out", tmp_path / "b")
    assert json.loads((tmp_path / "b" / "run.json").read_text())["options"]["lr"] == 2e-3
    assert max(losses(tmp_path / "b")) == 8


def test_a_band_is_wide_enough_for_its_own_runs_and_no_wider():
    logs = [{step: {"loss": 5 - step / 100 + 0.01 * seed} for step in range(1, 101)} for seed in range(4)]
    curve = measured_curve("check", "loss", logs, 25, "made here")
    assert curve.steps == (25, 50, 75, 100)
    assert all(row.normal for log in logs for row in compare_with_curve(log, curve))
    worse = {step: {"loss": row["loss"] + 0.5} for step, row in logs[0].items()}
    assert not any(row.normal for row in compare_with_curve(worse, curve))
    broken = logs[0] | {60: {"loss": math.nan}}
    assert [row.normal for row in compare_with_curve(broken, curve)] == [True, True, False, True]
    with pytest.raises(ValueError, match="not done 25 steps"):
        compare_with_curve({1: {"loss": 5.0}}, curve)
    with pytest.raises(ValueError, match="2 runs: a band needs 3 or more"):
        measured_curve("check", "loss", logs[:2], 25, "")


def test_bundled_curves_are_whole():
    for name, curve in bundled_curves().items():
        assert curve.recipe == name and len(curve.steps) == len(curve.mean) == len(curve.band) >= 4
        assert all(band >= 0.029 * mean for mean, band in zip(curve.mean, curve.band, strict=True))


def test_the_check_begins_as_its_curve_says(tmp_path, capsys):
    """The first window; the whole check takes two minutes."""
    check(out=tmp_path / "run", steps=25)
    assert "normal: all 1 windows are inside the band" in capsys.readouterr().out
    row = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert row["loss"] == pytest.approx(math.log(64), abs=0.2)
    check(run=tmp_path / "run")
    rows = [row | {"loss": row["loss"] + 1} for row in map(json.loads, (tmp_path / "run" / "log.jsonl").open())]
    (tmp_path / "run" / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(CommandFailed, match="outside the band, the first at step 25"):
        check(run=tmp_path / "run")
    with pytest.raises(ValueError, match="no folder of a run"):
        check(run=tmp_path)


def test_made_up_grids_are_a_function_of_their_number():
    grids = StripedGrids(4, 1)
    first = grids(3)["tokens"]
    assert torch.equal(first, grids(3)["tokens"]) and not torch.equal(first, grids(4)["tokens"])
    assert window_means({1: {"loss": 1.0}, 2: {"loss": 3.0}}, "loss", 2) == {2: 2.0}
