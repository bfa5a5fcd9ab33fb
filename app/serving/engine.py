"""One engine a process: it owns the models, and draws for every page, socket and command at once.

A request becomes a job. Jobs wait in a bounded queue and are then drawn by one worker thread, which goes from lane to
lane: a lane holds all running jobs of one model and size, and makes one step of all of them with one call of the model.
Jobs join a lane and leave it between two steps. So a crowd is served at the price of a batch, a cancel takes effect
before the next step, and a job that fails takes nobody along. A job that the autoregressive twin begins has a lane of
its own until MaskGIL goes on with it; lanes take turns by the step, so that a long one holds nobody up.
"""

import asyncio
import functools
import logging
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import torch
from PIL import Image

from app.core import png, registry
from app.core.request import GenerationRequest
from app.serving.batching import Batch, PreviousResult, RunningJob
from maskgil.condition import Condition
from maskgil.inpainting import InpaintingInput
from maskgil.pipeline import TextToImage
from maskgil.sampling.loop import TokenGrid
from text_encoder.prompt_reader import PromptVocabulary

log = logging.getLogger(__name__)

MAX_WAITING = 64  # jobs
MAX_ROWS = 16  # drawings made at once, over all lanes: pictures, or their candidates
MAX_MODELS = 2  # in memory
MAX_TEXTS = 512  # prompts whose states are kept, for each model
MAX_JOBS_PER_VISITOR = 8  # jobs of one visitor that wait: nobody fills the queue alone
MAX_JOBS_KEPT = 64  # jobs that are over and can still be asked for ...
MAX_JOB_BYTES = 256 * 2**20  # ... and bytes of all their steps and pictures together; the last one stays in any case
SHARPEST_HOLE = 26  # alpha, of 255, where a picture is not decided yet


class Status(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


class QueueFullError(ValueError):
    """There is no room for another job now; later there is."""


class LoadedModel:
    """A model in memory, with the texts that it has read lately."""

    def __init__(self, model: TextToImage):
        self.model = model
        self.sizes = list(model.sizes)
        words = PromptVocabulary.from_dict(model.vocabulary)
        # Of an encoder that would cut a long prompt; others refuse it by themselves.
        check = getattr(model.text_encoder, "check", lambda text: None)

        def encode(prompt: str) -> Condition:
            check(text := words.normalize(prompt))
            return model.condition([text])

        # One prompt at a time: so a text's states are the same whoever else asks, and can be kept.
        self.encode = functools.lru_cache(MAX_TEXTS)(encode)
        self._pairing = threading.Lock()

    def pair(self) -> None:
        """Have its twin in memory. Raises ValueError when it has none, or one that does not belong to it."""
        with self._pairing:
            _ = self.model.ar_model


@dataclass(frozen=True)
class StepSnapshot:
    """The pictures of a job after one step. `nfe`: evaluations of the models that one picture has cost so far. The last
    `revisions` of its steps revise what the others drew.

    `shown`: a picture of it is worth its decoding. Of the twin's steps, which decide one token each, that is the last
    and as many of the others as there are lines in a picture.
    """

    step: int
    total: int
    nfe: int
    grid: TokenGrid
    refinement_passes: int = 0
    has_preview: bool = True

    @staticmethod
    def after(sketch: RunningJob) -> "StepSnapshot":
        line = sketch.grid.grid[1]
        shown = sketch.done >= sketch.ar_steps or sketch.done % line == 0
        return StepSnapshot(
            sketch.done, len(sketch.plan), sketch.nfe_per_image, sketch.visible_grid, sketch.refinement_passes, shown
        )


class Job:
    """A request on its way. Read it from any thread; only the engine changes it."""

    def __init__(
        self,
        engine: "Engine",
        loaded: LoadedModel,
        request: GenerationRequest,
        owner: str,
        start: InpaintingInput | None,
        finished: Callable[["Job"], object] | None,
        earlier: PreviousResult | None = None,
    ):
        self.id = secrets.token_hex(8)
        self.request, self.owner, self.start, self.earlier = request, owner, start, earlier
        self.status = Status.QUEUED
        self.frames: list[StepSnapshot] = []
        self.error = ""
        self.note = ""
        self.easel = ""  # of the page that shows it
        self.rounded = ""  # what became of a size that the model does not draw, asked for or brought
        self.kept = False
        self.keeping = threading.Lock()  # whoever comes second waits until it is kept
        self.asked, self.began, self.ended = time.monotonic(), 0.0, 0.0
        self._engine, self._finished = engine, finished
        self._loaded = loaded
        self.cancelled = False
        self.weight = 0  # bytes that it holds once it is over
        self._changed = threading.Condition()
        self._listeners: list[Callable[[], object]] = []
        self._pictures: list[Image.Image] | None = None
        self._seen: tuple[int, list[Image.Image]] | None = None  # the last preview, and of which frame
        self._sent: tuple[int, list[str]] | None = None  # the last addresses, and of which frame

    @property
    def is_done(self) -> bool:
        return self.status in (Status.DONE, Status.CANCELLED, Status.FAILED)

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that its steps and pictures take, and a preview and addresses as large as they are."""
        stores = {}  # a row of a batch keeps the whole batch
        for frame in self.frames:
            for values in (frame.grid.tokens, frame.grid.mask, frame.grid.unmasked_at, frame.grid.confidence):
                store = values.untyped_storage()
                stores[store.data_ptr()] = store.nbytes()
        return sum(stores.values()) + sum(3 * 4 * image.width * image.height for image in self._pictures or [])

    @property
    def position(self) -> int:
        """Jobs that are drawn before this one begins, itself included; 0 once it runs."""
        return self._engine.position(self)

    @property
    def seconds(self) -> float:
        """Since it began to be drawn; the wait is not counted."""
        return (self.ended or time.monotonic()) - self.began if self.began else 0.0

    @property
    def preview_steps(self) -> list[int]:
        """The frames to show, for `preview`."""
        return [i for i, frame in enumerate(self.frames) if frame.has_preview]

    @property
    def remaining(self) -> float | None:
        """Seconds that the steps to come will take if they go on like this; None when nothing can be said yet."""
        if not self.frames or self.is_done:
            return None
        last = self.frames[-1]
        return self.seconds / last.step * (last.total - last.step)

    def continuation_for(self, request: GenerationRequest) -> PreviousResult | None:
        """Where a drawing of other words can go on from: of the same model, size and number, not by a twin."""
        ours = self.request
        if request.mode != "mar" or (ours.model, ours.size, ours.n) != (request.model, request.size, request.n):
            return None
        if not self.frames:
            return self.earlier
        return PreviousResult(self.frames[-1].grid, ours.prompt)

    def cancel(self) -> None:
        """End it before its next step. A job that is over stays as it is."""
        self._engine.cancel(self.id)

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it is over, after waiting for that at most `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.is_done, timeout)

    def wait_change(self, frames: int, timeout: float | None = None) -> None:
        """Wait until there are more than `frames` frames, or it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_done or len(self.frames) > frames, timeout)

    def on_change(self, listener: Callable[[], object]) -> None:
        """Call `listener` after every change, and once now. It runs on the engine's thread: it should return at once.
        What it raises there goes to the log."""
        with self._changed:
            self._listeners.append(listener)
        listener()

    async def changes(self) -> AsyncIterator[None]:
        """Once now and after each change, on the caller's event loop, until it is over. What changes while the caller
        is busy comes as one."""
        changed, loop = asyncio.Event(), asyncio.get_running_loop()
        self.on_change(lambda: None if loop.is_closed() else loop.call_soon_threadsafe(changed.set))
        while True:
            await changed.wait()
            changed.clear()
            yield
            if self.is_done:
                return

    def pictures(self) -> list[Image.Image]:
        """The finished pictures, in the order of their seeds."""
        assert self._pictures is not None, f"job {self.id} is {self.status}, not done"
        return self._pictures

    def preview(self, frame: int) -> list[Image.Image]:
        """The pictures after a step; what is not decided yet is transparent. Whoever looks again gets the same ones."""
        seen = self._seen
        if seen is None or seen[0] != frame:
            seen = frame, self._engine.render_preview(self._loaded.model, self.frames[frame].grid, self.start)
            self._seen = seen
        return seen[1]

    def preview_of_row(self, frame: int, row: int) -> Image.Image:
        """One of the pictures after a step, which is remembered by whoever looks."""
        canvas = self.frames[frame].grid.rows(slice(row, row + 1))
        return self._engine.render_preview(self._loaded.model, canvas, self.start)[0]

    def data_urls(self) -> list[str]:
        """The pictures for a page, which looks many times: those of the last frame to show, or the finished ones. They
        are encoded once."""
        frame = len(self.frames) if self._pictures is not None else self.preview_steps[-1]
        sent = self._sent
        if sent is None or sent[0] != frame:
            images = self._pictures if self._pictures is not None else self.preview(frame)
            sent = frame, [png.data_uri(image) for image in images]
            self._sent = sent
        return sent[1]

    def change(self, **values: object) -> None:
        """For the engine: set attributes and tell whoever waits."""
        with self._changed:
            for name, value in values.items():
                setattr(self, name, value)
            self._changed.notify_all()
            listeners = list(self._listeners)
        for listener in listeners:
            try:
                listener()
            except Exception as error:
                # A visitor's business, whose event loop may be closed: the engine draws for everybody else, too.
                log.warning("a listener of job %s failed: %s", self.id, error, exc_info=error)

    def end(self, status: Status, **values: object) -> None:
        """For the engine: the last change."""
        self.change(weight=self.memory_bytes, **values, status=status, ended=time.monotonic())


def default_precision() -> torch.dtype:
    """What models are computed in here."""
    return torch.bfloat16 if torch.cuda.is_available() else torch.float32


def free_memory() -> int | None:
    """Bytes that a model may still take where models run; None where the system does not tell."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    try:
        told = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        return int(told["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def why_not_loadable(model: registry.ModelInfo, dtype: torch.dtype | None = None) -> str:
    """Why this model cannot be loaded here, in `dtype` or in what is usual here; an empty text when it can."""
    dtype = dtype or default_precision()
    need, free = model.parameters * dtype.itemsize, free_memory()
    if free is None or need <= free:
        return ""
    size, left = need / 2**30, free / 2**30
    return f"{model.name} takes {size:.1f} GB of memory in {one_line(dtype)}, and {left:.1f} GB are free here"


def one_line(dtype: torch.dtype) -> str:
    """torch.float32 -> 'float32'."""
    return str(dtype).removeprefix("torch.")


_memory = threading.Lock()


def open_model(name: str, dtype: torch.dtype | None = None) -> TextToImage:
    """A model of the catalogue in memory, on the accelerator where there is one, in `dtype` or in what is usual here.
    Raises ValueError for a broken one, and for one that there is no memory for."""
    model = registry.find(name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with _memory:  # what is free is asked and then taken: by one at a time
        if reason := why_not_loadable(model, dtype):
            raise ValueError(f"{reason}: unload another, or take a smaller one")
        return TextToImage.load(model.folder, device=device, dtype=dtype or default_precision())


class Engine:
    """`find` loads a model by its name, and in a precision where one was chosen, or raises ValueError."""

    def __init__(self, find: Callable[..., TextToImage] = open_model, waiting: int = MAX_WAITING, rows: int = MAX_ROWS):
        self._find, self._max_waiting, self._max_rows = find, waiting, rows
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()
        self._precision: dict[str, torch.dtype] = {}  # of those for which one was chosen
        self._shelf = threading.Lock()  # for a look at what is there, never while something is loaded
        self._loading: dict[str, threading.Lock] = {}  # models that are on their way, which may take a download
        self._decoding = threading.Lock()
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # there is something to do
        self._queue: deque[Job] = deque()
        self._lanes: OrderedDict[tuple, Batch] = OrderedDict()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._job_of: dict[RunningJob, Job] = {}
        self._closed = False
        self._worker: threading.Thread | None = None

    def load(self, name: str, dtype: torch.dtype | None = None) -> LoadedModel:
        """A model, loaded once and kept while it is among the last used. One that is in memory is had at once, whatever
        else is being loaded. `dtype`: its precision from now on, once it is there; jobs that run in another one finish
        in it. Raises ValueError when it cannot be had, and all is as before."""
        with self._shelf:
            if (there := self._take(name, dtype)) is not None:
                return there
            loading = self._loading.setdefault(name, threading.Lock())
        with loading:
            try:
                with self._shelf:
                    if (there := self._take(name, dtype)) is not None:  # somebody else was loading it
                        return there
                chosen = dtype or self._precision.get(name)
                loaded = LoadedModel(self._find(name) if chosen is None else self._find(name, chosen))
                with self._shelf:
                    if dtype is not None:
                        self._precision[name] = dtype
                    self._models[name] = loaded
                    self._models.move_to_end(name)
                    while len(self._models) > MAX_MODELS:
                        self._models.popitem(last=False)
                return loaded
            finally:
                with self._shelf:
                    self._loading.pop(name, None)

    def _take(self, name: str, dtype: torch.dtype | None) -> LoadedModel | None:
        """With the shelf locked: a model in memory, which is now the last used; none where another precision is wanted
        than it has."""
        there = self._models.get(name)
        if there is None or dtype not in (None, there.model.dtype):
            return None
        self._models.move_to_end(name)
        if dtype is not None:
            self._precision[name] = dtype
        return there

    def loaded(self) -> list[str]:
        with self._shelf:
            return list(self._models)

    def unload(self, name: str) -> None:
        """Forget a model; jobs that run on it finish."""
        with self._shelf:
            self._models.pop(name, None)

    def submit(
        self,
        request: GenerationRequest,
        owner: str = "",
        start: InpaintingInput | None = None,
        finished: Callable[[Job], object] | None = None,
        after: Job | None = None,
    ) -> Job:
        """Queue a request, for a blank canvas or for the holes of a start. A size that the model lacks is drawn as the
        nearest where it rounds (TextToImage.rounded), and the job says so.

        `finished` is called with the job, on the engine's thread, between its pictures and its end. `after`: a job,
        over or not, from whose canvas this one goes on where it can (maskgil/sampling/remasking.py).

        It takes as long as the model takes to load, where it is not in memory: no event loop may wait for it. Raises
        ValueError for what the model cannot draw, and Busy, which is one, when the queue is full.
        """
        loaded, asked = self.load(request.model), request.size
        if asked is not None:
            request = replace(request, size=loaded.model.rounded(asked))
        request = request.fit(loaded.sizes, loaded.model.tokenizer.config.downsample)
        if request.mode == "ar":
            request = replace(request, refinement_passes=0)  # it makes none, and its picture should not say otherwise
        if request.mode != "mar":
            loaded.pair()  # here, where it holds nobody up and a complaint reaches who asked
        loaded.model.validate_candidates(request.candidates)
        if request.rows > self._max_rows:
            raise ValueError(f"{request.rows} pictures at once: at most {self._max_rows} are drawn together")
        earlier = None if after is None else after.continuation_for(request)
        if earlier is not None:
            request = replace(request, edit=f"grown out of “{earlier.prompt}”")
        for text in (request.prompt, request.negative):
            if text.strip():
                loaded.encode(text)  # here, for the same reason: one may be too long to be read
        job = Job(self, loaded, request, owner, start, finished, earlier)
        if start is not None:
            job.rounded = start.scaled
        elif asked not in (None, request.size):
            job.rounded = "{}x{} is drawn as {}x{}, the nearest size of this model".format(*asked, *request.size)
        with self._lock:
            if self._closed:
                raise ValueError("the engine is shut down: start the program again")
            if len(self._queue) >= self._max_waiting:
                raise QueueFullError(
                    f"{len(self._queue)} jobs are waiting, which is all there is room for: try again soon"
                )
            if owner and sum(waiting.owner == owner for waiting in self._queue) >= MAX_JOBS_PER_VISITOR:
                raise QueueFullError(
                    f"{MAX_JOBS_PER_VISITOR} jobs of yours are waiting: let one of them be drawn first"
                )
            self._queue.append(job)
            self._jobs[job.id] = job
            self._forget_old()
            if self._worker is None:
                self._worker = threading.Thread(target=self._run, name="engine", daemon=True)
                self._worker.start()
            self._work.notify_all()
        return job

    def job(self, id: str) -> Job | None:
        return self._jobs.get(id)

    def jobs(self, owner: str) -> list[Job]:
        """The owner's jobs, oldest first, those over as long as they are remembered."""
        with self._lock:
            return [job for job in self._jobs.values() if job.owner == owner]

    def cancel(self, id: str) -> bool:
        """End a job before its next step. False when there is no such job, or it is over."""
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
        with self._lock:
            return self._queue.index(job) + 1 if job in self._queue else 0

    def close(self) -> None:
        """Cancel everything and end the worker."""
        with self._lock:
            self._closed = True
            ids = [id for id, job in self._jobs.items() if not job.is_done]
            self._work.notify_all()
        for id in ids:
            self.cancel(id)
        if self._worker is not None:
            self._worker.join(timeout=60)

    def render_preview(
        self, model: TextToImage, canvas: TokenGrid, start: InpaintingInput | None = None
    ) -> list[Image.Image]:
        """The pictures on a canvas, holes transparent. One at a time: previews must not starve the drawing."""
        with self._decoding:
            images = model.images_of(canvas)
        if start is not None:
            images = [start.paste_back(image) for image in images]
        if not bool(canvas.mask.any()):
            return images
        rows, columns = canvas.grid
        for image, hole in zip(images, canvas.mask.cpu(), strict=True):
            cells = Image.fromarray((255 - (255 - SHARPEST_HOLE) * hole.view(rows, columns).byte().numpy()), "L")
            image.putalpha(cells.resize(image.size, Image.Resampling.NEAREST))
        return images

    def _run(self) -> None:
        while True:
            with self._lock:
                self._work.wait_for(lambda: self._closed or self._queue or self._lanes)
                if self._closed and not self._lanes:
                    return
                joining = self._admit()
            for job in joining:
                self._join(job)
            if self._lanes:
                key, lane = next(iter(self._lanes.items()))
                self._lanes.move_to_end(key)
                try:
                    self._advance(key, lane)
                except Exception as error:  # a fault of ours: it may cost this lane, never the worker
                    self._abandon(key, lane, error)

    def _admit(self) -> list[Job]:
        """The jobs that may begin now: in their order, while their pictures find room."""
        room = self._max_rows - sum(lane.rows for lane in self._lanes.values())
        joining = []
        while self._queue and self._queue[0].request.rows <= room:
            job = self._queue.popleft()
            room -= job.request.rows
            joining.append(job)
        return joining

    def _join(self, job: Job) -> None:
        try:
            job.change(status=Status.RUNNING, began=time.monotonic())
            sketch = RunningJob.begin(job._loaded.model, job._loaded.encode, job.request, job.start, job.earlier)
            if sketch.is_done:  # the new words leave everything as it is
                job.change(frames=[StepSnapshot(1, 1, sketch.nfe_per_image, sketch.visible_grid)])
                self._finish(job)
            else:
                self._place(sketch, job)
        except Exception as error:
            self._fail(job, error)

    def _place(self, sketch: RunningJob, job: Job) -> None:
        """Into the lane where it takes its next step."""
        lane = self._lanes.setdefault((id(job._loaded), *sketch.key), Batch(job._loaded.model))
        lane.sketches.append(sketch)
        self._job_of[sketch] = job

    def _advance(self, key: tuple, lane: Batch) -> None:
        """One step of everything in a lane, and what follows from it."""
        for sketch in list(lane.sketches):
            if self._job_of[sketch].cancelled:
                self._leave(lane, sketch).end(Status.CANCELLED)
        for sketch, error in list(lane.step()):
            self._fail(self._leave(lane, sketch), error)
        for sketch in list(lane.sketches):
            job = self._job_of[sketch]
            try:
                before = job.frames
                if sketch.is_done and sketch.candidates > 1:  # what was shown so far need not be what is chosen
                    past = sketch.choose(job._loaded.model)
                    before = [replace(frame, grid=canvas) for frame, canvas in zip(before, past, strict=False)]
                frame, elsewhere = StepSnapshot.after(sketch), key != (id(job._loaded), *sketch.key)
            except Exception as error:
                self._fail(self._leave(lane, sketch), error)
                continue
            job.change(frames=[*before, frame], _seen=job._seen if before is job.frames else None)
            if sketch.is_done:
                self._finish(self._leave(lane, sketch))
            elif elsewhere:  # the twin has done its part
                self._place(sketch, self._leave(lane, sketch))
        if not lane.sketches:
            del self._lanes[key]

    def _abandon(self, key: tuple, lane: Batch, error: Exception) -> None:
        """Give up a lane, and tell all who wait for it."""
        self._lanes.pop(key, None)
        for sketch in list(lane.sketches):
            self._fail(self._leave(lane, sketch), error)

    def _leave(self, lane: Batch, sketch: RunningJob) -> Job:
        lane.sketches.remove(sketch)
        return self._job_of.pop(sketch)

    def _finish(self, job: Job) -> None:
        try:
            pictures = self.render_preview(job._loaded.model, job.frames[-1].grid, job.start)
        except Exception as error:
            self._fail(job, error)
            return
        job.change(_pictures=pictures)
        if job._finished is not None:
            try:
                job._finished(job)
            except Exception:
                log.exception("what was to follow job %s failed", job.id)
        job.end(Status.DONE)
        with self._lock:
            self._forget_old()

    def _fail(self, job: Job, error: Exception) -> None:
        """ValueErrors are for the person who asked; anything else is ours, and goes to the log with its traceback."""
        message = str(error)
        if not isinstance(error, ValueError):
            log.error("job %s failed", job.id, exc_info=error)
            message = f"the drawing failed ({type(error).__name__}: {error}): try again, or other settings"
        job.end(Status.FAILED, error=" ".join(message.split()))

    def _forget_old(self) -> None:
        """Of the jobs that are over, the oldest, until those left are few and small enough."""
        over = [job for job in self._jobs.values() if job.is_done]
        many, held = len(self._jobs) - MAX_JOBS_KEPT, sum(job.weight for job in over)
        for i, job in enumerate(over):
            if i >= many and (held <= MAX_JOB_BYTES or job is over[-1]):
                return
            held -= job.weight
            del self._jobs[job.id]
