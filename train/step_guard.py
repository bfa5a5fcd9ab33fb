"""Decides whether a step is applied, skipped, or answered with a return to the last checkpoint.

A step whose loss or gradient is not finite is skipped. The run returns to its last checkpoint after `patience` such
steps in a row, when weights are not finite, and when the loss explodes. From there it continues with the batches after
those that led to the failure, as PaLM did (Chowdhery et al. 2022, section 5.1).
"""

import math
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

HISTORY = 200  # previous losses that a new one is compared with
WARMUP = 50  # so many must be known before one can be an outlier
DEVIATIONS = 8.0  # an outlier lies so many standard deviations above the mean ...
RISE = 0.5  # ... and by this share of it


class Verdict(Enum):
    TAKE = "take"
    SKIP = "skip"
    GO_BACK = "go back"


@dataclass
class StepGuard:
    """patience: failed steps or exploded losses in a row before the run returns to its checkpoint
    max_returns: returns without a new checkpoint between them before the run is given up"""

    patience: int = 5
    max_returns: int = 3
    skipped: int = 0  # skipped steps of the whole run
    returns: int = 0  # since the last checkpoint that was written
    batches_passed: int = 0  # steps whose batches the returns have skipped
    why: str = ""  # of the last return
    tolerated: int = -1  # the step at which the loss exploded before; it exploded there again with other batches
    failed_in_row: int = 0
    outliers_in_row: int = 0
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))

    def judge(self, step: int, loss: float, finite: bool, weights_finite: bool) -> Verdict:
        """The verdict on step number `step`, before its gradients are used.

        loss            over all processes; NaN where it is not finite
        finite          whether loss and gradients are, in every process
        weights_finite  whether the weights were after the step before
        """
        if not weights_finite:
            self.why = f"the weights are not finite after step {step}"
            return Verdict.GO_BACK
        if not finite:
            self.failed_in_row += 1
            self.skipped += 1
            if self.failed_in_row >= self.patience:
                self.why = f"{self.failed_in_row} steps in a row had a loss or gradient that is not finite"
                return Verdict.GO_BACK
            return Verdict.SKIP
        self.failed_in_row = 0
        if self._stands_out(loss):
            self.outliers_in_row += 1
            if self.outliers_in_row >= self.patience:
                mean = sum(self.losses) / len(self.losses)
                if abs(step - self.tolerated) <= HISTORY:  # the loss rises there with any batches
                    self._forget()
                    return Verdict.TAKE
                self.tolerated = step
                self.why = f"the loss rose from {mean:.4g} to {loss:.4g}"
                return Verdict.GO_BACK
        else:
            self.outliers_in_row = 0
            self.losses.append(loss)
        return Verdict.TAKE

    def _stands_out(self, loss: float) -> bool:
        if len(self.losses) < WARMUP:
            return False
        mean = sum(self.losses) / len(self.losses)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in self.losses) / len(self.losses))
        return loss - mean > max(DEVIATIONS * deviation, RISE * abs(mean))

    def _forget(self) -> None:
        self.failed_in_row = self.outliers_in_row = 0
        self.losses.clear()

    def went_back(self, steps: int) -> None:
        """Note that the run continues `steps` steps earlier, with the batches after those that it had read.

        ValueError when it has returned too often without reaching its next checkpoint.
        """
        self.returns += 1
        if self.returns > self.max_returns:
            raise ValueError(
                f"the run went back to its last checkpoint {self.max_returns} times and failed each time, last because "
                f"{self.why}: the checkpoint is kept; lower the learning rate or look at the data, and go on from it"
            )
        self.batches_passed += steps + 1
        self._forget()

    def state(self) -> dict[str, Any]:
        """The values that a checkpoint keeps, so that a resumed run equals one that was not stopped."""
        return {
            "skipped": self.skipped,
            "batches_passed": self.batches_passed,
            "tolerated": self.tolerated,
            "failed_in_row": self.failed_in_row,
            "outliers_in_row": self.outliers_in_row,
            "losses": list(self.losses),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Load the values of `state`; older checkpoints have none."""
        for name, value in state.items():
            setattr(self, name, deque(value, maxlen=HISTORY) if name == "losses" else value)
