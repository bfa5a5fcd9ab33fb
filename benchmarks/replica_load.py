"""One engine against replicas in processes of their own: pictures a second and waiting times, in one run.

All jobs arrive at once. The engine draws in this process; the replicas are those of `maskgil serve --replicas N` here
(app/serving/cluster.py), with the cores shared among them. Starting them is not timed. On few cores replicas
gain what more threads would: they pay where there are more cores, GPUs or machines than one process can use.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from app.core import paths
from app.core.request import GenerationRequest
from app.serving.cluster_options import ClusterOptions
from app.serving.engine import Engine
from app.serving.local_engine import LocalEngine
from benchmarks.job_waiting import wait_until_drawn

REPLICA_HEAD = "| way | pictures/s | against one engine | p50, s | p99, s |"


def drawn_at_once(engine: Engine, asked: Sequence[GenerationRequest]) -> tuple[float, list[float]]:
    """(pictures a second, the seconds that each job took). RuntimeError when a job fails."""
    start, jobs = time.monotonic(), [engine.submit(request) for request in asked]
    for job in jobs:
        wait_until_drawn(job)
    seconds = max(job.ended for job in jobs) - start
    return sum(request.n for request in asked) / seconds, [job.ended - job.asked for job in jobs]


def report_replicas(model: str, asked: Sequence[GenerationRequest], replicas: Sequence[int]) -> None:
    """Print a table: this process, then each number of replicas. `model`: the folder or bundled name of the requests'
    model."""
    asked = [replace(request, model=model) for request in asked]
    os.environ[paths.MODEL] = model  # what replicas load at their start
    print(f"\n{len(asked)} jobs at once; {os.cpu_count()} cores\n{REPLICA_HEAD}")
    print("|" + "---|" * (REPLICA_HEAD.count("|") - 1), flush=True)
    first = 0.0
    for count in (0, *replicas):
        engine = _engine(count, waiting=len(asked))
        try:
            for request in asked[: max(1, 2 * count)]:  # every replica has drawn once
                wait_until_drawn(engine.submit(request))
            speed, waited = drawn_at_once(engine, asked)
        finally:
            engine.close()
        first = first or speed
        way = f"{count} replica{'s' if count > 1 else ''}" if count else "one engine"
        p50, p99 = np.percentile(waited, 50), np.percentile(waited, 99)
        print(f"| {way} | {speed:.2f} | {speed / first:.2f}x | {p50:.2f} | {p99:.2f} |", flush=True)


def _engine(replicas: int, waiting: int) -> Engine:
    """The engine of this process for 0, else one of so many replicas. Raises ValueError when they do not start."""
    if not replicas:
        return LocalEngine(waiting=waiting)
    from app.serving import cluster

    return cluster.connect(ClusterOptions(replicas=replicas, waiting=waiting)).open_engine()
