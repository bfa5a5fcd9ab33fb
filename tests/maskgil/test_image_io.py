"""Any picture that a person brings is opened as they see it: upright, in sRGB, 8 bits, within limits."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from maskgil import image_io
from maskgil.image_io import flatten, open_image

GRADIENT = np.stack([*np.meshgrid(np.arange(0, 240, 10), np.arange(0, 160, 10)), np.full((16, 24), 90)], -1)
PHOTO = Image.fromarray(GRADIENT.astype(np.uint8), "RGB")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def difference(image: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(image, np.int16) - np.asarray(other, np.int16)).max())


@pytest.mark.parametrize(("kind", "limit", "options"), [
    ("PNG", 0, {}), ("JPEG", 12, {"quality": 95, "subsampling": 0}), ("WEBP", 0, {"lossless": True}), ("TIFF", 0, {}),
    ("BMP", 0, {}), ("AVIF", 24, {"quality": 95}), ("GIF", 30, {}),
])  # fmt: skip
def test_the_content_decides_and_not_the_name(tmp_path: Path, kind: str, limit: int, options: dict):
    path = tmp_path / "кошка.png"
    path.write_bytes(encoded(PHOTO, kind, **options))
    image = open_image(path)
    assert image.mode == "RGB" and image.size == PHOTO.size and difference(image, PHOTO) <= limit
    assert not {"icc_profile", "exif", "transparency"} & image.info.keys()


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_turned_photo_is_upright(kind: str, turn: int):
    exif = Image.Exif()
    exif[0x0112] = turn
    image = open_image(encoded(PHOTO, kind, exif=exif, **({} if kind == "PNG" else {"quality": 95})))
    assert image.size == (PHOTO.size if turn < 5 else PHOTO.size[::-1])
    if turn == 6:
        assert difference(image, PHOTO.transpose(Image.Transpose.ROTATE_270)) <= 24
    again = open_image(encoded(image, "PNG"))
    assert again.size == image.size, "the file says nothing of a turn any more"


def test_sixteen_bits_keep_their_gray_and_floats_their_range():
    ramp = np.linspace(0, 65535, 256).reshape(16, 16)
    gray = np.asarray(open_image(encoded(Image.fromarray(ramp.astype(np.uint16)), "PNG")), float)[..., 0]
    assert np.abs(gray - ramp / 257).max() < 2
    floats = Image.fromarray((ramp / 65535).astype(np.float32), "F")
    assert np.abs(np.asarray(open_image(encoded(floats, "TIFF")), float)[..., 0] - ramp / 257).max() < 2


def test_transparency_stays_and_is_white_where_it_is_flattened():
    rgba = PHOTO.convert("RGBA")
    rgba.paste((9, 9, 9, 0), (0, 0, 8, 8))
    brought = open_image(encoded(rgba, "PNG"))
    assert brought.mode == "RGBA" and flatten(brought).getpixel((2, 2)) == (255, 255, 255)
    trns = encoded(PHOTO.copy(), "PNG", transparency=(0, 0, 90))
    assert flatten(open_image(trns)).getpixel((0, 0)) == (255, 255, 255), "one transparent color"
    palette = PHOTO.quantize(8)
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert open_image(encoded(palette, "PNG")).getpixel((0, 0))[3] == 0
    assert flatten(open_image(encoded(Image.new("LA", (4, 4), (7, 0)), "PNG"))).getpixel((0, 0)) == (255, 255, 255)


def test_profiles_are_converted_and_srgb_stays_to_the_last_bit():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert difference(open_image(encoded(PHOTO, "PNG", icc_profile=srgb)), PHOTO) == 0
    # A profile of which red and blue are exchanged: sRGB's own, with its tags for them swapped.
    swapped = bytearray(srgb)
    table = {
        bytes(swapped[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(struct.unpack(">I", srgb[128:132])[0])
    }
    red, blue = table[b"rXYZ"], table[b"bXYZ"]
    swapped[red + 4 : red + 12], swapped[blue + 4 : blue + 12] = srgb[blue + 4 : blue + 12], srgb[red + 4 : red + 12]
    swapped = bytes(swapped).replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
    image = open_image(encoded(PHOTO, "PNG", icc_profile=swapped))
    red_blue = Image.merge("RGB", PHOTO.split()[::-1])
    assert difference(image, red_blue) <= 6 < difference(image, PHOTO)
    assert difference(open_image(encoded(PHOTO, "PNG", icc_profile=b"broken")), PHOTO) == 0


def test_print_colors_become_screen_colors():
    image = open_image(encoded(PHOTO.convert("CMYK"), "JPEG", quality=95))
    assert image.mode == "RGB" and difference(image, PHOTO) < 40


def test_of_an_animation_the_first_frame():
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for kind in ("GIF", "WEBP", "TIFF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        red, green, blue = open_image(data).convert("RGB").getpixel((4, 4))
        assert red > 200 > 60 > blue


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG: its size, and the first of its pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0"))


@pytest.mark.parametrize(("data", "says"), [
    (b"", "not a picture"), (b"PK\x03\x04", "not a picture"), (b"GIF89a", "not a picture|damaged"),
    (encoded(PHOTO, "PNG")[:-30], "damaged"), (encoded(PHOTO, "JPEG")[:100], "damaged|not a picture"),
    (png_header(9_000, 9_000), "9000x9000"), (png_header(20_000, 10), "20000x10"),
    (png_header(2**31 - 1, 2**31 - 1), "far too large"), (b"\0" * (image_io.MAX_BYTES + 1), "32 MB"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
], ids=range(10))  # fmt: skip
def test_what_cannot_be_opened_is_one_line(data: bytes, says: str):
    with pytest.raises(ValueError, match=says) as refusal:
        open_image(data)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 250


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="no-such.png"):
        open_image(tmp_path / "no-such.png")
