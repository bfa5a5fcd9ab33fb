"""A sheet of rendered scenes with their captions: `maskgil data preview --out sheet.png`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

import numpy as np
from PIL import Image, ImageDraw

from maskgil.command_line import Command, run
from train.world.phrases import say
from train.world.renderer import DrawingPack, render_scene
from train.world.scene_sampling import CROWDS, Shares, sample_scene, sample_shape
from train.world.thing_table import first_things

LINES, LINE = 3, 12  # the number of lines of a caption, and the height of a line in pixels


@dataclass(frozen=True)
class PreviewSheet:
    """Options of the command."""

    out: Path = Path("scenes-preview.png")
    """The PNG to write."""
    drawings: Path = Path("cache/world/drawings.zip")
    """The packed drawings."""
    things: int = 240
    """Show this many things, in the order of the table."""
    count: int = 40
    """Number of scenes."""
    across: int = 8
    """Scenes in a row."""
    cell: int = 24
    """Pixels of a side of a cell."""
    seed: int = 0
    """Seed of the scenes and captions."""
    crowded: bool = False
    """Show only crowded scenes."""
    held_out: bool = False
    """Show only combinations that are held out of training."""
    shapes: bool = False
    """Show scenes of all shapes; left out: only squares."""


def preview_picture(options: PreviewSheet) -> Image.Image:
    """A sheet of scenes, each with its caption below it."""
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


def preview_scenes(options: PreviewSheet = PreviewSheet()) -> None:  # noqa: B008, immutable
    """Draw scenes of the open world with their captions into one picture.

    Raises ValueError where the packed drawings are missing or lack a thing.
    """
    preview_picture(options).save(options.out)
    print(options.out)


if __name__ == "__main__":  # the former name of the command
    sys.exit(run(Command("", lambda: preview_scenes), "maskgil data preview"))
