"""What draws: the protocol that pages, sockets and programs use, and what its two implementations share.

LocalEngine (app/serving/local_engine.py) draws in this process, ClusterEngine (app/serving/cluster_engine.py) in the
replicas of a Ray Serve application; both inherit from Engine. Nobody else knows which one is there.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import torch
from PIL import Image

from app.core.request import GenerationRequest
from app.serving.job_table import EngineStatus, JobTable
from app.serving.jobs import Job
from app.serving.model_pool import LoadedModel, ModelPool
from maskgil.inpainting import InpaintingInput
from maskgil.sampling.token_grid import TokenGrid

MAX_ROWS = 16  # images, or candidates of images, that one process draws at once


@runtime_checkable
class Engine(Protocol):
    """Draws requests as jobs (app/serving/jobs.py). Safe to use from several threads.

    models  those in memory of this process
    table   the jobs that wait, those that run and the last ones that ended
    """

    models: ModelPool
    table: JobTable

    def load(self, name: str, dtype: torch.dtype | None = None, encoder_memory: str | None = None) -> LoadedModel:
        """The model of this name, in memory of this process (ModelPool.load), and held in the same way wherever its
        next jobs are drawn. Raises ValueError."""
        return self.models.load(name, dtype, encoder_memory)

    def loaded(self) -> list[str]:
        """Names of the models in memory of this process."""
        return self.models.names()

    def unload(self, name: str) -> None:
        """Forget a model here; its running jobs finish. A replica forgets it when other models are asked for."""
        self.models.unload(name)

    def place(self, owner: str = "") -> AbstractContextManager[None]:
        """Holds a place in the queue for a job of this owner until it is submitted. It returns at once and waits for no
        model, so an event loop may call it. Raises QueueFullError when there is no place."""
        return self.table.place(owner)

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
        so. `finished` is called with the job, on a thread of the engine, between its images and its end. `after`: a job
        whose grid this one continues where it can (maskgil/sampling/remasking.py).

        The call takes as long as the model takes to load: no event loop may wait for it. Raises ValueError for what
        the model cannot draw, and QueueFullError, a ValueError, when the queue is full.
        """
        ...

    def job(self, id: str) -> Job | None:
        """The job of this id; None once it is forgotten."""
        return self.table.jobs.get(id)

    def jobs(self, owner: str) -> list[Job]:
        """The owner's jobs, oldest first; finished ones as long as they are kept."""
        return self.table.of(owner)

    def cancel(self, id: str) -> bool:
        """End a job before its next step. Returns False when there is no such job, and where it is over or its images
        are being kept (JobTable.commit)."""
        ...

    def position(self, job: Job) -> int:
        """Jobs in the queue up to and including this one; 0 once it runs."""
        return self.table.position(job)

    def status(self) -> EngineStatus:
        """How much is waiting and running."""
        return self.table.status()

    def render_preview(self, job: Job, grid: TokenGrid) -> list[Image.Image]:
        """The images of a grid of this job, undecided cells transparent."""
        ...

    def close(self, grace: float = 0.0) -> None:
        """Refuse new jobs, cancel the waiting ones, let the running ones finish for `grace` seconds, and cancel the
        rest."""
        ...
