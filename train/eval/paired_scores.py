"""Shares of pictures that are right, and losses of one setting against another on the same pictures, with intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z = 1.959964  # of a two-sided 95% interval of the normal distribution


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval, in percent or percentage points."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1f} ({self.low:.1f} to {self.high:.1f})"


def share_right(right: Sequence[bool]) -> Estimate:
    """The share of pictures that are right, with Wilson's interval (1927). ValueError for no pictures."""
    n = len(right)
    if n == 0:
        raise ValueError("no picture was judged: a share needs at least one")
    share = sum(right) / n
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return Estimate(100 * share, 100 * max(0.0, middle - half), 100 * min(1.0, middle + half))


def paired_loss(before: Sequence[bool], after: Sequence[bool]) -> Estimate:
    """How many points `after` loses against `before` on the same pictures; a negative loss is a gain.

    The interval is that of Agresti and Min (2005) for matched pairs: half a pair is added to each of the four outcomes,
    so that no disagreement at all does not pass for certainty. ValueError for sequences of other lengths, or none.
    """
    n = len(before)
    if n == 0 or n != len(after):
        raise ValueError(f"{n} and {len(after)} pictures: a paired loss needs as many of each, and at least one")
    lost = sum(b and not a for b, a in zip(before, after, strict=True))
    won = sum(a and not b for b, a in zip(before, after, strict=True))
    total, difference = n + 2, lost - won
    spread = math.sqrt(max(0.0, lost + won + 1 - difference**2 / total))
    middle = difference / total
    return Estimate(100 * difference / n, 100 * (middle - Z * spread / total), 100 * (middle + Z * spread / total))
