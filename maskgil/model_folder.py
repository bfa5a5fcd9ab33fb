"""Where the bundled models lie: one folder a model, in the same place for every program of the project.

    weights_folder() / "scenes"

In this order: the folder that the environment variable MASKGIL_WEIGHTS names; `weights/` of the checkout that the code
runs in; `weights/` inside the installed package, where the wheel puts them.
"""

import os
from pathlib import Path

WEIGHTS = "MASKGIL_WEIGHTS"  # environment variable
PACKAGE = Path(__file__).resolve().parent
EXPERTS = "experts"  # folder of a model's experts (maskgil/experts.py)


def checkout() -> Path | None:
    """The root of the checkout that the code runs in, or None when the package is installed without one."""
    root = PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() else None


def path_from_environment(variable: str) -> Path | None:
    """The path that an environment variable holds, with ~ expanded; None when it is unset or empty."""
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else None


def weights_folder() -> Path:
    """The folder that holds one folder per bundled model. It need not exist."""
    return path_from_environment(WEIGHTS) or (checkout() or PACKAGE) / "weights"


def bundled_or_given(name: str) -> str | Path:
    """The folder of the bundled model of this name, or the name as it is: a path, or what a library knows it by."""
    folder = weights_folder() / name
    return folder if folder.is_dir() else name


def expert_folders(model: Path) -> list[Path]:
    """The folders of a model's experts, the first expert first; most models have none."""
    folder = model / EXPERTS
    places = folder.iterdir() if folder.is_dir() else ()
    return sorted((place for place in places if place.is_dir()), key=lambda place: int(place.name))


def generator_folder(model: Path, expert: int = 0) -> Path:
    """The folder of a model's first generator, or of its expert `expert`, counted from 1. ValueError if it lacks it."""
    if not expert:
        return model / "generator"
    experts = expert_folders(model)
    if not 1 <= expert <= len(experts):
        raise ValueError(f"{model} has {len(experts)} experts, and {expert} is not the number of one")
    return experts[expert - 1]
