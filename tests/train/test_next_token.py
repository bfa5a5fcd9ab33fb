"""The AR model of the large models: it learns from their caches, goes on from converted weights, and says whose it
is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import maskgil
from PIL import Image
from test_image_cache import VQ, png
from test_pretrain import CONFIG, folder, rows  # noqa: F401, a fixture: pictures, their cache, a tokenizer

from maskgil import checkpoint
from maskgil.models.ar import ARTransformer
from maskgil.models.config import PRESETS
from maskgil.tokenizers.vq import VQModel
from train.commands import recipes
from train.data import image_sources
from train.data.image_cache import CacheWriter, fill_cache
from train.losses.conditioned import Conditioned
from train.losses.next_token import NextTokenLoss

AR = replace(CONFIG, causal=True, null_length=20)


@pytest.mark.parametrize("released", [False, True], ids=["ours", "LlamaGen's"])
def test_an_ar_model_learns_from_the_cache_of_its_model(folder: Path, released: bool):  # noqa: F811
    torch.manual_seed(0)
    start = ARTransformer(AR, zero_prefix=released)
    checkpoint.save(folder / "start", start, start.kind, AR.to_dict(), dtype=torch.float32)
    options = [
        f"--data={folder / 'cache'}",
        f"--valid={folder / 'cache'}",
        "--batch=4",
        "--micro=2",
        "--workers=0",
        "--ema=0.9",
    ]
    options += [
        "--warmup=2",
        "--token-dropout=0",
        "--lr=0.01",
        "--valid-every=20",
        f"--tokenizer={folder / 'tokenizer'}",
    ]
    maskgil("train", "t2i-xl-ar", *options, f"--init={folder / 'start'}", "--steps=40", f"--out={folder / 'run'}")
    logged = rows(folder / "run")
    assert logged[-1]["step"] == 40 and logged[39]["valid"] < logged[19]["valid"]
    assert Image.open(folder / "run" / "samples" / "0000040.png").size == (4 * 64, 2 * 64)
    notes = checkpoint.describe(folder / "run" / "export")
    cache = json.loads((folder / "cache" / "cache.json").read_text())
    assert notes["kind"] == start.kind
    assert notes["tokenizer_hash"] == cache["tokenizer"] and notes["text_encoder_hash"] == cache["text_encoder"]


def test_a_generator_is_no_start_for_an_ar_model_nor_an_ar_model_for_a_generator(folder: Path):  # noqa: F811
    ar_model = ARTransformer(AR)
    checkpoint.save(folder / "ar_model", ar_model, ar_model.kind, AR.to_dict())
    with pytest.raises(ValueError, match="kind 'maskgil'; autoregressive or llamagen is needed here"):
        maskgil(
            "train", *["t2i-xl-ar", f"--data={folder / 'cache'}", f"--init={folder / 'init'}", f"--out={folder / 'x'}"]
        )
    with pytest.raises(ValueError, match="kind 'autoregressive'; maskgil is needed here"):
        maskgil(
            "train",
            *["t2i-xl-256", f"--data={folder / 'cache'}", f"--init={folder / 'ar_model'}", f"--out={folder / 'x'}"],
        )


def test_a_class_driven_ar_model(tmp_path: Path, monkeypatch):
    for name in ("cat", "dog"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "0.png").write_bytes(png(64, 64))
    fill_cache(
        CacheWriter(
            image_sources.source(str(tmp_path / "in")), VQModel(VQ).eval(), None, tmp_path / "cache", [(64, 64)]
        )
    )
    monkeypatch.setitem(PRESETS, "l-llamagen", replace(PRESETS["l-llamagen"], dim=16, layers=1, heads=2))
    options = [
        f"--data={tmp_path / 'cache'}",
        "--batch=2",
        "--micro=2",
        "--steps=1",
        "--workers=0",
        f"--out={tmp_path / 'run'}",
    ]
    maskgil("train", "c2i-ar", "--preset=l", *options)
    export = checkpoint.load(tmp_path / "run" / "export", "autoregressive")
    assert export.config.classes == 2 and export.config.causal and export.config.layers == 1
    with pytest.raises(ValueError, match="preset=huge: choose b, l, xl or xxl"):
        maskgil("train", "c2i-ar", "--preset=huge", *options)
    assert {"t2i-xl-ar", "c2i-ar"} <= set(recipes())


def test_the_loss_does_not_depend_on_who_shares_the_batch():
    torch.manual_seed(0)
    model = Conditioned(ARTransformer(AR).eval())
    torch.nn.init.normal_(model.generator.output.weight)
    batch = {
        "tokens": torch.randint(0, 64, (6, 12)), "states": torch.randn(6, 5, 3), "numbers": torch.arange(6),
        "mask": torch.arange(5) < torch.arange(1, 7).clamp(max=5)[:, None],
    }  # fmt: skip

    def loss(rows: slice, dropout: float = 0.5):
        part = {name: tensor[rows] for name, tensor in batch.items()} | {"grid": (3, 4)}
        return NextTokenLoss(dropout, 0.1)([model], part, torch.Generator(), 0)[0]

    whole, halves = loss(slice(None)), [loss(slice(0, 2)), loss(slice(2, 6))]
    assert float(sum(half.total for half in halves)) == pytest.approx(float(whole.total), rel=1e-5)
    assert int(sum(half.count for half in halves)) == int(whole.count) == 6 * 12
    totals = {round(float(loss(slice(None), dropout).total), 2) for dropout in (0.0, 0.5, 1.0)}
    assert len(totals) == 3, "some captions were dropped, not all"
