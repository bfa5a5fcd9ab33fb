"""The rules by which text_encoder.prompt_reader reads English: one test a rule, several prompts each."""

import sys
from collections import Counter
from pathlib import Path

import first_things
import pytest

from text_encoder.prompt_reader import PromptReader
from text_encoder.prompt_reader.text_normalizer import tokenize_prompt
from train.world.phrases import world_vocabulary
from train.world.thing_table import all_things

FOLDER = Path(__file__).resolve().parents[2] / "weights" / "scenes"
READER = PromptReader.load(FOLDER)


def drawn(prompt: str, avoid: str = "") -> str:
    return READER.read(prompt, avoid).drawn


def note(prompt: str, avoid: str = "") -> str:
    return READER.read(prompt, avoid).note()


@pytest.mark.parametrize(("prompt", "caption"), [
    ("🐱🐶", "a cat and a dog"), ("🐱🐱🐶", "two cats and a dog"), ("🐱🐱🐱", "three cats"),
    ("🏖️🐱", "on the beach a cat"), ("🌻🐝", "a sunflower and a honeybee"), ("no 🐶, just a 🐱", "a cat"),
    ("a dog 🐶 and a cat 🐱", "a dog and a cat"), ("🐱 🚫🐶", "a cat"),
])  # fmt: skip
def test_each_emoji_is_a_thing_of_its_own(prompt: str, caption: str):
    assert drawn(prompt) == caption


@pytest.mark.parametrize(("prompt", "caption"), [
    ("a whale in the sea", "a whale under water"), ("three fish in a lake", "three fish under water"),
    ("a shark at sea", "a shark under water"), ("a boat in the sea", "a boat on the beach"),
    ("a whale and a boat in the sea", "a whale and a boat on the beach"), ("a crab by the sea", "a crab by the sea"),
    ("a turtle near the ocean", "a turtle on the beach"),
])  # fmt: skip
def test_what_lives_in_water_is_drawn_in_it(prompt: str, caption: str):
    assert drawn(prompt) == caption


@pytest.mark.parametrize(("prompt", "caption"), [
    ("a field of sunflowers", "on the grass three sunflowers"), ("a tulip field", "three tulips on the grass"),
    ("two cats in a rose garden", "two cats and two roses on the grass"),
    ("a pine forest", "three pine trees in the forest"),
])  # fmt: skip
def test_what_a_place_is_full_of_is_drawn_there(prompt: str, caption: str):
    assert drawn(prompt) == caption


def test_a_model_that_draws_a_place_draws_it_as_it_is_said():
    reader = PromptReader.from_dict(world_vocabulary(all_things(), 32))
    assert reader.read("a whale in the sea").scene.backgrounds == ("sea",)
    assert reader.read("a cat in a field of flowers").scene.backgrounds == ("field of flowers",)
    fields = reader.read("a field of sunflowers").scene
    assert [group.name for group in fields.groups] == ["sunflower"] and fields.backgrounds == ("meadow",)


@pytest.mark.parametrize(("prompt", "caption"), [
    ("cat's head", "a cat"), ("the head of a lion", "a lion"), ("a crown on a cat's head", "a crown above a cat"),
    ("a cat with a crown on its head", "a crown above a cat"),
    ("the cat's shadow", "a silhouette of a cat"), ("the queen's crown", "a crown"),
])  # fmt: skip
def test_of_a_part_the_whole_is_drawn(prompt: str, caption: str):
    assert drawn(prompt) == caption


@pytest.mark.parametrize(("prompt", "caption", "left_out"), [
    ("Can a penguin fly?", "a penguin", "'fly' left out (actions are not drawn)"),
    ("Do fish sleep?", "a fish", "'sleep' left out (actions are not drawn)"),
    ("Where does the owl live?", "an owl", "'live' left out (actions are not drawn)"),
    ("What does a zebra look like?", "a zebra", ""),
])  # fmt: skip
def test_questions_are_read_for_their_things(prompt: str, caption: str, left_out: str):
    assert drawn(prompt) == caption and left_out in note(prompt)


@pytest.mark.parametrize("prompt", [
    "computer, draw a cat", "Computer draw me a cat", "hey robot, please draw a cat", "siri, show me a cat",
    "dog, can you draw a cat",
])  # fmt: skip
def test_who_is_spoken_to_is_not_drawn(prompt: str):
    assert drawn(prompt) == "a cat" and "it is only spoken to" in note(prompt)


@pytest.mark.parametrize(("prompt", "caption"), [
    ("a robot", "a robot"), ("cat, draw it blue", "a blue cat"), ("dog, cat", "a dog and a cat"),
    ("a robot, draw a cat", "a robot and a cat"), ("cat, please", "a cat"),
])  # fmt: skip
def test_what_is_asked_for_is_not_taken_for_who_is_spoken_to(prompt: str, caption: str):
    assert drawn(prompt) == caption


@pytest.mark.parametrize(("prompt", "caption"), [
    ("draw a cat with a pencil", "a pencil sketch of a cat"), ("draw with a pen a cat", "a pencil sketch of a cat"),
    ("a cat with a pencil", "a cat with a pencil"), ("draw a cat with a pencil and a ball", "a cat with a pencil"),
    ("draw a cat with a pencil on a chair", "a cat with a pencil"),
])  # fmt: skip
def test_what_a_picture_is_drawn_with_is_its_style(prompt: str, caption: str):
    assert drawn(prompt) == caption


@pytest.mark.parametrize(("prompt", "caption"), [
    ("a sun flower", "a sunflower"), ("two pine apples", "two pineapples"), ("a butter fly", "a butterfly"),
    ("a tea pot", "a teapot"), ("a green house", "a green house"), ("a cat walks", "a cat"),
])  # fmt: skip
def test_words_that_were_split_are_joined(prompt: str, caption: str):
    assert drawn(prompt) == caption


@pytest.mark.parametrize(("prompt", "caption"), [
    ("a cat and a dog, both blue", "a blue cat and a blue dog"), ("two cats, both black", "two black cats"),
    ("a cat and a dog. they are red", "a red cat and a red dog"), ("a cat and a dog, blue", "a cat and a blue dog"),
    ("a rose, violets are blue", "a rose"), ("black, white and brown dogs", "three brown dogs"),
    ("a big, brown bear", "a big brown bear"), ("a pea-green boat", "a green boat"),
])  # fmt: skip
def test_a_color_goes_to_what_it_is_said_of(prompt: str, caption: str):
    assert drawn(prompt) == caption


@pytest.mark.parametrize(("prompt", "caption", "left_out"), [
    ("a cat or a dog", "a cat", "a dog"), ("either a cat or a dog on the beach", "a cat on the beach", "a dog"),
    ("a red or blue car", "a red car", "blue"), ("two or three cats", "two cats", "three"),
    ("a cat on the beach or in the snow", "a cat on the beach", "in the snow"),
])  # fmt: skip
def test_of_what_is_offered_the_first_is_drawn(prompt: str, caption: str, left_out: str):
    assert drawn(prompt) == caption
    assert f"'{left_out}' left out (of several that were offered, the first is drawn)" in note(prompt)


def test_an_offer_that_cannot_be_drawn_leaves_the_other():
    assert drawn("a sousaphone or a cat") == "a cat"


@pytest.mark.parametrize(("prompt", "caption"), [
    ("a cat. make that two", "two cats"), ("a cat, make it three", "three cats"), ("a cat. make it blue", "a blue cat"),
    ("a cat. make it a dog", "a dog"), ("a cat on the beach, no, in the snow", "a cat in the snow"),
    ("a cat and a dog, make that two dogs", "a cat and two dogs"), ("swap the dog for a cat", "a cat"),
])  # fmt: skip
def test_corrections_change_what_was_said_last(prompt: str, caption: str):
    assert drawn(prompt) == caption


@pytest.mark.parametrize(("prompt", "caption"), [
    ("for my dog a cat", "a cat"), ("for my dog: a cat", "a cat"),
    ("a cat for my dog on the beach", "a cat on the beach"),
    ("for my mum a card with a rose", "a rose"),
])  # fmt: skip
def test_whom_a_picture_is_for_is_not_drawn(prompt: str, caption: str):
    assert drawn(prompt) == caption and "it is only thought of" in note(prompt)


@pytest.mark.parametrize(("prompt", "caption"), [
    ("a house without trees, cars or people", "a house"), ("a house without trees, cars", "a house"),
    ("a house, no trees, cars or cats", "a house"), ("a house, no trees, a car", "a house and a car"),
    ("a house, no trees, beach", "a house on the beach"), ("without dogs, cats", "three cats"),
    ("without dogs a cat", "a cat"), ("a cat without a hat on the beach", "a cat on the beach"),
    ("a cat without a hat in cartoon style", "a cat in cartoon style"), ("a cat, not on the beach", "a cat"),
    ("never draw a dog. a cat", "a cat"), ("please never draw dogs, draw cats", "three cats"),
    ("a cat w/o a hat", "a cat"),
    ("a dog-free house with a cat", "a house with a cat"), ("dog free park with a cat", "on the grass a cat"),
    ("a free dog", "a dog"), ("not three cats, two cats", "two cats"), ("a cat --no dog", "a cat"),
    ("a cat and a dog. Without: cats", "a dog"), ("a cat and a dog. Negative prompt: blurry, dog", "a cat"),
    ("no, a dog", "a dog"),
    ("a dog not in the park but on the beach", "a dog on the beach"),
    ("a cat but not a black one", "a cat"), ("a cat w/ a hat", "a cat with a hat"),
])  # fmt: skip
def test_what_is_not_wanted_is_left_out_and_nothing_else(prompt: str, caption: str):
    assert drawn(prompt) == caption


@pytest.mark.parametrize("prompt", ["never draw a dog", "anything but a dog", "everything except dogs", "0 dogs"])
def test_a_prompt_of_only_what_is_not_wanted_is_refused_by_its_reason(prompt: str):
    assert "nothing is named but what is not wanted" in READER.read(prompt).refused


@pytest.mark.parametrize(("prompt", "caption"), [
    ("a cat and no kitten", "a cat"), ("a puppy but no other dogs", "a puppy"),
    ("a red car and no blue car", "a red car"), 
])  # fmt: skip
def test_what_is_not_wanted_is_no_more_than_was_said(prompt: str, caption: str):
    assert drawn(prompt) == caption


@pytest.mark.parametrize(("prompt", "avoid", "caption"), [
    ("a cat on the beach", "beach", "a cat"), ("a cat at night", "night, blurry", "a cat"),
    ("a red car", "red", "a car"),
    ("a sketch of a cat", "sketch", "a cat"), ("a cat in cartoon style", "cartoons", "a cat"),
    ("a red car and a blue car", "red cars", "a blue car"), ("a rabbit and a dog", "bunnies", "a dog"),
    ("a cat and a dog", "no dogs", "a cat"), ("a poodle and a cat", "dog", "a cat"), ("a dog", "poodle", "a dog"),
    ("a cat on a red background", "red background", "a cat"), ("a cat in the sky", "clouds", "a cat in the sky"),
])  # fmt: skip
def test_a_negative_prompt_keeps_things_places_styles_and_colors_out(prompt: str, avoid: str, caption: str):
    assert drawn(prompt, avoid) == caption


def test_words_of_a_negative_prompt_that_keep_something_out_are_not_named():
    for text in ("red", "cats, dogs and birds", "sketch", "night", "no dogs", "", "watercolor"):
        reading = READER.read_negative(text)
        assert reading.is_as_said and not reading.note(), text
    assert "'justice' left out" in READER.read_negative("a cat, justice").note()


@pytest.mark.parametrize(("prompt", "caption"), [
    ("a banana shaped like a boat", "a banana"), ("a cat like a tiger", "a cat"),
    ("a heart-shaped balloon", "a balloon"),
    ("a house made of cheese", "a house"), ("an elephant as small as a mouse", "an elephant"),
    ("i'd like a cat", "a cat"),
])  # fmt: skip
def test_what_a_thing_is_compared_to_is_drawn_only_in_its_place(prompt: str, caption: str):
    assert drawn(prompt) == caption


@pytest.mark.parametrize(("prompt", "caption"), [
    ("on the left a cat, on the right a dog", "a cat on the left and a dog on the right"),
    ("a house. To its left, a car.", "a house right of a car"),
    ("a house with a moon above it", "a house below a moon"),
])  # fmt: skip
def test_sides_are_read_before_and_behind_their_things(prompt: str, caption: str):
    assert drawn(prompt) == caption


@pytest.mark.parametrize(("prompt", "says", "never"), [
    ("falling leaves", "'leaves' left out (no drawing of it is known)", "'leaves' left out (actions"),
    ("a bear in a park next to a lake", "a picture has one place, and 'park' was said first", "'meadow'"),
    ("a football match", "'match' left out (no drawing of it is known)", "actions"),
    ("three owls, an eagle and a dog", "", "drawn as three"), ("three eagles, a hawk and a dog", "", "three: drawn"),
    ("eating ice cream", "'eating' left out (actions are not drawn)", "describes"), ("a kitty cat", "", "kitty"),
    ("a cat by greg rutkowski", "'greg rutkowski' left out", "color"), ("teeny tiny cat", "", "teeny"),
    ("omg sooo cute cat lol", "", "left out"), ("my dog bella", "'bella' left out (the word is not known)", "bell:"),
    ("a fish called Wanda", "'Wanda' left out (the word is not known)", "panda"),
    ("a bird's eye view of a castle", "'bird's eye view' left out", "parrot"),
])  # fmt: skip
def test_reasons_are_true(prompt: str, says: str, never: str):
    assert says in note(prompt) and never not in note(prompt)


def test_what_does_not_fit_of_things_that_were_added_up_is_named():
    for reader, caption in ((READER, "four eagles"), (first_things.READER, "four owls")):
        reading = reader.read("three eagles and three hawks")
        assert reading.drawn == caption and "three: drawn as one, the most that fit" in reading.note()


def test_suggestions_are_english():
    vocabulary = READER.vocabulary
    assert [thing.name for thing in vocabulary.objects if "scissors" in thing.name]
    assert "a scissors" not in READER.read("a knife rack of freedom").refused + READER.read("a chair leg").refused
    assert READER.suggestions(["knife"]) and all("a scissors" not in text for text in READER.suggestions(["knife"]))
    assert not any("a orange" in way for entry in vocabulary.backgrounds for way in entry.say)
    assert drawn("a cat on a orange background") == drawn("a cat on an orange background")
    assert drawn("a scissor") == drawn("scissors")


@pytest.mark.parametrize(
    "prompt", ["（a blue cat）and a red dog", "「a blue cat」and a red dog", "【a blue cat】 and a red dog"]
)
def test_full_width_brackets_are_brackets(prompt: str):
    assert drawn(prompt) == "a blue cat and a red dog"
    assert {token.text for token in tokenize_prompt(prompt)} <= {*"a blue cat and red dog".split(), ","}


@pytest.mark.parametrize(("prompt", "caption"), [
    ("a chair leg", "a chair"), ("a balloon seller", "a balloon"), ("a chair leg and a cat", "a cat"),
])  # fmt: skip
def test_what_describes_a_noun_is_drawn_where_nothing_else_can_be(prompt: str, caption: str):
    assert drawn(prompt) == caption and "left out" in note(prompt)


@pytest.mark.parametrize("piece", [
    "<lora:", "🐱\u200d", "👨\u200d", "\ufe0f\u200d", "a cat or ", "no red dog, a blue dog, ", "without dogs, ",
    "make that ",
    "a cat's ", "the head of ", "a, ", "sun ", "red, ", "no, a cat ", "with ", "cat, draw ", "shaped ", "dog-free ",
    "above it ", "like a ", "w/o ", "computer ", "its head ", "on the left ", "（", "cat", "the dog ", "a fox of ",
])  # fmt: skip
def test_the_work_grows_in_proportion_to_the_prompt(piece: str):
    """Four times the text takes about four times the calls; a law with the square of the length takes sixteen times."""

    def calls(length: int) -> int:
        counted, prompt = Counter(), piece * (length // len(piece))
        sys.setprofile(lambda frame, event, argument: counted.update([event]))
        try:
            READER.read(prompt)
        finally:
            sys.setprofile(None)
        return counted["call"]

    assert calls(1600) < 6 * calls(400)


@pytest.mark.parametrize(("prompt", "caption", "says"), [
    ("my dog's ball", "a football", ""), ("a stop sign and a dog", "a dog", "'a stop sign' left out"),
    ("a mermaid or a cat", "a cat", ""), ("a wolf and no coyote", "a fox", ""), ("a parrot and no bird", "", ""),
    ("a wolf and no fox", "", ""), ("birds in the sky, no clouds", "three parrots in the sky", ""),
    ("a cloud that looks like a sheep", "a sheep", ""), ("a lion-shaped cloud", "a lion", ""),
    ("a football player", "a football", "left out"), ("a cat girl", "a cat", "left out"),
    ("a cat and a football player", "a cat", "left out"),
])  # fmt: skip
def test_the_rules_hold_for_words_that_a_model_does_not_draw(prompt: str, caption: str, says: str):
    reading = first_things.READER.read(prompt)
    assert reading.drawn == caption and says in reading.note()


@pytest.mark.parametrize(("prompt", "caption"), [
    ("my dog's ball", "a ball"), ("a stop sign and a dog", "a stop sign and a dog"), ("a wolf and no coyote", "a wolf"),
    ("a wolf and no fox", "a wolf"), ("birds in the sky, no clouds", "three birds in the sky"),
    ("a cloud that looks like a sheep", "a cloud"), ("a lion-shaped cloud", "a cloud"),
    ("a football player", "a person"), ("a cat girl", "a girl"), ("a cat and a football player", "a cat and a person"),
])  # fmt: skip
def test_the_same_words_where_the_model_draws_them(prompt: str, caption: str):
    assert drawn(prompt) == caption
