"""The training recipes as commands: each parameter of a recipe is an option, and a run's folder is another.

`maskgil train` and `python -m train` list them. A recipe is a public function that returns a Recipe, of a module that
train/recipe_list.py names. The list of commands is read from the source of these files, because importing them takes
seconds. They are imported when a recipe is chosen.
"""

import ast
import inspect
from collections.abc import Callable, Iterator
from dataclasses import asdict, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from maskgil.command_line import Command, CommandGroup, deferred
from maskgil.config_file import COMMAND, LEGACY_RECIPES, config_path, read_option_file
from train.run_options import RunOptions

FOLDER = Path(__file__).parent / "recipes"
LIST = Path(__file__).parent / "recipe_list.py"

NOTES = """\
examples:
  maskgil train scenes-text --steps 600 --out runs/scenes-text
  maskgil train scenes-generator --init weights/scenes --cache cache/scenes --frozen --compile --out runs/more
  torchrun --nproc_per_node 8 -m train t2i-xl-256 --data cache/t2i-256 --out runs/t2i-xl-256
  maskgil train --config runs/scenes-text/config.toml --steps 1200
  maskgil train --check

The same command again continues from the checkpoint in the run's folder."""


def _module_names() -> list[str]:
    """Names of the modules of train/recipe_list.py, in its order, from its source."""
    statements = ast.parse(LIST.read_text(encoding="utf-8")).body
    (listed,) = (node.value for node in statements if isinstance(node, ast.Assign))
    return [node.id for node in ast.walk(listed) if isinstance(node, ast.Name)]


def _definitions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """(module, definition) of every recipe, in the order of the list."""
    for module in _module_names():
        for node in ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.returns is not None:
                if ast.unparse(node.returns) == "Recipe":
                    yield module, node


def recipe_help() -> dict[str, str]:
    """{name on the command line: first line of the docstring} of every recipe. Imports none of them."""
    return {
        node.name.replace("_", "-"): (ast.get_docstring(node) or "").partition("\n")[0] for _, node in _definitions()
    }


def recipes() -> dict[str, Callable[..., Any]]:
    """{name on the command line: function that returns a Recipe}."""
    from train.recipe_list import MODULES

    modules = dict(zip(_module_names(), MODULES, strict=True))
    return {node.name.replace("_", "-"): getattr(modules[module], node.name) for module, node in _definitions()}


def recipe_commands() -> dict[str, Command]:
    """{name: command} of every recipe and of the other training commands."""
    known = recipe_help()
    commands = {name: _command(name, name, about) for name, about in known.items()}
    legacy = {
        old: _command(old, new, f"The former name of {new}.") for old, new in LEGACY_RECIPES.items() if new in known
    }
    others = {
        "world": Command("One stage of the open world (train/world/README.md).", _world),
        "check": Command("Train a tiny model for a minute and compare it with its curve.", _check),
        "reference-curve": Command("Write the reference curve of finished runs of one recipe.", _reference_curve),
    }
    return commands | legacy | others


def _world() -> Callable[..., None]:
    from train.world.world_stages import run_stage

    return run_stage


def _reference_curve() -> Callable[..., None]:
    from train.reference_curve import write_reference_curve

    return write_reference_curve


def _check() -> Callable[..., None]:
    from train.check_run import check

    return check


def chosen_recipe(arguments: list[str]) -> list[str]:
    """The arguments with the recipe's name first, where a file names it (`--config run.toml`); `check` for --check."""
    if arguments and arguments[0] == "--check":
        return ["check", *arguments[1:]]
    path = config_path(arguments)
    if arguments and arguments[0].startswith("--config") and path is not None:
        name = read_option_file(path).get(COMMAND)
        if name is None:
            raise ValueError(f'--config {path} names no recipe: write recipe = "NAME" in it, or name one first')
        return [str(name), *arguments]
    return arguments


def chosen_options(name: str, call: Callable[[], Any], run: RunOptions) -> dict[str, Any]:
    """The values of all options of a command, for a file that sets them again."""
    assert isinstance(call, partial)
    flat: dict[str, Any] = {COMMAND: LEGACY_RECIPES.get(name, name)}
    for key, value in (*call.keywords.items(), ("run", run)):
        if is_dataclass(value) and not isinstance(value, type):
            flat |= asdict(value)
        else:
            flat[key] = value
    del flat["preflight"]
    return {key.replace("_", "-"): str(value) if isinstance(value, Path) else value for key, value in flat.items()}


def _command(name: str, recipe_name: str, about: str) -> Command:
    """The command `name`, which trains a recipe. `about`: its line in the list of commands."""

    def load() -> Callable[..., None]:
        from train.processes import shutdown_distributed
        from train.trainer import train

        function = recipes()[recipe_name]

        def run_recipe(
            recipe: Annotated[Any, arg(constructor=deferred(function), name="")],
            out: Annotated[Path, arg(help="folder of the run; the same command again continues there")] = Path("runs")
            / name,
            stop_at: Annotated[int | None, arg(help="stop and save after this step", metavar="STEP")] = None,
            config: Annotated[
                Path | None, arg(help="TOML file of options; options given here override it", metavar="FILE")
            ] = None,
            run: RunOptions = RunOptions(),  # noqa: B008
        ) -> None:
            if stop_at is not None and stop_at < 1:
                raise ValueError(f"stop_at={stop_at}: give the number of a step, 1 or more")
            made = replace(recipe(), chosen=chosen_options(name, recipe, run) | {"out": str(out)})
            train(made, out, stop_at=stop_at, options=run)
            shutdown_distributed()

        run_recipe.__doc__ = inspect.getdoc(function)
        return run_recipe

    return Command(about, load)


TRAIN = CommandGroup("Train a model: one recipe a command.", recipe_commands, NOTES, chosen_recipe)
