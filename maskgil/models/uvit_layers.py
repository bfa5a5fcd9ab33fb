"""Layers that the released masked generators share: token embedding, head, resampling, micro-conditions.

aMUSEd (Patil et al. 2024, arXiv 2401.01808) and Meissonic (Bai et al. 2024, arXiv 2410.08261) use the same ones.
Modules carry the names of the released state dicts, so that a released file loads without renaming.

B batch, h w cells of the token grid, C channels, D width, K codes, M width of the embedded micro-conditions.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskgil.condition import Condition
from maskgil.models.transformer import RMSNorm

EPS = 1e-6
MICRO_WIDTH = 256  # numbers that one micro-condition is embedded in
AESTHETIC_SCORE = 6.0  # of 10: the released pipelines ask for this one
LARGEST_SIZE = 2**20  # of a size in a released config.json: none comes near it
MOST_LAYERS = 256
LAYER_COUNTS = ("num_hidden_layers", "num_layers", "num_res_blocks", "num_single_layers", "layers_per_block")
MICRO_CONDITIONS = 5  # width, height, crop left, crop top, aesthetic score


def sinusoidal_embedding(values: Float[Tensor, "*S"], width: int) -> Float[Tensor, "*S W"]:
    """Cosines, then sines of each value at width / 2 frequencies from 1 down to 1 / 10,000 (DDPM's time embedding)."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=values.device)
    angles = values.float()[..., None] * torch.exp(-math.log(10000.0) * steps / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def micro_conditions(
    batch: int, grid: tuple[int, int], pixels_per_token: int, device: torch.device
) -> Float[Tensor, "B M"]:
    """What an image shall be like, embedded: its width and height in pixels, no crop, the usual aesthetic score (SDXL,
    Podell et al. 2023, arXiv 2307.01952, section 2.2)."""
    rows, columns = grid
    values = [columns * pixels_per_token, rows * pixels_per_token, 0.0, 0.0, AESTHETIC_SCORE]
    embedded = torch.cat([sinusoidal_embedding(torch.full((1,), float(v), device=device), MICRO_WIDTH) for v in values])
    return embedded.flatten().expand(batch, -1)


class ConditionMLP(nn.Module):
    """Two linear layers with a SiLU between them."""

    def __init__(self, inputs: int, outputs: int, bias: bool):
        super().__init__()
        self.linear_1 = nn.Linear(inputs, outputs, bias=bias)
        self.linear_2 = nn.Linear(outputs, outputs, bias=bias)

    def forward(self, x: Float[Tensor, "B I"]) -> Float[Tensor, "B O"]:
        return self.linear_2(F.silu(self.linear_1(x)))


class ConvEmbedding(nn.Module):
    """Token ids to features: a table, a norm and a 1 x 1 convolution."""

    def __init__(self, vocabulary: int, inner: int, channels: int):
        super().__init__()
        self.embeddings = nn.Embedding(vocabulary, inner)
        self.layer_norm = RMSNorm(inner, EPS)
        self.conv = nn.Conv2d(inner, channels, 1, bias=False)

    def forward(self, tokens: Int[Tensor, "B h w"]) -> Float[Tensor, "B C h w"]:
        return self.conv(self.layer_norm(self.embeddings(tokens)).permute(0, 3, 1, 2))


class ConvHead(nn.Module):
    """Features to logits over the codes: a 1 x 1 convolution, a norm, another 1 x 1 convolution."""

    def __init__(self, channels: int, inner: int, codes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.layer_norm = RMSNorm(inner, EPS)
        self.conv2 = nn.Conv2d(inner, codes, 1, bias=False)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B K h w"]:
        return self.conv2(channel_norm(self.layer_norm, self.conv1(x)))


class Resample(nn.Module):
    """A norm, and a convolution of 2 x 2 with stride 2 that halves the grid, or one that doubles it."""

    def __init__(self, channels: int, up: bool):
        super().__init__()
        self.norm = RMSNorm(channels, EPS)
        kind = nn.ConvTranspose2d if up else nn.Conv2d
        self.conv = kind(channels, channels, 2, stride=2, bias=False)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C _ _"]:
        return self.conv(channel_norm(self.norm, x))


def channel_norm(norm: nn.Module, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """A norm over the last axis, applied to the channels."""
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def validate_token_grid(tokens: Int[Tensor, "B N"], grid: tuple[int, int], halved: bool) -> None:
    """ValueError for a grid that the tokens do not fill, or that a model with a downsampling layer cannot halve."""
    rows, columns = grid
    if rows * columns != tokens.shape[1]:
        raise ValueError(f"{tokens.shape[1]} tokens do not fill a grid of {rows} rows and {columns} columns")
    if halved and (rows % 2 or columns % 2):
        raise ValueError(f"a grid of {rows} rows and {columns} columns: this model needs even numbers of both")


def clip_states(
    condition: Condition, drop: Bool[Tensor, " B"] | None, null: Float[Tensor, "L E"]
) -> Float[Tensor, "B L E"]:
    """The states of a condition, or `null` in rows with `drop`. ValueError for a condition of another shape."""
    if condition.states.shape[1:] != null.shape:
        length, width = condition.states.shape[1:]
        raise ValueError(
            f"the condition has {length} states of width {width}; this model reads {len(null)} of width "
            f"{null.shape[1]}: CLIP's pooled vector, then its text tokens with their padding"
        )
    states = condition.states.to(null.dtype)
    return states if drop is None else torch.where(drop[:, None, None], null, states)


def read_config(values: Mapping[str, Any], usual: Mapping[str, Any], fixed: Mapping[str, object], family: str) -> dict:
    """The entries of a released config.json that `usual` names, each of the kind that its usual value has.

    ValueError where one of `fixed` differs, since this code builds no such model, and for a value of another kind or
    out of bounds: sizes are whole numbers from 1, at most MOST_LAYERS of what is built so many times.
    """
    for name, expected in fixed.items():
        if (found := values.get(name, expected)) != expected:
            raise ValueError(f"this {family} config says {name} = {found!r}; only {expected!r} is supported")
    known = {name: values[name] for name in usual if name in values}
    for name, value in known.items():
        most = MOST_LAYERS if name in LAYER_COUNTS else LARGEST_SIZE
        if isinstance(usual[name], bool):
            fits, wanted = isinstance(value, bool), "true or false"
        elif isinstance(usual[name], Sequence):
            fits, wanted = _are_sizes(value, most), f"a list of 1 to {MOST_LAYERS} whole numbers from 1 to {most}"
        else:
            fits, wanted = _is_size(value, most), f"a whole number from 1 to {most}"
        if not fits:
            raise ValueError(f"this {family} config says {name} = {str(value)[:40]}; {wanted} is expected")
    return known


def _is_size(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _are_sizes(value: object, most: int) -> bool:
    return isinstance(value, list | tuple) and 0 < len(value) <= MOST_LAYERS and all(_is_size(v, most) for v in value)
