"""`maskgil eval sampling` on a tiny model: what it counts, keeps and goes on with, and its intervals."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from commands import maskgil
from scored_model import tiny_scored_model

import text_encoder
from maskgil import checkpoint
from maskgil.params import SAMPLERS, SamplingParams
from maskgil.pipeline import TextToImage
from train.eval import sampling_grid
from train.eval.paired_scores import paired_loss, share_right
from train.eval.sampling_grid import GridAxes, GridCell, counted_rows, measure_cell, training_pictures
from train.scenes.scene import is_held_out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_scored_model(tmp_path_factory.mktemp("grid"))


@pytest.fixture(scope="module")
def model(folder: Path) -> TextToImage:
    return TextToImage.load(folder / "model", text_encoder.load)


def grid(folder: Path, out: Path, *words: str) -> None:
    places = [f"--model={folder / 'model'}", f"--reader={folder / 'reader'}", f"--out={out}", "--batch=2"]
    maskgil("eval", "sampling", *places, "--steps", "1", "3", "--scales", "1", "2", "--passes", "0", "1", *words)


@pytest.mark.parametrize(
    "options, evaluations",
    [
        ({"steps": 5, "guidance_scale": 1.0, "refinement_passes": 0}, 5),
        ({"steps": 5, "guidance_scale": 1.0, "refinement_passes": 1}, 5 + 3),
        ({"steps": 4, "guidance_scale": 2.0, "guidance_interval": (0.0, 1.0), "refinement_passes": 1}, 8 + 4),
        ({"steps": 4, "guidance_scale": 2.0, "guidance_interval": (0.0, 0.5), "refinement_passes": 0}, 4 + 2),
        ({"steps": 2, "guidance_scale": 1.0, "refinement_passes": 0, "candidates": 3}, 3 * (2 + 2)),
        ({"mode": "ar", "guidance_scale": 1.0, "refinement_passes": 0}, 64),
        ({"mode": "hybrid", "ar_tokens": 8, "steps": 3, "guidance_scale": 1.0, "refinement_passes": 0}, 8 + 3),
    ],
)
def test_rows_through_the_trunk_are_what_a_picture_costs(model: TextToImage, options: dict, evaluations: int):
    """The rows that pass the first blocks are those that the sampler says it evaluated."""
    params = SamplingParams(**options)
    with counted_rows(model.generator, model.ar_model) as count:
        *_, last = model.draw(["a cat", "a red dog"], [1, 2], settings=params)
    assert count[0] == 2 * last.nfe == 2 * evaluations
    list(model.draw(["a cat"], [1], settings=params))
    assert count[0] == 2 * evaluations, "nothing counts any more"


@pytest.mark.parametrize("name, evaluations", [("default", 11), ("guided", 18), ("fast", 7)])
def test_presets_cost_what_the_documents_say(model: TextToImage, name: str, evaluations: int):
    with counted_rows(model.generator) as count:
        list(model.draw(["a cat"], [1], settings=SAMPLERS[name]))
    assert count[0] == evaluations


def test_a_grid_has_every_combination_once():
    axes = GridAxes((2, 4), (1.0, 2.0), ("0.1-1", "0.1-0.5"), (0, 1), ("confidence", "halton"))
    cells = axes.cells(SamplingParams(temperature=0.3))
    assert len(cells) == len(set(cells)) == 2 * 2 * 2 * 3, "a scale of 1 has no interval"
    assert {cell.temperature for cell in cells} == {0.3}
    for words, message in (({"intervals": ("0.1",)}, "write LOW-HIGH"), ({"orders": ("listed",)}, "order is 'listed'")):
        with pytest.raises(ValueError, match=message):
            GridAxes(**words).cells(SamplingParams())


def test_pictures_are_of_training_and_more_of_them_begin_alike():
    asked = training_pictures(24)
    assert training_pictures(9) == asked[:9] and len({each.seed for each in asked}) == 24
    assert not any(is_held_out(each.scene) for each in asked if each.kind != "single" and each.scene.style != "sketch")
    assert {each.kind for each in asked[:8]} == {each.kind for each in asked}


def test_a_run_that_was_cut_off_goes_on_and_more_pictures_add_to_it(folder: Path, tmp_path: Path, monkeypatch, capsys):
    whole, cut = tmp_path / "whole.json", tmp_path / "cut.json"
    grid(folder, whole, "--pictures=5")
    calls = []

    def breaks(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        measure_cell(*arguments)

    monkeypatch.setattr(sampling_grid, "measure_cell", breaks)
    with pytest.raises(KeyboardInterrupt):
        grid(folder, cut, "--pictures=3")
    capsys.readouterr()
    plot = tmp_path / "grid.svg"
    grid(folder, cut, "--pictures=5", f"--plot={plot}")
    said, cells = capsys.readouterr().out, json.loads(whole.read_text())["cells"]
    kept = ("params", "right", "rows")
    again = [{name: cell[name] for name in kept} for cell in json.loads(cut.read_text())["cells"]]
    assert again == [{name: cell[name] for name in kept} for cell in cells]
    rows = [line for line in said.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(cells) and sum("baseline" in row for row in rows) == 1
    assert len(ElementTree.parse(plot).findall(".//{*}circle")) > len(cells)
    done = len(calls)
    grid(folder, cut, "--pictures=5")
    assert len(calls) == done, "nothing is measured twice"


def test_a_file_of_another_model_is_refused(folder: Path, tmp_path: Path):
    out = tmp_path / "other.json"
    out.write_text(json.dumps({"about": {"model": "another"}, "cells": []}))
    with pytest.raises(ValueError, match="cannot be continued.*give another file, or delete it"):
        grid(folder, out, "--pictures=1")
    out.write_text("{")
    with pytest.raises(ValueError, match="cannot be continued"):
        grid(folder, out, "--pictures=1")


def test_each_batch_adds_its_verdicts_and_its_cost(folder: Path, model: TextToImage):
    judge, guided = checkpoint.load(folder / "reader", "reader").eval(), SamplingParams(steps=1, guidance_scale=2.0)
    cell = GridCell(guided)
    for asked in (training_pictures(3), training_pictures(4)[3:]):
        measure_cell(model, judge, cell, asked)
    assert len(cell.right) == 4 and cell.evaluations == 2 + 3, "one guided step, and one pass without guidance"
    assert cell.cpu_seconds > 0


def test_intervals_hold_their_value_and_narrow_with_more_pictures():
    few, many = share_right([True, True, True, False]), share_right([True, True, True, False] * 50)
    assert few.value == many.value == 75 and few.low < many.low < 75 < many.high < few.high
    none = share_right([False] * 10)
    assert (none.low, round(none.high, 2)) == (0, 27.75)  # Wilson, as R's binom.confint prints it
    before, after = [True] * 90 + [False] * 10, [True] * 80 + [False] * 20
    loss, gain = paired_loss(before, after), paired_loss(after, before)
    assert loss.value == 10 and (loss.low, loss.high) == pytest.approx((-gain.high, -gain.low)) and loss.low > 0
    same = paired_loss(before, before)
    assert same.value == 0 and same.low < 0 < same.high, "no disagreement is no certainty"
    for first, second in (([], []), ([True], [True, False])):
        with pytest.raises(ValueError, match="as many of each"):
            paired_loss(first, second)
