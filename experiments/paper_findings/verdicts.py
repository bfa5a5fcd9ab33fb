"""Measurements of arms in a file of JSON lines, the verdicts on claims, and the table.

A claim is judged by the 95% interval (Student's t) of the differences between its arms over seeds; both arms of a seed
are asked for the same scenes and draw from the same random numbers. Differences are in points (MARGIN):

confirmed      the whole interval is on the claimed side; for "no worse", above -MARGIN
not confirmed  the whole interval is on the other side; for "no worse", below -MARGIN
equivalent     the interval holds 0 and lies within MARGIN of it
undecided      none of these: the interval is too wide, or there are fewer than LEAST_SEEDS
"""

import fcntl
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.paper_findings.arms import EXACT, HIGHER, JUDGED, MARGIN, Claim, Finding, arm_record
from train.eval.paired_scores import Z

Row = dict[str, Any]
ArmMetrics = Mapping[int, Mapping[str, float]]  # {seed: metrics} of an arm
LEAST_SEEDS = 3
WIDTH = 3.0  # points: an interval at most so wide settles a claim


def read_rows(path: Path) -> list[Row]:
    """The results so far. A line that a killed run left unfinished is passed over."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in rows if isinstance(row, dict) and "key" in row]


def append_row(path: Path, row: Row) -> None:
    """Add a line that is on disk when this returns; it begins anew where the last one was never finished."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # several processes write; freed when the file is closed
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def student_t(freedom: int) -> float:
    """The 97.5% quantile of Student's t (Fisher and Cornish 1960 above ten degrees of freedom)."""
    table = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
    if freedom <= len(table):
        return table[freedom - 1]
    z = Z
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


@dataclass(frozen=True)
class Assessment:
    """How much `better` of a claim is ahead, in points, with its interval, over so many seeds."""

    gain: float
    low: float
    high: float
    seeds: int
    verdict: str

    @property
    def width(self) -> float:
        return self.high - self.low

    @property
    def settled(self) -> bool:
        """Whether further seeds would add nothing that is asked for."""
        return self.width <= WIDTH

    def __str__(self) -> str:
        if not self.width:
            return f"**{self.verdict}** ({self.gain:+.1f})"
        return f"**{self.verdict}** ({self.gain:+.1f}, {self.low:+.1f} to {self.high:+.1f}, {self.seeds} seeds)"


def assess_claim(claim: Claim, rows: Mapping[str, ArmMetrics], pictures: int = 20 * JUDGED) -> Assessment | None:
    """The assessment of a claim; None when its arms have no seed in common.

    rows: the metrics of each arm's name and seed, each of so many judged pictures.
    """
    one, other = rows.get(claim.better, {}), rows.get(claim.worse, {})
    seeds = [s for s in one if s in other and claim.metric in one[s] and claim.metric in other[s]]
    if not seeds:
        return None
    pairs = [(one[s][claim.metric], other[s][claim.metric]) for s in seeds]
    if claim.metric in HIGHER:
        gains = [a - b for a, b in pairs]
    else:
        unit = max(sum(abs(pair[arm]) for pair in pairs) / len(pairs) for arm in (0, 1)) / 100 or 1.0
        gains = [(b - a) / unit for a, b in pairs]
    mean = sum(gains) / len(gains)
    half = 0.0 if claim.metric in EXACT else _half_width(gains, claim, pairs, pictures)
    low, high = mean - half, mean + half
    return Assessment(mean, low, high, len(gains), _verdict(claim, low, high, len(gains)))


def _half_width(gains: list[float], claim: Claim, pairs: list[tuple[float, float]], pictures: int) -> float:
    """Half of the interval of a mean of differences; infinite for a single one."""
    count = len(gains)
    if count < 2:
        return math.inf
    mean = sum(gains) / count
    variance = sum((gain - mean) ** 2 for gain in gains) / (count - 1)
    if not variance and claim.metric in HIGHER:  # all alike by chance: no surer than so many pictures allow
        right = sum(sum(pair) for pair in pairs) / (200 * count)
        share = (right * pictures * count + 1) / (pictures * count + 2)
        return Z * 100 * math.sqrt(2 * share * (1 - share) / (pictures * count))
    return student_t(count - 1) * math.sqrt(variance / count)


def _verdict(claim: Claim, low: float, high: float, seeds: int) -> str:
    margin = MARGIN[claim.metric]
    if seeds < LEAST_SEEDS and claim.metric not in EXACT:
        return "undecided"
    bar = -margin if claim.no_worse else 0.0
    if low > bar or claim.no_worse and low == bar:
        return "confirmed"
    if high < bar:
        return "not confirmed"
    return "equivalent" if -margin <= low and high <= margin else "undecided"


def measured_arms(
    finding: Finding, rows: list[Row], n: int, train: float, batch: int
) -> tuple[dict[str, dict[int, dict[str, float]]], dict[str, dict[int, str]]]:
    """({arm: {seed: metrics}}, {arm: {seed: why it failed}}) of a finding."""
    known: dict[str, dict[int, dict[str, float]]] = {}
    failed: dict[str, dict[int, str]] = {}
    for arm in finding.arms:
        made = {"n": n} | ({} if isinstance(arm.model, str) else {"train": train, "batch": batch})
        for row in rows:
            if row["arm"] == arm_record(arm) and made == {name: row[name] for name in made}:
                of, seed = (failed, known) if "failed" in row else (known, failed), row["seed"]
                of[0].setdefault(arm.name, {})[seed] = row.get("failed") or row["metrics"]
                of[1].get(arm.name, {}).pop(seed, None)
    return known, failed


def findings_table(
    findings: Iterable[Finding], rows: list[Row], n: int = 20, train: float = 1.0, batch: int = 64
) -> str:
    """Markdown. The rows say which arm, model and seed they are of; those of arms as they were before are passed over,
    and those of another n, train or batch: a quick look never stands for the real thing. A finding of which no two arms
    can be compared yet is left out.

    Of several measurements of an arm with a seed (new weights) the last counts.
    """
    lines = [
        "| finding | arms, mean ± spread over the seeds | claims: verdict (difference in points, 95% interval) |",
        "|---|---|---|",
    ]
    for finding in findings:
        known, failed = measured_arms(finding, rows, n, train, batch)
        if not known and not failed:
            continue
        metrics = list(dict.fromkeys(["score", "distance", *(c.metric for c in finding.claims), *finding.shows]))
        arms = []
        for arm in finding.arms:
            told = [_numbers(known[arm.name], metrics)] if known.get(arm.name) else []
            told += [f"failed with seed {seed} ({why})" for seed, why in failed.get(arm.name, {}).items()]
            arms += [f"{arm.name}: {', '.join(told)}"] if told else []
        said = [
            f"{claim}: {found}{_saved(claim, known)}"
            for claim in finding.claims
            if (found := assess_claim(claim, known, n * JUDGED))
        ]
        if finding.claims and not said and not failed:
            continue
        arms = "; ".join(arms)
        lines.append(f"| {finding.says} | {arms} | {'; '.join(said)} |")
    return "\n".join(lines)


def _saved(claim: Claim, known: dict[str, dict[int, dict[str, float]]]) -> str:
    """Which share of the evaluations is saved, where a claim is about them."""
    if claim.metric != "nfe":
        return ""
    few, many = (sum(m["nfe"] for m in known[arm].values()) / len(known[arm]) for arm in (claim.better, claim.worse))
    return f" ({1 - few / many:.0%} of the evaluations saved)"


def _numbers(seeds: dict[int, dict[str, float]], metrics: list[str]) -> str:
    out = []
    for metric in metrics:
        values = torch.tensor([m[metric] for m in seeds.values() if metric in m], dtype=torch.float64)
        if len(values):
            spread = f" ± {values.std():.2g}" if len(values) > 1 else ""
            out.append(f"{metric} {values.mean():.3g}{spread}")
    return ", ".join(out)
