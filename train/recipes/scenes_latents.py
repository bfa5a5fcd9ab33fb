"""Recipes of continuous tokens of scenes. kl_tokenizer.py and scenes_emigm.py build them."""

from dataclasses import replace
from typing import Annotated

from tyro.conf import arg

from maskgil import checkpoint
from train.image_rows import write_image_rows
from train.losses.perceptual import load_perceptual_net
from train.losses.reconstruction import ReconstructionLoss
from train.recipe import Recipe
from train.recipes.scenes_tokenizers import patchgan_module


def scenes_kl(
    sprites: str | None = None,
    steps: int = 4500,
    batch: int = 16,
    lr: float = 1e-3,
    init: str | None = None,
    frozen: bool = False,
    perceptual_net: Annotated[str, arg(aliases=("--observer",))] = "",
    perceptual: float = 1.0,
    adversarial_from: int | None = None,
    adversarial: float = 0.2,
    channels: int = 8,
    divergence: float = 5e-2,
    teacher: str = "weights/scenes/tokenizer",
) -> Recipe:
    """A KL tokenizer of scenes, 16 px a token (train/recipes/kl_tokenizer.py). `init`: one to go on from, whose
    channels stay.
    `divergence`: weight of the posterior's, in nats a number (KLLoss says what it decides). `teacher`: a VQ
    tokenizer whose latents this one's are to resemble; empty: a head must name things from them instead.

    `perceptual_net`: a folder written by scenes-perceptual-net, or lpips. `adversarial_from`: the step from which a
    PatchGAN is trained too.
    `frozen`: the encoder stays, and with it all cached latents: only the decoder learns.
    """
    from train.recipes.kl_tokenizer import SCENES_KL, KLLoss, kl_recipe  # diffusers takes seconds to load

    likeness = ReconstructionLoss(
        load_perceptual_net(perceptual_net) if perceptual_net else None, perceptual, adversarial_from, adversarial
    )
    known = checkpoint.load(teacher, "vq").requires_grad_(False) if teacher else None
    if known is not None and known.config.codebook_dim != channels:
        raise ValueError(f"{teacher} has latents of {known.config.codebook_dim} numbers: give channels= as many")
    return kl_recipe(
        sprites,
        steps,
        batch,
        lr,
        write_image_rows,
        replace(SCENES_KL, channels=channels),
        KLLoss(likeness, divergence, 0.0 if known else 0.1, known),
        judge=patchgan_module(adversarial_from),
        init=init,
        frozen=frozen,
    )


def scenes_emigm(
    cache: str = "cache/latents",
    text_encoder: str = "weights/scenes/text_encoder",
    steps: int = 8000,
    batch: int = 64,
    lr: float = 1e-3,
    muon_lr: float = 0.01,
    repeats: int = 2,
    valid: str = "",
    init: str = "",
    read: str = "",
    curve: str = "cosine",
    t_min: float = 0.0,
    begin: str = "weights/scenes",
    teacher: str = "",
    compile: bool = False,
) -> Recipe:
    """The bundled eMIGM on cached latents; the text encoder of scenes stays as it is.

    `init`: an export or a model folder whose generator goes on; `read`: the text encoder that it read, if that was
    another than `text_encoder`. The paper trains by exp from t_min 0.2 on, where 63% and more are hidden; that pays
    after hundreds of epochs (its table 9), and a short run must see fuller pictures too.
    `begin`: the MaskGIL whose blocks it begins as (begun_as); `teacher`: one whose beliefs it learns (Method), of codes
    that the caches hold. Empty for none. The trunk is a single encoder: a masked autoencoder, whose hidden cells enter
    halfway, forgot most of what those blocks knew. `cache`: a folder, or several with commas between.
    """
    from train.losses.diffusion_token import method
    from train.recipes.scenes_emigm import MethodOptions, method_recipe

    return method_recipe(
        "scenes-emigm",
        method("emigm", curve=curve, t_min=t_min, trunk="single"),
        cache,
        text_encoder,
        MethodOptions(
            steps,
            batch,
            lr,
            muon_lr,
            width=256,
            depth=(4, 4),
            heads=4,
            head=(3, 256),
            repeats=repeats,
            valid=valid,
            layout=0.5,
            things_first=True,
            init=init,
            known_encoder=read,
            guess=True,
            teacher=teacher,
            begin=begin,
            compile=compile,
            blocks="llama",
        ),
    )


def scenes_method(
    method: str,
    cache: str,
    text_encoder: str = "weights/scenes/text_encoder",
    masking: str = "",
    weighting: str = "",
    curve: str = "",
    trunk: str = "",
    null: str = "",
    t_min: float | None = None,
    steps: int = 2000,
    batch: int = 64,
    lr: float = 1e-3,
    muon_lr: float = 0.02,
    width: int = 128,
    depth: int = 6,
    heads: int = 4,
    seed: int = 0,
    valid: str = "",
    conditional: str = "",
) -> Recipe:
    """maskgit, mar, mdm, maskgil or emigm, small, with any of its choices changed (train/losses/diffusion_token.py)."""
    from train.losses import diffusion_token
    from train.recipes.scenes_emigm import MethodOptions, method_recipe

    chosen = diffusion_token.method(
        method,
        masking=masking,
        weighting=weighting,
        conditional=conditional,
        curve=curve,
        trunk=trunk,
        null=null,
        t_min=t_min,
    )
    return method_recipe(
        f"scenes-{method}",
        chosen,
        cache,
        text_encoder,
        MethodOptions(steps, batch, lr, muon_lr, width, depth, heads, head=(3, 192), seed=seed, valid=valid),
    )
