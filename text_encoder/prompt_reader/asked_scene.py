"""What a prompt asks for, before anything is fitted into a picture; and why words of a prompt are not drawn."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from text_encoder.prompt_reader.english_phrases import NUMBERS
from text_encoder.prompt_reader.lexicon import Chunk, NounMeaning

NO_DRAWING = "no drawing of it is known"
MODIFIER = "it only describes the next word"
ACTION = "actions are not drawn"
QUALITY = "such qualities are not drawn"
UNKNOWN = "the word is not known"
SECOND_COLOR = "another color was said"
COLORS_NOTHING = "it colors nothing that is drawn"
COUNTS_NOTHING = "it counts nothing that is drawn"
COMPARED = "a thing is only compared to it"
DEDICATED = "it is only thought of"
TAKEN_BACK = "it was taken back"
NOT_WANTED = "not drawn, as asked"


@dataclass
class AskedGroup:
    """Things of one kind. `count` None: several, no number said; `is_vague`: "some", "many"."""

    noun: NounMeaning
    head: Chunk
    count: int | None = 1
    is_vague: bool = False
    number: Chunk | None = None
    size: Chunk | None = None
    color: Chunk | None = None
    side: Chunk | None = None


@dataclass
class AskedRelation:
    """`concept` of the group with index `subject` to that with index `target`."""

    concept: str
    subject: int
    target: int
    chunk: Chunk


@dataclass
class AskedBackdrop:
    """A place, time, weather or wall; `color`: one that was said of it."""

    chunk: Chunk
    color: Chunk | None = None


@dataclass
class AskedScene:
    """`avoided`: names of things that are not wanted.
    `joins`: index of a group -> the word before it, such as "with".
    """

    groups: list[AskedGroup] = field(default_factory=list)
    relations: list[AskedRelation] = field(default_factory=list)
    backdrops: list[AskedBackdrop] = field(default_factory=list)
    styles: list[Chunk] = field(default_factory=list)
    avoided: set[str] = field(default_factory=set)
    joins: dict[int, str] = field(default_factory=dict)


@dataclass
class NounPhrase:
    """What stands before a noun: `others` are qualities that no drawing shows; `several`: "a herd of"."""

    article: Chunk | None = None
    number: Chunk | None = None
    size: Chunk | None = None
    color: Chunk | None = None
    others: list[Chunk] = field(default_factory=list)
    several: bool = False

    def chunks(self) -> Iterator[Chunk]:
        return (c for c in (self.article, self.number, self.size, self.color, *self.others) if c is not None)


def number_of(text: str) -> int:
    """The number that a number phrase says."""
    if text in NUMBERS:
        return NUMBERS[text]
    digits = "".join(c for c in text.partition(".")[0] if c.isdigit())
    return int(digits[:9]) if digits else 1
