"""Size buckets: the shapes that one model draws, all with about the same number of pixels.

A class of sizes (256, 512, 768, 1024) holds every shape of at most class x class pixels, in units of 32 px, whose sides
are at most 4 to 1 (Lumina-mGPT's `generate_crop_size_list`): 25, 49, 73 and 97 shapes. A picture joins the bucket of
the most similar shape, is scaled until it covers it, and is cut at a random place: nothing is squeezed.

A model folder says in vocabulary.json what it draws: "sizes": [[width, height], ...], or "bucket_classes": [512, 256],
the classes it was trained on, the usual one first.

Sizes are (width, height) in pixels.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

Size = tuple[int, int]

CLASSES = (256, 512, 768, 1024)
UNIT = 32
MAX_RATIO = 4.0


def aspect_buckets(size: int, unit: int = UNIT, max_ratio: float = MAX_RATIO) -> list[Size]:
    """All shapes of a class, the widest first. For each width in units: the most units of height that fit.

    Raises ValueError for a class that is no multiple of the unit.
    """
    if size < unit or size % unit:
        raise ValueError(f"size {size}: give a multiple of {unit}, such as {', '.join(map(str, CLASSES))}")
    area = (size // unit) ** 2
    found = []
    width, height = area, 1
    while width > 0:
        if max(width, height) / min(width, height) <= max_ratio:
            found.append((width * unit, height * unit))
        if (height + 1) * width <= area:
            height += 1
        else:
            width -= 1
    return found


def nearest_bucket(size: Size, among: list[Size]) -> Size:
    """The size of the most similar shape; of several of the very shape a whole multiple or part, else the nearest in
    area. ValueError for no size at all.

    When a picture is scaled to cover a bucket, exp(-difference of the log aspect ratios) of it stays in sight.
    """
    width, height = size
    if width < 1 or height < 1:
        raise ValueError(f"size {width}x{height}: give a width and a height in pixels")

    def differs(other: Size) -> tuple[float, bool, float]:
        shape = round(abs(math.log(width / height / (other[0] / other[1]))), 9)
        whole = not shape and 0 in (other[0] % width, width % other[0])
        return shape, not whole, abs(math.log(width * height / (other[0] * other[1])))

    return min(among, key=differs)


def size_class(size: Size, among: Sequence[int] = CLASSES) -> int:
    """The class whose area is nearest to that of the size: buckets(size_class(size)) holds what is asked for."""
    return min(among, key=lambda side: abs(math.log(side * side / (size[0] * size[1]))))


def rounded(size: Size, classes: Sequence[int]) -> Size:
    """What is drawn when a person asks for `size`: of the class nearest in area, the bucket of the most similar shape.

    A bucket of one of the classes is itself. ValueError for no size at all.
    """
    if size in every_bucket(classes):
        return size
    if min(size) < 1:
        raise ValueError(f"size {size[0]}x{size[1]}: give a width and a height in pixels, such as 512x512")
    return nearest_bucket(size, aspect_buckets(size_class(size, classes)))


def every_bucket(classes: Sequence[int]) -> list[Size]:
    """The shapes of all classes, each once: the square of the first class, then class by class, the widest first."""
    shapes = [shape for side in classes for shape in aspect_buckets(side)]
    return list(dict.fromkeys([(classes[0], classes[0]), *shapes]))


def bucket_classes(vocabulary: Mapping[str, Any]) -> tuple[int, ...]:
    """The classes that a vocabulary.json names; none where it lists sizes. ValueError for what are no classes."""
    classes = vocabulary.get("bucket_classes", [])
    whole = isinstance(classes, list) and all(type(side) is int and side > 0 for side in classes)
    if not whole or any(side % UNIT for side in classes) or classes and vocabulary.get("sizes"):
        raise ValueError(
            f'"bucket_classes" is {classes!r}: give a list of classes, such as [512, 256], and leave "sizes" out'
        )
    return tuple(classes)


def sizes_of(vocabulary: Mapping[str, Any]) -> list[Size]:
    """All sizes that a vocabulary.json says are drawn, the usual one first. ValueError when it names none."""
    if classes := bucket_classes(vocabulary):
        return every_bucket(classes)
    sizes = vocabulary.get("sizes")
    pairs = isinstance(sizes, list) and all(
        isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size) for size in sizes
    )
    if not sizes or not pairs:
        raise ValueError('it lists no sizes: it needs "sizes": [[width, height], ...] or "bucket_classes": [512]')
    return [(width, height) for width, height in sizes]


def fit_to_bucket(image: Image.Image, bucket: Size, x: float, y: float) -> Image.Image:
    """The picture scaled to cover the bucket and cut to it at (x, y) in [0, 1]: 0 left or top, 1 right or bottom.

    Halved with a box filter while that is possible, as guided-diffusion does: bicubic without it would alias.
    """
    width, height = bucket
    while image.width >= 2 * width and image.height >= 2 * height:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = max(width / image.width, height / image.height)
    across, down = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    image = image.resize((across, down), Image.Resampling.BICUBIC)
    left, top = round((across - width) * x), round((down - height) * y)
    return image.crop((left, top, left + width, top + height))
