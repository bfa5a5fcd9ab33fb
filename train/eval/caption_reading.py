"""Prompts of an evaluation as the app reads them, and how much of them a model draws as it was said.

A score compares a picture with the prompt that was asked: what is replaced or left out counts as wrong there. The
shares say how much of a score that explains.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from maskgil import checkpoint
from text_encoder.prompt_reader import PromptReader, PromptReading


def reader_of(model: str) -> PromptReader:
    """The reader of a model folder, or of a bundled model by name; one for free text where it has no vocabulary."""
    return PromptReader.load(Path(checkpoint.resolve(model)))


def encoded_caption(reader: PromptReader, prompt: str) -> str:
    """What the text encoder gets: the prompt itself where the model knows all of it; empty where nothing of it can be
    drawn."""
    reading = reader.read(prompt)
    is_known = all(reader.vocabulary.knows(word) for word in prompt.split())
    return prompt if reading.is_as_said and is_known else reading.drawn


def reading_shares(readings: Sequence[PromptReading]) -> str:
    """One line: how many prompts are drawn as said, and the shares of the stretches that speak of something to draw."""
    refused = sum(bool(reading.refused) for reading in readings)
    exact = sum(reading.is_as_said for reading in readings)
    fates = Counter(span.status for reading in readings for span in reading.spans if span.status != "language")
    total = fates.total() or 1
    replaced, left_out = (f"{100 * fates[status] / total:.1f}%" for status in ("replaced", "left_out"))
    return (
        f"{len(readings):,} prompts: {exact:,} drawn as said, {len(readings) - exact - refused:,} otherwise, "
        f"{refused:,} refused; {replaced} of what they name is replaced, {left_out} left out: both count as wrong"
    )
