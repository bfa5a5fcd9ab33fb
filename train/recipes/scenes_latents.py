"""Recipes of continuous tokens of scenes. kl_tokenizer.py and scenes_emigm.py build them."""

from dataclasses import replace

from maskgil import checkpoint
from train.image_rows import write_image_rows
from train.recipe import Recipe
from train.recipes.scenes_tokenizers import patchgan_module, reconstruction_loss
from train.recipes.shared_options import (
    AdversarialFrom,
    AdversarialWeight,
    Batch,
    Compile,
    Drawings,
    MuonRate,
    PerceptualNetFolder,
    PerceptualWeight,
    Rate,
    Repeats,
    SceneLatentCache,
    Seed,
    Steps,
    ValidCache,
)


def scenes_kl(
    sprites: Drawings = None,
    steps: Steps = 4500,
    batch: Batch = 16,
    lr: Rate = 1e-3,
    init: str | None = None,
    frozen: bool = False,
    perceptual_net: PerceptualNetFolder = "",
    perceptual: PerceptualWeight = 1.0,
    adversarial_from: AdversarialFrom = None,
    adversarial: AdversarialWeight = 0.2,
    channels: int = 8,
    divergence: float = 5e-2,
    teacher: str = "weights/scenes/tokenizer",
) -> Recipe:
    """Train a KL tokenizer of scenes, 16 px a token (train/recipes/kl_tokenizer.py).

    Args:
        init: KL tokenizer to continue from, whose channels stay.
        frozen: Train only the decoder, so that the encoder and all cached latents stay valid.
        channels: Numbers of a latent.
        divergence: Weight of the KL divergence of the posterior, in nats a number.
        teacher: VQ tokenizer whose latents this one's should resemble. Empty: a head must classify things from the
            latents instead.
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
    cache: SceneLatentCache = "cache/latents",
    text_encoder: str = "weights/scenes/text_encoder",
    steps: Steps = 8000,
    batch: Batch = 64,
    lr: Rate = 1e-3,
    muon_lr: MuonRate = 0.01,
    repeats: Repeats = 2,
    valid: ValidCache = "",
    init: str = "",
    read: str = "",
    curve: str = "cosine",
    t_min: float = 0.0,
    begin: str = "weights/scenes",
    teacher: str = "",
    compile: Compile = False,
    seed: Seed = 0,
) -> Recipe:
    """Train the bundled eMIGM on cached latents. The text encoder of scenes is not trained.

    The paper trains with --curve exp --t-min 0.2, where at least 63% of the tokens are masked. That pays after hundreds
    of epochs (its table 9); a short run needs less masked pictures too. The transformer is a single encoder: a masked
    autoencoder, whose masked tokens enter halfway, lost most of what the initial blocks had learned.

    Args:
        text_encoder: Folder of the text encoder.
        init: Export or model folder whose generator is trained further.
        read: Text encoder that --init was trained with, if that was not --text-encoder.
        curve: Mask schedule: linear, cosine, exp, log_exp or another of maskgil/sampling/schedules.py.
        t_min: Least time of the schedule that is trained.
        begin: MaskGIL folder whose blocks initialize the transformer; empty: none.
        teacher: Generator of codes whose predictions it learns; the caches must hold codes. Empty: none.
    """
    from train.losses.generation_methods import method
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
            seed=seed,
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
    steps: Steps = 2000,
    batch: Batch = 64,
    lr: Rate = 1e-3,
    muon_lr: MuonRate = 0.02,
    width: int = 128,
    depth: int = 6,
    heads: int = 4,
    seed: Seed = 0,
    valid: ValidCache = "",
    conditional: str = "",
) -> Recipe:
    """Train a small maskgit, mar, mdm, maskgil or emigm, with any of its choices changed.

    The methods are rows of train/losses/generation_methods.py.

    Args:
        method: maskgit, mar, mdm, maskgil or emigm: the choices that count where none is given.
        cache: Cache of codes or of latents, as the method reads, with commas between several.
        text_encoder: Folder of the text encoder.
        masking: Which tokens are masked: exact (that share) or independent (each by that probability).
        weighting: Weight of a time in the loss: one, or bound (the likelihood bound's).
        curve: Mask schedule: linear, cosine, arccos, exp or another of maskgil/sampling/schedules.py.
        trunk: single (one encoder) or mae (masked autoencoder).
        null: What stands for the empty text: token (a learned one) or mask (the mask token).
        t_min: Least time of the schedule that is trained.
        width: Width of the transformer.
        depth: Its blocks.
        heads: Its attention heads.
        conditional: What is predicted of a token: categorical (codes) or diffusion (latents).
    """
    from train.losses import generation_methods
    from train.recipes.scenes_emigm import MethodOptions, method_recipe

    chosen = generation_methods.method(
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
