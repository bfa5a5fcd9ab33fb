"""The parts of a text-to-image model, loaded from its folder: generator, text encoder, tokenizer, sizes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from maskgil import checkpoint
from maskgil.aspect_buckets import sizes_of
from maskgil.class_labels import ClassLabels
from maskgil.condition import ConditionEncoder
from maskgil.experts import load_experts
from maskgil.fileio import parse_json
from maskgil.generator import Generator, Tokenizer
from maskgil.models.transformer import set_attention_backend
from maskgil.picture_sizes import Size
from maskgil.released.layout import TEXT_ENCODER, ReleasedFolder, is_released
from maskgil.released.loader import load_generator, load_vq, set_null_condition
from maskgil.sampler_presets import preset_of
from maskgil.sampling.ar_prefix import AR_KINDS, beside

EncoderLoader = Callable[[Path, str], ConditionEncoder]  # (folder, memory): `text_encoder.load`
GENERATOR_KINDS = ("maskgil", "emigm", *AR_KINDS)


class ModelParts(NamedTuple):
    """What `TextToImage` is made of, in the order of its arguments."""

    generator: Generator
    text_encoder: ConditionEncoder
    tokenizer: Tokenizer
    sizes: Sequence[Size]
    vocabulary: dict[str, Any] | None = None
    ar_model: Path | None = None
    preset: str = "default"


def load_parts(
    name: str | Path,
    open_encoder: EncoderLoader | None,
    device: torch.device | str,
    dtype: torch.dtype,
    attention: str,
    ar_model: str | Path | None,
    encoder_memory: str,
) -> ModelParts:
    """The parts of a bundled name, a folder or a Hugging Face id: see `TextToImage.load`."""
    folder = checkpoint.resolve(name)
    if is_released(folder):
        return _load_released(
            folder, _open_encoder(folder / TEXT_ENCODER, open_encoder, encoder_memory), dtype, device, attention
        )
    notes = checkpoint.describe(folder / "generator")
    kind = notes["kind"] if notes["kind"] in GENERATOR_KINDS else "maskgil"
    generator: Any = checkpoint.load(folder / "generator", kind, dtype)
    tokenizer: Any = generator.token_space.open_tokenizer(folder / "tokenizer")
    classes = generator.config.classes
    if classes:
        encoder: ConditionEncoder = ClassLabels.open(folder, classes)
    else:
        encoder = _open_encoder(folder / "text_encoder", open_encoder, encoder_memory)
    for part, model in (("tokenizer", tokenizer), *([] if classes else [("text_encoder", encoder)])):
        wanted = notes.get(f"{part}_hash")
        if wanted is None and notes["kind"] == "llamagen":
            continue  # weights that others released carry no fingerprints
        if wanted != (found := checkpoint.fingerprint(model.identity())):
            raise ValueError(
                f"{folder / part} is not what {folder / 'generator'} was trained with: its fingerprint is {found}, "
                f"the generator wants {wanted}; put the right one there"
            )
    vocabulary = _vocabulary(folder / "vocabulary.json")
    generator = load_experts(folder, generator, dtype)
    set_attention_backend(generator, attention)
    for module in (generator, tokenizer, encoder):
        if isinstance(module, nn.Module):
            module.to(device).requires_grad_(False)
    other = checkpoint.resolve(ar_model) if ar_model is not None else beside(folder)
    return ModelParts(generator, encoder, tokenizer, sizes_of(vocabulary), vocabulary, other, preset_of(folder))


def _open_encoder(folder: Path, open_encoder: EncoderLoader | None, memory: str) -> ConditionEncoder:
    if open_encoder is None:
        raise ValueError(f"{folder.parent} reads texts: pass text_encoder.load as open_encoder, which opens {folder}")
    return open_encoder(folder, memory)


def _load_released(
    folder: Path, encoder: ConditionEncoder, dtype: torch.dtype, device: torch.device | str, attention: str
) -> ModelParts:
    """A model in the layout of its release (maskgil/released/layout.py). Its files have no fingerprints to compare."""
    released = ReleasedFolder.open(folder)
    # Before the generator: an encoder that is offloaded has left the memory when that is read.
    nothing = encoder.encode([""]).states[0]
    generator, tokenizer = load_generator(released, dtype), load_vq(released)
    set_attention_backend(generator, attention)
    set_null_condition(generator, nothing)
    for module in (generator, tokenizer, encoder):
        assert isinstance(module, nn.Module)
        module.to(device).requires_grad_(False)
    return ModelParts(generator, encoder, tokenizer, released.sizes, preset=released.sampler)


def _vocabulary(path: Path) -> dict[str, Any]:
    try:
        vocabulary = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: it lists the sizes and words of the model") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    try:
        sizes_of(vocabulary if isinstance(vocabulary, dict) else {})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return vocabulary
