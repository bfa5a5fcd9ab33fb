"""A cluster of this machine: replicas in processes of their own draw what one engine draws."""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from app_fixtures import tiny_model

import text_encoder
from app.core.request import GenerationRequest
from app.serving.cluster_options import ClusterOptions
from app.serving.engine import Engine
from app.serving.job_table import QueueFullError
from app.serving.jobs import Job, Status
from app.serving.local_engine import LocalEngine
from app.serving.services import ComputeBackend
from maskgil.inpainting import inpainting_input
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from speech.audio import RATE

pytest.importorskip("ray", reason="Ray Serve is in the extra maskgil[serve]")
from ray import serve  # noqa: E402
from ray.serve.exceptions import RayServeException  # noqa: E402
from ray.serve.handle import DeploymentHandle  # noqa: E402

from app.serving import cluster, cluster_engine  # noqa: E402
from app.serving.cluster_messages import DrawTask  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
RECOGNIZER = ROOT / "weights" / "whisper-scenes"
SECONDS = 240.0


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


@contextmanager
def connected(folder: Path, replicas: int) -> Iterator[ComputeBackend]:
    """A cluster of this machine with the model `tiny`, which ends with the tests."""
    tiny_model(folder / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASKGIL_WEIGHTS", str(folder))
        patch.setenv("MASKGIL_MODEL", "tiny")
        patch.setenv("MASKGIL_RECOGNIZER", str(RECOGNIZER))
        yield cluster.connect(ClusterOptions(replicas=replicas, threads=1, waiting=6))


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComputeBackend]:
    with connected(tmp_path_factory.mktemp("weights"), replicas=1) as backend:
        yield backend


@pytest.fixture(scope="module")
def engine(backend: ComputeBackend) -> Iterator[Engine]:
    engine = backend.open_engine()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def alone(engine: Engine) -> Iterator[LocalEngine]:
    """An engine of this process with the same model."""
    local = LocalEngine()
    yield local
    local.close()


def query(seed: int = 0, prompt: str = "two cats on the beach", n: int = 1, **params: object) -> GenerationRequest:
    return GenerationRequest(prompt, model="tiny", seed=seed, n=n, params=SamplingParams(**params))


def done(job: Job) -> Job:
    assert job.wait(SECONDS) and job.status is Status.DONE, (job.status, job.error)
    return job


def assert_same_drawing(one: Job, other: Job) -> None:
    """Every token of every step, and the images to the rounding of a batch."""
    assert [frame.step for frame in one.frames] == [frame.step for frame in other.frames]
    for mine, theirs in zip(one.frames, other.frames, strict=True):
        assert torch.equal(mine.grid.tokens, theirs.grid.tokens) and torch.equal(mine.grid.mask, theirs.grid.mask)
    for mine, theirs in zip(one.pictures(), other.pictures(), strict=True):
        assert np.abs(np.asarray(mine, dtype=int) - np.asarray(theirs, dtype=int)).max() <= 1


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "request_of_tiny",
    [query(1), query(2, n=3, steps=4), query(3, candidates=2), query(4, refinement_passes=1), query(5, "a red apple")],
    ids=["one", "several", "candidates", "refined", "other words"],
)
def test_a_replica_draws_what_one_engine_draws(engine: Engine, alone: LocalEngine, request_of_tiny: GenerationRequest):
    kept: list[str] = []
    job = engine.submit(request_of_tiny, "somebody", finished=lambda job: kept.append(job.id))
    assert_same_drawing(done(job), done(alone.submit(request_of_tiny)))
    assert kept == [job.id] and engine.job(job.id) is job and engine.jobs("somebody")[-1] is job
    assert len(job.preview(0)) == request_of_tiny.n


def test_a_model_outside_the_weights_is_drawn_there_under_its_name(engine: Engine, alone: LocalEngine, tmp_path: Path):
    folder = str(tiny_model(tmp_path / "mine"))
    for each in (engine, alone):
        each.load(folder)
    wanted = replace(query(3), model="mine")
    job = done(engine.submit(wanted))
    assert_same_drawing(job, done(alone.submit(wanted)))
    assert job.request.model == "mine"


def test_edits_and_continued_jobs_are_drawn_there_too(engine: Engine, alone: LocalEngine):
    first, local_first = done(engine.submit(query(6))), done(alone.submit(query(6)))
    after = query(6, "two red dogs on the beach")
    assert_same_drawing(done(engine.submit(after, after=first)), done(alone.submit(after, after=local_first)))
    start = inpainting_input(alone.load("tiny").model, local_first.pictures()[0], range(10))
    edit = query(7, "a red apple")
    job = done(engine.submit(edit, start=start))
    assert_same_drawing(job, done(alone.submit(edit, start=start)))
    assert len(job.preview(0)) == 1


def test_what_cannot_be_drawn_is_refused_and_a_full_queue_says_so(engine: Engine):
    with pytest.raises(ValueError, match="text encoder reads"):
        engine.submit(query(prompt="cat " * 100))
    jobs = [engine.submit(query(seed, n=16, steps=64), f"owner {seed}") for seed in range(3)]
    with pytest.raises(QueueFullError, match="jobs are waiting"):
        for seed in range(20):
            jobs.append(engine.submit(query(seed, n=16, steps=64), f"owner {seed}"))
    for job in jobs:
        assert job.is_done or engine.cancel(job.id)
    until(lambda: all(job.is_done for job in jobs))
    assert {job.status for job in jobs} <= {Status.CANCELLED, Status.DONE} and engine.status().running == 0
    done(engine.submit(query(1)))


def test_a_job_that_is_cancelled_before_it_is_begun_ends(engine: Engine):
    """The engine's loop stands still while a job is submitted and cancelled, so it learns of both at once."""
    engine._loop.call_soon_threadsafe(time.sleep, 0.5)
    job = engine.submit(query(1), "somebody")
    assert engine.cancel(job.id)
    assert job.wait(30) and job.status is Status.CANCELLED
    assert engine.position(job) == 0 and engine.status().running == 0


class DeafReplicas(DeploymentHandle):
    """A handle whose replicas send no news of a job and do not end it when it is cancelled."""

    def __init__(self):  # no cluster is behind it
        self.draw, self.asked = self, threading.Event()

    def options(self, **options: object) -> "DeafReplicas":
        return self

    def remote(self, task: DrawTask) -> "DeafReplicas":
        return self

    def __aiter__(self) -> "DeafReplicas":
        return self

    async def __anext__(self) -> object:
        self.asked.set()
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()


def test_close_ends_the_jobs_that_the_replicas_do_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = TextToImage.load(tiny_model(tmp_path / "tiny"), text_encoder.load)
    monkeypatch.setattr(cluster_engine, "CLOSE_SECONDS", 0.2)
    replicas = DeafReplicas()
    engine = cluster_engine.ClusterEngine(replicas, lambda name: model)
    job = engine.submit(query(1), "somebody")
    assert replicas.asked.wait(SECONDS)
    engine.close()
    assert job.status is Status.CANCELLED and engine.position(job) == 0 and not engine.status().running


@pytest.mark.skipif(not RECOGNIZER.is_dir(), reason="needs the bundled weights")
def test_recognizers_answer_from_their_replicas(backend: ComputeBackend, engine: Engine):
    recognizer = backend.open_recognizer(str(RECOGNIZER))
    recognizer.load()
    assert recognizer.transcribe_live(np.zeros(RATE, np.float32)).words == ()
    with pytest.raises(ValueError, match="not audio"):
        recognizer.transcribe(b"nothing")
    with pytest.raises(ValueError, match="no recognizer"):
        backend.open_recognizer("/nowhere").load()


def test_ray_listens_for_this_machine_and_asks_for_a_token(engine: Engine):
    """Ray Serve lets the port of a replica listen on all networks; the token guards it."""
    listening = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if "ray" not in command:
                continue  # of another test of this process
            if "ServeReplica" not in command:
                listening += [one.laddr for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
            if command.startswith("ray::"):
                continue  # its title is written over its environment, which it has from the raylet
            assert process.environ()["RAY_AUTH_TOKEN"] == os.environ["RAY_AUTH_TOKEN"]
            assert process.environ().get("RAY_AUTH_MODE", "token") == "token"
    assert len(listening) > 3 and {address.ip for address in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


ANOTHER = """
import sys
from app.core.request import GenerationRequest
from app.serving import cluster
from app.serving.cluster_options import ClusterOptions

engine = cluster.connect(ClusterOptions(cluster=sys.argv[1])).open_engine()
job = engine.submit(GenerationRequest("two cats on the beach", model="tiny", seed=1))
job.wait()
print(job.status)
engine.close()
"""


@pytest.mark.timeout(600)
def test_another_server_uses_the_replicas_that_run(engine: Engine):
    """Two servers at one cluster: the second one starts no replicas, and leaves them alone when it ends."""
    import ray

    address = ray.get_runtime_context().gcs_address
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ANOTHER, address]
    other = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert other.returncode == 0, other.stderr[-2000:]
    assert other.stdout.startswith("done")
    done(engine.submit(query(9)))


def test_a_server_waits_for_replicas_that_are_being_deployed(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    """`serve deploy` returns before its applications can be asked for."""
    deployed, tries = serve.get_app_handle, []

    def later(name: str) -> DeploymentHandle:
        tries.append(name)
        if len(tries) < 3:
            raise RayServeException(f"Application '{name}' does not exist.")
        return deployed(name)

    monkeypatch.setattr(serve, "get_app_handle", later)
    assert cluster.handle_when_deployed(cluster.DRAW) == deployed(cluster.DRAW) and len(tries) == 3
    with pytest.raises(ValueError, match="the replicas of nothing do not start: there are none"):
        cluster.handle_when_deployed("nothing")


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-m", "app", "serve", "--cluster", "127.0.0.1:1", "--port", "0"]
    refused = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert refused.returncode == 2 and "no Ray cluster at 127.0.0.1:1" in refused.stderr, refused.stderr[-2000:]
