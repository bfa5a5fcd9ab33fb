"""What must not be drawn, in the names of one vocabulary: of a negative prompt, and of "without" in a prompt."""

from dataclasses import dataclass, field

from text_encoder.prompt_reader.asked_scene import AskedGroup
from text_encoder.prompt_reader.word_forms import plural, singulars

GENERAL = ("example",)  # a bird that is not wanted is no parrot either
NARROW = ("synonym", "kind")  # a poodle is a dog


@dataclass(frozen=True)
class UnwantedThing:
    """Things that must not be drawn; `color`, `size`: only those that look so.

    `is_field`: a negative prompt names them. There "kitty" is every cat; within a prompt, "a cat but no kitty" tells
    the two apart.
    """

    group: AskedGroup
    color: str = ""
    size: str = ""
    is_field: bool = False

    def matches(self, group: AskedGroup, color: str, size: str) -> bool:
        """Whether a group of the same name in the vocabulary is meant; `color`, `size`: its own."""
        if (self.color and self.color != color) or (self.size and self.size != size):
            return False
        if _same_word(self.group, group):
            return True
        if not self._is_general():
            return False
        return self.is_field or not _is_narrower(group)

    def _is_general(self) -> bool:
        """Whether all things of the name are meant, and not only those of the same word."""
        stand_in = self.group.noun.stand_in
        if stand_in is not None:
            return stand_in.how in GENERAL or (self.is_field and stand_in.how == "synonym")
        return self.is_field or _says_name(self.group)


@dataclass(frozen=True)
class Unwanted:
    """Names of a vocabulary that must not be drawn: things, backgrounds, styles and colors. `places`: words of prompts
    for a background, where only these are meant."""

    things: dict[str, list[UnwantedThing]] = field(default_factory=dict)
    backgrounds: frozenset[str] = frozenset()
    places: frozenset[str] = frozenset()
    styles: frozenset[str] = frozenset()
    colors: frozenset[str] = frozenset()

    def __or__(self, other: "Unwanted") -> "Unwanted":
        names = self.things.keys() | other.things.keys()
        things = {name: [*self.things.get(name, ()), *other.things.get(name, ())] for name in names}
        return Unwanted(
            things, self.backgrounds | other.backgrounds, self.places | other.places, self.styles | other.styles,
            self.colors | other.colors,
        )  # fmt: skip

    def has(self, group: AskedGroup, color: str, size: str) -> bool:
        """Whether a group must not be drawn; `color`, `size`: what it would be drawn with."""
        return any(thing.matches(group, color, size) for thing in self.things.get(group.noun.name, ()))


def _says_name(group: AskedGroup) -> bool:
    word = group.head.text
    return group.noun.stand_in is None and group.noun.name.lower() in (word, *singulars(word), _one(word))


def _one(word: str) -> str:
    """The phrase that a word may be the plural of: "bunches of grapes"."""
    first, of, rest = word.partition(" of ")
    return next((f"{one}{of}{rest}" for one in singulars(first) if plural(one) == first), word)


def _is_narrower(group: AskedGroup) -> bool:
    """Whether a group was said by a word for only some things of its name: a puppy, a poodle."""
    stand_in = group.noun.stand_in
    return stand_in.how in NARROW if stand_in is not None else not _says_name(group)


def _same_word(one: AskedGroup, other: AskedGroup) -> bool:
    first, second = one.head.text, other.head.text
    return bool({first, *singulars(first)} & {second, *singulars(second)})
