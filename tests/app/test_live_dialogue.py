"""What is told beside a live picture: how its prompt was read when it was drawn."""

import pytest

from app.core import registry
from app.core.prompt_admission import admit
from app.core.request import GenerationRequest
from app.web.live_dialogue import describe_drawn


@pytest.mark.parametrize(
    ("prompt", "negative", "drawn", "chips", "unknown"),
    [
        ("a cat and a dog on the beach", "", "a cat and a dog on the beach", ["cat", "dog", "beach"], []),
        ("a cat and a dog on the beach", "a dog", "a cat on the beach", ["cat", "beach"], ["dog"]),
        ("a poodle", "", "a dog", ["dog"], ["poodle"]),
    ],
)
def test_a_picture_is_described_by_the_reading_that_it_was_drawn_by(prompt, negative, drawn, chips, unknown):
    """With the negative prompt: its things are not drawn."""
    asked = GenerationRequest.read({"prompt": prompt, "negative": negative, "seed": 1})
    admitted = admit(asked, registry.find_local("scenes"))
    told = describe_drawn(admitted.request)
    assert (admitted.reading.drawn, told["reading"]["drawn"]) == (drawn, drawn)
    assert (told["reading"]["chips"], told["unknown"], told["notes"]) == (chips, unknown, list(admitted.notes))
