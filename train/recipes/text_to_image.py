"""Text-to-image models of any size, on a cache of captioned pictures: `maskgil train t2i --preset tiny --data CACHE`.

docs/training-large.md has the three steps from pictures to a model folder. Tokenizer and text encoder are those of the
cache.
"""

import os
from dataclasses import replace
from typing import Literal

from maskgil.models.config import PRESETS, ModelConfig
from train.activation_checkpointing import bytes_needed
from train.image_rows import write_image_rows
from train.recipe import Recipe
from train.recipes.encoded_pictures import encoded_recipe
from train.recipes.pretrain import PretrainOptions, pretrain_recipe
from train.recipes.shared_options import ImageCacheFolder, Init, ValidCache

# (dim, layers, heads)
SHAPES = {"tiny": (256, 8, 4)} | {
    name: (PRESETS[name].dim, PRESETS[name].layers, PRESETS[name].heads) for name in ("b", "l", "xl", "xxl")
}
TEXT_LENGTH = 120  # tokens of a caption, at most


def text_to_image_config(preset: str, dim: int = 0, layers: int = 0, heads: int = 0) -> ModelConfig:
    """The paper's architecture: 2-D rotation, QK-norm and post-norm; a number other than 0 replaces the preset's.

    The cache determines the codes and the width of text states. ValueError for an impossible shape.
    """
    shape = [given or own for given, own in zip((dim, layers, heads), SHAPES[preset], strict=True)]
    return ModelConfig(
        codebook_size=1, dim=shape[0], layers=shape[1], heads=shape[2], text_dim=1, text_length=TEXT_LENGTH,
        qk_norm="layer", norm="post", dropout=0.0,
    )  # fmt: skip


def t2i(
    data: ImageCacheFolder,
    preset: Literal["tiny", "b", "l", "xl", "xxl"] = "b",
    dim: int = 0,
    layers: int = 0,
    heads: int = 0,
    encode: int = 0,
    init: Init = "",
    valid: ValidCache = "",
    options: PretrainOptions = PretrainOptions(),  # noqa: B008
) -> Recipe:
    """A text-to-image model of any size, on a cache of captioned pictures.

    The cache of a model to go on from (--init) must be made with its tokenizer and text encoder.

    Args:
        preset: Shape of a new model: tiny (9M), b (110M), l (340M), xl (775M), xxl (1.4B).
        dim: Width; 0: the preset's.
        layers: Blocks; 0: the preset's.
        heads: Attention heads; 0: the preset's.
        encode: Size class in pixels: --data and --valid are folders or tables of captioned pictures, which are cut at
            random and encoded in each step by --tokenizer and --text-encoder. 0: they are caches.
    """
    if init and (dim or layers or heads):
        raise ValueError(f"--init {init} keeps its own shape: leave --dim, --layers and --heads out")
    config = text_to_image_config(preset, dim, layers, heads)
    if encode:
        recipe = encoded_recipe("t2i", config, data, init, valid, encode, options, write_image_rows)
    else:
        recipe = pretrain_recipe("t2i", config, data, init, valid, options, write_image_rows)
    model = recipe.modules[0].module
    numbers = sum(p.numel() for p in model.parameters())
    if os.environ.get("RANK", "0") == "0":  # one process speaks for all
        print(
            f"t2i: {numbers / 1e6:,.1f}M parameters, {bytes_needed([model]) / 1e9:,.1f} GB for weights, average, "
            f"gradients and AdamW; {options.batch} pictures a step, {options.batch * options.steps:,} in the whole run"
        )
    shape = {"preset": preset, "encode": encode, "dim": dim, "layers": layers, "heads": heads, "init": init}
    return replace(recipe, options=recipe.options | shape)
