"""Commands in tests: `maskgil("train", "t2i-xl-256", "--steps=2")` runs one in this process and raises its errors."""

import contextlib
import io
from collections.abc import Callable, Mapping

from app.cli import ROOT
from maskgil.command_line import parse, parse_options
from train.commands import recipes
from train.recipe import Recipe


def maskgil(*words: object) -> None:
    """Run the command. ValueError for what is wrong with the words or the work."""
    call = parse(ROOT, "maskgil", [str(word) for word in words])
    assert call is not None, "a list of commands was printed"
    call()


def help_of(*words: str) -> str:
    """The help page of a command."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        parse(ROOT, "maskgil", [*words, "--help"])
    return printed.getvalue()


def flags(**options: object) -> list[str]:
    """Options as words: True and False are flags, None is left out."""
    words = []
    for name, value in options.items():
        name = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif value is not None:
            words.append(f"--{name}={value}")
    return words


def made(name: str, options: Mapping[str, object]) -> Recipe:
    """The recipe of that name with these options, as the command line builds it."""
    recipe: Callable[..., object] = recipes()[name]
    result = parse_options(recipe, f"maskgil train {name}", flags(**options))()
    assert isinstance(result, Recipe)
    return result
