"""Text-driven models on pictures and captions that are encoded in each step, without a cache: `t2i --encode 256`.

Every picture is cut at another place each time. That costs a pass of the tokenizer's encoder and of the text encoder in
each step, and no disk: text states of large encoders take kilobytes a word in a cache.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

import text_encoder as encoders
from maskgil import checkpoint
from maskgil.aspect_buckets import aspect_buckets
from maskgil.models.config import ModelConfig
from train.data.image_cache import CacheWriter
from train.data.picture_batches import PictureBatches, PictureIndex
from train.losses.encoded_step import EncodedStep
from train.recipe import Recipe
from train.recipes.pretrain import MASKED, PretrainOptions, save_generator, started_model, training_recipe
from train.recipes.sample_sheets import SHOWN, encoded_prompts, sheet_sampler

TRIES = 16  # batches in which a full one is looked for, for the sample sheets


def encoded_recipe(
    name: str,
    config: ModelConfig,
    data: str,
    init: str,
    valid: str,
    size: int,
    options: PretrainOptions,
    show: Callable,
) -> Recipe:
    """A recipe over the captioned pictures of the folder or table `data`, in the buckets of a size class.

    Other arguments as for `pretrain_recipe`. ValueError without a tokenizer of codes and a text encoder, and when no
    picture can be used.
    """
    options.check()
    if not (options.tokenizer and options.text_encoder):
        raise ValueError("--encode needs --tokenizer and --text-encoder, which encode pictures and captions")
    tokenizer = checkpoint.load(checkpoint.resolve(options.tokenizer), "vq").eval().requires_grad_(False)
    encoder = encoders.load(options.text_encoder)
    indexed = PictureIndex.open(data, size)
    for line in indexed.left_out[:5]:
        print(f"left out: {line}")
    used = sum(map(len, indexed.buckets.values()))
    print(f"{data}: {used:,} pictures in {len(indexed.buckets)} shapes, {len(indexed.left_out):,} left out")
    note = CacheWriter(indexed.files, tokenizer, encoder, Path(), aspect_buckets(size)).note()
    model = started_model(config, note, data, init, options, MASKED)

    def export(average: nn.Module, folder: Path) -> None:
        save_generator(average.generator, note, folder / MASKED.folder)

    batches = PictureBatches(data, size, options.micro, options.seed)
    made = training_recipe(name, model, note, options, export, MASKED, batches)
    (part,) = made.modules
    step = EncodedStep(part.loss, tokenizer, encoder)

    @cache
    def shown(_: int) -> dict[str, Any]:
        """The pictures of the sheets, on the CPU."""
        found = (replace(batches, batch=SHOWN, seed=99)(index) for index in range(TRIES))
        return step.encoded(max(found, key=lambda batch: len(batch["captions"])))

    prompted = (
        encoded_prompts(Path(options.prompts), options.text_encoder, note["text_encoder"]) if options.prompts else None
    )
    return replace(
        made,
        modules=(replace(part, loss=step),),
        options={"data": data, "valid": valid} | made.options,
        sample=sheet_sampler(data, options.tokenizer, note, show, MASKED, prompted, lambda _: shown(0)),
        valid_at=PictureBatches(valid, size, options.micro, seed=1) if valid else None,
    )
