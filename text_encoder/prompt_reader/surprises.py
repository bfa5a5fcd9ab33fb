"""Prompts at random that a model draws as they are said: for "Surprise me"."""

import random

from text_encoder.prompt_reader.caption_writer import with_indefinite_article
from text_encoder.prompt_reader.reader import PromptReader
from text_encoder.prompt_reader.word_forms import plural

TRIES = 20  # for each prompt that is wanted


def surprise_prompts(reader: PromptReader, number: int, seed: int) -> list[str]:
    """Up to so many different prompts from the words of the reader's vocabulary, each drawn as it is said.

    A model for free text has none.
    """
    if reader.is_free_text:
        return []
    random_ = random.Random(seed)
    found: dict[str, None] = {}
    for _ in range(number * TRIES):
        prompt = _prompt(reader, random_)
        if reader.read(prompt).is_as_said:
            found[prompt] = None
        if len(found) == number:
            break
    return list(found)


def _prompt(reader: PromptReader, random_: random.Random) -> str:
    """Things, a relation between two, a place or a style: few of them at once."""
    vocabulary = reader.vocabulary
    named = [thing for thing in vocabulary.objects if thing.plural != thing.name]  # "a scissors" is no English
    things = random_.sample(named, min(2, len(named)))
    color = f"{random_.choice(vocabulary.colours)} " if vocabulary.colours and random_.random() < 0.4 else ""
    kind = random_.random()
    if kind < 0.35 and len(things) == 2:
        relation = random_.choice([*vocabulary.relations, "and", "next to"])
        said = f"{with_indefinite_article(color + things[0].name)} {relation} {with_indefinite_article(things[1].name)}"
    elif kind < 0.65:
        said = f"{random_.choice(('two', 'three'))} {color}{things[0].plural or plural(things[0].name)}"
    else:
        said = with_indefinite_article(f"{color}{things[0].name}")
    walls = {*vocabulary.colours, color.strip()}
    places = [place.say for place in vocabulary.backgrounds if place.say and place.name not in walls]
    if places and random_.random() < 0.7:
        return f"{said} {random_.choice(random_.choice(places))}"
    return said
