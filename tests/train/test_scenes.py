"""The corpus: what is drawn is what is said, and held-out combinations stay out."""

import numpy as np
import pytest
import torch

from train.scenes import captions
from train.scenes import scene as scene_module
from train.scenes.captions import caption, spoken_names
from train.scenes.judge import (
    SIDES,
    DetectedThing,
    SceneDetection,
    SceneJudge,
    SceneJudgeConfig,
    augment,
    covers,
    targets,
    verdict,
    with_more_things,
)
from train.scenes.render import background, render
from train.scenes.scene import PLAIN, Item, Scene, arrange, crowded, is_held_out, paired, random_scene, several
from train.scenes.sprites import Sprites, table_of_things, things


@pytest.fixture(scope="module")
def sprites() -> Sprites:
    return Sprites()


def scenes(n: int, **options) -> list[Scene]:
    rng = np.random.default_rng(3)
    return [random_scene(rng, *scene_module.sample_size(rng), **options) for _ in range(n)]


def test_at_least_a_hundred_objects_each_named_once():
    table = things()
    names = [name for t in table for name in {t.name, *t.synonyms}]
    assert len(table) >= 100 and len(names) == len(set(names))


def test_boxes_stay_inside_on_the_lattice_and_apart():
    for scene in scenes(400):
        boxes = [(i.x, i.y, i.x + i.size, i.y + i.size) for i in scene.items]
        for x0, y0, x1, y1 in boxes:
            assert 0 <= x0 and 0 <= y0 and x1 <= scene.width and y1 <= scene.height and x0 % 16 == y0 % 16 == 0
        for a in range(len(boxes)):
            for b in range(a):
                p, q = boxes[a], boxes[b]
                assert p[2] <= q[0] or q[2] <= p[0] or p[3] <= q[1] or q[3] <= p[1], scene


def test_relations_hold_in_pixels():
    for scene in scenes(600):
        if scene.relation:
            (ax, ay), (bx, by) = (i.centre for i in scene.items)
            holds = {"left of": bx - ax, "right of": ax - bx, "above": by - ay, "below": ay - by}[scene.relation]
            across = ay - by if scene.relation in ("left of", "right of") else ax - bx
            assert holds > abs(across), scene


def test_training_never_shows_a_held_out_combination():
    assert not any(is_held_out(s) for s in scenes(500))
    rng = np.random.default_rng(0)
    for _ in range(60):
        scene = crowded(rng, 128, 128)
        assert not any(scene_module.held_out_background(i.thing, scene.background) for i in scene.items)
        assert not any(scene_module.held_out_colour(i.thing, i.colour) for i in scene.items)


def test_paired_scenes_are_training_scenes_of_two_kinds_in_colour():
    rng = np.random.default_rng(1)
    for _ in range(40):
        scene = paired(rng, 160, 96)
        assert len(scene.groups) == 2 and any(scene.colours.values()) and not is_held_out(scene)


def test_some_of_everything_is_held_out_and_mirrors_agree():
    assert all(is_held_out(s) for s in scenes(30, held_out=True))
    a, b = things()[:2]
    for relation, mirror in captions.MIRROR.items():
        assert scene_module.held_out_relation(a, relation, b) == scene_module.held_out_relation(b, mirror, a)
    share = np.mean([scene_module.held_out_count(t, n) for t in things() for n in (2, 3, 4)])
    assert 0.05 < share < 0.16
    share = np.mean([scene_module.held_out_colour(t, c) for t in things() for c in scene_module.COLOURS])
    assert 0.05 < share < 0.16 and not any(scene_module.held_out_colour(t, "") for t in things())


def test_things_of_many_scenes_are_given_colours_and_their_captions_say_so():
    rng, drawn = np.random.default_rng(7), scenes(600)
    painted = [scene for scene in drawn if any(scene.colours.values())]
    assert 0.25 < len(painted) / len(drawn) < 0.5
    for scene in painted:
        assert scene.style in scene_module.PAINTED_STYLES
        said = captions.caption(scene, rng).split()
        for thing, colour in scene.colours.items():
            if not colour:
                continue
            assert colour != scene.background and said.count(colour) >= 1
            names = {n.split()[0] for n in (thing.name, thing.plural, *captions.spoken_names(thing))}
            assert any(a == colour and b in names for a, b in zip(said, said[1:], strict=False)), (said, thing)
    apple = next(thing for thing in things() if thing.name == "apple")
    assert "red" not in scene_module.paints(apple, PLAIN), "the grammar says red apple of any"
    assert "black" not in scene_module.paints(apple, "night") and "blue" not in scene_module.paints(apple, "blue")


def test_a_thing_is_painted_in_shades_of_its_colour(sprites):
    rng = np.random.default_rng(0)
    for thing in things()[::12]:
        own = sprites.draw(thing, "flat", 64)
        for name, paint in scene_module.PAINTS.items():
            pixels = sprites.draw(thing, "flat", 64, paint)
            assert np.array_equal(pixels[..., 3], own[..., 3]) and not np.array_equal(pixels, own)
            inside = pixels[..., 3] > 200
            mean = pixels[inside][:, :3].mean(0)
            if name not in ("black", "white"):
                assert (np.argsort(mean) == np.argsort(paint)).all(), (thing.name, name, mean)
            assert np.abs(mean - paint).max() < 100, (thing.name, name, mean)
        assert sprites.draw(thing, "flat", 64) is own, "its own colours stay"
    cat, dog = things()[:2]
    scene = arrange([(cat, 1, ""), (dog, 1, "")], 128, 128, PLAIN, "flat", "", rng)
    blue = scene_module.recolored(scene, {cat: "blue"})
    assert [item.colour for item in blue.items] == ["blue", ""] and scene_module.recolored(blue, {}) == blue
    before, after = (render(s, sprites, np.random.default_rng(0)) for s in (scene, blue))
    box = blue.items[1]
    same = np.s_[box.y : box.y + box.size, box.x : box.x + box.size]
    assert np.array_equal(before[same], after[same]) and not np.array_equal(before, after)


def test_captions_say_the_truth():
    rng = np.random.default_rng(1)
    for scene in scenes(300):
        said = captions.caption(scene, rng)
        assert said == said.lower() and "  " not in said
        assert set(said.split()) <= captions.known_words(), said
        if scene.background in scene_module.COLOURS:
            assert scene.background in said.split()
        for thing, count in scene.groups:
            heads = [w.split()[-1] for w in (thing.name, thing.plural, *thing.synonyms)]
            assert any(h[:3] in said for h in heads), (said, thing)
            if count > 2:
                assert {3: "three", 4: "four"}[count] in said


def test_captions_are_many_and_seeded():
    assert captions.sentences(40, 5) == captions.sentences(40, 5) != captions.sentences(40, 6)
    assert len(set(captions.sentences(300, 0))) > 280


@pytest.mark.parametrize(("noun", "said"), [("owl", "an owl"), ("unicorn", "a unicorn"), ("ufo", "a ufo"),
                                            ("umbrella", "an umbrella"), ("horse", "a horse")])  # fmt: skip
def test_articles(noun, said):
    assert captions.article(noun) == said


def test_a_mouse_is_no_computer_mouse_and_a_plant_is_a_potted_plant(monkeypatch):
    monkeypatch.setattr(captions, "things", table_of_things)
    captions.known_words.cache_clear()
    words = captions.vocabulary()
    captions.known_words.cache_clear()
    assert {"mouse", "mice", "bat", "bats", "board", "light"} <= set(words["words"]) - words["aliases"].keys()
    assert words["aliases"]["plant"] == "potted plant" and "mouse" in words["words"]


def test_rendering_is_seeded_and_draws_every_style(sprites):
    thing = things()[0]
    pictures = []
    for style in scene_module.STYLES:
        scene = arrange([(thing, 1, "")], 96, 96, PLAIN, style, "", np.random.default_rng(0))
        one, two = (render(scene, sprites, np.random.default_rng(1)) for _ in range(2))
        assert one.shape == (96, 96, 3) and np.array_equal(one, two)
        pictures.append(one)
    # without a folder of sprites "3d" is the font too
    assert all(not np.array_equal(pictures[1], other) for other in pictures[2:])


def test_a_finer_rendering_shows_the_same(sprites):
    """Things, colours, pencil and pixels at the same places: its means over 2 x 2 pixels are the coarse rendering."""
    rng = np.random.default_rng(4)
    shown = set()
    while len(shown) < 8:
        scene = random_scene(rng, 160, 96)
        key = scene.style, any(scene.colours.values())
        if key in shown:
            continue
        shown.add(key)
        coarse, fine = (render(scene, sprites, np.random.default_rng(1), scale).astype(float) for scale in (1, 2))
        assert fine.shape == (192, 320, 3)
        means = fine.reshape(96, 2, 160, 2, 3).mean((1, 3))
        assert np.abs(means - coarse).mean() < 3 and np.corrcoef(means.ravel(), coarse.ravel())[0, 1] > 0.95, key


@pytest.mark.parametrize("name", [b for b in scene_module.BACKGROUNDS])
def test_every_background_draws_at_any_size(name):
    one, two = (background(name, 160, 96, 1, scale) for scale in (1, 2))
    assert one.shape == (96, 160, 3) and two.shape == (192, 320, 3)
    assert np.abs(two.reshape(96, 2, 160, 2, 3).mean((1, 3)) - one).mean() < 2


def test_missing_font_and_folder_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="fonts-noto-color-emoji"):
        Sprites(font=tmp_path / "none.ttf")
    with pytest.raises(ValueError, match="holds no sprites"):
        Sprites(tmp_path)


def test_five_objects_are_refused():
    with pytest.raises(ValueError, match="1 to 4 objects"):
        arrange([(things()[0], 5, "")], 128, 128, PLAIN, "3d", "", np.random.default_rng(0))


def reading_of(scene: Scene) -> SceneDetection:
    """What a perfect reader would say."""
    sizes = [min(SIDES, key=lambda s: abs(s - i.size)) for i in scene.items]
    seen = (DetectedThing(i.thing.index, *i.centre, s, 1.0, i.colour) for i, s in zip(scene.items, sizes, strict=True))
    return SceneDetection(tuple(seen), scene.background, scene.style)


def test_a_perfect_reading_keeps_everything_and_faults_are_seen():
    for scene in scenes(200):
        assert all(verdict(scene, reading_of(scene)).values())
    cat, dog = things()[:2]
    scene = Scene(128, 128, (Item(cat, 0, 32, 48), Item(dog, 64, 32, 48)), "red", "3d", "left of")
    seen = reading_of(scene)
    mirrored = SceneDetection(
        tuple(DetectedThing(i.thing, 128 - i.x, i.y, i.size, 1.0) for i in seen.items), "red", "3d"
    )
    assert not verdict(scene, mirrored)["relation"]
    assert not verdict(scene, SceneDetection(seen.items[:1], "red", "3d"))["objects"]
    assert not verdict(scene, SceneDetection((*seen.items, seen.items[0]), "red", "3d"))["objects"]
    assert not verdict(scene, SceneDetection(seen.items, "blue", "3d"))["background"]
    assert not verdict(scene, SceneDetection(seen.items, "red", "sketch"))["style"]
    green = scene_module.recolored(scene, {dog: "green"})
    assert not verdict(green, seen)["colour"] and verdict(green, reading_of(green))["colour"]
    both = reading_of(scene_module.recolored(green, {cat: "green"}))
    assert not verdict(green, both)["colour"], "the cat was to keep its own"
    assert verdict(scene, both)["colour"], "nobody asked for colours"


def test_targets_mark_each_centre_and_covers_each_box():
    for scene in scenes(100):
        wanted = targets(scene)
        assert (wanted["thing"] > 0).sum() == len(scene.items) == (wanted["size"] >= 0).sum()
        seen = wanted["colour"][wanted["thing"] > 0]
        if scene.style in scene_module.PAINTED_STYLES:
            assert sorted(seen) == sorted(scene_module.COLOUR_CLASSES.index(i.colour) for i in scene.items)
        else:
            assert (seen == -1).all()
        assert (covers(scene) > 0).sum() == sum((i.size // 16) ** 2 for i in scene.items)


def test_reader_reads_any_shape():
    reader = SceneJudge().eval()
    assert len(reader.read(torch.rand(2, 3, 96, 160))) == 2
    assert reader.features(torch.rand(1, 3, 96, 96)).shape == (1, 2 * reader.config.widths[-1])
    pixels = torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8)
    once, twice = (augment(pixels, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(once, twice) and once.shape == pixels.shape


def test_a_scene_of_several_things_shows_each_once_and_names_them_all():
    for number in range(12):
        rng = np.random.default_rng([77, number])
        scene = several(rng, *((128, 128), (96, 96))[number % 2])
        assert len(scene.groups) == (4, 3)[number % 2] and not is_held_out(scene)
        told = caption(scene, rng)
        for thing, count in scene.groups:
            assert count == 1 and any(name in told for name in spoken_names(thing)), (told, thing.name)


def test_a_judge_of_more_things_sees_the_old_ones_as_before():
    judge = SceneJudge(SceneJudgeConfig(widths=(16, 16, 16), blocks=1, things=3)).eval()
    grown = with_more_things(judge, 5).eval()
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        before, after = judge(pixels), grown(pixels)
    assert torch.allclose(after["thing"][:, :4], before["thing"], atol=1e-6)
    assert after["thing"].shape[1] == 6 and torch.equal(after["colour"], before["colour"])
    with pytest.raises(ValueError, match="knows 5 things"):
        with_more_things(grown, 4)
