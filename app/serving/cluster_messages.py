"""What travels between the server and its replicas: a job on its way there, its steps on their way back.

Tensors travel on the CPU and without the batch that they are rows of.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image

from app.core.request import GenerationRequest
from app.serving.batching import PreviousResult
from app.serving.jobs import Status, StepSnapshot
from maskgil.inpainting import InpaintingInput
from maskgil.sampling.token_grid import TokenGrid


@dataclass(frozen=True)
class DrawTask:
    """A job that is drawn elsewhere. It holds all that its images depend on, so any replica draws the same ones.

    request    as its model draws it
    precision  "bfloat16" and so on, where the operator has chosen one
    start      the image that is edited, or None
    previous   the grid that the job continues, or None
    encoder_memory  how the text encoder is held, where the operator has chosen that
    place      what a replica finds the model by: its folder, or the name of a bundled or released one
    """

    request: GenerationRequest
    precision: str | None = None
    start: InpaintingInput | None = None
    previous: PreviousResult | None = None
    encoder_memory: str | None = None
    place: str = ""

    def to(self, device: torch.device | str) -> "DrawTask":
        """The same task with its tensors on this device."""
        start, previous = self.start, self.previous
        if start is not None:
            start = replace(start, tokens=start.tokens.to(device), mask=start.mask.to(device))
        if previous is not None:
            previous = replace(previous, grid=grid_on(previous.grid, device))
        return replace(self, start=start, previous=previous)


@dataclass(frozen=True)
class StepNews:
    """Snapshots of a job from index `first` on, which take the place of those that were there. None at all: the
    drawing has begun."""

    first: int
    frames: tuple[StepSnapshot, ...] = ()


@dataclass(frozen=True)
class EndNews:
    """The end of a job: its finished images, or why there are none."""

    status: Status
    error: str = ""
    images: tuple[Image.Image, ...] | None = None


def grid_on(grid: TokenGrid, device: torch.device | str) -> TokenGrid:
    """A copy on this device that holds nothing but its own rows."""

    def copied(values: torch.Tensor) -> torch.Tensor:
        return values.detach().to(device, copy=True).contiguous()

    return TokenGrid(
        copied(grid.tokens), copied(grid.mask), grid.grid, copied(grid.unmasked_at), copied(grid.confidence)
    )


def news_of_steps(sent: Sequence[StepSnapshot], frames: Sequence[StepSnapshot]) -> StepNews | None:
    """What a reader that knows the snapshots `sent` lacks of `frames`; None when it lacks nothing.

    A job of several candidates replaces its earlier snapshots when the best candidate is chosen.
    """
    first = 0
    while first < min(len(sent), len(frames)) and sent[first] is frames[first]:
        first += 1
    if first == len(frames):
        return None
    return StepNews(first, tuple(replace(frame, grid=grid_on(frame.grid, "cpu")) for frame in frames[first:]))
