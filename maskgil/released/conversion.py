"""LlamaGen's text-driven release as a model folder: a transformer, a tokenizer and flan-t5-xl, from three files.

    generator/  tokenizer/  text_encoder/  vocabulary.json

The released files are torch pickles: they are read with weights_only=True (maskgil/converters), converted once and
removed, so that they take no room twice.
"""

import shutil
from pathlib import Path
from typing import Any

import torch

from maskgil import checkpoint
from maskgil.converters import convert
from maskgil.fileio import write_json

FILES = "released"  # where a fetched folder holds what is converted
T5 = "flan-t5-xl"  # the folder of the text encoder in text_encoder/
TEXT_LENGTH = 120  # tokens of a prompt
VQ_FILE = "vq_ds16_t2i.pt"


def convert_llamagen(folder: Path, side: int) -> None:
    """Convert the files in `folder`/released, of a generator of images of `side` px, and remove them.

    Raises ValueError for files that are missing or do not fit.
    """
    released = folder / FILES
    generators = [path for path in sorted(released.glob("*.pt")) if path.name != VQ_FILE]
    if len(generators) != 1:
        raise ValueError(f"{released} holds {len(generators)} generators, one is expected: fetch the model again")
    vq = convert("llamagen-vq", released / VQ_FILE)
    checkpoint.write(folder / "tokenizer", vq.tensors, vq.kind, vq.config, vq.card, torch.float32)
    tokenizer: Any = checkpoint.load(folder / "tokenizer", "vq")
    tokenizer_hash = checkpoint.fingerprint(tokenizer.identity())
    gpt = convert("llamagen-gpt", generators[0])
    checkpoint.write(
        folder / "generator",
        gpt.tensors,
        gpt.kind,
        gpt.config,
        gpt.card,
        torch.float32,
        tokenizer_hash=tokenizer_hash,
    )
    write_json(folder / "text_encoder" / "config.json", {
        "kind": "huggingface",
        "name": T5,
        "length": TEXT_LENGTH,
        "padding": "left",
    })  # fmt: skip
    write_json(folder / "vocabulary.json", {"sizes": [[side, side]]})
    shutil.rmtree(released)
