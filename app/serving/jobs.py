"""A job: one request on its way through the engine, the events of its steps, and its finished images.

Any thread reads a job; only the engine changes it.
"""

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from app.core import png
from app.core.gallery_store import GalleryEntry
from app.core.request import GenerationRequest
from app.serving import metrics
from app.serving.batching import PreviousResult, RunningJob
from app.serving.model_pool import LoadedModel
from maskgil.inpainting import InpaintingInput
from maskgil.sampling.token_grid import TokenGrid

log = logging.getLogger(__name__)


class Status(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True)
class StepSnapshot:
    """The token grids of a job after one step.

    step, total        steps made, and steps of the whole plan
    nfe                model evaluations that one image has cost so far
    grid               a row for each image
    refinement_passes  the last steps of the plan that draw tokens again
    has_preview        whether a preview of this step should be decoded: of the AR model's steps, one for each line
    """

    step: int
    total: int
    nfe: int
    grid: TokenGrid
    refinement_passes: int = 0
    has_preview: bool = True

    @staticmethod
    def after(running: RunningJob) -> "StepSnapshot":
        line = running.grid.grid[1]
        has_preview = running.done >= running.ar_steps or running.done % line == 0
        return StepSnapshot(
            running.done,
            len(running.plan),
            running.nfe_per_image,
            running.visible_grid,
            running.refinement_passes,
            has_preview,
        )


@runtime_checkable
class JobHost(Protocol):
    """What a job needs of the engine that runs it."""

    def position(self, job: "Job") -> int: ...
    def cancel(self, id: str) -> bool: ...
    def render_preview(self, job: "Job", grid: TokenGrid) -> list[Image.Image]: ...


class Job:
    """A request on its way. Read it from any thread; only the engine changes it.

    request      the request with the size that is drawn
    requested    the request before it was fitted to its model
    owner        the visitor or program that asked
    start        the image that is edited, or None
    previous     the grid of an earlier job that this one continues, or None
    finished     called with the job between its images and its end, on the engine's thread
    frames       a snapshot for each step so far
    error        why it failed
    note         why its images were not saved
    view         the id of the page element that shows it
    size_note    how a size that the model does not draw was changed
    cancelled    it is to end without images
    committed    its images are there, and are kept now: it can no longer be cancelled (JobTable.commit)
    kept         whether saving its images was tried
    entries      its images in the gallery, once they are saved
    asked, began, ended  monotonic seconds; 0 before the event
    weight       bytes that it holds once it is over
    """

    def __init__(
        self,
        host: JobHost,
        loaded: LoadedModel,
        request: GenerationRequest,
        owner: str = "",
        start: InpaintingInput | None = None,
        finished: Callable[["Job"], object] | None = None,
        previous: PreviousResult | None = None,
    ):
        self.id = secrets.token_hex(8)
        self.loaded, self.request, self.requested, self.owner = loaded, request, request, owner
        self.start, self.finished, self.previous = start, finished, previous
        self.status = Status.QUEUED
        self.frames: list[StepSnapshot] = []
        self.images: list[Image.Image] | None = None
        self.error = self.note = self.view = self.size_note = ""
        self.kept = self.cancelled = self.committed = False
        self.entries: list[GalleryEntry] = []
        self.keeping = threading.Lock()  # held while its images are saved
        self.asked, self.began, self.ended = time.monotonic(), 0.0, 0.0
        self.weight = 0
        self._host = host
        self._changed = threading.Condition()
        self._listeners: list[Callable[[], object]] = []
        self._last_preview: tuple[int, list[Image.Image]] | None = None  # (frame, images)
        self._last_urls: tuple[int, list[str]] | None = None  # (frame, data URLs)

    @property
    def is_done(self) -> bool:
        return self.status in (Status.DONE, Status.CANCELLED, Status.FAILED)

    @property
    def memory_bytes(self) -> int:
        """Bytes of its steps and images, and of a preview and data URLs as large as the images."""
        stores = {}  # a row of a batch keeps the whole batch
        for frame in self.frames:
            for values in (frame.grid.tokens, frame.grid.mask, frame.grid.unmasked_at, frame.grid.confidence):
                if values is not None:
                    store = values.untyped_storage()
                    stores[store.data_ptr()] = store.nbytes()
        return sum(stores.values()) + sum(3 * 4 * image.width * image.height for image in self.images or [])

    @property
    def position(self) -> int:
        """Jobs in the queue up to and including this one; 0 once it runs."""
        return self._host.position(self)

    @property
    def seconds(self) -> float:
        """Seconds since drawing began, without the time in the queue."""
        return (self.ended or time.monotonic()) - self.began if self.began else 0.0

    @property
    def preview_steps(self) -> list[int]:
        """Indices of the frames that have a preview."""
        return [i for i, frame in enumerate(self.frames) if frame.has_preview]

    @property
    def remaining(self) -> float | None:
        """Estimated seconds until the last step; None before the first step and after the end."""
        if not self.frames or self.is_done:
            return None
        last = self.frames[-1]
        return self.seconds / last.step * (last.total - last.step)

    def continuation_for(self, request: GenerationRequest) -> PreviousResult | None:
        """The grid from which a job with another prompt can continue; None if model, size or number differ, or if the
        AR model takes part."""
        own = self.request
        if request.params.mode != "masked" or (own.model, own.size, own.n) != (request.model, request.size, request.n):
            return None
        if not self.frames:
            return self.previous
        return PreviousResult(self.frames[-1].grid, own.text)

    def cancel(self) -> bool:
        """End it before its next step. Returns False for a job that is over, or whose images are being kept: it stays
        as it is."""
        return self._host.cancel(self.id)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for its end, at most `timeout` seconds; returns whether it is over."""
        with self._changed:
            return self._changed.wait_for(lambda: self.is_done, timeout)

    def wait_change(self, frames: int, timeout: float | None = None) -> None:
        """Waits until there are more than `frames` frames, or it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_done or len(self.frames) > frames, timeout)

    def on_change(self, listener: Callable[[], object]) -> None:
        """Calls `listener` once now and after every change, on the engine's thread: it must return at once. Its
        exceptions go to the log."""
        with self._changed:
            self._listeners.append(listener)
        listener()

    async def changes(self) -> AsyncIterator[None]:
        """Yields once now and after each change, on the caller's event loop, until the job is over. Changes that come
        while the caller is busy are one event."""
        changed, loop = asyncio.Event(), asyncio.get_running_loop()
        self.on_change(lambda: None if loop.is_closed() else loop.call_soon_threadsafe(changed.set))
        while True:
            await changed.wait()
            changed.clear()
            yield
            if self.is_done:
                return

    def pictures(self) -> list[Image.Image]:
        """The finished images, in the order of their seeds."""
        assert self.images is not None, f"job {self.id} is {self.status}, not done"
        return self.images

    def preview(self, frame: int) -> list[Image.Image]:
        """The images after a step, with undecided cells transparent. The last result is cached."""
        cached = self._last_preview
        if cached is None or cached[0] != frame:
            cached = frame, self._host.render_preview(self, self.frames[frame].grid)
            self._last_preview = cached
        return cached[1]

    def preview_of_row(self, frame: int, row: int) -> Image.Image:
        """One of the images after a step, without the cache."""
        grid = self.frames[frame].grid.rows(slice(row, row + 1))
        return self._host.render_preview(self, grid)[0]

    def data_urls(self) -> list[str]:
        """The finished images, or those of the last preview, as data URLs. The last result is cached."""
        frame = len(self.frames) if self.images is not None else self.preview_steps[-1]
        cached = self._last_urls
        if cached is None or cached[0] != frame:
            images = self.images if self.images is not None else self.preview(frame)
            cached = frame, [png.data_uri(image) for image in images]
            self._last_urls = cached
        return cached[1]

    def add_frame(self, frame: StepSnapshot, earlier: list[StepSnapshot] | None = None) -> None:
        """For the engine: record a step. `earlier` replaces the frames before it."""
        if earlier is not None:
            self._last_preview = None
        self.change(frames=[*(self.frames if earlier is None else earlier), frame])

    def change(self, **values: Any) -> None:
        """For the engine: set attributes and notify all who wait."""
        with self._changed:
            for name, value in values.items():
                setattr(self, name, value)
            self._changed.notify_all()
            listeners = list(self._listeners)
        for listener in listeners:
            try:
                listener()
            except Exception as error:  # a listener of one visitor, whose event loop may be closed
                log.warning("a listener of job %s failed: %s", self.id, error, exc_info=error)

    def end(self, status: Status, **values: Any) -> None:
        """For the engine: the last change."""
        self.change(weight=self.memory_bytes, **values, status=status, ended=time.monotonic())
        metrics.count_job(status.value, self.asked, self.began, self.ended)
        if status is Status.DONE:
            metrics.count_images(self.request.n, self.request.n * self.frames[-1].nfe)


def summarize(job: Job) -> str:
    """One line on a finished drawing: seeds, steps, passes, seconds."""
    request, last = job.request, job.frames[-1]
    seeds = f"seed {request.seed}" if request.n == 1 else f"seeds {request.seed} to {request.seeds[-1]}"
    start = {
        "masked": "",
        "hybrid": f" · {request.params.ar_tokens} tokens autoregressive",
        "ar": " · autoregressive",
    }[request.params.mode]
    steps = last.total - last.refinement_passes
    refined = f" and {_count(last.refinement_passes, 'refinement')}" if last.refinement_passes else ""
    best = f" · best of {request.params.candidates}" if request.params.candidates > 1 else ""
    passes = f"{_count(last.nfe, 'pass', 'passes')} per picture"
    return f"{seeds} · {_count(steps, 'step')}{refined}{start}{best} · {passes} · {job.seconds:.1f} s"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
