"""The caption of a scene, in the words that the text encoder was trained on."""

from text_encoder.prompt_reader.fitted_scene import JOINS, NUMBER_WORDS, FittedScene
from text_encoder.prompt_reader.prompt_reading import ReadGroup
from text_encoder.prompt_reader.word_forms import PLURAL_ONLY

OTHER_SIDE = {"left of": ("on the left", "on the right"), "right of": ("on the right", "on the left")}
BEFORE = ("of",)  # the last word of a style's wording that stands before the things


def with_indefinite_article(phrase: str) -> str:
    """ "an apple", "a unicorn": by sound, not by letter."""
    vowel = phrase[:1] in "aeio" or (phrase[:1] == "u" and not phrase.startswith(("uni", "ufo", "use")))
    return ("an " if vowel else "a ") + phrase


def suggested_words(name: str) -> str:
    """A thing as a person would ask for it: "an apple", "scissors"."""
    return name if name in PLURAL_ONLY else with_indefinite_article(name)


def group_words(group: ReadGroup, number: str = "", size: str = "") -> str:
    """ "two small blue cats", "an apple"."""
    noun = " ".join(part for part in (size, group.color, group.said or group.name) if part)
    if number:
        return f"{number} {noun}"
    if group.count == 1:
        return with_indefinite_article(noun)
    return f"{NUMBER_WORDS[group.count] if group.count < len(NUMBER_WORDS) else group.count} {noun}"


def things_words(fitted: FittedScene) -> str:
    """The groups with their relation."""
    parts = zip(fitted.groups, fitted.numbers, fitted.sizes, strict=True)
    phrases = [group_words(group, number, size) for group, number, size in parts]
    if fitted.swapped and len(phrases) > 1:
        phrases[:2] = phrases[1::-1]
    if len(phrases) < 2:
        return "".join(phrases)
    if fitted.sides:
        sides = OTHER_SIDE[fitted.relation]
        head = f"{phrases[0]} {sides[0]} and {phrases[1]} {sides[1]}"
    else:
        join = fitted.relation_text or (fitted.join if fitted.join in JOINS else "and")
        head = f"{phrases[0]} {join} {phrases[1]}"
    return (
        " and ".join([head, *phrases[2:]])
        if len(phrases) < 4
        else ", ".join([head, *phrases[2:-1]]) + f" and {phrases[-1]}"
    )


def write_caption(fitted: FittedScene) -> str:
    """One sentence of all that is drawn, its parts in the order of the prompt; empty for no things."""
    if not fitted.groups:
        return ""
    what = things_words(fitted)
    first = min(fitted.starts)
    before = [wording for _, wording, start in fitted.backgrounds if start < first]
    after = [(start, wording) for _, wording, start in fitted.backgrounds if start >= first]
    if fitted.style is not None:
        _, wording, start = fitted.style
        if wording.split()[-1] in BEFORE:
            what = f"{wording} {what}"
        else:
            after.append((start, wording))
    return " ".join([*before, what, *(wording for _, wording in sorted(after))])
