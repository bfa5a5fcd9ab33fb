"""Random numbers by counting: a number is a function of (seed, stream, step, position, draw) and of nothing else.

So the same seed draws the same noise whatever shares its batch, in whatever order steps run, and on every device: it is
all 64-bit integer arithmetic, which torch wraps around alike everywhere.

B batch, N positions, K draws at each position.
"""

from enum import IntEnum
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor


class RngStream(IntEnum):
    """What a number is for. Streams never share numbers."""

    TOKEN = 0  # which code a position takes
    ORDER = 1  # which positions are decided first
    DIFFUSION = 2  # noise of continuous tokens
    REMASK = 3  # which tokens of a picture are remasked when it is edited
    LIKELIHOOD = 4  # noise under which continuous tokens are judged


# Weyl increment and multipliers of splitmix64 (Steele, Lea and Flood 2014), as signed numbers.
GOLDEN = 0x9E3779B97F4A7C15 - 2**64
FIRST, SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64


def uniform(
    seeds: Int[Tensor, " B"], stream: int, step: Int[Tensor, " B"], positions: int, draws: int
) -> Float[Tensor, "B N K"]:
    """Numbers in (0, 1) for every position of every row: odd multiples of 2^-24, so that no logarithm meets 0."""
    place = torch.arange(positions, device=seeds.device)
    return uniform_at(seeds[:, None], stream, step[:, None], place[None], draws)


def uniform_at(
    seeds: Int[Tensor, "*#M"], stream: int, step: Int[Tensor, "*#M"], position: Int[Tensor, "*#M"], draws: int
) -> Float[Tensor, "*M K"]:
    """The same numbers for single positions: shapes broadcast, and `uniform` is this over a whole row."""
    key = _mix(seeds.long() + GOLDEN)
    for part in (torch.full_like(step, int(stream)), step, position):
        key = _mix(key + (part.long() + 1) * GOLDEN)
    # Both sides are already well mixed, so that half of splitmix's finaliser is enough for the many draws.
    bits = key[..., None] ^ _draw_keys(draws, key.device)
    bits.mul_(FIRST)
    bits.bitwise_xor_((bits >> 32).bitwise_and_(0xFFFFFFFF)).mul_(SECOND)
    return (bits.bitwise_right_shift_(41).bitwise_and_(2**23 - 1).to(torch.float32)).add_(0.5).mul_(2.0**-23)


def gumbel(u: Float[Tensor, "*M"]) -> Float[Tensor, "*M"]:
    """argmax(log p + gumbel) is a sample of p."""
    return -torch.log(-torch.log(u))


def normal(u: Float[Tensor, "*M"]) -> Float[Tensor, "*M"]:
    """Standard normal numbers, by the inverse of the distribution function (at most 5.3 in size)."""
    return torch.erfinv(2 * u - 1) * 2**0.5


@lru_cache(maxsize=64)
def _draw_keys(draws: int, device: torch.device) -> Int[Tensor, " K"]:
    return _mix(torch.arange(draws, device=device) * GOLDEN)


def _mix(x: Int[Tensor, "*M"]) -> Int[Tensor, "*M"]:
    """splitmix64's finaliser: every bit of the input changes half of the output."""
    x = (x ^ _shift(x, 30)) * FIRST
    x = (x ^ _shift(x, 27)) * SECOND
    return x ^ _shift(x, 31)


def _shift(x: Int[Tensor, "*M"], by: int) -> Int[Tensor, "*M"]:
    """Logical right shift: torch's own copies the sign."""
    return (x >> by) & (2 ** (64 - by) - 1)
