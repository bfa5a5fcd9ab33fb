"""The stand-ins of the bundled model: pairs that a person looked at, and the laws of the table."""

import csv
import json
from pathlib import Path

from text_encoder.prompt_reader import PromptReader, StandInTable

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "weights" / "scenes"
READER = PromptReader.load(FOLDER)


def test_nouns_are_drawn_as_what_a_person_chose_or_left_out():
    with Path(__file__).with_name("stand_in_pairs.tsv").open(encoding="utf-8", newline="") as file:
        pairs = [(row["noun"], row["drawn as"]) for row in csv.DictReader(file, delimiter="\t")]
    assert len(pairs) > 390
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
    assert READER.alternatives(READER.read("a doctor and a cat").left_out[0])
