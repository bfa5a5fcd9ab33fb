"""The engine of many machines: jobs are checked here and drawn in the replicas of a Ray Serve application.

A job's images depend only on its task (app/serving/cluster_messages.py). When a replica dies, its jobs are drawn again
in others, to the same images; a reader sees a pause. This process has the models in memory, too: it checks requests
against them, encodes edited images and decodes previews.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray.exceptions
from PIL import Image
from ray.serve.handle import DeploymentHandle

from app.core import model_names
from app.core.registry import UnavailableError
from app.core.request import GenerationRequest
from app.serving import metrics
from app.serving.cluster_messages import DrawTask, EndNews, StepNews, grid_on
from app.serving.engine import MAX_ROWS, Engine
from app.serving.job_preparation import finish_preview, prepare_job
from app.serving.job_table import MAX_WAITING, JobTable
from app.serving.jobs import Job, Status
from app.serving.model_pool import ModelPool, dtype_name, open_model
from app.serving.recognizer import TimedTranscript
from maskgil.inpainting import InpaintingInput
from maskgil.pipeline import TextToImage
from maskgil.sampling.token_grid import TokenGrid
from speech.greedy_decoding import DecodingContext
from speech.transcriber import Transcript

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 5  # replicas that may die under one job before it is given up
RETRY_SECONDS = 0.2  # after the first death, doubled after each further one
TRANSCRIBE_SECONDS = 300.0  # for one recording
CLOSE_SECONDS = 1.0  # for cancelled jobs to end


class ClusterEngine(Engine):
    """Draws requests in the replicas behind `handle`. `find` loads a model here; `stop` is called at the end of
    close."""

    def __init__(
        self,
        handle: DeploymentHandle,
        find: Callable[..., TextToImage] = open_model,
        waiting: int = MAX_WAITING,
        stop: Callable[[], object] = lambda: None,
    ):
        self.models = ModelPool(find)
        self.table = JobTable(waiting)
        self._handle, self._stop = handle, stop
        self._decoding = threading.Lock()
        self._readers: dict[str, asyncio.Task] = {}  # by job
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cluster engine", daemon=True)
        self._thread.start()

    def submit(
        self,
        request: GenerationRequest,
        owner: str = "",
        start: InpaintingInput | None = None,
        finished: Callable[[Job], object] | None = None,
        after: Job | None = None,
    ) -> Job:
        """Engine.submit."""
        job = prepare_job(self, request, owner, start, after, MAX_ROWS)
        job.finished = finished
        dtype = self.models.chosen_precision(request.model)
        precision = None if dtype is None else dtype_name(dtype)
        memory = self.models.chosen_encoder_memory(request.model)
        place = model_names.place_of(request.model)
        task = DrawTask(job.request, precision, job.start, job.previous, memory, place).to("cpu")
        with self.table.lock:
            self.table.add(job)
        asyncio.run_coroutine_threadsafe(self._draw(job, task), self._loop)
        return job

    def cancel(self, id: str) -> bool:
        """Engine.cancel."""
        with self.table.lock:
            job = self.table.jobs.get(id)
            if job is None or job.is_done or job.committed:
                return False
            job.cancelled = True
        self._loop.call_soon_threadsafe(self._cancel_reader, id)
        return True

    def render_preview(self, job: Job, grid: TokenGrid) -> list[Image.Image]:
        """Engine.render_preview, in this process."""
        model = job.loaded.model
        with self._decoding:
            images = model.images_of(grid_on(grid, model.device))
        return finish_preview(images, grid, job.start)

    def close(self, grace: float = 0.0) -> None:
        """Engine.close. Cancelled jobs that the replicas do not end within CLOSE_SECONDS are ended here: nobody follows
        them once the loop has stopped."""
        left = self.table.drain(self.cancel, grace)
        end = time.monotonic() + CLOSE_SECONDS
        for job in left:
            job.wait(max(0.0, end - time.monotonic()))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_SECONDS)
        for job in left:
            if not job.is_done:
                self._leave_queue(job)
                job.end(Status.CANCELLED)
        self._stop()

    def _cancel_reader(self, id: str) -> None:
        if (reader := self._readers.get(id)) is not None:
            reader.cancel()

    async def _draw(self, job: Job, task: DrawTask) -> None:
        """Follow a job to its end, in as many replicas as it takes.

        The replicas are read by a task of their own, and only that one is cancelled: a task that is cancelled before
        its first step runs none of its code, so its job would never end.
        """
        reader = self._readers[job.id] = self._loop.create_task(self._drawn(job, task))
        try:
            end = await reader
        except asyncio.CancelledError:
            end = EndNews(Status.CANCELLED)
        except Exception as error:
            log.error("job %s failed", job.id, exc_info=error)
            end = EndNews(Status.FAILED, f"the drawing failed ({type(error).__name__}): try again")
        self._readers.pop(job.id, None)  # from here on nothing is cancelled
        if job.is_done:  # close could not wait for the loop
            return
        self._leave_queue(job)
        if end.status is Status.DONE and not self.table.commit(job):
            end = EndNews(Status.CANCELLED)
        if end.status is Status.DONE and end.images is not None:
            job.change(images=list(end.images))
            if job.finished is not None:
                try:
                    await asyncio.to_thread(job.finished, job)
                except Exception:
                    log.exception("the callback of job %s failed", job.id)
        job.end(end.status, error=" ".join(end.error.split()))
        with self.table.lock:
            self.table.forget_old()

    async def _drawn(self, job: Job, task: DrawTask) -> EndNews:
        """The end of a job. Raises CancelledError when it is cancelled."""
        for attempt in range(MAX_ATTEMPTS):
            if job.cancelled:
                return EndNews(Status.CANCELLED)
            if attempt:
                metrics.REDRAWN.inc()
                await asyncio.sleep(RETRY_SECONDS * 2 ** (attempt - 1))
            try:
                end = await self._drawn_once(job, task)
            except ray.exceptions.RayTaskError as error:
                if not isinstance(error.cause, ray.exceptions.RayError | asyncio.CancelledError):
                    raise
                reason = f"{type(error.cause).__name__}"
            except ray.exceptions.RayError as error:
                reason = type(error).__name__
            else:
                if end is not None and (end.status is not Status.CANCELLED or job.cancelled):
                    return end
                reason = "the replica stopped"
            log.warning("job %s lost its replica (%s): it is drawn again", job.id, reason)
        return EndNews(
            Status.FAILED, f"{MAX_ATTEMPTS} replicas died while they drew this: see the cluster's log, then try again"
        )

    async def _drawn_once(self, job: Job, task: DrawTask) -> EndNews | None:
        """What one replica makes of a job; None when its news stop before the end."""
        replicas = self._handle.options(stream=True, multiplexed_model_id=task.place)
        news_of_job: Any = replicas.draw.remote(task)
        try:
            async for news in news_of_job:
                if isinstance(news, EndNews):
                    return news
                self._add_steps(job, news)
        except asyncio.CancelledError:
            news_of_job.cancel()
            raise
        return None

    def _add_steps(self, job: Job, news: StepNews) -> None:
        """Record the steps that are new. Steps that are drawn again are the same ones."""
        if job.status is Status.QUEUED:
            self._leave_queue(job)
            job.change(status=Status.RUNNING, began=time.monotonic())
        if news.first == len(job.frames):
            job.change(frames=[*job.frames, *news.frames])
        elif news.frames and news.first + len(news.frames) >= len(job.frames):
            job.add_frame(news.frames[-1], [*job.frames[: news.first], *news.frames[:-1]])

    def _leave_queue(self, job: Job) -> None:
        with self.table.lock:
            if job in self.table.waiting:
                self.table.waiting.remove(job)


class ClusterRecognizer:
    """The recognizer `name` in the replicas behind `handle` (app/serving/recognizer.py)."""

    def __init__(self, name: str, handle: DeploymentHandle):
        self.name, self._handle = name, handle

    def load(self) -> None:
        """Raises UnavailableError when it is missing or broken."""
        self._call("load", self.name)

    def transcribe(self, recording: Path | bytes, context: DecodingContext | None = None) -> Transcript:
        """SpeechRecognizer.transcribe."""
        data = recording if isinstance(recording, bytes) else recording.read_bytes()
        return self._counted(self._call("transcribe", self.name, data, context))

    def transcribe_timed(self, recording: Path | bytes, context: DecodingContext | None = None) -> TimedTranscript:
        """SpeechRecognizer.transcribe_timed."""
        data = recording if isinstance(recording, bytes) else recording.read_bytes()
        heard = self._call("transcribe_timed", self.name, data, context)
        self._counted(heard.transcript)
        return heard

    def transcribe_live(self, spoken: np.ndarray, guess: Sequence[int] = ()) -> Transcript:
        """SpeechRecognizer.transcribe_live."""
        return self._counted(self._call("transcribe_live", self.name, np.ascontiguousarray(spoken), tuple(guess)))

    def _counted(self, transcript: Transcript) -> Transcript:
        metrics.WORDS.inc(len(transcript.words))
        return transcript

    def _call(self, method: str, *values: Any) -> Any:
        """The answer of a replica; another one is asked when it dies."""
        for attempt in range(MAX_ATTEMPTS):
            try:
                return getattr(self._handle, method).remote(*values).result(timeout_s=TRANSCRIBE_SECONDS)
            except ray.exceptions.RayTaskError as error:
                for kind in (UnavailableError, ValueError):
                    if isinstance(error.cause, kind):
                        raise kind(str(error.cause)) from None
                raise
            except ray.exceptions.RayError as error:
                log.warning("a replica that transcribes is gone (%s): another one is asked", type(error).__name__)
                time.sleep(RETRY_SECONDS * 2**attempt)
        raise RuntimeError(f"{MAX_ATTEMPTS} replicas died while they transcribed: see the cluster's log")
