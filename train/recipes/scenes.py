"""Recipes: functions that return everything a run needs. The command line says which one, where, and overrides.

`scenes_*` are the bundled models, sized for hours on two CPU cores.
"""

from dataclasses import replace
from pathlib import Path

import torch

import text_encoder as encoders
from maskgil import checkpoint
from maskgil.models.ar import ARTransformer
from maskgil.models.config import PRESETS
from maskgil.models.maskgil import MaskGIL
from maskgil.tokenizers.vq import VQ_PRESETS, VQModel
from text_encoder.small_t5 import SmallT5Encoder, train_vocabulary
from train.data.scene_cache import check_drawings, tokenizer_of
from train.data.scene_datasets import DecoderBatches, JudgeBatches, SceneCells, SceneFacts, ScenePixels, SceneTokens
from train.image_rows import write_image_rows
from train.losses.cell_labels import BLOCKS, RECALL, WIDTH, CellClassifier, CellClassifierLoss
from train.losses.codebook import CodebookRevival
from train.losses.conditioned import Conditioned, WithLayoutHeads
from train.losses.label_probe import LabelProbe, label_probe_loss
from train.losses.masked_token import MaskedTokenLoss
from train.losses.next_token import NextTokenLoss
from train.losses.perceptual import PerceptualNet, load_perceptual_net, perceptual_net_loss, save_perceptual_net
from train.losses.reconstruction import PatchGAN, ReconstructionLoss, patchgan_loss
from train.losses.token_targets import neighbor_targets
from train.losses.tokenizer_losses import DecoderLoss, DecoderOnly, TokenizerLoss, TokenizerWithCellHead
from train.optim import OptimConfig
from train.recipe import OptimizedModule, Recipe
from train.recipes.emigm import RELEASED, RELEASED_LARGE, emigm_recipe
from train.recipes.pretrain import PretrainOptions, pretrain_recipe
from train.recipes.pretrain_ar import CAUSAL
from train.scenes.captions import sentences
from train.scenes.judge import SceneJudge, judge_loss, save_judge
from train.scenes.labels import CELLS, kinds, label_kinds
from train.scenes.sprites import Sprites, things
from train.warm_start import align_text_encoders, resume_seed

# parts of a tokenizer, by what its config says of them
CORRECTED = ("refiner_channels", "refiner_blocks", "upscaler_channels", "upscaler_blocks")
NAMED = ("naming_channels", "naming_blocks", "recall")


def _grown(model: VQModel, **parts: int) -> VQModel:
    """The same tokenizer with parts that it lacks, which as yet change nothing."""
    grown = VQModel(replace(model.config, **parts))
    grown.load_state_dict(model.state_dict(), strict=False)
    return grown


def _of_cache(tokenizer: str, cache: str) -> tuple[VQModel, str]:
    """(the tokenizer that made a cache's tokens, its fingerprint). ValueError when another one did."""
    made_by, model = tokenizer_of(cache), checkpoint.load(tokenizer, "vq")
    if (own := checkpoint.fingerprint(model.identity())) != made_by:
        raise ValueError(f"{cache} holds tokens of tokenizer {made_by}, {tokenizer} is {own}")
    return model, own


def _captioned(cache: str, encoder: SmallT5Encoder, batch: int, seed: int, workers: int) -> SceneTokens:
    """Tokens and captions for a generator or its twin. Several workers serve a GPU: see SceneTokens for `alike`."""
    return SceneTokens(cache, encoder.vocabulary, batch, seed=2 + seed, alike=4 if workers == 1 else 1)


def _judge(adversarial_from: int | None) -> tuple[OptimizedModule, ...]:
    """The PatchGAN as a second player, where there is a game."""
    if adversarial_from is None:
        return ()
    model = PatchGAN().to(memory_format=torch.channels_last)
    return (OptimizedModule(model, patchgan_loss, OptimConfig(lr=4e-4, betas=(0.5, 0.9), warmup=1)),)


def scenes_tokenizer(
    sprites: str | None = None,
    steps: int = 6000,
    batch: int = 16,
    lr: float = 1e-3,
    init: str | None = None,
    observer: str = "",
    perceptual: float = 1.0,
    adversarial_from: int | None = None,
    adversarial: float = 0.5,
) -> Recipe:
    """The bundled VQ tokenizer: 32 px a token, of which the encoder reads 16, and 4,096 codes. `init`: a model folder
    to go on from; its Naming, if it has one, does not learn, and scenes-naming must follow.

    `observer`: the folder of scenes-observer's network, or lpips; from step `adversarial_from` on a PatchGAN plays too.
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
                    likeness=ReconstructionLoss(
                        load_perceptual_net(observer) if observer else None,
                        perceptual,
                        adversarial_from,
                        adversarial,
                        model.config.upscale,
                    ),
                ),
                OptimConfig(lr=lr, muon_lr=0.02, warmup=50, decay=0.6),
            ),
            *_judge(adversarial_from),
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
    cache: str = "cache/scenes",
    crowd: str = "cache/crowded",
    sprites: str | None = None,
    steps: int = 6000,
    batch: int = 16,
    lr: float = 1e-3,
    muon_lr: float = 0.02,
    fresh: bool = False,
    observer: str = "",
    perceptual: float = 1.0,
    adversarial_from: int | None = None,
    adversarial: float = 0.5,
    muddle: float = 0.3,
    coarse: bool = False,
    workers: int = 1,
) -> Recipe:
    """A better decoder for a tokenizer whose tokens stay; `fresh=yes` starts it anew in the preset's shape, otherwise
    it goes on, with the preset's refiner and upscaler if it had none. `coarse=yes` leaves these two as they are, and
    teaches what comes before them on scenes in the size that the encoder reads; a run of the whole should follow.

    `observer`: the folder of scenes-observer's network, or lpips; from step `adversarial_from` on a PatchGAN plays too.
    """
    torch.manual_seed(0)
    check_drawings((*cache.split(","), *crowd.split(",")), Sprites(sprites))
    model, preset = checkpoint.load(tokenizer, "vq"), VQ_PRESETS["scenes"]
    if fresh:
        encoder, kept = model, {name: getattr(model.config, name) for name in NAMED}
        model = VQModel(replace(preset, **kept))
        model.load_state_dict(encoder.identity() | encoder.cell_branch_state(), strict=False)
    elif missing := [part for part in CORRECTED if not getattr(model.config, part)]:
        model = _grown(model, **{part: getattr(preset, part) for part in missing})
    if coarse and adversarial_from is not None:
        raise ValueError("coarse=yes with adversarial_from=: the game is about what a refiner adds; leave one out")
    scale = 1 if coarse else model.config.upscale
    painter = DecoderOnly(model.to(memory_format=torch.channels_last), coarse)
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
                painter,
                DecoderLoss(
                    ReconstructionLoss(
                        load_perceptual_net(observer) if observer else None,
                        perceptual,
                        adversarial_from,
                        adversarial,
                        scale,
                    ),
                    neighbor_targets(model.quantize.codebook().detach()),
                    muddle,
                ),
                OptimConfig(lr=lr, muon_lr=muon_lr, warmup=50, decay=0.5),
            ),
            *_judge(adversarial_from),
        ),
        batch_at=data,
        ema=0.995,
        workers=workers,
        save_every=250,
        sample_every=250,
        sample=sample,
        export=export,
    )


def scenes_naming(
    tokenizer: str,
    cache: str = "cache/scenes,cache/crowded",
    steps: int = 2000,
    batch: int = 64,
    lr: float = 1e-3,
    muon_lr: float = 0.02,
    muddle: float = 0.3,
) -> Recipe:
    """What the tokens of a tokenizer show, for its decoder to hear: a Naming, and a Recall that is still silent. The
    tokens stay, and until scenes-decoder goes on with it the pictures, too. One that is there goes on; what its decoder
    has heard so far then changes, and scenes-decoder must follow.
    """
    torch.manual_seed(0)
    (model, tokenizer_hash), seed = _of_cache(tokenizer, cache), 0
    if not model.config.naming_channels:
        model = _grown(model, naming_channels=WIDTH, naming_blocks=BLOCKS, recall=RECALL)
    else:
        seed = resume_seed(model.naming)
    namer = CellClassifier(model, kinds()).to(memory_format=torch.channels_last)
    objective = CellClassifierLoss(CELLS, neighbor_targets(model.quantize.codebook().detach()), muddle)

    def export(average: CellClassifier, folder: Path) -> None:
        model.naming.load_state_dict(average.naming.state_dict())
        checkpoint.save(folder, model, "vq", model.config.to_dict())

    return Recipe(
        name="scenes-naming",
        steps=steps,
        modules=(OptimizedModule(namer, objective, OptimConfig(lr=lr, muon_lr=muon_lr, warmup=50, decay=0.6)),),
        batch_at=SceneCells(cache, batch, seed=5 + seed),
        provenance={"tokenizer": tokenizer_hash},
        seed=seed,
        ema=0.995,
        save_every=200,
        export=export,
    )


def scenes_text(
    vocabulary: str = "runs/vocabulary",
    steps: int = 1500,
    batch: int = 256,
    lr: float = 2e-3,
    muon_lr: float = 0.02,
    init: str = "",
) -> Recipe:
    """The bundled text encoder alone: it learns to tell what captions say, in minutes, before any picture.

    `init`: a text encoder to go on from, with its vocabulary, when captions say something new. Its states change far
    less than those of another one, so that generators soon read them again (scenes-generator text_encoder=).
    """
    torch.manual_seed(0)
    if init:
        encoder = SmallT5Encoder.load(init).train()
    else:
        if not (Path(vocabulary) / "spiece.model").is_file():
            train_vocabulary(sentences(20000, seed=1), vocabulary, 1200)
        encoder = SmallT5Encoder.fresh(vocabulary, dropout_rate=0.0)
    return Recipe(
        name="scenes-text",
        steps=steps,
        modules=(
            OptimizedModule(
                LabelProbe(encoder, label_kinds()),
                label_probe_loss,
                OptimConfig(lr=lr, muon_lr=muon_lr, warmup=50, decay=0.6),
            ),
        ),
        batch_at=SceneFacts(encoder.vocabulary, batch),
        ema=0.99,
        export=lambda average, folder: average.text_encoder.save(folder, torch.float32),
    )


def scenes_generator(
    cache: str = "cache/scenes",
    tokenizer: str = "weights/scenes/tokenizer",
    text_encoder: str = "",
    steps: int = 6000,
    batch: int = 64,
    lr: float = 2e-3,
    muon_lr: float = 0.02,
    init: str | None = None,
    frozen: bool = False,
    compile: bool = False,
    workers: int = 1,
) -> Recipe:
    """The bundled generator on cached tokens, with a text encoder that can read and goes on learning (scenes-text).

    `cache`: a folder, or several with commas between; scenes of all of them are mixed as they come.
    `init`: a model folder to go on from. `text_encoder`: the encoder to begin with, if not that of `init`; the
    generator is first fitted to it (fit_to_encoder). `frozen`: the encoder stays as it is, so that a twin can be
    trained on it at the same time. `compile`: a fifth faster where there is a C++ compiler. `workers`: processes that
    write captions; a GPU keeps several busy. A run keeps to one or to several: the batches of the two are others.

    What goes on from `init` meets other pictures, captions and masks than what `init` came from.
    """
    torch.manual_seed(0)
    codes, tokenizer_hash = _of_cache(tokenizer, cache)
    if init:
        folder = checkpoint.resolve(init)
        if (wanted := checkpoint.describe(folder / "generator").get("tokenizer_hash")) != tokenizer_hash:
            raise ValueError(f"{cache} holds tokens of tokenizer {tokenizer_hash}, {init} was trained on {wanted}")
        encoder = SmallT5Encoder.load(text_encoder or folder / "text_encoder").train()
        generator = checkpoint.load(folder / "generator", "maskgil").train()
        seed = resume_seed(generator)
        if text_encoder:
            align_text_encoders(
                generator, SmallT5Encoder.load(folder / "text_encoder"), encoder, sentences(2000, seed=5)
            )
    else:
        encoder = SmallT5Encoder.load(text_encoder or "runs/scenes-text/export").train()
        generator, seed = MaskGIL(PRESETS["scenes"]), 0
    encoder.requires_grad_(not frozen)
    model = WithLayoutHeads(Conditioned(generator, encoder), kinds())

    def export(average: WithLayoutHeads, folder: Path) -> None:
        text, maskgil = average.text_encoder, average.generator
        text.save(folder / "text_encoder")
        checkpoint.save(
            folder / "generator",
            maskgil,
            "maskgil",
            maskgil.config.to_dict(),
            tokenizer_hash=tokenizer_hash,
            text_encoder_hash=checkpoint.fingerprint(text.identity()),
        )

    made_of = {"tokenizer": tokenizer_hash, "text_encoder": checkpoint.fingerprint(encoder.identity())}
    near = neighbor_targets(codes.quantize.codebook().detach())
    objective = MaskedTokenLoss(layout=0.5, near=near, things_first=True)
    return Recipe(
        name="scenes-generator",
        steps=steps,
        modules=(OptimizedModule(model, objective, OptimConfig(lr=lr, muon_lr=muon_lr, warmup=50, decay=0.6)),),
        batch_at=_captioned(cache, encoder, batch, seed, workers),
        provenance=made_of,
        seed=seed,
        compile=compile,
        ema=0.995,
        workers=workers,
        save_every=200,
        export=export,
    )


def scenes_ar(
    text_encoder: str = "weights/scenes/text_encoder",
    cache: str = "cache/scenes",
    tokenizer: str = "weights/scenes/tokenizer",
    steps: int = 2400,
    batch: int = 64,
    lr: float = 2e-3,
    muon_lr: float = 0.02,
    init: str = "",
    twin: str = "",
    compile: bool = False,
    workers: int = 1,
) -> Recipe:
    """The bundled generator's autoregressive twin, on the same tokens; the generator's text encoder stays as it is.

    `init`: a model folder whose generator it begins as. The blocks are the same, and so is what they know of codes.
    `twin`: the twin of `init`, to go on from in its place. `compile`, `workers`: as for scenes-generator.
    """
    if twin and not init:
        raise ValueError(f"twin={twin}: give its model folder, too (init=), whose text encoder it read")
    torch.manual_seed(0)
    encoder = encoders.load(text_encoder)
    encoder.requires_grad_(False)
    model, seed = ARTransformer(replace(PRESETS["scenes"], causal=True)), 0
    if init:
        folder = checkpoint.resolve(init)
        known = checkpoint.load(twin, "autoregressive") if twin else checkpoint.load(folder / "generator", "maskgil")
        seed = resume_seed(known) if twin else 0
        align_text_encoders(known, SmallT5Encoder.load(folder / "text_encoder"), encoder, sentences(2000, seed=5))
        own = model.state_dict()
        model.load_state_dict({name: t[: len(own[name])] for name, t in known.state_dict().items()})  # no mask row
    codes, tokenizer_hash = _of_cache(tokenizer, cache)
    made_of = {"tokenizer": tokenizer_hash, "text_encoder": checkpoint.fingerprint(encoder.identity())}

    def export(average: WithLayoutHeads, folder: Path) -> None:
        twin, hashes = average.generator, {f"{part}_hash": made_by for part, made_by in made_of.items()}
        checkpoint.save(folder, twin, twin.kind, twin.config.to_dict(), **hashes)

    objective = NextTokenLoss(layout=0.5, near=neighbor_targets(codes.quantize.codebook().detach()))
    taught = WithLayoutHeads(Conditioned(model, encoder), kinds())
    return Recipe(
        name="scenes-ar",
        steps=steps,
        modules=(OptimizedModule(taught, objective, OptimConfig(lr=lr, muon_lr=muon_lr, warmup=50, decay=0.5)),),
        batch_at=_captioned(cache, encoder, batch, seed, workers),
        provenance=made_of,
        seed=seed,
        compile=compile,
        ema=0.995,
        workers=workers,
        save_every=200,
        export=export,
    )


def scenes_reader(sprites: str | None = None, steps: int = 2500, batch: int = 24, init: str = "") -> Recipe:
    """The judge of the scene score: reads objects, sizes, colours, background and style off a picture. `init`: a reader
    to go on from."""
    torch.manual_seed(0)
    model = checkpoint.load(init, "reader").train() if init else SceneJudge()
    seed = resume_seed(model) if init else 0
    model = model.to(memory_format=torch.channels_last)
    return Recipe(
        name="scenes-reader",
        steps=steps,
        modules=(OptimizedModule(model, judge_loss, OptimConfig(lr=1e-3, muon_lr=0.02, warmup=50, decay=0.6)),),
        batch_at=JudgeBatches(sprites, batch, seed=1 + seed),
        seed=seed,
        ema=0.99,
        export=save_judge,
    )


def scenes_observer(sprites: str | None = None, steps: int = 3000, batch: int = 32) -> Recipe:
    """The eyes of the perceptual loss: names what the corpus shows (train/losses/perceptual.py)."""
    torch.manual_seed(0)
    model = PerceptualNet(len(things())).to(memory_format=torch.channels_last)
    return Recipe(
        name="scenes-observer",
        steps=steps,
        modules=(
            OptimizedModule(model, perceptual_net_loss, OptimConfig(lr=1e-3, muon_lr=0.02, warmup=50, decay=0.6)),
        ),
        batch_at=ScenePixels(sprites, batch, seed=50),
        ema=0.99,
        export=save_perceptual_net,
    )


def scenes_kl(
    sprites: str | None = None,
    steps: int = 4500,
    batch: int = 16,
    lr: float = 1e-3,
    init: str | None = None,
    frozen: bool = False,
    observer: str = "",
    perceptual: float = 1.0,
    adversarial_from: int | None = None,
    adversarial: float = 0.2,
    channels: int = 8,
    divergence: float = 5e-2,
    teacher: str = "weights/scenes/tokenizer",
) -> Recipe:
    """A KL tokenizer of scenes, 16 px a token (train/recipes/scenes_emigm.py). `init`: one to go on from, whose
    channels stay.
    `divergence`: weight of the posterior's, in nats a number (KLLoss says what it decides). `teacher`: a VQ
    tokenizer whose latents this one's are to resemble; empty: a head must name things from them instead.

    `observer`: the folder of scenes-observer's network, or lpips; from step `adversarial_from` on a PatchGAN plays too.
    `frozen`: the encoder stays, and with it all cached latents: only the decoder learns.
    """
    from train.recipes.scenes_emigm import SCENES_KL, KLLoss, kl_recipe  # diffusers takes seconds to load

    likeness = ReconstructionLoss(
        load_perceptual_net(observer) if observer else None, perceptual, adversarial_from, adversarial
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
        judge=_judge(adversarial_from),
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
    from train.recipes.scenes_emigm import method_recipe

    return method_recipe(
        "scenes-emigm",
        method("emigm", curve=curve, t_min=t_min, trunk="single"),
        cache,
        text_encoder,
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
        read=read,
        guess=True,
        teacher=teacher,
        begin=begin,
        compile=compile,
        blocks="llama",
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
    from train.recipes.scenes_emigm import method_recipe

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
        steps,
        batch,
        lr,
        muon_lr,
        width,
        depth,
        heads,
        head=(3, 192),
        seed=seed,
        valid=valid,
    )


def whisper_scenes(
    corpus: str = "runs/spoken/corpus",
    steps: int = 2000,
    seconds: float = 180.0,
    init: str = "",
    real: int = 2,
) -> Recipe:
    """The bundled recogniser, on what maskgil data speech prepared; `seconds` of speech a batch. init= goes
    on from another, whose vocabulary stays; an epoch hears each recording of a person `real` times."""
    from train.asr import model as asr_model  # Whisper takes a second to import, which no other recipe needs

    return asr_model.recipe(Path(corpus), steps, seconds, Path(init) if init else None, real)


def _large(name: str, preset: str, data: str, init: str, valid: str, options: PretrainOptions) -> Recipe:
    config = PRESETS["xxl"] if preset == "t2i-xxl" else PRESETS[preset]
    if preset == "t2i-xxl":
        text = PRESETS["t2i-xl"]
        config = replace(config, classes=None, text_dim=text.text_dim, null_length=text.null_length)
    return pretrain_recipe(name, config, data, init, valid, options, write_image_rows)


def t2i_xl_256(data: str, init: str = "", valid: str = "", options: PretrainOptions = PretrainOptions()) -> Recipe:  # noqa: B008
    """First stage of the 775M text-driven model: a cache of size 256; init= may be a converted LlamaGen."""
    return _large("t2i-xl-256", "t2i-xl", data, init, valid, options)


def t2i_xl_512(
    data: str,
    init: str,
    valid: str = "",
    options: PretrainOptions = PretrainOptions(micro=16, steps=50_000, lr=5e-5, recompute=True),  # noqa: B008
) -> Recipe:
    """Second stage, from the first one's export: a cache of size 512."""
    return _large("t2i-xl-512", "t2i-xl", data, init, valid, options)


def t2i_xl_1024(
    data: str,
    init: str,
    valid: str = "",
    options: PretrainOptions = PretrainOptions(batch=128, micro=4, steps=20_000, lr=2e-5, recompute=True),  # noqa: B008
) -> Recipe:
    """Third stage, from the second one's export: a cache of size 768 or 1024."""
    return _large("t2i-xl-1024", "t2i-xl", data, init, valid, options)


def t2i_xxl_256(
    data: str,
    init: str = "",
    valid: str = "",
    options: PretrainOptions = PretrainOptions(micro=16, lr=5e-5, shard=True, recompute=True),  # noqa: B008
) -> Recipe:
    """1.4B text-driven, sharded over all GPUs."""
    return _large("t2i-xxl-256", "t2i-xxl", data, init, valid, options)


CLASS_DRIVEN = PretrainOptions(steps=400_000, token_dropout=0.1)


def c2i_b(data: str, init: str = "", valid: str = "", options: PretrainOptions = CLASS_DRIVEN) -> Recipe:
    """Class-driven, 111M, on a cache of an ImageNet-style folder (shape=square)."""
    return _large("c2i-b", "b", data, init, valid, options)


def c2i_l(data: str, init: str = "", valid: str = "", options: PretrainOptions = CLASS_DRIVEN) -> Recipe:
    """Class-driven, 343M."""
    return _large("c2i-l", "l", data, init, valid, options)


def c2i_xl(data: str, init: str = "", valid: str = "", options: PretrainOptions = CLASS_DRIVEN) -> Recipe:
    """Class-driven, 775M."""
    return _large("c2i-xl", "xl", data, init, valid, options)


def c2i_xxl(
    data: str,
    init: str = "",
    valid: str = "",
    options: PretrainOptions = replace(CLASS_DRIVEN, micro=16, shard=True),  # noqa: B008
) -> Recipe:
    """Class-driven, 1.4B, sharded over all GPUs."""
    return _large("c2i-xxl", "xxl", data, init, valid, options)


def t2i_xl_ar(
    data: str,
    init: str = "",
    valid: str = "",
    options: PretrainOptions = PretrainOptions(smoothing=0.0),  # noqa: B008
) -> Recipe:
    """The autoregressive twin of t2i-xl, on a cache of any size; init= may be a converted LlamaGen GPT."""
    config = replace(PRESETS["t2i-xl"], causal=True)
    return pretrain_recipe("t2i-xl-ar", config, data, init, valid, options, write_image_rows, CAUSAL)


def c2i_ar(
    data: str,
    preset: str = "b",
    init: str = "",
    valid: str = "",
    options: PretrainOptions = replace(CLASS_DRIVEN, smoothing=0.0),  # noqa: B008
) -> Recipe:
    """The twin of a class-driven model: preset b, l, xl or xxl; init= may be a converted LlamaGen GPT."""
    if preset not in ("b", "l", "xl", "xxl"):
        raise ValueError(f"preset={preset}: choose b, l, xl or xxl")
    config = replace(PRESETS[preset], causal=True)
    return pretrain_recipe("c2i-ar", config, data, init, valid, options, write_image_rows, CAUSAL)


def emigm_xs(
    data: str, init: str = "", valid: str = "", repeats: int = 4, options: PretrainOptions = RELEASED
) -> Recipe:
    """eMIGM, class-driven, 69M, on a cache of latents of an ImageNet-style folder (256 or 512, shape=square)."""
    return emigm_recipe("xs", data, init, valid, repeats, options, write_image_rows)


def emigm_s(
    data: str, init: str = "", valid: str = "", repeats: int = 4, options: PretrainOptions = RELEASED
) -> Recipe:
    """eMIGM, class-driven, 97M."""
    return emigm_recipe("s", data, init, valid, repeats, options, write_image_rows)


def emigm_b(
    data: str, init: str = "", valid: str = "", repeats: int = 4, options: PretrainOptions = RELEASED_LARGE
) -> Recipe:
    """eMIGM, class-driven, 208M; init= may be a converted release, to be fine-tuned."""
    return emigm_recipe("b", data, init, valid, repeats, options, write_image_rows)


def emigm_l(
    data: str,
    init: str = "",
    valid: str = "",
    repeats: int = 4,
    options: PretrainOptions = replace(RELEASED_LARGE, recompute=True),  # noqa: B008
) -> Recipe:
    """eMIGM, class-driven, 478M."""
    return emigm_recipe("l", data, init, valid, repeats, options, write_image_rows)


def emigm_h(
    data: str,
    init: str = "",
    valid: str = "",
    repeats: int = 4,
    options: PretrainOptions = replace(RELEASED_LARGE, recompute=True),  # noqa: B008
) -> Recipe:
    """eMIGM, class-driven, 942M, of 256 px."""
    return emigm_recipe("h", data, init, valid, repeats, options, write_image_rows)


def lora(
    model: str,
    pictures: str,
    size: int = 256,
    rank: int = 16,
    cache: str = "",
    valid: str = "",
    options: PretrainOptions = PretrainOptions(  # noqa: B008
        batch=8,
        micro=2,
        steps=1000,
        warmup=50,
        weight_decay=0.0,
        token_dropout=0.0,
        smoothing=0.0,
        ema=0.99,
        recompute=True,
        workers=1,
        save_every=250,
        sample_every=250,
    ),
) -> Recipe:
    """Adapters for a text-to-image folder, from a folder of pictures with .txt captions (train/lora.py)."""
    from train.lora import lora_recipe  # peft takes seconds to load

    return lora_recipe(model, pictures, size, rank, cache, options, write_image_rows, valid)
