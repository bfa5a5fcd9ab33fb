"""Laws of the open world: its table, its scenes, its captions and labels, its pictures."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from world.stand_ins import write_stand_ins

from train.world.answers import (
    COLOUR_CLASSES,
    answer_counts,
    cell_answers,
    centre_answers,
    cover,
    fact_count,
    told_facts,
)
from train.world.arrangement import RELATIONS, Group, SceneRequest, WorldScene, arrange, relation_holds
from train.world.backdrops import (
    BACKDROPS,
    COUNTRY,
    PLACE_NAMES,
    PLAIN,
    TIMES,
    WEATHERS,
    has_weather,
    paint_backdrop,
    place_of,
)
from train.world.caption_reader import read_caption
from train.world.fetch_drawings import drawings_of, trimmed
from train.world.phrases import PLACE_PHRASES, names_of, say, say_group, world_vocabulary
from train.world.renderer import DrawingPack, casts_shadow, painted, render_scene
from train.world.scene_sampling import CROWDS, PAIRS, Shares, is_held_out, sample_scene, sample_shape
from train.world.svg_drawings import SVGS, draw_own
from train.world.thing_table import HANDS, all_things, first_things

GENEVAL = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,computer mouse,tv remote,computer keyboard,cell phone,microwave,"
    "oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
).split(",")


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> DrawingPack:
    return DrawingPack(write_stand_ins(tmp_path_factory.mktemp("drawings")))


@pytest.fixture(scope="module")
def things():
    return first_things(240)


def scenes(pack, things, count: int, seed: int, **options):
    rng = np.random.default_rng(seed)
    return [sample_scene(things, pack, *sample_shape(rng), rng, **options) for _ in range(count)], rng


def thing(name: str):
    return next(t for t in all_things() if t.name == name)


def test_geneval_comes_first_and_every_name_means_one_thing():
    assert [t.name for t in all_things()[: len(GENEVAL)]] == GENEVAL
    owners: dict[str, str] = {}
    for t in all_things():
        for name in names_of(t):
            assert owners.setdefault(name, t.name) == t.name, name


def test_every_thing_of_the_first_world_is_there():
    table = Path(__file__).parents[3] / "train" / "scenes" / "objects.tsv"
    old = [line.split("\t")[0] for line in table.read_text(encoding="utf-8").splitlines()[1:]]
    known = {name for t in all_things() for name in names_of(t)}
    assert set(old) <= known


def test_every_thing_has_a_drawing_and_every_svg_is_drawn_and_used():
    assert all(t.glyphs or t.svgs for t in all_things())
    used = {name for t in all_things() for name in t.svgs}
    assert used == {path.stem for path in SVGS.glob("*.svg")}
    for name in sorted(used):
        drawing = trimmed(draw_own(name))
        alpha = np.asarray(drawing)[..., 3]
        assert max(drawing.size) == 256 and 0.1 < (alpha > 128).mean() <= 1, name


def test_drawings_carry_their_hand_and_their_emoji():
    square = Image.new("RGBA", (8, 8), (200, 30, 30, 255))
    readers = {hand: lambda glyph: square for hand in HANDS.values()} | {"noto": lambda glyph: None}
    found = [(hand, emoji, max(drawing.size)) for hand, emoji, drawing in drawings_of(thing("kite"), readers)]
    shown = [(hand, "\U0001fa81", 256) for hand in ("fluent", "fluent-flat", "twemoji")]
    assert found == [*shown, ("own", "", 256)]


def test_people_have_every_skin_tone_and_no_default():
    toned = [t for t in all_things() if t.is_person]
    assert len(toned) > 30
    for t in toned:
        tones = Counter(glyph.tone for glyph in t.glyphs)
        assert set(tones) == {0, 1, 2, 3, 4} and len(set(tones.values())) == 1, t.name


def test_there_are_thirty_places_and_each_is_painted_in_every_time_and_weather():
    assert len(PLACE_PHRASES) >= 30 and set(PLACE_PHRASES) == set(PLACE_NAMES) - {COUNTRY}
    day = {}
    for backdrop in BACKDROPS:
        day[backdrop] = paint_backdrop(backdrop, "day", "clear", 48, 48, 0)
    for a in BACKDROPS:
        for b in BACKDROPS:
            assert a == b or np.abs(day[a].astype(int) - day[b]).mean() > 0.5, (a, b)
    for backdrop in PLACE_NAMES:
        if has_weather(backdrop):
            for time, weather in [(t, "clear") for t in TIMES[1:]] + [("day", w) for w in WEATHERS[1:]]:
                other = paint_backdrop(backdrop, time, weather, 48, 48, 0)
                assert np.abs(day[backdrop].astype(int) - other).mean() > 2, (backdrop, time, weather)


def test_a_scene_is_a_function_of_its_seed(pack, things):
    first, _ = scenes(pack, things, 6, seed=3)
    again, _ = scenes(pack, things, 6, seed=3)
    other, _ = scenes(pack, things, 6, seed=4)
    assert first == again and first != other
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(render_scene(a, pack, 12), render_scene(b, pack, 12))
    rngs = [np.random.default_rng(1) for _ in range(2)]
    assert [say(s, rngs[0]) for s in first] == [say(s, rngs[1]) for s in first]


@pytest.mark.parametrize("shares", [Shares(), CROWDS, PAIRS])
def test_a_scene_shows_what_it_says(pack, things, shares):
    for scene in scenes(pack, things, 60, seed=5, shares=shares)[0]:
        counts = Counter((p.thing.name, p.word, p.colour) for p in scene.placed)
        assert counts == {(g.thing.name, g.word, g.colour): g.count for g in scene.groups}
        for placed in scene.placed:
            assert placed.x >= 0 and placed.x + placed.width <= scene.columns + 1e-6
            assert placed.y >= 0 and placed.bottom <= scene.rows + 1e-6
            assert not (placed.colour and placed.thing.is_person)
        if not scene.relation:
            worst = max((a.overlap(b) for i, a in enumerate(scene.placed) for b in scene.placed[:i]), default=0)
            assert worst <= 0.25


@pytest.mark.parametrize("relation", RELATIONS)
def test_relations_hold_in_the_picture(pack, relation):
    bearers = {"on": "dining table", "inside": "basket"}
    for seed in range(8):
        rng = np.random.default_rng(seed)
        pair = Group(thing("cat")), Group(thing(bearers.get(relation, "house")))
        backdrop = (PLAIN, "meadow", "kitchen", "beach")[seed % 4]
        scene = arrange(SceneRequest(pair, backdrop, relation=relation), pack, 12, 12, rng)
        by_name = {p.thing.name: p for p in scene.placed}
        a, b = by_name["cat"], by_name[pair[1].thing.name]
        assert relation_holds(relation, a, b)
        order = [p.thing.name for p in scene.placed]
        if relation in ("in front of", "on", "inside"):
            assert order.index("cat") > order.index(b.thing.name) or relation == "inside"
        if relation == "behind":
            assert order.index("cat") < order.index(b.thing.name)


def test_a_container_hides_the_lower_part_of_what_is_in_it(pack):
    rng = np.random.default_rng(2)
    request = SceneRequest((Group(thing("cat")), Group(thing("basket"))), relation="inside")
    scene = arrange(request, pack, 12, 12, rng)
    cat, basket = (next(p for p in scene.placed if p.thing.name == name) for name in ("cat", "basket"))
    alone = render_scene(replace(scene, placed=(cat,), relation=""), pack, 24)
    both = render_scene(scene, pack, 24)
    x, y = cat.centre[0], min(cat.bottom - 0.1, basket.bottom - 0.3)
    at = int(y * 24), int(x * 24)
    assert not np.array_equal(alone[at], both[at])


def test_things_stand_where_their_kind_does(pack, things):
    for scene in scenes(pack, things, 150, seed=8, held_out=None)[0]:
        place = place_of(scene.backdrop)
        if place is None or place.kind == "free" or scene.relation:
            continue
        for placed in scene.placed:
            ground = place.horizon * scene.rows
            if placed.thing.stands in ("ground", "indoors", "small") and place.kind != "water":
                assert placed.bottom >= min(ground, scene.rows - 1) - 0.51
                assert casts_shadow(placed, scene) or placed.bottom < ground
            if placed.thing.stands in ("air", "sky") and placed.height < 0.4 * scene.rows:
                assert placed.bottom <= ground + 0.5


def test_training_never_sees_held_out_combinations_and_the_test_sees_only_them(pack, things):
    for held_out in (False, True):
        for scene in scenes(pack, things, 40, seed=9, held_out=held_out)[0]:
            request = SceneRequest(scene.groups, scene.backdrop, scene.time, scene.weather, scene.style, scene.relation)
            assert is_held_out(request) == held_out


def test_a_relation_and_its_converse_are_held_out_together(things):
    for i in range(60):
        a, b = Group(things[i]), Group(things[i + 70])
        for relation, converse in (("left of", "right of"), ("above", "below"), ("in front of", "behind")):
            assert is_held_out(SceneRequest((a, b), relation=relation)) == is_held_out(
                SceneRequest((b, a), relation=converse)
            )


def test_captions_parse_back(pack, things):
    for shares in (Shares(), CROWDS, PAIRS):
        found, rng = scenes(pack, things, 250, seed=11, shares=shares, held_out=None)
        for scene in found:
            caption = say(scene, rng)
            told = read_caption(caption, things)
            assert Counter(told.groups) == Counter(scene.groups), caption
            assert told.place == (PLAIN if scene.backdrop == COUNTRY else scene.backdrop), caption
            assert (told.time, told.weather, told.style) == (scene.time, scene.weather, scene.style), caption
            if scene.relation:
                flipped = told.groups[0] != scene.groups[0]
                pair = {"left of": "right of", "above": "below", "in front of": "behind"}
                converse = pair | {b: a for a, b in pair.items()} | {"next to": "next to"}
                assert told.relation == (converse[scene.relation] if flipped else scene.relation), caption
            else:
                assert not told.relation, caption


def test_captions_use_only_words_of_the_vocabulary(pack, things):
    vocabulary = world_vocabulary(things, 24)
    found, rng = scenes(pack, things, 200, seed=12)
    words = set(vocabulary["words"])
    for scene in found:
        assert set(say(scene, rng).replace(",", " ").split()) <= words
    assert len(vocabulary["objects"]) == 240 and [288, 288] in vocabulary["sizes"]


def test_articles_and_numbers_are_english():
    rng = np.random.default_rng(0)
    said = {say_group(Group(thing("umbrella")), rng) for _ in range(60)}
    assert "an umbrella" in said and "a umbrella" not in said
    assert say_group(Group(thing("unicorn")), rng, definite=True) == "the unicorn"
    assert {say_group(Group(thing("sheep"), 2), rng).split()[-1] for _ in range(40)} <= {"sheep", "lambs", "ewes"}


def test_labels_agree_with_the_picture(pack, things):
    for scene in scenes(pack, things, 40, seed=13, shares=CROWDS)[0]:
        if scene.style == "sketch" or scene.relation:
            continue
        shown, part, colour = cover(scene)
        empty = render_scene(replace(scene, placed=()), pack, 12)
        picture = render_scene(scene, pack, 12)
        changed = np.abs(picture.astype(int) - empty).sum(-1) > 24
        centres = changed.reshape(scene.rows, 12, scene.columns, 12)[:, 4:8, :, 4:8].mean((1, 3))
        there = shown > 0
        assert (there == (part > 0)).all()
        assert centres[~there].mean() < 0.12  # shadows and edges reach over
        assert centres[there].mean() > 0.6
        answers = centre_answers(scene)
        assert (answers["thing"] > 0).sum() >= len({p.centre for p in scene.placed}) - 2
        told = cell_answers([scene])
        assert all(int(told[name].max()) < n for name, n in zip(told, answer_counts(240), strict=True))
        assert set(np.unique(colour)) <= {COLOUR_CLASSES.index(g.colour) for g in scene.groups} | {0}


def test_facts_tell_scenes_apart(things):
    cat, dog = Group(thing("cat")), Group(thing("dog"), 2, colour="red")
    seen = set()
    for request in (
        SceneRequest((cat, dog)),
        SceneRequest((dog, cat)),
        SceneRequest((cat,)),
        SceneRequest((cat, replace(dog, count=3))),
        SceneRequest((cat, replace(dog, colour="blue"))),
        SceneRequest((cat, dog), "beach"),
        SceneRequest((cat, dog), "beach", "night"),
        SceneRequest((cat, replace(dog, count=1)), relation="left of"),
        SceneRequest((cat, replace(dog, count=1)), relation="right of"),
    ):
        scene = WorldScene(
            12, 12, request.groups, (), request.backdrop, request.time, request.weather, request.style, request.relation
        )
        facts = told_facts(scene, 240)
        assert max(facts) < fact_count(240) and len(set(facts)) == len(facts)
        seen.add(frozenset(facts))
    assert len(seen) == 8  # the order of a list says nothing


def test_paint_keeps_shading_and_takes_the_colour():
    ramp = np.zeros((8, 8, 4), np.uint8)
    ramp[..., :3] = np.linspace(0, 255, 64).reshape(8, 8, 1)
    ramp[..., 3] = 255
    red = painted(ramp, (222, 60, 56)).astype(int)
    light = red[..., :3].sum(-1).ravel()
    assert (np.diff(light) >= 0).all() and light[-1] > light[0] + 200
    assert (red[..., 0] >= red[..., 1]).all()


def test_too_many_things_are_refused():
    with pytest.raises(ValueError, match="1 to 4 kinds and 1 to 9 things"):
        SceneRequest(tuple(Group(t) for t in all_things()[:5]))
    with pytest.raises(ValueError, match="were asked for"):
        first_things(10**6)
    with pytest.raises(ValueError, match="names no thing"):
        read_caption("hello", first_things(10))
