"""Latents of drawn scenes: `maskgil data latents --tokenizer FOLDER --out FOLDER`.

The files are those of train/data/token_cache.py, with {"mean", "std": (n, N, C) float16, scaled}, and {"codes": (n, N)
int16} of a VQ tokenizer that a teacher reads (train/losses/diffusion_token.py) where --codes names one or the latents
are a VQ tokenizer's. `kind`: as in train/data/scene_cache.py. Tokens are drawn from the posterior each time they are
read. An eMIGM draws one size, so a cache holds one.

Axes: B batch, n pictures, N tokens, C channels, L pieces of a caption.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from maskgil import checkpoint
from maskgil.tokenizers import vq_latents
from maskgil.tokenizers.autoencoder import AutoencoderTokenizer, validate_scale
from maskgil.tokenizers.vq import VQModel
from maskgil.tokenizers.vq_latents import VQLatentTokenizer
from train.data.caption_pieces import padded_pieces, word_pieces
from train.data.scene_cache import (
    DIFFERENCES,
    KINDS,
    corpus,
    encodes_in_half,
    note_of,
    scene_number,
    scene_pixels,
    tokenizer_of,
)
from train.data.token_cache import Size, TokenCache, begin_cache, write_shards
from train.scenes.captions import caption
from train.scenes.labels import cells
from train.scenes.scene import Scene
from train.scenes.sprites import Sprites

SIDE = 128  # pixels
# Slots for text. Each costs as much as a token. The longest of 40,000 captions has 27 pieces, END included. A longer
# one (one in a million) is replaced by another caption in training, and refused as a prompt.
WORDS = 28
COMMAND = "maskgil data latents"  # that fills a cache


@torch.no_grad()
def write_latents(
    tokenizer: AutoencoderTokenizer | VQLatentTokenizer,
    sprites: Sprites,
    out: Path,
    total: int,
    shard: int = 1024,
    codes: VQModel | None = None,
    first: int = 0,
) -> None:
    """Fill folder `out` with about `total` scenes of 128 x 128 from number `first` on. A killed run continues.

    Raises ValueError when the folder was made by another tokenizer, with other codes, of another corpus or kind, or its
    latents are not scaled to about 1.
    """
    read_by = codes or tokenizer.code_tokenizer
    note = {
        "tokenizer": checkpoint.fingerprint(tokenizer.identity()),
        "codes": None if read_by is None else checkpoint.fingerprint(read_by.identity()),
        "corpus": corpus(),
        "total": total,
        "shard": shard,
        "first": first,
        "sprites": sprites.identity(),
        "latent": tokenizer.config.to_dict(),
    }
    begin_cache(out, note, DIFFERENCES | {"codes": "other codes, or with none"})
    half = encodes_in_half()

    def encode(numbers: list[int], size: Size) -> dict[str, Tensor]:
        encoded = []
        for pixels in scene_pixels(numbers, size, sprites):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                mean, deviation = tokenizer.moments(pixels)
                indices = tokenizer.codes(mean) if codes is None else codes.tokens(pixels)
            part = {"mean": mean, "std": deviation}
            encoded.append(part if indices is None else part | {"codes": indices.short()})
        tensors = {name: torch.cat([part[name] for part in encoded]) for name in encoded[0]}
        validate_scale(tensors["mean"], tokenizer.config.scale, tensors["std"])
        return tensors | {"mean": tensors["mean"].half(), "std": tensors["std"].half()}

    write_shards(out, {(SIDE, SIDE): 1.0}, total, encode, shard, first)


@dataclass(frozen=True)
class LatentCache:
    """The latents of one cache folder or of several, in memory.

    codes_of  the fingerprint of the VQ tokenizer whose codes all folders hold; None where they hold none, or different
              ones
    """

    rows: TokenCache
    codes_of: str | None

    @staticmethod
    def open(folders: str | Path) -> "LatentCache":
        """`folders`: one, or several with commas between. Raises ValueError for one without latents, for latents of the
        wrong scale, and as tokenizer_of."""
        tokenizer_of(folders)
        codes_of = set()
        for folder in str(folders).split(","):
            note = note_of(folder)
            if "latent" not in note:
                raise ValueError(f"{folder} holds codes; latents are wanted here: run {COMMAND}")
            table = TokenCache.open(folder, COMMAND).tables[SIDE, SIDE]
            try:
                validate_scale(table["mean"][:1024], note["latent"]["scale"], table["std"][:1024])
            except ValueError as error:
                raise ValueError(f"{folder}: {error}") from None
            codes_of.add(note.get("codes"))
        return LatentCache(TokenCache.open(folders, COMMAND), codes_of.pop() if len(codes_of) == 1 else None)

    @property
    def table(self) -> dict[str, Tensor]:
        """{"mean", "std": (n, N, C), "numbers": (n,)}, with "codes" (n, N) where `codes_of` names their tokenizer."""
        return self.rows.tables[SIDE, SIDE]


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
        rng, cache = np.random.default_rng([self.seed, index]), opened_latents(self.folder)
        rows = cache.rows.rows((SIDE, SIDE), self.batch, rng)
        scenes = [scene_number(number, SIDE, SIDE)[0] for number in rows["numbers"].tolist()]
        ids, mask = padded_pieces([self._said(scene, rng) for scene in scenes])
        noise = torch.from_numpy(rng.standard_normal(rows["mean"].shape, np.float32))
        side = int(noise.shape[1] ** 0.5)
        tokens = rows["mean"].float() + rows["std"].float() * noise
        batch = {"tokens": tokens, "ids": ids, "mask": mask, "grid": (side, side)}
        return batch | ({} if cache.codes_of is None else {"codes": rows["codes"].long()}) | cells(scenes)

    def _said(self, scene: Scene, rng: np.random.Generator) -> list[int]:
        """Pieces of a caption that fits, without END."""
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
        sprites: A folder of drawings. Left out: only the emoji font.
        total: How many scenes; above 1,024 rounded to files of 1,024.
        codes: A VQ tokenizer whose codes are kept too, for a teacher.
    """
    if total < 1:
        raise ValueError(f"total={total}: give 1 or more")
    model = vq_latents.load_latent_tokenizer(tokenizer).to(memory_format=torch.channels_last)
    reads = checkpoint.load(codes, "vq") if codes else None
    write_latents(model, Sprites(sprites), Path(out), total, codes=reads, first=KINDS[kind])
