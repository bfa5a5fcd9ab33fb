"""A sheet of rendered scenes with their captions: python -m train.world.preview_sheet --out sheet.png"""

import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

import numpy as np
import tyro
from PIL import Image, ImageDraw

from train.world.phrases import say
from train.world.renderer import DrawingPack, render_scene
from train.world.scene_sampling import CROWDS, Shares, sample_scene, sample_shape
from train.world.thing_table import first_things

LINES, LINE = 3, 12  # of a caption: how many, and the height of one in pixels


@dataclass(frozen=True)
class PreviewSheet:
    """Options of the command."""

    out: Path = Path("scenes-preview.png")
    drawings: Path = Path("cache/world/drawings.zip")
    things: int = 240  # the first so many of the table
    count: int = 40
    across: int = 8
    cell: int = 24  # pixels
    seed: int = 0
    crowded: bool = False
    held_out: bool = False
    shapes: bool = False  # all shapes, not the square alone


def draw_sheet(options: PreviewSheet) -> Image.Image:
    """The scenes of a seed, each above its caption."""
    rng = np.random.default_rng(options.seed)
    pack, things = DrawingPack(options.drawings), first_things(options.things)
    side = 12 * options.cell
    down = -(-options.count // options.across)
    sheet = Image.new("RGB", (options.across * (side + 6), down * (side + LINES * LINE + 6)), "white")
    pen = ImageDraw.Draw(sheet)
    for number in range(options.count):
        columns, rows = sample_shape(rng) if options.shapes else (12, 12)
        scene = sample_scene(
            things, pack, columns, rows, rng, held_out=options.held_out, shares=CROWDS if options.crowded else Shares()
        )
        picture = Image.fromarray(render_scene(scene, pack, options.cell))
        picture.thumbnail((side, side))
        x, y = number % options.across * (side + 6), number // options.across * (side + LINES * LINE + 6)
        sheet.paste(picture, (x, y))
        for line, text in enumerate(wrap(say(scene, rng), side // 6)[:LINES]):
            pen.text((x, y + side + line * LINE), text, fill=(0, 0, 0))
    return sheet


def main(options: PreviewSheet) -> None:
    """Draw scenes of the open world with their captions."""
    draw_sheet(options).save(options.out)
    print(options.out)


if __name__ == "__main__":
    try:
        main(tyro.cli(PreviewSheet))
    except ValueError as error:
        print(f"scenes-preview: {error}", file=sys.stderr)
        sys.exit(2)
