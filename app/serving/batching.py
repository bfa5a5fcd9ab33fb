"""Pictures of several jobs that are drawn together: one call of the model makes the next step of each.

Every quantity of a step belongs to a row (maskgil/sampling/loop.py), so jobs at different steps, with different
prompts,
seeds, plans and guidance, share a batch as long as model, size and the kind of their unguided half agree.

What the AR model draws of a job goes by itself: its cache belongs to that one drawing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jaxtyping import Int
from torch import Tensor

from app.core.request import GenerationRequest
from maskgil.condition import Condition
from maskgil.inpainting import InpaintingInput
from maskgil.models.ar import ARSampler
from maskgil.pipeline import TextToImage
from maskgil.sampling import best_of_n, remasking
from maskgil.sampling.loop import StepParams, sample_step
from maskgil.sampling.token_grid import TokenGrid

Encode = Callable[[str], Condition]


@dataclass(frozen=True)
class PreviousResult:
    """What stood on the canvas, and the words that it followed, when other words came."""

    grid: TokenGrid
    prompt: str


@dataclass(eq=False)
class RunningJob:
    """The rows of one job: the canvas so far, the steps that are planned, and the text they follow.

    The first `written` steps are the AR model's, whose sampler is there until they are done. Each picture has as many
    rows as `candidates`, side by side, until one of them is `chosen`; `past`: all of them after each step, to show it
    from its beginning. A picture cost `begun` evaluations before its first step, and each candidate has cost `nfe`
    since.
    """

    grid: TokenGrid
    plan: Sequence[StepParams]
    condition: Condition
    negative: Condition | None
    ar_sampler: ARSampler | None = None
    ar_steps: int = 0
    done: int = 0
    base_nfe: int = 0
    nfe: int = 0
    candidates: int = 1
    history: list[TokenGrid] = field(default_factory=list)
    chosen: Int[Tensor, " P"] | None = None

    @staticmethod
    def begin(
        model: TextToImage,
        encode: Encode,
        request: GenerationRequest,
        start: InpaintingInput | None = None,
        earlier: PreviousResult | None = None,
    ) -> "RunningJob":
        """Nothing drawn yet, a picture with masked tokens, or what the new words leave of an earlier drawing.

        Raises ValueError for what the model refuses.
        """
        assert request.size is not None, "fit the request to its model first"
        each = request.params.candidates
        seeds = best_of_n.candidate_seeds(request.seeds, each)
        canvas = model.blank(request.rows, request.size) if start is None else start.token_grid(request.rows)
        condition = encode(request.text).repeat(request.rows)
        negative = encode(request.negative_text).repeat(request.rows) if request.negative_text.strip() else None
        params = request.params
        if earlier is not None:
            before, now = (encode(text).repeat(request.n) for text in (earlier.prompt, request.text))
            changed = remasking.remask_changed(model.generator, earlier.grid, before, now, request.seeds)
            changed = replace(changed, canvas=changed.canvas.repeat(each))  # whose masked tokens each candidate fills
            plan = remasking.remask_plan(model, changed, seeds, params)
            return RunningJob(changed.canvas, plan, condition, negative, base_nfe=changed.nfe, candidates=each)
        phases = model.stages(canvas, seeds, params, condition, negative)
        plan, first = [step for phase in phases for step in phase.plan], phases[0]
        if not first.autoregressive:
            return RunningJob(canvas, plan, condition, negative, candidates=each)
        ar_sampler: Any = first.predict
        return RunningJob(canvas, plan, condition, negative, ar_sampler, len(first.plan), candidates=each)

    @property
    def key(self) -> tuple:
        """What drawings must have in common to share a batch of one model: with the AR model at work, nothing will
        do."""
        if self.ar_sampler is not None:
            return (id(self),)
        return (self.grid.grid, self.negative is not None, self.plan[0].head if self.plan else None)

    @property
    def is_done(self) -> bool:
        return self.done == len(self.plan)

    @property
    def refinement_passes(self) -> int:
        """How many steps of its plan are refinement passes: the last ones."""
        return sum(len(step.remask_rows) > 0 for step in self.plan)

    @property
    def visible_grid(self) -> TokenGrid:
        """A row for each picture."""
        return (
            best_of_n.first_candidates(self.grid, self.candidates)
            if self.chosen is None
            else self.grid.rows(self.chosen)
        )

    @property
    def nfe_per_image(self) -> int:
        """Evaluations that a picture has cost, with all its candidates."""
        since = (
            self.candidates * self.nfe if self.chosen is None else best_of_n.candidates_nfe(self.nfe, self.candidates)
        )
        return self.base_nfe + since

    def choose(self, model: TextToImage) -> list[TokenGrid]:
        """Choose of each picture's candidates, once all is drawn; returns what the chosen ones were after each step."""
        self.chosen = best_of_n.best_candidates(model.sampler(self.condition), self.grid, self.candidates)
        return [canvas.rows(self.chosen) for canvas in self.history]

    def record_step(self, canvas: TokenGrid) -> None:
        self.nfe += self.plan[self.done].nfe_per_row
        self.grid, self.done = canvas, self.done + 1
        if self.candidates > 1:
            self.history.append(canvas)
        if self.done == self.ar_steps:
            self.ar_sampler = None  # and with it the cache of all that it wrote


class Batch:
    """Sketches that step together. They join and leave between steps."""

    def __init__(self, model: TextToImage):
        self.model = model
        self.drawings: list[RunningJob] = []

    @property
    def rows(self) -> int:
        return sum(len(drawing.grid) for drawing in self.drawings)

    def step(self) -> Iterator[tuple[RunningJob, Exception]]:
        """Make the next step of every drawing; yields those that could not make it, with the reason.

        When the shared call fails, each is tried alone, so that only the one at fault falls out.
        """
        if not self.drawings:
            return
        try:
            self._together(self.drawings)
        except Exception as shared:
            if len(self.drawings) == 1:
                yield self.drawings[0], shared
                return
            for drawing in self.drawings:
                try:
                    self._together([drawing])
                except Exception as error:
                    yield drawing, error

    def _together(self, drawings: Sequence[RunningJob]) -> None:
        canvas = TokenGrid.cat([drawing.grid for drawing in drawings])
        step = StepParams.cat([drawing.plan[drawing.done] for drawing in drawings])
        condition = Condition.cat([drawing.condition for drawing in drawings])
        negatives = [drawing.negative for drawing in drawings if drawing.negative is not None]
        predict = drawings[0].ar_sampler or self.model.sampler(
            condition, Condition.cat(negatives) if negatives else None
        )
        canvas = sample_step(predict, canvas, step)
        first = 0
        for drawing in drawings:
            rows = len(drawing.grid)
            drawing.record_step(canvas.rows(slice(first, first + rows)))
            first += rows
