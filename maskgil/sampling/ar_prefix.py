"""Hybrid drawing: the AR model decides the first tokens one by one, MaskGIL the others in few steps.

    draws.images(["two cats on the beach"], seeds=[7], settings=SamplingParams(mode="hybrid", ar_tokens=32))

A drawing is a sequence of stages over one token grid, each a sampler and its plan. Without a prefix there is one stage,
of MaskGIL; with a prefix of all tokens there is one stage, of the AR model. A token of the AR model is a given token
for MaskGIL.

B pictures, N tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from maskgil import checkpoint
from maskgil.models.ar import ARTransformer
from maskgil.models.config import ModelConfig
from maskgil.models.transformer import attention_backend, set_attention_backend
from maskgil.params import SamplingParams
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.loop import Predict, StepParams
from maskgil.sampling.plans import raster_plan
from maskgil.sampling.token_grid import TokenGrid

AR_KINDS = ("llamagen", "autoregressive")  # of generators that draw one token after the other


@dataclass(frozen=True)
class ARPrefix:
    """What the AR model does: it decides the first `tokens` masked tokens in raster order, or all if there are fewer.

    Its guidance, temperature, top_k and top_p are separate from MaskGIL's. Scores of the bundled AR model alone, on the
    scenes that chose MaskGIL's options: 66 at temperature 0.6, 67 at 0.4, 65 at 0.8, 57 at 1; 55 with guidance 3.
    """

    tokens: int
    guidance: Guidance = Guidance(2.0)
    temperature: float = 0.6
    top_k: int | None = None
    top_p: float | None = None

    @staticmethod
    def of(params: SamplingParams, tokens: int) -> "ARPrefix | None":
        """The prefix that the parameters ask for in pictures of `tokens` tokens; None in mode masked."""
        if params.mode == "masked":
            return None
        if params.mode == "ar":
            number = tokens
        else:
            number = tokens // 2 if params.ar_tokens is None else params.ar_tokens
        scale = params.guidance_scale if params.ar_guidance_scale is None else params.ar_guidance_scale
        return ARPrefix(
            number,
            Guidance(scale, params.ar_guidance_shape, params.ar_guidance_interval, params.guidance_power),
            params.temperature if params.ar_temperature is None else params.ar_temperature,
            params.ar_top_k,
            params.ar_top_p,
        )


@dataclass(frozen=True)
class SamplingStage:
    """A sampler and the plan that it follows. `autoregressive`: whether it is the AR model, one token a step."""

    predict: Predict
    plan: Sequence[StepParams]
    autoregressive: bool = False


def prefix_plan(canvas: TokenGrid, seeds: Sequence[int], prefix: ARPrefix) -> list[StepParams]:
    """The AR model's steps. Raises ValueError for an impossible number, and for pictures with masked tokens in
    different places."""
    tokens = canvas.mask.shape[1]
    if isinstance(prefix.tokens, bool) or not isinstance(prefix.tokens, int) or not 0 <= prefix.tokens <= tokens:
        raise ValueError(
            f"a prefix of {prefix.tokens} tokens: the picture has {tokens}, give a number from 0 to {tokens}"
        )
    if prefix.tokens and bool((canvas.mask != canvas.mask[:1]).any()):
        raise ValueError("the AR model writes pictures with the same masked tokens together: draw the others apart")
    return raster_plan(
        min(prefix.tokens, int(canvas.mask[0].sum())),
        temperature=prefix.temperature,
        guidance=prefix.guidance,
        seeds=seeds,
        top_k=prefix.top_k,
        top_p=prefix.top_p,
        device=canvas.mask.device,
    )


def unmask_prefix_only(masked: Bool[Tensor, "B N"], tokens: int) -> Bool[Tensor, "B N"]:
    """The masked tokens without the first `tokens` of each picture: what a prefix leaves to MaskGIL."""
    return masked & (masked.cumsum(1) > tokens)


def beside(folder: str | Path) -> Path | None:
    """The folder beside a model's whose name ends in -ar, where its AR model lies; None when there is none."""
    own = Path(folder).resolve()
    found = own.with_name(f"{own.name}-ar")
    return found if found.is_dir() else None


def validate_ar_model(ar_model: ARTransformer, config: ModelConfig) -> None:
    """Raises ValueError when the AR model draws other codes, or reads other texts, than the generator of this
    config."""
    for name, what in (("codebook_size", "codes"), ("text_dim", "width of text states"), ("classes", "classes")):
        ours, theirs = getattr(config, name), getattr(ar_model.config, name)
        if ours != theirs:
            raise ValueError(f"the AR model does not fit: {what} {theirs}, the generator's are {ours}")
    if config.text_dim is not None and ar_model.config.text_length < config.text_length:
        raise ValueError(
            f"the AR model does not fit: it reads texts of {ar_model.config.text_length} tokens, the generator "
            f"of {config.text_length}"
        )


def load_ar_model(
    folder: str | Path, fingerprints: Mapping[str, str], dtype: torch.dtype = torch.float32
) -> ARTransformer:
    """An AR model's folder, on the CPU. `fingerprints`: of the tokenizer and text encoder that it will work with.

    Raises ValueError for a folder that is no AR model, and for one that was trained with another tokenizer or text
    encoder (its config.json keeps their fingerprints as tokenizer_hash and text_encoder_hash).
    """
    notes = checkpoint.describe(folder)
    for part, found in fingerprints.items():
        wanted, name = notes.get(f"{part}_hash"), part.replace("_", " ")
        if wanted is None:
            raise ValueError(
                f"the AR model {folder} does not say which {name} it was trained with, as converted weights do not: "
                "`maskgil export ar --adopt` takes it as this model's, on your word"
            )
        if wanted != found:
            raise ValueError(
                f"the AR model {folder} was trained with another {name} than this model has: fingerprint {wanted}, "
                f"here {found}; train one for this model"
            )
    if notes["kind"] not in AR_KINDS:
        raise ValueError(f"{folder} holds a model of kind {notes['kind']!r}, not an AR model")
    model: Any = checkpoint.load(folder, dtype=dtype)
    return model


def open_ar_model(folder: str | Path, generator: Any, fingerprints: Mapping[str, str]) -> ARTransformer:
    """The AR model of a folder, on the device and in the precision of the generator that it works with.

    Raises ValueError as load_ar_model and validate_ar_model do.
    """
    weight = next(generator.parameters())
    model = load_ar_model(folder, fingerprints, weight.dtype)
    validate_ar_model(model, generator.config)
    set_attention_backend(model, attention_backend(generator))
    return model.to(weight.device).requires_grad_(False)
