"""`maskgil bench paper-findings`: measure what is not known yet, and print the table.

What an arm gave for a seed is appended to `results` under a key that stands for all that it depends on: a run that
was killed goes on, arms that findings share are computed once, and new weights are measured anew. Every claim gets
seeds until its interval is at most three points wide, or until `hours` are over. Several processes share the work by
locks, so that the command may also run on several machines with one folder.

A finding whose weights or cache are missing waits, and says so. An arm that fails is a row too, and is tried again only
when the code or its weights have changed. The table is of one n, train and batch.
"""

import fcntl
import hashlib
import math
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from experiments.paper_findings.arm_runner import ArmRunner, Missing
from experiments.paper_findings.arms import Arm, Finding, arm_record
from experiments.paper_findings.findings import FINDINGS
from experiments.paper_findings.night_plan import Measurement, SeedLimits, open_measurements, seconds_left
from experiments.paper_findings.verdicts import LEAST_SEEDS, Row, append_row, findings_table, read_rows
from maskgil import checkpoint
from train.data.latent_cache import cache_latents
from train.data.scene_cache import NOTE, cache_scenes
from train.run_state import CheckpointWriteError

CACHED_SCENES = 16_384  # of each cache that is missing
RESULTS = Path("benchmarks/paper_findings.jsonl")


@cache
def source_hash() -> str:
    """Stands for the sources that train and draw."""
    root = Path(__file__).resolve().parents[2]
    sources = sorted(path for folder in ("maskgil", "train") for path in (root / folder).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


@dataclass(frozen=True)
class Night:
    """How long and how often to measure; `hours` 0 is no limit. A measurement that was begun is finished."""

    limits: SeedLimits = SeedLimits()
    hours: float = 0.0
    processes: int = 1

    def is_over(self, since: float) -> bool:
        return bool(self.hours) and time.monotonic() - since > 3600 * self.hours


def current_rows(findings: Iterable[Finding], bench: ArmRunner, rows: list[Row]) -> list[Row]:
    """The rows of the weights, caches and judge that are there now, and failures of the present code. An arm whose
    weights are missing has none."""
    keys, seeds, kept = _done(rows), {row["seed"] for row in rows}, []
    for finding in findings:
        for arm in finding.arms:
            try:
                kept += [keys[key] for seed in seeds if (key := bench.key(arm, seed)) in keys]
            except ValueError:  # Missing among them
                continue
    return list({row["key"]: row for row in kept}.values())


def measure_findings(findings: Iterable[Finding], bench: ArmRunner, night: Night, results: Path) -> Iterator[str]:
    """Measure what is not known yet, one arm and seed after the other; yields a line about each.

    What fails is a row too, so that one arm does not cost the night; the same code does not try it again.
    """
    findings, made, since = list(findings), (bench.n, bench.train, bench.batch), time.monotonic()
    waiting: dict[Arm, str] = {}  # what each arm waits for
    while not night.is_over(since):
        rows = current_rows(findings, bench, read_rows(results))
        ready = []
        for each in open_measurements(findings, rows, made, night.limits):
            try:
                if each.arm not in waiting:
                    ready.append((each, bench.key(each.arm, each.seed)))
            except ValueError as missing:
                waiting[each.arm] = str(missing)
                yield f"{each.finding.name}, {each.arm.name}: waits, since {missing}"
        if not ready:
            return
        for each, key in ready:
            with _claimed(bench.runs, key) as mine:
                if not mine or key in _done(read_rows(results)):
                    continue
                try:
                    yield measure(each, key, bench, results) + _to_go(ready, rows, night)
                except Missing as missing:
                    waiting[each.arm] = str(missing)
                    yield f"{each.finding.name}, {each.arm.name}: waits, since {missing}"
            break
        else:
            time.sleep(2)  # other processes have the rest


def _done(rows: list[Row]) -> dict[str, Row]:
    """{key: row} without what failed with other code, which is tried again."""
    return {row["key"]: row for row in rows if row.get("code", source_hash()) == source_hash()}


def measure(each: Measurement, key: str, bench: ArmRunner, results: Path) -> str:
    """Measure an arm with a seed and append its row; returns a line about it. Missing as `ArmRunner.run`."""
    began, name = time.perf_counter(), f"{each.finding.name}, {each.arm.name}, seed {each.seed}"
    told: dict[str, Any] = {}
    try:
        metrics = bench.run(each.arm, each.seed)
        if "norms" in metrics:
            told["norms"] = metrics.pop("norms")
        if strange := [metric for metric, value in metrics.items() if not math.isfinite(value)]:
            raise ArithmeticError(f"{', '.join(strange)} is not a number")
    except (Missing, CheckpointWriteError):  # no arm's failure: later it goes on where it was
        raise
    except (ArithmeticError, RuntimeError, ValueError) as error:
        why = (str(error).splitlines() or [""])[0][:200]
        metrics, told = {}, {"failed": f"{type(error).__name__}: {why}", "code": source_hash()}
    took = time.perf_counter() - began
    row = {"key": key, "finding": each.finding.name, "name": each.arm.name, "seed": each.seed, "n": bench.n}
    row |= {"train": bench.train, "batch": bench.batch, "metrics": metrics, "took": round(took, 1)}
    append_row(results, row | {"arm": arm_record(each.arm), **told})
    shutil.rmtree(bench.runs / key, ignore_errors=True)  # what was trained for it
    if "failed" in told:
        return f"{name}: failed, {told['failed']} ({took:.0f} s)"
    return f"{name}: {', '.join(f'{metric} {value:.4g}' for metric, value in metrics.items())} ({took:.0f} s)"


def _to_go(ready: list[tuple[Measurement, str]], rows: list[Row], night: Night) -> str:
    seconds, unknown = seconds_left([each for each, _ in ready], rows)
    more = f" and {unknown} arms that were not measured before" if unknown else ""
    return f"; about {seconds / 3600 / night.processes:.1f} h to go{more}"


@contextmanager
def _claimed(runs: Path, key: str) -> Iterator[bool]:
    """Whether this process alone measures what `key` stands for. The system frees the lock of a process that ends."""
    locks = runs / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / key).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def choose_findings(only: str, kind: str) -> list[Finding]:
    """Findings by name and kind; empty strings choose all. ValueError for what there is not."""
    names = [name for name in only.split(",") if name]
    known = {finding.name: finding for finding in FINDINGS}
    if strange := [name for name in names if name not in known]:
        raise ValueError(f"no finding is called {', '.join(strange)}: there are {', '.join(known)}")
    if kind not in ("", "sampling", "training"):
        raise ValueError(f"kind={kind}: choose sampling or training")
    return [f for f in FINDINGS if (not names or f.name in names) and kind in ("", f.kind)]


def make_caches(bench: ArmRunner, findings: Iterable[Finding]) -> None:
    """Make the caches that training arms need and that are not there, from the bundled tokenizer."""
    models = [arm.model for finding in findings for arm in finding.arms if not isinstance(arm.model, str)]
    for latents, folder, make in ((False, bench.codes, cache_scenes), (True, bench.latents, cache_latents)):
        if any(small.latents == latents for small in models) and not (Path(folder) / NOTE).is_file():
            home = checkpoint.resolve(bench.homes[latents])
            print(f"making {folder}, {CACHED_SCENES:,} scenes", flush=True)
            make(str(home / "tokenizer"), folder, sprites=bench.sprites or None, total=CACHED_SCENES)


def _measure_in_process(names: list[str], bench: ArmRunner, night: Night, results: Path) -> None:
    """What each of several processes does, on its share of the cores."""
    torch.set_num_threads(max(1, torch.get_num_threads() // night.processes))
    try:
        for line in measure_findings([f for f in FINDINGS if f.name in names], bench, night, results):
            print(line, flush=True)
    except (ValueError, KeyboardInterrupt) as error:
        if night.processes == 1:
            raise
        print(" ".join(str(error).split()) or "interrupted", file=sys.stderr)
        sys.exit(1)


def measure_in_processes(findings: list[Finding], bench: ArmRunner, night: Night, results: Path) -> None:
    """`measure_findings` in several processes at once. ValueError when one of them failed; the others finish."""
    names = [finding.name for finding in findings]
    if night.processes == 1:
        _measure_in_process(names, bench, night, results)
        return
    context = torch.multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_measure_in_process, args=(names, bench, night, results)) for _ in range(night.processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed := [worker.exitcode for worker in workers if worker.exitcode]:
        raise ValueError(
            f"{len(failed)} of {len(workers)} processes failed: the same command goes on where they stopped"
        )


def paper_findings(
    only: tuple[str, ...] = (),
    kind: Literal["", "sampling", "training"] = "",
    hours: float = 0.0,
    processes: int = 1,
    seeds: int = LEAST_SEEDS,
    most_seeds: int = SeedLimits.most,
    table_only: bool = False,
    results: Path = RESULTS,
    runs: Path = Path("runs/reproduce"),
    n: int = 20,
    train: float = 1.0,
    batch: int = 64,
    codes: str = "cache/scenes",
    latents: str = "cache/latents",
    reader: str = "scenes-reader",
    sprites: str = "",
) -> None:
    """Test the two papers' findings on the scene corpus with the weights that ship, and print the table.

    Every claim gets seeds until its 95% interval is at most 3 points wide. The same command continues after a kill.

    Args:
        only: Names of findings. Left out: all.
        kind: only sampling findings, or only training findings.
        hours: Begin nothing new after so many hours. 0: until every claim has its interval or the most seeds.
        processes: Processes that share the work, each on its share of the cores.
        seeds: Seeds that each arm gets at the least.
        most_seeds: Seeds after which an arm stops, however wide its intervals are.
        table_only: Print the table and compute nothing.
        results: The file of measurements, a JSON object a line; the same command again continues it.
        runs: The folder of the training runs.
        n: Pictures of each kind that judge an arm with a seed.
        train: Share of all training steps.
        batch: Pictures a training step.
        codes: The cache of codes; made where it is missing.
        latents: The cache of latents; made where it is missing.
        reader: The judge's folder.
        sprites: A folder of drawings, for caches that are made and for true pictures through the tokenizer.
    """
    numbers = {"n": n, "seeds": seeds, "batch": batch, "train": train, "processes": processes}
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name}={number}: give more than 0")
    if not hours >= 0 or most_seeds < seeds:
        raise ValueError(f"hours={hours}, most_seeds={most_seeds}: give 0 or more hours, and {seeds} seeds or more")
    findings = choose_findings(",".join(only), kind)
    bench = ArmRunner(runs, n=n, train=train, codes=codes, latents=latents, reader=reader, sprites=sprites, batch=batch)
    if not table_only:
        make_caches(bench, findings)
        measure_in_processes(findings, bench, Night(SeedLimits(seeds, most_seeds), hours, processes), results)
    print(findings_table(findings, current_rows(findings, bench, read_rows(results)), n=n, train=train, batch=batch))
