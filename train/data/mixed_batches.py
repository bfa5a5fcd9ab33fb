"""Several caches as one stream of batches, each with a weight: `--data cache/photos:3,cache/drawings:1`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from train.data.cached_batches import NOTE, CachedBatches, filled

CYCLE = 1000  # batches in which the shares are exact to one batch


def parts_of(data: str) -> list[tuple[str, float]]:
    """[(folder, weight)] of folders with commas between them, each with an optional :WEIGHT. The default weight is the
    number of the cache's pictures. ValueError for a weight that is no positive number."""
    parts = []
    if not all(text.strip() for text in data.split(",")):
        raise ValueError(f"--data {data!r} names no cache at one place: give a folder, or several with commas between")
    for text in data.split(","):
        folder, colon, weight = text.strip().rpartition(":")
        if not colon or (Path(text.strip()) / NOTE).is_file():
            parts.append((text.strip(), 0.0))
            continue
        try:
            share = float(weight)
        except ValueError:
            share = math.nan
        if not 0 < share < math.inf:
            raise ValueError(f"{text.strip()!r}: the weight after the colon is {weight!r}; give a positive number")
        parts.append((folder, share))
    if len({folder for folder, _ in parts}) < len(parts):
        raise ValueError(f"{data} names a cache twice: name each once, with a weight")
    if len(parts) > 1 and len({bool(weight) for _, weight in parts}) > 1:
        raise ValueError(f"{data}: give every cache a weight, or none")
    return parts


@dataclass(frozen=True)
class MixedBatches:
    """Batches of several caches in proportion to their weights; each cache is read as CachedBatches reads it.

    Batch i is a function of (seed, i). `numbers` (B,) counts the pictures of the whole stream.
    """

    parts: tuple[tuple[str, float], ...]
    batch: int
    seed: int = 0

    @cached_property
    def pattern(self) -> np.ndarray:
        """(CYCLE,): the cache of each batch of a cycle, in an order drawn by the seed."""
        weights = np.array([w or sum(t.rows for t in filled(folder).tables.values()) for folder, w in self.parts])
        exact = CYCLE * weights / weights.sum()
        counts = np.floor(exact).astype(int)
        for place in np.argsort(counts - exact, kind="stable")[: CYCLE - counts.sum()]:
            counts[place] += 1
        if not counts.all():
            least = self.parts[int(counts.argmin())][0]
            raise ValueError(f"{least} has a weight of less than 1 in {CYCLE} of all: give it more, or leave it out")
        return np.random.default_rng([self.seed, 77]).permutation(np.repeat(np.arange(len(counts)), counts))

    @cached_property
    def streams(self) -> tuple[CachedBatches, ...]:
        return tuple(CachedBatches(folder, self.batch, self.seed) for folder, _ in self.parts)

    def __call__(self, index: int) -> dict[str, Any]:
        cycle, place = divmod(index, CYCLE)
        which = int(self.pattern[place])
        inner = cycle * int((self.pattern == which).sum()) + int((self.pattern[:place] == which).sum())
        batch = self.streams[which](inner)
        first = next(value for value in batch.values() if isinstance(value, torch.Tensor))
        return batch | {"numbers": torch.arange(index * self.batch, index * self.batch + len(first))}


def data_batches(data: str, batch: int, seed: int = 0) -> CachedBatches | MixedBatches:
    """Batches of the cache, or caches, that `data` names. ValueError for a folder that is empty or no cache."""
    parts = parts_of(data)
    if len(parts) == 1:
        return CachedBatches(parts[0][0], batch, seed)
    mixed = MixedBatches(tuple(parts), batch, seed)
    assert len(mixed.pattern) == CYCLE
    return mixed


def common_note(data: Sequence[str], may_differ: Sequence[str]) -> dict[str, Any]:
    """The common note of caches. ValueError when one is empty, and when their notes differ."""
    note = filled(data[0]).note
    for other in data[1:]:
        held = filled(other).note
        if differ := [key for key in note | held if held.get(key) != note.get(key) and key not in may_differ]:
            raise ValueError(f"{other} and {data[0]} differ in {', '.join(differ)}")
    return note
