"""Groups of things as a prompt asks for them: made from a noun phrase, found again, counted anew and taken back."""

from collections.abc import Iterable, Sequence

from text_encoder.prompt_reader import reasons
from text_encoder.prompt_reader.asked_scene import AskedGroup, AskedRelation, AskedScene, NounPhrase, number_of
from text_encoder.prompt_reader.english_phrases import VAGUE
from text_encoder.prompt_reader.lexicon import Chunk, NounMeaning
from text_encoder.prompt_reader.prompt_reading import LEFT_OUT
from text_encoder.prompt_reader.word_forms import singulars

CONTAINERS = frozenset(
    "bowl cup glass basket box vase plate jar bottle mug pot bag bucket crate dish tray truck".split()
)
MENTIONED = 100  # groups among which "the house" is looked for


def add_group(scene: AskedScene, noun: NounMeaning, phrase: NounPhrase, head: Chunk) -> None:
    """Add the things that a noun phrase asks for. What was not wanted is wanted again: "not three cats, two cats"."""
    for chunk in (phrase.article, phrase.number):
        if chunk is not None:
            chunk.head = head
    if phrase.number is None:
        count, is_vague = (None if noun.plural or phrase.several else 1), phrase.several
    elif phrase.number.text == "some" and not noun.plural:
        count, is_vague = 1, True
    else:
        count, is_vague = number_of(phrase.number.text), phrase.number.text in VAGUE
    scene.groups.append(AskedGroup(noun, head, count, is_vague, phrase.number, phrase.size, phrase.color))
    if phrase.color is None:
        word, not_wanted = {head.text, *singulars(head.text)}, scene.unwanted.groups
        scene.unwanted.groups = [g for g in not_wanted if not word & {g.head.text, *singulars(g.head.text)}]


def recount(group: AskedGroup, number: Chunk) -> None:
    """Give a group another number: "make that two"."""
    group.number, group.count, group.is_vague = number, number_of(number.text), False
    number.head = group.head


def mentioned_group(groups: Sequence[AskedGroup], last: int, phrase: NounPhrase, head: Chunk) -> int | None:
    """The index of the group that "the house" speaks of, where it was named before; None for new things. An emoji
    behind its word is no new thing either. `last`: index of the group that was named last."""
    noun = head.meanings["thing"]
    assert isinstance(noun, NounMeaning)
    if head.emoji >= 0 and groups and groups[last].head.emoji < 0 and groups[last].noun.name == noun.name:
        return last % len(groups)
    definite = phrase.article is not None and phrase.article.text not in ("a", "an", "a single")
    if not definite or phrase.number is not None:
        return None
    for index, group in enumerate(groups[:MENTIONED]):
        same_color = phrase.color is None or (group.color is not None and group.color.text == phrase.color.text)
        if group.noun.name == noun.name and same_color:
            return index
    return None


def share_fate(head: Chunk, phrase: NounPhrase, with_article: bool = True) -> None:
    """Mark what was said of a noun as the noun is marked."""
    for chunk in phrase.chunks():
        if with_article or not chunk.is_a("article"):
            chunk.mark(head.status, head.why)
        chunk.head = head


def leave_out_qualities(chunks: Iterable[Chunk]) -> None:
    """Mark what was said of a noun and no drawing shows."""
    for chunk in chunks:
        of_color = reasons.COLORS_NOTHING if chunk.is_a("color") else reasons.QUALITY
        chunk.mark(LEFT_OUT, reasons.UNKNOWN if chunk.is_a("unknown") else of_color)


def put_inside(scene: AskedScene, index: int, of: Chunk) -> None:
    """ "a bowl of apples": the group `index` is inside the one before, where that is a container."""
    holder = scene.groups[index - 1] if index else None
    if holder is not None and holder.head.text.removesuffix("s") in CONTAINERS:
        scene.relations.append(AskedRelation("inside", index, index - 1, of))


def take_back_group(scene: AskedScene) -> int:
    """Leave out the last group of a scene with its relations; returns the index of the one that is last then."""
    group = scene.groups.pop()
    gone = len(scene.groups)
    scene.relations = [r for r in scene.relations if gone not in (r.subject, r.target)]
    for chunk in (group.head, group.color, group.size):
        if chunk is not None:
            chunk.mark(LEFT_OUT, reasons.TAKEN_BACK)
    return gone - 1
