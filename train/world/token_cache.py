"""Codes of rendered scenes, computed once, and the batches that are read from them.

A cache is a folder with `cache.json` (what made it) and `<columns>x<rows>-<shard>.safetensors`, each written whole:
{"tokens": (n, N) uint16, "numbers": (n,) int64}. A scene is a function of its number, shape and world, so captions and
labels are made anew each time they are read. A run that was stopped goes on with the shards that are missing.

Axes: B scenes of a batch, N cells, L text tokens, n scenes of a shard.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tqdm import tqdm

from maskgil import checkpoint
from maskgil.tokenizers.vq import VQModel
from train.data.cache_files import write_note, write_shard
from train.data.caption_pieces import padded_pieces, word_pieces
from train.world.answers import cell_answers, cover
from train.world.arrangement import WorldScene
from train.world.code_stage import CELL, to_pixels
from train.world.phrases import say
from train.world.scene_sampling import CROWDS, PAIRS, SHAPES, Shares, sample_scene
from train.world.thing_table import first_things
from train.world.world_data import open_pack, rendered

SHARD = 512
KINDS = (Shares(), Shares(), Shares(), PAIRS, CROWDS)  # of scenes, by number: three of five as people ask for them


def numbered_scene(number: int, shape: tuple[int, int], drawings: str, things: int) -> WorldScene:
    """Training scene `number` of a shape (columns, rows)."""
    rng = np.random.default_rng([31, number, *shape])
    shares = KINDS[number % len(KINDS)]
    return sample_scene(first_things(things), open_pack(drawings), *shape, rng, shares=shares)


def world_identity(drawings: str, things: int) -> str:
    """Another word as soon as table, drawings or sampling give other scenes to the same numbers."""
    scenes = [numbered_scene(number, shape, drawings, things) for shape in SHAPES for number in range(2 * len(KINDS))]
    return hashlib.sha256(repr(scenes).encode()).hexdigest()[:12]


def write_cache(tokenizer: Path, drawings: str, things: int, out: Path, total: int, batch: int = 32) -> None:
    """Fill folder `out` with the codes of about `total` scenes, shared among the shapes as training is. ValueError when
    the folder was made by another tokenizer or of another world."""
    model = checkpoint.load(tokenizer, "vq").eval().to(memory_format=torch.channels_last)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    note = {
        "tokenizer": checkpoint.fingerprint(model.identity()),
        "world": world_identity(drawings, things),
        "things": things,
    }
    out.mkdir(parents=True, exist_ok=True)
    if (out / "cache.json").is_file():
        if (old := json.loads((out / "cache.json").read_text())) != note:
            raise ValueError(f"{out} holds {old}, this run would write {note}: give another folder, or delete it")
    else:
        write_note(out / "cache.json", note)
    counts = {shape: max(1, round(total * share / SHARD)) for shape, share in SHAPES.items()}
    order = sorted((shard / n, shape, shard) for shape, n in counts.items() for shard in range(n))
    for _, shape, shard in tqdm(order, desc="encoding scenes", unit_scale=SHARD, unit="scene"):
        path = out / f"{shape[0]}x{shape[1]}-{shard:04d}.safetensors"
        if path.is_file():
            continue
        numbers = list(range(shard * SHARD, (shard + 1) * SHARD))
        tokens = [encode(model, numbers[i : i + batch], shape, drawings, things) for i in range(0, SHARD, batch)]
        write_shard({"tokens": torch.cat(tokens).to(torch.uint16), "numbers": torch.tensor(numbers)}, path)
    (out / "complete").write_text(f"{total}\n")


@torch.no_grad()
def encode(model: VQModel, numbers: list[int], shape: tuple[int, int], drawings: str, things: int) -> torch.Tensor:
    """Codes (n, N) of scenes by their numbers."""
    scenes = [numbered_scene(number, shape, drawings, things) for number in numbers]
    pixels = to_pixels({"pixels": rendered(scenes, drawings, CELL)}).to(model.quantize.embedding.weight.device)
    return model.tokens(pixels).cpu()


@dataclass(frozen=True)
class CachedShape:
    tokens: torch.Tensor  # (n, N) uint16
    numbers: torch.Tensor  # (n,)


@lru_cache(maxsize=2)
def open_cache(folder: str, drawings: str, things: int) -> dict[tuple[int, int], CachedShape]:
    """All shards of a folder by shape. ValueError when there is none, or when they are of another world."""
    paths = sorted(Path(folder).glob("*x*-*.safetensors"))
    if not paths:
        raise ValueError(f"{folder} holds no cached scenes: run maskgil train world cache")
    note, world = json.loads((Path(folder) / "cache.json").read_text()), world_identity(drawings, things)
    if note["world"] != world:
        raise ValueError(f"{folder} holds scenes of world {note['world']}, this one is {world}: make it anew")
    parts: dict[tuple[int, int], list[dict]] = {}
    for path in paths:
        columns, rows = map(int, path.name.split("-")[0].split("x"))
        parts.setdefault((columns, rows), []).append(load_file(path))
    return {
        shape: CachedShape(torch.cat([p["tokens"] for p in some]), torch.cat([p["numbers"] for p in some]))
        for shape, some in parts.items()
    }


@dataclass(frozen=True)
class CachedScenes:
    """Rows of a cache and their scenes: what the batches below are made of."""

    cache: str
    drawings: str
    things: int
    batch: int
    seed: int

    def __call__(self, index: int) -> tuple[tuple[int, int], torch.Tensor, list[WorldScene], np.random.Generator]:
        """(shape, tokens (B, N), scenes, the generator that chose them) of batch `index`."""
        rng = np.random.default_rng([self.seed, index])
        table = open_cache(self.cache, self.drawings, self.things)
        sizes = np.array([len(part.numbers) for part in table.values()], float)
        shape = list(table)[rng.choice(len(table), p=sizes / sizes.sum())]
        part = table[shape]
        chosen = torch.from_numpy(rng.choice(len(part.numbers), self.batch, replace=len(part.numbers) < self.batch))
        numbers = part.numbers[chosen].tolist()
        scenes = [numbered_scene(number, shape, self.drawings, self.things) for number in numbers]
        return shape, part.tokens[chosen].long(), scenes, rng


@dataclass(frozen=True)
class TokenBatches:
    """For a generator: {"tokens": (B, N), "grid": (rows, columns), "ids", "mask": (B, L)} and what each cell shows."""

    scenes: CachedScenes
    vocabulary: bytes

    def __call__(self, index: int) -> dict:
        (columns, rows), tokens, scenes, rng = self.scenes(index)
        ids, mask = padded_pieces(word_pieces(self.vocabulary).encode([say(scene, rng) for scene in scenes]))
        numbers = torch.arange(index * len(tokens), (index + 1) * len(tokens))
        told = {"tokens": tokens, "numbers": numbers, "grid": (rows, columns), "ids": ids, "mask": mask}
        return told | cell_answers(scenes)


@dataclass(frozen=True)
class PictureBatches:
    """For a decoder: {"tokens", "grid", "pixels": (B, 3, H, W) uint8 at `cell` pixels a cell, "covers": (B, h, w)}."""

    scenes: CachedScenes
    cell: int

    def __call__(self, index: int) -> dict:
        (columns, rows), tokens, scenes, _ = self.scenes(index)
        covers = torch.from_numpy(np.stack([cover(scene)[0] for scene in scenes]))
        pixels = rendered(scenes, self.scenes.drawings, self.cell)
        return {"tokens": tokens, "grid": (rows, columns), "pixels": pixels, "covers": covers}
