"""Names of models that lie outside the folder of bundled weights: what visitors, programs and files read in place of a
path of this machine.

Such a model is named by the last part of its path, with -2, -3 and so on where another model has that name. The names
hold for this process.
"""

import os
import threading
from pathlib import Path

from maskgil import model_folder

_folders: dict[str, Path] = {}  # by name
_lock = threading.Lock()


def name_of(given: str) -> str:
    """The name of a model that is given by its name or its path. A path of no folder, and the name of a bundled or a
    released model, stay as they are.

    `given` is an operator's or a command's: whoever may not open folders must not learn which there are.
    """
    with _lock:
        if given in _folders or is_bundled(given):
            return given
    folder = Path(os.path.expanduser(given))
    if not given or not os.path.isdir(folder):
        return given
    folder = folder.resolve()
    if folder.parent == model_folder.weights_folder().resolve():
        return folder.name
    with _lock:
        known = next((name for name, place in _folders.items() if place == folder), None)
        if known is None:
            known = _free_name(folder.name or "model")
            _folders[known] = folder
        return known


def folder_of(name: str) -> Path | None:
    """The folder of a model outside the bundled weights by its name; None for any other name. A bundled model's name is
    always its own."""
    return None if is_bundled(name) else _folders.get(name)


def place_of(name: str) -> str:
    """What another process of the same files finds this model by: its folder where it is outside the bundled weights,
    else its name."""
    return str(folder_of(name) or name)


def _free_name(wanted: str) -> str:
    name, number = wanted, 1
    while name in _folders or is_bundled(name):
        number += 1
        name = f"{wanted}-{number}"
    return name


def is_bundled(name: str) -> bool:
    """Whether a folder of this name lies among the bundled weights."""
    # os.path takes any text for a path, where Path has complaints of its own about length.
    is_plain = os.path.basename(name) == name and name not in ("", os.curdir, os.pardir)
    return is_plain and os.path.isdir(model_folder.weights_folder() / name)
