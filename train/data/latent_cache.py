"""Latents of rendered scenes, computed once: `maskgil data latents --tokenizer FOLDER --out FOLDER`.

A cache is a folder with `cache.json` (what made it) and `128x128-<shard>.safetensors`, each written whole: {"mean",
"std": (n, N, C) float16, scaled, "numbers": (n,) int64}, and with `codes` {"codes": (n, N) int16}, those of a VQ
tokenizer that a teacher reads (train/losses/diffusion_token.py): always where the latents are a VQ's own. `kind`: as in
train/data/scene_cache.py. Tokens are drawn from the posterior each time they are read. An eMIGM draws one size, so that
a cache holds one.

Axes: B batch, n pictures, N tokens, C channels, L pieces of a caption.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from maskgil import checkpoint
from maskgil.tokenizers import vq_latents
from maskgil.tokenizers.autoencoder import AutoencoderTokenizer, validate_scale
from maskgil.tokenizers.vq import VQModel
from maskgil.tokenizers.vq_latents import VQLatentTokenizer
from train.data.cache_files import write_note, write_shard
from train.data.caption_pieces import padded_pieces, word_pieces
from train.data.scene_cache import (
    KINDS,
    NOTE,
    OTHERS,
    SHARD,
    corpus,
    has_rows,
    note_of,
    scene_number,
    tokenizer_of,
)
from train.precision import chosen_precision
from train.scenes.captions import caption
from train.scenes.labels import cells
from train.scenes.render import render
from train.scenes.scene import Scene
from train.scenes.sprites import Sprites

SIDE = 128  # pixels
# Slots for text: every one costs as much as a token, and of 40,000 captions the longest has 27 pieces, END included.
# What is longer, once in a million, is said anew in training and refused when one draws.
WORDS = 28


@torch.no_grad()
def write_latents(
    tokenizer: AutoencoderTokenizer | VQLatentTokenizer,
    sprites: Sprites,
    out: Path,
    total: int,
    shard: int = SHARD,
    codes: VQModel | None = None,
    first: int = 0,
) -> None:
    """Fill folder `out` with about `total` scenes of 128 x 128 from number `first` on; a run that was killed goes on.

    Raises ValueError when the folder was made by another tokenizer, with other codes, of another corpus or kind, or its
    latents are not scaled to about 1.
    """
    if own := isinstance(tokenizer, VQLatentTokenizer) and codes is None:
        codes = tokenizer.vq
    note, made_by = out / NOTE, checkpoint.fingerprint(tokenizer.identity())
    told = {"tokenizer": made_by, "corpus": corpus(), "total": total, "shard": shard, "sprites": sprites.identity()}
    told["latent"], told["first"] = tokenizer.config.to_dict(), first
    if codes is not None:
        told["codes"] = checkpoint.fingerprint(codes.identity())
    before = note_of(out) if note.is_file() else told
    for part in ("tokenizer", "codes"):
        if before.get(part) != told.get(part):
            what = "another tokenizer" if part == "tokenizer" else "other codes, or with none"
            raise ValueError(f"{out} was made with {what}: give another folder, or delete it")
    if before.get("first", 0) != first:
        raise ValueError(f"{out} was made with another kind of scenes: give another folder, or delete it")
    if before.get("sprites", told["sprites"]) != told["sprites"]:
        raise ValueError(f"{out} was made with {OTHERS}: give another folder, or delete it")
    write_note(note, told)
    half = chosen_precision("auto", torch.device("cpu")) == "bf16"
    count = min(shard, max(1, total))
    for number in tqdm(range(max(1, round(total / shard))), desc="encoding scenes", unit_scale=count, unit="scene"):
        path = out / f"{SIDE}x{SIDE}-{number:04d}.safetensors"
        if has_rows(path, count):
            continue
        numbers = list(range(first + number * shard, first + number * shard + count))
        means, deviations, indices = [], [], []
        for start in range(0, count, 32):
            drawn = []
            for n in numbers[start : start + 32]:
                scene, rng = scene_number(n, SIDE, SIDE)
                drawn.append(render(scene, sprites, rng))
            pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                mean, deviation = tokenizer.moments(pixels)
                if codes is not None:
                    indices.append((tokenizer.codes(mean) if own else codes.tokens(pixels)).short())
            means.append(mean)
            deviations.append(deviation)
        mean, deviation = torch.cat(means), torch.cat(deviations)
        validate_scale(mean, tokenizer.config.scale, deviation)
        tensors = {"mean": mean.half(), "std": deviation.half(), "numbers": torch.tensor(numbers)}
        write_shard(tensors | ({"codes": torch.cat(indices)} if indices else {}), path)


@dataclass(frozen=True)
class LatentCache:
    """Everything in a cache folder, or in several, in memory."""

    mean: Float[Tensor, "n N C"]
    std: Float[Tensor, "n N C"]
    numbers: Int[Tensor, " n"]
    tokenizer: str  # fingerprint
    codes: Int[Tensor, "n N"] | None = None  # of a VQ tokenizer, where all folders have those of the same
    codes_of: str | None = None  # its fingerprint

    @staticmethod
    def open(folders: str | Path) -> "LatentCache":
        """`folders`: one, or several with commas between. Raises ValueError for one without latents, for latents of the
        wrong scale, and as tokenizer_of."""
        made_by, parts, codes_of = tokenizer_of(folders), [], set()
        for folder in str(folders).split(","):
            own = [load_file(path) for path in sorted(Path(folder).glob(f"{SIDE}x{SIDE}-*.safetensors"))]
            if not own or "mean" not in own[0]:
                raise ValueError(f"{folder} holds no cached latents: run maskgil data latents --out {folder}")
            note = note_of(folder)
            try:
                validate_scale(own[0]["mean"][:1024], note["latent"]["scale"], own[0]["std"][:1024])
            except ValueError as error:
                raise ValueError(f"{folder}: {error}") from None
            parts += own
            codes_of.add(note.get("codes"))
        mean, std, numbers = (torch.cat([part[name] for part in parts]) for name in ("mean", "std", "numbers"))
        one = codes_of.pop() if len(codes_of) == 1 else None
        codes = torch.cat([part["codes"] for part in parts]) if one else None
        return LatentCache(mean, std, numbers, made_by, codes, one)


@cache
def opened_latents(folder: str) -> LatentCache:
    """The latents of one or several folders, read once a process."""
    return LatentCache.open(folder)


@dataclass(frozen=True)
class SceneLatents:
    """Cached latents, sampled anew, with fresh captions: {"tokens": (B, N, C), "grid", "ids", "mask": (B, L)}, and what
    each cell shows: {"things", "parts", "grounds", "styles", "colours": (B, N)} (`cells` in train/scenes/labels.py),
    with its code where the cache has them: {"codes": (B, N)}. No caption has more than `words` pieces."""

    folder: str
    vocabulary: bytes
    batch: int = 64
    seed: int = 2
    words: int = WORDS

    def __call__(self, index: int) -> dict:
        rng, table = np.random.default_rng([self.seed, index]), opened_latents(self.folder)
        chosen = rng.choice(len(table.numbers), self.batch, replace=len(table.numbers) < self.batch)
        scenes = [scene_number(int(table.numbers[i]), SIDE, SIDE)[0] for i in chosen]
        ids, mask = padded_pieces([self._said(scene, rng) for scene in scenes])
        noise = torch.from_numpy(rng.standard_normal((self.batch, *table.mean.shape[1:]), np.float32))
        chosen = torch.from_numpy(chosen)
        side = int(table.mean.shape[1] ** 0.5)
        return (
            {
                "tokens": table.mean[chosen].float() + table.std[chosen].float() * noise,
                "ids": ids,
                "mask": mask,
                "grid": (side, side),
            }
            | ({} if table.codes is None else {"codes": table.codes[chosen].long()})
            | cells(scenes)
        )

    def _said(self, scene: Scene, rng: np.random.Generator) -> list[int]:
        """Pieces of a caption that fits, END not among them."""
        for _ in range(20):
            pieces = word_pieces(self.vocabulary).encode(caption(scene, rng))
            if len(pieces) < self.words:
                return pieces
        raise ValueError(
            f"the text encoder cuts {caption(scene, rng)!r} into {len(pieces)} pieces; there are {self.words} slots"
        )


def cache_latents(
    tokenizer: str,
    out: str,
    kind: Literal["scenes", "paired"] = "scenes",
    sprites: str | None = None,
    total: int = 50_000,
    codes: str | None = None,
) -> None:
    """Encode drawn scenes into latents, for the recipes of eMIGM.

    Args:
        tokenizer: A KL tokenizer's folder, or a VQ tokenizer's, whose latents before quantization are kept.
        out: The folder of the cache. The same command again continues there.
        kind: scenes, or paired: two things, one of a given color.
        sprites: A folder of drawings. Left out: the emoji font alone.
        total: How many scenes; above 1,024 rounded to files of 1,024.
        codes: A VQ tokenizer whose codes are kept too, for a teacher.
    """
    if total < 1:
        raise ValueError(f"total={total}: give 1 or more")
    model = vq_latents.load_latent_tokenizer(tokenizer).to(memory_format=torch.channels_last)
    reads = checkpoint.load(codes, "vq") if codes else None
    write_latents(model, Sprites(sprites), Path(out), total, codes=reads, first=KINDS[kind])
