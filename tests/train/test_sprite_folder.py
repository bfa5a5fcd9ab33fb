"""The folder of sprites is unpacked from the drawings of the open world: each emoji in the hand that the table says."""

import io
import json
import zipfile
from pathlib import Path

import pytest
from commands import maskgil
from PIL import Image

from train.scenes import sprite_folder
from train.scenes.sprite_folder import ALIASES
from train.scenes.sprites import Sprites, sprite_file, table_of_things

COLOURS = {"fluent": (200, 30, 30, 255), "noto": (30, 30, 200, 255), "twemoji": (30, 200, 30, 255)}


@pytest.fixture(autouse=True)
def whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sprite_folder, "things", table_of_things)


def square(hand: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGBA", (8, 8), COLOURS[hand]).save(content, "WEBP", lossless=True)
    return content.getvalue()


def pack(path: Path, leave_out: str = "", hands: tuple[str, ...] = tuple(COLOURS), emoji: bool = True) -> Path:
    """A file of drawings with a square in the colour of each hand for each emoji of each thing."""
    index = {}
    with zipfile.ZipFile(path, "w") as archive:
        for thing in table_of_things():
            name = ALIASES.get(thing.name, thing.name)
            shown = dict.fromkeys(source.glyph.replace("\ufe0f", "") for source in thing.sources if source.glyph)
            if name == leave_out or not shown:
                continue
            index[name] = [
                {"file": f"{name}/{i}-{hand}.webp", "hand": hand, "size": [8, 8]} | ({"emoji": glyph} if emoji else {})
                for i, glyph in enumerate(shown)
                for hand in hands
            ]
            for row in index[name]:
                archive.writestr(row["file"], square(row["hand"]))
        archive.writestr("index.json", json.dumps(index))
    return path


def unpacked(tmp_path: Path, drawings: Path) -> Path:
    maskgil("data", "sprites", "--drawings", drawings, "--out", tmp_path / "sprites")
    return tmp_path / "sprites"


def test_every_thing_can_be_drawn_from_the_folder_in_the_hand_that_it_names(tmp_path: Path):
    sprites = Sprites(unpacked(tmp_path, pack(tmp_path / "drawings.zip")))
    for thing in table_of_things():
        for number, source in enumerate(thing.sources):
            shaded, flat = (sprites.draw(thing, style, 32, number=number) for style in ("3d", "flat"))
            if source.glyph:
                assert tuple(shaded[16, 16]) == COLOURS[source.hand], (thing.name, number)
                assert tuple(flat[16, 16]) != COLOURS[source.hand]
            else:
                assert (shaded == flat).all(), "a drawing of this project is the same in both styles"


def test_another_shaded_hand_stands_in_and_flat_ones_do_not(tmp_path: Path):
    sprites = Sprites(unpacked(tmp_path, pack(tmp_path / "drawings.zip", hands=("noto", "twemoji"))))
    assert tuple(sprites.draw(table_of_things()[0], "3d", 32)[16, 16]) == COLOURS["noto"]
    with pytest.raises(ValueError, match="no shaded drawing of cat"):
        unpacked(tmp_path, pack(tmp_path / "flat.zip", hands=("twemoji",)))


def test_a_missing_drawing_is_named_and_nothing_is_written(tmp_path: Path):
    with pytest.raises(ValueError, match="no shaded drawing of deer"):
        unpacked(tmp_path, pack(tmp_path / "drawings.zip", leave_out="deer"))
    assert not (tmp_path / "sprites").exists()


def test_a_file_of_an_earlier_version_says_what_to_do(tmp_path: Path):
    with pytest.raises(ValueError, match="earlier version: delete it and run maskgil data drawings"):
        unpacked(tmp_path, pack(tmp_path / "drawings.zip", emoji=False))


def test_a_folder_without_a_drawing_says_what_to_do(tmp_path: Path):
    folder = unpacked(tmp_path, pack(tmp_path / "drawings.zip"))
    person = next(thing for thing in table_of_things() if thing.name == "person")
    (folder / "3d" / sprite_file(person, 3)).unlink()
    with pytest.raises(ValueError, match="person-3.webp is missing; make the folder with `maskgil data sprites`"):
        Sprites(folder).draw(person, "3d", 32, number=3)
