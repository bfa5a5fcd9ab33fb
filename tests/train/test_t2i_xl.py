"""The text-driven model at its full size, from speech to a PNG on a CPU; weights are random, so it draws noise."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from app.core import png
from maskgil import checkpoint
from maskgil.aspect_buckets import rounded
from maskgil.models.config import PRESETS
from maskgil.tokenizers.vq import VQ_PRESETS
from text_encoder.small_t5 import SmallT5Encoder, train_vocabulary

ROOT = Path(__file__).resolve().parents[2]
SENTENCE = "two cats on the beach"
ASKED = (280, 200)  # 35 : 25; the nearest of the class of 256 px has 200 tokens


def noise(shapes: Mapping[str, tuple[int, ...]], scale: float) -> dict[str, Tensor]:
    """Random tensors in bfloat16, with numbers that repeat: a billion of them would take longer than the drawing."""
    bank = (scale * torch.randn(2**22 + 1)).bfloat16()
    tensors = {}
    for name, shape in shapes.items():
        size = torch.Size(shape).numel()
        tensors[name] = bank.repeat(-(-size // len(bank)))[:size].view(shape).clone()
        if len(shape) == 1 and name.endswith("weight"):  # of a norm: near 0 it would silence what comes after
            tensors[name] += 1
    return tensors


def write(folder: Path) -> Path:
    """The folder of `maskgil export text`: t2i-xl for 256 px, LlamaGen's VQ-16, a T5 of flan-t5-xl's width."""
    config = PRESETS["t2i-xl"]
    train_vocabulary([SENTENCE, "a red apple at night"] * 20, folder / "text_encoder", 60)
    encoder = SmallT5Encoder.fresh(
        folder / "text_encoder", d_model=config.text_dim, d_kv=64, d_ff=256, num_layers=1, num_heads=8, length=120
    )
    encoder.save(folder / "text_encoder")
    tokenizer = VQ_PRESETS["llamagen-vq16"].to_dict()
    codec = checkpoint.build_module("vq", tokenizer, "VQ-16")
    checkpoint.write(folder / "tokenizer", noise(checkpoint.shapes(codec), 0.02), "vq", tokenizer)
    hashes = {
        "tokenizer_hash": checkpoint.fingerprint(checkpoint.load(folder / "tokenizer").identity()),
        "text_encoder_hash": checkpoint.fingerprint(encoder.identity()),
    }
    trunk = checkpoint.build_module("maskgil", config.to_dict(), "t2i-xl")
    assert sum(parameter.numel() for parameter in trunk.parameters()) == 777_926_400
    checkpoint.write(folder / "generator", noise(checkpoint.shapes(trunk), 0.02), "maskgil", config.to_dict(), **hashes)
    (folder / "vocabulary.json").write_text(json.dumps({"bucket_classes": [256]}))
    return folder


@pytest.mark.slow
@pytest.mark.skipif(
    not (ROOT / "weights" / "whisper-scenes" / "model.pt").exists() or shutil.which("espeak-ng") is None,
    reason="needs the bundled recognizer and espeak-ng",
)
def test_speech_becomes_a_picture_at_full_size(tmp_path):
    """What a person runs. Steps are few and the picture is small; nothing of the generator or the tokenizer is."""
    model = write(tmp_path / "t2i-xl")
    subprocess.run(["espeak-ng", "-v", "en-us", "-s", "140", "-w", tmp_path / "x.wav", SENTENCE], check=True)
    size = f"{ASKED[0]}x{ASKED[1]}"
    options = ["--model", model, "--out", tmp_path / "x.png", "--steps", "2", "--size", size, "--seed", "1"]
    command = [sys.executable, "-m", "app", "listen", tmp_path / "x.wav", *options]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    heard = done.stdout.strip()
    assert "beach" in heard
    image, query = png.read_picture((tmp_path / "x.png").read_bytes())
    drawn = rounded(ASKED, (256,))
    assert f"{size} is drawn as {drawn[0]}x{drawn[1]}, the nearest" in done.stderr
    assert query is not None and query.prompt == heard and image.size == query.size == drawn
    assert len(image.getcolors(2**24)) > 100, "noise, not one colour"
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 8 * 2**20, "kilobytes: less than 8 GB"
