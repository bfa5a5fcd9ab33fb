"""speech.weight_mean: between a released Whisper and a tuned one."""

from pathlib import Path

import pytest
import torch
from whisper.model import ModelDimensions, Whisper

from app.cli import main
from speech.weight_mean import mean_whisper
from speech.whisper_folder import load_whisper, save_whisper


def written(folder: Path, seed: int, width: int = 32, windows: tuple[float, ...] = (2.0,)) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Whisper(ModelDimensions(80, 200, width, 2, 1, 51864, 32, width, 2, 1))
        torch.nn.init.normal_(model.decoder.positional_embedding, std=0.02)  # as it is made, its memory is any
    save_whisper(folder, model, windows, int8=False)
    return folder


def test_each_weight_is_the_mean_by_share_and_the_windows_are_the_tuned_ones(tmp_path: Path):
    released, tuned = written(tmp_path / "released", 0), written(tmp_path / "tuned", 1, windows=(1.0, 2.0))
    first, second = (load_whisper(folder)[0].state_dict() for folder in (released, tuned))
    for options, shares in (
        (["--share", "0.25"], {"encoder": 0.25, "decoder": 0.25}),
        (["--share", "1", "--decoder-share", "0"], {"encoder": 1.0, "decoder": 0.0}),
    ):
        assert main(["convert", "whisper-mean", *map(str, (released, tuned, tmp_path / "mean")), *options]) == 0
        model, windows = load_whisper(tmp_path / "mean")
        assert windows == (1.0, 2.0)
        for name, tensor in model.state_dict().items():
            share = shares[name.partition(".")[0]]
            wanted = (1 - share) * first[name] + share * second[name]
            step = wanted.abs().max() / 100  # of the rounding to int8
            assert torch.allclose(tensor, wanted, atol=float(step)), name
    assert "Copyright (c) 2022 OpenAI" in (tmp_path / "mean" / "README.md").read_text()


def test_another_share_and_another_size_are_refused(tmp_path: Path):
    released, wider = written(tmp_path / "released", 0), written(tmp_path / "wider", 0, width=64)
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="give 0"):
            mean_whisper(released, released, tmp_path / "mean", share)
    with pytest.raises(ValueError, match="different sizes"):
        mean_whisper(released, wider, tmp_path / "mean", 0.5)
    assert not (tmp_path / "mean").exists()
