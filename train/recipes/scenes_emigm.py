"""Generators of drawn scenes by any of the methods that eMIGM's paper compares, with eMIGM itself.

    maskgil data latents --tokenizer weights/scenes/tokenizer --out cache/latents [--kind paired --sprites FOLDER
        --total 50000 --codes weights/scenes/tokenizer]
    maskgil train scenes-emigm --cache cache/latents

The bundled eMIGM draws the latents of the bundled VQ tokenizer (maskgil/tokenizers/vq_latents.py); a KL tokenizer of
the same size may take its place (train/recipes/kl_tokenizer.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import text_encoder as encoders
from maskgil import checkpoint
from maskgil.models.emigm import EMIGM, Blocks
from maskgil.models.maskgil import MaskGIL
from maskgil.tokenizers.vq import VQ_PRESETS, VQModel
from train.data.latent_cache import WORDS, SceneLatents, opened_latents
from train.data.scene_cache import note_of, tokenizer_of
from train.data.scene_datasets import SceneTokens
from train.losses.diffusion_token import LatentTokenLoss, LatentTrainingModule, TrainableGenerator
from train.losses.generation_methods import MaskedGenerationConfig
from train.optim import OptimConfig
from train.recipe import OptimizedModule, Recipe
from train.recipes.method_generators import TrunkSizes, generator_for
from train.scenes.captions import sentences
from train.scenes.labels import kinds
from train.warm_start import align_text_encoders, resume_seed


@dataclass(frozen=True)
class MethodOptions:
    """Sizes and training of a generator of scenes.

    head           (blocks, width) of the diffusion head of latents
    repeats        noise levels that each masked token is trained at in a step (diffusion head)
    valid          a cache of other scenes, for the validation loss
    codes          number of codes; 0: those of the bundled tokenizer of scenes
    layout, things_first   as in LatentTokenLoss
    guess          as in LatentTrainingModule
    init           a folder with generator/ to continue from, of any size; the order of data is new without a seed
    known_encoder  the text encoder that `init` was trained with, if it is another one (align_text_encoders)
    begin          a model folder whose generator initializes the llama blocks of a new trunk (init_from_maskgil)
    teacher        a model folder whose generator of codes teaches one of latents; the cache must hold both
    blocks         as in generator_for
    architecture   further options of generator_for, of a generator of codes
    """

    steps: int
    batch: int
    lr: float
    muon_lr: float | None
    width: int
    depth: int | tuple[int, int]
    heads: int
    head: tuple[int, int]
    repeats: int = 4
    seed: int = 0
    valid: str = ""
    codes: int = 0
    layout: float = 0.0
    things_first: bool = False
    init: str = ""
    known_encoder: str = ""
    begin: str = ""
    teacher: str = ""
    guess: bool = False
    compile: bool = False
    blocks: Blocks = "vit"
    architecture: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sizes(self) -> TrunkSizes:
        """Of the generator."""
        return TrunkSizes(self.width, self.depth, self.heads, self.head, self.blocks)


@dataclass
class _Parts:
    """The parts of a recipe.

    hashes    fingerprints for the export
    kinds     answers of the layout heads
    codes_of  the fingerprint of the tokenizer whose codes a cache of latents holds too
    """

    generator: TrainableGenerator
    data: SceneLatents | SceneTokens
    hashes: dict[str, str]
    seed: int
    kinds: tuple[int, ...]
    codes_of: str | None = None


def _latent_parts(
    framework: MaskedGenerationConfig, cache: str, encoder: encoders.TextEncoder, options: MethodOptions
) -> _Parts:
    """A new generator of latents, and batches of a cache of them."""
    text, latents = (encoder.width, min(encoder.length, WORDS)), opened_latents(cache)
    _, tokens, channels = latents.table["mean"].shape
    side = int(tokens**0.5)
    generator = generator_for(framework, options.sizes, (side, side), text, channels=channels)
    data = SceneLatents(cache, encoder.vocabulary, options.batch, seed=2 + options.seed, words=text[1])
    return _Parts(generator, data, _hashes(cache, encoder), options.seed, kinds(), latents.codes_of)


def _code_parts(
    framework: MaskedGenerationConfig, cache: str, encoder: encoders.TextEncoder, options: MethodOptions
) -> _Parts:
    """A new generator of codes, and batches of a cache of them. The layout heads are two, as when the measurements of
    experiments/paper_findings were made."""
    text, codes = (encoder.width, min(encoder.length, WORDS)), options.codes or VQ_PRESETS["scenes"].codebook_size
    generator = generator_for(framework, options.sizes, (8, 8), text, codes=codes, **options.architecture)
    data = SceneTokens(cache, encoder.vocabulary, options.batch, seed=2 + options.seed)
    return _Parts(generator, data, _hashes(cache, encoder), options.seed, kinds()[:2])


def _hashes(cache: str, encoder: encoders.TextEncoder) -> dict[str, str]:
    return {
        "tokenizer_hash": tokenizer_of(cache),
        "text_encoder_hash": checkpoint.fingerprint(encoder.identity()),
    }


# What a framework's conditional learns from: (what a cache holds, the parts of a recipe).
LEARNS_FROM = {"categorical": ("codes", _code_parts), "diffusion": ("latents", _latent_parts)}


def _new_parts(
    framework: MaskedGenerationConfig, cache: str, encoder: encoders.TextEncoder, options: MethodOptions
) -> _Parts:
    """A new generator and its batches. ValueError unless the cache holds the kind of tokens that `framework` learns."""
    wanted, parts = LEARNS_FROM[framework.conditional]
    for folder in cache.split(","):
        held = "latents" if "latent" in note_of(folder) else "codes"
        if held != wanted:
            raise ValueError(f"{folder} holds {held}; conditional={framework.conditional} learns from {wanted}")
    return parts(framework, cache, encoder, options)


def _initialize(parts: _Parts, encoder: encoders.TextEncoder, options: MethodOptions) -> None:
    """Give a new generator the weights that `init` or `begin` names."""
    if options.init:
        known = encoders.load(options.known_encoder) if options.known_encoder else encoder
        trained_with = parts.hashes | {"text_encoder_hash": checkpoint.fingerprint(known.identity())}
        parts.generator = _load_for_training(Path(options.init) / "generator", parts.generator, trained_with)
        parts.seed = options.seed or resume_seed(parts.generator)
        if options.known_encoder:
            align_text_encoders(parts.generator, known, encoder, sentences(2000, seed=5))
        parts.data = replace(parts.data, seed=2 + parts.seed)
    elif options.begin:
        known, _ = _code_generator("begin", options.begin, parts.hashes["text_encoder_hash"])
        tokenizer = checkpoint.load(checkpoint.resolve(options.begin) / "tokenizer", "vq")
        init_from_maskgil(parts.generator, known, tokenizer)


def method_recipe(
    name: str, framework: MaskedGenerationConfig, cache: str, text_encoder: str, options: MethodOptions
) -> Recipe:
    """A text-driven generator of `framework` on a cache of its kind of tokens. The text encoder is not trained.

    Exports only generator/. Raises ValueError for a cache, an `init` or a teacher that does not fit.
    """
    torch.manual_seed(options.seed)
    encoder = encoders.load(text_encoder)
    encoder.requires_grad_(False)
    parts = _new_parts(framework, cache, encoder, options)
    _initialize(parts, encoder, options)
    generator, hashes = parts.generator, parts.hashes
    teacher = None
    if options.teacher:
        teacher, codes_of = _code_generator("teacher", options.teacher, hashes["text_encoder_hash"])
        if codes_of != parts.codes_of:
            raise ValueError(
                f"teacher={options.teacher} reads codes of its tokenizer, which {cache} does not hold: make it with "
                "codes="
            )

    def export(average: LatentTrainingModule, folder: Path) -> None:
        checkpoint.save(folder / "generator", average.generator, generator.kind, generator.config.to_dict(), **hashes)

    module = LatentTrainingModule(
        generator, encoder, 0.0, options.repeats, parts.kinds if options.layout else (), options.guess, teacher
    )
    loss = LatentTokenLoss(framework, layout=options.layout, things_first=options.things_first)
    optim = OptimConfig(lr=options.lr, muon_lr=options.muon_lr, betas=(0.9, 0.95), warmup=50, decay=0.5)
    return Recipe(
        name=name,
        steps=options.steps,
        modules=(OptimizedModule(module, loss, optim),),
        batch_at=parts.data,
        provenance={part.removesuffix("_hash"): made_by for part, made_by in hashes.items()},
        seed=parts.seed,
        compile=options.compile,
        ema=0.995,
        save_every=200,
        valid_at=replace(parts.data, folder=options.valid, seed=1000) if options.valid else None,
        valid_every=options.steps,
        export=export if generator.kind else None,  # no command loads a model of experiments
    )


def _code_generator(word: str, model: str, text_encoder: str) -> tuple[MaskGIL, str]:
    """The generator of a model folder and its tokenizer's fingerprint. ValueError unless it reads that text encoder."""
    folder = checkpoint.resolve(model) / "generator"
    about = checkpoint.describe(folder)
    if about.get("text_encoder_hash") != text_encoder:
        raise ValueError(f"{word}={model} reads text encoder {about.get('text_encoder_hash')}, this run {text_encoder}")
    return checkpoint.load(folder, "maskgil"), about["tokenizer_hash"]


def init_from_maskgil(generator: EMIGM, known: MaskGIL, tokenizer: VQModel, steps: int = 200) -> None:
    """Initialize a trunk of llama blocks with the weights of a MaskGIL. A shallower trunk takes blocks at even
    distances, with the first and the last.

    The embedding table of codes has no counterpart: a perceptron is fitted to map the vector of a code (`unit_latents`
    of `tokenizer`) to its row of the table. ValueError when the trunks differ in width, heads or blocks.
    """
    ours, theirs = generator.config, known.config
    same = (ours.width, ours.heads, ours.llama.hidden, ours.text_dim, ours.channels)
    if (
        ours.blocks != "llama"
        or theirs.qk_norm != "rms"
        or theirs.norm != "pre"
        or theirs.rope != "2d"
        or same
        != (
            theirs.dim,
            theirs.heads,
            theirs.hidden,
            theirs.text_dim,
            tokenizer.config.codebook_dim,
        )
    ):
        raise ValueError("a trunk begins as a MaskGIL of llama blocks of its own width, heads, text and channels alone")
    blocks = [*generator.encoder_blocks, *generator.decoder_blocks]
    for at, block in zip(torch.linspace(0, len(known.layers) - 1, len(blocks)).round().int(), blocks, strict=True):
        block.load_state_dict(known.layers[at].state_dict())
    caption = known.cls_embedding.cap_proj
    table = known.tok_embeddings.weight.detach()
    with torch.no_grad():
        generator.text_proj[0].weight.copy_(caption["fc1"].weight)
        generator.text_proj[2].weight.copy_(caption["fc2"].weight)
        generator.decoder_norm.weight.copy_(known.norm.weight)
        generator.mask_token.copy_(table[theirs.mask_id])
    codes = tokenizer.quantize.codebook().detach() * ours.channels**0.5
    optimizer = torch.optim.AdamW(generator.z_proj.parameters(), 3e-3)
    draw = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        for _ in range(steps):
            picked = torch.randint(len(codes), (1024,), generator=draw)
            near = codes[picked] + 0.2 * torch.randn(1024, ours.channels, generator=draw)
            loss = F.mse_loss(generator.z_proj(near), table[picked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _load_for_training(folder: Path, like: TrainableGenerator, hashes: dict[str, str]) -> nn.Module:
    """The generator of a folder, in training. ValueError unless it is of the kind of `like` and of these parts."""
    if not like.kind:
        raise ValueError("codes under a masked autoencoder are an experiment, of which no folder is kept: no init=")
    about = checkpoint.describe(folder)
    for what, name in (("tokenizer", "tokenizer_hash"), ("text encoder", "text_encoder_hash")):
        if about.get(name) != hashes[name]:
            raise ValueError(f"{folder} was trained with {what} {about.get(name)}; this run has {hashes[name]}")
    return checkpoint.load(folder, like.kind).train()
