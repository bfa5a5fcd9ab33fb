"""The folder layout in which masked text-to-image models are released, and what a folder of it draws.

    transformer/  vqvae/  text_encoder/  tokenizer/  scheduler/        # config.json and safetensors in each

This module imports no torch: the list of models is printed without it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskgil.fileio import parse_json

TRANSFORMER, VQ, TEXT_ENCODER, WORDS = "transformer", "vqvae", "text_encoder", "tokenizer"
PARTS = (TRANSFORMER, VQ, TEXT_ENCODER)  # those with weights
CONFIGS = (*(f"{part}/config.json" for part in PARTS), f"{WORDS}/vocab.json")
MOST_LEVELS, LARGEST_SIDE = 16, 8192  # more has no released model: a damaged config.json
MEISSONIC_TOKENS = {True: 64, False: 32}  # on a side, by whether the transformer halves the token grid


@dataclass(frozen=True)
class ReleasedFolder:
    """A complete folder. `sizes`: what it draws, (width, height) in pixels; `sampler`: the name of its preset."""

    folder: Path
    family: str
    sizes: tuple[tuple[int, int], ...]
    pixels_per_token: int

    @property
    def sampler(self) -> str:
        return self.family

    @staticmethod
    def open(folder: Path) -> "ReleasedFolder":
        """The folder's description. ValueError where a file is missing, damaged or of an unknown family."""
        if missing := missing_files(folder):
            raise ValueError(f"{folder} is incomplete: {', '.join(missing)} missing; fetch it again")
        transformer, vq = (read_json(folder / part / "config.json") for part in (TRANSFORMER, VQ))
        try:
            levels = len(vq["block_out_channels"])
            if not 1 <= levels <= MOST_LEVELS:
                raise ValueError(f"its tokenizer has {levels} levels")
            pixels = 2 ** (levels - 1)
            if "num_single_layers" in transformer:
                family, side = "meissonic", pixels * MEISSONIC_TOKENS[bool(transformer.get("downsample", False))]
            elif "num_hidden_layers" in transformer:
                family, side = "amused", pixels * int(transformer["sample_size"])
                if not pixels <= side <= LARGEST_SIDE:
                    raise ValueError(f"its images have {side} px on a side")
            else:
                raise ValueError("it is neither aMUSEd's nor Meissonic's")
        except (ArithmeticError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{folder / TRANSFORMER}/config.json does not describe a known released model: {error}"
            ) from None
        return ReleasedFolder(folder, family, ((side, side),), pixels)


def is_released(folder: Path) -> bool:
    """Whether a folder has the released layout, complete or not."""
    return (folder / TRANSFORMER / "config.json").is_file() and (folder / VQ / "config.json").is_file()


def missing_files(folder: Path) -> list[str]:
    """What a folder of the released layout lacks."""
    missing = [name for name in CONFIGS if not (folder / name).is_file()]
    return missing + [f"{part}/*.safetensors" for part in PARTS if not weight_files(folder / part)]


def weight_files(part: Path) -> list[Path]:
    """The safetensors files of a part: the full-precision ones, or else those of a variant such as fp16."""
    files = sorted(part.glob("*.safetensors"))
    plain = [file for file in files if file.name.count(".") == 1]
    return plain or files


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. ValueError when it is none."""
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}; a JSON object is expected")
    return values
