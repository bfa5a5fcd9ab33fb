"""Reference curves: the mean loss of good runs of a recipe, and the band that normal runs stay in.

    maskgil train reference-curve runs/a runs/b runs/c --out train/reference_curves/check.json

writes the curve of several finished runs of one recipe with different seeds. A curve is a JSON file. For each window of
steps it holds the last step, the mean loss over the runs, and the half-width of the band: four standard deviations over
the runs, at least 3% of the mean.
"""

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from maskgil.command_line import Command, run
from maskgil.fileio import write_json
from train.run_log import load_run_log

FOLDER = Path(__file__).parent / "reference_curves"
DEVIATIONS, LEAST = 4.0, 0.03
LEAST_RUNS = 3  # fewer do not show the spread


@dataclass(frozen=True)
class ReferenceCurve:
    """The expected loss of a recipe.

    recipe  its name
    key     of the log
    window  steps of a mean
    made    how it was measured
    steps   the last step of each window
    mean    the expected loss of each window
    band    how far another run may be from it
    """

    recipe: str
    key: str
    window: int
    made: str
    steps: tuple[int, ...]
    mean: tuple[float, ...]
    band: tuple[float, ...]

    @staticmethod
    def load(path: Path) -> "ReferenceCurve":
        held = json.loads(path.read_text(encoding="utf-8"))
        return ReferenceCurve(**{name: tuple(v) if isinstance(v, list) else v for name, v in held.items()})

    def save(self, path: Path) -> None:
        write_json(path, asdict(self))


def bundled_curves() -> dict[str, ReferenceCurve]:
    """{recipe: curve} of the curves that come with the code."""
    curves = (ReferenceCurve.load(path) for path in sorted(FOLDER.glob("*.json")))
    return {curve.recipe: curve for curve in curves}


def window_means(log: Mapping[int, Mapping[str, float]], key: str, window: int) -> dict[int, float]:
    """{last step: mean} of each whole window of steps; NaN where a step of it has no finite value."""
    values = {step: row.get(key, math.nan) for step, row in log.items()}
    last = max(values, default=0)
    return {
        end: statistics.fmean(values.get(step, math.nan) for step in range(end - window + 1, end + 1))
        for end in range(window, last + 1, window)
    }


@dataclass(frozen=True)
class WindowVerdict:
    """The loss of a window of steps and the expected loss."""

    step: int
    loss: float
    expected: float
    band: float

    @property
    def normal(self) -> bool:
        return abs(self.loss - self.expected) <= self.band


def compare_with_curve(log: Mapping[int, Mapping[str, float]], curve: ReferenceCurve) -> list[WindowVerdict]:
    """A verdict for each window that the run has finished. ValueError when there is none."""
    found = window_means(log, curve.key, curve.window)
    rows = [
        WindowVerdict(step, found[step], mean, band)
        for step, mean, band in zip(curve.steps, curve.mean, curve.band, strict=True)
        if step in found
    ]
    if not rows:
        raise ValueError(f"the run has not done {curve.window} steps yet, the first window of the curve")
    return rows


def _check_enough(runs: Sequence[object]) -> None:
    if len(runs) < LEAST_RUNS:
        raise ValueError(f"{len(runs)} runs: a band needs {LEAST_RUNS} or more, each with another seed")


def measured_curve(
    recipe: str, key: str, logs: Sequence[Mapping[int, Mapping[str, float]]], window: int, made: str
) -> ReferenceCurve:
    """The curve of several runs. ValueError for fewer than three runs, which do not show the spread."""
    _check_enough(logs)
    means = [window_means(log, key, window) for log in logs]
    steps = sorted(set.intersection(*(set(found) for found in means)))
    mean = [statistics.fmean(found[step] for found in means) for step in steps]
    spread = [statistics.stdev(found[step] for found in means) for step in steps]
    band = [max(DEVIATIONS * s, LEAST * abs(m)) for s, m in zip(spread, mean, strict=True)]
    return ReferenceCurve(
        recipe, key, window, made, tuple(steps), tuple(round(m, 4) for m in mean), tuple(round(b, 4) for b in band)
    )


def write_reference_curve(
    runs: Positional[Annotated[tuple[Path, ...], arg(metavar="RUN")]], out: Path, window: int = 25, key: str = "loss"
) -> None:
    """Write the reference curve of finished runs of one recipe, at least three with different seeds.

    Args:
        runs: Folders of the runs.
        out: The JSON file.
        window: Steps of a mean.
        key: The log's key: loss, or another quantity that the recipe minimizes.
    """
    _check_enough(runs)
    notes = [json.loads((run / "run.json").read_text(encoding="utf-8")) for run in runs]
    if len(names := {note["recipe"] for note in notes}) > 1:
        raise ValueError(f"runs of different recipes: {', '.join(sorted(names))}")
    versions = ", ".join(f"{name} {version}" for name, version in notes[0]["versions"].items())
    made = f"{len(runs)} runs of: {notes[0]['command']} ({versions})"
    curve = measured_curve(notes[0]["recipe"], key, [load_run_log(run) for run in runs], window, made)
    curve.save(out)
    for step, mean, band in zip(curve.steps, curve.mean, curve.band, strict=True):
        print(f"step {step}: {mean:.4f} +- {band:.4f}")


if __name__ == "__main__":  # the former name of the command
    sys.exit(run(Command("", lambda: write_reference_curve), "maskgil train reference-curve"))
