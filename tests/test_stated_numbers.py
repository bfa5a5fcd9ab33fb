"""Texts that say how many things the bundled models know say it of the vocabulary that ships."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WORLD = r"(\d+) things, (\d+) places, (\d+) styles(?:,| and) (\d+) colors"
STATED = {
    "README.md": WORLD,
    "docs/cli.md": WORLD,
    "weights/scenes/README.md": r"up to four things out of (\d+)",
    "weights/scenes-reader/README.md": r"which of (\d+) things",
}
VOCABULARY = json.loads((ROOT / "weights" / "scenes" / "vocabulary.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", STATED)
def test_texts_state_the_numbers_of_the_bundled_vocabulary(name: str):
    numbers = [len(VOCABULARY[part]) for part in ("objects", "backgrounds", "styles", "colours")]
    found = re.findall(STATED[name], (ROOT / name).read_text(encoding="utf-8"))
    assert len(found) == 1, f"{name} states it {len(found)} times as {STATED[name]}"
    stated = [int(number) for number in ([found[0]] if isinstance(found[0], str) else found[0])]
    assert stated == numbers[: len(stated)], f"{name}: write {numbers[: len(stated)]}"


def test_the_bundled_judge_knows_the_bundled_things():
    config = json.loads((ROOT / "weights" / "scenes-reader" / "config.json").read_text(encoding="utf-8"))
    assert config["config"]["things"] == len(VOCABULARY["objects"])
