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

from maskgil import noise
from maskgil.guidance import Guidance
from maskgil.orders import Order, highest, priority
from maskgil.schedules import Curve, arccos


@dataclass(frozen=True)
class Canvas:
    """Tokens on a grid of (rows, columns), some of them holes. What lies under a hole means nothing.

    tokens      codes, or vectors for continuous models
    hole        True where the token is still to be decided
    revealed    the step that decided a token; -1 for given tokens and holes
    confidence  log-probability of a token when it was decided (what the painter says); 0 for given tokens and holes
    """

    tokens: Int[Tensor, "B N"] | Float[Tensor, "B N C"]
    hole: Bool[Tensor, "B N"]
    grid: tuple[int, int]
    revealed: Int[Tensor, "B N"] | None = None
    confidence: Float[Tensor, "B N"] | None = None

    def __post_init__(self) -> None:
        rows, columns = self.grid
        if self.hole.shape != self.tokens.shape[:2] or rows * columns != self.hole.shape[1]:
            raise ValueError(
                f"a canvas of {rows} rows and {columns} columns needs {rows * columns} tokens a picture; "
                f"tokens are {tuple(self.tokens.shape)}, holes {tuple(self.hole.shape)}"
            )
        if self.revealed is None:
            object.__setattr__(self, "revealed", torch.full_like(self.hole, -1, dtype=torch.long))
        if self.confidence is None:
            object.__setattr__(self, "confidence", torch.zeros_like(self.hole, dtype=torch.float32))

    @staticmethod
    def blank(
        batch: int,
        grid: tuple[int, int],
        mask_id: int = 0,
        device: torch.device | str = "cpu",
        channels: int | None = None,
    ) -> "Canvas":
        """Nothing but holes: `mask_id` everywhere, or zero vectors when `channels` is given."""
        shape = (batch, grid[0] * grid[1])
        hole = torch.ones(shape, dtype=torch.bool, device=device)
        if channels is None:
            return Canvas(torch.full(shape, mask_id, device=device), hole, grid)
        return Canvas(torch.zeros(*shape, channels, device=device), hole, grid)

    def __len__(self) -> int:
        return self.hole.shape[0]

    def holes(self) -> list[int]:
        """Holes of each row. Asks the device: for making plans, not inside a step."""
        return self.hole.sum(1).tolist()

    def rows(self, index: Int[Tensor, " M"] | slice) -> "Canvas":
        return Canvas(self.tokens[index], self.hole[index], self.grid, self.revealed[index], self.confidence[index])

    def repeat(self, n: int) -> "Canvas":
        """Each row n times, copies side by side: a b -> a a b b."""
        rows = torch.arange(len(self), device=self.hole.device)
        return self.rows(rows.repeat_interleave(n)) if n > 1 else self

    @staticmethod
    def cat(canvases: Sequence["Canvas"]) -> "Canvas":
        """All rows one after the other; the grids must agree."""
        assert len({canvas.grid for canvas in canvases}) == 1, "canvases of different grids"
        parts = ("tokens", "hole", "revealed", "confidence")
        joined = {part: torch.cat([getattr(canvas, part) for canvas in canvases]) for part in parts}
        return Canvas(grid=canvases[0].grid, **joined)


HALVES = 2  # evaluations that it takes to score every token


@dataclass(frozen=True)
class Step:
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
    """

    reveal: Int[Tensor, " B"]
    order: Int[Tensor, " B"]
    orders: frozenset[Order]
    temperature: Float[Tensor, " B"]
    choice: Float[Tensor, " B"]
    scale: Float[Tensor, " B"]
    guided: Int[Tensor, " G"]
    seeds: Int[Tensor, " B"]
    index: Int[Tensor, " B"]
    doubted: Int[Tensor, " D"]
    doubt: Int[Tensor, " D"]
    since: Int[Tensor, " D"]
    top_k: Int[Tensor, " B"] | None = None
    top_p: Float[Tensor, " B"] | None = None
    priority: Float[Tensor, "B N"] | None = None

    def __len__(self) -> int:
        return self.reveal.shape[0]

    @property
    def evaluations(self) -> Int[Tensor, " B"]:
        """Evaluations of the model that each row costs: 1, 1 more where guided, and those of doubt."""
        once = torch.ones_like(self.reveal).index_add_(0, self.guided, torch.ones_like(self.guided))
        return once.index_add_(0, self.doubted, torch.full_like(self.doubted, HALVES))

    @property
    def each(self) -> int:
        """The same of a plan whose rows all cost as much, without asking the device."""
        assert {len(self.guided), len(self.doubted)} <= {0, len(self)}, "pictures of one plan cost the same"
        return 1 + bool(len(self.guided)) + HALVES * bool(len(self.doubted))

    @staticmethod
    def cat(steps: Sequence["Step"]) -> "Step":
        """One step for the rows of many, each as if it were alone."""
        first = [sum(len(step) for step in steps[:i]) for i in range(len(steps))]
        joined = {
            "orders": frozenset[Order]().union(*(step.orders for step in steps)),
        }
        for name in ("guided", "doubted"):
            joined[name] = torch.cat([getattr(step, name) + start for step, start in zip(steps, first, strict=True)])
        for name, off in (("top_k", 0), ("top_p", 1.0), ("priority", 0.0)):
            joined[name] = _cat_optional([(len(step), getattr(step, name)) for step in steps], off)
        for field in fields(Step):
            if field.name not in joined:
                joined[field.name] = torch.cat([getattr(step, field.name) for step in steps])
        return Step(**joined)


def _cat_optional(parts: Sequence[tuple[int, Tensor | None]], off: float) -> Tensor | None:
    given = next((tensor for _, tensor in parts if tensor is not None), None)
    if given is None:
        return None
    return torch.cat([given.new_full((rows, *given.shape[1:]), off) if t is None else t for rows, t in parts])


# (canvas, step, where) -> tokens for every position, and how sure of each (log-probability). Only positions in `where`
# are looked at: all holes when a row goes by confidence, else those that the step decides.
Paint = Callable[[Canvas, Step, Bool[Tensor, "B N"]], tuple[Tensor, Float[Tensor, "B N"]]]


def fill(paint: Paint, canvas: Canvas, plan: Sequence[Step]) -> Iterator[Canvas]:
    """The canvas after each step of the plan."""
    for step in plan:
        canvas = advance(paint, canvas, step)
        yield canvas


@torch.no_grad()
def advance(paint: Paint, canvas: Canvas, step: Step) -> Canvas:
    """One step: decides `step.reveal` holes of each row (all, if fewer are left) and touches no other token."""
    if len(step) != len(canvas):
        raise ValueError(f"the plan is for {len(step)} pictures, the canvas holds {len(canvas)}: give a seed for each")
    if len(step.doubted):
        canvas = _reopened(paint, canvas, step)
    early = _early(canvas, step)
    where = canvas.hole
    if step.orders != {Order.CONFIDENCE}:
        chosen = highest(early, canvas.hole, step.reveal)
        where = torch.where(_goes_by(step, Order.CONFIDENCE), canvas.hole, chosen)
    tokens, confidence = paint(canvas, step, where)
    score = early
    if Order.CONFIDENCE in step.orders:
        draw = noise.uniform(step.seeds, noise.Stream.ORDER, step.index, canvas.hole.shape[1], 1)[..., 0]
        surest = confidence + step.choice[:, None] * noise.gumbel(draw)
        score = torch.where(_goes_by(step, Order.CONFIDENCE), surest, early)
    take = highest(score, canvas.hole, step.reveal)
    return Canvas(
        tokens=torch.where(take[..., None] if tokens.dim() == 3 else take, tokens, canvas.tokens),
        hole=canvas.hole & ~take,
        grid=canvas.grid,
        revealed=torch.where(take, step.index[:, None], canvas.revealed),
        confidence=torch.where(take, confidence.float(), canvas.confidence),
    )


def _reopened(paint: Paint, canvas: Canvas, step: Step) -> Canvas:
    """The canvas with holes in place of the least likely of what was decided since `step.since` in each doubted row."""
    decided = canvas.revealed[step.doubted] >= step.since[:, None]
    falls = highest(-paint.likelihood(canvas, step.doubted), decided, step.doubt)
    fallen = torch.zeros_like(canvas.hole).index_copy_(0, step.doubted, falls)
    return replace(
        canvas,
        hole=canvas.hole | fallen,
        revealed=canvas.revealed.masked_fill(fallen, -1),
        confidence=canvas.confidence.masked_fill(fallen, 0.0),
    )


def _goes_by(step: Step, order: Order) -> Bool[Tensor, "B 1"]:
    return (step.order == list(Order).index(order))[:, None]


def _early(canvas: Canvas, step: Step) -> Float[Tensor, "B N"]:
    """Scores of the orders that need no painter; 0 for rows that go by confidence."""
    scores = torch.zeros(canvas.hole.shape, device=canvas.hole.device)
    for order in step.orders - {Order.CONFIDENCE}:
        ranked = step.priority if order is Order.LISTED else priority(order, step.seeds, canvas.grid)
        assert ranked is not None, "a listed order without its list"
        scores = torch.where(_goes_by(step, order), ranked, scores)
    return scores


def parallel(
    holes: int | Sequence[int],
    steps: int = 8,
    curve: Curve = arccos,
    order: str = Order.CONFIDENCE,
    temperature: float = 1.0,
    choice: float = 4.5,
    guidance: Guidance | None = None,
    seeds: Sequence[int] | Int[Tensor, " B"] = (0,),
    top_k: int | None = None,
    top_p: float | None = None,
    revisions: int = 0,
    doubt: float = 0.25,
    since: int | None = None,
    first: int = 0,
    of: int | None = None,
    device: torch.device | str = "cpu",
) -> list[Step]:
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
    each = [holes] * rows if isinstance(holes, int) else list(holes)
    if len(each) != rows:
        raise ValueError(f"{len(each)} numbers of holes for {rows} seeds: give one of each for every picture")
    _check_numbers(temperature, choice, top_k, top_p)
    if isinstance(revisions, bool) or not isinstance(revisions, int) or not 0 <= revisions <= 100:
        raise ValueError(f"{revisions!r} revisions; give a whole number from 0, 1 is usual")
    if not 0 < doubt <= 1:
        raise ValueError(f"doubt is {doubt}; give a share in (0, 1]")
    whole = None if of is None else curve.counts(steps, of)
    counts = [curve.counts(steps, n) if whole is None else _last(whole, n) for n in each]
    begin = next((i for i in range(steps) if any(row[i] for row in counts)), steps)
    guidance = guidance or Guidance(scale=1.0)
    scales = [guidance.scales(_decided(whole or row)) for row in counts]
    common = {"order": Order(order), "temperature": temperature, "seeds": seeds, "top_k": top_k, "top_p": top_p}
    plan = []
    for i in range(begin, steps):
        reveal, scale = [row[i] for row in counts], [row[i] for row in scales]
        falling = choice * (1 - i / max(1, steps - 1))
        plan.append(_step(reveal, choice=falling, scale=scale, index=first + i - begin, device=device, **common))
    doubts, late = [round(doubt * n) for n in each], [guidance.last()] * rows
    begun, all_rows = first if since is None else since, torch.arange(rows, device=device)
    for i in range(steps, steps + revisions * any(doubts)):
        step = _step(doubts, choice=0.0, scale=late, index=first + i - begin, device=device, **common)
        plan.append(replace(step, doubted=all_rows, doubt=step.reveal, since=torch.full_like(all_rows, begun)))
    return plan


def raster(
    tokens: int,
    temperature: float = 1.0,
    guidance: Guidance | None = None,
    seeds: Sequence[int] | Int[Tensor, " B"] = (0,),
    top_k: int | None = None,
    top_p: float | None = None,
    first: int = 0,
    device: torch.device | str = "cpu",
) -> list[Step]:
    """A plan that decides the next `tokens` holes in reading order, one at a step: for an autoregressive painter."""
    seeds = torch.as_tensor(seeds, dtype=torch.long)
    _check_numbers(temperature, 0.0, top_k, top_p)
    scales = (guidance or Guidance(scale=1.0)).scales(_decided([1] * tokens))
    return [
        _step(
            [1] * len(seeds),
            order=Order.RASTER,
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


def listed(masks: Sequence[Bool[Tensor, "B N"]], plan: Sequence[Step]) -> list[Step]:
    """A plan with its positions given outright: step i decides exactly the positions in masks[i]."""
    assert len(masks) == len(plan), f"{len(masks)} masks for {len(plan)} steps"
    code = list(Order).index(Order.LISTED)
    return [
        replace(
            step,
            reveal=mask.sum(1),
            order=torch.full_like(step.order, code),
            orders=frozenset({Order.LISTED}),
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
    order: Order,
    temperature: float,
    choice: float,
    scale: list[float],
    seeds: Int[Tensor, " B"],
    index: int,
    top_k: int | None,
    top_p: float | None,
    device: torch.device | str,
) -> Step:
    def each(value: float) -> Tensor:
        return torch.full((len(reveal),), value, device=device)

    nobody = torch.zeros(0, dtype=torch.long, device=device)
    return Step(
        reveal=torch.tensor(reveal, device=device),
        order=each(list(Order).index(order)),
        orders=frozenset({order}),
        temperature=each(float(temperature)),
        choice=each(float(choice)),
        scale=torch.tensor(scale, dtype=torch.float32, device=device),
        guided=torch.tensor([row for row, s in enumerate(scale) if s != 1], dtype=torch.long, device=device),
        seeds=seeds.to(device),
        index=each(index),
        doubted=nobody,
        doubt=nobody,
        since=nobody,
        top_k=None if top_k is None else each(top_k),
        top_p=None if top_p is None else each(float(top_p)),
    )
