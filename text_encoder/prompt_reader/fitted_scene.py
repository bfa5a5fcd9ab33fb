"""The scene that is drawn, as the fitters fill it in and the caption writer says it."""

from dataclasses import dataclass, field

from text_encoder.prompt_reader.prompt_reading import ReadGroup, ReadScene

NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
JOINS = ("and", "with", "next to", "beside")  # how a caption sets two things side by side


@dataclass
class FittedScene:
    """The scene that is drawn, with the prompt's own wording of its parts where the model knows that wording."""

    groups: list[ReadGroup] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)  # a wording for each group's number; empty: an article or a word
    sizes: list[str] = field(default_factory=list)
    relation: str = ""
    relation_text: str = ""  # empty: "and"
    swapped: bool = False  # whether the second group is named first
    backgrounds: list[tuple[str, str, int]] = field(default_factory=list)  # name, wording, place in the prompt
    style: tuple[str, str, int] | None = None
    starts: list[int] = field(default_factory=list)  # place of each group in the prompt
    join: str = ""
    sides: bool = False

    def scene(self) -> ReadScene:
        names = tuple(name for name, _, _ in self.backgrounds)
        groups = (*self.groups[1::-1], *self.groups[2:]) if self.swapped else tuple(self.groups)
        return ReadScene(groups, self.relation, names, self.style[0] if self.style else "")
