"""Make the folder of sprites that Sprites opens: `maskgil data sprites --out FOLDER`.

The drawings come from the packed file of the open world (`maskgil data drawings`); train/world/SOURCES.md lists their
sources and licences. Each thing of the corpus gets the shaded drawings of its name, people one in each skin tone.
"""

import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from maskgil.command_line import Command, run
from maskgil.fileio import atomic_write
from train.scenes.sprites import Thing, things
from train.world.renderer import DrawingPack

ALIASES = {"doughnut": "donut", "birthday cake": "cake", "television": "tv"}  # names of the open world
HANDS = {"3d": ("fluent", "noto", "own"), "flat": ("noto", "fluent-flat", "twemoji", "own")}


def files_of(thing: Thing, pack: DrawingPack, style: str) -> list[str]:
    """The members of the pack that draw a thing in a style, `thing.drawings` of them. ValueError if it has fewer."""
    rows = pack.index.get(ALIASES.get(thing.name, thing.name), [])
    hand = next((hand for hand in HANDS[style] if any(row["hand"] == hand for row in rows)), "")
    files = [row["file"] for row in rows if row["hand"] == hand][: thing.drawings]
    if len(files) < thing.drawings:
        raise ValueError(f"{pack.path} has {len(files)} drawings of {thing.name}, {thing.drawings} are wanted")
    return files


def unpack_sprites(
    drawings: Annotated[Path, arg(help="the packed drawings")] = Path("cache/world/drawings.zip"),
    out: Annotated[Path, arg(help="the folder of sprites")] = Path("cache/sprites"),
) -> None:
    """Unpack the drawings of the corpus's things into a folder, for --sprites.

    Raises ValueError for a file that is missing or lacks a drawing.
    """
    pack = DrawingPack(drawings)
    for thing in things():
        for style in ("3d",) if thing.glyph else ("3d", "flat"):
            (out / style).mkdir(parents=True, exist_ok=True)
            for number, file in enumerate(files_of(thing, pack, style)):
                path = out / style / f"{thing.slug}{f'-{number}' if number else ''}.webp"
                with atomic_write(path) as partial:
                    Path(partial).write_bytes(pack.archive.read(file))
    print(f"{out}: {len(things())} things")


if __name__ == "__main__":  # the former name of the command
    sys.exit(run(Command("", lambda: unpack_sprites), "maskgil data sprites"))
