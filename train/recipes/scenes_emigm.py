"""Continuous tokens of drawn scenes: the small KL tokenizer, its cache, and the recipes of the framework's methods.

    maskgil train scenes-kl --sprites FOLDER
    maskgil data latents --tokenizer weights/scenes/tokenizer --out cache/latents [--kind paired --sprites FOLDER
        --total 50000 --codes weights/scenes/tokenizer]
    maskgil train scenes-emigm --cache cache/latents

The bundled eMIGM draws the latents of the bundled VQ (maskgil/tokenizers/vq_latents.py); a KL tokenizer of this size
may
take its place.

A cache is a folder with `cache.json` (what made it) and `128x128-<shard>.safetensors`, each written whole: {"mean",
"std": (n, N, C) float16, scaled, "numbers": (n,) int64}, and with `codes` {"codes": (n, N) int16}, those of a VQ
tokenizer that a teacher reads (train/losses/diffusion_token.py): always where the latents are a VQ's own. `kind`: as in
train/data/scene_cache.py. Tokens are drawn from the posterior each time they are read.
Only one size, since an eMIGM draws one.

Axes: B batch, n pictures, N tokens, C channels, h w cells.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import text_encoder as encoders
from maskgil import checkpoint
from maskgil.models.emigm import EMIGM, Blocks
from maskgil.models.maskgil import MaskGIL
from maskgil.tokenizers import vq_latents
from maskgil.tokenizers.autoencoder import AutoencoderConfig, AutoencoderTokenizer, validate_scale
from maskgil.tokenizers.vq import VQ_PRESETS, VQModel
from maskgil.tokenizers.vq_latents import VQLatentTokenizer
from train.data.cache_files import write_note, write_shard
from train.data.caption_pieces import padded_pieces, word_pieces
from train.data.scene_cache import (
    KINDS,
    NOTE,
    OTHERS,
    SHARD,
    corpus,
    note_of,
    scene_number,
    tokenizer_of,
)
from train.data.scene_datasets import ScenePixels, SceneTokens
from train.losses.diffusion_token import (
    CodeTrunk,
    LatentTokenLoss,
    LatentTrainingModule,
    MaskedGenerationConfig,
    generator_for,
)
from train.losses.reconstruction import ReconstructionLoss
from train.optim import OptimConfig
from train.recipe import OptimizedModule, Recipe
from train.scenes.captions import caption, sentences
from train.scenes.labels import cells, kinds
from train.scenes.render import render
from train.scenes.scene import Scene
from train.scenes.sprites import Sprites, things
from train.training_step import unwrapped
from train.warm_start import align_text_encoders, resume_seed

SIDE = 128  # pixels
# Slots for text: every one costs as much as a token, and of 40,000 captions the longest has 27 pieces, END included.
# What is longer, once in a million, is said anew in training and refused when one draws.
WORDS = 28

# 16 px a token like the VQ, so that both generators draw 64 tokens, and as there the decoder works at the tokens'
# resolution: its weights cost least there, and it has drawings to remember.
SCENES_KL = AutoencoderConfig(
    channels=8, widths=(64, 128), layers=1, groups=16, patch=8, decoder_widths=(192,), decoder_patch=16, scale=1.0
)


# --- the tokenizer ----------------------------------------------------------------------------------------------------


class LatentsWithCellHead(nn.Module):
    """A KL tokenizer in training: a head must name, from a cell's latent alone, what covers it (as
    TokenizerWithCellHead).

    `things`: how many there are to name; 0: there is no head.
    """

    def __init__(self, model: AutoencoderTokenizer, things: int):
        super().__init__()
        self.model = model
        self.head = nn.Conv2d(model.config.channels, things + 1, 1) if things else None

    def forward(
        self, pixels: Float[Tensor, "B 3 H W"], noise: Float[Tensor, "B C h w"]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """(pixels again from a sample, mean and deviation of the posterior, logits of names (B, T+1, h, w))."""
        mean, deviation = (part.float() for part in self.model.posterior(pixels))
        z = mean + deviation * noise
        return self.model.reconstruct(z), mean, deviation, None if self.head is None else self.head(z)


@dataclass(frozen=True)
class KLLoss:
    """Likeness of what is painted from a sample of the posterior, its divergence from N(0, 1) in nats a number, names,
    and likeness of the means to a teacher's latents.

    divergence  decides how much there is to draw. At 1e-3 a number of 16 keeps 15 nats, a posterior of 1/200 of the
                latents' spread: more than a small diffusion head can learn, whose pictures were mottled. At 5e-2 one
                of 8 keeps 1.6
    naming      a head names from a latent alone what covers its cell; without it or a teacher nothing in the latents
                says so, and with more than 1e-2 of divergence from the beginning it is not learned
    teacher     a vector-quantised tokenizer whose latents, before they are quantised, the means must resemble, at a
                deviation of 1: its 12 bits a token say of a drawing what an encoder left to itself does not find in
                27 nats. It teaches in hundreds of steps what naming took thousands for
    anchor      weight of their squared distance
    """

    likeness: ReconstructionLoss = field(default_factory=ReconstructionLoss)
    divergence: float = 1e-3
    naming: float = 0.1
    teacher: VQModel | None = None
    anchor: float = 0.5

    def __call__(self, modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[Tensor, dict]:
        model = unwrapped(modules[0]).model
        pixels = batch["pixels"].float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
        shape = (len(pixels), model.config.channels, *model.grid(*pixels.shape[2:]))
        noise = torch.randn(shape, generator=generator, device=pixels.device)
        result, mean, deviation, names = modules[0](pixels, noise)
        result = result.float()
        kl = (0.5 * (mean.square() + deviation.square() - 1) - deviation.log()).mean()
        loss, report = self.likeness(result, batch, pixels, modules, model.net.decoder.conv_out.weight, step)
        loss = loss + self.divergence * kl
        if self.naming:
            names, there = names.float(), batch["covers"] > 0
            loss = loss + self.naming * F.cross_entropy(names, batch["covers"])
            report["cell_accuracy"] = (names.argmax(1) == batch["covers"])[there].float().mean().item()
        if self.teacher is not None:
            far = F.mse_loss(mean, unit_latents(self.teacher.to(pixels.device), pixels))
            loss, report["loss/distill"] = loss + self.anchor * far, far.item()
        with torch.no_grad():
            l1 = (result - pixels).abs().mean()
        return loss, report | {"l1": l1, "kl": kl.detach()}


@torch.no_grad()
def unit_latents(teacher: VQModel, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
    """Latents of a VQ tokenizer with codes on the unit sphere, before quantisation, stretched to a deviation of 1."""
    latents = teacher.latents(pixels)
    return latents.permute(0, 3, 1, 2) * latents.shape[-1] ** 0.5


@torch.no_grad()
def measured_scale(model: AutoencoderTokenizer, batch_at: Callable[[int], dict], batches: int = 16) -> float:
    """1 / the deviation of unscaled latents over many pictures, their posterior's own included."""
    parts, device = [], next(model.parameters()).device
    for index in range(batches):
        mean, deviation = model.posterior(batch_at(index)["pixels"].to(device).float().div(127.5).sub(1))
        parts += [torch.stack([mean.float(), deviation.float()]).flatten(1)]
    mean, deviation = torch.cat(parts, 1)
    return round(float((mean.var() + deviation.square().mean()).rsqrt()), 4)


@torch.no_grad()
def folded(model: AutoencoderTokenizer) -> AutoencoderTokenizer:
    """The same model, its scale moved into the weights: it begins where the divergence wants it, deviation 1."""
    scale, channels = model.config.scale, model.config.channels
    for part in model.net.quant_conv.parameters():
        part[:channels] *= scale
    model.net.quant_conv.bias[channels:] += 2 * math.log(scale)  # of the log variances
    model.net.post_quant_conv.weight /= scale
    model.config = replace(model.config, scale=1.0)
    return model


def kl_recipe(
    sprites: str | None,
    steps: int,
    batch: int,
    lr: float,
    picture: Callable,
    config: AutoencoderConfig = SCENES_KL,
    loss: KLLoss | None = None,
    judge: tuple[OptimizedModule, ...] = (),
    init: str | None = None,
    frozen: bool = False,
) -> Recipe:
    """See `scenes_kl` in train/recipes/scenes.py. judge: the PatchGAN's player, where the likeness has a game."""
    torch.manual_seed(0)
    if frozen and not init:
        raise ValueError("frozen=yes keeps the encoder of init=FOLDER; which one?")
    model = checkpoint.load(init, "latent").train() if init else AutoencoderTokenizer(config)
    config = model.config
    if init and not frozen:
        config = folded(model).config
    if frozen:
        for part in (model.net.encoder, model.net.quant_conv):
            part.requires_grad_(False)
    loss = loss or KLLoss()
    named = LatentsWithCellHead(model, len(things()) if loss.naming else 0).to(memory_format=torch.channels_last)
    data = ScenePixels(sprites, batch, seed=1000 * bool(init))
    shown = replace(data, seed=99, batch=8)

    def sample(average: LatentsWithCellHead, path: Path) -> None:
        model = average.model
        pixels = shown(0)["pixels"].to(next(model.parameters()).device).float().div(127.5).sub(1)
        picture([pixels, model.decode(model.encode(pixels), model.grid(*pixels.shape[2:]))], path)

    def export(average: LatentsWithCellHead, folder: Path) -> None:
        shown = replace(data, seed=98, crowd=0.0)
        scaled = config if frozen else replace(config, scale=measured_scale(average.model, shown))
        checkpoint.save(folder, average.model, "latent", scaled.to_dict())

    return Recipe(
        name="scenes-kl",
        steps=steps,
        modules=(OptimizedModule(named, loss, OptimConfig(lr=lr, muon_lr=0.02, warmup=50, decay=0.6)), *judge),
        batch_at=data,
        ema=0.995,
        save_every=250,
        sample_every=500,
        sample=sample,
        export=export,
    )


# --- the cache --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def write_latents(
    tokenizer: AutoencoderTokenizer | VQLatentTokenizer,
    sprites: Sprites,
    out: Path,
    total: int,
    shard: int = SHARD,
    codes: VQModel | None = None,
    first: int = 0,
) -> None:
    """Fill folder `out` with about `total` scenes of 128 x 128 from number `first` on; a run that was killed goes on.

    Raises ValueError when the folder was made by another tokenizer, with other codes, of another corpus or kind, or its
    latents are not scaled to about 1.
    """
    if own := isinstance(tokenizer, VQLatentTokenizer) and codes is None:
        codes = tokenizer.vq
    note, made_by = out / NOTE, checkpoint.fingerprint(tokenizer.identity())
    told = {"tokenizer": made_by, "corpus": corpus(), "total": total, "shard": shard, "sprites": sprites.identity()}
    told["latent"], told["first"] = tokenizer.config.to_dict(), first
    if codes is not None:
        told["codes"] = checkpoint.fingerprint(codes.identity())
    before = note_of(out) if note.is_file() else told
    for part in ("tokenizer", "codes"):
        if before.get(part) != told.get(part):
            what = "another tokenizer" if part == "tokenizer" else "other codes, or with none"
            raise ValueError(f"{out} was made with {what}: give another folder, or delete it")
    if before.get("first", 0) != first:
        raise ValueError(f"{out} was made with another kind of scenes: give another folder, or delete it")
    if before.get("sprites", told["sprites"]) != told["sprites"]:
        raise ValueError(f"{out} was made with {OTHERS}: give another folder, or delete it")
    write_note(note, told)
    for number in tqdm(range(max(1, round(total / shard))), desc="encoding scenes", unit_scale=shard, unit="scene"):
        path = out / f"{SIDE}x{SIDE}-{number:04d}.safetensors"
        if path.is_file():
            continue
        numbers = list(range(first + number * shard, first + (number + 1) * shard))
        means, deviations, indices = [], [], []
        for start in range(0, shard, 32):
            drawn = []
            for n in numbers[start : start + 32]:
                scene, rng = scene_number(n, SIDE, SIDE)
                drawn.append(render(scene, sprites, rng))
            pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                mean, deviation = tokenizer.moments(pixels)
                if codes is not None:
                    indices.append((tokenizer.codes(mean) if own else codes.tokens(pixels)).short())
            means.append(mean)
            deviations.append(deviation)
        mean, deviation = torch.cat(means), torch.cat(deviations)
        validate_scale(mean, tokenizer.config.scale, deviation)
        tensors = {"mean": mean.half(), "std": deviation.half(), "numbers": torch.tensor(numbers)}
        write_shard(tensors | ({"codes": torch.cat(indices)} if indices else {}), path)


@dataclass(frozen=True)
class LatentCache:
    """Everything in a cache folder, or in several, in memory."""

    mean: Float[Tensor, "n N C"]
    std: Float[Tensor, "n N C"]
    numbers: Int[Tensor, " n"]
    tokenizer: str  # fingerprint
    codes: Int[Tensor, "n N"] | None = None  # of a VQ tokenizer, where all folders have those of the same
    codes_of: str | None = None  # its fingerprint

    @staticmethod
    def open(folders: str | Path) -> "LatentCache":
        """`folders`: one, or several with commas between. Raises ValueError for one without latents, for latents of the
        wrong scale, and as tokenizer_of."""
        made_by, parts, codes_of = tokenizer_of(folders), [], set()
        for folder in str(folders).split(","):
            own = [load_file(path) for path in sorted(Path(folder).glob(f"{SIDE}x{SIDE}-*.safetensors"))]
            if not own or "mean" not in own[0]:
                raise ValueError(f"{folder} holds no cached latents: run maskgil data latents --out {folder}")
            note = note_of(folder)
            try:
                validate_scale(own[0]["mean"][:1024], note["latent"]["scale"], own[0]["std"][:1024])
            except ValueError as error:
                raise ValueError(f"{folder}: {error}") from None
            parts += own
            codes_of.add(note.get("codes"))
        mean, std, numbers = (torch.cat([part[name] for part in parts]) for name in ("mean", "std", "numbers"))
        one = codes_of.pop() if len(codes_of) == 1 else None
        codes = torch.cat([part["codes"] for part in parts]) if one else None
        return LatentCache(mean, std, numbers, made_by, codes, one)


@cache
def _latents(folder: str) -> LatentCache:
    return LatentCache.open(folder)


@dataclass(frozen=True)
class SceneLatents:
    """Cached latents, sampled anew, with fresh captions: {"tokens": (B, N, C), "grid", "ids", "mask": (B, L)}, and what
    each cell shows: {"things", "parts", "grounds", "styles", "colours": (B, N)} (`cells` in train/scenes/labels.py),
    with its code where the cache has them: {"codes": (B, N)}. No caption has more than `words` pieces."""

    folder: str
    vocabulary: bytes
    batch: int = 64
    seed: int = 2
    words: int = WORDS

    def __call__(self, index: int) -> dict:
        rng, table = np.random.default_rng([self.seed, index]), _latents(self.folder)
        chosen = rng.choice(len(table.numbers), self.batch, replace=len(table.numbers) < self.batch)
        scenes = [scene_number(int(table.numbers[i]), SIDE, SIDE)[0] for i in chosen]
        ids, mask = padded_pieces([self._said(scene, rng) for scene in scenes])
        noise = torch.from_numpy(rng.standard_normal((self.batch, *table.mean.shape[1:]), np.float32))
        chosen = torch.from_numpy(chosen)
        side = int(table.mean.shape[1] ** 0.5)
        return (
            {
                "tokens": table.mean[chosen].float() + table.std[chosen].float() * noise,
                "ids": ids,
                "mask": mask,
                "grid": (side, side),
            }
            | ({} if table.codes is None else {"codes": table.codes[chosen].long()})
            | cells(scenes)
        )

    def _said(self, scene: Scene, rng: np.random.Generator) -> list[int]:
        """Pieces of a caption that fits, END not among them."""
        for _ in range(20):
            pieces = word_pieces(self.vocabulary).encode(caption(scene, rng))
            if len(pieces) < self.words:
                return pieces
        raise ValueError(
            f"the text encoder cuts {caption(scene, rng)!r} into {len(pieces)} pieces; there are {self.words} slots"
        )


def cache_latents(
    tokenizer: str,
    out: str,
    kind: Literal["scenes", "paired"] = "scenes",
    sprites: str | None = None,
    total: int = 50_000,
    codes: str | None = None,
) -> None:
    """Encode drawn scenes into latents, for the recipes of eMIGM.

    Args:
        tokenizer: A KL tokenizer's folder, or a VQ tokenizer's, whose latents before quantization are kept.
        out: The folder of the cache. The same command again continues there.
        kind: scenes, or paired: two things, one of a given color.
        sprites: A folder of drawings. Left out: the emoji font alone.
        total: How many scenes.
        codes: A VQ tokenizer whose codes are kept too, for a teacher.
    """
    model = vq_latents.load(tokenizer).to(memory_format=torch.channels_last)
    reads = checkpoint.load(codes, "vq") if codes else None
    write_latents(model, Sprites(sprites), Path(out), total, codes=reads, first=KINDS[kind])


# --- the generators ---------------------------------------------------------------------------------------------------


def method_recipe(
    name: str,
    framework: MaskedGenerationConfig,
    cache: str,
    text_encoder: str,
    steps: int,
    batch: int,
    lr: float,
    muon_lr: float | None,
    width: int,
    depth: int | tuple[int, int],
    heads: int,
    head: tuple[int, int],
    repeats: int = 4,
    seed: int = 0,
    valid: str = "",
    codes: int = 0,
    layout: float = 0.0,
    things_first: bool = False,
    init: str = "",
    guess: bool = False,
    teacher: str = "",
    begin: str = "",
    compile: bool = False,
    blocks: Blocks = "vit",
    read: str = "",
    **maskgil: Any,
) -> Recipe:
    """A text-driven generator of `framework` on a cache of its kind of tokens; the text encoder stays as it is.

    Exports generator/ alone. `valid`: a cache of other scenes, for the validation loss; `codes`: how many, when it is
    not the tokenizer of scenes that made them; `layout`, `things_first`: as in LatentTokenLoss; `guess`: as in Method;
    `init`: a folder with generator/ to go on from, whatever its sizes, with data of its own unless a seed is given
    (goes_on); `read`: the text encoder that it read, if that was another (fit_to_encoder); `teacher`: a model folder
    whose generator of codes teaches one of latents (Method), the cache holding both; `begin`: one whose generator a
    trunk of llama blocks begins as (begun_as); `blocks`, `maskgil`: as in generator_for.
    """
    torch.manual_seed(seed)
    encoder = encoders.load(text_encoder)
    encoder.requires_grad_(False)
    text = (encoder.width, min(encoder.length, WORDS))
    made_by, continuous = tokenizer_of(cache), framework.conditional == "diffusion"
    for folder in cache.split(","):
        if continuous != ("latent" in note_of(folder)):
            wants, has = ("latents", "codes") if continuous else ("codes", "latents")
            raise ValueError(f"{folder} holds {has}; conditional={framework.conditional} learns from {wants}")
    if continuous:
        side = int(_latents(cache).mean.shape[1] ** 0.5)
        generator = generator_for(
            framework,
            width,
            depth,
            heads,
            (side, side),
            text,
            channels=_latents(cache).mean.shape[2],
            head=head,
            blocks=blocks,
        )
        data = SceneLatents(cache, encoder.vocabulary, batch, seed=2 + seed, words=text[1])
    else:
        data = SceneTokens(cache, encoder.vocabulary, batch, seed=2 + seed)
        codes = codes or VQ_PRESETS["scenes"].codebook_size
        generator = generator_for(framework, width, depth, heads, (8, 8), text, codes=codes, blocks=blocks, **maskgil)
    hashes = {
        "tokenizer_hash": made_by,
        "text_encoder_hash": checkpoint.fingerprint(encoder.identity()),
    }

    if init:
        known = encoders.load(read) if read else encoder
        was = {"text_encoder_hash": checkpoint.fingerprint(known.identity())}
        generator = _begun(Path(init) / "generator", generator, hashes | was)
        seed = seed or resume_seed(generator)
        if read:
            align_text_encoders(generator, known, encoder, sentences(2000, seed=5))
        data = replace(data, seed=2 + seed)
    elif begin:
        known = _of_codes("begin", begin, hashes["text_encoder_hash"])[0]
        init_from_maskgil(generator, known, checkpoint.load(checkpoint.resolve(begin) / "tokenizer", "vq"))

    teaches = None
    if teacher:
        teaches, codes_of = _of_codes("teacher", teacher, hashes["text_encoder_hash"])
        if not continuous or codes_of != _latents(cache).codes_of:
            raise ValueError(
                f"teacher={teacher} reads codes of its tokenizer, which {cache} does not hold: make it with codes="
            )
    asked = (
        kinds() if continuous else kinds()[:2]
    )  # of codes as the measurements of experiments/paper_findings were made

    def export(average: LatentTrainingModule, folder: Path) -> None:
        kind = "emigm" if continuous else "maskgil"
        checkpoint.save(folder / "generator", average.generator, kind, generator.config.to_dict(), **hashes)

    return Recipe(
        name=name,
        steps=steps,
        modules=(
            OptimizedModule(
                LatentTrainingModule(generator, encoder, 0.0, repeats, asked if layout else (), guess, teaches),
                LatentTokenLoss(framework, layout=layout, things_first=things_first),
                OptimConfig(lr=lr, muon_lr=muon_lr, betas=(0.9, 0.95), warmup=50, decay=0.5),
            ),
        ),
        batch_at=data,
        provenance={part.removesuffix("_hash"): made_by for part, made_by in hashes.items()},
        seed=seed,
        compile=compile,
        ema=0.995,
        save_every=200,
        valid_at=replace(data, folder=valid, seed=1000) if valid else None,
        valid_every=steps,
        export=None if isinstance(generator, CodeTrunk) else export,  # an experiment's model, which nothing opens
    )


def _of_codes(word: str, model: str, text_encoder: str) -> tuple[MaskGIL, str]:
    """The generator of a model folder and its tokenizer's fingerprint. ValueError unless it reads that text encoder."""
    folder = checkpoint.resolve(model) / "generator"
    about = checkpoint.describe(folder)
    if about.get("text_encoder_hash") != text_encoder:
        raise ValueError(f"{word}={model} reads text encoder {about.get('text_encoder_hash')}, this run {text_encoder}")
    return checkpoint.load(folder, "maskgil"), about["tokenizer_hash"]


def init_from_maskgil(generator: EMIGM, known: MaskGIL, tokenizer: VQModel, steps: int = 200) -> None:
    """Give a trunk of llama blocks the weights of a MaskGIL: what that knows of texts and of pictures is not learned
    twice. A shallower trunk takes blocks at even distances, the first and the last among them.

    What a table knew of a code, a perceptron is fitted to say of its vector, for latents like `unit_latents` of
    `tokenizer`. Raises ValueError when the two trunks differ in width, heads or blocks.
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


def _begun(folder: Path, like: nn.Module, hashes: dict[str, str]) -> nn.Module:
    """The generator of a folder, in training. ValueError unless it is of the kind of `like` and of these parts."""
    if isinstance(like, CodeTrunk):
        raise ValueError("codes under a masked autoencoder are an experiment, of which no folder is kept: no init=")
    about = checkpoint.describe(folder)
    for what, name in (("tokenizer", "tokenizer_hash"), ("text encoder", "text_encoder_hash")):
        if about.get(name) != hashes[name]:
            raise ValueError(f"{folder} was trained with {what} {about.get(name)}; this run has {hashes[name]}")
    return checkpoint.load(folder, "emigm" if isinstance(like, EMIGM) else "maskgil").train()


if __name__ == "__main__":
    raise SystemExit("error: this command is `maskgil data latents` now")
