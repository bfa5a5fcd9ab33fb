"""Buckets: the published counts, every shape within its bounds, pictures cut and never squeezed."""

import pytest
from PIL import Image

from maskgil.aspect_buckets import (
    CLASSES,
    aspect_buckets,
    every_bucket,
    fit_to_bucket,
    nearest_bucket,
    rounded,
    size_class,
    sizes_of,
)


@pytest.mark.parametrize("size, count", [(256, 25), (512, 49), (768, 73), (1024, 97)])
def test_counts_and_bounds(size, count):
    shapes = aspect_buckets(size)
    assert len(shapes) == len(set(shapes)) == count and (size, size) in shapes
    for width, height in shapes:
        assert width % 32 == height % 32 == 0 and width * height <= size * size
        assert max(width, height) <= 4 * min(width, height)
        assert width * height // 256 <= (size // 16) ** 2  # tokens of 16 px


@pytest.mark.parametrize("size", [(256, 256), (512, 288), (300, 1000), (5, 7), (4000, 100)])
def test_the_nearest_bucket_keeps_most_of_the_picture(size):
    shapes = aspect_buckets(256)

    def kept(shape):
        scales = shape[0] / size[0], shape[1] / size[1]
        return min(scales) / max(scales)

    assert kept(nearest_bucket(size, shapes)) == pytest.approx(max(map(kept, shapes)))


def test_a_bucket_is_its_own_nearest():
    for size in CLASSES:
        shapes = aspect_buckets(size)
        assert all(nearest_bucket(shape, shapes) == shape for shape in shapes)


def test_class_of_a_size():
    assert [size_class(s) for s in ((256, 256), (512, 288), (1024, 1024), (1536, 672), (10, 10))] == [
        256, 512 if 512 * 288 > 362**2 else 256, 1024, 1024, 256,
    ]  # fmt: skip


def test_pictures_are_cut_and_never_squeezed():
    wide = Image.new("RGB", (900, 300), "red")
    wide.paste("blue", (450, 0, 900, 300))
    left, right = fit_to_bucket(wide, (256, 256), 0.0, 0.5), fit_to_bucket(wide, (256, 256), 1.0, 0.5)
    assert left.size == right.size == (256, 256)
    assert left.getpixel((128, 128)) == (255, 0, 0) and right.getpixel((128, 128)) == (0, 0, 255)
    assert fit_to_bucket(Image.new("RGB", (10, 3)), (512, 128), 0.3, 0.3).size == (512, 128)


def test_what_is_no_size_is_refused():
    with pytest.raises(ValueError, match="multiple of 32"):
        aspect_buckets(250)
    with pytest.raises(ValueError, match="0x5"):
        nearest_bucket((0, 5), aspect_buckets(256))


def test_what_is_asked_for_becomes_the_nearest_bucket_of_the_class_of_its_area():
    assert rounded((512, 288), (512, 256)) == (672, 384)  # 16 : 9 with about 512 x 512 pixels
    assert rounded((300, 170), (512, 256)) in aspect_buckets(256) and rounded((300, 170), (512,)) in aspect_buckets(512)
    assert rounded((5000, 100), (256,)) == (512, 128), "4 to 1 is the limit"
    sizes = [(256, 256), (192, 192), (320, 192)]
    twice = {(128, 128): (256, 256), (96, 96): (192, 192), (160, 96): (320, 192), (1024, 1024): (256, 256)}
    assert {size: nearest_bucket(size, sizes) for size in twice} == twice, "cell for cell"
    assert nearest_bucket((200, 200), sizes) == (192, 192) and nearest_bucket((240, 240), sizes) == (256, 256)
    for shape in every_bucket((512, 256)):
        assert rounded(shape, (512, 256)) == shape
    for size in ((0, 0), (-1, 5), (512, 0)):
        with pytest.raises(ValueError, match="give a width and a height"):
            rounded(size, (512, 256))


def test_a_vocabulary_lists_its_sizes_or_names_classes_of_them():
    assert sizes_of({"sizes": [[96, 64], [64, 64]]}) == [(96, 64), (64, 64)]
    found = sizes_of({"bucket_classes": [512, 256]})
    assert found[0] == (512, 512) and sorted(found) == sorted({*aspect_buckets(512), *aspect_buckets(256)})
    with pytest.raises(ValueError, match="lists no sizes"):
        sizes_of({"words": ["cat"]})
    for wrong in (256, [250], ["256"], [0], [True], {"256": 1}):
        with pytest.raises(ValueError, match="give a list of classes"):
            sizes_of({"bucket_classes": wrong})
    with pytest.raises(ValueError, match='leave "sizes" out'):
        sizes_of({"bucket_classes": [256], "sizes": [[64, 64]]})
