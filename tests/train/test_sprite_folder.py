"""The folder of sprites is unpacked from the drawings of the open world, every drawing of a thing in its style."""

import io
import json
import zipfile
from pathlib import Path

import pytest
from commands import maskgil
from PIL import Image

from train.scenes.sprite_folder import ALIASES
from train.scenes.sprites import Sprites, things


def pack(path: Path, leave_out: str = "") -> Path:
    """A file of drawings with one small square for each thing."""
    content = io.BytesIO()
    Image.new("RGBA", (8, 8), (200, 30, 30, 255)).save(content, "WEBP", lossless=True)
    index = {}
    with zipfile.ZipFile(path, "w") as archive:
        for thing in things():
            name = ALIASES.get(thing.name, thing.name)
            if name != leave_out:
                rows = [{"file": f"{name}/{i}.webp", "hand": "fluent", "size": [8, 8]} for i in range(thing.drawings)]
                index[name] = rows
                for row in rows:
                    archive.writestr(row["file"], content.getvalue())
        archive.writestr("index.json", json.dumps(index))
    return path


def test_every_thing_can_be_drawn_from_the_folder(tmp_path: Path):
    maskgil("data", "sprites", "--drawings", pack(tmp_path / "drawings.zip"), "--out", tmp_path / "sprites")
    sprites = Sprites(tmp_path / "sprites")
    for thing in things():
        for number in range(thing.drawings):
            assert sprites.draw(thing, "3d", 32, number=number)[16, 16, 3] == 255


def test_a_missing_drawing_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="0 drawings of cat"):
        drawings = pack(tmp_path / "drawings.zip", leave_out="cat")
        maskgil("data", "sprites", "--drawings", drawings, "--out", tmp_path / "sprites")
