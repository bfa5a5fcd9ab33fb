"""The archive of the unfinished run opens as a model folder of 175 things."""

import json
from pathlib import Path

import pytest

import text_encoder
from experiments.things_175.restore import ARCHIVE, restore
from maskgil.model_folder import weights_folder
from maskgil.pipeline import TextToImage


@pytest.mark.skipif(not (weights_folder() / "scenes").is_dir(), reason="needs the bundled weights")
def test_the_archive_is_completed_to_a_folder_that_draws(tmp_path: Path):
    out = tmp_path / "runs" / "things"
    restore(out)
    assert len(json.loads((out / "vocabulary.json").read_text())["objects"]) == 175
    images = TextToImage.load(out, text_encoder.load).images(["a fire hydrant"], [7])
    assert images[0].size == (256, 256) and len(list(out.parent.iterdir())) == 1
    with pytest.raises(ValueError, match="is there already"):
        restore(out)


@pytest.mark.skipif(not (weights_folder() / "scenes").is_dir(), reason="needs the bundled weights")
def test_a_damaged_archive_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "scenes").symlink_to(weights_folder() / "scenes")
    whole = (weights_folder() / ARCHIVE).read_bytes()
    monkeypatch.setenv("MASKGIL_WEIGHTS", str(tmp_path / "weights"))
    for damaged in (whole[: len(whole) // 2], b"no archive"):
        (tmp_path / "weights" / ARCHIVE).write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged"):
            restore(tmp_path / "runs" / "things")
        assert not list((tmp_path / "runs").iterdir())
