"""A cache of the codes of scenes of the open world (`maskgil train world cache`, see README.md), and batches from it.

Axes: B scenes, N cells, L text tokens, n scenes of a shard. The files are those of train/data/token_cache.py, with
{"tokens": (n, N) uint16}; sizes are in cells.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from maskgil import checkpoint
from maskgil.fileio import replace_file
from maskgil.tokenizers.vq import VQModel
from train.data.caption_pieces import padded_pieces, word_pieces
from train.data.token_cache import Size, TokenCache, begin_cache, read_note, write_shards
from train.world.answers import cell_answers, cover
from train.world.arrangement import WorldScene
from train.world.code_stage import CELL, to_pixels
from train.world.phrases import say
from train.world.scene_sampling import CROWDS, PAIRS, SHAPES, Shares, sample_scene
from train.world.thing_table import first_things
from train.world.world_data import open_pack, rendered

COMMAND = "maskgil train world cache"  # the command that fills a cache
KINDS = (
    Shares(),
    Shares(),
    Shares(),
    PAIRS,
    CROWDS,
)  # shares of scene n are KINDS[n % 5]: three of five scenes have the usual ones


def numbered_scene(number: int, shape: tuple[int, int], drawings: str, things: int) -> WorldScene:
    """Training scene `number` of a shape (columns, rows)."""
    rng = np.random.default_rng([31, number, *shape])
    shares = KINDS[number % len(KINDS)]
    return sample_scene(first_things(things), open_pack(drawings), *shape, rng, shares=shares)


@lru_cache(maxsize=2)
def world_identity(drawings: str, things: int) -> str:
    """A fingerprint of the numbered scenes. It changes where the table of things, the drawings or the sampling give
    other scenes."""
    scenes = [numbered_scene(number, shape, drawings, things) for shape in SHAPES for number in range(2 * len(KINDS))]
    return hashlib.sha256(repr(scenes).encode()).hexdigest()[:12]


def write_cache(
    tokenizer: Path, drawings: str, things: int, out: Path, total: int, batch: int = 32, shard: int = 512
) -> None:
    """Fill the folder `out` with the codes of about `total` scenes, in the shares of SHAPES. The file `complete` is
    written at the end. ValueError where the folder was made with another tokenizer or of another world."""
    model = checkpoint.load(tokenizer, "vq").eval().to(memory_format=torch.channels_last)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    made_by = checkpoint.fingerprint(model.identity())
    note = {"tokenizer": made_by, "corpus": world_identity(drawings, things), "total": total}
    begin_cache(out, note, {"tokenizer": "another tokenizer"})

    def encode_shard(numbers: list[int], shape: Size) -> dict[str, Tensor]:
        starts = range(0, len(numbers), batch)
        tokens = [encode(model, numbers[start : start + batch], shape, drawings, things) for start in starts]
        return {"tokens": torch.cat(tokens).to(torch.uint16)}

    write_shards(out, SHAPES, total, encode_shard, shard)
    replace_file(out / "complete", f"{total}\n".encode())


@torch.no_grad()
def encode(
    model: VQModel, numbers: list[int], shape: tuple[int, int], drawings: str, things: int
) -> Int[Tensor, "n N"]:
    """Codes of scenes by their numbers."""
    scenes = [numbered_scene(number, shape, drawings, things) for number in numbers]
    pixels = to_pixels({"pixels": rendered(scenes, drawings, CELL)}).to(model.quantize.embedding.weight.device)
    return model.tokens(pixels).cpu()


@lru_cache(maxsize=2)
def open_world_codes(folder: str, drawings: str, things: int) -> TokenCache:
    """The cache of a folder. ValueError where there is none, or where it is of another world."""
    read_note(folder, world_identity(drawings, things))
    return TokenCache.open(folder, COMMAND)


@dataclass(frozen=True)
class CachedScenes:
    """Rows of a cache with their scenes, from which the batches below are made."""

    cache: str
    drawings: str
    things: int
    batch: int
    seed: int

    def __call__(self, index: int) -> tuple[tuple[int, int], torch.Tensor, list[WorldScene], np.random.Generator]:
        """(shape, tokens (B, N), scenes, the generator that chose them) of batch `index`."""
        rng = np.random.default_rng([self.seed, index])
        shape, rows = open_world_codes(self.cache, self.drawings, self.things).draw(self.batch, rng)
        scenes = [numbered_scene(number, shape, self.drawings, self.things) for number in rows["numbers"].tolist()]
        return shape, rows["tokens"].long(), scenes, rng


@dataclass(frozen=True)
class TokenBatches:
    """For a generator: {"tokens": (B, N), "grid": (rows, columns), "ids", "mask": (B, L)} and the labels of each
    cell."""

    scenes: CachedScenes
    vocabulary: bytes

    def __call__(self, index: int) -> dict:
        (columns, rows), tokens, scenes, rng = self.scenes(index)
        ids, mask = padded_pieces(word_pieces(self.vocabulary).encode([say(scene, rng) for scene in scenes]))
        numbers = torch.arange(index * len(tokens), (index + 1) * len(tokens))
        told = {"tokens": tokens, "numbers": numbers, "grid": (rows, columns), "ids": ids, "mask": mask}
        return told | cell_answers(scenes)


@dataclass(frozen=True)
class DecoderPictures:
    """For a decoder: {"tokens", "grid", "pixels": (B, 3, H, W) uint8 at `cell` pixels a cell, "covers": (B, h, w)}."""

    scenes: CachedScenes
    cell: int

    def __call__(self, index: int) -> dict:
        (columns, rows), tokens, scenes, _ = self.scenes(index)
        covers = torch.from_numpy(np.stack([cover(scene)[0] for scene in scenes]))
        pixels = rendered(scenes, self.scenes.drawings, self.cell)
        return {"tokens": tokens, "grid": (rows, columns), "pixels": pixels, "covers": covers}
