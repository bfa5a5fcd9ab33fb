"""Files of a cache: the note of what made it, and shards of tensors, each written whole or not at all."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from maskgil.fileio import atomic_write, write_json


def write_note(path: Path, note: dict[str, Any]) -> None:
    """What made a cache, as JSON. Processes that share the work may write it at once. ValueError where that fails."""
    try:
        write_json(path, note)
    except OSError as error:
        raise ValueError(f"could not write {path}: {error}; what is there is kept: free space, run it again") from None


def write_shard(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """A safetensors file of a cache. ValueError when the disk is full; what is finished stays."""
    try:
        with atomic_write(path) as partial:
            save_file(tensors, partial, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"could not write {path}: {error}; finished files are kept: free space and run the same command again"
        ) from None
