"""The prompts of one talk at the microphone, and what the next utterance makes of them.

An utterance is a prompt of its own, goes on with the last prompt, changes it, or is a command
(speech/spoken_commands.py says which are read). A change keeps the seed, so that what is not changed stays alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.core import registry
from app.core.prompt_admission import readmit
from app.core.request import GenerationRequest
from app.serving.admission import served_model
from app.serving.engine import Engine
from app.web.canvas_edits import describe_spans
from speech.spoken_commands import COLORS, PLACES, Meaning, ReadUtterance, is_unfinished_command, read_utterance

REMEMBERED = 50  # prompts that can be undone


@dataclass(frozen=True)
class DrawnPrompt:
    """A prompt whose picture was kept."""

    prompt: str
    seed: int
    job: str


class LiveDialogue:
    """What was drawn in one talk, the last one last."""

    def __init__(self) -> None:
        self.drawn: list[DrawnPrompt] = []
        self.places: frozenset[str] = frozenset(PLACES)
        self.colors: frozenset[str] = frozenset(COLORS)

    def learn(self, engine: Engine, model: str) -> None:
        """Take the places and colors that a served model knows. It may read the disk."""
        self.places, self.colors = scene_words(engine, model)

    @property
    def last(self) -> DrawnPrompt | None:
        return self.drawn[-1] if self.drawn else None

    def read(self, words: Sequence[str]) -> ReadUtterance:
        """What the words mean now."""
        return read_utterance(" ".join(words), self.last.prompt if self.last else "", self.places, self.colors)

    def is_worth_drawing(self, words: Sequence[str], utterance: ReadUtterance) -> bool:
        """Whether the picture of an utterance that may go on can be begun: not for half a command."""
        if utterance.meaning not in (Meaning.NEW, Meaning.CHANGE) or not utterance.prompt:
            return False
        return not (self.drawn and is_unfinished_command(words))

    def seed(self, utterance: ReadUtterance, fresh: int) -> int:
        """That of the last picture for a change of it, else the fresh one."""
        return self.last.seed if utterance.meaning is Meaning.CHANGE and self.last else fresh

    def add(self, prompt: str, seed: int, job: str) -> None:
        self.drawn = [*self.drawn, DrawnPrompt(prompt, seed, job)][-REMEMBERED:]

    def undo(self) -> DrawnPrompt | None:
        """Forget the last prompt; returns the one before it."""
        self.drawn = self.drawn[:-1]
        return self.last

    def clear(self) -> None:
        self.drawn = []


def scene_words(engine: Engine, model: str) -> tuple[frozenset[str], frozenset[str]]:
    """(phrases of places, names of colors) that a model knows, besides those of everyday English; only the latter for
    a name that is not served."""
    try:
        vocabulary = served_model(engine, model).vocabulary
    except ValueError:  # the request will say what is wrong
        return frozenset(PLACES), COLORS
    places = {phrase.lower() for place in vocabulary.backgrounds for phrase in place.say}
    return frozenset(places | set(PLACES)), frozenset(vocabulary.colours) | COLORS


def describe_drawn(request: GenerationRequest) -> dict[str, Any]:
    """The words that are not drawn as said, notes on them, and how the prompt is read. It reads the disk: not for an
    event loop."""
    admitted = readmit(request)
    reading = admitted.reading
    stretches = (span.text for span in (*reading.left_out, *reading.replaced))
    words = [word for text in stretches for word in text.split() if word.lower() not in ("a", "an", "the")]
    described = describe_spans(registry.find_local(request.model), reading)
    return {"unknown": words, "notes": list(admitted.notes), "reading": described}
