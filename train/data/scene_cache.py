"""Codes of drawn scenes: `maskgil data scenes --tokenizer weights/scenes/tokenizer --out FOLDER`.

Other people's pictures are cached by `maskgil data images` (train/data/image_cache.py).

The kinds: `scenes` train the generator. `paired` scenes have two kinds of things, at least one of them in a given
color; mixed in (--cache cache/scenes,cache/paired), they train which color belongs to which thing. `crowded` scenes
have unnatural captions and train the decoder. `several` have three or four things. `new` ones show a thing of the table
after KNOWN_THINGS, and train an expert for these (maskgil/experts.py).

Axes: B scenes, n scenes of a shard, N tokens. The files are those of train/data/token_cache.py, with {"tokens": (n, N)
uint16}; sizes are in pixels.
"""

import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from maskgil import checkpoint
from maskgil.tokenizers.vq import VQModel
from train.data.token_cache import NOTE, Size, TokenCache, begin_cache, read_note, write_shards
from train.precision import chosen_precision
from train.scenes.render import render
from train.scenes.scene import SIZES, Scene, crowded, new_things, paired, random_scene, several
from train.scenes.sprites import Sprites

CROWDED = 10_000_000
OTHERS = "other drawings (--sprites)"
# What is different where an entry of a cache's note is.
DIFFERENCES = {"tokenizer": "another tokenizer", "first": "another kind of scenes", "sprites": OTHERS}
# The first number of each kind, and what makes its scenes.
KINDS = {"scenes": 0, "crowded": CROWDED, "paired": 20_000_000, "several": 30_000_000, "new": 40_000_000}
MAKERS = {"scenes": random_scene, "crowded": crowded, "paired": paired, "several": several, "new": new_things}


def scene_number(number: int, width: int, height: int, snap: int = 16) -> tuple[Scene, np.random.Generator]:
    """Training scene `number` of a size, of the last kind whose first number it reaches, and the generator that draws
    it."""
    rng = np.random.default_rng([31, number, width, height])
    kind = max((kind for kind, first in KINDS.items() if number >= first), key=KINDS.__getitem__)
    return MAKERS[kind](rng, width, height, snap=snap), rng


@cache
def corpus() -> str:
    """Stands for the scenes that the numbers mean. It changes as soon as scene.py or objects.tsv give other scenes,
    because the captions of cached tokens would then describe other pictures."""
    first = [scene_number(n, *size)[0] for size in SIZES for n in (*range(16), CROWDED)]
    return hashlib.sha256(repr(first).encode()).hexdigest()[:12]


def note_of(folder: str | Path) -> dict[str, Any]:
    """cache.json of a folder of scenes. Raises ValueError as read_note."""
    return read_note(folder, corpus())


def tokenizer_of(folders: str | Path) -> str:
    """The hash of the tokenizer that made all these folders (with commas between). Raises ValueError when two differ,
    and as note_of."""
    made_by = {folder: note_of(folder)["tokenizer"] for folder in str(folders).split(",")}
    if len(set(made_by.values())) > 1:
        each = ", ".join(f"{folder} by {tokenizer}" for folder, tokenizer in made_by.items())
        raise ValueError(f"caches of different tokenizers cannot be mixed: {each}")
    return next(iter(made_by.values()))


def load_cache_tokenizer(cache: str, tokenizer: str) -> tuple[VQModel, str]:
    """(the tokenizer that made a cache's tokens, its fingerprint). ValueError when another one did."""
    made_by, model = tokenizer_of(cache), checkpoint.load(tokenizer, "vq")
    if (own := checkpoint.fingerprint(model.identity())) != made_by:
        raise ValueError(f"{cache} holds tokens of tokenizer {made_by}, {tokenizer} is {own}")
    return model, own


def scene_pixels(
    numbers: list[int], size: Size, sprites: Sprites, batch: int = 32
) -> Iterator[Float[Tensor, "B 3 H W"]]:
    """Pictures of scenes in [-1, 1], `batch` at a time."""
    for start in range(0, len(numbers), batch):
        scenes = [scene_number(number, *size) for number in numbers[start : start + batch]]
        drawn = np.stack([render(scene, sprites, rng) for scene, rng in scenes])
        pixels = torch.from_numpy(drawn).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        yield pixels.contiguous(memory_format=torch.channels_last)


def encodes_in_half() -> bool:
    """Whether this processor encodes scenes in bfloat16, because that is faster."""
    return chosen_precision("auto", torch.device("cpu")) == "bf16"


def write_scenes(
    tokenizer: VQModel, sprites: Sprites, out: Path, total: int, made_by: str, first: int = 0, shard: int = 1024
) -> None:
    """Fill folder `out` with about `total` scenes from number `first` on, shared among the sizes as training is.

    made_by  the tokenizer's fingerprint

    Raises ValueError when the folder was made by another tokenizer, of another corpus, kind or drawings, and when the
    disk is full: finished shards stay.
    """
    note = {"tokenizer": made_by, "corpus": corpus(), "total": total, "first": first, "sprites": sprites.identity()}
    begin_cache(out, note, DIFFERENCES)
    half = encodes_in_half()

    def encode(numbers: list[int], size: Size) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):  # scenes have the size that the encoder reads
            tokens = [tokenizer.tokens(pixels) for pixels in scene_pixels(numbers, size, sprites)]
        return {"tokens": torch.cat(tokens).to(torch.uint16)}

    write_shards(out, SIZES, total, encode, shard, first)


def check_drawings(folders: Iterable[str | Path], sprites: Sprites) -> None:
    """ValueError where a cache was made from other drawings than `sprites`, which will draw its scenes again."""
    for folder in folders:
        if note_of(folder).get("sprites", sprites.identity()) != sprites.identity():
            raise ValueError(f"{folder} was made with {OTHERS}: give the --sprites that it was made with")


def open_codes(folders: str | Path) -> TokenCache:
    """The codes of one or several folders, with commas between. ValueError for a folder without codes and for folders
    of different tokenizers."""
    for folder in str(folders).split(","):
        if (Path(folder) / NOTE).is_file() and "latent" in note_of(folder):
            raise ValueError(f"{folder} holds latents, which scenes-emigm learns from; codes are wanted here")
    opened = TokenCache.open(folders, "maskgil data scenes")
    tokenizer_of(folders)
    return opened


def cache_scenes(
    tokenizer: str,
    out: str,
    kind: Literal["scenes", "paired", "crowded", "several", "new"] = "scenes",
    sprites: str | None = None,
    total: int = 50_000,
) -> None:
    """Encode drawn scenes into tokens, for the recipes of codes.

    Args:
        tokenizer: A VQ tokenizer's folder.
        out: The folder of the cache. The same command again continues there.
        kind: scenes for the generator; paired: two things, one of a given color; crowded: for the decoder;
            several: three or four things, most of them new in the table; new: with a new thing, for an expert.
        sprites: A folder of drawings. Left out: only the emoji font.
        total: How many scenes, shared among the four sizes; rounded to files of 1,024 where a size has more than that.
    """
    if total < 1:
        raise ValueError(f"total={total}: give 1 or more")
    model = checkpoint.load(tokenizer)
    model.eval().to(memory_format=torch.channels_last)
    made_by = checkpoint.fingerprint(model.identity())
    write_scenes(model, Sprites(sprites), Path(out), total, made_by, KINDS[kind])


if __name__ == "__main__":
    raise SystemExit("error: this command is `maskgil data` now")
