"""The language around the things of a prompt: phrases that need no drawing, and those that count or relate.

The tables are data beside this file (words/phrases.txt). A phrase is written as `tokenize_prompt` writes it: in lower
case, without hyphens and quotation marks.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

Meaning = tuple[str, str]  # kind, value

WORDS = Path(__file__).with_name("words")
NUMBERS = {
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "eleven": 11,
    "twelve": 12,
    "thirteen": 13,
    "fourteen": 14,
    "fifteen": 15,
    "sixteen": 16,
    "seventeen": 17,
    "eighteen": 18,
    "nineteen": 19,
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "hundred": 100,
    "a hundred": 100,
    "one hundred": 100,
    "thousand": 1000,
    "a thousand": 1000,
    "a million": 1000000,
    "million": 1000000,
    "another": 1,
    "a pair of": 2,
    "pair of": 2,
    "pairs of": 2,
    "a couple of": 2,
    "couple of": 2,
    "a couple": 2,
    "both": 2,
    "twin": 2,
    "double": 2,
    "a trio of": 3,
    "trio of": 3,
    "triple": 3,
    "a few": 3,
    "few": 3,
    "several": 3,
    "some": 3,
    "multiple": 3,
    "a group of": 3,
    "a bunch of": 3,
    "many": 4,
    "a lot of": 4,
    "lots of": 4,
    "plenty of": 4,
    "numerous": 4,
    "countless": 4,
    "loads of": 4,
    "tons of": 4,
    "dozens of": 12,
    "hundreds of": 100,
    "thousands of": 1000,
    "a dozen": 12,
    "dozen": 12,
    "half a dozen": 6,
    "half dozen": 6,
    "two dozen": 24,
}
VAGUE = frozenset(  # numbers that name no number
    "a few|few|several|some|multiple|a group of|a bunch of|many|a lot of|lots of|plenty of|numerous|countless"
    "|loads of|tons of".split("|")
)
GROUPS = frozenset(  # amounts that are several
    "group herd flock pack pile heap row collection family crowd swarm school bunch team gang pride litter stack lot"
    " lots loads tons plenty handful number variety set array selection bouquet".split()
)


def split_table(text: str) -> list[str]:
    """The phrases of a text with commas between them."""
    return [phrase for phrase in (" ".join(part.split()) for part in text.split(",")) if phrase]


def table_lines(name: str) -> list[str]:
    """The lines of a table of words/, without remarks."""
    lines = (WORDS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _phrases() -> Iterator[tuple[str, str, str]]:
    """(phrase, kind, value) in the order of the table."""
    for line in table_lines("phrases"):
        key, _, phrases = line.partition(":")
        kind, _, value = key.partition(" ")
        for phrase in split_table(phrases):
            yield phrase, kind, value


@cache
def phrase_meanings() -> dict[tuple[str, ...], Meaning]:
    """What each phrase means, by its words."""
    meanings = {tuple(phrase.split()): (kind, value) for phrase, kind, value in _phrases()}
    return meanings | {tuple(phrase.split()): ("number", phrase) for phrase in NUMBERS}
