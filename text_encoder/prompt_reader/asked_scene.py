"""What a prompt asks for, before anything is fitted into a picture."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from text_encoder.prompt_reader import reasons
from text_encoder.prompt_reader.english_phrases import NUMBERS
from text_encoder.prompt_reader.lexicon import Chunk, NounMeaning
from text_encoder.prompt_reader.prompt_reading import AVOIDED, LEFT_OUT


@dataclass
class AskedGroup:
    """Things of one kind. `count` None: several, no number said; `is_vague`: "some", "many"; `merged`: later groups
    whose count was added."""

    noun: NounMeaning
    head: Chunk
    count: int | None = 1
    is_vague: bool = False
    number: Chunk | None = None
    size: Chunk | None = None
    color: Chunk | None = None
    side: Chunk | None = None
    merged: list["AskedGroup"] = field(default_factory=list)


@dataclass
class AskedRelation:
    """`concept` of the group with index `subject` to that with index `target`."""

    concept: str
    subject: int
    target: int
    chunk: Chunk


@dataclass
class AskedBackdrop:
    """A place, time, weather or wall; `color`: one that was said of it; `relation`: "by" or "in" before it."""

    chunk: Chunk
    color: Chunk | None = None
    relation: Chunk | None = None


@dataclass
class Exclusion:
    """A stretch whose things are not drawn, from its first word on: "no", "shaped like", "for my".

    `has_noun`: a noun of it was read, so that where the scene is and how it is drawn are said of all again: "a cat
    without a hat on the beach".
    """

    chunk: Chunk
    has_noun: bool = False

    @property
    def ends_before_place(self) -> bool:
        return self.has_noun or self.chunk.is_a("dedication", "thought")

    @property
    def fate(self) -> tuple[str, str]:
        """(status, why) of what it excludes."""
        if self.chunk.is_a("comparison", "likeness"):
            return LEFT_OUT, reasons.COMPARED
        if self.chunk.is_a("dedication", "thought"):
            return LEFT_OUT, reasons.DEDICATED
        return AVOIDED, reasons.NOT_WANTED


@dataclass
class UnwantedParts:
    """What a text says must not be drawn, by its phrases."""

    groups: list[AskedGroup] = field(default_factory=list)
    backdrops: list[Chunk] = field(default_factory=list)
    styles: list[Chunk] = field(default_factory=list)
    colors: list[Chunk] = field(default_factory=list)

    def phrases(self) -> Iterator[Chunk]:
        for group in self.groups:
            yield from (chunk for chunk in (group.head, group.size, group.color) if chunk is not None)
        yield from (*self.backdrops, *self.styles, *self.colors)


@dataclass
class AskedScene:
    """`unwanted`: what must not be drawn. `loose_colors`: colors that were said of no thing.
    `joins`: index of a group -> the word before it, such as "with".
    """

    groups: list[AskedGroup] = field(default_factory=list)
    relations: list[AskedRelation] = field(default_factory=list)
    backdrops: list[AskedBackdrop] = field(default_factory=list)
    styles: list[Chunk] = field(default_factory=list)
    unwanted: UnwantedParts = field(default_factory=UnwantedParts)
    loose_colors: list[Chunk] = field(default_factory=list)
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

    @property
    def is_open(self) -> bool:
        """Whether something was said that waits for a noun."""
        return any(True for _ in self.chunks())

    def chunks(self) -> Iterator[Chunk]:
        return (c for c in (self.article, self.number, self.size, self.color, *self.others) if c is not None)


def number_of(text: str) -> int:
    """The number that a number phrase says."""
    if text in NUMBERS:
        return NUMBERS[text]
    digits = "".join(c for c in text.partition(".")[0] if c.isdigit())
    return int(digits[:9]) if digits else 1
