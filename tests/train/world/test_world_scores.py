"""Laws of the verdicts: a perfect reading passes, and each fault costs the category that it is in."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from world.stand_ins import write_stand_ins

from train.world.renderer import DrawingPack
from train.world.scene_sampling import CROWDS, PAIRS, Shares, sample_scene, sample_shape
from train.world.thing_table import all_things, first_things
from train.world.world_judge import SeenScene, SeenThing
from train.world.world_scores import CATEGORIES, geneval_verdict, perfect_reading, scene_verdict

INDEX = {thing.name: thing.index for thing in all_things()}


def seen(*things: tuple, **whole: str) -> SeenScene:
    """Things as (name, x, y, side, colour)."""
    told = {"backdrop": "plain", "time": "day", "weather": "clear", "style": "3d"} | whole
    return SeenScene(
        tuple(SeenThing(INDEX[name], x, y, side, colour, 1.0) for name, x, y, side, colour in things), **told
    )


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    pack = DrawingPack(write_stand_ins(tmp_path_factory.mktemp("drawings")))
    rng = np.random.default_rng(1)
    return [
        sample_scene(first_things(240), pack, *sample_shape(rng), rng, held_out=None, shares=shares)
        for shares in (Shares(), CROWDS, PAIRS)
        for _ in range(150)
    ]


def test_a_perfect_reading_passes_in_every_category(scenes):
    kept, asked = Counter(), Counter()
    for scene in scenes:
        verdict = scene_verdict(scene, perfect_reading(scene))
        kept.update(name for name, right in verdict.items() if right)
        asked.update(verdict)
    assert set(asked) == set(CATEGORIES)
    for name in CATEGORIES:
        assert kept[name] >= 0.97 * asked[name], (name, kept[name], asked[name])
    assert all(kept[name] == asked[name] for name in ("objects", "colour", "place", "time", "weather", "style"))


def test_each_fault_costs_its_category(scenes):
    caught = Counter()
    for scene in scenes:
        right = perfect_reading(scene)
        first, *others = right.things
        for name, wrong in {
            "objects": replace(right, things=tuple(others)),
            "style": replace(right, style="flat" if right.style != "flat" else "3d"),
            "place": replace(right, backdrop="moon" if right.backdrop != "moon" else "mars"),
            "time": replace(right, time="night" if right.time != "night" else "day"),
            "weather": replace(right, weather="fog" if right.weather != "fog" else "clear"),
            "colour": replace(right, things=(replace(first, colour="red" if first.colour != "red" else ""), *others)),
        }.items():
            verdict = scene_verdict(scene, wrong)
            if name in verdict:
                assert not verdict[name], name
                caught[name] += 1
    assert set(caught) == {"objects", "style", "place", "time", "weather", "colour"}


def test_mirrored_relations_fail(scenes):
    checked = 0
    for scene in scenes:
        if scene.relation in ("left of", "right of") and scene_verdict(scene, perfect_reading(scene))["relation"]:
            right = perfect_reading(scene)
            mirrored = replace(right, things=tuple(replace(t, x=scene.columns - t.x) for t in right.things))
            assert not scene_verdict(scene, mirrored)["relation"]
            checked += 1
    assert checked > 10


def test_geneval_rows_are_judged_as_geneval_does():
    two = {"include": [{"class": "clock", "count": 2}], "exclude": [{"class": "clock", "count": 3}]}
    clocks = [("clock", 2 + 3 * i, 5, 3, "") for i in range(3)]
    assert [geneval_verdict(two, seen(*clocks[:n])) for n in (1, 2, 3)] == [False, True, False]
    pink = {"include": [{"class": "car", "count": 1, "color": "pink"}]}
    assert geneval_verdict(pink, seen(("car", 5, 5, 6, "pink"))) and not geneval_verdict(
        pink, seen(("car", 5, 5, 6, ""))
    )
    left = {"include": [{"class": "cow", "count": 1}, {"class": "laptop", "count": 1, "position": ["left of", 0]}]}
    assert geneval_verdict(left, seen(("cow", 8, 6, 4, ""), ("laptop", 3, 6, 4, "")))
    assert not geneval_verdict(left, seen(("cow", 3, 6, 4, ""), ("laptop", 8, 6, 4, "")))
    assert not geneval_verdict(left, seen(("cow", 8, 6, 4, "")))
    with pytest.raises(ValueError, match="no 'zeppelin'"):
        geneval_verdict({"include": [{"class": "zeppelin", "count": 1}]}, seen())


def test_every_row_of_geneval_can_be_judged():
    path = Path(__file__).parents[3] / "train" / "eval" / "prompts" / "evaluation_metadata.jsonl"
    if not path.is_file():
        pytest.skip("GenEval's metadata are not in the repository yet")
    for line in path.read_text(encoding="utf-8").splitlines():
        assert geneval_verdict(json.loads(line), seen()) is False
