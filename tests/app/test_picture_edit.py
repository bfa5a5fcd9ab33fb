"""Edits by words: which cells another thing, place or style draws anew, and what is said about it."""

import numpy as np
import pytest
from PIL import Image

from app.core import picture_edit
from app.core.picture_edit import EditPlan, PictureEdit
from text_encoder.prompt_reader import PromptVocabulary

WORDS = PromptVocabulary.from_dict(
    {
        "objects": [
            {"name": "cat", "plural": "cats"},
            {"name": "dog", "plural": "dogs"},
            {"name": "fox"},
            {"name": "car"},
        ],
        "backgrounds": [
            {"name": "beach", "say": ["on the beach", "at the beach"]},
            {"name": "snow", "say": ["in the snow"]},
        ],
        "styles": [{"name": "sketch", "say": ["a sketch of", "as a sketch"]}],
        "counts": ["one", "two"],
        "words": [],
    }
)


SIZES = [(256, 256), (192, 320)]


def edit(old: str, new: str) -> PictureEdit:
    return PictureEdit("words", Image.new("RGB", (8, 8)), "x", new, old)


def test_the_things_of_a_prompt_are_replaced_by_others():
    others = picture_edit.other_things(WORDS, "two cats on the beach")
    assert others and all("cat" not in other and other.endswith("on the beach") for other in others)
    assert "two dogs on the beach" in others and picture_edit.other_things(WORDS, "on the beach") == []


def test_things_are_found_by_any_of_their_names():
    assert picture_edit.things_in(WORDS, "Two CATS, a dog and a cat by a carpet") == ["cat", "dog"]
    assert picture_edit.things_in(PromptVocabulary.from_dict({}), "a cat") == []


def test_only_the_middle_of_a_thing_is_sure_to_show_no_place():
    change = np.zeros((6, 6))
    change[1:4, 1:4] = -5.0
    middle = picture_edit.middle_of_things(change)
    assert middle.sum() == 1 and middle[2, 2]
    single = np.zeros((6, 6))
    single[2, 3] = -5.0
    assert picture_edit.middle_of_things(single)[2, 3]
    assert not picture_edit.middle_of_things(np.zeros((6, 6))).any()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("a cat on the beach", "a cat in the snow", "Another place"),
        ("a cat on the beach", "a sketch of a cat on the beach", "Another style"),
        ("a cat", "two cats", "Another number"),
        ("a cat on the beach", "a dog on the beach", ""),
    ],
)
def test_what_cannot_be_done_well_is_said(old: str, new: str, said: str):
    note = picture_edit.caution(WORDS, SIZES, edit(old, new).plan)
    assert note.startswith(said) and bool(note) == bool(said)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (EditPlan("extend", (64, 96), "a cat in the snow", side="left", amount=96), "96 pixels are more than"),
        (EditPlan("extend", (64, 96), "a cat in the snow", side="up", amount=96), "it may show another cat."),
        (EditPlan("extend", (64, 96), "two cats and a FOX", side="up", amount=32), "it may show another cat or fox."),
        (EditPlan("extend", (64, 96), "in the snow", side="up", amount=32), ""),
        (EditPlan("paint", (256, 256), "a cat", brushed=0.7, extent=(250, 250)), "Most of the picture is brushed"),
        (EditPlan("paint", (512, 512), "a cat", brushed=0.4, extent=(300, 90)), "300 × 90 is more than"),
        (EditPlan("paint", (512, 512), "a cat", brushed=0.4, extent=(192, 320)), ""),
        (EditPlan("vary", (512, 512), "a cat"), "512 × 512 is more than the model draws at once"),
        (EditPlan("vary", (256, 256), "a cat"), ""),
    ],
)
def test_a_doubtful_change_is_said_before_it_is_drawn(plan: EditPlan, said: str):
    note = picture_edit.caution(WORDS, SIZES, plan)
    assert said in note and bool(note) == bool(said)


def test_the_plan_of_a_brush_measures_it():
    mask = Image.new("L", (100, 50))
    mask.paste(255, (10, 5, 60, 45))
    plan = PictureEdit("paint", Image.new("RGB", (200, 100)), "x", "a cat", mask=mask).plan
    assert plan.extent == pytest.approx((100, 80), abs=2) and plan.brushed == pytest.approx(0.4, abs=0.02)
    assert edit("a cat", "a dog").plan.brushed == 0.0


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="choose one of paint"):
        PictureEdit("melt", Image.new("RGB", (8, 8)), "x", "a cat")
