"""The commands for drawings, previews, the stages of the open world and curves, by their names of now and of before."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from commands import maskgil
from PIL import Image
from world.stand_ins import write_stand_ins

FORMER = {
    "train.world.fetch_drawings": "maskgil data drawings",
    "train.scenes.sprite_folder": "maskgil data sprites",
    "train.world.preview_sheet": "maskgil data preview",
    "train.world.world_stages": "maskgil train world",
    "train.stand_ins": "maskgil export stand-ins",
    "train.reference_curve": "maskgil train reference-curve",
}


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("module, command", FORMER.items())
def test_python_m_is_the_command(module: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as leaving:
        runpy.run_module(module, run_name="__main__", alter_sys=False)
    assert not leaving.value.code and f"usage: {command} " in capsys.readouterr().out


def test_a_preview_has_a_column_for_each_scene_across(tmp_path: Path):
    drawings, out = write_stand_ins(tmp_path), tmp_path / "sheet.png"
    maskgil("data", "preview", "--drawings", drawings, "--out", out, "--count", 3, "--across", 2, "--cell", 4)
    assert Image.open(out).size == (2 * (48 + 6), 2 * (48 + 36 + 6))


def test_missing_drawings_are_answered_with_the_command_that_fetches_them(tmp_path: Path):
    with pytest.raises(ValueError, match="drawings.zip is missing: run maskgil data drawings"):
        maskgil("data", "preview", "--drawings", tmp_path / "drawings.zip", "--out", tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())


def test_a_stage_of_the_world_names_what_is_missing(tmp_path: Path):
    with pytest.raises(ValueError, match="generator.* is not there yet: run the stages before this one"):
        maskgil("train", "world", "model", "--runs", tmp_path)
    with pytest.raises(ValueError, match="did you mean|choose one of"):
        maskgil("train", "world", "code", "--runs", tmp_path)


def test_a_curve_is_written_from_finished_runs(tmp_path: Path):
    runs = [tmp_path / str(seed) for seed in range(3)]
    for seed, run in enumerate(runs):
        run.mkdir()
        about = {"recipe": "check", "command": "maskgil train --check", "versions": {"torch": "2"}}
        (run / "run.json").write_text(json.dumps(about))
        rows = [json.dumps({"step": step, "loss": 5 - step / 10 + 0.01 * seed}) for step in range(1, 11)]
        (run / "log.jsonl").write_text("\n".join(rows) + "\n")
    out = tmp_path / "curve.json"
    maskgil("train", "reference-curve", *runs, "--out", out, "--window", 5)
    assert json.loads(out.read_text())["steps"] == [5, 10]
    for few in ([], runs[:2]):
        with pytest.raises(ValueError, match="a band needs 3 or more"):
            maskgil("train", "reference-curve", *few, "--out", out)


def test_stand_ins_need_a_folder(tmp_path: Path):
    with pytest.raises(ValueError, match="no FOLDER is given"):
        maskgil("export", "stand-ins", "--vectors", tmp_path / "a.json", "--annotations", tmp_path / "b.json")
