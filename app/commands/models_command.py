"""`maskgil models`: the models on this machine."""

from tyro.conf import Positional

from app.commands.draw_options import quiet_log
from app.core import paths
from maskgil.command_line import Command


def models(name: Positional[str] = "") -> None:
    """List the models on this machine: what they draw, their sizes and their folders.

    Args:
        name: Show everything about this one, with all the words it knows.
    """
    from app.core import registry

    quiet_log()
    if name:
        print(registry.describe(registry.find(name)))
        return
    listed = registry.bundled()
    if not listed:
        raise ValueError(f"there is no model in {paths.weights_folder()}: {registry.HOW_TO_GET}")
    for model in listed:
        print(registry.summary(model))


def _load():
    return models


COMMAND = Command("List the models on this machine, or describe one.", _load)
