"""Batches of pictures and captions from their files, to be encoded in each step (train/losses/encoded_step.py).

A picture is cut at another place each time it comes, and one of its captions is taken. Nothing but its size is read
beforehand.

Axes: B pictures of a batch, H W pixels.
"""

import contextlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from maskgil.aspect_buckets import Size, aspect_buckets, fit_to_bucket, nearest_bucket
from train.data.cached_batches import rows_of_batch
from train.data.folder_sources import CaptionedFiles
from train.data.image_example import open_example
from train.data.image_sources import source

MIN_SIDE, MAX_ASPECT = 16, 10.0  # as `maskgil data images` leaves out what is smaller or longer
TURNED = (5, 6, 7, 8)  # orientations of a camera's note that exchange width and height
ORIENTATION = 0x0112


@dataclass(frozen=True)
class PictureIndex:
    """The pictures of a folder or table that can be trained on, by bucket; and why the others cannot."""

    files: CaptionedFiles
    buckets: dict[Size, tuple[Path, ...]]
    left_out: tuple[str, ...]

    @staticmethod
    def open(folder: str, size: int) -> "PictureIndex":
        """`size`: the size class of the buckets, in pixels. ValueError for what is no folder or table of captioned
        pictures, and when none can be used."""
        files = source(folder)
        if not isinstance(files, CaptionedFiles):
            raise ValueError(
                f"--encode takes a folder or table of pictures with captions, and {folder} is none: make a cache of "
                "shards, classes and Hugging Face data sets with maskgil data images"
            )
        shapes, found, left_out = aspect_buckets(size), dict[Size, list[Path]](), []
        for path in (path for unit in files.files.units for path in unit):
            try:
                files.captions_of_picture(path)
                found.setdefault(nearest_bucket(_usable_size(path), shapes), []).append(path)
            except (ValueError, OSError) as error:
                left_out.append(f"{path}: {error}")
        if not found:
            raise ValueError(
                f"no picture of {folder} can be used, the first because: {(left_out or ['none there'])[0]}"
            )
        return PictureIndex(files, {shape: tuple(paths) for shape, paths in sorted(found.items())}, tuple(left_out))


def _usable_size(path: Path) -> Size:
    """Width and height from the file's head, as the picture is looked at. ValueError for none that can be used."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            with contextlib.suppress(Exception):  # a camera's note may be cut or nonsense
                if image.getexif().get(ORIENTATION) in TURNED:
                    width, height = height, width
    except (UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a whole picture ({error})") from None
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(f"{width}x{height} is less than {MIN_SIDE} pixels a side, or longer than {MAX_ASPECT:g} to 1")
    return width, height


_indexed = cache(PictureIndex.open)


@dataclass(frozen=True)
class PictureBatches:
    """Batches of one bucket: {"pixels" (B, 3, H, W) uint8, "captions", "numbers" (B,), "left_out"}.

    An epoch is every picture once, as in CachedBatches. Batch i is a function of (seed, i). Pictures that turn out to
    be cut are left out of their batch and counted; OSError for one that is gone, and when nothing is left of a batch.
    """

    folder: str
    size: int
    batch: int
    seed: int = 0

    def __call__(self, index: int) -> dict[str, Any]:
        indexed = _indexed(self.folder, self.size)
        shapes = list(indexed.buckets)
        which, rows = rows_of_batch([len(indexed.buckets[shape]) for shape in shapes], self.batch, self.seed, index)
        shape, draw = shapes[which], np.random.default_rng([self.seed, index, 2])
        numbers = range(index * self.batch, index * self.batch + len(rows))
        pixels, captions, kept, faults = [], [], [], []
        for number, row, (x, y, pick) in zip(numbers, rows.tolist(), draw.random((len(rows), 3)), strict=True):
            path = indexed.buckets[shape][row]
            said = indexed.files.captions_of_picture(path)
            try:
                pixels.append(np.asarray(fit_to_bucket(open_example(path.read_bytes()), shape, x, y)))
            except ValueError as error:
                faults.append(f"{path}: {error}")
                continue
            captions.append(said[int(pick * len(said))])
            kept.append(number)
        if not pixels:
            raise OSError(f"no picture of a batch can be read: {faults[0]}")
        return {
            "pixels": torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(),
            "captions": captions,
            "numbers": torch.tensor(kept),
            "left_out": len(faults),
        }
