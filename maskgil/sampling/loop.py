"""The one loop: a plan fills the holes of a canvas.

A plan is a list of steps, made on the host. `fill` asks a painter for tokens at each step, keeps as many as the step
says, and yields the canvas, so that a caller can show it, count it or stop. Class-driven and text-driven pictures,
continuous tokens, inpainting and hybrid mode are all this loop:

    fill(paint, Canvas.blank(1, (16, 16), mask_id), parallel(256, steps=8))
    *_, prefix = fill(paint_twin, blank, raster(64)); fill(paint, prefix, parallel(192, steps=8))

A revision is a step that first makes holes of the tokens that are least likely given the others. What was decided early
was decided with little in view, and nothing else looks at it again: one stray piece makes its neighbours fit it. The
model itself is the critic: it scores half of the tokens from the other half, and the other way round, as a masked
language model scores a sentence (Salazar et al. 2020, 1910.14659); 2209.04439 trains a critic for the same end.

Every quantity of a step belongs to a row, so that rows of different requests, at different steps, can share one call of
the model (`Step.cat`). A step never asks the device anything.

B rows, N tokens, C channels of a continuous token, G guided rows, D doubted rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskgil.sampling import counter_rng
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.orders import DecodingOrder, priority, top_k_mask
from maskgil.sampling.schedules import MaskSchedule, arccos


@dataclass(frozen=True)
class TokenGrid:
    """Tokens on a grid of (rows, columns), some of them holes. What lies under a hole means nothing.

    tokens      codes, or vectors for continuous models
    hole        True where the token is still to be decided
    revealed    the step that decided a token; -1 for given tokens and holes
    confidence  log-probability of a token when it was decided (what the painter says); 0 for given tokens and holes
    """

    tokens: Int[Tensor, "B N"] | Float[Tensor, "B N C"]
    mask: Bool[Tensor, "B N"]
    grid: tuple[int, int]
    unmasked_at: Int[Tensor, "B N"] | None = None
    confidence: Float[Tensor, "B N"] | None = None

    def __post_init__(self) -> None:
        rows, columns = self.grid
        if self.mask.shape != self.tokens.shape[:2] or rows * columns != self.mask.shape[1]:
            raise ValueError(
                f"a canvas of {rows} rows and {columns} columns needs {rows * columns} tokens a picture; "
                f"tokens are {tuple(self.tokens.shape)}, holes {tuple(self.mask.shape)}"
            )
        if self.unmasked_at is None:
            object.__setattr__(self, "unmasked_at", torch.full_like(self.mask, -1, dtype=torch.long))
        if self.confidence is None:
            object.__setattr__(self, "confidence", torch.zeros_like(self.mask, dtype=torch.float32))

    @staticmethod
    def blank(
        batch: int,
        grid: tuple[int, int],
        mask_id: int = 0,
        device: torch.device | str = "cpu",
        channels: int | None = None,
    ) -> "TokenGrid":
        """Nothing but holes: `mask_id` everywhere, or zero vectors when `channels` is given."""
        shape = (batch, grid[0] * grid[1])
        hole = torch.ones(shape, dtype=torch.bool, device=device)
        if channels is None:
            return TokenGrid(torch.full(shape, mask_id, device=device), hole, grid)
        return TokenGrid(torch.zeros(*shape, channels, device=device), hole, grid)

    def __len__(self) -> int:
        return self.mask.shape[0]

    def num_masked(self) -> list[int]:
        """Holes of each row. Asks the device: for making plans, not inside a step."""
        return self.mask.sum(1).tolist()

    def rows(self, index: Int[Tensor, " M"] | slice) -> "TokenGrid":
        return TokenGrid(
            self.tokens[index], self.mask[index], self.grid, self.unmasked_at[index], self.confidence[index]
        )

    def repeat(self, n: int) -> "TokenGrid":
        """Each row n times, copies side by side: a b -> a a b b."""
        rows = torch.arange(len(self), device=self.mask.device)
        return self.rows(rows.repeat_interleave(n)) if n > 1 else self

    @staticmethod
    def cat(canvases: Sequence["TokenGrid"]) -> "TokenGrid":
        """All rows one after the other; the grids must agree."""
        assert len({canvas.grid for canvas in canvases}) == 1, "canvases of different grids"
        parts = ("tokens", "mask", "unmasked_at", "confidence")
        joined = {part: torch.cat([getattr(canvas, part) for canvas in canvases]) for part in parts}
        return TokenGrid(grid=canvases[0].grid, **joined)


SCORING_NFE = 2  # evaluations that it takes to score every token


@dataclass(frozen=True)
class StepParams:
    """What one step does to each of its rows.

    reveal       tokens to decide
    order        index into tuple(Order);  orders: those that occur, known to the host
    temperature  divides the logits (1 = the model's own, 0 = always the likeliest code; released `sm_temp` multiplies)
    choice       size of the Gumbel noise on the confidences
    scale        guidance scale;  guided: the rows that have a null half. Their number is known to the host.
    seeds, index what the noise depends on: the row's seed, the step's number in the row's whole plan
    doubted      the rows in which tokens are decided anew, known to the host;  doubt: how many of those that were
                 decided in step `since` or later
    top_k        only the k likeliest codes (0 = all);  top_p: only the likeliest that make up p (1 = all); None = off
    priority     for Order.LISTED: the highest first
    remaining    masked steps that come after this one, for models that read it; None: 0
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

    def __len__(self) -> int:
        return self.num_unmask.shape[0]

    @property
    def nfe(self) -> Int[Tensor, " B"]:
        """Evaluations of the model that each row costs: 1, 1 more where guided, and those of doubt."""
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
        joined = {
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
# are looked at: all holes when a row goes by confidence, else those that the step decides.
Predict = Callable[[TokenGrid, StepParams, Bool[Tensor, "B N"]], tuple[Tensor, Float[Tensor, "B N"]]]


def sample(paint: Predict, canvas: TokenGrid, plan: Sequence[StepParams]) -> Iterator[TokenGrid]:
    """The canvas after each step of the plan."""
    for step in plan:
        canvas = sample_step(paint, canvas, step)
        yield canvas


@torch.no_grad()
def sample_step(paint: Predict, canvas: TokenGrid, step: StepParams) -> TokenGrid:
    """One step: decides `step.num_unmask` holes of each row (all, if fewer are left) and touches no other token."""
    if len(step) != len(canvas):
        raise ValueError(f"the plan is for {len(step)} pictures, the canvas holds {len(canvas)}: give a seed for each")
    if len(step.remask_rows):
        canvas = remask_least_likely(paint, canvas, step)
    early = _static_scores(canvas, step)
    where = canvas.mask
    if step.orders != {DecodingOrder.CONFIDENCE}:
        chosen = top_k_mask(early, canvas.mask, step.num_unmask)
        where = torch.where(_uses_order(step, DecodingOrder.CONFIDENCE), canvas.mask, chosen)
    tokens, confidence = paint(canvas, step, where)
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


def remask_least_likely(paint: Predict, canvas: TokenGrid, step: StepParams) -> TokenGrid:
    """The canvas with holes in place of the least likely of what was decided since `step.since` in each doubted row."""
    decided = canvas.unmasked_at[step.remask_rows] >= step.remask_since[:, None]
    falls = top_k_mask(-paint.likelihood(canvas, step.remask_rows), decided, step.num_remask)
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
    """Scores of the orders that need no painter; 0 for rows that go by confidence."""
    scores = torch.zeros(canvas.mask.shape, device=canvas.mask.device)
    for order in step.orders - {DecodingOrder.CONFIDENCE}:
        ranked = step.priority if order is DecodingOrder.FIXED else priority(order, step.seeds, canvas.grid)
        assert ranked is not None, "a listed order without its list"
        scores = torch.where(_uses_order(step, order), ranked, scores)
    return scores


def masked_plan(
    num_masked: int | Sequence[int],
    steps: int = 8,
    curve: MaskSchedule = arccos,
    order: str = DecodingOrder.CONFIDENCE,
    temperature: float = 1.0,
    choice_temperature: float = 4.5,
    guidance: Guidance | None = None,
    seeds: Sequence[int] | Int[Tensor, " B"] = (0,),
    top_k: int | None = None,
    top_p: float | None = None,
    refinement_passes: int = 0,
    remask_fraction: float = 0.25,
    remask_since: int | None = None,
    first_step: int = 0,
    total: int | None = None,
    device: torch.device | str = "cpu",
) -> list[StepParams]:
    """A plan that fills `holes` (one number for all rows, or one a row) in `steps` steps; one row for each seed.

    choice is the Gumbel noise on confidences at the first step; it falls linearly to 0 (released: 4.5, `r_temp`).
    After them come `revisions` further steps. Each decides as many tokens anew as a share of `doubt` of the holes: the
    least likely of those that were decided in step `since` (left out: first) or later.
    first numbers the first step: in a second plan over the same canvas, the steps already done.
    of: the holes are what is left of pictures of so many tokens, which `steps` steps would fill. The plan is the end of
    that one, from where the row with most holes stands in it; others join when they would, those without holes never.
    Raises ValueError for impossible numbers, such as more steps than holes.
    """
    seeds = torch.as_tensor(seeds, dtype=torch.long)
    rows = len(seeds)
    each = [num_masked] * rows if isinstance(num_masked, int) else list(num_masked)
    if len(each) != rows:
        raise ValueError(f"{len(each)} numbers of holes for {rows} seeds: give one of each for every picture")
    _check_numbers(temperature, choice_temperature, top_k, top_p)
    if (
        isinstance(refinement_passes, bool)
        or not isinstance(refinement_passes, int)
        or not 0 <= refinement_passes <= 100
    ):
        raise ValueError(f"{refinement_passes!r} revisions; give a whole number from 0, 1 is usual")
    if not 0 < remask_fraction <= 1:
        raise ValueError(f"doubt is {remask_fraction}; give a share in (0, 1]")
    whole = None if total is None else curve.counts(steps, total)
    counts = [curve.counts(steps, n) if whole is None else _last(whole, n) for n in each]
    begin = next((i for i in range(steps) if any(row[i] for row in counts)), steps)
    guidance = guidance or Guidance(scale=1.0)
    scales = [guidance.scales(_decided(whole or row)) for row in counts]
    common = {"order": DecodingOrder(order), "temperature": temperature, "seeds": seeds, "top_k": top_k, "top_p": top_p}
    plan = []
    for i in range(begin, steps):
        reveal, scale = [row[i] for row in counts], [row[i] for row in scales]
        falling = choice_temperature * (1 - i / max(1, steps - 1))
        step = _step(reveal, choice=falling, scale=scale, index=first_step + i - begin, device=device, **common)
        plan.append(replace(step, remaining=torch.full_like(step.index, steps - 1 - i)))
    doubts, late = [round(remask_fraction * n) for n in each], [guidance.last()] * rows
    begun, all_rows = first_step if remask_since is None else remask_since, torch.arange(rows, device=device)
    for i in range(steps, steps + refinement_passes * any(doubts)):
        step = _step(doubts, choice=0.0, scale=late, index=first_step + i - begin, device=device, **common)
        plan.append(
            replace(
                step, remask_rows=all_rows, num_remask=step.num_unmask, remask_since=torch.full_like(all_rows, begun)
            )
        )
    return plan


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
    """A plan that decides the next `tokens` holes in reading order, one at a step: for an autoregressive painter."""
    seeds = torch.as_tensor(seeds, dtype=torch.long)
    _check_numbers(temperature, 0.0, top_k, top_p)
    scales = (guidance or Guidance(scale=1.0)).scales(_decided([1] * tokens))
    return [
        _step(
            [1] * len(seeds),
            order=DecodingOrder.RASTER,
            temperature=temperature,
            choice=0.0,
            scale=[scale] * len(seeds),
            seeds=seeds,
            index=first + i,
            top_k=top_k,
            top_p=top_p,
            device=device,
        )
        for i, scale in enumerate(scales)
    ]


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


def _last(counts: Sequence[int], holes: int) -> list[int]:
    """What is left of each step when only so many holes are."""
    after = [sum(counts[i + 1 :]) for i in range(len(counts))]
    return [min(count, max(0, holes - later)) for count, later in zip(counts, after, strict=True)]


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


def _step(
    reveal: list[int],
    *,
    order: DecodingOrder,
    temperature: float,
    choice: float,
    scale: list[float],
    seeds: Int[Tensor, " B"],
    index: int,
    top_k: int | None,
    top_p: float | None,
    device: torch.device | str,
) -> StepParams:
    def each(value: float) -> Tensor:
        return torch.full((len(reveal),), value, device=device)

    nobody = torch.zeros(0, dtype=torch.long, device=device)
    return StepParams(
        num_unmask=torch.tensor(reveal, device=device),
        order=each(list(DecodingOrder).index(order)),
        orders=frozenset({order}),
        temperature=each(float(temperature)),
        choice_temperature=each(float(choice)),
        scale=torch.tensor(scale, dtype=torch.float32, device=device),
        guided=torch.tensor([row for row, s in enumerate(scale) if s != 1], dtype=torch.long, device=device),
        seeds=seeds.to(device),
        index=each(index),
        remask_rows=nobody,
        num_remask=nobody,
        remask_since=nobody,
        top_k=None if top_k is None else each(top_k),
        top_p=None if top_p is None else each(float(top_p)),
    )
