"""Stand-ins of the bundled model and of the first 111 things: pairs that a person looked at, and laws of the table."""

import csv
import json
from pathlib import Path

import first_things
import pytest

from text_encoder.prompt_reader import PromptReader, StandInTable

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "weights" / "scenes"
READER = PromptReader.load(FOLDER)
GENEVAL_THINGS = (Path(__file__).with_name("geneval_things.txt")).read_text("utf-8").split("\n")[:80]


FIRST = first_things.READER
FOLDERS = {"bundled": FOLDER, "first": first_things.FOLDER}


def pairs_of(things: int) -> dict[str, str]:
    """Noun -> what it is drawn as ("": left out) where `things` are known; a noun has another row where more are."""
    with Path(__file__).with_name("stand_in_pairs.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    rows = sorted((row for row in rows if int(row["from things"]) <= things), key=lambda row: int(row["from things"]))
    return {row["noun"]: row["drawn as"] for row in rows}


@pytest.mark.parametrize("reader", [READER, FIRST], ids=FOLDERS)
def test_nouns_are_drawn_as_what_a_person_chose_or_left_out(reader: PromptReader):
    pairs = pairs_of(len(reader.vocabulary.objects))
    assert len(pairs) >= 440
    for noun, name in pairs.items():
        scene = reader.read(f"a cat and a {noun}").scene
        others = [group.name for group in scene.groups if group.name != "cat"]
        assert others in ([name], [] if name in ("", "cat") else [name]), (noun, others)


def test_more_things_change_some_pairs_and_no_others():
    few, many = pairs_of(111), pairs_of(175)
    changed = {noun for noun in few if few[noun] != many[noun]}
    assert few.keys() == many.keys() and len(changed) == 79 and many["eagle"] == "eagle" and few["eagle"] == "owl"


@pytest.mark.parametrize("folder", FOLDERS.values(), ids=FOLDERS)
def test_every_stand_in_is_a_thing_of_the_vocabulary_and_no_known_word_has_one(folder: Path):
    objects = PromptReader.load(folder).vocabulary.objects
    names = {thing.name for thing in objects}
    known = {word for thing in objects for word in (thing.name, *thing.synonyms)}
    table = StandInTable.load(folder)
    assert {entry.name for entry in table.nouns.values() if entry} <= names and not table.nouns.keys() & known
    assert {name for near in table.near.values() for name in near} <= names
    things = json.loads((folder / "stand_ins.json").read_text("utf-8"))["things"]
    assert things == [thing.name for thing in objects]


def test_a_stand_in_is_named_with_its_kind():
    assert "eagle: drawn as owl, the nearest bird of prey" in FIRST.read("an eagle").note()
    assert FIRST.alternatives(FIRST.read("a piano and a cat").left_out[0])
    assert not FIRST.alternatives(FIRST.read("a cat on the beach at night").left_out[0]), "no thing stands for a time"


def test_a_distant_stand_in_is_drawn_only_where_nothing_else_can_be():
    alone = FIRST.read("two forks")
    assert alone.drawn == "two teapots" and "as nothing else of the prompt can be drawn" in alone.note()
    assert FIRST.read("a fork and a cat").drawn == "a cat"
    assert FIRST.read("a fork at sunset").scene.groups[0].name == "teapot"
    assert FIRST.read("a cat without a fork").note() == "without 'a fork', as asked"
    assert FIRST.read("a woman").refused, "people have no stand-in"


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
    assert FIRST.read("a crow and a robin").drawn == "two parrots"


def test_a_big_cat_is_a_cat():
    assert READER.read("a big cat and a small dog").drawn == "a big cat and a small dog"
