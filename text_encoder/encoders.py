"""What a text encoder is, and encoders by folder or by Hugging Face name.

`tokenize` and `forward` are the two halves of `encode`, apart so that an encoder can be trained with a generator.
Axes: B prompts, L text tokens, E width of a text state.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskgil.condition import Condition
from maskgil.fileio import parse_json
from maskgil.shared_parts import resolve_part
from text_encoder.clip_text import ClipTextEncoder
from text_encoder.encoder_memory import ENCODER_MEMORY, OffloadedEncoder, loading_arguments
from text_encoder.huggingface import HuggingFaceEncoder
from text_encoder.small_t5 import SmallT5Config, SmallT5Encoder, train_vocabulary

__all__ = [
    "ENCODER_MEMORY",
    "ClipTextEncoder",
    "HuggingFaceEncoder",
    "SmallT5Config",
    "SmallT5Encoder",
    "TextEncoder",
    "load",
    "train_vocabulary",
]

CONFIG = "config.json"
CLIP_TYPES = ("clip", "clip_text_model")  # model_type of CLIP, and of its text half


@runtime_checkable
class TextEncoder(Protocol):
    """What a pipeline asks of a text encoder."""

    length: int  # most tokens of a prompt
    width: int  # E

    def tokenize(self, prompts: Sequence[str]) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
        """Token ids and which of them are real, on the CPU."""
        ...

    def forward(self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B L E"]:
        """States of the tokens, zero where the mask is False; differentiable."""
        ...

    def encode(self, prompts: Sequence[str]) -> Condition:
        """Both halves without gradient or dropout, on the device of the encoder."""
        ...

    def identity(self) -> dict[str, Tensor]:
        """Tensors that tell this encoder from any other; a generator records their fingerprint."""
        ...


def load(name: str | Path, memory: str = "full") -> TextEncoder:
    """An encoder by folder (as `save` wrote it, or of Hugging Face's layout) or by Hugging Face name.

    A folder may hold nothing but the name of the model whose encoder it borrows (maskgil/shared_parts.py). `memory`:
    full, bf16, 8bit, 4bit or offload (text_encoder/encoder_memory.py), for encoders of Hugging Face; others are small.

    Raises ValueError for a folder without an encoder, for an owner that is not there, and for a name that is neither
    cached nor to be downloaded.
    """
    if not (Path(name) / CONFIG).is_file():
        if Path(name).is_dir():
            raise ValueError(f"{name} holds no text encoder: {CONFIG} is missing")
        return _in_memory(lambda **how: HuggingFaceEncoder(str(name), **how), memory)
    if (where := resolve_part(name)) != Path(name):
        return load(where, memory)
    about = _about(name)
    kind = about.get("kind")
    if kind == SmallT5Encoder.kind:
        return SmallT5Encoder.load(name)
    if kind == HuggingFaceEncoder.kind:
        return _in_memory(lambda **how: HuggingFaceEncoder.load(name, **how), memory)
    if kind is None and about.get("model_type") in CLIP_TYPES:
        words = Path(name).parent / "tokenizer"  # diffusers' layout has the tokenizer beside the model
        beside = words if (words / "vocab.json").is_file() else None
        return _in_memory(lambda **how: ClipTextEncoder(name, beside, **how), memory)
    if kind is None:
        return _in_memory(lambda **how: HuggingFaceEncoder(str(name), **how), memory)
    raise ValueError(f"{name} is a model of kind {kind!r}, not a text encoder")


def _in_memory(make: Callable[..., Any], memory: str) -> TextEncoder:
    """The encoder that `make` makes, in the chosen way."""
    encoder = make(**loading_arguments(memory))
    return OffloadedEncoder(encoder, lambda: make().model) if memory == "offload" else encoder


def _about(folder: str | Path) -> dict[str, Any]:
    config = Path(folder) / CONFIG
    try:
        about = parse_json(config.read_text(encoding="utf-8"))
        if isinstance(about, dict):
            return about
        error = f"it holds a {type(about).__name__}"
    except ValueError as broken:
        error = broken
    raise ValueError(f"{config} is not a JSON object: {error}")
