"""eMIGM at its released sizes, driven by classes: maskgil train emigm-b --data CACHE --out FOLDER

    maskgil data images --source IMAGENET --tokenizer weights/kl16 --size 256 --shape square --crop centre --flip \\
        --out cache/imagenet-256
    maskgil train emigm-b --data cache/imagenet-256 --tokenizer weights/kl16 --out runs/emigm-b
    maskgil export class --generator runs/emigm-b/export --tokenizer weights/kl16 --size 256 --out weights/emigm-b

The masks are the row "emigm" of train/losses/generation_methods.py, the loss is train/losses/diffusion_token.py;
everything else but the drawing is train/recipes/pretrain.py. At 512 px with DC-AE the same commands take --tokenizer
weights/dc-ae --size 512. `RELEASED` and `RELEASED_LARGE` are the settings that the released models were trained with
(2503.07197 and its code): AdamW with betas 0.9 and 0.95 and no decay of the diffusion head (train/optim.py), 800 epochs
of ImageNet, 100 of them warm-up; bfloat16 where they had float16.

A micro-batch shares one time and one count of masked tokens (the released rule, so that the encoder has one length).
`micro` is what each of the 32 GPUs of the released runs saw at once.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from maskgil.condition import Condition
from maskgil.models.diffusion_samplers import DPMSolver
from maskgil.models.emigm import EMIGM, EMIGM_PRESETS, EMIGMConfig
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.latent_sampler import LatentSampler
from maskgil.sampling.loop import sample
from maskgil.sampling.orders import DecodingOrder
from maskgil.sampling.plans import masked_plan
from maskgil.sampling.schedules import exp
from maskgil.sampling.token_grid import TokenGrid
from maskgil.tokenizers.autoencoder import SURE, validate_scale
from train.data.cached_batches import CachedBatches, ImageCache
from train.data.mixed_batches import parts_of
from train.losses.diffusion_token import LatentTokenLoss, LatentTrainingModule
from train.losses.generation_methods import METHODS
from train.recipe import Recipe
from train.recipes.pretrain import ModelSpec, PretrainOptions, noted, pretrain_recipe

# XS and S: 1e-4 for each 256 pictures of a batch
RELEASED = PretrainOptions(
    batch=1024,
    micro=32,
    steps=1_000_000,
    lr=4e-4,
    warmup=125_000,
    weight_decay=0.02,
    clip=3.0,
    token_dropout=0.0,
    smoothing=0.0,
)
# B, L and H: as many epochs, in batches twice as large
RELEASED_LARGE = replace(RELEASED, batch=2048, micro=64, steps=500_000, lr=8e-4, warmup=62_500)

# Options that only models of codes have.
WITHOUT = ("token_dropout", "everywhere", "independent", "smoothing", "qk_norm", "norm")


def _decided(note: dict[str, Any]) -> dict[str, Any]:
    (width, height), side = note["shapes"][0], note["downsample"]
    grid = (height // side, width // side)
    return {"channels": note["latent"]["channels"], "grid": grid, "classes": len(note["classes"])}


def _in_sixteen_steps(model: EMIGM, condition: Condition, canvas: TokenGrid, guidance: Guidance | None) -> TokenGrid:
    """Sampling with the fewest evaluations of the paper at 256 px: guidance in a part of the steps only."""
    rows, tokens = canvas.mask.shape
    guidance = guidance and replace(guidance, interval=(0.1, 0.3))
    plan = masked_plan(
        tokens,
        min(16, tokens),
        exp,
        DecodingOrder.RANDOM,
        guidance=guidance,
        seeds=list(range(rows)),
        device=canvas.mask.device,
    )
    *_, last = sample(LatentSampler(model, condition, DPMSolver(8)), canvas, plan)
    return last


def diffused(repeats: int) -> ModelSpec:
    """The ModelSpec of eMIGM. `repeats`: times and noises that the head sees of each hidden token."""
    return ModelSpec(
        kinds=("emigm",),
        build=lambda config, before: EMIGM(config),
        objective=lambda o: LatentTokenLoss(METHODS["emigm"], o.caption_dropout, seed=o.seed),
        draw=_in_sixteen_steps,
        folder="generator",
        tokenizer="latent",
        decided=_decided,
        chosen=(),
        module=lambda model: LatentTrainingModule(model, None, repeats=repeats),
        blank=lambda config, rows, grid, device: TokenGrid.blank(rows, grid, device=device, channels=config.channels),
        costs=None,
    )


def emigm_recipe(
    size: str, data: str, init: str, valid: str, repeats: int, options: PretrainOptions, show: Callable
) -> Recipe:
    """eMIGM of a size (xs to h) on the cache of latents `data`, whose pictures have 256 or 512 px.

    `init` may be a converted released model, which then determines the size. Other arguments as for `pretrain_recipe`.
    ValueError unless the cache holds latents of pictures of one shape with classes, at a scale of about 1, and for
    options that eMIGM does not have.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats}: give 1 or more")
    if strange := [name for name in WITHOUT if getattr(options, name)]:
        raise ValueError(f"{strange[0]}={getattr(options, strange[0])}: that is for models of codes; leave it out")
    trunk = diffused(repeats)
    config = _preset(size, data, noted(data, valid, trunk), init)
    return pretrain_recipe(f"emigm-{size}", config, data, init, valid, options, show, trunk)


def _preset(size: str, data: str, note: dict[str, Any], init: str) -> EMIGMConfig | None:
    """The preset of a size for the pictures of a cache; None with `init`. ValueError for another cache."""
    if "width" in note:
        raise ValueError(f"{data} holds pictures with captions; emigm recipes are driven by classes")
    sides = {int(name.rpartition("-")[2]) for name in EMIGM_PRESETS if name.startswith(f"emigm-{size}-")}
    if len(note["shapes"]) > 1 or not init and note["shapes"] not in [[[side, side]] for side in sides]:
        shapes = ", ".join(f"{width}x{height}" for width, height in note["shapes"])
        raise ValueError(
            f"{data} holds pictures of {shapes}; emigm-{size} draws squares of one size: make the cache with "
            f"--shape square --size {' or '.join(map(str, sorted(sides)))}"
        )
    for folder, _ in parts_of(data):
        if sum(bucket.rows for bucket in ImageCache.open(folder).tables.values()) >= SURE:
            try:
                validate_scale(CachedBatches(folder, 4 * SURE)(0)["tokens"], note["latent"]["scale"])
            except ValueError as error:
                raise ValueError(f"{folder}: {error}") from None
    return None if init else EMIGM_PRESETS[f"emigm-{size}-{note['shapes'][0][0]}"]
