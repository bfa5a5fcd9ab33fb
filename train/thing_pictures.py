"""Small pictures of the things that a model draws, made by the model, for the Draw page.

    maskgil export things --model FOLDER

One WebP beside the model's vocabulary.json (app/studio/things.js shows it): square tiles in the order of the
vocabulary, COLUMNS to a row.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

import text_encoder
from maskgil.fileio import atomic_write
from maskgil.model_folder import weights_folder
from maskgil.pipeline import TextToImage
from text_encoder.prompt_reader import COLUMNS, THINGS_PICTURE, PromptReader

BATCH = 16
TILE = 64  # pixels
LARGEST = 300_000  # bytes of the file


def draw_things(model: str = "scenes", tile: int = TILE, out: Path | None = None) -> None:
    """Draw each thing of a model once and write the pictures in one file.

    Args:
        model: A bundled model by name, or a model folder.
        tile: Side of one picture in pixels.
        out: The file. Left out: things.webp in the model's folder.
    """
    folder = Path(model) if Path(model).is_dir() else weights_folder() / model
    reader = PromptReader.load(folder)
    if reader.is_free_text:
        raise ValueError(f"{model} has no list of things: give a model with a vocabulary.json that names objects")
    if not 16 <= tile <= 128:
        raise ValueError(f"a tile of {tile} pixels: give 16 to 128")
    names = [thing.name for thing in reader.vocabulary.objects]
    prompts = [reader.read(name).drawn for name in names]
    pipeline, images = TextToImage.load(str(folder), text_encoder.load), []
    for start in range(0, len(prompts), BATCH):
        part = prompts[start : start + BATCH]
        images += pipeline.images(part, [0] * len(part))
    data = encode_sheet(tile_sheet(images, tile))
    target = out or folder / THINGS_PICTURE
    with atomic_write(target) as partial:
        partial.write_bytes(data)
    print(f"{target}: {len(images)} things, {len(data):,} bytes")


def tile_sheet(images: Sequence[Image.Image], tile: int) -> Image.Image:
    """The pictures in rows of COLUMNS, each cut to its middle square."""
    sheet = Image.new("RGB", (COLUMNS * tile, math.ceil(len(images) / COLUMNS) * tile), "white")
    for index, image in enumerate(images):
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        small = image.convert("RGB").crop((left, top, left + side, top + side)).resize((tile, tile), Image.LANCZOS)
        sheet.paste(small, (index % COLUMNS * tile, index // COLUMNS * tile))
    return sheet


def encode_sheet(sheet: Image.Image) -> bytes:
    """WebP of the best quality that fits into LARGEST bytes."""
    for quality in (85, 75, 60, 45, 30):
        buffer = io.BytesIO()
        sheet.save(buffer, "WEBP", quality=quality, method=6)
        if len(buffer.getvalue()) <= LARGEST:
            break
    return buffer.getvalue()
