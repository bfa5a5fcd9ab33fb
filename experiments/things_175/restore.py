"""Restore the weights of the unfinished run over 175 things as a model folder: python -m experiments.things_175.restore

The archive holds what differs from weights/scenes, the generator and the decoder with one byte a number. The README
beside this file says how the run goes on from the folder.
"""

import lzma
import sys
import tarfile
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from maskgil.command_line import Command, run
from maskgil.model_folder import weights_folder
from train.export import appearing

ARCHIVE = "things-175.tar.xz"  # among the bundled weights; it holds one folder
COMPLETED = ("tokenizer", "text_encoder")  # parts whose other tensors are those of `scenes`
MODEL = "model.safetensors"


def restore(out: Path = Path("runs/things-175")) -> None:
    """Write the model folder of the unfinished run. ValueError where the folder exists or a file is missing.

    Args:
        out: A folder that does not exist yet.
    """
    archive, base = weights_folder() / ARCHIVE, weights_folder() / "scenes"
    for needed in (archive, base):
        if not needed.exists():
            raise ValueError(f"{needed} is missing: restore it from the repository")
    with appearing(str(out)) as folder:
        try:
            with tarfile.open(archive) as opened:
                opened.extractall(folder, filter=_without_root)
        except (EOFError, lzma.LZMAError, tarfile.TarError) as error:
            raise ValueError(f"{archive} is damaged ({error}): restore it from the repository") from None
        for part in COMPLETED:
            _complete(folder / part / MODEL, base / part / MODEL)


def _without_root(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
    """The member without the archive's one folder, as safe to unpack as tarfile's own filter makes it."""
    return tarfile.data_filter(member.replace(name=member.name.partition("/")[2] or ".", deep=False), path)


def _complete(file: Path, base: Path) -> None:
    """Add the tensors of `base` that `file` lacks."""
    with safe_open(file, "pt") as opened:
        about = opened.metadata()
    save_file(load_file(base) | load_file(file), file, metadata=about)


if __name__ == "__main__":
    sys.exit(run(Command("", lambda: restore), "python -m experiments.things_175.restore"))
