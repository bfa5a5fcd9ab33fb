"""Every sampling option, once: `SamplingParams`.

Command line, HTTP API, live socket, page, PNG metadata and batching read the fields of this class: name, default,
bounds, help and other names. A new option is a field here and the sampler that uses it.

This module imports no torch, so that `--help` is quick.
"""

import difflib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from typing import Any, Literal, TypeVar, get_args

from maskgil.option_checks import Option, brief, nearest_choice, validate_option


class DecodingOrder(StrEnum):
    """Which masked tokens a step decides. All but confidence are known before the model is evaluated."""

    CONFIDENCE = "confidence"  # the most probable sampled tokens, with annealed Gumbel noise (MaskGIT)
    RANDOM = "random"
    HALTON = "halton"  # spread evenly: Halton points in bases 2 and 3, with an offset by the seed
    RASTER = "raster"  # left to right, top to bottom
    FIXED = "listed"  # where the plan says: StepParams.priority


GuidanceShape = Literal["constant", "ramp", "linear", "cosine", "power", "exp", "quarter_cosine"]
HeadSampler = Literal["dpm-solver", "ddpm"]
Counts = Literal["fixed", "random"]
SamplingMode = Literal["masked", "hybrid", "ar"]
ORDERS = tuple(order.value for order in DecodingOrder if order is not DecodingOrder.FIXED)
SHAPES: tuple[str, ...] = get_args(GuidanceShape)
HEAD_SAMPLERS: tuple[str, ...] = get_args(HeadSampler)
COUNTS: tuple[str, ...] = get_args(Counts)
MODES: tuple[str, ...] = get_args(SamplingMode)
SCHEDULE_NAMES = (
    "linear",
    "cosine",
    "arccos",
    "square",
    "root",
    "exp",
    "log_exp",
    "sqrt",
    "maskgit",
)  # and poly-EXPONENT
MAX_STEPS = 256
MAX_CANDIDATES = 64
MAX_TOKENS = 99_999

# What programs, pictures and model pages of before call an option or a value: {old: current}.
LEGACY = {
    "guidance": "guidance_scale",
    "interval": "guidance_interval",
    "revisions": "refinement_passes",
    "num_inference_steps": "steps",
}
LEGACY_VALUES = {"mode": {"mar": "masked"}, "sampler": {"ours": "default", "released": "reference"}}

_KEY = "option"


def option(default: Any, help: str, label: str, **about: Any) -> Any:
    """A dataclass field with a default and an `Option`."""
    return field(default=default, metadata={_KEY: Option(help, label, **about)})


@dataclass(frozen=True)
class SamplingParams:
    """How pictures are sampled. Raises ValueError, with the bounds, for a value outside them.

    The defaults were chosen on scenes for which no score is printed, 14 of each kind, 8 steps: score 85 at temperature
    0.6 and at 0.7, 79 at 0.5, 74 at 0.4, 82 at 1 (standard error about 4); guidance scale 3 and choice temperature 1
    or 4 made no difference above chance. Guidance is off: over 1,000 scenes it gained 0.2 points (-0.9 to 1.3) and cost
    18 evaluations a picture instead of 11 (docs/results.md).

    Tokens of a continuous model have no confidence: order `confidence` means `random` for them and schedule `arccos`
    means `exp` (eMIGM, 2503.07197, section 3.3); choice_temperature, top_k and top_p have no effect.
    """

    steps: int = option(
        8,
        "Sampling steps of MaskGIL. 4 is fast, 8 standard, 16 fine.",
        "Steps",
        low=1,
        high=MAX_STEPS,
        basic=True,
    )
    guidance_scale: float = option(
        1.0,
        "Classifier-free guidance scale. 1 is off; higher follows the prompt more closely, with less variety.",
        "Guidance scale",
        low=0.0,
        high=30.0,
    )
    guidance_interval: tuple[float, float] = option(
        (0.1, 1.0),
        "Guide only while the sampling time, which runs from 1 down to 0, is in this interval. Other steps cost half.",
        "Guidance interval",
        low=0.0,
        high=1.0,
    )
    guidance_shape: GuidanceShape = option(
        "constant",
        "How guidance grows over the steps: constant, with the step (ramp), or with the share of decided tokens "
        "(linear, cosine, power, exp, quarter_cosine).",
        "Guidance shape",
        choices=SHAPES,
    )
    guidance_power: float = option(3.0, "Exponent of guidance shape power.", "Guidance exponent", low=0.01, high=100.0)
    temperature: float = option(
        0.6,
        "Sampling temperature of tokens. 0 always takes the most probable token; 1 samples as trained.",
        "Temperature",
        low=0.0,
        high=10.0,
    )
    choice_temperature: float = option(
        2.0,
        "Gumbel noise added to confidences when order is confidence, at the first step; it falls linearly to 0.",
        "Choice temperature",
        low=0.0,
        high=100.0,
    )
    order: str = option(
        "confidence",
        "Which tokens are decided first: the most confident, random ones, spread evenly (halton), or line by line "
        "(raster).",
        "Order",
        choices=ORDERS,
    )
    schedule: str = option(
        "arccos",
        "Mask schedule: which share of the tokens is masked at each step. Also poly-EXPONENT, such as poly-0.7.",
        "Mask schedule",
        choices=SCHEDULE_NAMES,
    )
    top_k: int | None = option(
        None, "Sample from the k most probable tokens only. Left out: from all.", "Top k", low=1, high=2**20
    )
    top_p: float | None = option(
        None,
        "Sample from the most probable tokens that make up this probability. Left out: from all.",
        "Top p",
        low=1e-6,
        high=1.0,
    )
    refinement_passes: int = option(
        1,
        "Further passes after the steps. Each masks the least likely tokens and samples them again, at the cost of 3 "
        "evaluations, 4 with guidance.",
        "Refinement passes",
        low=0,
        high=16,
    )
    remask_fraction: float = option(
        0.25, "Share of the tokens that a refinement pass samples again.", "Remasked share", low=0.001, high=1.0
    )
    head_sampler: HeadSampler = option(
        "dpm-solver",
        "Continuous models: how the diffusion head draws a token. dpm-solver: in 8 to 15 steps; ddpm: in about 100.",
        "Head sampler",
        choices=HEAD_SAMPLERS,
    )
    head_steps: int | None = option(
        None,
        "Continuous models: steps of the diffusion head. Left out: 8 of dpm-solver, 100 of ddpm.",
        "Head steps",
        low=1,
        high=1000,
    )
    counts: Counts = option(
        "fixed",
        "Continuous models: how many tokens a step decides. fixed: what the schedule says; random: each masked token "
        "with the schedule's probability, as the published eMIGM code does.",
        "Counts",
        choices=COUNTS,
    )
    candidates: int = option(
        1,
        "Best of n: pictures sampled for each picture shown. The one that the model scores highest is kept.",
        "Best of",
        low=1,
        high=MAX_CANDIDATES,
        basic=True,
    )
    mode: SamplingMode = option(
        "masked",
        "Who draws. masked: MaskGIL, many tokens a step. ar: the autoregressive model, one token a step, line by line. "
        "hybrid: the autoregressive model writes the first tokens, MaskGIL the others.",
        "Drawn by",
        choices=MODES,
    )
    ar_tokens: int | None = option(
        None,
        "Mode hybrid: how many tokens the autoregressive model writes, from the top left. Left out: half of them.",
        "Autoregressive tokens",
        low=0,
        high=MAX_TOKENS,
    )
    ar_guidance_scale: float | None = option(
        None,
        "Guidance scale of the autoregressive model. Left out: guidance_scale.",
        "Autoregressive guidance scale",
        low=0.0,
        high=30.0,
    )
    ar_guidance_interval: tuple[float, float] = option(
        (0.0, 1.0),
        "Guidance interval of the autoregressive model.",
        "Autoregressive guidance interval",
        low=0.0,
        high=1.0,
    )
    ar_guidance_shape: GuidanceShape = option(
        "constant", "Guidance shape of the autoregressive model.", "Autoregressive guidance shape", choices=SHAPES
    )
    ar_temperature: float | None = option(
        None,
        "Temperature of the autoregressive model. Left out: temperature.",
        "Autoregressive temperature",
        low=0.0,
        high=10.0,
    )
    ar_top_k: int | None = option(
        None, "Top k of the autoregressive model. Left out: all tokens.", "Autoregressive top k", low=1, high=2**20
    )
    ar_top_p: float | None = option(
        None, "Top p of the autoregressive model. Left out: all tokens.", "Autoregressive top p", low=1e-6, high=1.0
    )

    def __post_init__(self) -> None:
        kinds = option_types(type(self))
        for name, about in options(type(self)).items():
            object.__setattr__(self, name, validate_option(name, getattr(self, name), kinds[name], about))
        if self.head_sampler == "ddpm" and self.head_steps == 1:
            raise ValueError("head_steps is 1 and head_sampler is ddpm: it takes 2 or more")
        if self.ar_tokens is not None and self.mode != "hybrid":
            raise ValueError(
                f"ar_tokens is {self.ar_tokens} and mode is {self.mode}: ar_tokens needs mode hybrid; change "
                "the mode or leave ar_tokens out"
            )

    def to_dict(self) -> dict[str, Any]:
        """Names and values, as JSON has them."""
        values = {name: getattr(self, name) for name in options(type(self))}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


SAMPLER_HELP = (
    "Preset of the options left out. default: 8 steps without guidance and a refinement pass. guided: the same with "
    "guidance 2. fast: 4 steps without guidance and a refinement pass. reference: as the released code of the model's "
    "method, MaskGIL (guidance that grows from none to 4) or eMIGM. emigm: as the released eMIGM code, at 256 px in "
    "16 steps. amused, meissonic, llamagen: as these models were released. Without guidance a negative prompt has no "
    "effect on the tokens. Left out: the model's own; guided instead of default for a negative prompt and the "
    "autoregressive model."
)

Params = TypeVar("Params", bound=SamplingParams)


def options(kind: type[SamplingParams] = SamplingParams) -> dict[str, Option]:
    """The options of a class of parameters by name, in their order."""
    return {each.name: each.metadata[_KEY] for each in fields(kind) if _KEY in each.metadata}


def option_types(kind: type[SamplingParams] = SamplingParams) -> dict[str, Any]:
    """The type of each option, as annotated."""
    hints = typing.get_type_hints(kind)
    return {name: hints[name] for name in options(kind)}


def defaults(kind: type[SamplingParams] = SamplingParams) -> dict[str, Any]:
    """The default of each option."""
    return {each.name: each.default for each in fields(kind) if each.default is not MISSING}


def read_params(values: Mapping[str, Any], kind: type[Params] = SamplingParams) -> Params:
    """Parameters from names and values, which may be anybody's: current names or those of LEGACY, and `sampler`.

    Raises ValueError for an unknown option or sampler, a name given twice, a value of the wrong type or out of bounds.
    """
    given = current_names(values)
    sampler = given.pop("sampler", "default")
    if not isinstance(sampler, str) or sampler not in SAMPLERS:
        raise ValueError(f"sampler is {brief(sampler)}: {nearest_choice(sampler, SAMPLERS)}")
    known, kinds = options(kind), option_types(kind)
    for name, value in given.items():
        if name not in known:
            raise ValueError(unknown_option(name, known))
        given[name] = validate_option(name, value, kinds[name], known[name])
    preset = SAMPLERS[sampler]
    base = {name: getattr(preset, name) for name in options() if getattr(preset, name) != defaults()[name]}
    return kind(**base | given)


def current_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values under current names, old values translated. ValueError for an option given under two names."""
    given: dict[str, Any] = {}
    for name, value in values.items():
        current = LEGACY.get(name, name)
        if current in given:
            raise ValueError(f"{current} is given twice, also as {name}: give it once")
        if isinstance(value, str):
            value = LEGACY_VALUES.get(current, {}).get(value, value)
        given[current] = value
    return given


def unknown_option(name: str, known: Iterable[str]) -> str:
    """What every entrance says of an option that does not exist."""
    known = list(known)
    nearest = difflib.get_close_matches(LEGACY.get(name, name), known, 1, 0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"the options are {', '.join(known)}"
    return f"unknown option {name[:40]!r}: {hint}"


# Presets of defaults, by the name of the option `sampler`. `reference` is the released MaskGIL code's `main.py`: its
# w = 3 on a ramp is a scale of 4, and every step is guided but the first.
SAMPLERS: dict[str, SamplingParams] = {
    "default": SamplingParams(),  # 11 evaluations
    "reference": SamplingParams(
        steps=8,
        guidance_scale=4.0,
        guidance_interval=(0.0, 1.0),
        guidance_shape="ramp",
        temperature=1.0,
        choice_temperature=4.5,
        refinement_passes=0,
    ),
    "guided": SamplingParams(  # 18 evaluations
        steps=8,
        guidance_scale=2.0,
        guidance_interval=(0.1, 1.0),
        temperature=0.6,
        choice_temperature=2.0,
        refinement_passes=1,
    ),
    # The released eMIGM's evaluation at 256 px in 16 steps (2503.07197, table 8): 19 evaluations.
    "emigm": SamplingParams(
        steps=16,
        guidance_scale=4.0,
        guidance_interval=(0.1, 0.3),
        temperature=1.0,
        order="random",
        schedule="exp",
        refinement_passes=0,
        head_steps=8,
        counts="random",
    ),
    # 7 evaluations, measured on scenes (docs/results.md).
    "fast": SamplingParams(steps=4, guidance_scale=1.0, guidance_interval=(0.0, 1.0), refinement_passes=1),
    # As the released pipelines of these models sample when nobody says otherwise (maskgil/released).
    "amused": SamplingParams(
        steps=12,
        guidance_scale=10.0,
        guidance_interval=(0.0, 1.0),
        temperature=1.0,
        choice_temperature=2.0,
        schedule="maskgit",
        refinement_passes=0,
    ),
    "meissonic": SamplingParams(
        steps=48,
        guidance_scale=9.0,
        guidance_interval=(0.0, 1.0),
        temperature=1.0,
        choice_temperature=2.0,
        schedule="maskgit",
        refinement_passes=0,
    ),
    "llamagen": SamplingParams(
        mode="ar",
        guidance_scale=7.5,
        guidance_interval=(0.0, 1.0),
        temperature=1.0,
        ar_top_k=1000,
        refinement_passes=0,
    ),
}
