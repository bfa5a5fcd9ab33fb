"""The one loop: a plan fills the masked tokens of a canvas.

A plan is a list of steps, made on the host. `sample` asks a sampler for tokens at each step, keeps as many as the step
says, and yields the canvas, so that a caller can show it, count it or stop. Class-driven and text-driven pictures,
continuous tokens, inpainting and hybrid mode are all this loop:

    sample(sampler, TokenGrid.blank(1, (16, 16), mask_id), masked_plan(256, steps=8))
    *_, prefix = sample(ar_sampler, blank, raster_plan(64)); sample(sampler, prefix, masked_plan(192, steps=8))

A refinement pass is a step that first masks the tokens that are least likely given the others. The first
steps decide tokens while few others are known, and no later step changes them: one wrong token makes its neighbors fit
it. The model scores half of the tokens given the other half, and the other way round, as a masked language model scores
a sentence (Salazar et al. 2020, 1910.14659). 2209.04439 trains a critic for the same purpose.

Every quantity of a step belongs to a row, so that rows of different requests, at different steps, can share one call of
the model (`StepParams.cat`). A step never asks the device anything.

B rows, N tokens, C channels of a continuous token, G guided rows, D remasked rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskgil.sampling import counter_rng
from maskgil.sampling.orders import DecodingOrder, priority, top_k_mask
from maskgil.sampling.token_grid import TokenGrid

SCORING_NFE = 2  # evaluations that it takes to score every token


@dataclass(frozen=True)
class StepParams:
    """What one step does to each of its rows.

    num_unmask   tokens to decide
    order        index into tuple(DecodingOrder);  orders: those that occur, known to the host
    temperature  divides the logits (1 = the model's own, 0 = always the likeliest code; released `sm_temp` multiplies)
    choice_temperature  size of the Gumbel noise on the confidences
    scale        guidance scale;  guided: the rows that have a null half. Their number is known to the host.
    seeds, index what the noise depends on: the row's seed, the step's number in the row's whole plan
    remask_rows  the rows in which tokens are remasked, known to the host;  num_remask: how many of the tokens that
                 were decided in step `remask_since` or later
    top_k        only the k likeliest codes (0 = all);  top_p: only the likeliest that make up p (1 = all); None = off
    priority     for DecodingOrder.FIXED: the highest first
    remaining    masked steps that come after this one, for models that read it; None: 0
    head         how a diffusion head draws, for all rows; None: as the model does by itself
    """

    num_unmask: Int[Tensor, " B"]
    order: Int[Tensor, " B"]
    orders: frozenset[DecodingOrder]
    temperature: Float[Tensor, " B"]
    choice_temperature: Float[Tensor, " B"]
    scale: Float[Tensor, " B"]
    guided: Int[Tensor, " G"]
    seeds: Int[Tensor, " B"]
    index: Int[Tensor, " B"]
    remask_rows: Int[Tensor, " D"]
    num_remask: Int[Tensor, " D"]
    remask_since: Int[Tensor, " D"]
    top_k: Int[Tensor, " B"] | None = None
    top_p: Float[Tensor, " B"] | None = None
    priority: Float[Tensor, "B N"] | None = None
    remaining: Int[Tensor, " B"] | None = None
    head: Any = None

    def __len__(self) -> int:
        return self.num_unmask.shape[0]

    @property
    def nfe(self) -> Int[Tensor, " B"]:
        """Evaluations of the model that each row costs: 1, 1 more where guided, and those of remasking."""
        once = torch.ones_like(self.num_unmask).index_add_(0, self.guided, torch.ones_like(self.guided))
        return once.index_add_(0, self.remask_rows, torch.full_like(self.remask_rows, SCORING_NFE))

    @property
    def nfe_per_row(self) -> int:
        """The same of a plan whose rows all cost as much, without asking the device."""
        assert {len(self.guided), len(self.remask_rows)} <= {0, len(self)}, "pictures of one plan cost the same"
        return 1 + bool(len(self.guided)) + SCORING_NFE * bool(len(self.remask_rows))

    @staticmethod
    def cat(steps: Sequence["StepParams"]) -> "StepParams":
        """One step for the rows of many, each as if it were alone."""
        first = [sum(len(step) for step in steps[:i]) for i in range(len(steps))]
        assert all(step.head == steps[0].head for step in steps), "rows of one step share their head"
        joined: dict[str, Any] = {
            "head": steps[0].head,
            "orders": frozenset[DecodingOrder]().union(*(step.orders for step in steps)),
        }
        for name in ("guided", "remask_rows"):
            joined[name] = torch.cat([getattr(step, name) + start for step, start in zip(steps, first, strict=True)])
        for name, off in (("top_k", 0), ("top_p", 1.0), ("priority", 0.0), ("remaining", 0)):
            joined[name] = _cat_optional([(len(step), getattr(step, name)) for step in steps], off)
        for field in fields(StepParams):
            if field.name not in joined:
                joined[field.name] = torch.cat([getattr(step, field.name) for step in steps])
        return StepParams(**joined)


def _cat_optional(parts: Sequence[tuple[int, Tensor | None]], off: float) -> Tensor | None:
    given = next((tensor for _, tensor in parts if tensor is not None), None)
    if given is None:
        return None
    return torch.cat([given.new_full((rows, *given.shape[1:]), off) if t is None else t for rows, t in parts])


# (canvas, step, where) -> tokens for every position, and how sure of each (log-probability). Only positions in `where`
# are looked at: all masked tokens when a row goes by confidence, else those that the step decides.
Predict = Callable[[TokenGrid, StepParams, Bool[Tensor, "B N"]], tuple[Tensor, Float[Tensor, "B N"]]]


@runtime_checkable
class ScoringPredict(Protocol):
    """A `Predict` that also scores tokens: what a step with remasking needs."""

    def likelihood(self, canvas: TokenGrid, rows: Int[Tensor, " D"]) -> Float[Tensor, "D N"]: ...


def sample(predict: Predict, canvas: TokenGrid, plan: Sequence[StepParams]) -> Iterator[TokenGrid]:
    """The canvas after each step of the plan."""
    for step in plan:
        canvas = sample_step(predict, canvas, step)
        yield canvas


@torch.no_grad()
def sample_step(predict: Predict, canvas: TokenGrid, step: StepParams) -> TokenGrid:
    """One step: decides `step.num_unmask` masked tokens of each row (all, if fewer are left) and touches no other
    token."""
    if len(step) != len(canvas):
        raise ValueError(f"the plan is for {len(step)} pictures, the canvas holds {len(canvas)}: give a seed for each")
    if len(step.remask_rows):
        canvas = remask_least_likely(predict, canvas, step)
    early = _static_scores(canvas, step)
    where = canvas.mask
    if step.orders != {DecodingOrder.CONFIDENCE}:
        chosen = top_k_mask(early, canvas.mask, step.num_unmask)
        where = torch.where(_uses_order(step, DecodingOrder.CONFIDENCE), canvas.mask, chosen)
    tokens, confidence = predict(canvas, step, where)
    score = early
    if DecodingOrder.CONFIDENCE in step.orders:
        draw = counter_rng.uniform(step.seeds, counter_rng.RngStream.ORDER, step.index, canvas.mask.shape[1], 1)[..., 0]
        surest = confidence + step.choice_temperature[:, None] * counter_rng.gumbel(draw)
        score = torch.where(_uses_order(step, DecodingOrder.CONFIDENCE), surest, early)
    take = top_k_mask(score, canvas.mask, step.num_unmask)
    return TokenGrid(
        tokens=torch.where(take[..., None] if tokens.dim() == 3 else take, tokens, canvas.tokens),
        mask=canvas.mask & ~take,
        grid=canvas.grid,
        unmasked_at=torch.where(take, step.index[:, None], canvas.unmasked_at),
        confidence=torch.where(take, confidence.float(), canvas.confidence),
    )


def remask_least_likely(predict: Predict, canvas: TokenGrid, step: StepParams) -> TokenGrid:
    """The canvas with a mask in place of the least likely of what was decided since `step.remask_since` in each
    remasked row."""
    assert isinstance(predict, ScoringPredict)
    decided = canvas.unmasked_at[step.remask_rows] >= step.remask_since[:, None]
    falls = top_k_mask(-predict.likelihood(canvas, step.remask_rows), decided, step.num_remask)
    fallen = torch.zeros_like(canvas.mask).index_copy_(0, step.remask_rows, falls)
    return replace(
        canvas,
        mask=canvas.mask | fallen,
        unmasked_at=canvas.unmasked_at.masked_fill(fallen, -1),
        confidence=canvas.confidence.masked_fill(fallen, 0.0),
    )


def _uses_order(step: StepParams, order: DecodingOrder) -> Bool[Tensor, "B 1"]:
    return (step.order == list(DecodingOrder).index(order))[:, None]


def _static_scores(canvas: TokenGrid, step: StepParams) -> Float[Tensor, "B N"]:
    """Scores of the orders that need no sampler; 0 for rows that go by confidence."""
    scores = torch.zeros(canvas.mask.shape, device=canvas.mask.device)
    for order in step.orders - {DecodingOrder.CONFIDENCE}:
        ranked = step.priority if order is DecodingOrder.FIXED else priority(order, step.seeds, canvas.grid)
        assert ranked is not None, "a listed order without its list"
        scores = torch.where(_uses_order(step, order), ranked, scores)
    return scores
