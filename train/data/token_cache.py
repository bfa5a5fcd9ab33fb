"""A cache of drawn scenes: what a tokenizer makes of them, computed once, and the rows that batches are made of.

Codes (train/data/scene_cache.py), latents (train/data/latent_cache.py) and the codes of the open world
(train/world/world_cache.py) are caches of this format.

Axes: B rows of a batch, n scenes.

A cache is a folder with `cache.json` (what made it) and `<W>x<H>-<shard>.safetensors`, each written whole: tensors of n
rows, one of them `numbers` (n,) int64. W and H are the size of the scenes, in pixels or in cells. A scene is a function
of its number and its size, so captions are written anew each time they are read. A run that was stopped continues with
the shards that are missing.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from train.data.cache_files import write_note, write_shard

NOTE = "cache.json"
LEGACY = {"first": 0, "codes": None}  # entries that the notes of older caches leave out
Size = tuple[int, int]  # width, height


def read_note(folder: str | Path, corpus: str) -> dict[str, Any]:
    """cache.json of a folder.

    corpus  stands for the scenes that the numbers mean today

    ValueError when there is no cache, and when its numbers mean other scenes.
    """
    path = Path(folder) / NOTE
    if not path.is_file():
        raise ValueError(f"{folder} is no cache of scenes: make one with maskgil data, or maskgil train world cache")
    note = json.loads(path.read_text(encoding="utf-8"))
    if note.get("corpus") != corpus:
        raise ValueError(
            f"{folder} holds scenes of another corpus than this one, and captions would not fit them: make it anew"
        )
    return note


def begin_cache(out: Path, note: dict[str, Any], differences: Mapping[str, str]) -> None:
    """Write cache.json of a folder that will be filled.

    note         holds "tokenizer" and "corpus", and what else made the cache
    differences  {entry of the note that must not change: what is different where it does}

    ValueError when the folder has a note that differs in one of these entries, and as read_note.
    """
    if (out / NOTE).is_file():
        held, wanted = LEGACY | read_note(out, note["corpus"]), LEGACY | note
        for entry, what in differences.items():
            if held.get(entry, wanted.get(entry)) != wanted.get(entry):
                raise ValueError(f"{out} was made with {what}: give another folder, or delete it")
    write_note(out / NOTE, note)


def write_shards(
    out: Path,
    sizes: Mapping[Size, float],
    total: int,
    encode: Callable[[list[int], Size], dict[str, Tensor]],
    shard: int = 1024,
    first: int = 0,
) -> None:
    """Write the shards that a folder lacks.

    sizes   {size: its share of the scenes}
    total   scenes, shared among the sizes; rounded to whole shards for a size that has more than one shard
    encode  the tensors of scenes by their numbers and their size, each of as many rows
    shard   scenes of a file
    first   the lowest number of each size

    ValueError when the disk is full: finished shards stay.
    """
    rows = {size: _shard_rows(total * share, shard) for size, share in sizes.items()}
    # In the order of their share, so that an unfinished cache has every size and can already be trained on.
    order = sorted((index / len(counts), size, index) for size, counts in rows.items() for index in range(len(counts)))
    with tqdm(desc="encoding scenes", total=sum(map(sum, rows.values())), unit="scene") as bar:
        for _, (width, height), index in order:
            path, count = out / f"{width}x{height}-{index:04d}.safetensors", rows[width, height][index]
            if not _has_rows(path, count):
                numbers = list(range(first + index * shard, first + index * shard + count))
                write_shard(encode(numbers, (width, height)) | {"numbers": torch.tensor(numbers)}, path)
            bar.update(count)


def _shard_rows(scenes: float, shard: int) -> list[int]:
    """Scenes of each shard of a size: whole shards, or one smaller shard where there are fewer scenes."""
    return [max(1, round(scenes))] if scenes < shard else [shard] * round(scenes / shard)


def _has_rows(path: Path, count: int) -> bool:
    """Whether a shard exists with at least so many scenes: one of a smaller total is written again."""
    if not path.is_file():
        return False
    with safe_open(path, "pt") as file:
        return file.get_slice("numbers").get_shape()[0] >= count


@dataclass(frozen=True)
class TokenCache:
    """Everything in cache folders, in memory: {size: {name: tensor of n rows}}, "numbers" among the names."""

    tables: dict[Size, dict[str, Tensor]]

    @staticmethod
    def open(folders: str | Path, command: str) -> "TokenCache":
        """`folders`: one, or several with commas between. `command`: what fills one, for the message of an empty one.

        ValueError for a folder without shards.
        """
        shards: dict[Size, list[dict[str, Tensor]]] = {}
        for folder in str(folders).split(","):
            paths = sorted(Path(folder).glob("*x*-*.safetensors"))
            if not paths:
                raise ValueError(f"{folder} holds no cached scenes: run {command} --out {folder}")
            for path in paths:
                width, height = map(int, path.name.split("-")[0].split("x"))
                shards.setdefault((width, height), []).append(load_file(path))
        return TokenCache({size: _joined(parts) for size, parts in shards.items()})

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Size, dict[str, Tensor]]:
        """(size, {name: tensor of `count` rows}) of scenes of one size, which is chosen by how many there are."""
        rows = [len(table["numbers"]) for table in self.tables.values()]
        size = list(self.tables)[rng.choice(len(rows), p=np.array(rows) / sum(rows))]
        return size, self.rows(size, count, rng)

    def rows(self, size: Size, count: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """{name: tensor of `count` rows} of a size, different ones while there are enough."""
        table = self.tables[size]
        stored = len(table["numbers"])
        chosen = torch.from_numpy(rng.choice(stored, count, replace=stored < count))
        return {name: tensor[chosen] for name, tensor in table.items()}


def _joined(shards: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The rows of all shards, of the tensors that every shard has."""
    names = set.intersection(*(set(shard) for shard in shards))
    return {name: torch.cat([shard[name] for shard in shards]) for name in sorted(names)}
