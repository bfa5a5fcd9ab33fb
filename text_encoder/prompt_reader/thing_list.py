"""What a model can draw, in groups, with words to put into a prompt: for the list on the Draw page."""

from dataclasses import dataclass

from text_encoder.prompt_reader.caption_writer import suggested_words
from text_encoder.prompt_reader.prompt_vocabulary import PromptVocabulary, VocabularyEntry

THINGS_PICTURE = "things.webp"  # in a model folder: a square tile for each thing, in the order of the vocabulary
COLUMNS = 12  # tiles of a row


@dataclass(frozen=True)
class VocabularyGroup:
    """`items`: (label, other words for it, words for the prompt). `is_prompt`: the words are a prompt of their own, not
    an addition to one."""

    title: str
    items: tuple[tuple[str, str, str], ...]
    is_prompt: bool = False


def vocabulary_groups(vocabulary: PromptVocabulary) -> list[VocabularyGroup]:
    """Things first, in the order of the vocabulary; groups without items are left out."""
    things = [(t.name, ", ".join(t.synonyms), suggested_words(t.name)) for t in vocabulary.objects]
    walls = {str(color) for color in vocabulary.colours}
    places = [_added(place) for place in vocabulary.backgrounds if place.name not in walls]
    places += [_added(place) for place in vocabulary.backgrounds if place.name in walls]
    styles = [_added(style) for style in vocabulary.styles]
    plain = [
        ("How many", vocabulary.counts),
        ("Colors of things", vocabulary.colours),
        ("Where one thing is beside another", vocabulary.relations),
    ]
    groups = [
        VocabularyGroup("Things", tuple(things), is_prompt=True),
        VocabularyGroup("Places", tuple(places)),
        VocabularyGroup("Styles", tuple(styles)),
        *(VocabularyGroup(title, tuple((str(n), "", "") for n in names)) for title, names in plain),
    ]
    return [group for group in groups if group.items]


def _added(entry: VocabularyEntry) -> tuple[str, str, str]:
    """An item whose words can stand at the end of a prompt: not "a sketch of", but "as a sketch"."""
    ways = list(entry.say or (entry.name,))
    words = next((way for way in ways if not way.endswith(" of")), ways[0])
    return words, ", ".join(way for way in ways if way != words), words
