"""train.eval.caption_reading: evaluations draw what the app would draw, and say how much that is."""

from first_things import READER

from text_encoder.prompt_reader import PromptReader
from train.eval.caption_reading import encoded_caption, reading_shares


def test_the_encoder_gets_known_words_as_they_are_and_others_as_they_are_read():
    assert encoded_caption(READER, "a drawing of two cats on the beach").endswith("two cats on the beach")
    assert encoded_caption(READER, "a photo of a poodle and a fork") == "a dog"
    assert encoded_caption(READER, "a photo of a person") == ""
    assert encoded_caption(PromptReader.from_dict({}), "A Fork!") == "A Fork!"


def test_shares_count_what_is_replaced_left_out_and_refused():
    prompts = ("a cat", "a poodle", "a cat and a fork", "a person")
    line = reading_shares([READER.read(prompt) for prompt in prompts])
    assert line.startswith("4 prompts: 1 drawn as said, 2 otherwise, 1 refused; 20.0%")
    assert "40.0% left out" in line
