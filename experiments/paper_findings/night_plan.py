"""What to measure next: every claim gets seeds until its interval is narrow enough, the lowest seeds first."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from experiments.paper_findings.arms import EXACT, JUDGED, Arm, Claim, Finding, arm_record
from experiments.paper_findings.verdicts import LEAST_SEEDS, WIDTH, ArmMetrics, Row, assess_claim, measured_arms


@dataclass(frozen=True)
class SeedLimits:
    """least: seeds of every arm;  most: where an arm stops, whatever its intervals are."""

    least: int = LEAST_SEEDS
    most: int = 60


@dataclass(frozen=True)
class Measurement:
    """An arm of a finding with a seed."""

    finding: Finding
    arm: Arm
    seed: int


def seeds_wanted(claim: Claim, known: Mapping[str, ArmMetrics], pictures: int, limits: SeedLimits) -> int:
    """How many seeds the arms of a claim need: one for exact numbers, `limits.least` at first, then as many as make the
    interval narrow enough if the spread stays what it is.

    known, pictures: as for `assess_claim`.
    """
    if claim.metric in EXACT:
        return 1
    found = assess_claim(claim, known, pictures)
    if found is None or found.seeds < limits.least or not math.isfinite(found.width):
        return limits.least
    if found.settled:
        return found.seeds
    return min(limits.most, max(found.seeds + 1, math.ceil(found.seeds * (found.width / WIDTH) ** 2)))


def open_measurements(
    findings: Iterable[Finding], rows: list[Row], made: tuple[int, float, int], limits: SeedLimits
) -> list[Measurement]:
    """What is still to be measured, as far as it is known, in order: a seed of every arm before another seed of one.

    made: (n, train, batch) of the rows that count. Arms and seeds that failed are not tried again.
    """
    wanted: dict[Arm, tuple[Finding, Arm, int]] = {}
    for finding in findings:
        known, _ = measured_arms(finding, rows, *made)
        most: dict[str, int] = {}
        for claim in finding.claims:
            seeds = seeds_wanted(claim, known, made[0] * JUDGED, limits)
            for name in (claim.better, claim.worse):
                most[name] = max(most.get(name, 1), seeds)
        for arm in finding.arms:
            same = replace(arm, name="")  # findings share arms under other names
            seeds = most.get(arm.name, limits.least)
            if same not in wanted or wanted[same][2] < seeds:
                wanted[same] = (finding, arm, seeds)
    left = []
    for finding, arm, seeds in wanted.values():
        known, failed = measured_arms(finding, rows, *made)
        there = known.get(arm.name, {}).keys() | failed.get(arm.name, {}).keys()
        left += [Measurement(finding, arm, seed) for seed in range(seeds) if seed not in there]
    return sorted(left, key=lambda each: each.seed)


def seconds_left(left: Sequence[Measurement], rows: list[Row]) -> tuple[float, int]:
    """(seconds of one process for the measurements whose arm was measured before, how many others there are)."""
    took: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        took[str(row["arm"])].append(row["took"])
    seconds, unknown = 0.0, 0
    for each in left:
        times = took.get(str(arm_record(each.arm)))
        seconds += sum(times) / len(times) if times else 0.0
        unknown += not times
    return seconds, unknown
