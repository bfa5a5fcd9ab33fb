"""Accuracy of the prompt reader: its scenes against readings that people wrote.

    maskgil eval reading [--model scenes]

The prompts lie in train/eval/prompts: half of them were written blind, without knowledge of the vocabulary or the code.
A reading is right when everything that was asked for is drawn as a right thing in the right number, color and size, or
is named as replaced or left out; when nothing else is drawn; and when what the model can draw is not left out without
need. A stand-in counts as named here, and as wrong in every score of pictures.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from text_encoder.prompt_reader import PromptReader, PromptReading, ReadGroup
from text_encoder.prompt_reader.word_forms import plural

PROMPTS = Path(__file__).with_name("prompts")
FILES = ("reading_blind.jsonl", "reading_informed.jsonl")
SIZES = {"big": "large", "small": "small"}
CONVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
DAYLIGHT = frozenset("day daytime afternoon noon sunny summer spring".split())
LITTLE = frozenset("a an the of in on at with and or to is it what how like".split())


@dataclass(frozen=True)
class ReadingCheck:
    """One prompt's reading and its errors; none: it is right."""

    level: str
    reading: PromptReading
    problems: tuple[str, ...]


class ReadingChecker:
    """Compares readings of one reader with the expected ones."""

    def __init__(self, reader: PromptReader):
        self.reader = reader

    def check(self, expected: dict[str, Any]) -> ReadingCheck:
        """`expected`: a line of a prompts file (train/eval/prompts/README.md)."""
        reading = self.reader.read(expected["prompt"])
        problems = [*self._things(expected, reading), *self._others(expected, reading), *_unnamed(expected, reading)]
        problems += self._relations(expected, reading)
        return ReadingCheck(expected["level"], reading, tuple(problems))

    def names(self, nouns: Iterable[str]) -> set[str]:
        """Names of the vocabulary for nouns, by the reader's own tables."""
        return {group.name for noun in nouns for group in self._drawn_alone(noun)}

    def _drawn_alone(self, noun: str) -> tuple[ReadGroup, ...]:
        reading = self.reader.read(noun)
        return reading.scene.groups if not reading.scene.backgrounds else ()

    def _things(self, expected: dict[str, Any], reading: PromptReading) -> Iterable[str]:
        vocabulary, drawn = self.reader.vocabulary, reading.scene.groups
        full = len(drawn) >= vocabulary.max_kinds or sum(g.count for g in drawn) >= vocabulary.max_things
        for thing in expected["things"]:
            nouns = [thing["noun"], *thing.get("accept", ())]
            right = self.names(nouns)
            groups = [group for group in drawn if group.name in right]
            if not groups:
                if not self._is_noticed(thing["noun"], reading):
                    yield f"{thing['noun']} is neither drawn nor named"
                elif self.names(nouns[:1]) and not full and not reading.scene.groups:
                    yield f"{thing['noun']} is left out although it can be drawn"
                continue
            yield from _count_problem(expected["things"], thing, groups, reading, self)
            if (color := thing.get("color")) and not any(color in (g.color, *g.asked.split()) for g in groups):
                if not _is_named(color, reading):
                    yield f"{thing['noun']} is not {color}, and nothing says so"
            if (size := SIZES.get(thing.get("size", ""))) and not any(group.size == size for group in groups):
                yield f"{thing['noun']} is not {size}"

    def _is_noticed(self, noun: str, reading: PromptReading) -> bool:
        """Whether a noun is named as left out or replaced, or is drawn as a place; an emoji by its words."""
        drawn = (span.text for span in reading.spans if span.status == "drawn")
        signs = (self.reader.stand_ins.emoji.get(sign, "") for span in reading.left_out for sign in span.text)
        return _is_named(noun, reading) or _is_in(noun, " ".join([*drawn, *signs]))

    def _others(self, expected: dict[str, Any], reading: PromptReading) -> Iterable[str]:
        asked = self.names(n for thing in expected["things"] for n in (thing["noun"], *thing.get("accept", ())))
        asked |= self.names(expected[kind] for kind in ("place", "time", "weather") if expected.get(kind))
        avoided = self.names(expected["avoid"]) - asked
        companion = bool(reading.scene.backgrounds) and len(reading.scene.groups) == 1
        for group in reading.scene.groups:
            if group.name in avoided:
                yield f"{group.name} is drawn, which was to be avoided"
            elif group.name not in asked and not (companion and not group.asked):
                yield f"{group.name} is drawn, which nobody asked for"

    def _relations(self, expected: dict[str, Any], reading: PromptReading) -> Iterable[str]:
        if len(reading.scene.groups) < 2:
            return
        first, second = (group.name for group in reading.scene.groups[:2])
        for subject, relation, target in expected["relations"]:
            if relation not in CONVERSE:
                continue
            subjects, targets = self.names([subject]), self.names([target])
            told = reading.scene.relation
            if first in subjects and second in targets and told != relation:
                yield f"{subject} is not {relation} {target}"
            if second in subjects and first in targets and CONVERSE.get(told) != relation:
                yield f"{subject} is not {relation} {target}"


def _count_problem(
    things: list[dict[str, Any]], thing: dict[str, Any], groups: list[ReadGroup], reading: PromptReading,
    checker: ReadingChecker,
) -> Iterable[str]:  # fmt: skip
    right = checker.names([thing["noun"], *thing.get("accept", ())])
    alike = [other for other in things if right & checker.names([other["noun"], *other.get("accept", ())])]
    counts = [other["count"] for other in alike]
    drawn = sum(group.count for group in groups)
    room = sum(group.count for group in reading.scene.groups) >= checker.reader.vocabulary.max_things
    limited = room or any("most that fit" in span.why for span in reading.replaced) or len(reading.left_out) > 0
    if "some" in counts:
        if drawn < 2 and not limited and plural(thing["noun"]) in reading.prompt.lower():
            yield f"one {thing['noun']} is drawn and several were asked for"
    elif drawn != sum(counts) and not (limited and drawn < sum(counts)):
        yield f"{drawn} of {thing['noun']} instead of {sum(counts)}"


def _words(text: str) -> list[str]:
    return [word for word in "".join(c.lower() if c.isalnum() else " " for c in text).split() if word not in LITTLE]


def _is_named(text: str, reading: PromptReading) -> bool:
    """Whether a word of the text, or a form of it, stands in what is replaced or left out."""
    return _is_in(text, " ".join(span.text for span in (*reading.left_out, *reading.replaced)))


def _is_in(text: str, told: str) -> bool:
    """Whether a word of a text, or a form of it, is among the words told."""
    return any(_is_form(word, other) for word in _words(text) for other in _words(told))


def _is_form(word: str, other: str) -> bool:
    return word == other or (len(word) > 2 < len(other) and (word[:4] == other[:4] or word in other))


def _unnamed(expected: dict[str, Any], reading: PromptReading) -> Iterable[str]:
    """What can be drawn by no model and is not named, and places, times and styles that went unnoticed."""
    for text in expected["not_drawable"]:
        if not _is_named(text, reading):
            yield f"'{text}' is not named as left out"
    noticed = " ".join(span.text for span in reading.spans if span.status != "language")
    for kind in ("place", "time", "weather", "style"):
        words = _words(expected.get(kind, ""))
        if words and not DAYLIGHT & set(words) and not _is_in(expected[kind], noticed):
            yield f"{kind} '{expected[kind]}' went unnoticed"


def load_expected(names: Iterable[str] = FILES) -> list[dict[str, Any]]:
    """The lines of prompts files."""
    lines = [line for name in names for line in (PROMPTS / name).read_text(encoding="utf-8").splitlines()]
    return [json.loads(line) for line in lines]


def evaluate_reading(model: str = "scenes", show: bool = False) -> None:
    """Print how many prompts are read right, and how much of them is replaced or left out.

    Args:
        model: A bundled model by name, or a model folder with a vocabulary.
        show: Print every prompt that is read wrongly, and why.
    """
    from maskgil.model_folder import weights_folder

    folder = Path(model) if Path(model).is_dir() else weights_folder() / model
    if not (folder / "vocabulary.json").is_file():
        raise ValueError(f"{model} has no vocabulary.json: give a model that knows a list of words")
    checker = ReadingChecker(PromptReader.load(folder))
    print("| prompts | read right | things drawn as said | replaced | left out | refused |")
    print("|---|---|---|---|---|---|")
    for name in FILES:
        checks = [checker.check(expected) for expected in load_expected([name])]
        print(_row(name.removesuffix(".jsonl"), checks))
        if show:
            for check in checks:
                if check.problems:
                    print(f"  {check.reading.prompt} -> {check.reading.drawn}: {'; '.join(check.problems)}")
    print(_row("together", [checker.check(expected) for expected in load_expected()]))


def _row(label: str, checks: list[ReadingCheck]) -> str:
    """A row of the table; shares of all stretches that speak of something to draw."""
    right = sum(not check.problems for check in checks)
    fates = Counter(span.status for check in checks for span in check.reading.spans if span.status != "language")
    total = fates.total() or 1
    shares = " | ".join(f"{100 * fates[status] / total:.1f}%" for status in ("drawn", "replaced", "left_out"))
    refused = sum(bool(check.reading.refused) for check in checks)
    return f"| {label} ({len(checks)}) | {100 * right / len(checks):.1f}% ({right}) | {shares} | {refused} |"
