"""All things of the table are drawn from the font and own files alone; the first 111 things stay as they were."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from train.data import scene_cache
from train.scenes import scene as scene_module
from train.scenes import sprites as sprites_module
from train.scenes.drawing_sources import DrawingSource, drawing_sources
from train.scenes.sprites import Sprites, Thing, table_of_things
from train.world.svg_drawings import SVGS

OLD = 111  # things of the weights that shipped first; their pictures and captions must not change
OLD_TABLE = "c5c2b5a0"
OLD_SCENES = "f0272ac18fa7"
FONT, OLD_DRAWINGS = "e5899ed3", "0cb874cc"  # of one version of the font, and what it draws


@pytest.fixture(scope="module")
def sprites() -> Sprites:
    return Sprites()


def digest(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()[:8]


def numbered(things: tuple[Thing, ...]) -> list[tuple[Thing, int]]:
    return [(thing, number) for thing in things for number in range(thing.drawings)]


def test_every_drawing_of_the_table_is_drawn_without_a_folder(sprites):
    """Each is a thing of its own: none is empty, a blot of the whole square, or the same as another thing's."""
    owner: dict[bytes, str] = {}
    for thing, number in numbered(table_of_things()):
        shaded, flat = (sprites.draw(thing, style, 48, number=number) for style in ("3d", "flat"))
        assert np.array_equal(shaded, flat) and flat.shape == (48, 48, 4)
        assert 0.04 < (flat[..., 3] > 127).mean() < 0.97, (thing.name, number)
        assert owner.setdefault(flat.tobytes(), thing.name) == thing.name, (thing.name, number)


def test_people_have_each_skin_tone_equally_often_and_no_paint(sprites):
    people = [thing for thing in table_of_things() if thing.is_person]
    assert {"person", "man", "woman", "boy", "girl"} == {thing.name for thing in people}
    for thing in people:
        assert thing.drawings % 5 == 0 and all(source.toned for source in thing.sources)
        pixels = [sprites.draw(thing, "flat", 64, number=number).tobytes() for number in range(5)]
        assert len(set(pixels)) == 5, f"{thing.name}: skin tones look the same"
        assert scene_module.paints(thing, scene_module.PLAIN) == []
    flower = next(thing for thing in table_of_things() if thing.name == "flower")
    assert flower.drawings > 1 and "blue" in scene_module.paints(flower, scene_module.PLAIN)


def test_new_things_have_two_drawings_or_more_and_own_ones_exist():
    for thing in table_of_things()[OLD:]:
        assert len(set(thing.sources)) == thing.drawings >= 2, thing.name
        assert all((SVGS / f"{source.svg}.svg").is_file() for source in thing.sources if source.svg), thing.name


def test_the_first_things_keep_names_places_and_drawings(sprites):
    old = table_of_things()[:OLD]
    assert all(thing.drawings == 1 and thing.glyph == thing.sources[0].glyph for thing in old)
    assert digest(repr(old).encode()) == OLD_TABLE
    if digest(Path(sprites.font_path).read_bytes()) != FONT:
        pytest.skip("another version of the font draws other glyphs")
    assert digest(*(sprites.draw(thing, "flat", 48).tobytes() for thing in old)) == OLD_DRAWINGS


def test_the_first_things_make_the_scenes_that_they_made(monkeypatch):
    """Caches of tokens that were made before stay readable, and their captions true."""
    monkeypatch.setattr(scene_module, "things", lambda: table_of_things()[:OLD])
    assert scene_cache.corpus.__wrapped__() == OLD_SCENES


def test_words_of_the_table():
    assert drawing_sources("2603 fe0f") == (DrawingSource("\u2603\ufe0f"),)
    assert drawing_sources("svg:bench, 1f426:noto") == (
        DrawingSource(svg="bench"),
        DrawingSource("\U0001f426", hand="noto"),
    )
    walking = drawing_sources("1f6b6 200d 2640 fe0f+")
    assert len(walking) == 5 and walking[4] == DrawingSource("\U0001f6b6\U0001f3ff\u200d\u2640\ufe0f", toned=True)
    for wrong in ("", "1f426:twemoji", "1f426,"):
        with pytest.raises(ValueError, match="names no drawing"):
            drawing_sources(wrong)


def test_emoji_of_several_characters_need_libfribidi_and_say_so(monkeypatch):
    monkeypatch.setattr(sprites_module.features, "check", lambda name: False)
    person, cat = (next(t for t in table_of_things() if t.name == name) for name in ("person", "cat"))
    assert Sprites().draw(cat, "flat", 32).any()
    with pytest.raises(ValueError, match="libfribidi0"):
        Sprites().draw(person, "flat", 32)
