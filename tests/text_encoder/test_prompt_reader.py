"""text_encoder.prompt_reader: any English to words that a model knows, and what became of every word."""

import json
from pathlib import Path

import first_things
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text_encoder.prompt_reader import PromptReader, PromptReading, word_forms
from train.scenes.captions import OPENINGS, known_words, sentences, vocabulary

ROOT = Path(__file__).resolve().parents[2]
STAND_INS = json.loads((ROOT / "weights" / "scenes" / "stand_ins.json").read_text("utf-8"))
READER = PromptReader.from_dict(vocabulary(), STAND_INS)


def drawn(prompt: str) -> str:
    return READER.read(prompt).drawn


def test_what_the_encoder_was_trained_on_is_read_as_it_is():
    openings = sorted([*OPENINGS, "i want to see", "there is"], key=len, reverse=True)
    for sentence in sentences(400, 3):
        plain = next((sentence.replace(f"{o} ", "", 1) for o in openings if f"{o} " in f"{sentence} "), sentence)
        assert drawn(sentence) in (sentence, plain), sentence
        assert READER.read(sentence).is_as_said, sentence


@settings(deadline=None, max_examples=150)
@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(sorted(known_words())), max_size=14).map(" ".join)))
def test_the_encoder_sees_no_word_that_it_does_not_know(prompt: str):
    reading = READER.read(prompt)
    assert set(reading.drawn.split()) <= known_words()
    assert "".join(span.text for span in reading.spans) == prompt
    assert bool(reading.drawn) != bool(reading.refused)
    assert drawn(reading.drawn) == reading.drawn


@pytest.mark.parametrize(("prompts", "caption"), [
    (("a fire-truck", "a firetruck", "A FIRE TRUCK!!", "fire_truck"), "a fire truck"),
    (("a blue cat,and a red dog", "a blue cat and a red dog", "“a blue cat” and a red dog", "a blue_cat and a red_dog",
      "(a blue cat) & (a red dog)", "a blue cat + a red dog", "a blue cat and\u200b a red dog",
      "\uff41 \uff42\uff4c\uff55\uff45 \uff43\uff41\uff54 and a red dog",
      "(a blue cat:1.3) and a red dog --ar 16:9"), "a blue cat and a red dog"),
    (("two cats", "2 cats", "a photo of two cats", "please draw two cats", "cats x2", "I'd like 2 cute cats, please"),
     "two cats"),
    (("a cat", "🐱", "my cat", "Cat.", "can you draw a cat?", "a catt", "there is a cat", "a c\u200bat"), "a cat"),
    (("an owl under the moon", "an owl under a moon"), "an owl under a moon"),
    (("an aeroplane", "an airplane"), None),
    (("a gray cat", "a grey cat"), "a cat"),
])  # fmt: skip
def test_marks_politeness_and_spelling_change_nothing(prompts: tuple[str, ...], caption: str | None):
    for prompt in prompts:
        assert caption is None or drawn(prompt) == caption, prompt
        assert drawn(prompt), prompt


@pytest.mark.parametrize(("prompt", "caption", "says"), [
    ("a poodle", "a dog", "poodle: drawn as dog, the kind of thing that it is"),
    ("a monky", "a monkey", "monky: drawn as monkey, the nearest spelling"),
    ("elefants", "three elephants", "elefants: drawn as elephants, the nearest spelling"),
    ("a cat and 0 dogs", "a cat", "without 'dogs', as asked"),
    ("zero dogs and a cat", "a cat", "without 'dogs', as asked"),
    ("a cat with no hat", "a cat", "without 'hat', as asked"),
    ("a dog without a ball", "a dog", "without 'ball', as asked"),
    ("a cat on the beach at night", "a cat on the beach", "a picture has one place"),
    ("twelve dogs", "four dogs", "twelve: drawn as four, the most that fit"),
    ("a cat, a dog and a rabbit", "a cat and a dog", "'rabbit' left out (a picture holds two kinds of things)"),
    ("a red car that is completely blue", "a red car", "'blue' left out (another color was said)"),
    ("a turquoise car", "a blue car", "turquoise: drawn as blue, the nearest color"),
    ("a cat in an oil painting", "a cat", "no such style is drawn"),
    ("a sleeping dog", "a dog", "'sleeping' left out"),
    ("a cat eating a pizza", "a cat and a pizza", "'eating' left out (actions are not drawn)"),
    ("a sunset", "a palm tree at sunset", "the model draws no empty places"),
    ("a cat on a chair", "a cat above a chair", "the nearest relation that is drawn"),
    ("a cat and justice", "a cat", "'justice' left out"),
    ("a sketch of a blue car", "a sketch of a car", "things have no colors in the style 'sketch'"),
    ("A dog. No, a cat. Actually, make that two cats, and they should be orange.", "two orange cats", "taken back"),
])  # fmt: skip
def test_what_cannot_be_drawn_as_said_is_named(prompt: str, caption: str, says: str):
    reading = READER.read(prompt)
    assert reading.drawn == caption and says in reading.note(), reading.note()


@pytest.mark.parametrize(("prompt", "caption", "says"), [
    ("an eagle", "an owl", "the nearest bird of prey"),
    ("a bird", "a parrot", "one kind of bird"),
])  # fmt: skip
def test_what_the_first_things_lack_is_drawn_as_what_stands_for_it(prompt: str, caption: str, says: str):
    reading = first_things.READER.read(prompt)
    assert reading.drawn == caption and says in reading.note(), reading.note()


def test_what_a_negative_prompt_names_is_left_out():
    assert READER.read("a cat and a dog", "cat").drawn == "a dog"
    assert READER.read("a cat on the beach", "dogs").drawn == "a cat on the beach"
    assert READER.read("a cat", "a cat").refused


def test_only_a_prompt_without_anything_to_draw_is_refused():
    for prompt in ("freedom", "!!!", "", "the loneliness of time"):
        reading = READER.read(prompt)
        assert reading.refused and not reading.drawn and reading.refused.count("“") in (0, 3), prompt
    assert not READER.read("freedom for a cat").refused


def test_long_prompts_are_cut_by_meaning():
    story = "Once upon a time there was a fox. " + "It walked and walked through the years, thinking of its life. " * 60
    assert drawn(story) == "a fox"


def test_a_model_for_free_text_gets_the_prompt_as_it_is():
    reading = PromptReader.from_dict({}).read("A Zebra, in the STYLE of…")
    assert reading.drawn == reading.prompt == "A Zebra, in the STYLE of…" and reading.is_as_said


def test_a_reading_as_json_has_the_fields_of_the_command():
    values = READER.read("a poodle and an anvil").to_dict()
    assert list(values) == ["prompt", "drawn", "spans", "left_out", "replaced", "refused"]
    assert values["replaced"] == [{"text": "poodle", "by": "dog", "why": "the kind of thing that it is"}]
    assert [entry["text"] for entry in values["left_out"]] == ["an anvil"]
    assert json.loads(json.dumps(values)) == values


def test_damaged_tables_are_named(tmp_path: Path):
    (tmp_path / "vocabulary.json").write_text(json.dumps(vocabulary()))
    assert isinstance(PromptReader.load(tmp_path).read("a cat"), PromptReading)
    for broken in ("{", "[]", '{"nouns": {"x": ["dog", "guess"]}}'):
        (tmp_path / "stand_ins.json").write_text(broken)
        with pytest.raises(ValueError, match=r"stand_ins\.json is damaged"):
            PromptReader.load(tmp_path)


def test_long_words_are_not_mended(monkeypatch: pytest.MonkeyPatch):
    """The words one edit away from a text of 9,000 letters take gigabytes."""
    monkeypatch.setattr(word_forms, "one_edit_away", lambda word: pytest.fail(f"{len(word)} letters"))
    assert word_forms.mended("a" * 9000, ["cat"], {"cat"}) == ""
    assert READER.read(f"two cats and a {'x' * 7000}").drawn == "two cats"


@pytest.mark.parametrize(("prompt", "caption"), [
    ("red " * 5000 + "cat", "a red cat"),
    ("(" * 3000 + "cat" + ")" * 3000, "a cat"),
    ("a c\u0301\u0301\u0301at", "a cat"),
    ("\u202ea cat\u202c", "a cat"),
    ("a\x00cat on the \ud800 beach", "a cat on the beach"),
    ("𝐚 𝐜𝐚𝐭 𝔬𝔫 𝓉𝒽𝑒 beach", "a cat on the beach"),
    ("<b>a cat</b><script>alert(1)</script>", "a cat"),
    ("a" * 100_000, ""),
    (" ".join(f"zq{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}xv" for i in range(2000)) + " cat", "a cat"),
], ids=lambda text: text[:12].encode("ascii", "replace").decode())  # fmt: skip
def test_hostile_prompts_are_read_like_others(prompt: str, caption: str):
    reading = READER.read(prompt)
    assert reading.drawn == caption and "".join(span.text for span in reading.spans) == prompt
    assert len(reading.note()) < 3000 and len(reading.refused) < 600


def test_a_wall_that_is_said_again_and_again_is_read():
    assert READER.read("a cat " + "on red " * 5000).scene.groups[0].name == "cat"
