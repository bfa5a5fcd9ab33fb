"""`maskgil read`: what would be drawn of a prompt, without drawing it."""

import json
from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import Positional, arg

from app.core import paths
from maskgil.command_line import Command


@dataclass(frozen=True)
class ReaderOptions:
    """Which model the prompts are read for."""

    model: str = field(default_factory=paths.default_model)
    """The model that the prompts are read for. Left out: $MASKGIL_MODEL, or scenes."""


def read(
    source: Positional[Annotated[str, arg(metavar="TEXT|FILE")]], *, options: Annotated[ReaderOptions, arg(name="")]
) -> None:
    """Print what would be drawn of a prompt, or of each line of a file: one JSON object a line, and no picture.

    Args:
        source: A prompt, a text file with a prompt a line, or a .jsonl file of objects with a "prompt".
    """
    from app.core.prompt_admission import readings_of

    for reading in readings_of(source, options.model):
        print(json.dumps(reading.to_dict(), ensure_ascii=False))


def _load():
    return read


COMMAND = Command("Print how a prompt is read, as JSON, without drawing it.", _load)
