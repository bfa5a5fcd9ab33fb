"""PNG files that remember how they were made.

Two notes are written into each file: "t2i", a JSON object that restores every setting, and "parameters", the line of
text that other image tools show.
"""

import base64
import contextlib
import errno
import glob
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms, PngImagePlugin

from app.core.request import GenerationRequest
from maskgil.fileio import atomic_write
from maskgil.image_io import MAX_BYTES, flatten, open_image
from maskgil.params import SamplingParams, options

__all__ = ["MAX_BYTES"]

METADATA_KEY = "t2i"
SHOWN = {"steps", "order", "guidance_scale", "temperature"}  # options that other tools have names for
IMAGE_DESCRIPTION, EXIF_IFD, USER_COMMENT = 0x010E, 0x8769, 0x9286  # tags of EXIF
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def encode_png(image: Image.Image, request: GenerationRequest | None = None) -> bytes:
    """The image as PNG bytes in sRGB; with a request, its settings are written into the file."""
    info = PngImagePlugin.PngInfo()
    info.add(b"sRGB", b"\0")  # rendering intent: perceptual
    if request is not None:
        info.add_itxt(METADATA_KEY, json.dumps(request.to_dict(), ensure_ascii=False))
        info.add_itxt("parameters", parameters(request))
    out = io.BytesIO()
    image.save(out, "PNG", pnginfo=info)
    return out.getvalue()


def encode_image(
    image: Image.Image, format: str, request: GenerationRequest | None = None, quality: int | None = None
) -> bytes:
    """The image as png, jpeg or webp bytes in sRGB. `quality`: 0 to 100, of jpeg and webp. With a request, its settings
    are in the PNG's texts, or in EXIF's ImageDescription and UserComment."""
    if format == "png":
        return encode_png(image, request)
    exif = Image.Exif()
    if request is not None:
        exif[IMAGE_DESCRIPTION] = f"{METADATA_KEY}:{json.dumps(request.to_dict())}"
        exif.get_ifd(EXIF_IFD)[USER_COMMENT] = b"UNICODE\0" + parameters(request).encode("utf-16-be")
    out = io.BytesIO()
    options = {"exif": exif, "icc_profile": SRGB_PROFILE, "quality": 90 if quality is None else quality}
    flatten(image).save(out, format.upper(), **options)
    return out.getvalue()


def data_uri(image: Image.Image) -> str:
    """The image as an address that holds it, for the page."""
    return f"data:image/png;base64,{base64.b64encode(encode_png(image)).decode()}"


def parameters(request: GenerationRequest) -> str:
    """The settings as the text that other image tools write and read."""
    lines = [request.prompt]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    params, usual = request.params, SamplingParams()
    settings: dict[str, Any] = {
        "Steps": params.steps,
        "Sampler": f"MaskGIL {params.order}",
        "CFG scale": f"{params.guidance_scale:g}",
        "Seed": request.seed,
        "Model": request.model,
        "Temperature": f"{params.temperature:g}",
    }
    if request.size is not None:
        settings["Size"] = f"{request.size[0]}x{request.size[1]}"
    for name, about in options(type(params)).items():
        value = getattr(params, name)
        if name not in SHOWN and value != getattr(usual, name, None):
            settings[about.label] = "-".join(f"{end:g}" for end in value) if isinstance(value, tuple) else value
    if request.edit:
        settings["Edit"] = request.edit
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items()))
    return "\n".join(lines)


def read_picture(data: bytes) -> tuple[Image.Image, GenerationRequest | None]:
    """The picture in a file of any format (maskgil/image_io.py) and the request that it remembers, if any.

    Raises ValueError when the bytes are no picture, too large, or cut short.
    """
    image = open_image(data)
    return image, settings_of({str(name): value for name, value in image.info.items()})


def settings_of(info: dict[str, Any]) -> GenerationRequest | None:
    """The request in a PNG's notes; None when there is none, or none that this version can read."""
    description = str(info.get("description", ""))
    prefix = f"{METADATA_KEY}:"
    text = info.get(METADATA_KEY) or (description.removeprefix(prefix) if description.startswith(prefix) else None)
    if not text:
        return None
    try:
        return GenerationRequest.from_metadata(json.loads(text))
    except (KeyError, TypeError, ValueError, RecursionError):  # the last: lists in lists in lists
        return None


def grid(images: Sequence[Image.Image], gap: int = 4) -> Image.Image:
    """The images side by side in as square a sheet as their number allows, on transparent gaps."""
    columns = next(c for c in range(1, len(images) + 1) if c * c >= len(images))
    rows = -(-len(images) // columns)
    width, height = images[0].size
    sheet = Image.new("RGBA", (columns * (width + gap) - gap, rows * (height + gap) - gap))
    for i, image in enumerate(images):
        sheet.paste(image.convert("RGBA"), ((i % columns) * (width + gap), (i // columns) * (height + gap)))
    return sheet


def write_files(files: dict[Path, bytes]) -> None:
    """Write all files, or none: each goes to a temporary neighbor first and is renamed once all are whole.

    A symbolic link stays one, and its target is written. Temporary files of processes that were killed are removed.
    Raises ValueError that names the file and what to do.
    """
    targets = {path.resolve() if path.is_symlink() else path: data for path, data in files.items()}
    path = Path()
    try:
        with contextlib.ExitStack() as renames:
            for path, data in targets.items():
                _remove_leftovers(path)
                renames.enter_context(atomic_write(path, shared=True)).write_bytes(data)
    except OSError as error:
        remedy = "free some space or choose another place" if error.errno == errno.ENOSPC else "choose another place"
        raise ValueError(f"{path} cannot be written ({error.strerror}): {remedy}") from error


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of `path` whose process has ended."""
    for leftover in path.parent.glob(f"{glob.escape(path.name)}.*.partial"):
        owner = leftover.name.removeprefix(f"{path.name}.").removesuffix(".partial")
        if owner.isdigit() and Path("/proc/self").exists() and not Path(f"/proc/{owner}").exists():
            with contextlib.suppress(OSError):
                leftover.unlink()
