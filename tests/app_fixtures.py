"""Tiny model folders with random weights, of the very layout that trained ones have: what the app is tested with."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from maskgil import checkpoint
from maskgil.models.ar import ARTransformer
from maskgil.models.config import ModelConfig
from maskgil.models.emigm import EMIGM, EMIGMConfig
from maskgil.models.maskgil import MaskGIL
from maskgil.tokenizers.autoencoder import AutoencoderConfig, AutoencoderTokenizer
from maskgil.tokenizers.vq import VQConfig, VQModel
from text_encoder.small_t5 import SmallT5Encoder, train_vocabulary

CODES = 64
WORDS = "a an the one two three red blue cat cats dog dogs apple on at beach grass night big small".split()
CLASSES = ["tench, Tinca tinca", "goldfish", "golden retriever"]
VOCABULARY = {
    "objects": [{"name": "cat", "synonyms": ["kitten"]}, {"name": "dog", "synonyms": []}, {"name": "apple"}],
    "backgrounds": [{"name": "beach", "say": ["on the beach", "at the beach"]}, "grass", "night"],
    "styles": [{"name": "flat", "say": ["a flat one of"]}],
    "counts": [1, 2, 3],
    "relations": ["on"],
    "sizes": [[64, 64], [96, 64]],
    "words": [*WORDS, "kitten", "flat"],
    "examples": ["two cats on the beach", "a red apple"],
}


def tiny_model(folder: Path) -> Path:
    """Writes and returns a text-to-image folder whose model draws 64x64 and 96x64 in 64 and 96 tokens."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sentences = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))]
        train_vocabulary(sentences, folder / "text_encoder", size=80)
        encoder = SmallT5Encoder.fresh(
            folder / "text_encoder", d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, length=24
        ).eval()
        tokenizer = VQModel(VQConfig(codebook_size=CODES, channels=(32,), res_blocks=1, z_channels=32, patch=8)).eval()
        config = ModelConfig(
            codebook_size=CODES, dim=32, layers=2, heads=2, ffn=64, text_dim=16, text_length=24, qk_norm="rms"
        )
        generator = MaskGIL(config).eval()
        for parameter in generator.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    encoder.save(folder / "text_encoder")
    checkpoint.save(folder / "tokenizer", tokenizer, "vq", tokenizer.config.to_dict())
    parts = {"tokenizer": tokenizer, "text_encoder": encoder}
    hashes = {f"{name}_hash": checkpoint.fingerprint(part.identity()) for name, part in parts.items()}
    checkpoint.save(folder / "generator", generator, "maskgil", config.to_dict(), **hashes)
    (folder / "vocabulary.json").write_text(json.dumps(VOCABULARY))
    (folder / "README.md").write_text("# Tiny\n\nRandom weights: it draws noise.\n")
    return folder


def tiny_ar_model(folder: Path) -> Path:
    """Writes and returns the AR model of a tiny model, beside it, where it is found."""
    notes = checkpoint.describe(folder / "generator")
    config = replace(ModelConfig.from_dict(notes["config"]), causal=True)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        ar_model = ARTransformer(config).eval()
        for parameter in ar_model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    hashes = {name: value for name, value in notes.items() if name.endswith("_hash")}
    beside = folder.with_name(f"{folder.name}-ar")
    checkpoint.save(beside, ar_model, ar_model.kind, config.to_dict(), **hashes)
    return beside


def tiny_classes(folder: Path) -> Path:
    """Writes and returns a class-driven folder that draws 32x32: it has names for its classes and no text encoder."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        tokenizer = VQModel(VQConfig(codebook_size=CODES, channels=(32,), res_blocks=1, z_channels=32, patch=8)).eval()
        config = ModelConfig(codebook_size=CODES, dim=32, layers=1, heads=2, ffn=64, classes=len(CLASSES))
        generator = MaskGIL(config).eval()
        for parameter in generator.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    checkpoint.save(folder / "tokenizer", tokenizer, "vq", tokenizer.config.to_dict())
    made_by = checkpoint.fingerprint(tokenizer.identity())
    checkpoint.save(folder / "generator", generator, "maskgil", config.to_dict(), tokenizer_hash=made_by)
    (folder / "vocabulary.json").write_text(json.dumps({"sizes": [[32, 32]]}))
    (folder / "class_names.json").write_text(json.dumps(CLASSES))
    return folder


def tiny_latents(folder: Path) -> Path:
    """Writes and returns a folder whose generator draws vectors: eMIGM over a KL tokenizer, 64x64 in 16 tokens."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        sentences = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))]
        train_vocabulary(sentences, folder / "text_encoder", size=80)
        encoder = SmallT5Encoder.fresh(
            folder / "text_encoder", d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, length=24
        ).eval()
        tokenizer = AutoencoderTokenizer(
            AutoencoderConfig(channels=4, widths=(8, 8, 8, 8, 8), layers=1, groups=4, scale=0.25)
        ).eval()
        config = EMIGMConfig(
            width=16, heads=2, depth=1, head_depth=1, head_width=16, channels=4, grid=(4, 4), buffer=24,
            classes=None, text_dim=16, dropout=0.0,
        )  # fmt: skip
        generator = EMIGM(config).eval()
        for parameter in generator.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    encoder.save(folder / "text_encoder")
    checkpoint.save(folder / "tokenizer", tokenizer, "latent", tokenizer.config.to_dict())
    parts = {"tokenizer": tokenizer, "text_encoder": encoder}
    hashes = {f"{name}_hash": checkpoint.fingerprint(part.identity()) for name, part in parts.items()}
    checkpoint.save(folder / "generator", generator, "emigm", config.to_dict(), **hashes)
    (folder / "vocabulary.json").write_text(json.dumps(VOCABULARY | {"sizes": [[64, 64]]}))
    return folder


def scene_words(folder: Path) -> SmallT5Encoder:
    """Writes and returns an untrained text encoder as wide as the tiny models' that knows the words of scenes."""
    words = Path(__file__).resolve().parent.parent / "weights" / "scenes" / "text_encoder" / "spiece.model"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(words, folder)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        encoder = SmallT5Encoder.fresh(folder, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, length=48)
    encoder.eval().save(folder)
    return encoder
