"""Measurements of arms in a file of JSON lines, the verdicts on claims, and the table.

A claim is confirmed when its arms differ in the claimed direction by more than the noise, not confirmed when they
differ so in the other direction, else inside the noise. The noise is twice the standard error of the differences
between seeds, and at least the resolution of the number (RESOLUTION) and, of a score, twice the binomial error of so
many pictures. "No worse" is confirmed when even with the noise it is worse by no more than MARGIN, not confirmed when
it is worse by more than either of them, else inside the noise.
"""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from experiments.paper_findings.arms import HIGHER, JUDGED, MARGIN, RESOLUTION, Claim, Finding, arm_record

Row = dict[str, Any]


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
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def judge_claim(claim: Claim, rows: dict[str, dict[int, dict[str, float]]], pictures: int = 20 * JUDGED) -> str:
    """confirmed, not confirmed or inside the noise; "" when the arms have no seed in common.

    rows: the metrics of each arm's name and seed, each of so many judged pictures.
    """
    one, other = rows.get(claim.better, {}), rows.get(claim.worse, {})
    pairs = [(one[s][claim.metric], other[s][claim.metric]) for s in one if s in other]
    if not pairs:
        return ""
    sign = 1 if claim.metric in HIGHER else -1
    gains = [sign * (a - b) for a, b in pairs]
    mean = sum(gains) / len(gains)
    largest = max(abs(value) for pair in pairs for value in pair)
    noise = RESOLUTION[claim.metric] * (1 if claim.metric in HIGHER else largest)
    if len(gains) > 1:
        variance = sum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1)
        noise = max(noise, 2 * math.sqrt(variance / len(gains)))
    if claim.metric == "score":
        right = sum(value for pair in pairs for value in pair) / (200 * len(pairs))
        noise = max(noise, 200 * math.sqrt(2 * right * (1 - right) / (pictures * len(pairs))))
    if claim.no_worse:
        margin = MARGIN[claim.metric] * (1 if claim.metric in HIGHER else largest)
        if mean - noise >= -margin:
            return "confirmed"
        return "not confirmed" if mean < -max(noise, margin) else "inside the noise"
    if abs(mean) <= noise:
        return "inside the noise"
    return "confirmed" if mean > 0 else "not confirmed"


def findings_table(
    findings: Iterable[Finding], rows: list[Row], n: int = 20, train: float = 1.0, batch: int = 64
) -> str:
    """Markdown. The rows say which arm, model and seed they are of; those of arms as they were before are passed over,
    and those of another n, train or batch: a quick look never stands for the real thing. A finding of which no two arms
    can be compared yet is left out.

    Of several measurements of an arm with a seed (new weights) the last counts.
    """
    lines = ["| finding | arms, mean ± spread over the seeds | claims |", "|---|---|---|"]
    for finding in findings:
        known: dict[str, dict[int, dict[str, float]]] = {}
        failed: dict[str, dict[int, str]] = {}
        for arm in finding.arms:
            made = {"n": n} | ({} if isinstance(arm.model, str) else {"train": train, "batch": batch})
            for row in rows:
                if row["arm"] == arm_record(arm) and made == {name: row[name] for name in made}:
                    of, seed = (failed, known) if "failed" in row else (known, failed), row["seed"]
                    of[0].setdefault(arm.name, {})[seed] = row.get("failed") or row["metrics"]
                    of[1].get(arm.name, {}).pop(seed, None)
        if not known and not failed:
            continue
        metrics = list(dict.fromkeys(["score", "distance", *(c.metric for c in finding.claims), *finding.shows]))
        arms = []
        for arm in finding.arms:
            told = [_numbers(known[arm.name], metrics)] if known.get(arm.name) else []
            told += [f"failed with seed {seed} ({why})" for seed, why in failed.get(arm.name, {}).items()]
            arms += [f"{arm.name}: {', '.join(told)}"] if told else []
        said = [
            f"{claim}: **{found}**{_saved(claim, known)}"
            for claim in finding.claims
            if (found := judge_claim(claim, known, n * JUDGED))
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
