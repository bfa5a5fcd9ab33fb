"""GenEval by the judge of scenes: its prompts, its rules, and the command on the bundled model."""

import csv
from pathlib import Path

import pytest
from commands import maskgil

from train.eval.geneval_score import TASKS, AskedThing, GenevalPrompt, is_right, load_geneval
from train.scenes import sprites
from train.scenes.judge import DetectedThing, SceneDetection
from train.scenes.sprites import things

INDEX = {thing.name: thing.index for thing in things()}


def seen(*items: tuple[str, float, float, str]) -> SceneDetection:
    """A detection of (name, x, y, color)."""
    found = tuple(DetectedThing(INDEX[name], x, y, 48, 1.0, color) for name, x, y, color in items)
    return SceneDetection(found, "plain", "3d")


def test_the_prompts_are_genevals():
    prompts = load_geneval()
    assert [sum(p.task == task for p in prompts) for task in TASKS] == [80, 99, 80, 94, 100, 100]
    texts = {p.prompt for p in prompts}
    assert "a photo of a bench" in texts and "a photo of a dog right of a teddy bear" in texts
    assert "a photo of four giraffes" in texts and "a photo of an orange" in texts


def test_every_thing_of_a_prompt_must_be_there_and_a_number_is_exact():
    single = GenevalPrompt("single_object", (AskedThing("cat"),))
    assert is_right(single, seen(("cat", 64, 64, ""), ("dog", 20, 20, "")))  # GenEval allows others beside it
    assert not is_right(single, seen(("dog", 64, 64, "")))
    counting = GenevalPrompt("counting", (AskedThing("cat", 2),))
    assert is_right(counting, seen(("cat", 30, 64, ""), ("cat", 90, 64, "")))
    assert not is_right(counting, seen(("cat", 30, 64, "")))
    assert not is_right(counting, seen(*[("cat", 20 + 30 * i, 64, "") for i in range(3)]))


def test_a_color_counts_on_its_own_thing():
    asked = GenevalPrompt("color_attr", (AskedThing("cat", color="blue"), AskedThing("dog", color="red")))
    assert is_right(asked, seen(("cat", 30, 64, "blue"), ("dog", 90, 64, "red")))
    assert not is_right(asked, seen(("cat", 30, 64, "red"), ("dog", 90, 64, "blue")))
    red_apple = GenevalPrompt("colors", (AskedThing("apple", color="red"),))
    assert is_right(red_apple, seen(("apple", 64, 64, ""))), "an apple is red by nature"
    assert not is_right(GenevalPrompt("colors", (AskedThing("apple", color="blue"),)), seen(("apple", 64, 64, "")))


@pytest.mark.parametrize(("relation", "x", "y"), [
    ("left of", 20, 64), ("right of", 110, 64), ("above", 64, 20), ("below", 64, 110),
])  # fmt: skip
def test_a_relation_is_told_by_the_centers(relation: str, x: float, y: float):
    asked = GenevalPrompt("position", (AskedThing("cat"), AskedThing("dog")), relation)
    assert is_right(asked, seen(("cat", x, y, ""), ("dog", 64, 64, "")))
    assert not is_right(asked, seen(("cat", 128 - x, 128 - y, ""), ("dog", 64, 64, "")))
    assert not is_right(asked, seen(("cat", 64, 64, ""), ("dog", 64, 64, "")))


def test_the_command_scores_the_bundled_model_and_counts_what_it_cannot_draw_as_wrong(capsys):
    maskgil("eval", "geneval", "--limit", 6, "--samples", 1, "--steps", 2)
    printed = capsys.readouterr().out
    assert "6 prompts: " in printed and "| **overall** | 6 |" in printed
    with pytest.raises(ValueError, match="--limit is 600"):
        maskgil("eval", "geneval", "--limit", 600)


def test_the_table_of_objects_names_all_that_is_asked_for():
    with Path(sprites.__file__).with_name("objects.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    names = {name for row in rows for name in (row["name"], *row["synonyms"].split(","))}
    assert {thing.name for asked in load_geneval() for thing in asked.things} <= names
