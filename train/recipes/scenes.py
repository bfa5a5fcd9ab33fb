"""Recipes of the bundled models of drawn scenes, sized for hours on two CPU cores: text encoder, generator, AR model.

A recipe is a function that returns everything a run needs. Its parameters are the options of the command.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
from tyro.conf import arg

import text_encoder as encoders
from maskgil import checkpoint
from maskgil.model_folder import generator_folder
from maskgil.models.ar import ARTransformer
from maskgil.models.config import PRESETS
from maskgil.models.maskgil import MaskGIL
from text_encoder.small_t5 import SmallT5Encoder, train_vocabulary
from train.data.scene_cache import load_cache_tokenizer
from train.data.scene_datasets import SceneFacts, SceneTokens
from train.losses.conditioned import Conditioned, WithLayoutHeads
from train.losses.label_probe import LabelProbe, label_probe_loss
from train.losses.masked_token import MaskedTokenLoss, Teacher
from train.losses.next_token import NextTokenLoss
from train.losses.token_targets import neighbor_targets
from train.optim import OptimConfig
from train.recipe import OptimizedModule, Recipe
from train.recipes.shared_options import (
    Batch,
    Compile,
    MuonRate,
    Rate,
    SceneTokenCache,
    SceneTokenizer,
    Seed,
    Steps,
    Workers,
)
from train.scenes.captions import sentences
from train.scenes.labels import kinds, label_kinds
from train.scenes.scene import KNOWN_THINGS
from train.scenes.vocabulary_growth import (
    first_new_piece,
    freeze_known,
    grow_vocabulary,
    is_grown_from,
    new_words,
)
from train.warm_start import align_text_encoders, resume_seed


def _captioned(cache: str, encoder: SmallT5Encoder, batch: int, seed: int, workers: int) -> SceneTokens:
    """Tokens and captions for a generator or its AR model. Several workers serve a GPU: see SceneTokens for `alike`."""
    return SceneTokens(cache, encoder.vocabulary, batch, seed=2 + seed, alike=4 if workers == 1 else 1)


def scenes_text(
    vocabulary: str = "runs/vocabulary",
    steps: Steps = 1500,
    batch: int = 256,
    lr: Rate = 2e-3,
    muon_lr: MuonRate = 0.02,
    init: str = "",
    grow: bool = False,
    seed: Seed = 0,
) -> Recipe:
    """Train the bundled text encoder to predict what captions say. Takes minutes and needs no pictures.

    With --init the states change far less than those of a new encoder, so that generators need little training to read
    them (scenes-generator --text-encoder).

    Args:
        vocabulary: Folder of the vocabulary; a new one is made there where there is none.
        batch: Captions a step.
        init: Text encoder to continue from, with its vocabulary.
        grow: Make pieces of the words that the vocabulary of --init lacks, and train only their rows of the embedding,
            or the rows of those that were made so before. The states of texts without these words stay exactly as they
            are.
    """
    torch.manual_seed(seed)
    if init:
        encoder = SmallT5Encoder.load(init).train()
        if grow:
            known, words = encoder.config.vocab_size, new_words(encoder)
            if words:
                encoder = grow_vocabulary(encoder, words, sentences(4000, seed=7)).train()
            elif not (known := first_new_piece(encoder)):
                raise ValueError(f"{init} knows the words of all things: add a thing first, or leave grow out")
            freeze_known(encoder, known)
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
        batch_at=SceneFacts(encoder.vocabulary, batch, seed=4 + seed, several=0.5 if grow else 0.0),
        seed=seed,
        ema=0.99,
        export=lambda average, folder: average.text_encoder.save(folder, torch.float32),
    )


def _teacher(name: str, encoder: SmallT5Encoder, tokenizer_hash: str) -> Teacher:
    """The generator of a model folder as a teacher. ValueError if it has another tokenizer or text encoder."""
    folder = checkpoint.resolve(name)
    if (made_of := checkpoint.describe(folder / "generator").get("tokenizer_hash")) != tokenizer_hash:
        raise ValueError(
            f"the teacher {name} was trained on tokens of tokenizer {made_of}, this run on {tokenizer_hash}"
        )
    if not is_grown_from(encoder, SmallT5Encoder.load(folder / "text_encoder")):
        raise ValueError(f"the text encoder of the teacher {name} is not what this run's was grown from")
    return Teacher(
        Conditioned(checkpoint.load(folder / "generator", "maskgil").requires_grad_(False), encoder), KNOWN_THINGS
    )


def scenes_generator(
    cache: SceneTokenCache = "cache/scenes",
    tokenizer: SceneTokenizer = "weights/scenes/tokenizer",
    text_encoder: str = "",
    steps: Steps = 6000,
    batch: Batch = 64,
    lr: Rate = 2e-3,
    muon_lr: MuonRate = 0.02,
    init: str | None = None,
    expert: int = 0,
    teacher: str = "",
    frozen: bool = False,
    compile: Compile = False,
    workers: Workers = 1,
    seed: Seed = 0,
) -> Recipe:
    """Train the bundled generator on cached tokens, with a text encoder from scenes-text.

    Args:
        text_encoder: Text encoder to use in place of that of --init; the generator's first text layer is fitted to it
            (ridge regression). Left out: that of --init, or runs/scenes-text/export.
        init: Model folder to continue from; the order of the data, captions and masks are then new.
        expert: Which expert of --init to continue from, counted from 1. 0 is the model's first generator.
        teacher: Model folder of fewer things. In pictures that show only these, its probabilities are most of the
            target. Its text encoder must be the one that this run's was grown from.
        frozen: Do not train the text encoder, so that an AR model can be trained on it at the same time.
    """
    torch.manual_seed(seed)
    codes, tokenizer_hash = load_cache_tokenizer(cache, tokenizer)
    if expert and not init:
        raise ValueError(f"--expert {expert} needs --init, the model folder whose expert it is")
    if init:
        folder = checkpoint.resolve(init)
        place = generator_folder(folder, expert)
        if (wanted := checkpoint.describe(place).get("tokenizer_hash")) != tokenizer_hash:
            raise ValueError(f"{cache} holds tokens of tokenizer {tokenizer_hash}, {init} was trained on {wanted}")
        encoder = SmallT5Encoder.load(text_encoder or folder / "text_encoder").train()
        generator = checkpoint.load(place, "maskgil").train()
        seed = seed or resume_seed(generator)
        known = SmallT5Encoder.load(folder / "text_encoder")
        if text_encoder and not is_grown_from(encoder, known):
            align_text_encoders(generator, known, encoder, sentences(2000, seed=5))
    else:
        encoder = SmallT5Encoder.load(text_encoder or "runs/scenes-text/export").train()
        generator = MaskGIL(PRESETS["scenes"])
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
    taught = _teacher(teacher, encoder, tokenizer_hash) if teacher else None
    objective = MaskedTokenLoss(layout=0.5, near=near, things_first=True, teacher=taught)
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
    cache: SceneTokenCache = "cache/scenes",
    tokenizer: SceneTokenizer = "weights/scenes/tokenizer",
    steps: Steps = 2400,
    batch: Batch = 64,
    lr: Rate = 2e-3,
    muon_lr: MuonRate = 0.02,
    init: str = "",
    ar_model: Annotated[str, arg(aliases=("--twin",))] = "",
    compile: Compile = False,
    workers: Workers = 1,
    seed: Seed = 0,
) -> Recipe:
    """Train the bundled generator's AR model on the same tokens. The text encoder is not trained.

    Args:
        text_encoder: Folder of the text encoder.
        init: Model folder whose generator's blocks the AR model is initialized from.
        ar_model: AR model of --init, to continue from instead.
    """
    if ar_model and not init:
        raise ValueError(f"--ar-model {ar_model} needs --init, the model folder whose text encoder it was trained with")
    torch.manual_seed(seed)
    encoder = encoders.load(text_encoder)
    encoder.requires_grad_(False)
    model = ARTransformer(replace(PRESETS["scenes"], causal=True))
    if init:
        folder = checkpoint.resolve(init)
        known = (
            checkpoint.load(ar_model, "autoregressive")
            if ar_model
            else checkpoint.load(folder / "generator", "maskgil")
        )
        seed = seed or (resume_seed(known) if ar_model else 0)
        read = SmallT5Encoder.load(folder / "text_encoder")
        if not is_grown_from(encoder, read):
            align_text_encoders(known, read, encoder, sentences(2000, seed=5))
        own = model.state_dict()
        model.load_state_dict({name: t[: len(own[name])] for name, t in known.state_dict().items()})  # no mask row
    codes, tokenizer_hash = load_cache_tokenizer(cache, tokenizer)
    made_of = {"tokenizer": tokenizer_hash, "text_encoder": checkpoint.fingerprint(encoder.identity())}

    def export(average: WithLayoutHeads, folder: Path) -> None:
        ar_model, hashes = average.generator, {f"{part}_hash": made_by for part, made_by in made_of.items()}
        checkpoint.save(folder, ar_model, ar_model.kind, ar_model.config.to_dict(), **hashes)

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
