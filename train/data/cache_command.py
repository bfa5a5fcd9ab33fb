"""`maskgil data images`: the options of a cache of pictures."""

import os
from pathlib import Path
from typing import Literal

import torch

import text_encoder as encoders
from maskgil import checkpoint
from maskgil.aspect_buckets import aspect_buckets
from train.data.image_cache import CacheWriter, fill_cache
from train.data.image_sources import source as image_source


def cache_images(
    source: str,
    tokenizer: str,
    out: str,
    text_encoder: str = "",
    size: int = 256,
    shape: Literal["any", "square"] = "any",
    crop: Literal["any", "centre"] = "any",
    flip: bool = False,
    long_captions: Literal["cut", "drop"] = "cut",
    min_side: int = 16,
    max_aspect: float = 10.0,
    crops: int = 1,
    duplicates: Literal["keep", "drop"] = "keep",
    shuffled_tags: int = 0,
    device: str = "",
    batch: int = 32,
) -> None:
    """Encode pictures into tokens, and their captions into states, for the large recipes. Under torchrun the processes
    share the work.

    Args:
        source: WebDataset shards (part-{00..09}.tar); a folder of pictures with .txt, .caption or .json captions,
            metadata.jsonl or metadata.csv; a folder of class folders; or hf:NAME, a Hugging Face data set.
        tokenizer: A VQ or latent tokenizer's folder.
        out: The folder of the cache. The same command again continues there.
        text_encoder: A Hugging Face name or a folder, for captions. Left out: class folders.
        size: The size class in pixels: 256, 512, 768 or 1024.
        shape: any: all aspect-ratio buckets of the size; square: only SIZE x SIZE.
        crop: Where a picture is cut to its bucket. centre: the same on both sides, as ADM does; any: at a place that
            depends on the picture's name.
        flip: Encode every picture twice, the second time mirrored.
        long_captions: Captions longer than the text encoder reads are cut at a word, or dropped with their pictures.
        min_side: Pictures with a side of fewer pixels are left out.
        max_aspect: Pictures longer than this many times their other side are left out.
        crops: Cut every picture at so many places, each a row of its own.
        duplicates: Drop pictures whose file is the same as another's; each process looks at its own share.
        shuffled_tags: Further captions of each picture, with its comma-separated tags in another order.
        device: cuda or cpu. Left out: cuda where there is one.
        batch: Pictures encoded at once.
    """
    if not (1 <= crops <= 64 and 0 <= shuffled_tags <= 64 and (crops == 1 or crop == "any")):
        raise ValueError(
            f"crops={crops} and shuffled_tags={shuffled_tags}: give up to 64, and several crops with crop any"
        )
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    pictures = image_source(source)
    shapes = [(size, size)] if shape == "square" else aspect_buckets(size)
    folder = checkpoint.resolve(tokenizer)
    kind = "latent" if checkpoint.describe(folder)["kind"] == "latent" else "vq"
    model = checkpoint.load(folder, kind).requires_grad_(False).to(device)
    encoder = encoders.load(text_encoder).to(device) if text_encoder else None
    cut = {"centre": crop == "centre", "flip": flip, "long_captions": long_captions}
    cut |= {"min_side": min_side, "max_aspect": max_aspect, "crops": crops, "shuffled_tags": shuffled_tags}
    cut["drop_duplicates"] = duplicates == "drop"
    fill_cache(CacheWriter(pictures, model, encoder, Path(out), shapes, batch, **cut), rank, world)
