"""How many numbers the parts of a model have learned, from the heads of their files: nothing is loaded.

This module imports no torch: the list of models is printed without it.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from maskgil.fileio import parse_json
from maskgil.released import layout
from maskgil.shared_parts import resolve_part

# Tensors of a text encoder's files that belong to the halves that nobody reads: T5's decoder, CLIP's view of images.
UNREAD = ("decoder.", "lm_head.", "vision_model.", "visual_projection.", "logit_scale")
# Tensors that 8 and 4 bits leave as they are: tables, norms, biases and the last projection.
EXACT = (
    *("shared.weight", "embed_tokens.weight", "embedding.weight", "relative_attention_bias.weight"),
    *("norm.weight", "norm1.weight", "norm2.weight", ".bias", "text_projection.weight"),
)
LONGEST_HEAD = 10**8  # bytes, as safetensors has it
CLIP_BYTES, OTHER_BYTES, SMALL_BYTES = 4, 2, 4  # a number of an encoder as it is loaded: CLIP, T5 and others, our own


@dataclass(frozen=True)
class EncoderSize:
    """A text encoder.

    numbers     that it has learned
    exact       of them, those that 8 and 4 bits leave as they are: tables, norms, biases, the last projection
    itemsize    bytes of a number where nobody chooses fewer
    adjustable  whether its memory can be chosen (text_encoder/encoder_memory.py)
    """

    numbers: int
    exact: int = 0
    itemsize: int = SMALL_BYTES
    adjustable: bool = False


def encoder_size(part: Path) -> EncoderSize:
    """The text encoder in this folder; one without numbers where it lies elsewhere, in the Hugging Face cache."""
    about = _about(part)
    kind, clip = about.get("kind"), str(about.get("model_type", "")).startswith("clip")
    folder = part / str(about.get("name", "")) if kind == "huggingface" else part
    counts: dict[str, int] = {}
    for file in layout.weight_files(folder) if folder.is_dir() else ():
        counts |= tensor_sizes(file)
    read = {name: count for name, count in counts.items() if not name.startswith(UNREAD)}
    if kind not in (None, "huggingface"):
        return EncoderSize(sum(read.values()))
    exact = sum(count for name, count in read.items() if name.endswith(EXACT))
    return EncoderSize(sum(read.values()), exact, CLIP_BYTES if clip else OTHER_BYTES, True)


def part_numbers(part: Path) -> int:
    """Numbers of a generator or tokenizer, which may be shared with another folder."""
    return sum(sum(tensor_sizes(file).values()) for file in layout.weight_files(resolve_part(part)))


def tensor_sizes(file: Path) -> dict[str, int]:
    """How many numbers each tensor of a safetensors file holds, scales of bytes aside (maskgil/checkpoint.py); none for
    a file that cannot be read, which loading complains of."""
    try:
        with file.open("rb") as data:
            length = int.from_bytes(data.read(8), "little")
            head = parse_json(data.read(length)) if length <= LONGEST_HEAD else {}
        learned = [name for name in head if name != "__metadata__" and not name.endswith(".rows")]
        return {name: math.prod(head[name]["shape"]) for name in learned}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError):
        return {}


def _about(part: Path) -> dict:
    try:
        about = parse_json((part / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}
