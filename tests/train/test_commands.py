"""The commands as a person with several processes gives them: a cache, then a run on it, each by torchrun on a CPU."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import maskgil
from conftest import TINY
from safetensors.torch import load_file
from test_image_cache import VQ, shards  # noqa: F401, a fixture: pictures with captions in two tar files

from maskgil import checkpoint
from maskgil.models.maskgil import MaskGIL
from maskgil.tokenizers.vq import VQModel
from text_encoder import SmallT5Encoder, train_vocabulary

ROOT = Path(__file__).resolve().parents[2]
CONFIG = replace(TINY, codebook_size=VQ.codebook_size, text_length=20)


def torchrun(folder: Path, *command: str) -> subprocess.CompletedProcess:
    """Two real processes. Without ACCELERATE_USE_CPU accelerate would run each of them alone."""
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", *command],
        cwd=folder, text=True, capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_make_a_cache_and_train_on_it(shards: Path, monkeypatch):  # noqa: F811
    """What they make is what one process makes."""
    monkeypatch.chdir(shards)
    torch.manual_seed(0)
    checkpoint.save("tokenizer", VQModel(VQ), "vq", VQ.to_dict())
    train_vocabulary(["picture 0", "picture 1", "a picture of three"] * 20, shards, 40)
    SmallT5Encoder.fresh(shards, d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=2, length=20).save("encoder")
    model = MaskGIL(CONFIG)
    torch.nn.init.normal_(model.output.weight, std=0.3)
    checkpoint.save("start", model, "maskgil", CONFIG.to_dict(), dtype=torch.float32)

    making = ["--source=part-{00..01}.tar", "--tokenizer=tokenizer", "--text-encoder=encoder", "--size=64", "--batch=2"]
    done = torchrun(shards, "app", "data", "images", *making, "--out=two")
    assert done.returncode == 0, done.stderr[-8000:]
    assert all(f"process {rank} of 2 encoded 4 pictures" in done.stdout for rank in (1, 2)), done.stdout
    maskgil("data", "images", *[*making, "--out=one"])
    one, two = (sorted(p.name for p in Path(name).iterdir() if p.suffix != ".png") for name in ("one", "two"))
    assert one == two and len(names := one) == 5, "the sheet of some pictures is the first process's"
    for name in names[:2]:
        one, two = (load_file(Path(folder, name)) for folder in ("one", "two"))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    for name in names[2:]:
        assert Path("one", name).read_text() == Path("two", name).read_text()

    options = [
        "--data=two",
        "--valid=two",
        "--init=start",
        "--batch=4",
        "--micro=1",
        "--steps=2",
        "--precision=no",
        "--workers=0",
    ]
    options += ["--token-dropout=0", "--ema=0.9", "--lr=0.01", "--warmup=1", "--valid-every=1"]
    done = torchrun(shards, "train", "t2i-xl-256", *options, "--out=together")
    assert done.returncode == 0, done.stderr[-8000:]
    state = torch.load("together/state.pt", weights_only=True)
    assert (state["step"], state["world"]) == (2, 2), "two processes trained one model"
    maskgil("train", "t2i-xl-256", *options, "--out=alone")
    ours, theirs = (json.loads(Path(name, "log.jsonl").read_text().splitlines()[-1]) for name in ("together", "alone"))
    assert ours["step"] == theirs["step"] == 2 and ours["valid"] == pytest.approx(theirs["valid"], rel=1e-4)
    ours, theirs = (checkpoint.load(Path(name, "export", "generator")) for name in ("together", "alone"))
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-2), name  # stored in bfloat16
