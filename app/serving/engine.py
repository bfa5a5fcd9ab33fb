"""The engine: one a process draws for every page, socket and command.

A request becomes a job. Jobs wait in a bounded queue. One worker thread draws them in batches: a batch holds the
running jobs of one model and size, and one call of the model makes one step of all of them. Jobs join and leave a batch
between two steps, so a cancel takes effect before the next step and a job that fails leaves the others alone. A job
that the AR model begins has a batch of its own until MaskGIL goes on with it. Batches take turns by the step.
"""

import logging
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from PIL import Image

from app.core.request import GenerationRequest, parse_adapters
from app.serving import metrics
from app.serving.batching import Batch, RunningJob
from app.serving.jobs import Job, Status, StepSnapshot
from app.serving.model_pool import LoadedModel, ModelPool, open_model
from maskgil.inpainting import InpaintingInput
from maskgil.pipeline import TextToImage
from maskgil.sampling.token_grid import TokenGrid

log = logging.getLogger(__name__)

MAX_WAITING = 64  # jobs
MAX_ROWS = 16  # images, or candidates of images, that are drawn at once in all batches
MAX_JOBS_PER_VISITOR = 8  # waiting jobs of one visitor
MAX_JOBS_KEPT = 64  # finished jobs that are kept ...
MAX_JOB_BYTES = 256 * 2**20  # ... and bytes of their steps and images; the last one is always kept
MIN_ALPHA = 26  # of 255, of cells that are not decided yet


class QueueFullError(ValueError):
    """The queue has no room for another job; the caller can try again later."""


@dataclass(frozen=True)
class EngineStatus:
    """Jobs that wait, jobs that run, and the rows of those that run."""

    queued: int
    running: int
    rows: int


class Engine:
    """Draws requests. `find` loads a model by its name, and in a precision where one was chosen."""

    def __init__(self, find: Callable[..., TextToImage] = open_model, waiting: int = MAX_WAITING, rows: int = MAX_ROWS):
        self.models = ModelPool(find)
        self._max_waiting, self._max_rows = waiting, rows
        self._decoding = threading.Lock()
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # there is something to do
        self._queue: deque[Job] = deque()
        self._batches: OrderedDict[tuple, Batch] = OrderedDict()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._job_of: dict[RunningJob, Job] = {}
        self._places: Counter[str] = Counter()  # submissions on their way, by owner
        self._closed = False
        self._worker: threading.Thread | None = None

    def load(self, name: str, dtype: torch.dtype | None = None) -> LoadedModel:
        """The model of this name (ModelPool.load)."""
        return self.models.load(name, dtype)

    def loaded(self) -> list[str]:
        """Names of the models in memory."""
        return self.models.names()

    def unload(self, name: str) -> None:
        """Forget a model; its running jobs finish."""
        self.models.unload(name)

    @contextmanager
    def place(self, owner: str = "") -> Iterator[None]:
        """Holds a place in the queue for a job of this owner until it is submitted. It returns at once and waits for no
        model, so an event loop may call it. Raises QueueFullError when there is no place."""
        with self._lock:
            self._check_room(owner)
            self._places[owner] += 1
        try:
            yield
        finally:
            with self._lock:
                self._places[owner] -= 1
                self._places += Counter()  # drops the owners at 0

    def submit(
        self,
        request: GenerationRequest,
        owner: str = "",
        start: InpaintingInput | None = None,
        finished: Callable[[Job], object] | None = None,
        after: Job | None = None,
    ) -> Job:
        """Queue a request, for blank images or for the masked cells of `start`.

        A size that the model lacks is drawn in the nearest one where TextToImage.rounded allows it, and the job says
        so. `finished` is called with the job, on the engine's thread, between its images and its end. `after`: a job
        whose grid this one continues where it can (maskgil/sampling/remasking.py).

        The call takes as long as the model takes to load: no event loop may wait for it. Raises ValueError for what
        the model cannot draw, and QueueFullError, a ValueError, when the queue is full.
        """
        loaded = self.load(request.model).with_adapters(parse_adapters(request.adapters))
        asked = request.size
        request = self._fitted(loaded, request)
        previous = None if after is None else after.continuation_for(request)
        if previous is not None:
            request = replace(request, edit=f"grown out of “{previous.prompt}”")
        for text in (request.text, request.negative_text):
            if text.strip():
                loaded.encode(text)  # a prompt that is too long is refused here
        job = Job(self, loaded, request, owner, start, finished, previous)
        if start is not None:
            job.size_note = start.scaled
        elif asked is not None and request.size is not None and asked != request.size:
            job.size_note = "{}x{} is drawn as {}x{}, the nearest size of this model".format(*asked, *request.size)
        with self._lock:
            self._check_room(owner, submitting=True)
            self._queue.append(job)
            self._jobs[job.id] = job
            self._forget_old()
            if self._worker is None:
                self._worker = threading.Thread(target=self._run, name="engine", daemon=True)
                self._worker.start()
            self._work.notify_all()
        return job

    def _fitted(self, loaded: LoadedModel, request: GenerationRequest) -> GenerationRequest:
        """The request as its model draws it. Raises ValueError for what the model or the engine cannot draw."""
        if request.size is not None:
            request = replace(request, size=loaded.model.rounded(request.size))
        request = replace(request, params=loaded.model.fit_params(request.params))
        request = request.fit(loaded.sizes, loaded.model.tokenizer.config.downsample)
        if request.params.mode == "ar":
            # The AR model makes none, and the metadata should not say that it did.
            request = replace(request, params=replace(request.params, refinement_passes=0))
        if request.params.mode != "masked":
            loaded.load_ar_model()  # here, where it holds up no other job
        if request.rows > self._max_rows:
            raise ValueError(f"{request.rows} pictures at once: at most {self._max_rows} are drawn together")
        return request

    def _check_room(self, owner: str, submitting: bool = False) -> None:
        """With the lock held. Places of others count against a new place, and not against a job that has one."""
        if self._closed:
            raise ValueError("the engine is shut down: start the program again")
        waiting = len(self._queue) + (0 if submitting else self._places.total())
        if waiting >= self._max_waiting:
            raise QueueFullError(f"{waiting} jobs are waiting, which is all there is room for: try again soon")
        own = sum(job.owner == owner for job in self._queue) + (0 if submitting else self._places[owner])
        if owner and own >= MAX_JOBS_PER_VISITOR:
            raise QueueFullError(f"{own} jobs of yours are waiting: let one of them be drawn first")

    def job(self, id: str) -> Job | None:
        return self._jobs.get(id)

    def jobs(self, owner: str) -> list[Job]:
        """The owner's jobs, oldest first; finished ones as long as they are kept."""
        with self._lock:
            return [job for job in self._jobs.values() if job.owner == owner]

    def cancel(self, id: str) -> bool:
        """End a job before its next step. Returns False when there is no such job, or it is over."""
        with self._lock:
            job = self._jobs.get(id)
            if job is None or job.is_done:
                return False
            job.cancelled = True
            waiting = job in self._queue
            if waiting:
                self._queue.remove(job)
        if waiting:
            job.end(Status.CANCELLED)
        return True

    def position(self, job: Job) -> int:
        """Jobs in the queue up to and including this one; 0 once it runs."""
        with self._lock:
            return self._queue.index(job) + 1 if job in self._queue else 0

    def status(self) -> EngineStatus:
        """How much is waiting and running."""
        with self._lock:
            running = [job for job in self._jobs.values() if job.status is Status.RUNNING]
            return EngineStatus(len(self._queue), len(running), sum(job.request.rows for job in running))

    def close(self, grace: float = 0.0) -> None:
        """Refuse new jobs, cancel the waiting ones, let the running ones finish for `grace` seconds, cancel the rest
        and end the worker."""
        with self._lock:
            self._closed = True
            waiting = [job.id for job in self._queue]
            running = [job for id, job in self._jobs.items() if not job.is_done and id not in waiting]
            self._work.notify_all()
        for id in waiting:
            self.cancel(id)
        end = time.monotonic() + grace
        for job in running:
            if not job.wait(max(0.0, end - time.monotonic())):
                self.cancel(job.id)
        if self._worker is not None:
            self._worker.join(timeout=60)

    def render_preview(
        self, model: TextToImage, grid: TokenGrid, start: InpaintingInput | None = None
    ) -> list[Image.Image]:
        """The images of a grid, undecided cells transparent. One call at a time: previews must not slow the drawing."""
        with self._decoding:
            images = model.images_of(grid)
        if start is not None:
            images = [start.paste_back(image) for image in images]
        if not bool(grid.mask.any()):
            return images
        rows, columns = grid.grid
        for image, mask in zip(images, grid.mask.cpu(), strict=True):
            cells = Image.fromarray((255 - (255 - MIN_ALPHA) * mask.view(rows, columns).byte().numpy()), "L")
            size = image.size
            image.putalpha(start.cell_image(cells, size) if start else cells.resize(size, Image.Resampling.NEAREST))
        return images

    def _run(self) -> None:
        while True:
            with self._lock:
                self._work.wait_for(lambda: self._closed or self._queue or self._batches)
                if self._closed and not self._batches:
                    return
                joining = self._admit()
            for job in joining:
                self._join(job)
            if self._batches:
                key, batch = next(iter(self._batches.items()))
                self._batches.move_to_end(key)
                try:
                    self._advance(key, batch)
                except Exception as error:  # a fault of the program: it ends this batch, not the worker
                    self._abandon(key, batch, error)

    def _admit(self) -> list[Job]:
        """The jobs that can start now, in the order of the queue, while their rows fit."""
        free_rows = self._max_rows - sum(batch.rows for batch in self._batches.values())
        joining = []
        while self._queue and self._queue[0].request.rows <= free_rows:
            job = self._queue.popleft()
            free_rows -= job.request.rows
            joining.append(job)
        return joining

    def _join(self, job: Job) -> None:
        try:
            job.change(status=Status.RUNNING, began=time.monotonic())
            loaded = job.loaded
            running = RunningJob.begin(loaded.model, loaded.encode, job.request, job.start, job.previous)
            if running.is_done:  # the new words change no token
                job.add_frame(StepSnapshot(1, 1, running.nfe_per_image, running.visible_grid), [])
                self._finish(job)
            else:
                self._place_in_batch(running, job)
        except Exception as error:
            self._fail(job, error)

    def _place_in_batch(self, running: RunningJob, job: Job) -> None:
        """Into the batch that makes its next step."""
        batch = self._batches.setdefault((id(job.loaded), *running.key), Batch(job.loaded.model))
        batch.sketches.append(running)
        self._job_of[running] = job

    def _advance(self, key: tuple, batch: Batch) -> None:
        """One step of a batch, and what follows from it for each of its jobs."""
        for running in list(batch.sketches):
            if self._job_of[running].cancelled:
                self._leave(batch, running).end(Status.CANCELLED)
        if batch.sketches:
            metrics.BATCH_ROWS.observe(batch.rows)
        for running, error in list(batch.step()):
            self._fail(self._leave(batch, running), error)
        for running in list(batch.sketches):
            job = self._job_of[running]
            try:
                earlier = None
                if running.is_done and running.candidates > 1:  # the chosen candidate need not be the one shown so far
                    chosen = running.choose(job.loaded.model)
                    earlier = [replace(frame, grid=grid) for frame, grid in zip(job.frames, chosen, strict=False)]
                frame, moves = StepSnapshot.after(running), key != (id(job.loaded), *running.key)
            except Exception as error:
                self._fail(self._leave(batch, running), error)
                continue
            job.add_frame(frame, earlier)
            if running.is_done:
                self._finish(self._leave(batch, running))
            elif moves:  # the AR model has done its part
                self._place_in_batch(running, self._leave(batch, running))
        if not batch.sketches:
            del self._batches[key]

    def _abandon(self, key: tuple, batch: Batch, error: Exception) -> None:
        """Remove a batch; its jobs fail."""
        self._batches.pop(key, None)
        for running in list(batch.sketches):
            self._fail(self._leave(batch, running), error)

    def _leave(self, batch: Batch, running: RunningJob) -> Job:
        batch.sketches.remove(running)
        return self._job_of.pop(running)

    def _finish(self, job: Job) -> None:
        try:
            images = self.render_preview(job.loaded.model, job.frames[-1].grid, job.start)
        except Exception as error:
            self._fail(job, error)
            return
        job.change(images=images)
        if job.finished is not None:
            try:
                job.finished(job)
            except Exception:
                log.exception("the callback of job %s failed", job.id)
        job.end(Status.DONE)
        with self._lock:
            self._forget_old()

    def _fail(self, job: Job, error: Exception) -> None:
        """A ValueError is a message for the user; any other error is a fault of the program and goes to the log."""
        message = str(error)
        if not isinstance(error, ValueError):
            log.error("job %s failed", job.id, exc_info=error)
            message = f"the drawing failed ({type(error).__name__}: {error}): try again, or other settings"
        job.end(Status.FAILED, error=" ".join(message.split()))

    def _forget_old(self) -> None:
        """Forget the oldest finished jobs until the rest are within MAX_JOBS_KEPT and MAX_JOB_BYTES."""
        over = [job for job in self._jobs.values() if job.is_done]
        excess, size = len(self._jobs) - MAX_JOBS_KEPT, sum(job.weight for job in over)
        for i, job in enumerate(over):
            if i >= excess and (size <= MAX_JOB_BYTES or job is over[-1]):
                return
            size -= job.weight
            del self._jobs[job.id]
