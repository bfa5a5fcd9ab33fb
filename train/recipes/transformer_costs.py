"""Memory and work of training the transformers of train/recipes/pretrain.py."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from maskgil.models.ar import ARTransformer
from maskgil.models.maskgil import MaskGIL
from train.model_flops import kept_bytes, step_flops

Transformer = MaskGIL | ARTransformer


def activation_bytes_of(model: Transformer, note: dict[str, Any], micro: int) -> float:
    """Bytes that a forward pass of `micro` of the cache's largest pictures keeps for the backward pass."""
    tokens = max(width * height for width, height in note["shapes"]) // note["downsample"] ** 2
    return micro * kept_bytes(model.config, tokens)


def flops_of_batches(model: Transformer, downsample: int) -> Callable[[dict[str, Any]], float]:
    """FLOPs of forward and backward of a batch of tokens, or of pixels, and their condition, for MFU."""
    config = model.config
    frozen = not all(p.requires_grad for p in model.parameters())

    def count(batch: dict[str, Any]) -> float:
        if "pixels" in batch:  # encoded in the step; that work is not the generator's
            rows, _, height, width = batch["pixels"].shape
            return step_flops(config, rows, height * width // downsample**2, frozen)
        rows, tokens = batch["tokens"].shape[:2]
        return step_flops(config, rows, tokens, frozen, batch["states"].shape[1] if "states" in batch else 1)

    return count


@dataclass(frozen=True)
class TransformerCosts:
    """How memory and work of a model are counted.

    activations  (model, the cache's note, pictures) -> bytes that a forward pass keeps
    flops        (model, pixels of a token side) -> (batch -> FLOPs of forward and backward)
    """

    activations: Callable[[Transformer, dict[str, Any], int], float] = activation_bytes_of
    flops: Callable[[Transformer, int], Callable[[dict[str, Any]], float]] = flops_of_batches
