"""Whether a prompt can be drawn, and as what: free English becomes the words that a model knows.

Every entrance admits its requests here: command line, page, microphone and HTTP API.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from app.core import registry
from app.core.request import GenerationRequest
from text_encoder.prompt_reader import PromptReading


@dataclass(frozen=True)
class AdmittedRequest:
    """A request with the words that the text encoder gets, what was read, and notes for the person who asked."""

    request: GenerationRequest
    reading: PromptReading
    notes: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """One line on what is drawn; empty where everything is drawn as it was said."""
        return "; ".join(self.notes)


def admit(request: GenerationRequest, model: registry.ModelInfo, strict: bool = False) -> AdmittedRequest:
    """The request as its model can draw it. `model` is the one that the request names.

    Raises ValueError when nothing of the prompt can be drawn, when a class-driven model has no such class, and with
    `strict` when anything is left out or replaced.
    """
    if model.classes is not None:
        model.check_classes(request.prompt, request.negative_prompt)
        return AdmittedRequest(request, PromptReading(request.prompt, request.prompt))
    if model.reader.is_free_text:
        return AdmittedRequest(replace(request, drawn="", drawn_negative=""), model.reader.read(request.prompt))
    reading = model.reader.read(request.prompt, request.negative_prompt)
    if reading.refused:
        raise ValueError(reading.refused)
    negative = model.reader.read_negative(request.negative_prompt)
    notes = [note for note in (reading.note(), _negative_note(negative)) if note]
    if strict and not (reading.is_as_said and negative.is_as_said):
        raise ValueError(f"strict: {'; '.join(notes)}")
    if reading.drawn.lower() != request.prompt.strip().lower() and notes:
        notes.insert(0, f"drawn: “{reading.drawn}”")
    if (reading.drawn, negative.drawn) == (request.prompt, request.negative_prompt):
        drawn = replace(request, drawn="", drawn_negative="")  # the words are the model's own
    else:
        drawn = replace(request, drawn=reading.drawn, drawn_negative=negative.drawn)
    return AdmittedRequest(drawn, reading, tuple(notes))


def readmit(request: GenerationRequest) -> AdmittedRequest:
    """A request that was admitted, with its reading and its notes. It reads files: no event loop may wait for it."""
    admitted = admit(request, registry.find_local(request.model))
    return admitted if request.drawn else replace(admitted, notes=())


def _negative_note(reading: PromptReading) -> str:
    return f"of what to avoid: {note}" if (note := reading.note()) else ""


def words_of(prompt: str, model: str) -> str:
    """What the text encoder of a model gets of a prompt; the prompt itself where nothing of it can be drawn."""
    found = registry.find_local(model)
    return prompt if found.classes is not None else found.reader.read(prompt).drawn or prompt


def readings_of(source: str, model: str) -> Iterator[PromptReading]:
    """What a model would draw of a text, or of each line of a file: text, or JSON objects with a "prompt".

    Raises ValueError for a line that is no such object.
    """
    reader = registry.find(model).reader
    for prompt in _prompts(source):
        yield reader.read(prompt)


def _prompts(source: str) -> Iterator[str]:
    path = Path(source)
    try:
        is_file = path.is_file()
    except OSError:  # a text that is too long to be a path
        is_file = False
    if not is_file:
        yield source
        return
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        if path.suffix != ".jsonl":
            yield line
            continue
        try:
            yield str(json.loads(line)["prompt"])
        except (json.JSONDecodeError, KeyError, TypeError):
            raise ValueError(f'{path}, line {number}, is no JSON object with a "prompt"') from None
