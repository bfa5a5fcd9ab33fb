"""Pictures of several jobs that are drawn together: one call of the model makes the next step of each.

Every quantity of a step belongs to a row (maskgil/decoding.py), so jobs at different steps, with different prompts,
seeds, plans and guidance, share a batch as long as model, size and the kind of their unguided half agree.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from app.edit import Start
from app.request import Request
from maskgil.condition import Condition
from maskgil.decoding import Canvas, Step, advance
from maskgil.guidance import Guidance
from maskgil.pipeline import Settings, TextToImage

Encode = Callable[[str], Condition]


@dataclass(eq=False)
class Sketch:
    """The rows of one job: the canvas so far, the steps that are planned, and the text they follow."""

    canvas: Canvas
    plan: Sequence[Step]
    condition: Condition
    negative: Condition | None
    done: int = 0
    nfe: int = 0

    @staticmethod
    def begin(model: TextToImage, encode: Encode, request: Request, start: Start | None = None) -> "Sketch":
        """Nothing drawn yet, or a picture with holes. Raises ValueError for what the model refuses."""
        assert request.size is not None, "fit the request to its model first"
        canvas = model.blank(request.n, request.size) if start is None else start.canvas(request.n)
        plan = model.plan(canvas, request.seeds, settings(request))
        negative = encode(request.negative).repeat(request.n) if request.negative.strip() else None
        return Sketch(canvas, plan, encode(request.prompt).repeat(request.n), negative)

    @property
    def key(self) -> tuple[tuple[int, int], bool]:
        """What sketches must have in common to share a lane of one model."""
        return self.canvas.grid, self.negative is not None

    @property
    def over(self) -> bool:
        return self.done == len(self.plan)

    def go_on(self, canvas: Canvas) -> None:
        self.nfe += 1 + bool(len(self.plan[self.done].guided))
        self.canvas, self.done = canvas, self.done + 1


def settings(request: Request) -> Settings:
    """How a request is drawn, as the pipeline says it."""
    return Settings(
        steps=request.steps,
        guidance=Guidance(request.guidance, interval=request.interval),
        temperature=request.temperature,
        order=request.order,
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
        paint = self.model.painter(condition, Condition.cat(negatives) if negatives else None)
        canvas = advance(paint, canvas, step)
        first = 0
        for sketch in sketches:
            rows = len(sketch.canvas)
            sketch.go_on(canvas.rows(slice(first, first + rows)))
            first += rows
