"""The two Ray Serve applications of a cluster: replicas that draw, and replicas that transcribe.

`drawing_app` and `recognition_app` build them, from the options of a configuration file (deploy/serve.yaml) or of
`maskgil serve`. A replica that draws is a LocalEngine with its own batching. It loads the models that are asked for,
and Serve sends a job where its model is in memory (model multiplexing).
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ray import serve

from app.core.request import parse_adapters
from app.serving.cluster_messages import DrawTask, EndNews, StepNews, news_of_steps
from app.serving.jobs import Job, Status, StepSnapshot
from app.serving.local_engine import LocalEngine
from app.serving.model_pool import MAX_MODELS
from app.serving.recognizer import SpeechRecognizer, TimedTranscript
from app.serving.shielded import run_or_undo
from speech.greedy_decoding import DecodingContext
from speech.transcriber import Transcript

MAX_ONGOING = 32  # jobs of one replica, drawn or waiting in it; further ones wait where any replica can take them
DRAIN_SECONDS = 120.0  # for running jobs when a replica is replaced


def prepare_process(options: Mapping[str, Any]) -> None:
    """Set this process up. `environment`: variables; `threads`: of PyTorch, 0 leaves them as they are."""
    os.environ.update({name: str(value) for name, value in options.get("environment", {}).items()})
    if threads := int(options.get("threads", 0)):
        torch.set_num_threads(threads)


class DrawingReplica:
    """Draws jobs. `options`: those of prepare_process, and `models`, names that are loaded before the first job."""

    def __init__(self, options: Mapping[str, Any]):
        prepare_process(options)
        self.engine = LocalEngine(waiting=MAX_ONGOING)
        for name in options.get("models", ()):
            self.engine.load(name)

    @serve.multiplexed(max_num_models_per_replica=MAX_MODELS)
    async def hold_model(self, place: str) -> str:
        """Loads the model of DrawTask.place; Serve remembers which replica has it. Raises ValueError."""
        await asyncio.to_thread(self.engine.load, place)
        return place

    async def draw(self, task: DrawTask) -> AsyncIterator[StepNews | EndNews]:
        """The steps of a job as they are made, then its end. A reader that goes away ends the job."""
        try:
            hold: Any = self.hold_model  # the decorator binds it
            await hold(serve.get_multiplexed_model_id())
            job = await run_or_undo(Job.cancel, self._queued, task)
        except ValueError as error:
            yield EndNews(Status.FAILED, str(error))
            return
        try:
            sent: list[StepSnapshot] = []
            began = False
            async for _ in job.changes():
                if job.status is Status.RUNNING and not began:
                    began = True
                    yield StepNews(0)
                frames = list(job.frames)
                if (news := news_of_steps(sent, frames)) is not None:
                    sent = frames
                    yield news
            yield EndNews(job.status, job.error, None if job.images is None else tuple(job.images))
        finally:
            job.cancel()  # a job that is over stays as it is

    def _queued(self, task: DrawTask) -> Job:
        """The job in this replica's engine. Raises ValueError."""
        dtype = None if task.precision is None else getattr(torch, task.precision)
        loaded = self.engine.load(task.place, dtype, task.encoder_memory)
        loaded = loaded.with_adapters(parse_adapters(task.request.adapters))
        if task.request.params.mode != "masked":
            loaded.load_ar_model()
        task = task.to(loaded.model.device)
        return self.engine.queue(Job(self.engine, loaded, task.request, "", task.start, previous=task.previous))


class RecognitionReplica:
    """Transcribes. `options`: those of prepare_process, and `recognizers`, names that are loaded before the first
    call; one that cannot be loaded is refused when it is asked for."""

    def __init__(self, options: Mapping[str, Any]):
        prepare_process(options)
        self._recognizers: dict[str, SpeechRecognizer] = {}
        for name in options.get("recognizers", ()):
            with contextlib.suppress(ValueError):
                self.load(name)

    def load(self, name: str) -> None:
        """Load a recognizer. Raises ValueError when it is missing or broken."""
        self._recognizers.setdefault(name, SpeechRecognizer(name)).load()

    def transcribe(self, name: str, recording: bytes, context: DecodingContext | None = None) -> Transcript:
        """SpeechRecognizer.transcribe."""
        return self._recognizers.setdefault(name, SpeechRecognizer(name)).transcribe(recording, context)

    def transcribe_timed(self, name: str, recording: bytes, context: DecodingContext | None = None) -> TimedTranscript:
        """SpeechRecognizer.transcribe_timed."""
        return self._recognizers.setdefault(name, SpeechRecognizer(name)).transcribe_timed(recording, context)

    def transcribe_live(self, name: str, spoken: np.ndarray, guess: Sequence[int]) -> Transcript:
        """SpeechRecognizer.transcribe_live."""
        return self._recognizers.setdefault(name, SpeechRecognizer(name)).transcribe_live(spoken, guess)


def drawing_app(options: Mapping[str, Any]) -> serve.Application:
    """The application of the replicas that draw (DrawingReplica)."""
    deployment: Any = serve.deployment(
        DrawingReplica,
        name="draw",
        max_ongoing_requests=MAX_ONGOING,
        graceful_shutdown_timeout_s=DRAIN_SECONDS,
        health_check_period_s=5.0,
        health_check_timeout_s=60.0,
    )
    return deployment.options(**options.get("deployment", {})).bind(dict(options))


def recognition_app(options: Mapping[str, Any]) -> serve.Application:
    """The application of the replicas that transcribe (RecognitionReplica)."""
    deployment: Any = serve.deployment(RecognitionReplica, name="transcribe", max_ongoing_requests=4)
    return deployment.options(**options.get("deployment", {})).bind(dict(options))
