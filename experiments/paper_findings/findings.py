"""Do the papers' findings hold here? `maskgil bench paper-findings`; `--table-only` prints what is known.

A finding is data: what the paper says, arms, and claims that compare two arms by a number. Sampling arms draw with the
bundled weights, training arms first train a small model on 64 cached tokens (`--train 0.5`: half as long). What an arm
gave for a seed is appended to `results`, one JSON object a line, under a key that stands for all that it depends on: so
a run that was killed goes on, arms that findings share are computed once, and new weights are measured anew. A finding
whose weights or cache are missing waits, and says so. An arm that fails (its loss is no number any more, say) is a line
too, and is tried again only when the code or its weights have changed. The table is of one n, train and batch.

    score     scene score, higher is better        distance  Frechet distance in the reader's features, lower is better
    seconds   to draw a picture                    nfe       evaluations of the generator for a picture
    norm      of the trunk's output, root mean square; the line keeps it every 100 training steps (norms)
    through   scene score of true pictures after the arm's tokenizer: no generator of its codes can do better

A claim is confirmed when its arms differ in the claimed direction by more than the noise; not confirmed when they
differ so in the other direction; else inside the noise. The noise is twice the standard error of the differences
between seeds, and never under the resolution of the number (RESOLUTION), nor, of a score, under twice the binomial
error of so many pictures. "No worse" is confirmed when even with the noise it is worse by no more than MARGIN, not
confirmed when it is worse by more than either of them, else inside the noise.
"""

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from maskgil import checkpoint
from maskgil.models.diffusion_head import DDPM, DPMSolver
from maskgil.models.emigm import Blocks
from maskgil.models.maskgil import MaskGIL
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.sampling.ar_prefix import ARPrefix
from maskgil.tokenizers.vq import VQModel
from train.data.scene_cache import note_of
from train.eval.scene_score import (
    KINDS,
    asked_scenes,
    drawn,
    frechet,
    judge,
    moments,
    overall,
    reconstructed,
    rendered,
)
from train.losses.diffusion_token import (
    METHODS,
    CodeTrunk,
    LatentTokenLoss,
    LatentTrainingModule,
    generator_for,
    method,
)
from train.recipes.scenes_emigm import WORDS, method_recipe
from train.run_state import CheckpointWriteError
from train.scenes.sprites import Sprites
from train.trainer import train

Metric = Literal["score", "distance", "seconds", "nfe", "norm"]
HIGHER = ("score",)
# What two runs may differ by without meaning anything: one picture of a kind of twenty is 0.7 of the score; the others
# are relative to the larger of the two values.
RESOLUTION: dict[str, float] = {"score": 1.0, "distance": 0.02, "seconds": 0.05, "nfe": 0.0, "norm": 0.02}
# How much worse still counts as no worse, in the same units.
MARGIN: dict[str, float] = {"score": 5.0, "distance": 0.05, "seconds": 0.05, "nfe": 0.0, "norm": 0.05}
GRID = 8  # rows and columns of tokens of a scene of 128 x 128
JUDGED = len(KINDS) - 1  # kinds of pictures in the score
HEADS, HEAD, REPEATS = 4, (2, 160), 2  # of attention; the diffusion head's (depth, width), and its times a token


@dataclass(frozen=True)
class Draw:
    """How to draw: what is not said is as `SamplingParams` has it, and thus, but for revisions, as people get it.

    scale, interval  of guidance;  head: evaluations of DPM-Solver, or DDPM's when negative
    twin             tokens that the autoregressive twin decides first
    revisions        none, unlike what people get: the papers have none
    """

    steps: int = SamplingParams.steps
    curve: str = ""
    scale: float = SamplingParams.guidance_scale
    interval: tuple[float, float] = SamplingParams.guidance_interval
    head: int = TextToImage.head.steps
    temperature: float = SamplingParams.temperature
    twin: int = 0
    revisions: int = 0

    def settings(self) -> SamplingParams:
        return SamplingParams(
            steps=self.steps,
            guidance_scale=self.scale,
            guidance_interval=self.interval,
            temperature=self.temperature,
            schedule=self.curve or SamplingParams.schedule,
            refinement_passes=self.revisions,
            mode="hybrid" if self.twin else "masked",
            ar_tokens=self.twin or None,
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
    """Arm `better` beats arm `worse` by a metric; with `no_worse` it need only not lose."""

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


def _chain(metric: Metric, *names: str) -> tuple[Claim, ...]:
    """Each better than the next."""
    return tuple(Claim(metric, one, other) for one, other in zip(names, names[1:], strict=False))


def _drawn(model: str, **arms: Draw) -> tuple[Arm, ...]:
    return tuple(Arm(name.replace("_", " ").strip(), model, draw) for name, draw in arms.items())


MAR, EMIGM = "scenes", "scenes-emigm"
SHORT = Draw(16, "exp", 1.0)  # what trained eMIGMs are judged by, unguided


def _small(method: str, draw: Draw = SHORT, **sizes: Any) -> Callable[..., Arm]:
    def arm(name: str, size: dict[str, Any] | None = None, **choices: str | float) -> Arm:
        return Arm(name, Small(method, tuple(sorted(choices.items())), **(sizes | (size or {}))), draw)

    return arm


# What is learned, not what guidance makes of it.
_emigm = _small("emigm")
_maskgil = _small("maskgil", Draw(8, scale=1.0), steps=250)  # 192 wide 5 minutes on one core

FINDINGS: tuple[Finding, ...] = (
    Finding(
        "mar-against-ar",
        "MaskGIL: 8 masked steps are as good as a step for each token, and faster",
        (Arm("8 steps", MAR), Arm("AR", MAR, Draw(twin=GRID**2))),
        (
            Claim("score", "8 steps", "AR", True),
            Claim("distance", "8 steps", "AR", True),
            Claim("seconds", "8 steps", "AR"),
        ),
    ),
    Finding(
        "steps",
        "MaskGIL: quality rises with the steps and is nearly all there at 8",
        tuple(Arm(f"{n} steps", MAR, Draw(n)) for n in (4, 8, 12, 16, 32)),
        (
            Claim("score", "8 steps", "4 steps"),
            Claim("score", "8 steps", "16 steps", True),
            Claim("score", "8 steps", "32 steps", True),
        ),
    ),
    Finding(
        "revision",
        "not in the papers: a revision is worth more than the steps that would cost as many evaluations",
        (
            *(Arm(f"{n} steps", MAR, Draw(n)) for n in (8, 16)),
            *(Arm(f"{n} and a revision", MAR, Draw(n, revisions=1)) for n in (4, 8)),
        ),
        (
            Claim("score", "8 and a revision", "8 steps"),
            Claim("score", "8 and a revision", "16 steps"),
            Claim("nfe", "8 and a revision", "16 steps"),
            Claim("score", "4 and a revision", "16 steps", True),
            Claim("nfe", "4 and a revision", "8 steps"),
            Claim("distance", "8 and a revision", "8 steps", True),
        ),
    ),
    Finding(
        "schedules",
        "MaskGIL: arccos reveals best at 8 steps",
        tuple(Arm(curve, MAR, Draw(curve=curve)) for curve in ("arccos", "cosine", "linear", "square", "root")),
        tuple(Claim("distance", "arccos", curve) for curve in ("cosine", "linear", "square", "root")),
    ),
    Finding(
        "cfg",
        "MaskGIL: guidance is what makes pictures follow their text",
        _drawn(MAR, guided=Draw(interval=(0.0, 1.0)), unguided=Draw(scale=1.0)),
        (Claim("score", "guided", "unguided"),),
    ),
    Finding(
        "interval-codes",
        "eMIGM: guidance in an interval saves evaluations at the same quality (here: MaskGIL)",
        _drawn(
            MAR,
            always=Draw(interval=(0.0, 1.0)),
            early=Draw(interval=(0.5, 1.0)),
            late=Draw(interval=(0.1, 0.5)),
            ours=Draw(),
        ),
        (
            Claim("nfe", "early", "always"),
            Claim("nfe", "late", "always"),
            Claim("score", "early", "always", True),
            Claim("score", "late", "always", True),
            Claim("score", "ours", "always", True),
        ),
    ),
    *(
        Finding(
            f"exp-codes-{steps}",
            f"eMIGM: exp reveals better than cosine in {steps} steps (here: MaskGIL, and arccos)",
            tuple(Arm(curve, MAR, Draw(steps, curve)) for curve in ("exp", "cosine", "arccos")),
            (Claim("distance", "exp", "cosine"), Claim("distance", "exp", "arccos")),
        )
        for steps in (8, 16)
    ),
    Finding(
        "interval-vectors",
        "eMIGM: guidance in a late interval saves evaluations, at no loss in quality",
        _drawn(
            EMIGM,
            always=Draw(16, interval=(0.0, 1.0)),
            late=Draw(16, interval=(0.1, 0.3)),
            early=Draw(16, interval=(0.5, 1.0)),
        ),
        (
            Claim("nfe", "late", "always"),
            Claim("distance", "late", "always", True),
            Claim("score", "late", "always", True),
            Claim("distance", "late", "early"),
        ),
    ),
    Finding(
        "revision-vectors",
        "not in the papers: vectors can be revised, too, by the bound that their head learned by",
        (*(Arm(f"{n} steps", EMIGM, Draw(n)) for n in (8, 16)), Arm("8 and a revision", EMIGM, Draw(8, revisions=1))),
        (
            Claim("score", "8 and a revision", "8 steps"),
            Claim("score", "8 and a revision", "16 steps"),
            Claim("nfe", "8 and a revision", "16 steps"),
            Claim("distance", "8 and a revision", "8 steps", True),
        ),
    ),
    *(
        Finding(
            f"curves-{steps}",
            f"eMIGM: exp before cosine before linear when sampling in {steps} steps",
            tuple(Arm(curve, EMIGM, Draw(steps, curve)) for curve in ("exp", "cosine", "linear")),
            _chain("distance", "exp", "cosine", "linear"),
        )
        for steps in (8, 16)
    ),
    Finding(
        "head",
        "eMIGM: 8 to 15 evaluations of the head by DPM-Solver do for 100 of DDPM",
        # A temperature means another thing to each sampler: all the noise there is, as in the paper.
        tuple(
            Arm(f"{'DPM' if n > 0 else 'DDPM'} {abs(n)}", EMIGM, Draw(16, head=n, temperature=1.0))
            for n in (8, 15, -100)
        ),
        (
            Claim("distance", "DPM 8", "DDPM 100", True),
            Claim("distance", "DPM 15", "DDPM 100", True),
            Claim("seconds", "DPM 15", "DDPM 100"),
        ),
    ),
    Finding(
        "size",
        "MaskGIL: wider models are better",
        tuple(_maskgil(str(width), {"width": width}) for width in (64, 128, 192)),
        _chain("distance", "192", "128", "64"),
    ),
    Finding(
        "norms",
        "MaskGIL: QK-norm and post-norm keep the output's norm from growing",
        (
            _maskgil("neither", {"qk_norm": "none"}),
            _maskgil("QK"),
            _maskgil("post", {"qk_norm": "none", "norm": "post"}),
            _maskgil("QK and post", {"norm": "post"}),
        ),
        (
            Claim("norm", "QK", "neither"),
            Claim("norm", "post", "neither"),
            Claim("norm", "QK and post", "neither"),
            Claim("distance", "QK and post", "neither", True),
        ),
    ),
    Finding(
        "codebook",
        "MaskGIL: the size of the codebook matters, and the largest is not the best to generate with "
        "(here: merges of one tokenizer's codes, not tokenizers trained small)",
        tuple(_maskgil(f"{k or 4096} codes", {"merged": k}) for k in (256, 1024, 0)),
        (Claim("distance", "1024 codes", "256 codes"), Claim("distance", "1024 codes", "4096 codes", True)),
        ("through",),
    ),
    Finding(
        "weights",
        "eMIGM: w = 1 before the bound's gamma'/gamma",
        (_emigm("1"), _emigm("bound", weighting="bound")),
        (Claim("distance", "1", "bound"),),
    ),
    Finding(
        "training-curves",
        "eMIGM: with w = 1, exp before cosine before linear (in the paper only after 300 epochs)",
        (_emigm("exp"), _emigm("cosine", curve="cosine"), _emigm("linear", curve="linear")),
        _chain("distance", "exp", "cosine", "linear"),
    ),
    Finding(
        "trunks",
        "eMIGM: a masked autoencoder before a single encoder",
        (_emigm("MAE"), _emigm("single", trunk="single")),
        (Claim("distance", "MAE", "single"),),
    ),
    Finding(
        "truncation",
        "eMIGM: t_min 0.2 before 0; 0.4 no better than 0",
        (_emigm("0", t_min=0.0), _emigm("0.2"), _emigm("0.4", t_min=0.4)),
        (Claim("distance", "0.2", "0"), Claim("distance", "0", "0.4", True)),
    ),
    Finding(
        "null",
        "eMIGM: the mask token as the empty text, before a token of its own, without guidance",
        (_emigm("mask"), _emigm("token", null="token")),
        (Claim("distance", "mask", "token"),),
    ),
    Finding(
        "equal-compute",
        "eMIGM: at equal training compute the larger model is better",
        # by step_flops, the head's included
        (
            _emigm("80 wide", {"width": 80, "steps": 454}),
            _emigm("128 wide"),
            _emigm("192 wide", {"width": 192, "steps": 180}),
        ),
        _chain("distance", "192 wide", "128 wide", "80 wide"),
    ),
    # What eMIGM found, asked of codes.
    Finding(
        "weights-codes",
        "eMIGM: w = 1 before the bound's gamma'/gamma (here: codes)",
        (_maskgil("1"), _maskgil("bound", weighting="bound")),
        (Claim("distance", "1", "bound"),),
    ),
    Finding(
        "training-curves-codes",
        "eMIGM: with w = 1, exp before cosine before linear (here: codes, and arccos)",
        (
            _maskgil("exp", curve="exp"),
            _maskgil("cosine", curve="cosine"),
            _maskgil("linear", curve="linear"),
            _maskgil("arccos"),
        ),
        (*_chain("distance", "exp", "cosine", "linear"), Claim("distance", "exp", "arccos")),
    ),
    Finding(
        "trunks-codes",
        "eMIGM: a masked autoencoder before a single encoder (here: codes)",
        # The paper's blocks, and MaskGIL's own, of which "single" is made.
        (
            _maskgil("MAE", {"qk_norm": "", "norm": ""}, trunk="mae"),
            _maskgil("MAE of llama blocks", {"qk_norm": "", "norm": "", "blocks": "llama"}, trunk="mae"),
            _maskgil("single"),
        ),
        (Claim("distance", "MAE", "single"), Claim("distance", "MAE of llama blocks", "single")),
    ),
    Finding(
        "truncation-codes",
        "eMIGM: t_min 0.2 before 0; 0.4 no better than 0 (here: codes)",
        (_maskgil("0"), _maskgil("0.2", t_min=0.2), _maskgil("0.4", t_min=0.4)),
        (Claim("distance", "0.2", "0"), Claim("distance", "0", "0.4", True)),
    ),
    Finding(
        "null-codes",
        "eMIGM: the mask token as the empty text, before a token of its own (here: codes)",
        (_maskgil("mask", null="mask"), _maskgil("token")),
        (Claim("distance", "mask", "token"),),
    ),
)


class Mute(torch.nn.Module):
    """Says nothing of any text: what an encoder is while operations are counted."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, ids: Int[Tensor, "B L"], mask: Tensor) -> Float[Tensor, "B L E"]:
        return torch.zeros(*ids.shape, self.width)


def step_flops(small: Small, text: int = 256, rows: int = 4, draws: int = 16) -> float:
    """Floating-point operations that a row of a training step of a small eMIGM takes, forward and backward, trunk and
    head, as torch counts them: the mean over masks. text: width of the text states."""
    framework = method(small.method, **dict(small.choices))
    generator = generator_for(framework, small.width, small.depth, HEADS, (8, 8), (text, WORDS), channels=8, head=HEAD)
    model, loss = LatentTrainingModule(generator, Mute(text), repeats=REPEATS), LatentTokenLoss(framework)
    ids = torch.ones(rows, WORDS, dtype=torch.long)
    batch = {"tokens": torch.randn(rows, GRID**2, 8), "grid": (GRID, GRID), "ids": ids, "mask": ids > 0}
    with FlopCounterMode(display=False) as counter, torch.autocast("cpu", torch.bfloat16):
        for seed in range(draws):
            loss([model], batch, torch.Generator().manual_seed(seed), 0)[0].total.backward()
    return counter.get_total_flops() / (rows * draws)


# --- results ----------------------------------------------------------------------------------------------------------

Row = dict[str, Any]


def read(path: Path) -> list[Row]:
    """The results so far. A line that a killed run left unfinished is passed over."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in rows if isinstance(row, dict) and "key" in row]


def append(path: Path, row: Row) -> None:
    """Add a line that is on disk when this returns; it begins anew where the last one was never finished."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def verdict(claim: Claim, rows: dict[str, dict[int, dict[str, float]]], pictures: int = 20 * JUDGED) -> str:
    """confirmed, not confirmed or inside the noise; "" when the arms have no seed in common.

    rows: the metrics of each arm's name and seed, each of so many judged pictures.
    """
    one, other = rows.get(claim.better, {}), rows.get(claim.worse, {})
    pairs = [(one[s][claim.metric], other[s][claim.metric]) for s in one if s in other]
    if not pairs:
        return ""
    sign = 1 if claim.metric in HIGHER else -1
    gains = [sign * (a - b) for a, b in pairs]
    mean = sum(gains) / len(gains)
    largest = max(abs(value) for pair in pairs for value in pair)
    noise = RESOLUTION[claim.metric] * (1 if claim.metric in HIGHER else largest)
    if len(gains) > 1:
        variance = sum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1)
        noise = max(noise, 2 * math.sqrt(variance / len(gains)))
    if claim.metric == "score":
        right = sum(value for pair in pairs for value in pair) / (200 * len(pairs))
        noise = max(noise, 200 * math.sqrt(2 * right * (1 - right) / (pictures * len(pairs))))
    if claim.no_worse:
        margin = MARGIN[claim.metric] * (1 if claim.metric in HIGHER else largest)
        if mean - noise >= -margin:
            return "confirmed"
        return "not confirmed" if mean < -max(noise, margin) else "inside the noise"
    if abs(mean) <= noise:
        return "inside the noise"
    return "confirmed" if mean > 0 else "not confirmed"


def table(findings: Iterable[Finding], rows: list[Row], n: int = 20, train: float = 1.0, batch: int = 64) -> str:
    """Markdown. The rows say which arm, model and seed they are of; those of arms as they were before are passed over,
    and those of another n, train or batch: a quick look never stands for the real thing. A finding of which no two arms
    can be compared yet is left out.

    Of several measurements of an arm with a seed (new weights) the last counts.
    """
    lines = ["| finding | arms, mean ± spread over the seeds | claims |", "|---|---|---|"]
    for finding in findings:
        known: dict[str, dict[int, dict[str, float]]] = {}
        failed: dict[str, dict[int, str]] = {}
        for arm in finding.arms:
            made = {"n": n} | ({} if isinstance(arm.model, str) else {"train": train, "batch": batch})
            for row in rows:
                if row["arm"] == _plain(arm) and made == {name: row[name] for name in made}:
                    of, seed = (failed, known) if "failed" in row else (known, failed), row["seed"]
                    of[0].setdefault(arm.name, {})[seed] = row.get("failed") or row["metrics"]
                    of[1].get(arm.name, {}).pop(seed, None)
        if not known and not failed:
            continue
        metrics = list(dict.fromkeys(["score", "distance", *(c.metric for c in finding.claims), *finding.shows]))
        arms = []
        for arm in finding.arms:
            told = [_numbers(known[arm.name], metrics)] if known.get(arm.name) else []
            told += [f"failed with seed {seed} ({why})" for seed, why in failed.get(arm.name, {}).items()]
            arms += [f"{arm.name}: {', '.join(told)}"] if told else []
        said = [
            f"{claim}: **{found}**{_saved(claim, known)}"
            for claim in finding.claims
            if (found := verdict(claim, known, n * JUDGED))
        ]
        if finding.claims and not said and not failed:
            continue
        arms = "; ".join(arms)
        lines.append(f"| {finding.says} | {arms} | {'; '.join(said)} |")
    return "\n".join(lines)


def _saved(claim: Claim, known: dict[str, dict[int, dict[str, float]]]) -> str:
    """Which share of the evaluations is saved, where a claim is about them."""
    if claim.metric != "nfe":
        return ""
    few, many = (sum(m["nfe"] for m in known[arm].values()) / len(known[arm]) for arm in (claim.better, claim.worse))
    return f" ({1 - few / many:.0%} of the evaluations saved)"


def _numbers(seeds: dict[int, dict[str, float]], metrics: list[str]) -> str:
    out = []
    for metric in metrics:
        values = torch.tensor([m[metric] for m in seeds.values() if metric in m], dtype=torch.float64)
        if len(values):
            spread = f" ± {values.std():.2g}" if len(values) > 1 else ""
            out.append(f"{metric} {values.mean():.3g}{spread}")
    return ", ".join(out)


def _plain(arm: Arm) -> Any:
    """What the arm computes, without its name, as JSON gives it back."""
    model = arm.model if isinstance(arm.model, str) else asdict(arm.model)
    if isinstance(model, dict) and model["blocks"] == "vit":
        del model["blocks"]  # most arms were measured before there were others
    draw = asdict(arm.draw)
    if not draw["revisions"]:
        del draw["revisions"]  # nor were there always revisions
    return json.loads(json.dumps({"model": model, "draw": draw}))


# --- running ----------------------------------------------------------------------------------------------------------


class Missing(ValueError):
    """Weights or a cache that an arm needs are not there yet."""


@dataclass
class Bench:
    """What arms run on. `n` pictures of each kind judge an arm; `train` is a share of all training steps.

    homes  the models whose tokenizer and text encoder small models use: of those for codes, and for latents
    """

    runs: Path
    n: int = 20
    train: float = 1.0
    codes: str = "cache/scenes"
    latents: str = "cache/latents"
    reader: str = "scenes-reader"
    sprites: str = ""
    batch: int = 64
    homes: tuple[str, str] = (MAR, EMIGM)
    _opened: dict[str, TextToImage] = field(default_factory=dict)
    _judge: tuple[Any, dict[str, Tensor]] | None = None
    _through: dict[str, float] = field(default_factory=dict)

    def bundled(self, name: str) -> TextToImage:
        if name not in self._opened:
            try:
                folder = checkpoint.resolve(name)
            except ValueError as error:
                raise Missing(str(error)) from None
            if not folder.is_dir():
                raise Missing(f"there is no model {name}")
            self._opened[name] = TextToImage.load(folder)
        return self._opened[name]

    def judged(self) -> tuple[Any, dict[str, Tensor]]:
        """The reader, and the moments of its features on the corpus."""
        if self._judge is None:
            import train.scenes.judge  # noqa: F401, registers the reader's kind

            folder = checkpoint.resolve(self.reader)
            self._judge = checkpoint.load(folder, "reader").eval(), load_file(folder / "reference.safetensors")
        return self._judge

    def key(self, arm: Arm, seed: int) -> str:
        """Stands for everything that the numbers of an arm depend on."""
        reader, reference = self.judged()
        parts: list[Any] = [_plain(arm), seed, self.n]
        parts += [checkpoint.fingerprint(reader.state_dict()), checkpoint.fingerprint(reference)]
        if isinstance(arm.model, str):
            model = self.bundled(arm.model)
            parts.append(checkpoint.fingerprint(model.generator.state_dict()))
            parts.append(checkpoint.fingerprint(model.tokenizer.state_dict()))
            parts.append(checkpoint.fingerprint(model.text_encoder.identity()))
            if arm.draw.twin:
                parts.append(checkpoint.fingerprint(self.twin(model).state_dict()))
        else:
            home, _, made_by = self.home(arm.model)
            parts += [made_by, checkpoint.fingerprint(home.tokenizer.state_dict())]  # the decoder's share of a score
            parts += [checkpoint.fingerprint(home.text_encoder.identity()), self.train, self.batch]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]

    @staticmethod
    def twin(model: TextToImage) -> torch.nn.Module:
        if not model.has_ar_model:
            raise Missing("there is no autoregressive twin beside the model")
        return model.ar_model

    def home(self, small: Small) -> tuple[TextToImage, Path, str]:
        """The bundled model that lends its parts, the cache to learn from, and the fingerprint of its tokenizer."""
        folder = Path(self.latents if small.latents else self.codes)
        home = self.bundled(self.homes[small.latents])
        try:
            made_by = note_of(folder)
        except ValueError as error:
            raise Missing(str(error)) from None
        if checkpoint.fingerprint(home.tokenizer.identity()) != made_by["tokenizer"]:
            raise Missing(f"{folder} is not of the tokenizer of {self.homes[small.latents]}: make it anew")
        if ("latent" in made_by) != small.latents:
            raise Missing(f"{folder} does not hold {'latents' if small.latents else 'codes'}")
        return home, folder, made_by["tokenizer"]

    @torch.no_grad()
    def scored(self, model: TextToImage, draw: Draw, seed: int) -> dict[str, float]:
        reader, reference = self.judged()
        asked = asked_scenes(self.n, held_out=False)
        model.head = draw.sampler()
        drawn(model, asked[:1], replace(draw.settings(), steps=1))  # warms up, and loads what is loaded late
        pixels, seconds, nfe = drawn(model, asked, draw.settings(), seed=1_000_000 * seed)
        scores, features = judge(reader, asked, pixels)
        distance = frechet(moments(features), (reference["mean"], reference["covariance"]))
        return {"score": overall(scores), "distance": distance, "seconds": seconds, "nfe": nfe}

    @torch.no_grad()
    def through(self, tokenizer: Any, key: str) -> float:
        """The scene score of true pictures that have gone through a tokenizer of codes."""
        if key not in self._through:
            reader, _ = self.judged()
            asked = asked_scenes(self.n, held_out=False)
            scenes, sprites = [scene for _, scene, _ in asked], Sprites(self.sprites or None)
            pixels = rendered(scenes, sprites, tokenizer.config.upscale)
            self._through[key] = overall(judge(reader, asked, reconstructed(tokenizer, pixels))[0])
        return self._through[key]

    def run(self, arm: Arm, seed: int) -> dict[str, Any]:
        """The numbers of an arm. Raises Missing for weights or caches that are not there."""
        if isinstance(arm.model, str):
            model = self.bundled(arm.model)
            if arm.draw.twin:
                self.twin(model)
            return self.scored(model, arm.draw, seed)
        return self.trained(arm.model, arm.draw, seed, self.runs / self.key(arm, seed))

    def trained(self, small: Small, draw: Draw, seed: int, out: Path) -> dict[str, Any]:
        """Train a small model, then judge what it draws with the tokenizer and text encoder of the bundled one.

        "norms" are (step, norm of the output) as it trained. All learn layout too, or none would draw anything in so
        few steps. Raises KeyboardInterrupt when it was asked to stop while training.
        """
        home, folder, made_by = self.home(small)
        one_size = self.runs / f"cache-{made_by}"
        _one_size(folder, one_size)
        tokenizer, group = merged(home.tokenizer, small.merged) if small.merged else (home.tokenizer, None)
        recipe = method_recipe(
            out.name,
            method(small.method, **dict(small.choices)),
            str(one_size),
            str(checkpoint.resolve(self.homes[small.latents]) / "text_encoder"),
            steps=max(1, round(self.train * small.steps)),
            batch=self.batch,
            lr=1e-3,
            muon_lr=0.02,
            width=small.width,
            depth=small.depth,
            heads=HEADS,
            head=HEAD,
            repeats=REPEATS,
            seed=seed,
            codes=0 if small.latents else tokenizer.config.codebook_size,
            layout=0.5,
            blocks=small.blocks,
            **{name: value for name in ("qk_norm", "norm") if not small.latents and (value := getattr(small, name))},
        )
        batch_at = recipe.batch_at if group is None else Grouped(recipe.batch_at, group)
        every, norms = max(1, round(100 * self.train)), out / "norms.jsonl"

        def model_of(module: LatentTrainingModule) -> TextToImage:
            side = GRID * tokenizer.config.downsample
            return TextToImage(module.generator, module.text_encoder, tokenizer, [(side, side)])

        def watch(module: LatentTrainingModule, batch: dict, generator: torch.Generator, step: int) -> None:
            if (step + 1) % every == 0:
                append(norms, {"key": step + 1, "norm": output_norm(model_of(module))})

        learned = train(replace(recipe, batch_at=batch_at, export=None, save_every=100, after_step=watch), out)
        if read_log(out) < recipe.steps:
            raise KeyboardInterrupt
        model = model_of(learned)
        numbers: dict[str, Any] = self.scored(model, draw, seed) | {"norm": output_norm(model)}
        numbers["norms"] = sorted({row["key"]: row["norm"] for row in read(norms)}.items())
        return numbers if small.latents else numbers | {"through": self.through(tokenizer, f"{made_by} {small.merged}")}


def read_log(out: Path) -> int:
    """The last step that a run has logged; it logs its very last one, unless it was asked to stop before."""
    return max((json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()), default=0)


def _one_size(cache: Path, out: Path) -> None:
    """The part of a cache that is of 128 x 128, as links: all arms then learn from pictures of 64 tokens."""
    out.mkdir(parents=True, exist_ok=True)
    for path in (cache / "cache.json", *sorted(cache.glob("128x128-*.safetensors"))):
        link = out / path.name
        if not link.exists():
            link.unlink(missing_ok=True)  # one that points nowhere
            link.symlink_to(path.resolve())


@dataclass(frozen=True)
class Grouped:
    """Batches in which each code is the number of its group."""

    batch_at: Callable[[int], dict]
    group: Int[Tensor, " K"]

    def __call__(self, index: int) -> dict:
        batch = self.batch_at(index)
        return batch | {"tokens": self.group[batch["tokens"]]}


class MergedTokenizer:
    """A tokenizer of groups of codes: the code nearest to a group's centre stands for all of it."""

    def __init__(self, tokenizer: VQModel, group: Int[Tensor, " K"], stands: Int[Tensor, " k"]):
        self.tokenizer, self.group, self.stands = tokenizer, group, stands
        self.config = replace(tokenizer.config, codebook_size=len(stands))

    def encode(self, pixels: Float[Tensor, "B 3 H W"]) -> Int[Tensor, "B N"]:
        return self.group[self.tokenizer.encode(pixels)]

    def decode(self, tokens: Int[Tensor, "B N"], grid: tuple[int, int]) -> Float[Tensor, "B 3 H W"]:
        return self.tokenizer.decode(self.stands[tokens], grid)

    def identity(self) -> dict[str, Tensor]:
        return self.tokenizer.identity() | {"stands": self.stands}


def merged(tokenizer: VQModel, size: int, rounds: int = 20) -> tuple[MergedTokenizer, Int[Tensor, " K"]]:
    """The tokenizer with its codes in `size` groups (k-means on the sphere), and the group of each code.

    So a smaller codebook costs no training of another tokenizer; it is a little worse than one that was trained small.
    """
    codes, draw = F.normalize(tokenizer.quantize.codebook().detach().float(), dim=-1), torch.Generator().manual_seed(0)
    centres = codes[torch.randperm(len(codes), generator=draw)[:size]]
    for _ in range(rounds):
        sums = torch.zeros_like(centres).index_add_(0, (codes @ centres.T).argmax(1), codes)
        empty = sums.norm(dim=1) < 1e-6
        sums[empty] = codes[torch.randint(len(codes), (int(empty.sum()),), generator=draw)]
        centres = F.normalize(sums, dim=-1)
    similarity = codes @ centres.T
    group = similarity.argmax(1)
    return MergedTokenizer(tokenizer, group, similarity.argmax(0)), group


@torch.no_grad()
def output_norm(model: TextToImage, prompts: int = 16) -> float:
    """Root mean square of what reaches the trunk's last norm when nothing is known but the text."""
    generator, seen = model.generator, []
    trunk = generator.trunk if isinstance(generator, CodeTrunk) else generator
    last = trunk.norm if isinstance(trunk, MaskGIL) else trunk.decoder_norm
    watch = last.register_forward_pre_hook(lambda module, given: seen.append(given[0].float()))
    try:
        texts = [text for _, _, text in asked_scenes(max(1, prompts // 8), held_out=False)][:prompts]
        model.images(texts, list(range(len(texts))), model.sizes[0], SamplingParams(steps=1, guidance_scale=1.0))
    finally:
        watch.remove()
    return seen[0].square().mean().sqrt().item()


@cache
def code() -> str:
    """Stands for the sources that train and draw."""
    root = Path(__file__).resolve().parents[2]
    sources = sorted(path for folder in ("maskgil", "train") for path in (root / folder).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def measure(findings: Iterable[Finding], bench: Bench, seeds: int, results: Path) -> Iterator[str]:
    """Run what is not known yet, one arm and seed after the other; yields a line about each.

    What fails is a row too, so that one arm does not cost the night; the same code does not try it again.
    """
    done = {row["key"] for row in read(results) if row.get("code", code()) == code()}
    for finding in findings:
        for seed in range(seeds):
            for arm in finding.arms:
                try:
                    key = bench.key(arm, seed)
                except ValueError as missing:
                    yield f"{finding.name}, {arm.name}: waits, since {missing}"
                    continue
                if key in done:
                    continue
                since = time.perf_counter()
                try:
                    metrics, told = bench.run(arm, seed), {}
                    if "norms" in metrics:
                        told["norms"] = metrics.pop("norms")
                    if strange := [name for name, value in metrics.items() if not math.isfinite(value)]:
                        raise ArithmeticError(f"{', '.join(strange)} is not a number")
                except Missing as missing:
                    yield f"{finding.name}, {arm.name}: waits, since {missing}"
                    continue
                except CheckpointWriteError:  # no arm's failure: with space it goes on where it was
                    raise
                except (ArithmeticError, RuntimeError, ValueError) as error:
                    why = (str(error).splitlines() or [""])[0][:200]
                    metrics, told = {}, {"failed": f"{type(error).__name__}: {why}", "code": code()}
                took = time.perf_counter() - since
                append(
                    results,
                    {
                        "key": key,
                        "finding": finding.name,
                        "name": arm.name,
                        "seed": seed,
                        "n": bench.n,
                        "train": bench.train,
                        "batch": bench.batch,
                        "metrics": metrics,
                        "took": round(took, 1),
                        "arm": _plain(arm),
                        **told,
                    },
                )
                shutil.rmtree(bench.runs / key, ignore_errors=True)  # what was trained for it
                done.add(key)
                if "failed" in told:
                    yield f"{finding.name}, {arm.name}, seed {seed}: failed, {told['failed']} ({took:.0f} s)"
                    continue
                shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
                yield f"{finding.name}, {arm.name}, seed {seed}: {shown} ({took:.0f} s)"


def chosen(only: str, kind: str) -> list[Finding]:
    """Findings by name and kind; empty strings choose all. ValueError for what there is not."""
    names = [name for name in only.split(",") if name]
    known = {finding.name: finding for finding in FINDINGS}
    if strange := [name for name in names if name not in known]:
        raise ValueError(f"no finding is called {', '.join(strange)}: there are {', '.join(known)}")
    if kind not in ("", "sampling", "training"):
        raise ValueError(f"kind={kind}: choose sampling or training")
    return [f for f in FINDINGS if (not names or f.name in names) and kind in ("", f.kind)]


def paper_findings(
    only: tuple[str, ...] = (),
    kind: Literal["", "sampling", "training"] = "",
    seeds: int = 2,
    table_only: bool = False,
    results: Path = Path("benchmarks/reproduction.jsonl"),
    runs: Path = Path("runs/reproduce"),
    n: int = 20,
    train: float = 1.0,
    batch: int = 64,
    codes: str = "cache/scenes",
    latents: str = "cache/latents",
    reader: str = "scenes-reader",
    sprites: str = "",
) -> None:
    """Test the two papers' findings on the scene corpus, and print the table of what is known.

    Args:
        only: Names of findings. Left out: all.
        kind: sampling or training findings alone.
        seeds: Seeds of each arm.
        table_only: Print the table and compute nothing.
        results: The file of measurements, a JSON object a line; the same command again continues it.
        runs: The folder of the training runs.
        n: Pictures of each kind that judge an arm.
        train: Share of all training steps.
        batch: Pictures a training step.
        codes: The cache of codes.
        latents: The cache of latents.
        reader: The judge's folder.
        sprites: A folder of drawings.
    """
    for name, number in {"n": n, "seeds": seeds, "batch": batch, "train": train}.items():
        if not number > 0:
            raise ValueError(f"{name}={number}: give more than 0")
    findings = chosen(",".join(only), kind)
    if not table_only:
        bench = Bench(runs, n=n, train=train, codes=codes, latents=latents, reader=reader, sprites=sprites, batch=batch)
        for line in measure(findings, bench, seeds, results):
            print(line, flush=True)
    print(table(findings, read(results), n=n, train=train, batch=batch))


if __name__ == "__main__":
    raise SystemExit("error: this command is `maskgil bench paper-findings` now")
