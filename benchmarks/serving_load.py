"""A crowd at one engine: pictures a second and how long each visitor waits, drawn one by one and in company.

    maskgil bench serving --model scenes --rates 0.5 1 2 all --jobs 40 --rows 16
    maskgil bench serving --preset t2i-xl --dtype bf16      # full size, random weights

Jobs of one picture each arrive at random (exponential gaps, the same for both ways), at `rates` times what this machine
draws alone, or all at once. `solo` draws them one after the other, `shared` up to `rows` of them in each call of the
model (app/serving/local_engine.py). Latency runs from a job's arrival to its pixels; p50 is the median.

The floor of a picture is the longer of two times, at the bandwidth and the rate that this machine reached in this very
run: the weights read once for each step, shared by the rows of a call, and its own multiplications.

Then the same jobs at once in this process and in replicas (benchmarks/replica_load.py).

Last, whether a job's picture is the same alone and in company: the share of tokens that agree, in fp32 and in bf16.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch

import text_encoder
from app.core.request import GenerationRequest
from app.serving.jobs import Job
from app.serving.local_engine import LocalEngine
from benchmarks.generation import PROMPTS, decoding_bytes, preset_model
from benchmarks.job_waiting import wait_until_drawn
from benchmarks.machine import (
    DTYPES,
    Machine,
    Precision,
    Stage,
    default_dtype,
    measure_machine,
    operations_of,
    timed,
    weight_bytes,
)
from benchmarks.replica_load import report_replicas
from maskgil.params import SamplingParams
from maskgil.picture_sizes import Size, parse_size
from maskgil.pipeline import TextToImage
from maskgil.sampling.loop import sample


@dataclass(frozen=True)
class Served:
    """What became of one load: pictures a second from the first arrival to the last picture, latencies in seconds."""

    speed: float
    p50: float
    p99: float
    tokens: torch.Tensor  # (jobs, N)


def arrivals(jobs: int, rate: float, seed: int = 0) -> list[float]:
    """Seconds after the first arrival at which each job comes: a Poisson process of `rate` jobs/s; inf: all at once."""
    if math.isinf(rate):
        return [0.0] * jobs
    gaps = np.random.default_rng(seed).exponential(1 / rate, jobs)
    return (np.cumsum(gaps) - gaps[0]).tolist()


def requests(model: TextToImage, jobs: int, steps: int, size: Size) -> list[GenerationRequest]:
    classes = model.generator.config.classes
    prompts = PROMPTS if classes is None else tuple(map(str, range(min(classes, 10))))
    return [
        GenerationRequest(prompts[i % len(prompts)], seed=i, size=size, params=SamplingParams(steps=steps))
        for i in range(jobs)
    ]


def serve_load(model: TextToImage, asked: Sequence[GenerationRequest], times: Sequence[float], rows: int) -> Served:
    """Draw the requests as they arrive, at most `rows` in one call of the model. RuntimeError when one cannot be."""
    engine = LocalEngine(lambda name: model, waiting=len(asked), rows=rows)
    wait_until_drawn(engine.submit(asked[0]))  # the first call is slower
    since, jobs = time.monotonic(), list[Job]()
    for query, at in zip(asked, times, strict=True):
        time.sleep(max(0.0, since + at - time.monotonic()))
        jobs.append(engine.submit(query))
    for job in jobs:
        wait_until_drawn(job)
    engine.close()
    waited = np.array([job.ended - job.asked for job in jobs])
    speed = len(jobs) / (max(job.ended for job in jobs) - since)
    tokens = torch.cat([job.frames[-1].grid.tokens.cpu() for job in jobs])
    return Served(speed, float(np.percentile(waited, 50)), float(np.percentile(waited, 99)), tokens)


def lone_picture(model: TextToImage, query: GenerationRequest, size: Size) -> Stage:
    """One picture without an engine, with what it cannot do without. Its text is read once, before."""
    condition, blank = model.condition([query.prompt]), model.blank(1, size)
    plan = model.plan(blank, [query.seed], SamplingParams(steps=query.params.steps))

    def draw() -> object:
        return model.pixels(list(sample(model.sampler(condition), blank, plan))[-1])

    painting = decoding_bytes(model.tokenizer)
    calls = sum(1 + (len(step.remask_rows) > 0) for step in plan)  # a refinement pass scores, then decides
    return Stage("a picture", draw, calls * weight_bytes(model.generator) + painting, operations_of(draw))


def floor(picture: Stage, machine: Machine, rows: int) -> float:
    """Seconds a picture when so many share each call."""
    return max(picture.bytes / rows / machine.bandwidth, picture.operations / machine.rate)


HEAD = "| arrivals/s | way | pictures/s | against solo | p50, s | p99, s | p50 against solo | floor, s | x floor |"


def table_rows(rate: float, served: Mapping[str, Served], floors: Mapping[str, float]) -> list[str]:
    """Markdown. `x floor`: of the seconds between two pictures when all come at once, else of the median latency, which
    nobody can have shorter than a picture alone."""
    lines, solo = [], served["solo"]
    for way, found in served.items():
        flood = math.isinf(rate)
        least = floors[way] if flood else floors["solo"]
        seconds = 1 / found.speed if flood else found.p50
        cells = [
            "all at once" if flood else f"{rate:.2f}",
            way,
            f"{found.speed:.2f}",
            f"{found.speed / solo.speed:.2f}x",
            f"{found.p50:.2f}",
            f"{found.p99:.2f}",
            f"{found.p50 / solo.p50:.2f}x",
            f"{least:.4f}",
            f"{seconds / least:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def agreement(model: TextToImage, asked: Sequence[GenerationRequest], rows: int) -> tuple[float, float]:
    """(share of tokens, share of pictures) that are the same drawn alone and drawn in company."""
    at_once = arrivals(len(asked), math.inf)
    alone, company = (serve_load(model, asked, at_once, n).tokens for n in (1, rows))
    same = alone == company
    return float(same.float().mean()), float(same.flatten(1).all(1).float().mean())


@torch.no_grad()
def report_serving(
    models: Mapping[str, TextToImage],
    rates: Sequence[float],
    jobs: int,
    rows: int,
    steps: int,
    repeats: int,
    size: Size,
) -> None:
    """Print what was measured, as it comes. The first of the models, by the names of their types, is timed."""
    kind, model = next(iter(models.items()))
    device, dtype = model.device, model.dtype
    machine = measure_machine(device, dtype)
    print(f"{machine.name}; torch {torch.__version__}, {kind}, {size[0]}x{size[1]}, {steps} steps, {jobs} jobs a load")
    print(f"measured here: {machine.bandwidth / 1e9:.1f} GB/s copied, {machine.rate / 1e12:.2f} TFLOP/s multiplied")
    asked = requests(model, jobs, steps, size)
    picture = lone_picture(model, asked[0], size)
    alone = timed(picture, repeats, device)
    floors = {"solo": floor(picture, machine, 1), "shared": floor(picture, machine, rows)}
    print(f"a picture without the engine: {alone.seconds:.4f} s (median of {alone.runs}), ", end="")
    print(f"{alone.seconds / floors['solo']:.1f} x its floor\n\n{HEAD}\n|{'---|' * (HEAD.count('|') - 1)}", flush=True)
    for multiple in rates:
        rate = multiple / alone.seconds
        times = arrivals(jobs, rate)
        served = {"solo": serve_load(model, asked, times, 1), "shared": serve_load(model, asked, times, rows)}
        print("\n".join(table_rows(rate, served, floors)), flush=True)
    print()
    for kind, model in models.items():
        tokens, pictures = agreement(model, asked, rows)
        print(f"{kind}: {tokens:.2%} of tokens and {pictures:.0%} of pictures ", end="")
        print(f"are the same alone and in company of {rows}", flush=True)


def bench_serving(
    model: str = "scenes",
    preset: str = "",
    rates: tuple[str, ...] = ("0.5", "1", "2", "all"),
    jobs: int = 40,
    rows: int = 16,
    steps: int = 8,
    repeats: int = 5,
    size: str = "",
    dtype: Precision | None = None,
    replicas: tuple[int, ...] = (1, 2),
) -> None:
    """Pictures a second and waiting times of many visitors: one engine, drawing one by one and in shared batches, and
    replicas in processes of their own.

    Args:
        model: A model folder.
        preset: A full-size preset with random weights instead, such as t2i-xl.
        rates: Arrivals as multiples of what the machine draws alone; all: everyone at once.
        jobs: Jobs of one picture at each rate.
        rows: Jobs that share a call of the model.
        steps: Steps of each drawing.
        repeats: Runs of a picture without the engine; the median is printed.
        size: Width x height in pixels. Left out: the model's first size.
        dtype: Precision of the generator. Left out: bf16 on a GPU, fp32 on a CPU.
        replicas: Numbers of replicas to compare with one engine; needs maskgil[serve]. A preset has no folder that they
            could load, and is measured only in this process.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    first, side = dtype or default_dtype(device), parse_size(size) if size else None
    multiples = [math.inf if rate == "all" else float(rate) for rate in rates]
    if min(multiples) <= 0 or min(jobs, rows, repeats, *replicas) < 1:
        raise ValueError("rates must be above 0, and jobs, rows, repeats and replicas at least 1")
    models = {}
    for kind in sorted(DTYPES, key=lambda kind: kind != first):
        if preset:
            side = side or (256, 256)
            with torch.random.fork_rng():
                torch.manual_seed(0)  # the same random weights in every type
                models[kind] = preset_model(preset, side, device, DTYPES[kind])
        else:
            models[kind] = TextToImage.load(model, text_encoder.load, device, DTYPES[kind])
            side = models[kind].validate_size(side)
    assert side is not None
    report_serving(models, multiples, jobs, rows, steps, repeats, side)
    if preset:
        print("\nreplicas were not measured: a preset has no folder that they could load")
    elif find_spec("ray") is None:
        print("\nreplicas were not measured: pip install 'maskgil[serve]'")
    elif replicas:
        asked = requests(next(iter(models.values())), jobs, steps, side)
        models.clear()
        report_replicas(model, asked, replicas)


if __name__ == "__main__":
    raise SystemExit("error: this command is `maskgil bench serving` now")
