"""Recipes of the bundled VQ tokenizer: the tokenizer, its decoder and its cell classifier."""

from dataclasses import replace
from pathlib import Path

import torch

from maskgil import checkpoint
from maskgil.tokenizers.vq import VQ_PRESETS, VQModel
from train.data.scene_cache import check_drawings, load_cache_tokenizer
from train.data.scene_datasets import DecoderBatches, SceneCells, ScenePixels
from train.image_rows import write_image_rows
from train.losses.cell_labels import BLOCKS, MEMORY, WIDTH, CellClassifier, CellClassifierLoss
from train.losses.codebook import CodebookRevival
from train.losses.perceptual import load_perceptual_net
from train.losses.reconstruction import PatchGAN, ReconstructionLoss, patchgan_loss
from train.losses.token_targets import neighbor_targets
from train.losses.tokenizer_losses import DecoderLoss, DecoderOnly, TokenizerLoss, TokenizerWithCellHead
from train.optim import OptimConfig
from train.recipe import OptimizedModule, Recipe
from train.recipes.shared_options import (
    AdversarialFrom,
    AdversarialWeight,
    Batch,
    Corruption,
    Drawings,
    MuonRate,
    PerceptualNetFolder,
    PerceptualWeight,
    Rate,
    SceneTokenCache,
    Steps,
)
from train.scenes.labels import CELLS, kinds
from train.scenes.sprites import Sprites, things
from train.warm_start import resume_seed

# fields of VQConfig, by the part of a tokenizer that they describe
CORRECTED = ("refiner_channels", "refiner_blocks", "upscaler_channels", "upscaler_blocks")
CELL_BRANCH = ("naming_channels", "naming_blocks", "recall")


def _grown(model: VQModel, **parts: int) -> VQModel:
    """The same tokenizer with further parts, which have no effect until they are trained."""
    grown = VQModel(replace(model.config, **parts))
    grown.load_state_dict(model.state_dict(), strict=False)
    return grown


def patchgan_module(adversarial_from: int | None) -> tuple[OptimizedModule, ...]:
    """The PatchGAN as a second optimized module; none where `adversarial_from` is None."""
    if adversarial_from is None:
        return ()
    model = PatchGAN().to(memory_format=torch.channels_last)
    return (OptimizedModule(model, patchgan_loss, OptimConfig(lr=4e-4, betas=(0.5, 0.9), warmup=1)),)


def reconstruction_loss(
    perceptual_net: str, perceptual: float, adversarial_from: int | None, adversarial: float, scale: int = 1
) -> ReconstructionLoss:
    """The reconstruction loss of a recipe's options. `perceptual_net`: a folder, lpips, or empty for none."""
    network = load_perceptual_net(perceptual_net) if perceptual_net else None
    return ReconstructionLoss(network, perceptual, adversarial_from, adversarial, scale)


def scenes_tokenizer(
    sprites: Drawings = None,
    steps: Steps = 6000,
    batch: Batch = 16,
    lr: Rate = 1e-3,
    init: str | None = None,
    perceptual_net: PerceptualNetFolder = "",
    perceptual: PerceptualWeight = 1.0,
    adversarial_from: AdversarialFrom = None,
    adversarial: AdversarialWeight = 0.5,
) -> Recipe:
    """Train the bundled VQ tokenizer: 32 px a token, of which the encoder reads 16, and 4,096 codes.

    Args:
        init: Tokenizer's folder to continue from. Its cell classifier, if it has one, is not trained, so that
            scenes-cell-classifier must follow.
    """
    torch.manual_seed(0)
    model = VQModel(VQ_PRESETS["scenes"])
    if init:
        model = checkpoint.load(init, "vq")
    model = model.to(memory_format=torch.channels_last)
    data = ScenePixels(sprites, batch, seed=int(bool(init)) * 1000, scale=model.config.upscale)
    quantize_from = 0 if init else min(600, steps // 8)
    shown = replace(data, seed=99, batch=8)

    def sample(named: TokenizerWithCellHead, path: Path) -> None:
        average = named.model
        device = next(average.parameters()).device
        pixels = shown(0)["pixels"].to(device).float().div(127.5).sub(1)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            result = average.decode(average.encode(pixels), average.grid(*pixels.shape[2:]))
        write_image_rows([pixels, result], path)

    return Recipe(
        name="scenes-tokenizer",
        steps=steps,
        modules=(
            OptimizedModule(
                TokenizerWithCellHead(model, len(things())),
                TokenizerLoss(
                    quantize_from,
                    likeness=reconstruction_loss(
                        perceptual_net, perceptual, adversarial_from, adversarial, model.config.upscale
                    ),
                ),
                OptimConfig(lr=lr, muon_lr=0.02, warmup=50, decay=0.6),
            ),
            *patchgan_module(adversarial_from),
        ),
        batch_at=data,
        ema=0.995,
        save_every=250,
        sample_every=500,
        after_step=CodebookRevival(quantize_from, replace(data, seed=7), until=int(steps * 0.8)),
        sample=sample,
        export=lambda named, folder: checkpoint.save(folder, named.model, "vq", named.model.config.to_dict()),
    )


def scenes_decoder(
    tokenizer: str,
    cache: SceneTokenCache = "cache/scenes",
    crowd: str = "cache/crowded",
    sprites: Drawings = None,
    steps: Steps = 6000,
    batch: Batch = 16,
    lr: Rate = 1e-3,
    muon_lr: MuonRate = 0.02,
    fresh: bool = False,
    perceptual_net: PerceptualNetFolder = "",
    perceptual: PerceptualWeight = 1.0,
    adversarial_from: AdversarialFrom = None,
    adversarial: AdversarialWeight = 0.5,
    corruption: Corruption = 0.3,
    coarse: bool = False,
    workers: int = 1,
) -> Recipe:
    """Train a better decoder for a tokenizer whose tokens stay.

    Args:
        tokenizer: Folder of the tokenizer.
        crowd: Cache of crowded scenes (`maskgil data scenes --kind crowded`).
        fresh: Start from random weights in the preset's shape. Otherwise the decoder is trained further, and gets the
            preset's refiner and upscaler if it had none.
        coarse: Leave refiner and upscaler as they are and train the layers before them, on scenes in the size that the
            encoder reads; a run without it should follow.
        workers: Processes that draw pictures.
    """
    torch.manual_seed(0)
    check_drawings((*cache.split(","), *crowd.split(",")), Sprites(sprites))
    model, preset = checkpoint.load(tokenizer, "vq"), VQ_PRESETS["scenes"]
    if fresh:
        encoder, kept = model, {name: getattr(model.config, name) for name in CELL_BRANCH}
        model = VQModel(replace(preset, **kept))
        model.load_state_dict(encoder.identity() | encoder.cell_branch_state(), strict=False)
    elif missing := [part for part in CORRECTED if not getattr(model.config, part)]:
        model = _grown(model, **{part: getattr(preset, part) for part in missing})
    if coarse and adversarial_from is not None:
        raise ValueError("--coarse with --adversarial-from: the PatchGAN trains what a refiner adds; leave one out")
    scale = 1 if coarse else model.config.upscale
    decoder_only = DecoderOnly(model.to(memory_format=torch.channels_last), coarse)
    data = DecoderBatches((cache, crowd), sprites, batch, scale=scale)

    def sample(average: DecoderOnly, path: Path) -> None:
        batch = replace(data, folders=(cache,), seed=99, batch=10)(0)
        device = average.codebook.device
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            result = average(batch["tokens"].to(device), batch["grid"]).float()
        write_image_rows([batch["pixels"].float().div(127.5).sub(1), result.cpu()], path)

    def export(average: DecoderOnly, folder: Path) -> None:
        model.decoder.load_state_dict(average.decoder.state_dict())
        model.post_quant_conv.load_state_dict(average.post_quant_conv.state_dict())
        checkpoint.save(folder, model, "vq", model.config.to_dict())

    return Recipe(
        name="scenes-decoder",
        steps=steps,
        modules=(
            OptimizedModule(
                decoder_only,
                DecoderLoss(
                    reconstruction_loss(perceptual_net, perceptual, adversarial_from, adversarial, scale),
                    neighbor_targets(model.quantize.codebook().detach()),
                    corruption,
                ),
                OptimConfig(lr=lr, muon_lr=muon_lr, warmup=50, decay=0.5),
            ),
            *patchgan_module(adversarial_from),
        ),
        batch_at=data,
        ema=0.995,
        workers=workers,
        save_every=250,
        sample_every=250,
        sample=sample,
        export=export,
    )


def scenes_cell_classifier(
    tokenizer: str,
    cache: SceneTokenCache = "cache/scenes,cache/crowded",
    steps: Steps = 2000,
    batch: Batch = 64,
    lr: Rate = 1e-3,
    muon_lr: MuonRate = 0.02,
    corruption: Corruption = 0.3,
) -> Recipe:
    """Train a cell classifier, which predicts what each cell shows from only the tokens and feeds the decoder.

    The tokens and the decoder's weights stay. A tokenizer without a classifier gets one, and a patch memory; both have
    no effect on pictures until scenes-decoder is trained with them. A classifier that is there is trained further: its
    decoder's input then changes, so scenes-decoder must follow.

    Args:
        tokenizer: Folder of the tokenizer that made the caches and gets the classifier.
    """
    torch.manual_seed(0)
    (model, tokenizer_hash), seed = load_cache_tokenizer(cache, tokenizer), 0
    if not model.config.naming_channels:
        model = _grown(model, naming_channels=WIDTH, naming_blocks=BLOCKS, recall=MEMORY)
    else:
        seed = resume_seed(model.naming)
    classifier = CellClassifier(model, kinds()).to(memory_format=torch.channels_last)
    objective = CellClassifierLoss(CELLS, neighbor_targets(model.quantize.codebook().detach()), corruption)

    def export(average: CellClassifier, folder: Path) -> None:
        model.naming.load_state_dict(average.naming.state_dict())
        checkpoint.save(folder, model, "vq", model.config.to_dict())

    return Recipe(
        name="scenes-cell-classifier",
        steps=steps,
        modules=(OptimizedModule(classifier, objective, OptimConfig(lr=lr, muon_lr=muon_lr, warmup=50, decay=0.6)),),
        batch_at=SceneCells(cache, batch, seed=5 + seed),
        provenance={"tokenizer": tokenizer_hash},
        seed=seed,
        ema=0.995,
        save_every=200,
        export=export,
    )
