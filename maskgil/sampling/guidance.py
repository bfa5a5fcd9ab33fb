"""Classifier-free guidance, in one convention: logits = null + scale (conditional - null), and 1 is off.

MaskGIL's w is scale - 1; eMIGM's cfg is scale. A guided step evaluates the model twice; outside the interval, and where
the scale is 1, the second evaluation is not made at all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from maskgil.params import SHAPES, GuidanceShape, SamplingParams

# A plan's time ends here instead of at 0 (eMIGM's linspace(1, 1e-5, T + 1)), so that an interval from 0 on holds the
# last step. Ends lie a little above k / T for it: k / T as upper bound leaves that step out.
END = 1e-5


@dataclass(frozen=True)
class Guidance:
    """How strongly each step of a plan leans on its text.

    scale     1 = off, 3 to 8 is usual
    shape     constant; ramp: 1 + (scale - 1) i / (T - 1) over the steps, as released; linear, cosine and power grow
              with the share f of decided tokens after the step: f, (1 - cos(pi f)) / 2 and f^power. Of eMIGM's code
              (power is power=2 there, cubic power=3): exp: 1 - exp(-5 f); quarter_cosine: cos(pi (1 - f) / 2)
    interval  (low, high) in plan time, which runs from 1 to 0: a step is guided when low < its end <= high. The only
              step of a plan stands for all of them: it is guided unless the interval is empty
    """

    scale: float = 4.0
    shape: GuidanceShape = "constant"
    interval: tuple[float, float] = (0.0, 1.0)
    power: float = 3.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale) or not 0 <= self.scale <= 100:
            raise ValueError(f"guidance is {self.scale}; give a number from 0 to 100 (1 = off, 3 to 8 is usual)")
        if self.shape not in SHAPES:
            raise ValueError(f"the shape of guidance is {self.shape!r}; choose one of {', '.join(SHAPES)}")
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ValueError(f"guidance interval ({low}, {high}): give 0 <= low <= high <= 1, in plan time from 1 to 0")
        if not math.isfinite(self.power) or self.power <= 0:
            raise ValueError(f"the power of guidance is {self.power}; give a positive number")

    @staticmethod
    def of(params: SamplingParams) -> "Guidance":
        """MaskGIL's guidance in the parameters."""
        return Guidance(params.guidance_scale, params.guidance_shape, params.guidance_interval, params.guidance_power)

    def scales(self, decided: Sequence[float]) -> list[float]:
        """The scale of each step, 1 where it runs unguided. `decided`: share of the tokens known after each step."""
        steps, (low, high) = len(decided), self.interval
        scales = []
        for step, share in enumerate(decided):
            ends = 1 - (1 - END) * (step + 1) / steps
            inside = low < ends <= high if steps > 1 else low < high
            scales.append(1 + (self.scale - 1) * self._growth(step, steps, share) if inside else 1.0)
        return scales

    def last(self) -> float:
        """The scale at the end of a plan: of steps that come after it."""
        low, high = self.interval
        return self.scale if low < END <= high else 1.0

    def _growth(self, step: int, steps: int, share: float) -> float:
        match self.shape:
            case "constant":
                return 1.0
            case "ramp":  # the released code divides by zero when there is a single step
                return step / (steps - 1) if steps > 1 else 1.0
            case "linear":
                return share
            case "cosine":
                return (1 - math.cos(math.pi * share)) / 2
            case "power":
                return share**self.power
            case "exp":
                return 1 - math.exp(-5 * share)
            case "quarter_cosine":
                return math.cos(math.pi / 2 * (1 - share))


def apply_guidance(
    null: Float[Tensor, "B N K"], conditional: Float[Tensor, "B N K"], scale: Float[Tensor, " B"]
) -> Float[Tensor, "B N K"]:
    return null.lerp(conditional, scale[:, None, None].to(null.dtype))
