"""Which masked tokens are decided first.

B rows, N tokens.
"""

from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskgil.params import DecodingOrder
from maskgil.sampling import counter_rng


def priority(order: DecodingOrder, seeds: Int[Tensor, " B"], grid: tuple[int, int]) -> Float[Tensor, "B N"]:
    """Scores of an order that needs no sampler, the highest first: one permutation for the whole of a row's plan."""
    tokens, start = grid[0] * grid[1], torch.zeros_like(seeds)
    match order:
        case DecodingOrder.RANDOM:
            return counter_rng.uniform(seeds, counter_rng.RngStream.ORDER, start, tokens, 1)[..., 0]
        case DecodingOrder.HALTON:
            roll = counter_rng.uniform(seeds, counter_rng.RngStream.ORDER, start, 1, 1)[:, 0] * tokens
            return -((halton_ranks(grid, seeds.device) + roll.long()) % tokens).float()
        case DecodingOrder.RASTER:
            return -torch.arange(tokens, device=seeds.device, dtype=torch.float32).expand(len(seeds), -1)
    raise AssertionError(f"{order} is not known before the sampler is called")


def top_k_mask(
    score: Float[Tensor, "B N"], masked: Bool[Tensor, "B N"], count: Int[Tensor, " B"]
) -> Bool[Tensor, "B N"]:
    """The `count` masked tokens with the highest score in each row, all masked tokens if there are fewer; the first of
    equals."""
    # An impossible token still comes before a token that is not masked.
    score = score.clamp_min(torch.finfo(score.dtype).min).masked_fill(~masked, -torch.inf)
    ranked = score.argsort(dim=1, descending=True, stable=True)
    place = torch.arange(masked.shape[1], device=masked.device).expand_as(ranked)
    rank = torch.empty_like(ranked).scatter_(1, ranked, place)
    return (rank < count[:, None]) & masked


@lru_cache(maxsize=64)
def halton_ranks(grid: tuple[int, int], device: torch.device) -> Int[Tensor, " N"]:
    """When each cell is first hit by Halton's points (rows by base 2, columns by base 3): 0 for the first."""
    rows, columns = grid
    ranks: dict[int, int] = {}
    point = 0
    while len(ranks) < rows * columns:
        point += 1
        cell = int(_radical_inverse(point, 2) * rows) * columns + int(_radical_inverse(point, 3) * columns)
        ranks.setdefault(cell, len(ranks))
    return torch.tensor([ranks[cell] for cell in range(rows * columns)], device=device)


def _radical_inverse(number: int, base: int) -> float:
    """The digits of a number, mirrored at the point: 6 = 110 in base 2 becomes 0.011."""
    value, digit = 0.0, 1.0
    while number:
        digit /= base
        value += digit * (number % base)
        number //= base
    return value
