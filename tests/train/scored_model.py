"""A tiny model with an AR model beside it, and a judge, in the layout that `maskgil eval` loads."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from conftest import TINY, make_tiny

from maskgil import checkpoint
from maskgil.models.ar import ARTransformer
from maskgil.tokenizers.vq import VQConfig, VQModel
from text_encoder import SmallT5Encoder, train_vocabulary
from train.scenes.captions import sentences
from train.scenes.judge import SceneJudge, SceneJudgeConfig, save_judge


def tiny_scored_model(folder: Path) -> Path:
    """`model` with its AR model, which draw noise of 128x128, and `reader`, which has learned nothing; returns
    `folder`."""
    model = folder / "model"
    torch.manual_seed(0)
    tokenizer = VQModel(VQConfig(codebook_size=32, channels=(32,), res_blocks=1, z_channels=8, patch=16)).eval()
    checkpoint.save(model / "tokenizer", tokenizer, "vq", tokenizer.config.to_dict())
    train_vocabulary(sentences(40, seed=1), folder, 80)
    encoder = SmallT5Encoder.fresh(folder, d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=2, length=60)
    encoder.save(model / "text_encoder")
    parts = {"tokenizer_hash": tokenizer, "text_encoder_hash": encoder}
    hashes = {name: checkpoint.fingerprint(part.identity()) for name, part in parts.items()}
    config = replace(TINY, text_length=60)
    checkpoint.save(model / "generator", make_tiny(config), "maskgil", config.to_dict(), **hashes)
    ar_model = ARTransformer(replace(config, causal=True))
    checkpoint.save(folder / "model-ar", ar_model, ar_model.kind, ar_model.config.to_dict(), **hashes)
    (model / "vocabulary.json").write_text(json.dumps({"sizes": [[128, 128]]}))
    save_judge(SceneJudge(SceneJudgeConfig(widths=(16, 16), blocks=1)), folder / "reader")
    return folder
