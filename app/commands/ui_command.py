"""`maskgil ui`: the studio in a browser, and the HTTP API on the same port."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from app.commands.draw_options import MEMORY_METAVAR, TextEncoderMemory
from app.core import paths
from app.web.options import ServerOptions
from maskgil.command_line import Command


@dataclass(frozen=True)
class StudioOptions:
    """Where the studio listens and what it opens with."""

    server: Annotated[ServerOptions, arg(name="")] = field(default_factory=ServerOptions)
    model: str = field(default_factory=paths.default_model)
    """The model that the page opens with. Left out: $MASKGIL_MODEL, or scenes."""
    recognizer: Annotated[str, arg(aliases=("--ear",))] = field(default_factory=paths.default_recognizer)
    """The speech recognizer. Left out: $MASKGIL_RECOGNIZER, or whisper-tiny-en."""
    text_encoder: Annotated[TextEncoderMemory | None, arg(metavar=MEMORY_METAVAR)] = None
    """Memory of released models' text encoders: fewer bits, or offload. Left out: $MASKGIL_TEXT_ENCODER, or full."""
    weights: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """The folder of the bundled models. Left out: $MASKGIL_WEIGHTS, or the one of the checkout or the package."""
    gallery: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """The folder of kept pictures. Left out: $MASKGIL_GALLERY, or the usual one (docs/studio.md)."""


def ui(options: Annotated[StudioOptions, arg(name="")]) -> None:
    """Start the studio and the HTTP API, and print their address."""
    from app.web import server

    set_environment(options)
    server.run_server(options.server)


def set_environment(options: StudioOptions) -> None:
    """Hand the options on to everything that reads its places from the environment (app/core/paths.py)."""
    for variable, value in (
        (paths.MODEL, options.model),
        (paths.RECOGNIZER, options.recognizer),
        (paths.TEXT_ENCODER, options.text_encoder),
        (paths.WEIGHTS, options.weights),
        (paths.GALLERY, options.gallery),
    ):
        if value:
            os.environ[variable] = str(value)


def _load():
    return ui


COMMAND = Command("Start the studio in a browser, and the HTTP API.", _load)
