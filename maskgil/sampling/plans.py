"""Plans: the steps that unmask a grid, made on the host.

    masked_plan    as many tokens a step as a mask schedule says, then the refinement passes
    raster_plan    one token a step in raster order, for an autoregressive model
    fixed_plan     positions given outright

B rows, N tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from maskgil.params import DecodingOrder
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.loop import StepParams
from maskgil.sampling.schedules import MaskSchedule, arccos


@dataclass(frozen=True)
class MaskedPlan:
    """The options of a plan that fills `num_masked` tokens (one number for all rows, or one a row) in `steps` steps.

    curve               how many tokens each step decides
    order               which of them
    seeds               one a row
    choice_temperature  Gumbel noise on confidences at the first step; it falls linearly to 0 (released: 4.5, `r_temp`)
    refinement_passes   further steps, each of which decides a share `remask_fraction` of the masked tokens anew: the
                        least likely of those that were decided in step `remask_since` (None: first_step) or later
    first_step          number of the first step: in a second plan over the same canvas, the steps already done
    total               tokens of a whole picture: the plan is then the end of one for whole pictures, from where the
                        row with most masked tokens stands in it. Other rows join later, rows without masked tokens
                        never

    Raises ValueError for impossible numbers, such as more steps than masked tokens.
    """

    num_masked: int | Sequence[int]
    steps: int = 8
    curve: MaskSchedule = arccos
    order: str = DecodingOrder.CONFIDENCE
    temperature: float = 1.0
    choice_temperature: float = 4.5
    guidance: Guidance | None = None
    seeds: Sequence[int] | Int[Tensor, " B"] = (0,)
    top_k: int | None = None
    top_p: float | None = None
    refinement_passes: int = 0
    remask_fraction: float = 0.25
    remask_since: int | None = None
    first_step: int = 0
    total: int | None = None
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if len(self.masked) != len(self.seeds):
            raise ValueError(
                f"{len(self.masked)} numbers of masked tokens for {len(self.seeds)} seeds: give one of each for every "
                "picture"
            )
        _check_numbers(self.temperature, self.choice_temperature, self.top_k, self.top_p)
        passes = self.refinement_passes
        if isinstance(passes, bool) or not isinstance(passes, int) or not 0 <= passes <= 100:
            raise ValueError(f"refinement_passes is {passes!r}: give a whole number from 0, 1 is usual")
        if not 0 < self.remask_fraction <= 1:
            raise ValueError(f"remask_fraction is {self.remask_fraction}; give a share in (0, 1]")

    @property
    def masked(self) -> list[int]:
        """Masked tokens of each row."""
        if isinstance(self.num_masked, int):
            return [self.num_masked] * len(self.seeds)
        return list(self.num_masked)

    @property
    def draws(self) -> "_TokenDraws":
        seeds, order = torch.as_tensor(self.seeds, dtype=torch.long), DecodingOrder(self.order)
        return _TokenDraws(order, self.temperature, seeds, self.top_k, self.top_p, self.device)

    def build(self) -> list[StepParams]:
        """The steps, then the refinement passes."""
        steps, rows, guidance = self.steps, len(self.seeds), self.guidance or Guidance(scale=1.0)
        whole = None if self.total is None else self.curve.counts(steps, self.total)
        counts = [self.curve.counts(steps, n) if whole is None else _last(whole, n) for n in self.masked]
        begin = next((i for i in range(steps) if any(row[i] for row in counts)), steps)
        scales = [guidance.scales(_decided(whole or row)) for row in counts]
        plan, draws = [], self.draws
        for i in range(begin, steps):
            reveal, scale = [row[i] for row in counts], [row[i] for row in scales]
            falling = self.choice_temperature * (1 - i / max(1, steps - 1))
            step = _step(reveal, falling, scale, self.first_step + i - begin, draws)
            plan.append(replace(step, remaining=torch.full_like(step.index, steps - 1 - i)))
        remasked, late = [round(self.remask_fraction * n) for n in self.masked], [guidance.last()] * rows
        since = self.first_step if self.remask_since is None else self.remask_since
        all_rows = torch.arange(rows, device=self.device)
        for i in range(steps, steps + self.refinement_passes * any(remasked)):
            step = _step(remasked, 0.0, late, self.first_step + i - begin, draws)
            remask = {"num_remask": step.num_unmask, "remask_since": torch.full_like(all_rows, since)}
            plan.append(replace(step, remask_rows=all_rows, **remask))
        return plan


def masked_plan(num_masked: int | Sequence[int], *options: Any, **named: Any) -> list[StepParams]:
    """The steps of a MaskedPlan with these options. Raises ValueError for impossible numbers."""
    return MaskedPlan(num_masked, *options, **named).build()


def raster_plan(
    tokens: int,
    temperature: float = 1.0,
    guidance: Guidance | None = None,
    seeds: Sequence[int] | Int[Tensor, " B"] = (0,),
    top_k: int | None = None,
    top_p: float | None = None,
    first: int = 0,
    device: torch.device | str = "cpu",
) -> list[StepParams]:
    """A plan that decides the next `tokens` masked tokens in reading order, one at a step: for an autoregressive
    sampler."""
    seeds = torch.as_tensor(seeds, dtype=torch.long)
    _check_numbers(temperature, 0.0, top_k, top_p)
    scales = (guidance or Guidance(scale=1.0)).scales(_decided([1] * tokens))
    draws = _TokenDraws(DecodingOrder.RASTER, temperature, seeds, top_k, top_p, device)
    rows = len(seeds)
    return [_step([1] * rows, 0.0, [scale] * rows, first + i, draws) for i, scale in enumerate(scales)]


def fixed_plan(masks: Sequence[Bool[Tensor, "B N"]], plan: Sequence[StepParams]) -> list[StepParams]:
    """A plan with its positions given outright: step i decides exactly the positions in masks[i]."""
    assert len(masks) == len(plan), f"{len(masks)} masks for {len(plan)} steps"
    code = list(DecodingOrder).index(DecodingOrder.FIXED)
    return [
        replace(
            step,
            num_unmask=mask.sum(1),
            order=torch.full_like(step.order, code),
            orders=frozenset({DecodingOrder.FIXED}),
            priority=mask.float(),
        )
        for mask, step in zip(masks, plan, strict=True)
    ]


def _last(counts: Sequence[int], masked: int) -> list[int]:
    """What is left of each step when only so many masked tokens are."""
    after = [sum(counts[i + 1 :]) for i in range(len(counts))]
    return [min(count, max(0, masked - later)) for count, later in zip(counts, after, strict=True)]


def _decided(counts: Sequence[int]) -> list[float]:
    """Share of the tokens that are decided after each step."""
    total = sum(counts)
    return [sum(counts[: i + 1]) / total for i in range(len(counts))]


def _check_numbers(temperature: float, choice: float, top_k: int | None, top_p: float | None) -> None:
    for name, value, high in (("temperature", temperature, 100.0), ("choice temperature", choice, 1000.0)):
        if not 0 <= value <= high:  # NaN fails too
            raise ValueError(f"{name} is {value}; give a number from 0 to {high:g}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}; give 1 or more codes, or none for all of them")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}; give a share in (0, 1]")


@dataclass(frozen=True)
class _TokenDraws:
    """How the steps of a plan draw tokens."""

    order: DecodingOrder
    temperature: float
    seeds: Int[Tensor, " B"]
    top_k: int | None
    top_p: float | None
    device: torch.device | str


def _step(reveal: list[int], choice: float, scale: list[float], index: int, draws: _TokenDraws) -> StepParams:
    """Step number `index`: tokens to unmask and guidance scale of each row, and the temperature of the choice."""
    device = draws.device

    def each(value: float) -> Tensor:
        return torch.full((len(reveal),), value, device=device)

    nobody = torch.zeros(0, dtype=torch.long, device=device)
    return StepParams(
        num_unmask=torch.tensor(reveal, device=device),
        order=each(list(DecodingOrder).index(draws.order)),
        orders=frozenset({draws.order}),
        temperature=each(float(draws.temperature)),
        choice_temperature=each(float(choice)),
        scale=torch.tensor(scale, dtype=torch.float32, device=device),
        guided=torch.tensor([row for row, s in enumerate(scale) if s != 1], dtype=torch.long, device=device),
        seeds=draws.seeds.to(device),
        index=each(index),
        remask_rows=nobody,
        num_remask=nobody,
        remask_since=nobody,
        top_k=None if draws.top_k is None else each(draws.top_k),
        top_p=None if draws.top_p is None else each(float(draws.top_p)),
    )
