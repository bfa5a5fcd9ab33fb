"""train.asr.short_windows: an encoder learns to hear short windows as its teacher hears 30 seconds."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from whisper.model import ModelDimensions, Whisper

from speech.audio import RATE
from speech.greedy_decoding import encode_window
from speech.whisper_folder import load_whisper, save_whisper
from train.asr.short_windows import RecordedWindows, TunedEncoder, WindowStatesLoss
from train.recipes.asr import whisper_windows
from train.trainer import train

SECONDS = 4.0  # of the tiny teacher's own window


def tiny_whisper() -> Whisper:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Whisper(ModelDimensions(80, round(SECONDS * 50), 32, 2, 1, 51864, 32, 32, 2, 1)).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("positional_embedding"):
                torch.nn.init.normal_(parameter, std=0.02)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_whisper(tmp_path / "teacher", tiny_whisper(), windows=(SECONDS,))
    (tmp_path / "recordings").mkdir()
    draw = np.random.default_rng(0)
    for name in ("a-1", "a-2", "b-1"):
        soundfile.write(tmp_path / "recordings" / f"{name}.wav", draw.normal(0, 0.1, 2 * RATE), RATE)
    return tmp_path


def test_a_batch_is_a_function_of_its_number_and_leaves_out_who_is_held_out(folder: Path, monkeypatch):
    batches = RecordedWindows(str(folder / "recordings"), (1.0, 2.0), SECONDS, 80, 2, ("a-",))
    assert torch.equal(batches(3)["mel"], batches(3)["mel"]) and batches(0)["mel"].shape == (2, 80, 100 * SECONDS)
    assert [int(batches(i)["frames"]) for i in range(3)] == [100, 200, 100]
    opened = []
    monkeypatch.setattr("speech.audio.load_audio", lambda path, longest: opened.append(path.name) or np.zeros(RATE))
    for index in range(4):
        batches(index)
    assert set(opened) == {"b-1.wav"}
    with pytest.raises(ValueError, match="holds no recordings"):
        RecordedWindows(str(folder), (1.0,), SECONDS, 80, 1, ("a-", "b-"))(0)


def test_the_loss_is_zero_over_the_full_window_and_falls_over_a_short_one(folder: Path):
    teacher, student = tiny_whisper(), TunedEncoder(tiny_whisper())
    loss, generator = WindowStatesLoss(teacher), torch.Generator()
    batch = RecordedWindows(str(folder / "recordings"), (1.0,), SECONDS, 80, 2)(0)
    whole, _ = loss([student], batch | {"frames": torch.tensor(round(100 * SECONDS))}, generator, 0)
    assert float(whole.mean) < 1e-8
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    seen = []
    for _ in range(8):
        optimizer.zero_grad()
        distance = loss([student], batch, generator, 0)[0].mean
        distance.backward()
        optimizer.step()
        seen.append(float(distance))
    assert seen[0] > 0 and seen[-1] < seen[0]


def test_a_run_exports_a_whisper_with_the_new_windows(folder: Path):
    recipe = whisper_windows(str(folder / "recordings"), str(folder / "teacher"), (1.0, 2.0), steps=2, batch=1)
    train(recipe, folder / "run")
    (exported,) = {path.parent for path in (folder / "run").rglob("config.json")}
    model, windows = load_whisper(exported)
    assert windows == (1.0, 2.0, SECONDS)
    before, _ = load_whisper(folder / "teacher")
    mel = torch.zeros(1, 80, 100)
    assert not torch.equal(encode_window(model.encoder, mel), encode_window(before.encoder, mel))
    decoder = zip(model.decoder.parameters(), before.decoder.parameters(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-2) for a, b in decoder), "the decoder stays"


def test_windows_must_fit(folder: Path):
    with pytest.raises(ValueError, match="give seconds from 1 to 4"):
        whisper_windows(str(folder / "recordings"), str(folder / "teacher"), (8.0,))
