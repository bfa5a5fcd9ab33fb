"""Writes the folder of sprites that Sprites opens: `maskgil data sprites --out FOLDER`.

The drawings come from the packed file of the open world (`maskgil data drawings`). train/world/SOURCES.md lists their
sources and licences. Each emoji of the table of objects becomes one file; people become one file for each skin tone.
"""

import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from maskgil.command_line import Command, run
from maskgil.fileio import atomic_write
from train.scenes.drawing_sources import DrawingSource
from train.scenes.sprites import Thing, sprite_file, things
from train.world.renderer import DrawingPack
from train.world.thing_table import VARIATION

ALIASES = {"doughnut": "donut", "birthday cake": "cake", "television": "tv"}  # names of the open world
HANDS = {"fluent": ("fluent", "noto"), "noto": ("noto", "fluent")}  # the named set of emoji, and its substitute


def _bare(emoji: str) -> str:
    return emoji.replace(chr(int(VARIATION, 16)), "")


def member_of(thing: Thing, source: DrawingSource, pack: DrawingPack) -> str:
    """The name of the pack's file with an emoji of a thing. ValueError where there is none."""
    rows = pack.index.get(ALIASES.get(thing.name, thing.name), [])
    if any("emoji" not in row for row in rows):
        raise ValueError(f"{pack.path} is of an earlier version: delete it and run maskgil data drawings")
    files = {row["hand"]: row["file"] for row in rows if _bare(row["emoji"]) == _bare(source.glyph)}
    file = next((files[hand] for hand in HANDS[source.hand] if hand in files), None)
    if file is None:
        raise ValueError(
            f"{pack.path} has no shaded drawing of {thing.name} as {source.glyph}: run maskgil data drawings"
        )
    return file


def unpack_sprites(
    drawings: Annotated[Path, arg(help="the packed drawings")] = Path("cache/world/drawings.zip"),
    out: Annotated[Path, arg(help="the folder of sprites")] = Path("cache/sprites"),
) -> None:
    """Unpack the drawings of the corpus's things into a folder, for --sprites.

    Raises ValueError for a file that is missing or lacks a drawing.
    """
    pack, folder = DrawingPack(drawings), out / "3d"
    members = {
        sprite_file(thing, number): member_of(thing, source, pack)
        for thing in things()
        for number, source in enumerate(thing.sources)
        if source.glyph
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, member in members.items():
        with atomic_write(folder / name) as partial:
            Path(partial).write_bytes(pack.archive.read(member))
    print(f"{out}: {len(things())} things, {len(members)} drawings of emoji")


if __name__ == "__main__":  # the former name of the command
    sys.exit(run(Command("", lambda: unpack_sprites), "maskgil data sprites"))
