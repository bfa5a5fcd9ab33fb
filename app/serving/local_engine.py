"""The engine of one process: it draws for every page, socket and command.

A request becomes a job. Jobs wait in a bounded queue. One worker thread draws them in batches: a batch holds the
running jobs of one model and size, and one call of the model makes one step of all of them. Jobs join and leave a batch
between two steps, so a cancel takes effect before the next step and a job that fails does not affect the others. A job
that the AR model begins has a batch of its own until MaskGIL goes on with it. Batches take turns by the step.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from PIL import Image

from app.core.request import GenerationRequest
from app.serving import metrics
from app.serving.batching import Batch, RunningJob
from app.serving.engine import MAX_ROWS, Engine
from app.serving.job_preparation import finish_preview, prepare_job
from app.serving.job_table import MAX_WAITING, JobTable
from app.serving.jobs import Job, Status, StepSnapshot
from app.serving.model_pool import ModelPool, open_model
from maskgil.inpainting import InpaintingInput
from maskgil.pipeline import TextToImage
from maskgil.sampling.token_grid import TokenGrid

log = logging.getLogger(__name__)


class LocalEngine(Engine):
    """Draws requests. `find` loads a model by its name, and in a precision where one was chosen."""

    def __init__(self, find: Callable[..., TextToImage] = open_model, waiting: int = MAX_WAITING, rows: int = MAX_ROWS):
        self.models = ModelPool(find)
        self.table = JobTable(waiting)
        self._max_rows = rows
        self._decoding = threading.Lock()
        self._work = threading.Condition(self.table.lock)  # there is something to do
        self._batches: OrderedDict[tuple, Batch] = OrderedDict()
        self._job_of: dict[RunningJob, Job] = {}
        self._worker: threading.Thread | None = None

    def submit(
        self,
        request: GenerationRequest,
        owner: str = "",
        start: InpaintingInput | None = None,
        finished: Callable[[Job], object] | None = None,
        after: Job | None = None,
    ) -> Job:
        """Engine.submit."""
        return self.queue(prepare_job(self, request, owner, start, after, self._max_rows), finished)

    def queue(self, job: Job, finished: Callable[[Job], object] | None = None) -> Job:
        """Draw a job that is prepared (prepare_job)."""
        job.finished = finished
        with self.table.lock:
            self.table.add(job)
            if self._worker is None:
                self._worker = threading.Thread(target=self._run, name="engine", daemon=True)
                self._worker.start()
            self._work.notify_all()
        return job

    def cancel(self, id: str) -> bool:
        """Engine.cancel."""
        with self.table.lock:
            job = self.table.jobs.get(id)
            if job is None or job.is_done or job.committed:
                return False
            job.cancelled = True
            waiting = job in self.table.waiting
            if waiting:
                self.table.waiting.remove(job)
        if waiting:
            job.end(Status.CANCELLED)
        return True

    def close(self, grace: float = 0.0) -> None:
        """Engine.close. It ends the worker."""
        self.table.drain(self.cancel, grace)
        with self.table.lock:
            self._work.notify_all()
        if self._worker is not None:
            self._worker.join(timeout=60)

    def render_preview(self, job: Job, grid: TokenGrid) -> list[Image.Image]:
        """Engine.render_preview. One call at a time: previews must not slow the drawing."""
        with self._decoding:
            images = job.loaded.model.images_of(grid)
        return finish_preview(images, grid, job.start)

    def _run(self) -> None:
        while True:
            with self.table.lock:
                self._work.wait_for(lambda: self.table.closed or self.table.waiting or self._batches)
                if self.table.closed and not self._batches:
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
        while self.table.waiting and self.table.waiting[0].request.rows <= free_rows:
            job = self.table.waiting.popleft()
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
        batch.drawings.append(running)
        self._job_of[running] = job

    def _advance(self, key: tuple, batch: Batch) -> None:
        """One step of a batch, and what follows from it for each of its jobs."""
        for running in list(batch.drawings):
            if self._job_of[running].cancelled:
                self._leave(batch, running).end(Status.CANCELLED)
        if batch.drawings:
            metrics.BATCH_ROWS.observe(batch.rows)
        for running, error in list(batch.step()):
            self._fail(self._leave(batch, running), error)
        for running in list(batch.drawings):
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
        if not batch.drawings:
            del self._batches[key]

    def _abandon(self, key: tuple, batch: Batch, error: Exception) -> None:
        """Remove a batch; its jobs fail."""
        self._batches.pop(key, None)
        for running in list(batch.drawings):
            self._fail(self._leave(batch, running), error)

    def _leave(self, batch: Batch, running: RunningJob) -> Job:
        batch.drawings.remove(running)
        return self._job_of.pop(running)

    def _finish(self, job: Job) -> None:
        try:
            images = self.render_preview(job, job.frames[-1].grid)
        except Exception as error:
            self._fail(job, error)
            return
        if not self.table.commit(job):
            job.end(Status.CANCELLED)
            return
        job.change(images=images)
        if job.finished is not None:
            try:
                job.finished(job)
            except Exception:
                log.exception("the callback of job %s failed", job.id)
        job.end(Status.DONE)
        with self.table.lock:
            self.table.forget_old()

    def _fail(self, job: Job, error: Exception) -> None:
        """A ValueError is a message for the user; any other error is a fault of the program and goes to the log."""
        message = str(error)
        if not isinstance(error, ValueError):
            log.error("job %s failed", job.id, exc_info=error)
            message = f"the drawing failed ({type(error).__name__}: {error}): try again, or other settings"
        job.end(Status.FAILED, error=" ".join(message.split()))
