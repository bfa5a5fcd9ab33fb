"""`maskgil generate`: pictures of a sentence, or of a class."""

from typing import Annotated

from tyro.conf import Positional, arg

from app.commands.draw_options import DrawOptions, draw_to_files, quiet_log
from maskgil.command_line import Command


def generate(
    prompt: Positional[Annotated[str | None, arg(metavar="PROMPT")]] = None,
    *,
    class_: Annotated[str | None, arg(name="class", metavar="NUMBER|NAME")] = None,
    options: Annotated[DrawOptions, arg(name="")],
) -> None:
    """Draw pictures of a sentence, or of a class.

    Args:
        prompt: What to draw, in quotes: "two cats on the beach".
        class_: Instead of a prompt, for a class-driven model: a class by number, 207, or by name, "golden retriever".
    """
    quiet_log()
    options.validate_out()
    draw_to_files(options, resolve_prompt(options.model, prompt, class_))


def resolve_prompt(model: str, prompt: str | None, class_: str | None) -> str:
    """The prompt or the class. ValueError when neither or both are given, or the model takes the other one."""
    from app.core import registry

    if prompt is None and class_ is None:
        raise ValueError("Missing: what to draw, in quotes, or --class for a class-driven model (--help explains)")
    if prompt is not None and class_ is not None:
        raise ValueError("both a prompt and --class: give the one that the model is driven by")
    classes = registry.find(model).classes
    if classes is None and class_ is not None:
        raise ValueError(f"{model} draws what a sentence says: give a prompt instead of --class")
    if classes is not None and prompt is not None:
        raise ValueError(
            f"{model} draws {classes} classes and reads no sentences: give --class with a number or a name; "
            f"`maskgil models {model}` lists them"
        )
    chosen = class_ if prompt is None else prompt
    assert chosen is not None
    return chosen


def _load():
    return generate


COMMAND = Command("Draw pictures of a sentence, or of a class.", _load)
