"""PNG files that remember how they were made.

Two notes are written into each file: "t2i", a JSON object that restores every setting, and "parameters", the line of
text that other image tools show.
"""

import base64
import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from app.core.request import GenerationRequest
from maskgil.fileio import atomic_write
from maskgil.params import SamplingParams, options

METADATA_KEY = "t2i"
SHOWN = {"steps", "order", "guidance_scale", "temperature"}  # options that other tools have names for
MAX_BYTES = 32 * 2**20
MAX_SIDE = 4096


def encode_png(image: Image.Image, request: GenerationRequest | None = None) -> bytes:
    """The image as PNG bytes; with a request, its settings are written into the file."""
    info = PngImagePlugin.PngInfo()
    if request is not None:
        info.add_itxt(METADATA_KEY, json.dumps(request.to_dict(), ensure_ascii=False))
        info.add_itxt("parameters", parameters(request))
    out = io.BytesIO()
    image.save(out, "PNG", pnginfo=info)
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


def read(data: bytes) -> tuple[Image.Image, GenerationRequest | None]:
    """The image in a PNG and the request that it remembers, if any.

    Raises ValueError when the bytes are no PNG, too large, or cut short.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"the file has {len(data) / 2**20:.0f} MB and at most {MAX_BYTES // 2**20} MB are read")
    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        if max(image.size) <= MAX_SIDE:
            image.load()
    except UnidentifiedImageError:
        raise ValueError("the file is not a PNG picture: choose a PNG") from None
    except Image.DecompressionBombError:
        raise ValueError(f"the picture is far too large: at most {MAX_SIDE} pixels a side are read") from None
    except Exception as error:  # a file made to do harm makes Pillow stumble in any way: struct, zlib, its own limits
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise ValueError(f"the PNG is damaged or cut short ({reason}): choose another") from None
    if max(image.size) > MAX_SIDE:
        raise ValueError(f"the picture is {image.width}x{image.height} and at most {MAX_SIDE} a side are read")
    request = settings_of(image.info)
    if image.mode.startswith("I"):  # 16 bits of grey, of which Pillow would make white
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    return image, request


def settings_of(info: dict[str, Any]) -> GenerationRequest | None:
    """The request in a PNG's notes; None when there is none, or none that this version can read."""
    try:
        return GenerationRequest.from_metadata(json.loads(info[METADATA_KEY]))
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


def write(files: dict[Path, bytes]) -> None:
    """Write all files, or none: each goes to a temporary neighbour first and is renamed once all are whole."""
    with contextlib.ExitStack() as renames:
        for path, data in files.items():
            renames.enter_context(atomic_write(path, shared=True)).write_bytes(data)
