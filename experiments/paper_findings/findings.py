"""The findings of the MaskGIL and eMIGM papers as data: what the paper says, arms, and claims.

Sampling arms draw with the bundled weights. Training arms train a small model on 64 cached tokens first."""

from collections.abc import Callable
from typing import Any

from experiments.paper_findings.arms import GRID, Arm, Claim, Draw, Finding, Metric, Small


def _chain(metric: Metric, *names: str) -> tuple[Claim, ...]:
    """Each better than the next."""
    return tuple(Claim(metric, one, other) for one, other in zip(names, names[1:], strict=False))


def _learned(*names: str) -> tuple[Claim, ...]:
    """The same of models that were trained: by what they draw, and by their loss on held-out scenes."""
    return _chain("distance", *names) + _chain("loss", *names)


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

_TRUNCATED = (*_learned("0.2", "0"), Claim("distance", "0", "0.4", True), Claim("loss", "0", "0.4", True))

FINDINGS: tuple[Finding, ...] = (
    Finding(
        "mar-against-ar",
        "MaskGIL: 8 masked steps are as good as a step for each token, and faster",
        (Arm("8 steps", MAR), Arm("AR", MAR, Draw(ar_tokens=GRID**2))),
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
            *(Arm(f"{n} and a revision", MAR, Draw(n, refinement_passes=1)) for n in (4, 8)),
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
        (
            *(Arm(f"{n} steps", EMIGM, Draw(n)) for n in (8, 16)),
            Arm("8 and a revision", EMIGM, Draw(8, refinement_passes=1)),
        ),
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
        _learned("192", "128", "64"),
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
            Claim("loss", "QK and post", "neither", True),
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
        _learned("1", "bound"),
    ),
    Finding(
        "training-curves",
        "eMIGM: with w = 1, exp before cosine before linear (in the paper only after 300 epochs)",
        (_emigm("exp"), _emigm("cosine", curve="cosine"), _emigm("linear", curve="linear")),
        _learned("exp", "cosine", "linear"),
    ),
    Finding(
        "trunks",
        "eMIGM: a masked autoencoder before a single encoder",
        (_emigm("MAE"), _emigm("single", trunk="single")),
        _learned("MAE", "single"),
    ),
    Finding(
        "truncation",
        "eMIGM: t_min 0.2 before 0; 0.4 no better than 0",
        (_emigm("0", t_min=0.0), _emigm("0.2"), _emigm("0.4", t_min=0.4)),
        _TRUNCATED,
    ),
    Finding(
        "null",
        "eMIGM: the mask token as the empty text, before a token of its own, without guidance",
        (_emigm("mask"), _emigm("token", null="token")),
        _learned("mask", "token"),
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
        _learned("192 wide", "128 wide", "80 wide"),
    ),
    # What eMIGM found, asked of codes.
    Finding(
        "weights-codes",
        "eMIGM: w = 1 before the bound's gamma'/gamma (here: codes)",
        (_maskgil("1"), _maskgil("bound", weighting="bound")),
        _learned("1", "bound"),
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
        (*_learned("exp", "cosine", "linear"), *_learned("exp", "arccos")),
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
        (*_learned("MAE", "single"), *_learned("MAE of llama blocks", "single")),
    ),
    Finding(
        "truncation-codes",
        "eMIGM: t_min 0.2 before 0; 0.4 no better than 0 (here: codes)",
        (_maskgil("0"), _maskgil("0.2", t_min=0.2), _maskgil("0.4", t_min=0.4)),
        _TRUNCATED,
    ),
    Finding(
        "null-codes",
        "eMIGM: the mask token as the empty text, before a token of its own (here: codes)",
        (_maskgil("mask", null="mask"), _maskgil("token")),
        _learned("mask", "token"),
    ),
)
