"""speech.spoken_commands: what an utterance means after the prompt before it."""

import pytest

from speech.spoken_commands import Meaning, PromptEditor, is_unfinished, read_utterance

BEFORE = "a cat and two dogs on the beach"


@pytest.mark.parametrize(
    ("said", "before", "prompt"),
    [
        ("make it blue", "two cats on the beach", "two blue cats on the beach"),
        ("Make it blue, please.", "a red cat", "a blue cat"),
        ("make it orange", "a cat", "an orange cat"),
        ("make the dogs red", BEFORE, "a cat and two red dogs on the beach"),
        ("make the dog bigger", "a cat and a small dog", "a cat and a big dog"),
        ("bigger", "a blue cat", "a big blue cat"),
        ("smaller", "a big blue cat", "a small blue cat"),
        ("green", "an orange balloon", "a green balloon"),
        ("at night", "a cat on the beach", "a cat at night"),
        ("at night", "a cat", "a cat at night"),
        ("make it night", "a cat", "a cat at night"),
        ("in the snow", BEFORE, "a cat and two dogs in the snow"),
        ("remove the dog", "a cat and a dog on the beach", "a cat on the beach"),
        ("remove the dogs", BEFORE, "a cat on the beach"),
        ("remove the cat", BEFORE, "two dogs on the beach"),
        ("take away the beach", BEFORE, "a cat and two dogs"),
        ("no, a cat", "a dog on the beach", "a cat on the beach"),
        ("no a cat", "two cats and a dog", "two cats and a cat"),
        ("no, two dogs in the snow", "a cat", "two dogs in the snow"),
        ("I mean a fox", "a box on the grass", "a fox on the grass"),
        ("not a box, a fox", "a box and a hen", "a fox and a hen"),
        ("add a tree", "a house", "a house and a tree"),
        ("and a small bee", "a big elephant", "a big elephant and a small bee"),
        ("with a hat", "a cat", "a cat with a hat"),
        ("to the left of a castle", "a fox", "a fox to the left of a castle"),
        ("on the grass", "a big elephant and a small bee", "a big elephant and a small bee on the grass"),
        ("make it a dog", "a cat at night", "a dog at night"),
        ("make it look golden", "a photo of a slice of pizza", "a photo of a golden slice of pizza"),
    ],
)
def test_changes(said: str, before: str, prompt: str):
    utterance = read_utterance(said, before)
    assert (utterance.meaning, utterance.prompt) == (Meaning.CHANGE, prompt)


@pytest.mark.parametrize(
    ("said", "meaning", "prompt"),
    [
        ("Undo.", Meaning.UNDO, ""),
        ("go back please", Meaning.UNDO, ""),
        ("And do.", Meaning.UNDO, ""),  # how tiny.en writes a lone "undo"
        ("start over", Meaning.CLEAR, ""),
        ("okay, another one", Meaning.AGAIN, BEFORE),
        ("again", Meaning.AGAIN, BEFORE),
        ("A penguin in the snow", Meaning.NEW, "a penguin in the snow"),
        ("one more elephant", Meaning.NEW, "one more elephant"),
        ("two cats", Meaning.NEW, "two cats"),
    ],
)
def test_commands_and_new_prompts(said: str, meaning: Meaning, prompt: str):
    utterance = read_utterance(said, BEFORE)
    assert (utterance.meaning, utterance.prompt) == (meaning, prompt)


@pytest.mark.parametrize("said", ["and a dog", "make it blue", "at night", "undo", "remove the dog", "another one"])
def test_without_a_prompt_before_everything_is_new(said: str):
    assert read_utterance(said, "") == read_utterance(said, "").__class__(Meaning.NEW, said)


def test_what_cannot_be_changed_is_a_prompt_of_its_own():
    assert read_utterance("remove the castle", "a cat").meaning is Meaning.NEW
    assert read_utterance("make it", "a cat").meaning is Meaning.NEW


def test_places_and_colors_of_the_model_count():
    said = read_utterance("at the bottom of the sea", "a crab on the moon", {"at the bottom of the sea", "on the moon"})
    assert said.prompt == "a crab at the bottom of the sea"
    assert read_utterance("make it teal", "a red crab", colors={"teal"}).prompt == "a teal crab"


def test_phrases_are_things():
    def phrases(prompt: str) -> list[str]:
        editor = PromptEditor(prompt)
        return [" ".join(editor.words[p.start : p.stop]) for p in editor.phrases()]

    assert phrases("a pencil sketch of a teapot on the grass") == ["a teapot"]
    assert phrases("two cats, a big dog and the moon at night") == ["two cats", "a big dog", "the moon"]
    assert phrases("cats") == ["cats"] and phrases("a slice of pizza") == ["a slice of pizza"]


def test_a_sentence_that_cannot_be_over():
    for words in ("two cats on the", "a", "a big dog and", "make it", "no", "remove the", "two cats next to"):
        assert is_unfinished(words.split()), words
    for words in ("two cats", "make it blue", "undo", "to the left", "another one", "start over", ""):
        assert not is_unfinished(words.split()), words
