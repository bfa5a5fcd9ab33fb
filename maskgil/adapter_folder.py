"""LoRA adapters on this machine, by name. This module imports no torch."""

import contextlib
from pathlib import Path

from maskgil.released.download import models_folder

PEFT_CONFIG, PEFT_WEIGHTS, DIFFUSERS_WEIGHTS = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "pytorch_lora_weights.safetensors",
)


def adapters_folder() -> Path:
    """Where adapters lie that are used by their names: folders, and .safetensors files."""
    return models_folder() / "adapters"


def adapter_names() -> list[str]:
    """The adapters in `adapters_folder`, by name."""
    folder = adapters_folder()
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path.stem if path.suffix == ".safetensors" else path.name for path in found if _is_adapter(path))


def find_adapter(name: str) -> Path:
    """Where the adapter of this name lies. ValueError, with the names that there are, when there is none.

    A name is no path: a request from the network cannot open other files, and no message names the folder.
    """
    folder = adapters_folder()
    for path in (folder / name, folder / f"{name}.safetensors"):
        with contextlib.suppress(OSError):  # a name that no file can have
            if path.parent == folder and _is_adapter(path):
                return path
    there = ", ".join(adapter_names()) or "none"
    raise ValueError(
        f"no LoRA adapter is named {name[:80]!r}: there is {there}; docs/released-models.md says how to add one"
    )


def _is_adapter(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return path.is_file()
    return any((path / file).is_file() for file in (PEFT_WEIGHTS, DIFFUSERS_WEIGHTS))
