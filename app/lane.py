"""Pictures of several jobs that are drawn together: one call of the model makes the next step of each.

Every quantity of a step belongs to a row (maskgil/decoding.py), so jobs at different steps, with different prompts,
seeds, plans and guidance, share a batch as long as model, size and the kind of their unguided half agree.

What the autoregressive twin draws of a job goes by itself: its cache belongs to that one drawing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from jaxtyping import Int
from torch import Tensor

from app.edit import Start
from app.request import Request
from maskgil import repaint, selection
from maskgil.autoregressive import RasterPainter
from maskgil.condition import Condition
from maskgil.decoding import Canvas, Step, advance
from maskgil.guidance import Guidance
from maskgil.hybrid import prefix_of
from maskgil.pipeline import SAMPLERS, Settings, TextToImage

Encode = Callable[[str], Condition]


@dataclass(frozen=True)
class Earlier:
    """What stood on the canvas, and the words that it followed, when other words came."""

    canvas: Canvas
    prompt: str


@dataclass(eq=False)
class Sketch:
    """The rows of one job: the canvas so far, the steps that are planned, and the text they follow.

    The first `written` steps are the twin's, whose painter is there until they are done. Each picture has as many rows
    as `candidates`, side by side, until one of them is `chosen`; `past`: all of them after each step, to show it from
    its beginning. A picture cost `begun` evaluations before its first step, and each candidate has cost `nfe` since.
    """

    canvas: Canvas
    plan: Sequence[Step]
    condition: Condition
    negative: Condition | None
    twin: RasterPainter | None = None
    written: int = 0
    done: int = 0
    begun: int = 0
    nfe: int = 0
    candidates: int = 1
    past: list[Canvas] = field(default_factory=list)
    chosen: Int[Tensor, " P"] | None = None

    @staticmethod
    def begin(
        model: TextToImage,
        encode: Encode,
        request: Request,
        start: Start | None = None,
        earlier: Earlier | None = None,
    ) -> "Sketch":
        """Nothing drawn yet, a picture with holes, or what the new words leave of an earlier drawing.

        Raises ValueError for what the model refuses.
        """
        assert request.size is not None, "fit the request to its model first"
        each = model.checked_candidates(request.candidates)
        seeds = selection.seeds_of(request.seeds, each)
        canvas = model.blank(request.rows, request.size) if start is None else start.canvas(request.rows)
        condition = encode(request.prompt).repeat(request.rows)
        negative = encode(request.negative).repeat(request.rows) if request.negative.strip() else None
        wish = settings(request, canvas.hole.shape[1])
        if earlier is not None:
            before, now = (encode(text).repeat(request.n) for text in (earlier.prompt, request.prompt))
            changed = repaint.reconsider(model.generator, earlier.canvas, before, now, request.seeds)
            changed = replace(changed, canvas=changed.canvas.repeat(each))  # whose holes each candidate fills
            plan = repaint.plan(model, changed, seeds, wish)
            return Sketch(changed.canvas, plan, condition, negative, begun=changed.nfe, candidates=each)
        phases = model.phases(canvas, seeds, wish, condition, negative)
        plan, first = [step for phase in phases for step in phase.plan], phases[0]
        if not isinstance(first.paint, RasterPainter):
            return Sketch(canvas, plan, condition, negative, candidates=each)
        return Sketch(canvas, plan, condition, negative, first.paint, len(first.plan), candidates=each)

    @property
    def key(self) -> tuple:
        """What sketches must have in common to share a lane of one model: with the twin at work, nothing will do."""
        return (self.canvas.grid, self.negative is not None) if self.twin is None else (id(self),)

    @property
    def over(self) -> bool:
        return self.done == len(self.plan)

    @property
    def revisions(self) -> int:
        """How many steps of its plan are revisions: the last ones."""
        return sum(len(step.doubted) > 0 for step in self.plan)

    @property
    def shown(self) -> Canvas:
        """A row for each picture."""
        return selection.shown(self.canvas, self.candidates) if self.chosen is None else self.canvas.rows(self.chosen)

    @property
    def looks(self) -> int:
        """Evaluations that a picture has cost, with all its candidates."""
        since = self.candidates * self.nfe if self.chosen is None else selection.looks(self.nfe, self.candidates)
        return self.begun + since

    def choose(self, model: TextToImage) -> list[Canvas]:
        """Choose of each picture's candidates, once all is drawn; returns what the chosen ones were after each step."""
        self.chosen = selection.best(model.painter(self.condition), self.canvas, self.candidates)
        return [canvas.rows(self.chosen) for canvas in self.past]

    def go_on(self, canvas: Canvas) -> None:
        self.nfe += self.plan[self.done].each
        self.canvas, self.done = canvas, self.done + 1
        if self.candidates > 1:
            self.past.append(canvas)
        if self.done == self.written:
            self.twin = None  # and with it the cache of all that it wrote


def settings(request: Request, tokens: int) -> Settings:
    """How a request for a picture of so many tokens is drawn, as the pipeline says it.

    The twin is guided as strongly, and dares as much, as MaskGIL; the interval is for MaskGIL's steps alone.
    """
    prefix = prefix_of(request.mode, request.ar_tokens, tokens)
    if prefix is not None:
        prefix = replace(prefix, guidance=Guidance(request.guidance), temperature=request.temperature)
    sampler = SAMPLERS[request.sampler]
    return replace(
        sampler,
        steps=request.steps,
        guidance=replace(sampler.guidance, scale=request.guidance, interval=request.interval),
        temperature=request.temperature,
        order=request.order,
        revisions=request.revisions,
        candidates=request.candidates,
        prefix=prefix,
    )


class Lane:
    """Sketches that step together. They join and leave between steps."""

    def __init__(self, model: TextToImage):
        self.model = model
        self.sketches: list[Sketch] = []

    @property
    def rows(self) -> int:
        return sum(len(sketch.canvas) for sketch in self.sketches)

    def step(self) -> Iterator[tuple[Sketch, Exception]]:
        """Make the next step of every sketch; yields those that could not make it, with the reason.

        When the shared call fails, each is tried alone, so that only the one at fault falls out.
        """
        if not self.sketches:
            return
        try:
            self._together(self.sketches)
        except Exception as shared:
            if len(self.sketches) == 1:
                yield self.sketches[0], shared
                return
            for sketch in self.sketches:
                try:
                    self._together([sketch])
                except Exception as error:
                    yield sketch, error

    def _together(self, sketches: Sequence[Sketch]) -> None:
        canvas = Canvas.cat([sketch.canvas for sketch in sketches])
        step = Step.cat([sketch.plan[sketch.done] for sketch in sketches])
        condition = Condition.cat([sketch.condition for sketch in sketches])
        negatives = [sketch.negative for sketch in sketches if sketch.negative is not None]
        paint = sketches[0].twin or self.model.painter(condition, Condition.cat(negatives) if negatives else None)
        canvas = advance(paint, canvas, step)
        first = 0
        for sketch in sketches:
            rows = len(sketch.canvas)
            sketch.go_on(canvas.rows(slice(first, first + rows)))
            first += rows
