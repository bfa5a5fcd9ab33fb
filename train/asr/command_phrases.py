"""Spoken changes of a picture ("make it blue", "no a cat"), for the corpus of a recognizer: the commands of
speech/spoken_commands.py with the grammar's things, places and colors."""

import numpy as np

from train.scenes.captions import PLACE_PHRASES, article
from train.scenes.scene import COLOURS
from train.scenes.sprites import things

WHOLE = (
    "undo", "undo that", "go back", "start over", "start again", "another one", "one more", "once more", "try again",
    "bigger", "smaller", "make it bigger", "make it smaller", "make them bigger", "make them smaller",
)  # fmt: skip
OF_A_THING = (
    "and {a}", "with {a}", "remove the {name}", "remove the {plural}", "no {a}", "no two {plural}", "add {a}",
    "add two {plural}", "add another {name}", "to the left of {a}", "to the right of {a}", "next to {a}", "under {a}",
    "make the {name} {colour}", "make the {plural} {colour}", "make the {name} bigger", "not {a} {b}", "draw {a}",
    "please draw {a}", "a picture of {a}", "show me {a}",
)  # fmt: skip
OF_A_PLACE = (
    "{place}", "no {place}", "make it {colour}", "make them {colour}", "now {place}", "on a {colour} background",
)  # fmt: skip


def command_phrases(count: int, seed: int) -> list[str]:
    """`count` of them, in lower-case words without punctuation."""
    draw = np.random.default_rng((seed, 53))
    named, places = things(), [phrase for phrases in PLACE_PHRASES.values() for phrase in phrases]

    def one_of(options):
        return options[int(draw.integers(len(options)))]

    phrases = []
    for _ in range(count):
        template = one_of((WHOLE, OF_A_THING, OF_A_THING, OF_A_PLACE)[int(draw.integers(4))])
        thing = one_of(named)
        phrases.append(
            template.format(
                a=article(thing.name), b=article(one_of(named).name), name=thing.name, plural=thing.plural,
                place=one_of(places), colour=one_of(list(COLOURS)),
            )
        )  # fmt: skip
    return phrases
