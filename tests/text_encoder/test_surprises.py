"""text_encoder.prompt_reader: surprises, and the list of what a model can draw."""

from pathlib import Path

from text_encoder.prompt_reader import PromptReader, surprise_prompts, vocabulary_groups

READER = PromptReader.load(Path(__file__).resolve().parents[2] / "weights" / "scenes")


def test_surprises_are_different_and_drawn_as_they_are_said():
    prompts = surprise_prompts(READER, 40, seed=1)
    assert len(set(prompts)) == 40 and prompts == surprise_prompts(READER, 40, seed=1)
    assert all(READER.read(prompt).is_as_said for prompt in prompts)
    assert len({group.name for prompt in prompts for group in READER.read(prompt).scene.groups}) > 20
    assert surprise_prompts(PromptReader.from_dict({}), 5, seed=1) == []


def test_what_the_list_offers_is_drawn_as_it_is_said():
    things, places, styles = (group for group in vocabulary_groups(READER.vocabulary) if group.items[0][2])
    assert things.is_prompt and len(things.items) == len(READER.vocabulary.objects)
    for name, _, words in things.items:
        (group,) = READER.read(words).scene.groups
        assert group.name == name
    for _, _, words in (*places.items, *styles.items):
        assert READER.read(f"a cat {words}").is_as_said, words
