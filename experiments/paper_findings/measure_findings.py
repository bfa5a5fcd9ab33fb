"""`maskgil bench paper-findings`: measure what is not known yet, and print the table.

What an arm gave for a seed is appended to `results` under a key that stands for all that it depends on: a run that
was killed goes on, arms that findings share are computed once, and new weights are measured anew. A finding whose
weights or cache are missing waits, and says so. An arm that fails is a row too, and is tried again only when the code
or its weights have changed. The table is of one n, train and batch.
"""

import hashlib
import math
import shutil
import time
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Literal

from experiments.paper_findings.arm_runner import ArmRunner, Missing
from experiments.paper_findings.arms import Finding, arm_record
from experiments.paper_findings.findings import FINDINGS
from experiments.paper_findings.verdicts import append_row, findings_table, read_rows
from train.run_state import CheckpointWriteError


@cache
def source_hash() -> str:
    """Stands for the sources that train and draw."""
    root = Path(__file__).resolve().parents[2]
    sources = sorted(path for folder in ("maskgil", "train") for path in (root / folder).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def measure_findings(findings: Iterable[Finding], bench: ArmRunner, seeds: int, results: Path) -> Iterator[str]:
    """Run what is not known yet, one arm and seed after the other; yields a line about each.

    What fails is a row too, so that one arm does not cost the night; the same code does not try it again.
    """
    done = {row["key"] for row in read_rows(results) if row.get("code", source_hash()) == source_hash()}
    for finding in findings:
        for seed in range(seeds):
            for arm in finding.arms:
                try:
                    key = bench.key(arm, seed)
                except ValueError as missing:
                    yield f"{finding.name}, {arm.name}: waits, since {missing}"
                    continue
                if key in done:
                    continue
                since = time.perf_counter()
                try:
                    metrics, told = bench.run(arm, seed), {}
                    if "norms" in metrics:
                        told["norms"] = metrics.pop("norms")
                    if strange := [name for name, value in metrics.items() if not math.isfinite(value)]:
                        raise ArithmeticError(f"{', '.join(strange)} is not a number")
                except Missing as missing:
                    yield f"{finding.name}, {arm.name}: waits, since {missing}"
                    continue
                except CheckpointWriteError:  # no arm's failure: with space it goes on where it was
                    raise
                except (ArithmeticError, RuntimeError, ValueError) as error:
                    why = (str(error).splitlines() or [""])[0][:200]
                    metrics, told = {}, {"failed": f"{type(error).__name__}: {why}", "code": source_hash()}
                took = time.perf_counter() - since
                append_row(
                    results,
                    {
                        "key": key,
                        "finding": finding.name,
                        "name": arm.name,
                        "seed": seed,
                        "n": bench.n,
                        "train": bench.train,
                        "batch": bench.batch,
                        "metrics": metrics,
                        "took": round(took, 1),
                        "arm": arm_record(arm),
                        **told,
                    },
                )
                shutil.rmtree(bench.runs / key, ignore_errors=True)  # what was trained for it
                done.add(key)
                if "failed" in told:
                    yield f"{finding.name}, {arm.name}, seed {seed}: failed, {told['failed']} ({took:.0f} s)"
                    continue
                shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
                yield f"{finding.name}, {arm.name}, seed {seed}: {shown} ({took:.0f} s)"


def choose_findings(only: str, kind: str) -> list[Finding]:
    """Findings by name and kind; empty strings choose all. ValueError for what there is not."""
    names = [name for name in only.split(",") if name]
    known = {finding.name: finding for finding in FINDINGS}
    if strange := [name for name in names if name not in known]:
        raise ValueError(f"no finding is called {', '.join(strange)}: there are {', '.join(known)}")
    if kind not in ("", "sampling", "training"):
        raise ValueError(f"kind={kind}: choose sampling or training")
    return [f for f in FINDINGS if (not names or f.name in names) and kind in ("", f.kind)]


def paper_findings(
    only: tuple[str, ...] = (),
    kind: Literal["", "sampling", "training"] = "",
    seeds: int = 2,
    table_only: bool = False,
    results: Path = Path("benchmarks/reproduction.jsonl"),
    runs: Path = Path("runs/reproduce"),
    n: int = 20,
    train: float = 1.0,
    batch: int = 64,
    codes: str = "cache/scenes",
    latents: str = "cache/latents",
    reader: str = "scenes-reader",
    sprites: str = "",
) -> None:
    """Test the two papers' findings on the scene corpus, and print the table of what is known.

    Args:
        only: Names of findings. Left out: all.
        kind: sampling or training findings alone.
        seeds: Seeds of each arm.
        table_only: Print the table and compute nothing.
        results: The file of measurements, a JSON object a line; the same command again continues it.
        runs: The folder of the training runs.
        n: Pictures of each kind that judge an arm.
        train: Share of all training steps.
        batch: Pictures a training step.
        codes: The cache of codes.
        latents: The cache of latents.
        reader: The judge's folder.
        sprites: A folder of drawings.
    """
    for name, number in {"n": n, "seeds": seeds, "batch": batch, "train": train}.items():
        if not number > 0:
            raise ValueError(f"{name}={number}: give more than 0")
    findings = choose_findings(",".join(only), kind)
    if not table_only:
        bench = ArmRunner(
            runs, n=n, train=train, codes=codes, latents=latents, reader=reader, sprites=sprites, batch=batch
        )
        for line in measure_findings(findings, bench, seeds, results):
            print(line, flush=True)
    print(findings_table(findings, read_rows(results), n=n, train=train, batch=batch))
