"""Tokens of rendered scenes, computed once: `maskgil data scenes --tokenizer weights/scenes/tokenizer --out FOLDER`.

Other people's pictures are cached by `maskgil data images` (train/data/image_cache.py).

The kinds: `scenes` train the generator. `paired` scenes have two kinds of things, at least one of them in a given
color; mixed in (--cache cache/scenes,cache/paired), they train which color belongs to which thing. `crowded` scenes
have unnatural captions and train the decoder. `several` have three or four things. `new` ones show a thing of the table
after KNOWN_THINGS, and train an expert for these (maskgil/experts.py).

Axes: n pictures, N tokens. A cache is a folder with `cache.json` (what made it) and `<W>x<H>-<shard>.safetensors`, each
written whole: {"tokens": (n, N) uint16, "numbers": (n,) int64}. A scene is a function of its number, so that captions
are said anew each time they are read. A run that was killed goes on with the shards that are missing.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tqdm import tqdm

from maskgil import checkpoint
from maskgil.tokenizers.vq import VQModel
from train.data.cache_files import write_note, write_shard
from train.precision import chosen_precision
from train.scenes.render import render
from train.scenes.scene import SIZES, Scene, crowded, new_things, paired, random_scene, several
from train.scenes.sprites import Sprites

NOTE = "cache.json"
SHARD = 1024
CROWDED = 10_000_000
OTHERS = "other drawings (--sprites)"
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
    """What the numbers of scenes stand for: another word as soon as layout.py or objects.tsv give other scenes, since
    the captions of tokens that were cached before would then tell of something else."""
    first = [scene_number(n, *size)[0] for size in SIZES for n in (*range(16), CROWDED)]
    return hashlib.sha256(repr(first).encode()).hexdigest()[:12]


def note_of(folder: str | Path) -> dict[str, Any]:
    """cache.json of a folder of scenes. ValueError when there is none, and when its scenes are of another corpus."""
    path = Path(folder) / NOTE
    if not path.is_file():
        raise ValueError(
            f"{folder} is no cache of scenes: see train/data/scene_cache.py for codes, "
            "train/data/latent_cache.py for latents"
        )
    note = json.loads(path.read_text())
    if note.get("corpus") != corpus():
        raise ValueError(
            f"{folder} holds scenes of another corpus than this one, and captions would not fit them: make it anew"
        )
    return note


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


def write_scenes(tokenizer: VQModel, sprites: Sprites, out: Path, total: int, made_by: str, first: int = 0) -> None:
    """Fill folder `out` with about `total` scenes from number `first` on, shared among the sizes as training is.

    Raises ValueError when the folder was made by another tokenizer, of another corpus, kind or drawings, and when the
    disk is full: finished shards stay.
    """
    told = {"tokenizer": made_by, "corpus": corpus(), "total": total, "first": first, "sprites": sprites.identity()}
    if (out / NOTE).is_file():
        before = note_of(out)
        named = {"tokenizer": "another tokenizer", "first": "another kind of scenes", "sprites": OTHERS}
        for part, what in named.items():
            if before.get(part, told[part]) != told[part]:
                raise ValueError(f"{out} was made with {what}: give another folder, or delete it")
    write_note(out / NOTE, told)
    rows = {size: _shard_rows(total * share) for size, share in SIZES.items()}
    half = chosen_precision("auto", torch.device("cpu")) == "bf16"
    # in the order of their share, so that an unfinished cache has every size and can already be trained on
    shards = sorted(((k / len(n), size, k) for size, n in rows.items() for k in range(len(n))), key=lambda s: s[:2])
    bar = tqdm(desc="encoding scenes", total=sum(map(sum, rows.values())), unit="scene")
    for _, (width, height), shard in shards:
        path, count = out / f"{width}x{height}-{shard:04d}.safetensors", rows[width, height][shard]
        bar.update(count)
        if has_rows(path, count):
            continue
        numbers = list(range(first + shard * SHARD, first + shard * SHARD + count))
        tokens = []
        for start in range(0, count, 32):
            drawn = [render(*_ordered(scene_number(n, width, height), sprites)) for n in numbers[start : start + 32]]
            pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):  # a scene's size is that of the encoder
                tokens.append(tokenizer.tokens(pixels.contiguous(memory_format=torch.channels_last)))
        write_shard({"tokens": torch.cat(tokens).to(torch.uint16), "numbers": torch.tensor(numbers)}, path)


def _shard_rows(scenes: float) -> list[int]:
    """Scenes of each shard of a size: whole shards, or one smaller shard where there are not as many."""
    return [max(1, round(scenes))] if scenes < SHARD else [SHARD] * round(scenes / SHARD)


def has_rows(path: Path, count: int) -> bool:
    """Whether a shard is there with at least so many scenes: one of a smaller `--total` is written again."""
    if not path.is_file():
        return False
    with safe_open(path, "pt") as file:
        return file.get_slice("numbers").get_shape()[0] >= count


def check_drawings(folders: Iterable[str | Path], sprites: Sprites) -> None:
    """ValueError where a cache was made from other drawings than these, with which its scenes are drawn anew."""
    for folder in folders:
        if note_of(folder).get("sprites", sprites.identity()) != sprites.identity():
            raise ValueError(f"{folder} was made with {OTHERS}: give the --sprites that it was made with")


def _ordered(pair: tuple[Scene, np.random.Generator], sprites: Sprites) -> tuple:
    return pair[0], sprites, pair[1]


@dataclass(frozen=True)
class SceneCache:
    """Everything in cache folders, in memory: {(width, height): (tokens (n, N), numbers (n,))}."""

    tables: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]]

    @classmethod
    def open(cls, folders: str | Path) -> "SceneCache":
        """`folders`: one, or several with commas between, all of one tokenizer."""
        tables: dict[tuple[int, int], list[dict]] = {}
        for folder in str(folders).split(","):
            paths = sorted(Path(folder).glob("*x*-*.safetensors"))
            if paths and "latent" in note_of(folder):
                raise ValueError(f"{folder} holds latents, which scenes-emigm learns from; codes are wanted here")
            if not paths:
                raise ValueError(f"{folder} holds no cached scenes: run maskgil data scenes --out {folder}")
            for path in paths:
                width, height = map(int, path.name.split("-")[0].split("x"))
                tables.setdefault((width, height), []).append(load_file(path))
        tokenizer_of(folders)
        return cls(
            {
                size: (torch.cat([p["tokens"] for p in parts]), torch.cat([p["numbers"] for p in parts]))
                for size, parts in tables.items()
            }
        )


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
        sprites: A folder of drawings. Left out: the emoji font alone.
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
