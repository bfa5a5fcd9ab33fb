"""`maskgil edit`: redraw a part of a picture."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from app.commands.draw_options import DrawOptions, draw_to_files, quiet_log
from maskgil.command_line import Command


def edit(
    picture: Positional[Annotated[Path, arg(metavar="PNG")]],
    prompt: Positional[Annotated[str, arg(metavar="PROMPT")]],
    *,
    mask: Path | None = None,
    was: str | None = None,
    strength: Annotated[float | None, arg(metavar="SHARE")] = None,
    options: Annotated[DrawOptions, arg(name="")],
) -> None:
    """Redraw a part of a picture. The rest stays the same to the last pixel; with --strength alone only tokens stay.

    Args:
        picture: The picture. One of another size than the model draws is scaled to the nearest, and cut to its shape.
        prompt: What the whole picture shows afterwards.
        mask: A PNG of the picture's size. What is transparent in it is redrawn or, where nothing is, what is white.
            Left out: what the new words contradict.
        was: Without --mask: the words that the picture was drawn from. Left out: those that its PNG remembers.
        strength: Image-to-image: the share of the tokens, of those under --mask where it is given, that is drawn anew,
            above 0 and at most 1. The seed chooses them.
    """
    quiet_log()
    options.validate_out()
    if options.size is not None:
        raise ValueError("--size goes with a picture that is drawn from nothing: an edit keeps the picture's own")
    for path in (picture, mask):
        if path is not None and not path.is_file():
            raise ValueError(f"{path} is no file: give the path of a PNG")
    from app.core.edit_request import EditRequest

    mask_bytes = None if mask is None else mask.read_bytes()
    draw_to_files(options, prompt, EditRequest.read(picture.read_bytes(), mask_bytes, was, strength))


def _load():
    return edit


COMMAND = Command("Redraw a part of a picture.", _load)
