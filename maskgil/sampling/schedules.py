"""Mask-ratio curves: which share of a picture is masked at time t, and so how many tokens each step decides.

Time runs from 1 (everything masked) to 0 (nothing). A curve knows its ratio gamma(t), its slope, the loss weight
slope / gamma, and the counts of a plan. Curves are values: `parallel(256, curve=cosine)`; `replace(cosine,
reveal="remain")` is MaskGIT's reading of the same curve. Training masks are here too.

B batch, N tokens.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Formula = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MaskSchedule:
    """`ratio` and `slope` are gamma and its derivative on tensors of times in [0, 1].

    reveal  how counts follow gamma. "share": step i decides in proportion to gamma(i / (T - 1)), as the released code
            does; "remain": N gamma(t) / gamma(1) tokens remain after the step that ends at t, as in eMIGM; "floor": the
            same rounded down, in float32, as in MaskGIT, aMUSEd and Meissonic (the rounding decides a token).
    """

    name: str
    ratio: Formula
    slope: Formula
    num_unmasked: Literal["share", "remain", "floor"] = "share"

    def gamma(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """Share of masked tokens at time t, in [0, 1]."""
        return self.ratio(t)

    def weight(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """gamma' / gamma, the weight of the likelihood bound (eMIGM, equation 6). Infinite at 0: truncate t."""
        return self.slope(t) / self.ratio(t)

    def counts(self, steps: int, tokens: int) -> list[int]:
        """Tokens that each step decides: at least one, `tokens` in all. Raises ValueError for too many steps."""
        if steps < 1:
            raise ValueError(f"{steps} steps: give at least 1")
        if steps > tokens:
            raise ValueError(
                f"{steps} steps for {tokens} tokens: each step decides one or more, so give at most {tokens}"
            )
        if self.num_unmasked == "share":
            return _shares(self, steps, tokens)
        remain = _floors if self.num_unmasked == "floor" else _rounded
        return _remainders(tokens, remain(self, steps, tokens))


def _shares(curve: MaskSchedule, steps: int, tokens: int) -> list[int]:
    if steps == 1:
        return [tokens]
    share = curve.gamma(torch.linspace(0, 1, steps, dtype=torch.float64))
    counts = [max(1, round(part)) for part in (share / share.sum() * tokens).tolist()]
    counts[-1] = tokens - sum(counts[:-1])
    while counts[-1] < 1:  # many steps for few tokens: the floor of one took too much
        counts[counts.index(max(counts))] -= 1
        counts[-1] += 1
    return counts


def _rounded(curve: MaskSchedule, steps: int, tokens: int) -> list[int]:
    """Tokens that remain after each step, rounded."""
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    ratios = (curve.gamma(times) / curve.gamma(times[:1])).tolist()
    return [round(ratio * tokens) for ratio in ratios[1:]]


def _floors(curve: MaskSchedule, steps: int, tokens: int) -> list[int]:
    """Tokens that remain after each step, rounded down, computed in float32."""
    elapsed = torch.arange(1, steps + 1) / steps
    return (tokens * curve.gamma(1 - elapsed)).floor().int().tolist()


def _remainders(tokens: int, remain: list[int]) -> list[int]:
    """Counts of steps after which about so many tokens remain: at least one a step, and all in the end."""
    left, counts = tokens, []
    for step, target in enumerate(remain):
        after = min(max(target, len(remain) - 1 - step), left - 1)
        counts.append(left - after)
        left = after
    return counts


HALF = math.pi / 2
E5 = math.exp(5.0) - 1

linear = MaskSchedule("linear", lambda t: t, torch.ones_like)
cosine = MaskSchedule(
    "cosine", lambda t: torch.sin(HALF * t), lambda t: HALF * torch.cos(HALF * t)
)  # cos(pi (1 - t) / 2)
arccos = MaskSchedule("arccos", lambda t: torch.acos(1 - t) / HALF, lambda t: 1 / (HALF * torch.sqrt(t * (2 - t))))
# cosine as MaskGIT's code counts it (Chang et al. 2022, arXiv 2202.04200)
maskgit = MaskSchedule("maskgit", lambda t: torch.cos(HALF * (1 - t)), cosine.slope, "floor")
square = MaskSchedule("square", lambda t: 1 - (1 - t) ** 2, lambda t: 2 * (1 - t))
root = MaskSchedule("root", lambda t: 1 - torch.sqrt(1 - t), lambda t: 0.5 / torch.sqrt(1 - t))
exp = MaskSchedule("exp", lambda t: 1 - torch.exp(-5 * t), lambda t: 5 * torch.exp(-5 * t), "remain")
log_exp = MaskSchedule("log_exp", lambda t: torch.log1p(E5 * t) / 5, lambda t: E5 / (5 * (1 + E5 * t)), "remain")


def poly(exponent: float) -> MaskSchedule:
    """t^exponent; eMIGM's code has it at 0.5. Raises ValueError unless the exponent is above 0."""
    if not exponent > 0:
        raise ValueError(f"poly-{exponent:g}: give an exponent above 0")
    return MaskSchedule(f"poly-{exponent:g}", lambda t: t**exponent, lambda t: exponent * t ** (exponent - 1), "remain")


sqrt = replace(poly(0.5), name="sqrt")

SCHEDULES: dict[str, MaskSchedule] = {
    curve.name: curve for curve in (linear, cosine, maskgit, arccos, square, root, exp, log_exp, sqrt)
}


def schedule_by_name(name: str) -> MaskSchedule:
    """One of CURVES, or poly-<exponent>. Raises ValueError for what there is not."""
    if name.startswith("poly-"):
        with suppress(ValueError):
            return poly(float(name.removeprefix("poly-")))
    if name not in SCHEDULES:
        raise ValueError(f"curve={name}: choose one of {', '.join(SCHEDULES)} or poly-EXPONENT, such as poly-0.7")
    return SCHEDULES[name]


def independent_mask(ratio: Float[Tensor, " B"], uniform: Float[Tensor, "B N"]) -> Bool[Tensor, "B N"]:
    """Each token masked with probability `ratio` (released MaskGIL, MDM). A row may end up without any."""
    return uniform < ratio[:, None]


def exact_mask(ratio: Float[Tensor, " B"], uniform: Float[Tensor, "B N"]) -> Bool[Tensor, "B N"]:
    """ceil(N ratio) masked tokens in each row, at least one, at random places (MaskGIT, MAR)."""
    count = torch.ceil(ratio * uniform.shape[1]).clamp(1, uniform.shape[1])
    return uniform.argsort(1).argsort(1) < count[:, None]
