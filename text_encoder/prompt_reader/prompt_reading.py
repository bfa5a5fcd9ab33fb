"""What a reader understood of a prompt: the words that the encoder gets, and the fate of every word of the prompt."""

from dataclasses import asdict, dataclass
from typing import Any

# What became of a word.
DRAWN, REPLACED, LEFT_OUT, AVOIDED, LANGUAGE = "drawn", "replaced", "left_out", "avoided", "language"
MAX_NAMED, MAX_LETTERS = 20, 60  # stretches of one reason that a note names, and letters of each
NOT_DRAWN = (LEFT_OUT, AVOIDED)


@dataclass(frozen=True)
class PromptSpan:
    """A stretch of a prompt. The texts of all spans join to the prompt.

    status  "drawn" as said; "replaced" by `by`; "left_out"; "avoided": the prompt asked for a picture without it;
            "language": it needs no drawing
    why     why it was replaced or left out; empty otherwise
    """

    text: str
    status: str = LANGUAGE
    by: str = ""
    why: str = ""


@dataclass(frozen=True)
class ReadGroup:
    """Things of one kind: `name` of the vocabulary, how many, their color and size ("small", "large"), empty: not said.

    `asked` is the noun of the prompt; `said` the wording in the caption without number, color and size.
    """

    name: str
    count: int = 1
    color: str = ""
    size: str = ""
    asked: str = ""
    said: str = ""


@dataclass(frozen=True)
class ReadScene:
    """What the caption says. `relation`: of the first group to the second. `backgrounds`: names of the vocabulary."""

    groups: tuple[ReadGroup, ...] = ()
    relation: str = ""
    backgrounds: tuple[str, ...] = ()
    style: str = ""


@dataclass(frozen=True)
class PromptReading:
    """The result of reading one prompt.

    prompt   the text as it was typed
    drawn    what the text encoder gets; empty when nothing can be drawn
    spans    every stretch of the prompt and what became of it
    refused  why nothing can be drawn, with suggestions; empty otherwise
    """

    prompt: str
    drawn: str
    spans: tuple[PromptSpan, ...] = ()
    scene: ReadScene = ReadScene()
    refused: str = ""

    @property
    def left_out(self) -> tuple[PromptSpan, ...]:
        """Words that are not drawn, those that the prompt asked to leave out among them."""
        return tuple(span for span in self.spans if span.status in NOT_DRAWN)

    @property
    def replaced(self) -> tuple[PromptSpan, ...]:
        return tuple(span for span in self.spans if span.status == REPLACED)

    @property
    def is_as_said(self) -> bool:
        """Whether everything that was asked for is drawn as it was said."""
        return not self.refused and all(span.status not in (REPLACED, LEFT_OUT) for span in self.spans)

    def note(self) -> str:
        """One line on what is drawn otherwise than it was said; empty when nothing is."""
        parts = [f"{_shortened(span.text)}: drawn as {span.by}, {span.why}" for span in self.replaced]
        reasons: dict[str, list[str]] = {}
        for span in self.left_out:
            texts = reasons.setdefault("" if span.status == AVOIDED else span.why, [])
            if span.text not in texts:
                texts.append(span.text)
        for why, texts in reasons.items():
            words = ", ".join(f"'{_shortened(text)}'" for text in texts[:MAX_NAMED])
            words += f" and {len(texts) - MAX_NAMED} others" if len(texts) > MAX_NAMED else ""
            parts.append(f"{words} left out ({why})" if why else f"without {words}, as asked")
        return "; ".join(dict.fromkeys(parts))

    def to_dict(self) -> dict[str, Any]:
        """What `maskgil read` prints of a prompt."""
        spans = [{key: value for key, value in asdict(span).items() if value} for span in self.spans]
        return {
            "prompt": self.prompt,
            "drawn": self.drawn,
            "spans": spans,
            "left_out": [{"text": span.text, "why": span.why} for span in self.left_out],
            "replaced": [{"text": span.text, "by": span.by, "why": span.why} for span in self.replaced],
            "refused": self.refused,
        }


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_LETTERS else f"{text[: MAX_LETTERS - 1]}…"
