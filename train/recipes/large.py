"""Recipes of the papers' model sizes on caches of pictures, and of LoRA adapters for a model folder."""

from dataclasses import replace

from maskgil.models.config import PRESETS, released_layout
from train.image_rows import write_image_rows
from train.recipe import Recipe
from train.recipes.emigm import RELEASED, RELEASED_LARGE, emigm_recipe
from train.recipes.pretrain import PretrainOptions, pretrain_recipe
from train.recipes.pretrain_ar import CAUSAL
from train.recipes.published import as_published
from train.recipes.shared_options import ImageCacheFolder, Init, PreviousStage, Reference, Repeats, ValidCache


def _large(
    name: str, preset: str, data: str, init: str, valid: str, options: PretrainOptions, reference: bool = False
) -> Recipe:
    config = PRESETS["xxl"] if preset == "t2i-xxl" else PRESETS[preset]
    if preset == "t2i-xxl":
        text = PRESETS["t2i-xl"]
        config = replace(config, classes=None, text_dim=text.text_dim, null_length=text.null_length)
    if reference:
        config, options = released_layout(PRESETS[f"{preset}-llamagen"]), as_published(options, CLASS_DRIVEN, init)
    return pretrain_recipe(name, config, data, init, valid, options, write_image_rows)


def t2i_xl_256(
    data: ImageCacheFolder,
    init: Init = "",
    valid: ValidCache = "",
    options: PretrainOptions = PretrainOptions(),  # noqa: B008
) -> Recipe:
    """First stage of the 775M text-driven model, on a cache of size 256; --init may be a converted LlamaGen."""
    return _large("t2i-xl-256", "t2i-xl", data, init, valid, options)


def t2i_xl_512(
    data: ImageCacheFolder,
    init: PreviousStage,
    valid: ValidCache = "",
    options: PretrainOptions = PretrainOptions(micro=16, steps=50_000, lr=5e-5, recompute="yes"),  # noqa: B008
) -> Recipe:
    """Second stage of the 775M model, from the first one's export, on a cache of size 512."""
    return _large("t2i-xl-512", "t2i-xl", data, init, valid, options)


def t2i_xl_1024(
    data: ImageCacheFolder,
    init: PreviousStage,
    valid: ValidCache = "",
    options: PretrainOptions = PretrainOptions(batch=128, micro=4, steps=20_000, lr=2e-5, recompute="yes"),  # noqa: B008
) -> Recipe:
    """Third stage of the 775M model, from the second one's export, on a cache of size 768 or 1024."""
    return _large("t2i-xl-1024", "t2i-xl", data, init, valid, options)


def t2i_xxl_256(
    data: ImageCacheFolder,
    init: Init = "",
    valid: ValidCache = "",
    options: PretrainOptions = PretrainOptions(micro=16, lr=5e-5, shard=True, recompute="yes"),  # noqa: B008
) -> Recipe:
    """First stage of the 1.4B text-driven model, sharded over all GPUs."""
    return _large("t2i-xxl-256", "t2i-xxl", data, init, valid, options)


CLASS_DRIVEN = PretrainOptions(steps=400_000, token_dropout=0.1)


def c2i_b(
    data: ImageCacheFolder,
    init: Init = "",
    valid: ValidCache = "",
    reference: Reference = False,
    options: PretrainOptions = CLASS_DRIVEN,
) -> Recipe:
    """Class-driven MaskGIL, 111M, on a cache of an ImageNet-style folder (--shape square)."""
    return _large("c2i-b", "b", data, init, valid, options, reference)


def c2i_l(
    data: ImageCacheFolder,
    init: Init = "",
    valid: ValidCache = "",
    reference: Reference = False,
    options: PretrainOptions = CLASS_DRIVEN,
) -> Recipe:
    """Class-driven MaskGIL, 343M."""
    return _large("c2i-l", "l", data, init, valid, options, reference)


def c2i_xl(
    data: ImageCacheFolder,
    init: Init = "",
    valid: ValidCache = "",
    reference: Reference = False,
    options: PretrainOptions = CLASS_DRIVEN,
) -> Recipe:
    """Class-driven MaskGIL, 775M."""
    return _large("c2i-xl", "xl", data, init, valid, options, reference)


def c2i_xxl(
    data: ImageCacheFolder,
    init: Init = "",
    valid: ValidCache = "",
    reference: Reference = False,
    options: PretrainOptions = replace(CLASS_DRIVEN, micro=16, shard=True),  # noqa: B008
) -> Recipe:
    """Class-driven MaskGIL, 1.4B, sharded over all GPUs."""
    return _large("c2i-xxl", "xxl", data, init, valid, options, reference)


def t2i_xl_ar(
    data: ImageCacheFolder,
    init: Init = "",
    valid: ValidCache = "",
    options: PretrainOptions = PretrainOptions(smoothing=0.0),  # noqa: B008
) -> Recipe:
    """The AR model of t2i-xl, on a cache of any size; --init may be a converted LlamaGen GPT."""
    config = replace(PRESETS["t2i-xl-llamagen"], causal=True)
    return pretrain_recipe("t2i-xl-ar", config, data, init, valid, options, write_image_rows, CAUSAL)


def c2i_ar(
    data: ImageCacheFolder,
    preset: str = "b",
    init: Init = "",
    valid: ValidCache = "",
    options: PretrainOptions = replace(CLASS_DRIVEN, smoothing=0.0),  # noqa: B008
) -> Recipe:
    """The AR model of a class-driven model; --init may be a converted LlamaGen GPT.

    Args:
        preset: Shape of a new model: b, l, xl or xxl.
    """
    if preset not in ("b", "l", "xl", "xxl"):
        raise ValueError(f"preset={preset}: choose b, l, xl or xxl")
    config = replace(PRESETS[f"{preset}-llamagen"], causal=True)
    return pretrain_recipe("c2i-ar", config, data, init, valid, options, write_image_rows, CAUSAL)


def emigm_xs(
    data: ImageCacheFolder,
    init: Init = "",
    valid: ValidCache = "",
    repeats: Repeats = 4,
    options: PretrainOptions = RELEASED,
) -> Recipe:
    """eMIGM, class-driven, 69M, on a cache of latents of an ImageNet-style folder (256 or 512, --shape square)."""
    return emigm_recipe("xs", data, init, valid, repeats, options, write_image_rows)


def emigm_s(
    data: ImageCacheFolder,
    init: Init = "",
    valid: ValidCache = "",
    repeats: Repeats = 4,
    options: PretrainOptions = RELEASED,
) -> Recipe:
    """eMIGM, class-driven, 97M."""
    return emigm_recipe("s", data, init, valid, repeats, options, write_image_rows)


def emigm_b(
    data: ImageCacheFolder,
    init: Init = "",
    valid: ValidCache = "",
    repeats: Repeats = 4,
    options: PretrainOptions = RELEASED_LARGE,
) -> Recipe:
    """eMIGM, class-driven, 208M; --init may be a converted release, to be fine-tuned."""
    return emigm_recipe("b", data, init, valid, repeats, options, write_image_rows)


def emigm_l(
    data: ImageCacheFolder,
    init: Init = "",
    valid: ValidCache = "",
    repeats: Repeats = 4,
    options: PretrainOptions = replace(RELEASED_LARGE, recompute="yes"),  # noqa: B008
) -> Recipe:
    """eMIGM, class-driven, 478M."""
    return emigm_recipe("l", data, init, valid, repeats, options, write_image_rows)


def emigm_h(
    data: ImageCacheFolder,
    init: Init = "",
    valid: ValidCache = "",
    repeats: Repeats = 4,
    options: PretrainOptions = replace(RELEASED_LARGE, recompute="yes"),  # noqa: B008
) -> Recipe:
    """eMIGM, class-driven, 942M, of 256 px."""
    return emigm_recipe("h", data, init, valid, repeats, options, write_image_rows)


def lora(
    model: str,
    pictures: str,
    size: int = 256,
    rank: int = 16,
    cache: str = "",
    valid: ValidCache = "",
    options: PretrainOptions = PretrainOptions(  # noqa: B008
        batch=8,
        micro=2,
        steps=1000,
        warmup=50,
        weight_decay=0.0,
        token_dropout=0.0,
        smoothing=0.0,
        ema=0.99,
        recompute="yes",
        workers=1,
        save_every=250,
        sample_every=250,
    ),
) -> Recipe:
    """Adapters for a text-to-image folder, from a folder of pictures with .txt captions (train/lora.py).

    Args:
        model: Text-to-image folder or bundled name.
        pictures: Folder of pictures with captions, or another source of `maskgil data images`.
        size: Size class of the pictures in pixels: 256, 512, 768 or 1024.
        rank: Rank of the adapters.
        cache: Folder of the cache of the pictures; left out: beside the pictures.
    """
    from train.lora import lora_recipe  # peft takes seconds to load

    return lora_recipe(model, pictures, size, rank, cache, options, write_image_rows, valid)
