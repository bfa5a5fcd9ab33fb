"""`maskgil models`: the models on this machine, and the released ones that can be fetched."""

from typing import Annotated

from tyro.conf import Positional, arg

from app.commands.draw_options import quiet_log
from maskgil import model_folder
from maskgil.command_line import Command


def list_models(
    name: Annotated[Positional[str], arg(metavar="[NAME|get|rm]")] = "",
    released: Annotated[Positional[str], arg(metavar="[RELEASED]")] = "",
) -> None:
    """List the models on this machine, and the released models that can be fetched from Hugging Face.

    `maskgil models NAME` describes one model, with all the words that it knows. `maskgil models get amused/amused-256`
    fetches a released model, or the files of it that are missing. `maskgil models rm amused/amused-256` removes it.

    Args:
        name: A model, or get, or rm. Left out: all models are listed.
        released: After get and rm: the name of a released model.
    """
    from app.core import registry, released_models
    from maskgil.released import catalog, download

    quiet_log()
    if released and name not in ("get", "rm"):
        raise ValueError(f"{name} {released}: give one model, or get or rm and the name of a released model")
    if name in ("get", "rm") and not released:
        raise ValueError(f"models {name}: which one? `maskgil models` lists the released models")
    if name == "get":
        print(f"{catalog.released_model(released).name} is in {download.fetch(released)}")
    elif name == "rm":
        print(released_models.remove_model(released))
    elif name:
        print(registry.describe_model(registry.find(name)))
    else:
        print(_listing())


def _listing() -> str:
    """Models that are here, then those that can be fetched. ValueError when none is here."""
    from app.core import registry, released_models
    from maskgil.released import catalog

    here = [*registry.bundled_models(), *registry.fetched()]
    if not here:
        names = ", ".join(model.name for model in catalog.MODELS)
        raise ValueError(
            f"there is no model in {model_folder.weights_folder()}: {registry.HOW_TO_GET}, or fetch a released one "
            f"with `maskgil models get NAME`: {names}"
        )
    width = max(len(model.name) for model in here)
    listed = "\n".join(registry.summary(model, width) for model in here)
    return f"{listed}\n\nReleased models, fetched with `maskgil models get NAME`:\n{released_models.released_table()}"


def _load():
    return list_models


COMMAND = Command("List the models on this machine, describe one, fetch or remove a released one.", _load)
