"""What the weights of a model take in memory, and which ways of holding them fit: said before anything is loaded.

    need = memory_need(model_sizes, 4, "offload")     # bytes a number of the generator, memory of the text encoder

The tokenizer is always in float32. Drawing takes more than the weights: the activations of a step and of the decoder
(docs/released-models.md). This module imports no torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.core.weight_counts import EncoderSize

PRECISIONS = {"fp32": 4, "bf16": 2}  # of the generator: bytes of a number
EIGHT_BITS, FOUR_BITS = 1.0, 0.5 + 4 / 64  # bytes of a number of a matrix; 4 bits have a scale for each 64 numbers
GIGA = 1e9


@dataclass(frozen=True)
class ModelSizes:
    """Numbers that the parts of a model have learned."""

    generator: int
    tokenizer: int
    encoder: EncoderSize


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes of the weights: `resting` between two prompts, `peak` while a prompt is encoded."""

    resting: float
    peak: float

    def __str__(self) -> str:
        """In gigabytes: "3.5 GB", or both values where they differ."""
        peak = f"{self.peak / GIGA:.1f} GB"
        return peak if self.resting == self.peak else f"{self.resting / GIGA:.1f} GB, {peak} while a prompt is read"


def encoder_bytes(size: EncoderSize, memory: str) -> float:
    """Bytes of a text encoder's weights while it encodes."""
    if not size.adjustable or memory in ("full", "offload"):
        return size.numbers * size.itemsize
    if memory == "bf16":
        return size.numbers * 2
    matrices = size.numbers - size.exact
    return size.exact * size.itemsize + matrices * (EIGHT_BITS if memory == "8bit" else FOUR_BITS)


def memory_need(sizes: ModelSizes, itemsize: int, encoder_memory: str) -> MemoryNeed:
    """What the weights take. `itemsize`: bytes of a number of the generator."""
    drawn = sizes.generator * itemsize + sizes.tokenizer * 4
    encoder = encoder_bytes(sizes.encoder, encoder_memory)
    resting = drawn if encoder_memory == "offload" and sizes.encoder.adjustable else drawn + encoder
    return MemoryNeed(resting, drawn + encoder)


def ways_that_fit(sizes: ModelSizes, free: float, memories: Sequence[str]) -> Iterator[tuple[str, str, MemoryNeed]]:
    """(precision, memory of the text encoder, need) of the ways that fit, the most exact first. `memories`: of a text
    encoder, as they can be chosen here."""
    for precision, itemsize in PRECISIONS.items():
        for memory in memories if sizes.encoder.adjustable else ("full",):
            need = memory_need(sizes, itemsize, memory)
            if need.peak <= free:
                yield precision, memory, need


def fit_in_words(sizes: ModelSizes, free: float, memories: Sequence[str]) -> str:
    """One sentence on what fits into `free` bytes."""
    best = next(ways_that_fit(sizes, free, memories), None)
    if best is None:
        least = min(
            memory_need(sizes, 2, memory).peak for memory in (memories if sizes.encoder.adjustable else ("full",))
        )
        return f"It does not fit: the least it takes is {least / GIGA:.1f} GB, and {free / GIGA:.1f} GB are free here."
    precision, memory, need = best
    if (precision, memory) == ("fp32", "full"):
        return f"It fits in fp32: {need} of the {free / GIGA:.1f} GB that are free here."
    encoder = (
        ""
        if memory == "full"
        else f" with the text encoder in {memory}"
        if memory != "offload"
        else (" with the text encoder offloaded")
    )
    return f"It fits in {precision}{encoder}: {need} of the {free / GIGA:.1f} GB that are free here. Choose that first."
