"""What a finding is: arms that draw or train, and claims that compare two of them."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from maskgil.models.diffusion_samplers import DDPM, DPMSolver
from maskgil.models.emigm import Blocks
from maskgil.params import SAMPLERS, SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.sampling.ar_prefix import ARPrefix
from train.eval.scene_score import KINDS
from train.losses.generation_methods import METHODS

Metric = Literal["score", "distance", "loss", "seconds", "nfe", "norm"]
HIGHER = ("score",)
EXACT = ("nfe",)  # the same for every seed
# Differences are in points: of the score as they are, of the others in percent of the worse arm's mean. How many points
# still count as no difference.
MARGIN: dict[str, float] = {"score": 5.0, "distance": 5.0, "loss": 1.0, "seconds": 5.0, "nfe": 0.0, "norm": 5.0}

GRID = 8  # rows and columns of tokens of a scene of 128 x 128
JUDGED = len(KINDS) - 1  # kinds of pictures in the score
HEADS, HEAD, REPEATS = 4, (2, 160), 2  # of attention; the diffusion head's (depth, width), and its times a token


# Fields by the names that benchmarks/reproduction.jsonl has for them.
RECORDED = {"ar_tokens": "twin", "refinement_passes": "revisions"}


@dataclass(frozen=True)
class Draw:
    """How to draw: what is not said is as the preset `guided` has it, but for refinement passes.

    scale, interval  of guidance;  head: evaluations of DPM-Solver, or DDPM's when negative
    ar_tokens        tokens that the AR model decides first
    refinement_passes  none, unlike what people get: the papers have none
    """

    steps: int = SamplingParams.steps
    curve: str = ""
    scale: float = SAMPLERS["guided"].guidance_scale
    interval: tuple[float, float] = SamplingParams.guidance_interval
    head: int = TextToImage.head.steps
    temperature: float = SamplingParams.temperature
    ar_tokens: int = 0
    refinement_passes: int = 0

    def settings(self) -> SamplingParams:
        return SamplingParams(
            steps=self.steps,
            guidance_scale=self.scale,
            guidance_interval=self.interval,
            temperature=self.temperature,
            schedule=self.curve or SamplingParams.schedule,
            refinement_passes=self.refinement_passes,
            mode="hybrid" if self.ar_tokens else "masked",
            ar_tokens=self.ar_tokens or None,
            ar_guidance_scale=ARPrefix.guidance.scale,
            ar_temperature=ARPrefix.temperature,
        )

    def sampler(self) -> DPMSolver | DDPM:
        """DDPM clips at 5 deviations of a token: the small heads here are too far off at the first times without."""
        return DPMSolver(self.head) if self.head > 0 else DDPM(-self.head, clip=5.0)


@dataclass(frozen=True)
class Small:
    """A small model to train: a row of METHODS, its choices, its size, its steps.

    merged  codes of the tokenizer that are left when similar ones count as one (0: all)
    qk_norm, norm  of MaskGIL's trunk (maskgil/models/config.py)
    blocks  of eMIGM's trunk (maskgil/models/emigm.py)
    """

    method: str
    choices: tuple[tuple[str, str | float], ...] = ()
    width: int = 128
    depth: int = 4
    steps: int = 300
    merged: int = 0
    qk_norm: str = "rms"
    norm: str = "pre"
    blocks: Blocks = "vit"

    @property
    def latents(self) -> bool:
        """Whether it learns from latents; else from codes."""
        return METHODS[self.method].conditional == "diffusion"


@dataclass(frozen=True)
class Arm:
    """`model` is a bundled name, or what to train."""

    name: str
    model: str | Small
    draw: Draw = Draw()


@dataclass(frozen=True)
class Claim:
    """Arm `better` beats arm `worse` by a metric; with `no_worse` it need only not lose by more than MARGIN."""

    metric: Metric
    better: str
    worse: str
    no_worse: bool = False

    def __str__(self) -> str:
        return f"{self.metric}: {self.better} {'no worse than' if self.no_worse else 'before'} {self.worse}"


@dataclass(frozen=True)
class Finding:
    name: str
    says: str
    arms: tuple[Arm, ...]
    claims: tuple[Claim, ...]
    shows: tuple[str, ...] = ()  # metrics beside those of the claims

    @property
    def kind(self) -> str:
        return "training" if any(isinstance(arm.model, Small) for arm in self.arms) else "sampling"


def arm_record(arm: Arm) -> Any:
    """What the arm computes, without its name, as JSON gives it back."""
    model = arm.model if isinstance(arm.model, str) else asdict(arm.model)
    if isinstance(model, dict) and model["blocks"] == "vit":
        del model["blocks"]  # most arms were measured before there were others
    draw = {RECORDED.get(name, name): value for name, value in asdict(arm.draw).items()}
    if not draw["revisions"]:
        del draw["revisions"]  # the first arms were measured before there were refinement passes
    return json.loads(json.dumps({"model": model, "draw": draw}))
