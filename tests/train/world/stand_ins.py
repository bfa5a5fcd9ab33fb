"""Drawings for tests: plain shapes instead of the fetched ones."""

import io
import json
import zipfile
from pathlib import Path

from PIL import Image, ImageDraw

from train.world.thing_table import all_things


def write_stand_ins(folder: Path) -> Path:
    """A drawings.zip in which every thing has two drawings, a wide and a tall one, in a colour of its own."""
    path, index = folder / "drawings.zip", {}
    with zipfile.ZipFile(path, "w") as archive:
        for thing in all_things():
            rows = []
            for number, size in enumerate(((64, 40), (40, 64))):
                drawing = Image.new("RGBA", size)
                shade = (thing.index * 37 % 200 + 30, thing.index * 91 % 200 + 30, thing.index * 53 % 200 + 30, 255)
                ImageDraw.Draw(drawing).ellipse([0, 0, size[0] - 1, size[1] - 1], shade)
                name = f"{thing.index}-{number}.webp"
                content = io.BytesIO()
                drawing.save(content, "WEBP", lossless=True)
                archive.writestr(name, content.getvalue())
                rows.append({"file": name, "hand": "own", "size": list(size)})
            index[thing.name] = rows
        archive.writestr("index.json", json.dumps(index))
    return path
