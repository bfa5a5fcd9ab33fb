"""Recipes of continuous tokens of scenes. kl_tokenizer.py and scenes_emigm.py build them."""

from dataclasses import replace
from typing import Annotated

from tyro.conf import arg

from maskgil import checkpoint
from train.image_rows import write_image_rows
from train.recipe import Recipe
from train.recipes.scenes_tokenizers import patchgan_module, reconstruction_loss


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
    """Train a KL tokenizer of scenes, 16 px a token (train/recipes/kl_tokenizer.py).

    `init`: one to continue from, whose channels stay. `divergence`: weight of the KL divergence of the posterior, in
    nats a number (KLLoss). `teacher`: a VQ tokenizer whose latents this one's should resemble; if empty, a head must
    classify things from the latents instead. `perceptual_net`: a folder that scenes-perceptual-net wrote, or lpips.
    `adversarial_from`: the step from which a PatchGAN is trained too. `frozen`: train the decoder only, so that the
    encoder and all cached latents stay valid.
    """
    from train.recipes.kl_tokenizer import SCENES_KL, KLLoss, kl_recipe  # diffusers takes seconds to load

    likeness = reconstruction_loss(perceptual_net, perceptual, adversarial_from, adversarial)
    known = checkpoint.load(teacher, "vq").requires_grad_(False) if teacher else None
    if known is not None and known.config.codebook_dim != channels:
        raise ValueError(
            f"{teacher} has latents of {known.config.codebook_dim} numbers: give --channels {known.config.codebook_dim}"
        )
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
    """Train the bundled eMIGM on cached latents. The text encoder of scenes is not trained.

    `cache`: a folder, or several with commas between. `init`: an export or a model folder whose generator is trained
    further; `read`: the text encoder that it was trained with, if that was not `text_encoder`. `begin`: the MaskGIL
    whose blocks initialize the transformer; empty for none. `teacher`: a generator of codes whose predictions
    it learns; the caches must hold codes. Empty for none. `curve`, `t_min`: the paper trains with exp from t_min 0.2
    on, where at least 63% of the tokens are masked. That pays after hundreds of epochs (its table 9); a short run needs
    less masked pictures too. The transformer is a single encoder: a masked autoencoder, whose masked tokens enter
    halfway, lost most of what the initial blocks had learned.
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
