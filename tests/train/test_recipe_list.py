"""The list of recipes: what it holds, and that printing it imports no PyTorch."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

from commands import help_of

from maskgil.command_line import options_of
from train.commands import NOTES, recipe_help, recipes
from train.recipe import Recipe
from train.recipes import asr, large, scenes, scenes_judges, scenes_latents, scenes_tokenizers, text_to_image

ROOT = Path(__file__).resolve().parents[2]


def test_the_list_of_recipes_imports_no_pytorch():
    code = "import sys; from app.cli import main; status = main(['train']); sys.exit(status or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "scenes-tokenizer" in done.stdout, done.stderr


def test_every_public_function_that_returns_a_recipe_is_listed():
    found = {
        name.replace("_", "-"): function
        for module in (scenes_tokenizers, scenes, scenes_judges, scenes_latents, asr, text_to_image, large)
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and name[0] != "_"
        if inspect.signature(function).return_annotation is Recipe
    }
    assert recipes() == found and list(recipe_help()) == list(found)
    assert recipe_help() == {name: (inspect.getdoc(f) or "").partition("\n")[0] for name, f in found.items()}


def test_the_list_ends_with_its_examples():
    assert NOTES.rstrip() in help_of("train")


def test_every_option_of_every_recipe_is_explained():
    for name, function in recipes().items():
        described = set(re.findall(r"^    (\w+): \S", inspect.getdoc(function) or "", re.MULTILINE))
        silent = [
            option
            for option, kind in options_of(function).items()
            if option.replace("-", "_") not in described
            and not any(getattr(extra, "help", None) for extra in getattr(kind, "__metadata__", ()))
        ]
        assert not silent, f"{name}: {silent}"
