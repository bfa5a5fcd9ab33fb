"""How the published MaskGIL trainer trains, as options: `maskgil train c2i-b --reference`."""

from dataclasses import asdict, replace
from typing import Any

from train.recipes.pretrain import PretrainOptions

IMAGENET = 1_281_167  # pictures in ImageNet's training set
EPOCHS, BATCH = 300, 256

# From its code and defaults. It has float16 with loss scaling where this has bfloat16, and its mask token is a class of
# the softmax, which it is not here.
PUBLISHED: dict[str, Any] = {
    "batch": BATCH,
    "steps": EPOCHS * IMAGENET // BATCH,
    "lr": 1e-4,
    "warmup": 0,
    "schedule": "constant",
    "weight_decay": 1e-5,
    "decay_all": True,
    "betas": (0.9, 0.96),
    "clip": 1.0,
    "caption_dropout": 0.1,
    "token_dropout": 0.0,
    "everywhere": True,
    "independent": True,
    "smoothing": 0.1,
    "ema": 0.0,
}


def as_published(options: PretrainOptions, usual: PretrainOptions, init: str) -> PretrainOptions:
    """The options with the published values in place of the defaults; options that the command gives stay.

    ValueError for norms, which the published model does not have, and for `init`, which has its own architecture.
    """
    if options.qk_norm or options.norm:
        raise ValueError("--reference has neither QK-norm nor post-norm: leave --qk-norm and --norm out")
    if init:
        raise ValueError(f"--reference trains the published architecture from the beginning: leave --init {init} out")
    asked, before = asdict(options), asdict(usual)
    return replace(options, **{name: value for name, value in PUBLISHED.items() if asked[name] == before[name]})
