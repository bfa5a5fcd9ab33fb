"""Restore the weights of the unfinished run over 175 things as a model folder: python -m experiments.things_175.restore

The archive holds what differs from weights/scenes, the generator and the decoder with one byte a number. The README
beside this file says how the run goes on from the folder.
"""

import shutil
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from maskgil.model_folder import weights_folder

ARCHIVE = Path(__file__).with_name("weights.tar.xz")
ROOT = "things-175"  # the one folder of the archive
COMPLETED = ("tokenizer", "text_encoder")  # parts whose other tensors are those of `scenes`
MODEL = "model.safetensors"


@dataclass
class Restore:
    """Write the model folder."""

    out: Path = Path("runs/things-175")
    """A folder that does not exist yet."""


def restore(options: Restore) -> None:
    """Unpack the archive and complete it. ValueError where the folder exists or `scenes` is missing."""
    base = weights_folder() / "scenes"
    if options.out.exists():
        raise ValueError(f"{options.out} is there already: give another folder with --out")
    if not base.is_dir():
        raise ValueError(f"{base} is missing: the archive holds only what differs from it")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.out.parent) as temporary:
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(temporary, filter="data")
        folder = Path(temporary) / ROOT
        for part in COMPLETED:
            _complete(folder / part / MODEL, base / part / MODEL)
        shutil.move(folder, options.out)
    print(f"{options.out}: generator, tokenizer and text encoder of 175 things")


def _complete(file: Path, base: Path) -> None:
    """Add the tensors of `base` that `file` lacks."""
    with safe_open(file, "pt") as opened:
        about = opened.metadata()
    save_file(load_file(base) | load_file(file), file, metadata=about)


if __name__ == "__main__":
    try:
        restore(tyro.cli(Restore))
    except (ValueError, OSError) as error:
        print(f"things_175: {error}", file=sys.stderr)
        sys.exit(2)
