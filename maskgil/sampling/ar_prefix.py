"""Hybrid drawing: the autoregressive twin decides the first tokens one by one, MaskGIL the others in few steps.

    draws.images(["two cats on the beach"], seeds=[7], settings=Settings(steps=8, prefix=Prefix(32)))

A drawing is a sequence of phases over one canvas, each a painter and its plan. Without a prefix there is MaskGIL's
alone; a prefix of all tokens leaves the twin's alone. What the twin has decided is a given token for MaskGIL.

B pictures, N tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from maskgil import checkpoint
from maskgil.models.ar import ARTransformer
from maskgil.models.config import ModelConfig
from maskgil.params import SamplingParams
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.loop import Predict, StepParams
from maskgil.sampling.plans import raster_plan
from maskgil.sampling.token_grid import TokenGrid


@dataclass(frozen=True)
class ARPrefix:
    """What the twin does: it decides the first `tokens` holes in reading order (more than there are: all of them).

    Its guidance, temperature, top_k and top_p are its own: who cannot look back may want others than MaskGIL. The
    bundled twin alone, on the scenes that chose MaskGIL's (maskgil/pipeline.py): 66 at temperature 0.6, 67 at 0.4, 65
    at 0.8, 57 at 1; 55 with guidance 3.
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
    """One painter's part of a drawing."""

    predict: Predict
    plan: Sequence[StepParams]


def prefix_plan(canvas: TokenGrid, seeds: Sequence[int], prefix: ARPrefix) -> list[StepParams]:
    """The twin's steps. Raises ValueError for an impossible number, and for pictures with holes in different places."""
    tokens = canvas.mask.shape[1]
    if isinstance(prefix.tokens, bool) or not isinstance(prefix.tokens, int) or not 0 <= prefix.tokens <= tokens:
        raise ValueError(
            f"a prefix of {prefix.tokens} tokens: the picture has {tokens}, give a number from 0 to {tokens}"
        )
    if prefix.tokens and bool((canvas.mask != canvas.mask[:1]).any()):
        raise ValueError("the autoregressive twin writes pictures with the same holes together: draw the others apart")
    return raster_plan(
        min(prefix.tokens, int(canvas.mask[0].sum())),
        temperature=prefix.temperature,
        guidance=prefix.guidance,
        seeds=seeds,
        top_k=prefix.top_k,
        top_p=prefix.top_p,
        device=canvas.mask.device,
    )


def unmask_prefix_only(hole: Bool[Tensor, "B N"], tokens: int) -> Bool[Tensor, "B N"]:
    """The holes without the first `tokens` of each picture: what a prefix leaves to MaskGIL."""
    return hole & (hole.cumsum(1) > tokens)


def beside(folder: str | Path) -> Path | None:
    """The folder beside a model's whose name ends in -ar, where its twin lies; None when there is none."""
    own = Path(folder).resolve()
    found = own.with_name(f"{own.name}-ar")
    return found if found.is_dir() else None


def validate_ar_model(twin: ARTransformer, config: ModelConfig) -> None:
    """Raises ValueError when the twin draws other codes, or reads other texts, than the generator of this config."""
    for name, what in (("codebook_size", "codes"), ("text_dim", "width of text states"), ("classes", "classes")):
        ours, theirs = getattr(config, name), getattr(twin.config, name)
        if ours != theirs:
            raise ValueError(f"the autoregressive twin does not fit: {what} {theirs}, the generator's are {ours}")
    if config.text_dim is not None and twin.config.text_length < config.text_length:
        raise ValueError(
            f"the autoregressive twin does not fit: it reads texts of {twin.config.text_length} tokens, the generator "
            f"of {config.text_length}"
        )


def load_ar_model(
    folder: str | Path, fingerprints: Mapping[str, str], dtype: torch.dtype = torch.float32
) -> ARTransformer:
    """A twin's folder, on the CPU. `fingerprints`: of the tokenizer and text encoder that it will work with.

    Raises ValueError for a folder that is no twin, and for one that was trained with another tokenizer or text encoder
    (its config.json keeps their fingerprints as tokenizer_hash and text_encoder_hash).
    """
    notes = checkpoint.describe(folder)
    for part, found in fingerprints.items():
        wanted, name = notes.get(f"{part}_hash"), part.replace("_", " ")
        if wanted is None:
            raise ValueError(
                f"the twin {folder} does not say which {name} it was trained with, as converted weights do not: "
                "`maskgil export ar --adopt` takes it as this model's, on your word"
            )
        if wanted != found:
            raise ValueError(
                f"the twin {folder} was trained with another {name} than this model has: fingerprint {wanted}, here "
                f"{found}; train one for this model"
            )
    model = checkpoint.load(folder, dtype=dtype)
    if not isinstance(model, ARTransformer):
        raise ValueError(f"{folder} holds a model of kind {notes['kind']!r}, not an autoregressive twin")
    return model
