"""Recipes for GPUs: text- and class-driven models on cached tokens, in stages of growing pictures.

`pretrain_recipe` makes them for a ModelSpec: MaskGIL (`MASKED`), its AR model (train/recipes/pretrain_ar.py) or eMIGM
(train/recipes/emigm.py). train/recipes/large.py lists them. `PretrainOptions` are their options on the command line,
and those of adapters (train/lora.py).
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
from torch import nn
from tyro.conf import arg

from maskgil import checkpoint
from maskgil.condition import Condition
from maskgil.models.ar import ARTransformer
from maskgil.models.config import ModelConfig, NormPlace, QKNorm
from maskgil.models.emigm import EMIGM, EMIGMConfig
from maskgil.models.maskgil import MaskGIL
from maskgil.sampling.code_sampler import CodeSampler
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.loop import sample
from maskgil.sampling.plans import masked_plan
from maskgil.sampling.token_grid import TokenGrid
from train.data.cached_batches import CachedBatches
from train.data.image_cache import CUT
from train.data.mixed_batches import common_note, data_batches, parts_of
from train.losses.conditioned import Conditioned
from train.losses.masked_token import MaskedTokenLoss
from train.optim import OptimConfig
from train.recipe import OptimizedModule, Recipe
from train.recipes.sample_sheets import encoded_prompts, sheet_sampler
from train.recipes.shared_options import Rate, Seed, Steps
from train.recipes.transformer_costs import TransformerCosts

SEEDS = 2**19

Generator = MaskGIL | ARTransformer | EMIGM
Choice = Literal["auto", "yes", "no"]
CHOICES: dict[str, bool | None] = {"auto": None, "yes": True, "no": False}


@dataclass(frozen=True)
class PretrainOptions:
    """How a large model is trained."""

    batch: Annotated[int, arg(help="pictures a step over all processes; a multiple of --micro")] = 256
    micro: Annotated[int, arg(help="pictures at once on one process; the rest of the batch is accumulated")] = 32
    steps: Steps = 200_000
    lr: Rate = 1e-4
    warmup: Annotated[int, arg(help="steps in which the rate grows from 0")] = 1000
    schedule: Annotated[str, arg(help="of the rate after the warm-up: constant, or cosine, down to a tenth")] = (
        "constant"
    )
    weight_decay: Annotated[float, arg(help="of AdamW, on matrices")] = 0.05
    decay_all: Annotated[bool, arg(help="weight decay on every parameter")] = False
    betas: Annotated[tuple[float, float], arg(help="of AdamW")] = (0.9, 0.95)
    clip: Annotated[float, arg(help="largest norm of the gradient; 0: not limited")] = 1.0
    caption_dropout: Annotated[float, arg(help="share of pictures without their caption or class, for guidance")] = 0.1
    token_dropout: Annotated[float, arg(help="dropout of the embedded tokens")] = 0.1
    everywhere: Annotated[bool, arg(help="score the visible tokens too, not only the masked ones")] = False
    independent: Annotated[
        bool, arg(help="mask each token by itself with the drawn share as probability, not exactly that share")
    ] = False
    smoothing: Annotated[float, arg(help="of the labels")] = 0.1
    ema: Annotated[float, arg(help="decay of the moving average of the weights, which is exported; 0: none")] = 0.9999
    precision: Annotated[str, arg(help="auto (what the device multiplies faster), bf16, or no for float32")] = "auto"
    shard: Annotated[bool, arg(help="FSDP2: weights, gradients and optimizer are divided among the processes")] = False
    recompute: Annotated[
        Choice, arg(help="activation checkpointing: less memory for a third more time; auto: where a GPU needs it")
    ] = "auto"
    compile: Annotated[
        Choice, arg(help="torch.compile of the blocks; auto: on a GPU, in runs long enough to win back its minute")
    ] = "auto"
    workers: Annotated[int, arg(help="processes that read batches")] = 4
    seed: Seed = 0
    save_every: Annotated[int, arg(help="steps between checkpoints; 0: none")] = 1000
    sample_every: Annotated[int, arg(help="steps between sample sheets; 0: none; they need --tokenizer")] = 2000
    valid_every: Annotated[int, arg(help="steps between validations; 0: none; they need --valid")] = 2000
    tokenizer: Annotated[str, arg(help="folder of the cache's tokenizer, to draw sample sheets")] = ""
    prompts: Annotated[str, arg(help="file of prompts for the sheets, one a line; left out: the cache's captions")] = ""
    text_encoder: Annotated[str, arg(help="folder or name of the text encoder that reads --prompts")] = ""
    wandb: Annotated[str, arg(help="project of Weights & Biases to log to")] = ""
    qk_norm: Annotated[str, arg(help="of a new model: none, layer or rms; left out: the preset's")] = ""
    norm: Annotated[str, arg(help="of a new model: pre or post; left out: the preset's")] = ""

    def check(self) -> None:
        """ValueError for impossible values. A seed has 19 bits: masks are drawn from 64 bits, of which the lower 44 are
        the picture's number (train/losses/masked_token.py)."""
        for name, (least, most) in BOUNDS.items():
            value = getattr(self, name)
            if not least <= value <= most:
                bounds = f"{least} to {most}" if most < math.inf else f"{least} or more"
                raise ValueError(f"{name}={value}: give {bounds}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={self.betas}: give two numbers from 0, below 1")
        if self.batch % self.micro:
            raise ValueError(f"batch={self.batch} is no multiple of micro={self.micro}")
        named = {"schedule": ("cosine", "constant"), "precision": ("auto", "bf16", "no")}
        named |= {"qk_norm": ("", *get_args(QKNorm)), "norm": ("", *get_args(NormPlace))}
        for name, choices in named.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)}: choose {', '.join(filter(None, choices))}")


# Least and largest value of each number of PretrainOptions.
BOUNDS: dict[str, tuple[float, float]] = {
    "batch": (1, math.inf),
    "micro": (1, math.inf),
    "steps": (1, math.inf),
    "lr": (0.0, 10.0),
    "warmup": (0, math.inf),
    "weight_decay": (0.0, 1.0),
    "clip": (0.0, math.inf),
    "caption_dropout": (0.0, 1.0),
    "token_dropout": (0.0, 0.99),
    "smoothing": (0.0, 0.99),
    "ema": (0.0, 0.999999),
    "workers": (0, 1024),
    "seed": (0, SEEDS - 1),
    "save_every": (0, math.inf),
    "sample_every": (0, math.inf),
    "valid_every": (0, math.inf),
}


@dataclass(frozen=True)
class CosineSchedule:
    """Warm-up from 0, then half a cosine down to `floor` of the full rate."""

    warmup: int
    floor: float = 0.1

    def __call__(self, step: int, steps: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        along = (step - self.warmup) / max(1, steps - self.warmup)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, along)))


def _of_codes(note: dict[str, Any]) -> dict[str, Any]:
    condition = {"text_dim": note["width"]} if "width" in note else {"classes": len(note["classes"])}
    return {"codebook_size": note["codes"]} | condition


def _blank_codes(config: ModelConfig, rows: int, grid: tuple[int, int], device: torch.device) -> TokenGrid:
    return TokenGrid.blank(rows, grid, config.mask_id, device)


@dataclass(frozen=True)
class ModelSpec:
    """What the recipes train: MaskGIL, its AR model, or eMIGM.

    kinds      kinds of the folders that `init` may name, as in their config.json
    build      (config, the model of `init` or None) -> a new model; the weights are loaded afterwards
    objective  its loss, with the options' dropouts
    draw       (model, condition, blank canvas, guidance) -> the canvas filled, for sample sheets
    folder     its folder in an export
    tokenizer  the kind of its tokenizer, and so of its caches: vq or latent
    decided    the cache's note -> fields of the config that the cache determines
    chosen     fields of the config that the options determine
    module     the model -> the module that is trained
    blank      (config, rows, grid, device) -> a blank canvas
    costs      None: not counted, as for eMIGM
    """

    kinds: tuple[str, ...]
    build: Callable[[Any, Any], Generator]
    objective: Callable[[PretrainOptions], Callable]
    draw: Callable[[Any, Condition, TokenGrid, Guidance | None], TokenGrid]
    folder: str
    tokenizer: str = "vq"
    decided: Callable[[dict[str, Any]], dict[str, Any]] = _of_codes
    chosen: tuple[str, ...] = ("token_dropout",)
    module: Callable[[Any], nn.Module] = Conditioned
    blank: Callable[[Any, int, tuple[int, int], torch.device], TokenGrid] = _blank_codes
    costs: TransformerCosts | None = TransformerCosts()


def _in_eight_steps(model: MaskGIL, condition: Condition, canvas: TokenGrid, guidance: Guidance | None) -> TokenGrid:
    rows, tokens = canvas.mask.shape
    plan = masked_plan(tokens, steps=8, guidance=guidance, seeds=list(range(rows)), device=canvas.mask.device)
    *_, last = sample(CodeSampler(model, condition), canvas, plan)
    return last


MASKED = ModelSpec(
    kinds=("maskgil",),
    build=lambda config, before: MaskGIL(config),
    objective=lambda o: MaskedTokenLoss(
        o.caption_dropout, o.smoothing, o.everywhere, seed=o.seed, independent=o.independent
    ),
    draw=_in_eight_steps,
    folder="generator",
)


def pretrain_recipe(
    name: str,
    config: ModelConfig | EMIGMConfig | None,
    data: str,
    init: str,
    valid: str,
    options: PretrainOptions,
    show: Callable,
    trunk: ModelSpec = MASKED,
) -> Recipe:
    """A recipe over the cache `data`; `valid` is a cache for the validation loss, `init` a model to go on from.
    `config` is that of a new model; None: that of `init`.

    `show(rows of pixels, path)` draws a sheet. Raises ValueError when cache, model and options do not fit together.
    """
    options.check()
    note = noted(data, valid, trunk)
    model = started_model(config, note, data, init, options, trunk)

    def export(average: nn.Module, folder: Path) -> None:
        save_generator(average.generator, note, folder / trunk.folder)

    return over_cache(name, model, data, note, valid, options, show, export, trunk)


def noted(data: str, valid: str, trunk: ModelSpec = MASKED) -> dict[str, Any]:
    """The note of the cache `data`. ValueError when it is empty, when it holds another kind of tokens than `trunk` is
    trained on, and when the validation cache has another note."""
    caches = [folder for folder, _ in parts_of(data)]
    note = common_note(caches, CUT)
    if ("latent" in note) != (trunk.tokenizer == "latent"):
        raise ValueError(
            f"{data} holds latents, which eMIGM learns from: use an emigm recipe"
            if "latent" in note
            else f"{data} holds codes, which MaskGIL learns from: use a t2i or c2i recipe, or a tokenizer of latents"
        )
    return common_note([caches[0], valid], CUT) if valid else note


def over_cache(
    name: str,
    model: Generator,
    data: str,
    note: dict[str, Any],
    valid: str,
    options: PretrainOptions,
    show: Callable,
    export: Callable,
    trunk: ModelSpec = MASKED,
) -> Recipe:
    """What these recipes share: what moves of `model` learns the tokens of the cache `data`, made by `note`."""
    made = training_recipe(name, model, note, options, export, trunk, data_batches(data, options.micro, options.seed))
    return replace(
        made,
        options={"data": data, "valid": valid} | made.options,
        sample=_sampler(data, note, options, show, trunk),
        valid_at=CachedBatches(valid, options.micro, seed=1) if valid else None,
    )


def training_recipe(
    name: str,
    model: Generator,
    note: dict[str, Any],
    options: PretrainOptions,
    export: Callable,
    trunk: ModelSpec,
    batch_at: Callable[[int], dict[str, Any]],
) -> Recipe:
    """A recipe over batches of tokens that `note` describes, without sample sheets and validation."""
    rates = OptimConfig(
        lr=options.lr, betas=options.betas, weight_decay=options.weight_decay, decay_all=options.decay_all,
        warmup=options.warmup, decay=0.0, clip=options.clip,
    )  # fmt: skip
    return Recipe(
        name=name,
        steps=options.steps,
        modules=(OptimizedModule(trunk.module(model), trunk.objective(options), rates),),
        batch_at=batch_at,
        seed=options.seed,
        batches=options.batch // options.micro,
        provenance={part: note[part] for part in ("tokenizer", "text_encoder") if part in note},
        options=asdict(options),
        precision=options.precision,
        schedule=CosineSchedule(options.warmup) if options.schedule == "cosine" else None,
        shard=options.shard,
        compile=CHOICES[options.compile],
        activation_checkpointing=CHOICES[options.recompute],
        activations=0.0 if trunk.costs is None else trunk.costs.activations(model, note, options.micro),
        ema=options.ema,
        workers=options.workers,
        save_every=options.save_every,
        sample_every=options.sample_every,
        valid_every=options.valid_every,
        export=export,
        wandb=options.wandb or None,
        flops=None if trunk.costs is None else trunk.costs.flops(model, note["downsample"]),
    )


def _sampler(
    data: str, note: dict[str, Any], options: PretrainOptions, show: Callable, trunk: ModelSpec
) -> Callable[[nn.Module, Path], None] | None:
    """The function that draws sample sheets; None without a tokenizer. ValueError for parts other than the cache's."""
    if not options.tokenizer:
        if options.prompts:
            raise ValueError("--prompts needs --tokenizer: the folder whose tokens the model learns")
        return None
    prompted = None
    if options.prompts:
        if "width" not in note:
            raise ValueError("--prompts is for models that are driven by captions")
        prompted = encoded_prompts(Path(options.prompts), options.text_encoder, note["text_encoder"])
    return sheet_sampler(data, options.tokenizer, note, show, trunk, prompted)


def save_generator(model: Generator, note: dict[str, Any], folder: Path) -> None:
    """Write a generator, or an AR model, with the fingerprints of what made its tokens and text states."""
    notes = {"tokenizer_hash": note["tokenizer"]}
    if "text_encoder" in note:
        notes["text_encoder_hash"] = note["text_encoder"]
    if note.get("classes"):
        notes["classes"] = note["classes"]
    checkpoint.save(folder, model, model.kind, model.config.to_dict(), **notes)


def started_model(
    config: ModelConfig | EMIGMConfig | None,
    note: dict[str, Any],
    data: str,
    init: str,
    options: PretrainOptions,
    trunk: ModelSpec,
) -> Generator:
    """The model of `init`, or a new one of the config, for the tokens and conditions of the cache."""
    if config is not None and (config.classes is None) != ("width" in note):
        has = "captions" if "width" in note else "classes"
        raise ValueError(f"{data} holds pictures with {has}: use a {'t2i' if has == 'captions' else 'c2i'} recipe")
    wanted, chosen = trunk.decided(note), {name: getattr(options, name) for name in trunk.chosen}
    torch.manual_seed(options.seed)
    if not init:
        norms = {key: getattr(options, key) for key in ("qk_norm", "norm") if getattr(options, key)}
        return trunk.build(replace(config, **wanted, **chosen, **norms), None)
    folder = Path(init) / "generator" if (Path(init) / "generator").is_dir() else Path(init)
    held = checkpoint.describe(folder)
    if held["kind"] not in trunk.kinds:
        raise ValueError(f"{init} holds a model of kind {held['kind']!r}; {' or '.join(trunk.kinds)} is needed here")
    for part in ("tokenizer", "text_encoder"):
        if held.get(f"{part}_hash", note.get(part)) != note.get(part):
            raise ValueError(
                f"{init} was trained with the {part.replace('_', ' ')} {held[f'{part}_hash']}, {data} was made with "
                f"{note.get(part)}: make the cache with the model's own"
            )
    model = checkpoint.load(folder)
    for key, value in wanted.items():
        if getattr(model.config, key) != value:
            raise ValueError(f"{init} has {key} {getattr(model.config, key)}, {data} needs {value}")
    check_norms(model.config, init, options)
    fresh = trunk.build(replace(model.config, **chosen), model)
    fresh.load_state_dict(model.state_dict())
    return fresh


def check_norms(config: ModelConfig | EMIGMConfig, init: str, options: PretrainOptions) -> None:
    """ValueError when the options ask for norms that the model of `init` does not have."""
    for key in ("qk_norm", "norm"):
        if (asked := getattr(options, key)) and asked != getattr(config, key):
            raise ValueError(f"{init} has {key}={getattr(config, key)}, which cannot become {asked}: leave {key}= out")
