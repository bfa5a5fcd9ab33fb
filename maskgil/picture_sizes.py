"""The sizes that a model draws, and the nearest one to a size that it does not.

Sizes are (width, height) in pixels, grids (rows, columns) in tokens.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from maskgil.aspect_buckets import nearest_bucket, rounded

Size = tuple[int, int]


def parse_size(text: str) -> Size:
    """'320x192' -> (320, 192): width, then height."""
    found = re.fullmatch(r"\s*(\d{1,5})\s*[x×X*]\s*(\d{1,5})\s*", text)
    if not found:
        raise ValueError(f"cannot read the size {text!r}: write width x height, for example 256x256")
    return int(found[1]), int(found[2])


@dataclass(frozen=True)
class PictureSizes:
    """A fixed list of sizes, the first as the default, or all buckets of some classes (maskgil/aspect_buckets.py).

    downsample      pixels of a token's side
    bucket_classes  the classes whose buckets the sizes are; none for a fixed list

    Raises ValueError for a size that is no multiple of `downsample`.
    """

    sizes: tuple[Size, ...]
    downsample: int
    bucket_classes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        side = self.downsample
        wrong = [size for size in self.sizes if min(size) < side or size[0] % side or size[1] % side]
        if not self.sizes or wrong:
            raise ValueError(f"sizes {_listed(self.sizes)}: give widths and heights in multiples of {side} px")

    def validate(self, size: Size | None) -> Size:
        """The size itself, or the default for None. Raises ValueError, naming the nearest, for one not in `sizes`."""
        if size is None:
            return self.sizes[0]
        if tuple(size) in self.sizes:
            return tuple(size)
        width, height = size
        if width < 1 or height < 1:
            can = _listed(self.sizes[:8]) + (", ..." if len(self.sizes) > 8 else "")
            raise ValueError(f"size {width}x{height}: give a width and a height in pixels, one of {can}")
        if self.bucket_classes:
            nearest = self.rounded((width, height))
            can = f"the {len(self.sizes)} buckets of {', '.join(map(str, self.bucket_classes))}"
        else:
            nearest = min(self.sizes, key=lambda other: _distance((width, height), other))
            can = _listed(self.sizes)
        raise ValueError(
            f"this model cannot draw {width}x{height}: the nearest size is {nearest[0]}x{nearest[1]}; it draws {can}"
        )

    def rounded(self, size: Size) -> Size:
        """The nearest size to draw, for a model of buckets. One with a fixed list has the nearest of the very shape, so
        that what asked for 128x128 is drawn by a model of 256x256; a shape that it lacks stays as it is.

        `TextToImage.draw` does not round: it refuses. Raises ValueError for no size at all.
        """
        width, height = size
        if self.bucket_classes:
            return rounded((width, height), self.bucket_classes)
        alike = [own for own in self.sizes if own[0] * height == own[1] * width and min(width, height) > 0]
        return nearest_bucket((width, height), alike) if alike else (width, height)

    def grid(self, size: Size) -> tuple[int, int]:
        """(rows, columns) of the tokens of a picture of (width, height)."""
        return size[1] // self.downsample, size[0] // self.downsample


def _distance(one: Size, other: Size) -> float:
    """How different two sizes look: their shapes first, then their areas."""
    shape = abs(math.log(one[0] / one[1] / (other[0] / other[1])))
    return 4 * shape + abs(math.log(one[0] * one[1] / (other[0] * other[1])))


def _listed(sizes: Sequence[Size]) -> str:
    return ", ".join(f"{width}x{height}" for width, height in sizes) or "none"
