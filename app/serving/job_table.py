"""The jobs of an engine: those that wait, those that run and the last ones that ended; and who may bring another."""

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.serving.jobs import Job, Status

MAX_WAITING = 64  # jobs
MAX_JOBS_PER_VISITOR = 8  # waiting jobs of one visitor
MAX_JOBS_KEPT = 64  # finished jobs that are kept ...
MAX_JOB_BYTES = 256 * 2**20  # ... and bytes of their steps and images; the last one is always kept


class QueueFullError(ValueError):
    """The queue has no room for another job; the caller can try again later."""


@dataclass(frozen=True)
class EngineStatus:
    """Jobs that wait, jobs that run, and the rows of those that run."""

    queued: int
    running: int
    rows: int


class JobTable:
    """`waiting` and `jobs` are read and changed with the `lock` held; `closed`: no job may come any more."""

    def __init__(self, max_waiting: int = MAX_WAITING):
        self.lock = threading.Lock()
        self.closed = False
        self.waiting: deque[Job] = deque()
        self.jobs: OrderedDict[str, Job] = OrderedDict()
        self._max_waiting = max_waiting
        self._places: Counter[str] = Counter()  # submissions on their way, by owner

    @contextmanager
    def place(self, owner: str) -> Iterator[None]:
        """Engine.place."""
        with self.lock:
            self._check_room(owner)
            self._places[owner] += 1
        try:
            yield
        finally:
            with self.lock:
                self._places[owner] -= 1
                self._places += Counter()  # drops the owners at 0

    def add(self, job: Job) -> None:
        """With the lock held: queue a job. Raises QueueFullError."""
        self._check_room(job.owner, submitting=True)
        self.waiting.append(job)
        self.jobs[job.id] = job
        self.forget_old()

    def commit(self, job: Job) -> bool:
        """Whether a job whose images are there may keep them; from then on it cannot be cancelled. False where it was
        cancelled before."""
        with self.lock:
            job.committed = not job.cancelled
            return job.committed

    def _check_room(self, owner: str, submitting: bool = False) -> None:
        """With the lock held. Places of others count against a new place, and not against a job that has one."""
        if self.closed:
            raise ValueError("the engine is shut down: start the program again")
        waiting = len(self.waiting) + (0 if submitting else self._places.total())
        if waiting >= self._max_waiting:
            raise QueueFullError(f"{waiting} jobs are waiting, which is all there is room for: try again soon")
        own = sum(job.owner == owner for job in self.waiting) + (0 if submitting else self._places[owner])
        if owner and own >= MAX_JOBS_PER_VISITOR:
            raise QueueFullError(f"{own} jobs of yours are waiting: let one of them be drawn first")

    def of(self, owner: str) -> list[Job]:
        """Engine.jobs."""
        with self.lock:
            return [job for job in self.jobs.values() if job.owner == owner]

    def position(self, job: Job) -> int:
        """Engine.position."""
        with self.lock:
            return self.waiting.index(job) + 1 if job in self.waiting else 0

    def status(self) -> EngineStatus:
        """Engine.status."""
        with self.lock:
            running = [job for job in self.jobs.values() if job.status is Status.RUNNING]
            return EngineStatus(len(self.waiting), len(running), sum(job.request.rows for job in running))

    def drain(self, cancel: Callable[[str], object], grace: float) -> list[Job]:
        """Take no more jobs, cancel those that wait, let those that run finish for `grace` seconds, and cancel the
        rest. Returns all of them, of which the cancelled ones may end a little later.

        `cancel` is called with the ids of jobs, without the lock.
        """
        with self.lock:
            self.closed = True
            waiting = list(self.waiting)
            running = [job for job in self.jobs.values() if not job.is_done and job not in waiting]
        for job in waiting:
            cancel(job.id)
        end = time.monotonic() + grace
        for job in running:
            if not job.wait(max(0.0, end - time.monotonic())):
                cancel(job.id)
        return [*waiting, *running]

    def forget_old(self) -> None:
        """With the lock held: forget the oldest finished jobs until the rest are within MAX_JOBS_KEPT and
        MAX_JOB_BYTES."""
        over = [job for job in self.jobs.values() if job.is_done]
        excess, size = len(self.jobs) - MAX_JOBS_KEPT, sum(job.weight for job in over)
        for i, job in enumerate(over):
            if i >= excess and (size <= MAX_JOB_BYTES or job is over[-1]):
                return
            size -= job.weight
            del self.jobs[job.id]
