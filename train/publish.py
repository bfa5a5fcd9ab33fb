"""Puts trained parts together as a model folder that ships: python -m train.publish PART ...

    python -m train.publish scenes tokenizer=runs/decoder/export generator=runs/generator/export out=weights/scenes
    python -m train.publish ar twin=runs/ar/export model=weights/scenes out=weights/scenes-ar
    python -m train.publish reader reader=runs/reader/export sprites=FOLDER out=weights/scenes-reader

`scenes` writes tokenizer/, text_encoder/, generator/ and vocabulary.json, and opens the result once: parts that do not
belong together are refused. `ar` writes the autoregressive twin of such a model, of the same tokenizer and text encoder
or refused. The model card (README.md) is written by people.
"""

import json
import os
import sys
from pathlib import Path

import torch

import text_encoder
from maskgil import checkpoint
from maskgil.pipeline import TextToImage
from train.evaluate import write_reference
from train.scenes.captions import vocabulary
from train.scenes.reader import save_reader
from train.scenes.sprites import Sprites


def scenes(tokenizer: str, generator: str, out: str) -> None:
    target = Path(out)
    model = checkpoint.load(tokenizer, "vq")
    checkpoint.save(target / "tokenizer", model, "vq", model.config.to_dict())
    trunk = checkpoint.load(Path(generator) / "generator", "maskgil")
    notes = checkpoint.describe(Path(generator) / "generator")
    hashes = {name: notes[name] for name in ("tokenizer_hash", "text_encoder_hash")}
    checkpoint.save(target / "generator", trunk, "maskgil", trunk.config.to_dict(), **hashes)
    text_encoder.load(Path(generator) / "text_encoder").save(target / "text_encoder")
    partial = target / "vocabulary.json.partial"
    partial.write_text(json.dumps(vocabulary(), indent=1) + "\n")
    os.replace(partial, target / "vocabulary.json")
    TextToImage.load(target)
    print(f"{target}: {sum(f.stat().st_size for f in target.rglob('*') if f.is_file()) / 1e6:.1f} MB")


def ar(twin: str, model: str, out: str) -> None:
    found = TextToImage.load(model, twin=twin).twin
    notes = checkpoint.describe(twin)
    hashes = {name: notes[name] for name in ("tokenizer_hash", "text_encoder_hash") if name in notes}
    checkpoint.save(out, found, found.kind, found.config.to_dict(), **hashes)
    print(f"{out}: {sum(f.stat().st_size for f in Path(out).rglob('*') if f.is_file()) / 1e6:.1f} MB")


def reader(reader: str, sprites: str, out: str) -> None:
    model = checkpoint.load(reader, "reader")
    save_reader(model, Path(out))
    with torch.no_grad():
        write_reference(model.eval(), Sprites(sprites), Path(out) / "reference.safetensors")


def main(arguments: list[str]) -> None:
    parts = {"scenes": scenes, "ar": ar, "reader": reader}
    if not arguments or arguments[0] not in parts:
        raise ValueError(f"publish what? {', '.join(parts)}; see the top of train/publish.py")
    parts[arguments[0]](**dict(a.split("=", 1) for a in arguments[1:]))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, TypeError) as error:
        print(f"train.publish: {error}", file=sys.stderr)
        sys.exit(2)
