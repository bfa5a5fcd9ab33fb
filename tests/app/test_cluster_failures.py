"""Replicas that are killed, and replicas that are replaced, while they draw: no job is lost or drawn otherwise."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests
from app_fixtures import tiny_model
from test_cluster import ROOT, SECONDS, assert_same_drawing, connected, done, query, until

from app.serving import metrics
from app.serving.engine import Engine
from app.serving.jobs import Job
from app.serving.local_engine import LocalEngine

pytest.importorskip("ray", reason="Ray Serve is in the extra maskgil[serve]")
from app.serving import cluster  # noqa: E402

REPLICA = "ray::ServeReplica:maskgil-draw"


def replica_processes() -> list[int]:
    """Process ids of the replicas that draw for this process."""
    below = psutil.Process().children(recursive=True)
    found = []
    for process in below:
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith(REPLICA):
                found.append(process.pid)
        except psutil.Error:  # it has just ended
            continue
    return sorted(found)


@contextmanager
def kept_busy(engine: Engine) -> Iterator[list[Job]]:
    """Keeps four jobs in the engine, and yields the list of all of them."""
    jobs: list[Job] = []
    more = threading.Event()
    more.set()

    def submit() -> None:
        while more.is_set():
            if sum(not job.is_done for job in jobs) < 4:
                jobs.append(engine.submit(query(len(jobs), n=4, steps=64)))
            time.sleep(0.02)

    submitter = threading.Thread(target=submit)
    submitter.start()
    try:
        yield jobs
    finally:
        more.clear()
        submitter.join()


def test_a_start_of_ray_that_fails_is_tried_again_and_then_named():
    """Ray raises a bare Exception where its processes are too slow."""
    tries = []

    def first_fails() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise Exception("The current node timed out\nduring startup.")

    def always_fails() -> None:
        raise Exception("The current node timed out\nduring startup.")

    cluster.start_here(first_fails)
    assert len(tries) == 2
    with pytest.raises(ValueError, match=r"not start on this machine \(The current node timed out during startup"):
        cluster.start_here(always_fails)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_job_is_lost_when_replicas_are_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """20 times a replica is killed while it draws. Every job finishes, and those that lost a replica are the same as
    drawn alone."""
    redrawn = metrics.REDRAWN._value.get()
    with connected(tmp_path, replicas=2) as backend:
        engine = backend.open_engine()
        with kept_busy(engine) as jobs:
            for kill in range(20):
                until(lambda: len(replica_processes()) == 2)
                seen = len(jobs)
                until(lambda seen=seen: any(0 < len(job.frames) < 64 for job in jobs[seen:]))
                os.kill(replica_processes()[kill % 2], signal.SIGKILL)
            assert metrics.REDRAWN._value.get() >= redrawn + 5, "the kills hit replicas that drew nothing"
        again = {word for record in caplog.records for word in record.getMessage().split()}  # ids of jobs that lost one
        assert_drawn_as_alone(jobs, [job for job in jobs if job.id in again])
        engine.close()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_job_is_interrupted_when_replicas_are_replaced(tmp_path: Path):
    """All replicas are replaced by ones with other options while they draw: those that go finish their jobs."""
    with connected(tmp_path, replicas=2) as backend:
        engine = backend.open_engine()
        until(lambda: len(replica_processes()) == 2)
        before, drawn = set(replica_processes()), metrics.REDRAWN._value.get()
        with kept_busy(engine) as jobs:
            until(lambda: any(job.frames for job in jobs))
            options = {"models": ["tiny"], "threads": 1, "environment": {"MASKGIL_WEIGHTS": str(tmp_path)}}
            placed = {"num_replicas": 2, "ray_actor_options": {"num_cpus": 0.1}}
            cluster.deploy_drawing(options | {"deployment": placed})
            until(lambda: len(replica_processes()) == 2 and not before & set(replica_processes()))
        assert_drawn_as_alone(jobs, [])
        assert metrics.REDRAWN._value.get() == drawn, "replacing replicas interrupted a job"
        engine.close()


def assert_drawn_as_alone(jobs: list[Job], compared: list[Job]) -> None:
    """Every job is done; `compared`, and the first and the last ones, are the same as drawn by one engine."""
    for job in jobs:
        done(job)
    alone = LocalEngine()
    for job in [*compared, *jobs[:10], *jobs[-10:]]:
        assert_same_drawing(job, done(alone.submit(job.request)))
    alone.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_command_serves_and_stops_with_its_replicas(tmp_path: Path):
    tiny_model(tmp_path / "weights" / "scenes")
    words = [sys.executable, "-m", "app", "serve", "--replicas", "1", "--threads", "1", "--port", "0"]
    words += ["--weights", str(tmp_path / "weights"), "--gallery", str(tmp_path / "gallery"), "--recognizer", "none"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(words, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
    try:
        until(lambda: "The studio is at" in log.read_text() or server.poll() is not None)
        assert server.poll() is None, log.read_text()[-2000:]
        url = re.search(r"The studio is at (\S+)", log.read_text())[1]
        until(lambda: requests.get(f"{url}/readyz", timeout=60).status_code == 200)
        replicas = replica_processes()
        assert len(replicas) == 1
        drawing = {"prompt": "two cats", "n": 2, "stream": True, "partial_images": 2}
        answer = requests.post(f"{url}/v1/images/generations", json=drawing, timeout=SECONDS)
        assert answer.text.count("event: image_generation.completed") == 2
        assert answer.text.count("event: image_generation.partial_image") >= 2
        refused = requests.post(f"{url}/v1/images/generations", json=drawing | {"steps": 999}, timeout=SECONDS)
        assert refused.status_code == 400
        assert 'maskgil_jobs_total{status="done"} 1.0' in requests.get(f"{url}/metrics", timeout=60).text
        os.killpg(server.pid, signal.SIGINT)  # as Ctrl-C does: the whole group gets it
        assert server.wait(30) == 0 and "stopped" in log.read_text()
        until(lambda: not any(psutil.pid_exists(pid) for pid in replicas))
    finally:
        if server.poll() is None:
            server.kill()
