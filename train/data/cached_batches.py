"""Reads a cache of pictures: batches of one bucket, each picture once an epoch, whatever the number of processes.

Axes: B pictures of a batch, N tokens, C channels, L text tokens, E width of a text state.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from maskgil.aspect_buckets import Size
from train.data.cache_files import write_note

NOTE, INDEX = "cache.json", "index.json"
OPEN_FILES = 512  # kept open at once: Linux allows a process 65,530 maps


def index_of(folder: Path, write: bool = False) -> dict[str, dict[str, Any]]:
    """{file: {"bytes", "rows": {"WxH": pictures}}} of a cache's files, from index.json, and from the files that
    it does not list. `write`: update index.json. ValueError for a file that is cut."""
    path = folder / INDEX
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    index = {}
    for file in folder.glob("*.safetensors"):
        size = file.stat().st_size
        entry = known.get(file.name)
        if entry is None or entry["bytes"] != size:
            entry = {"bytes": size, "rows": _rows(file)}
        index[file.name] = entry
    if write and index != known:
        write_note(path, index)
    return index


def _rows(path: Path) -> dict[str, int]:
    try:
        with safe_open(path, "pt") as file:
            names = [name for name in file.keys() if name.endswith("/tokens")]  # noqa: SIM118
            return {name.split("/")[0]: file.get_slice(name).get_shape()[0] for name in names}
    except SafetensorError as error:
        raise ValueError(f"{path} is cut ({error}): delete it and make the cache again") from None


@dataclass(frozen=True)
class BucketTable:
    """The files of one bucket. `starts[i]` is the number of the first row of `files[i]`."""

    files: tuple[Path, ...]
    starts: np.ndarray
    rows: int


@lru_cache(maxsize=OPEN_FILES)
def _mapped(path: Path) -> tuple[Any, frozenset[str]]:
    """An open file, and the names of its tensors."""
    file = safe_open(path, "pt")
    return file, frozenset(file.keys())


@dataclass(frozen=True)
class ImageCache:
    """A cache folder, open for reading. Only the rows of a batch are read from the disk."""

    folder: Path
    note: dict[str, Any]
    tables: dict[Size, BucketTable]

    @staticmethod
    def open(folder: str | Path) -> "ImageCache":
        """Raises ValueError for a folder that is no cache, and for a file that is cut."""
        folder = Path(folder)
        if not (folder / NOTE).is_file():
            raise ValueError(f"{folder} is no cache of pictures: make it with maskgil data images")
        found: dict[Size, list[tuple[Path, int]]] = {}
        for name, buckets in sorted(index_of(folder).items()):
            for bucket, rows in buckets["rows"].items():
                width, height = map(int, bucket.split("x"))
                found.setdefault((width, height), []).append((folder / name, rows))
        tables = {}
        for size, parts in sorted(found.items()):
            ends = np.cumsum([rows for _, rows in parts])
            tables[size] = BucketTable(tuple(p for p, _ in parts), ends - [rows for _, rows in parts], int(ends[-1]))
        return ImageCache(folder, json.loads((folder / NOTE).read_text()), tables)

    def read(
        self, size: Size, rows: Int[np.ndarray, " B"], picks: Float[np.ndarray, " B"] | None = None
    ) -> dict[str, Any]:
        """Rows of a bucket. `picks`: numbers in [0, 1) that choose among several captions of a picture; None: the
        first.

        {"tokens" (B, N) int64, "grid", and "states" (B, L, E) with "mask" (B, L), or "labels" (B,)}.

        For latents "tokens" are (B, N, C) float32; where there is a "std" of the same shape, they are means.
        """
        table, side = self.tables[size], self.note["downsample"]
        parts = np.searchsorted(table.starts, rows, side="right") - 1
        prefix = f"{size[0]}x{size[1]}"
        kept = ["tokens", "std"] if self.note.get("latent", {}).get("family") == "kl" else ["tokens"]
        encoded: dict[str, list[Tensor]] = {name: [] for name in kept}
        states, labels = [], []
        picked = np.zeros(len(rows)) if picks is None else picks
        for part, row, pick in zip(parts.tolist(), rows.tolist(), picked.tolist(), strict=True):
            (file, names), row = _mapped(table.files[part]), row - int(table.starts[part])
            for name, rows_of in encoded.items():
                rows_of.append(file.get_slice(f"{prefix}/{name}")[row : row + 1])
            if "width" in self.note:
                if f"{prefix}/captions" in names:
                    till = file.get_slice(f"{prefix}/captions")[max(row - 1, 0) : row + 1].tolist()
                    before = till[0] if row else 0
                    row = before + int(pick * (till[-1] - before))
                first = int(file.get_slice(f"{prefix}/ends")[row - 1 : row]) if row else 0
                last = int(file.get_slice(f"{prefix}/ends")[row : row + 1])
                states.append(file.get_slice(f"{prefix}/states")[first:last].float())
            else:
                labels.append(file.get_slice(f"{prefix}/labels")[row : row + 1])
        kind = torch.float32 if "latent" in self.note else torch.int64
        batch: dict[str, Any] = {name: torch.cat(rows_of).to(kind) for name, rows_of in encoded.items()}
        batch["grid"] = (size[1] // side, size[0] // side)
        if labels:
            return batch | {"labels": torch.cat(labels)}
        lengths = torch.tensor([len(state) for state in states])
        padded = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)
        return batch | {"states": padded, "mask": torch.arange(padded.shape[1]) < lengths[:, None]}


def shuffled(place: Int[np.ndarray, " B"], n: int, key: int) -> Int[np.ndarray, " B"]:
    """The values at `place` of a permutation of 0 .. n - 1 that depends on `key`: a Feistel network over enough bits,
    applied again while the result is n or more. It needs no table, so a billion pictures can be shuffled."""
    half = max(1, (int(n - 1).bit_length() + 1) // 2)
    low = np.uint64((1 << half) - 1)

    def once(x: np.ndarray) -> np.ndarray:
        left, right = x >> np.uint64(half), x & low
        for turn in range(4):
            mixed = (right + np.uint64((key * 4 + turn) % 2**32)) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
            mixed *= np.uint64(0xBF58476D1CE4E5B9)
            left, right = right, left ^ ((mixed >> np.uint64(32)) & low)
        return (left << np.uint64(half)) | right

    with np.errstate(over="ignore"):
        x = once(place.astype(np.uint64))
        while (outside := x >= n).any():
            x[outside] = once(x[outside])
    return x.astype(np.int64)


def rows_of_batch(buckets: Sequence[int], batch: int, seed: int, index: int) -> tuple[int, Int[np.ndarray, " B"]]:
    """(bucket, its rows) of batch number `index`, for buckets of so many rows each.

    An epoch is every row once, in an order drawn by (seed, epoch); the last batch of a bucket holds what is left of it.
    """
    batches = np.array([-(-rows // batch) for rows in buckets])
    epoch, place = divmod(index, int(batches.sum()))
    key = (seed * 1_000_003 + epoch) * 1009
    place = int(shuffled(np.array([place]), int(batches.sum()), key)[0])
    which = int(np.searchsorted(np.cumsum(batches), place, side="right"))
    start, total = (place - int(batches[:which].sum())) * batch, buckets[which]
    return which, shuffled(np.arange(start, min(start + batch, total)), total, key + 1 + which)


@dataclass(frozen=True)
class CachedBatches:
    """Batches from caches, each of one bucket; `numbers` (B,) counts the pictures of the whole stream.

    An epoch is every picture once, in an order drawn by (seed, epoch). The last batch of a bucket holds the remaining
    pictures, at least one. Batch i is a function of (seed, i), so a resumed run continues where it stopped. Latents are
    sampled from the posterior each time, and one of several captions is drawn each time.
    """

    folder: str
    batch: int
    seed: int = 0

    def __call__(self, index: int) -> dict[str, Any]:
        features = _opened(self.folder)
        sizes = list(features.tables)
        which, rows = rows_of_batch([features.tables[size].rows for size in sizes], self.batch, self.seed, index)
        numbers = torch.arange(index * self.batch, index * self.batch + len(rows))
        picks = np.random.default_rng([self.seed, index, 1]).random(len(rows))
        batch = features.read(sizes[which], rows, picks) | {"numbers": numbers}
        if "std" in batch:
            noise = np.random.default_rng([self.seed, index]).standard_normal(batch["tokens"].shape, np.float32)
            batch["tokens"] += batch.pop("std") * torch.from_numpy(noise)
        return batch


def filled(folder: str) -> ImageCache:
    """A cache, open for reading. ValueError when it holds no picture, and as ImageCache.open."""
    opened = ImageCache.open(folder)
    if not opened.tables:
        raise ValueError(f"{folder} holds no pictures yet: run maskgil data images --out {folder} ... first")
    return opened


_opened = cache(filled)


def largest_batch(batches: Callable[[int], dict[str, Any]], looked_at: int = 16) -> dict[str, Any]:
    """The batch with the most pictures among the first `looked_at`."""
    return max((batches(index) for index in range(looked_at)), key=lambda batch: len(batch["tokens"]))
