"""Prompts of an evaluation as the app reads them, and the share of words that a model replaces or leaves out.

A score compares a picture with the original prompt, so words that are replaced or left out count as wrong. The shares
tell how much of a score this explains.
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
    """The text for the text encoder: the prompt itself where the model knows all of it; empty where none of it can be
    drawn."""
    reading = reader.read(prompt)
    is_known = all(reader.vocabulary.knows(word) for word in prompt.split())
    return prompt if reading.is_as_said and is_known else reading.drawn


def reading_shares(readings: Sequence[PromptReading]) -> str:
    """One line: how many prompts are drawn as said, and the shares of the phrases that name something to draw."""
    refused = sum(bool(reading.refused) for reading in readings)
    exact = sum(reading.is_as_said for reading in readings)
    fates = Counter(span.status for reading in readings for span in reading.spans if span.status != "language")
    total = fates.total() or 1
    replaced, left_out = (f"{100 * fates[status] / total:.1f}%" for status in ("replaced", "left_out"))
    return (
        f"{len(readings):,} prompts: {exact:,} drawn as said, {len(readings) - exact - refused:,} otherwise, "
        f"{refused:,} refused; {replaced} of what they name is replaced, {left_out} left out: both count as wrong"
    )
