"""`maskgil train RECIPE`: the recipes of train/, each with its own options."""

from collections.abc import Mapping

from maskgil.command_line import CommandGroup, CommandTree


def _load() -> Mapping[str, CommandTree]:
    from train.commands import recipe_commands

    return recipe_commands()


def _chosen(arguments: list[str]) -> list[str]:
    from train.commands import chosen_recipe

    return chosen_recipe(arguments)


GROUP = CommandGroup("Train a model: one recipe a command.", _load, prepare=_chosen)
