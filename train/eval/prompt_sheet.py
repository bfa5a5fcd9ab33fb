"""A sheet of everyday prompts with what is drawn of each, to look at.

    maskgil eval prompts [--model scenes] [--out sheet.png] [--n 60]

The prompts are the first of train/eval/prompts/everyday_blind.txt, which were written without knowledge of the
vocabulary. A prompt in which nothing can be drawn has an empty tile.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import text_encoder
from maskgil.pipeline import TextToImage
from text_encoder.prompt_reader import PromptReader, PromptReading
from train.eval.reading import PROMPTS

SIDE, COLUMNS, CAPTION = 128, 10, 34  # pixels of a tile, tiles of a row, pixels of its text
BATCH = 8


def draw_prompt_sheet(model: str = "scenes", out: Path = Path("prompts.png"), n: int = 60) -> None:
    """Draw everyday prompts, write a sheet of them, and print a line for each.

    Args:
        model: A bundled model by name, or a model folder.
        out: The PNG to write.
        n: How many prompts, from the first on.
    """
    from maskgil.model_folder import weights_folder

    folder = Path(model) if Path(model).is_dir() else weights_folder() / model
    reader, pipeline = PromptReader.load(folder), TextToImage.load(str(folder), text_encoder.load)
    prompts = (PROMPTS / "everyday_blind.txt").read_text(encoding="utf-8").splitlines()[:n]
    readings = [reader.read(prompt) for prompt in prompts]
    images = _drawn(pipeline, [reading.drawn for reading in readings if reading.drawn])
    tiles = [(reading, next(images) if reading.drawn else None) for reading in readings]
    _sheet(tiles).save(out)
    for number, reading in enumerate(readings, 1):
        print(f"| {number} | {reading.prompt} | {reading.drawn or '(refused)'} | {reading.note()} |")


def _drawn(pipeline: TextToImage, captions: list[str]) -> Iterator[Image.Image]:
    """One image of each caption, seed 0 and on."""
    for start in range(0, len(captions), BATCH):
        part = captions[start : start + BATCH]
        yield from pipeline.images(part, list(range(start, start + len(part))))


def _sheet(tiles: list[tuple[PromptReading, Image.Image | None]]) -> Image.Image:
    rows = math.ceil(len(tiles) / COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * SIDE, rows * (SIDE + CAPTION)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(9)
    for index, (reading, image) in enumerate(tiles):
        x, y = index % COLUMNS * SIDE, index // COLUMNS * (SIDE + CAPTION)
        if image is not None:
            sheet.paste(image.resize((SIDE - 4, SIDE - 4)), (x + 2, y + 2))
        text = f"{index + 1} {reading.prompt}"
        for line, start in enumerate(range(0, min(len(text), 78), 26)):
            pen.text((x + 3, y + SIDE + 10 * line), text[start : start + 26], "black", font)
    return sheet
