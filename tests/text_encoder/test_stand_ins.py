"""The stand-ins of the bundled model: pairs that a person looked at, and the laws of the table."""

import csv
import json
from pathlib import Path

from text_encoder.prompt_reader import PromptReader, StandInTable

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "weights" / "scenes"
READER = PromptReader.load(FOLDER)
GENEVAL_THINGS = (Path(__file__).with_name("geneval_things.txt")).read_text("utf-8").split("\n")[:80]


def test_nouns_are_drawn_as_what_a_person_chose_or_left_out():
    with Path(__file__).with_name("stand_in_pairs.tsv").open(encoding="utf-8", newline="") as file:
        pairs = [(row["noun"], row["drawn as"]) for row in csv.DictReader(file, delimiter="\t")]
    assert len(pairs) >= 440
    for noun, name in pairs:
        scene = READER.read(f"a cat and a {noun}").scene
        others = [group.name for group in scene.groups if group.name != "cat"]
        assert others in ([name], [] if name in ("", "cat") else [name]), (noun, others)


def test_every_stand_in_is_a_thing_of_the_vocabulary_and_no_known_word_has_one():
    names = {thing.name for thing in READER.vocabulary.objects}
    known = {word for thing in READER.vocabulary.objects for word in (thing.name, *thing.synonyms)}
    table = StandInTable.load(FOLDER)
    assert {entry.name for entry in table.nouns.values() if entry} <= names and not table.nouns.keys() & known
    assert {name for near in table.near.values() for name in near} <= names
    things = json.loads((FOLDER / "stand_ins.json").read_text("utf-8"))["things"]
    assert things == [thing.name for thing in READER.vocabulary.objects]


def test_a_stand_in_is_named_with_its_kind():
    assert "eagle: drawn as owl, the nearest bird of prey" in READER.read("an eagle").note()
    assert READER.alternatives(READER.read("a piano and a cat").left_out[0])
    assert not READER.alternatives(READER.read("a cat on the beach at night").left_out[0]), "no thing stands for a time"


def test_a_distant_stand_in_is_drawn_only_where_nothing_else_can_be():
    alone = READER.read("two forks")
    assert alone.drawn == "two teapots" and "as nothing else of the prompt can be drawn" in alone.note()
    assert READER.read("a fork and a cat").drawn == "a cat"
    assert READER.read("a fork at sunset").scene.groups[0].name == "teapot"
    assert READER.read("a cat without a fork").note() == "without 'a fork', as asked"
    assert READER.read("a woman").refused, "people have no stand-in"


def test_few_of_the_80_things_of_geneval_are_refused():
    """GenEval's 553 prompts name 80 things alone, in number, in color or in pairs."""
    refused = [name for name in GENEVAL_THINGS if READER.read(f"a photo of a {name}").refused]
    assert len(refused) <= 12, refused


def test_who_or_what_is_only_thought_of_is_not_drawn():
    assert READER.read("a bouquet of pink roses for my cat").drawn == "three pink roses"
    assert READER.read("a picture of my cat").drawn == "a cat"
    assert READER.read("a birthday cake for my dog on the beach").drawn == "a birthday cake on the beach"
    assert READER.read("a big cat for my mum on the beach").drawn == "a big cat on the beach"
    assert READER.read("a cat for my mum in pixel art").scene.style == "pixel art"
    assert READER.read("for my dog a cat").scene.groups, "nothing is named before"
    assert READER.read("i was thinking about a cat on the beach").drawn == "a cat on the beach"
    assert "'dog' left out (it is only thought of)" in READER.read("a fox that thought about a dog").note()


def test_two_words_with_one_stand_in_are_two_of_it():
    assert READER.read("a crow and a robin").drawn == "two parrots"


def test_a_big_cat_is_a_cat():
    assert READER.read("a big cat and a small dog").drawn == "a big cat and a small dog"
