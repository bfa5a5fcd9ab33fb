"""Opens any picture that a person brings: upright, in sRGB, 8 bits a channel.

The content decides the format, not the name: PNG, JPEG, WebP, GIF (first frame), TIFF, BMP, AVIF, HEIC. The limits are
checked before anything is decoded. Channels: RGB, or RGBA where the picture has transparency.
"""

import contextlib
import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pi_heif
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF")
FORMAT_NAMES = "png, jpeg, webp, gif, tiff, bmp, avif or heic"
MAX_BYTES = 32 * 2**20  # of a file
MAX_SIDE = 16_384  # pixels
MAX_PIXELS = 4096 * 4096
IMAGE_DESCRIPTION = 0x010E  # the EXIF tag
TRANSPARENT_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
SRGB = ImageCms.createProfile("sRGB")

pi_heif.register_heif_opener()


class SizeError(ValueError):
    """A picture has too many pixels."""


@dataclass(frozen=True)
class ReadLimits:
    """The largest picture that is read.

    bytes   of its file
    side    pixels of its longer side
    pixels  width times height
    """

    bytes: int = MAX_BYTES
    side: int = MAX_SIDE
    pixels: int = MAX_PIXELS


UPLOADS = ReadLimits()


def open_image(source: bytes | Path, upright: bool = True, limits: ReadLimits = UPLOADS) -> Image.Image:
    """The picture in a file's bytes or at a path: RGB, or RGBA where it has transparency; in sRGB.

    `upright`: turned as its camera noted; False: as its pixels lie in the file. A note that is damaged turns nothing.
    `info` holds its texts (those of a PNG by their names, EXIF's ImageDescription as `description`) and nothing else.
    Raises ValueError for what is no picture, is damaged, or is beyond `limits`.
    """
    data = _read(source, limits) if isinstance(source, Path) else source
    if len(data) > limits.bytes:
        raise ValueError(f"the file has {len(data) / 2**20:.0f} MB and at most {limits.bytes // 2**20} MB are read")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        check_size(image.size, limits)
        image.seek(0)
        image.load()
        texts = {name: value for name, value in image.info.items() if isinstance(value, str)}
        profile = image.info.get("icc_profile")
        with contextlib.suppress(struct.error, SyntaxError, ValueError, TypeError):  # a damaged note of a whole picture
            if isinstance(description := image.getexif().get(IMAGE_DESCRIPTION), str):
                texts["description"] = description
            image = ImageOps.exif_transpose(image) if upright else image
        result = _to_srgb(_to_8_bits(image), profile)
    except UnidentifiedImageError:
        raise ValueError(f"the file is not a picture that can be read: give {FORMAT_NAMES}") from None
    except Image.DecompressionBombError:
        raise ValueError(f"the picture is far too large: at most {limits.pixels:,} pixels are read") from None
    except SizeError:
        raise
    except Exception as error:  # a file made to do harm makes Pillow fail in any way: struct, zlib, its own limits
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise ValueError(f"the picture is damaged or cut short ({reason}): choose another") from None
    result.info = texts
    return result


def check_size(size: tuple[int, int], limits: ReadLimits) -> None:
    """Raises SizeError for a picture of (width, height) that is too large to be decoded."""
    width, height = size
    if max(size) > limits.side or width * height > limits.pixels:
        raise SizeError(
            f"the picture is {width}x{height}: at most {limits.pixels:,} pixels and {limits.side:,} a side are read, "
            "make it smaller"
        )


def flatten(image: Image.Image) -> Image.Image:
    """The picture as RGB, its transparency over white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    rgba = image.convert("RGBA")
    flat = Image.new("RGB", image.size, "white")
    flat.paste(rgba, mask=rgba.getchannel("A"))
    return flat


def _read(path: Path, limits: ReadLimits) -> bytes:
    """At most `limits.bytes` and one more, so that a larger file is refused unread."""
    try:
        with path.open("rb") as file:
            return file.read(limits.bytes + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): give the path of a picture") from None


def _to_8_bits(image: Image.Image) -> Image.Image:
    """L, CMYK, LAB, RGB or RGBA. Palettes and transparent colors become RGBA, 16 and 32 bits their 8 high ones."""
    if image.mode.startswith("I"):  # 16 bits of gray, which Pillow would clip to white
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8), "L")
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        scale = 255.0 if values.max(initial=0.0) <= 1.0 else 1.0
        return Image.fromarray((values * scale).round().clip(0, 255).astype(np.uint8), "L")
    if image.mode in TRANSPARENT_MODES or "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode in ("L", "CMYK", "LAB", "RGB"):
        return image
    return image.convert("RGB")


def _to_srgb(image: Image.Image, profile: Any) -> Image.Image:
    """RGB or RGBA in sRGB. A profile that is broken, or of other channels than the picture, is left out."""
    if image.mode == "LAB":
        converted = ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), SRGB, outputMode="RGB")
        assert converted is not None, "only an in-place conversion returns nothing"
        return converted
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    colors = image.convert("RGB") if alpha is not None else image
    converted = _convert_profile(colors, profile) if isinstance(profile, bytes) and profile else None
    result = (converted or colors).convert("RGB")
    if alpha is not None:
        result.putalpha(alpha)
    return result


def _convert_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """The picture in sRGB; None where the profile is sRGB already, or of no use."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return None
        space = source.profile.xcolor_space.strip()
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space)
        if mode is None or (image.mode == "CMYK") != (mode == "CMYK"):
            return None
        return ImageCms.profileToProfile(image.convert(mode), source, SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
