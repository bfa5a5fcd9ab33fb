"""The training recipes as commands: each parameter of a recipe is an option, and a run's folder is another.

`maskgil train` and `python -m train` list them. A recipe is a public function of one of MODULES that returns a Recipe.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from tyro.conf import arg

from maskgil.command_line import Command, Group, deferred
from train.recipe import Recipe
from train.recipes import asr, large, scenes, scenes_judges, scenes_latents, scenes_tokenizers, text_to_image
from train.trainer import shutdown_distributed, train

MODULES: tuple[ModuleType, ...] = (
    scenes_tokenizers,
    scenes,
    scenes_judges,
    scenes_latents,
    asr,
    text_to_image,
    large,
)

NOTES = """\
examples:
  maskgil train scenes-text --steps 600 --out runs/scenes-text
  maskgil train scenes-generator --init weights/scenes --cache cache/scenes --frozen --compile --out runs/more
  torchrun --nproc_per_node 8 -m train t2i-xl-256 --data cache/t2i-256 --out runs/t2i-xl-256

The same command again continues from the checkpoint in the run's folder."""


def recipes() -> dict[str, Callable[..., Recipe]]:
    """{name on the command line: recipe}."""
    functions = [f for module in MODULES for f in vars(module).values() if inspect.isfunction(f)]
    modules = {module.__name__ for module in MODULES}
    public = [f for f in functions if f.__module__ in modules and not f.__name__.startswith("_")]
    return {f.__name__.replace("_", "-"): f for f in public if inspect.signature(f).return_annotation is Recipe}


def recipe_commands() -> dict[str, Command]:
    """{name: command} of every recipe."""
    return {name: _command(name, recipe) for name, recipe in recipes().items()}


def _command(name: str, recipe: Callable[..., Recipe]) -> Command:
    about = inspect.getdoc(recipe) or ""

    def load() -> Callable[..., None]:
        def run_recipe(
            recipe: Annotated[Any, arg(constructor=deferred(recipe), name="")],
            out: Annotated[Path, arg(help="folder of the run; the same command again continues there")] = Path("runs")
            / name,
            stop_at: Annotated[int | None, arg(help="stop and save after this step", metavar="STEP")] = None,
        ) -> None:
            train(recipe(), out, stop_at=stop_at)
            shutdown_distributed()

        run_recipe.__doc__ = about
        return run_recipe

    return Command(about.partition("\n")[0], load)


TRAIN = Group("Train a model: one recipe a command.", recipe_commands, NOTES)
