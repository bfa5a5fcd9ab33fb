"""Samplers of the diffusion head: `DDPM` (stochastic, 100 steps) and `DPMSolver` (an ODE, 8 to 15 steps).

Axes: n tokens of any rows and positions, C channels of a token, D trunk width, g guided tokens.
"""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maskgil.models.diffusion_head import TIMES, SimpleMLPAdaLN, betas

# (x_t of n tokens, time in 0..999, fractions allowed) -> [epsilon | v], guidance included.
Denoise = Callable[[Tensor, float], Tensor]


# k -> N(0, 1) of (n, C): k = 0 is the start, k >= 1 what the k-th stochastic step adds.
Noise = Callable[[int], Tensor]


def denoiser(
    net: SimpleMLPAdaLN,
    z: Float[Tensor, "n D"],
    null: Float[Tensor, "g D"] | None = None,
    guided: Int[Tensor, " g"] | None = None,
    scale: Float[Tensor, " g"] | None = None,
) -> Denoise:
    """The network bound to its tokens: guidance on epsilon, only for the tokens at `guided`, v left conditional.

    Tokens outside `guided` cost one evaluation, those inside two (their own and the one on `null`).
    """
    everything = z if null is None else torch.cat([z, null])

    def denoise(x: Tensor, time: float) -> Tensor:
        at = torch.full((1,), time, device=x.device)
        if guided is None or scale is None:
            return net(x.to(z.dtype), at, everything).float()
        both = net(torch.cat([x, x[guided]]).to(z.dtype), at, everything).float()
        out, without = both.split([len(x), len(guided)])
        channels = x.shape[1]
        epsilon, v = out.split(channels, dim=-1)
        pulled = torch.lerp(without[:, :channels], epsilon[guided], scale[:, None])
        return torch.cat([epsilon.index_copy(0, guided, pulled), v], dim=-1)

    return denoise


@dataclass(frozen=True)
class DDPM:
    """Ancestral sampling through diffusers' DDPMScheduler; a temperature is in the noise of k >= 1 that it is given.

    clip: what the estimate of x_0 may be at most, either way; None, as the released code has it: anything. At time 999
    alpha is 5e-5, so that an error of epsilon is 20,000 times as large in x_0; a small head does not recover from it.
    tempers_start: whether a temperature is in the noise of k = 0 too.

    Raises ValueError when `steps` is outside 2..1000, or `clip` not above 0.
    """

    steps: int = 100
    clip: float | None = None
    tempers_start: ClassVar[bool] = False

    def __post_init__(self):
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"DDPM clips to a number above 0; {self.clip} was given")
        if not 2 <= self.steps <= TIMES:
            raise ValueError(f"DDPM runs 2 to {TIMES} head steps; {self.steps} were asked for")

    def _scheduler(self) -> Any:  # diffusers types its classes by a dummy too
        try:
            from diffusers import DDPMScheduler
        except ImportError as missing:
            raise ValueError("DDPM sampling needs the package diffusers; DPMSolver does without") from missing
        scheduler: Any = DDPMScheduler(
            num_train_timesteps=TIMES,
            beta_schedule="squaredcos_cap_v2",
            prediction_type="epsilon",
            variance_type="learned",
            clip_sample=self.clip is not None,
            clip_sample_range=self.clip or 1.0,
            timestep_spacing="linspace",
        )
        scheduler.set_timesteps(self.steps)
        return scheduler

    @property
    def times(self) -> list[int]:
        """round(linspace(0, 999, steps)), last first."""
        return self._scheduler().timesteps.tolist()

    def __call__(self, denoise: Denoise, noise: Noise) -> Float[Tensor, "n C"]:
        """Draws the tokens that `denoise` is bound to."""
        scheduler, x = self._scheduler(), noise(0)
        # The scheduler draws its own noise, which would depend on the batch. It is given a variance of zero, so that
        # it returns the mean exactly; our noise follows, with the learned-range variance that the scheduler computes.
        unused = torch.Generator(x.device)
        for k, time in enumerate(scheduler.timesteps.tolist(), 1):
            epsilon, v = denoise(x, float(time)).chunk(2, dim=-1)
            silent = torch.cat([epsilon, torch.zeros_like(v)], dim=-1)
            mean = scheduler.step(silent, time, x, generator=unused).prev_sample
            if time == 0:
                return mean
            log_variance = scheduler._get_variance(time, v, variance_type="learned_range")
            x = mean + (0.5 * log_variance).exp() * noise(k)
        raise AssertionError("the last time of every DDPM grid is 0")


class SolverNode(NamedTuple):
    """A point of the ODE's path: x = alpha x_0 + sigma noise, half log-SNR ln(alpha / sigma), the network's time."""

    alpha: float
    sigma: float
    log_snr: float
    time: float


@lru_cache(1)
def _path() -> tuple[list[float], float, float]:
    """-ln alpha at the training times that the solver may visit, and the log-SNR of the last and of the first one.

    Times of log-SNR below -5.1 are left out, the solver being unstable there: 996 remain.
    """
    log_alpha = 0.5 * (1 - betas()).log().cumsum(0)
    log_snr = log_alpha - 0.5 * torch.log(-torch.expm1(2 * log_alpha))
    log_alpha = log_alpha[log_snr >= -5.1]
    # The released solver measures both ends in float32, where 1 - alpha^2 loses digits at the clean end (5.0472, not
    # 5.0475). All its times follow from the ends, so we measure alike.
    ends = log_alpha[[-1, 0]].float()
    noisy, clean = (ends - 0.5 * torch.log(1 - torch.exp(2 * ends))).tolist()
    return (-log_alpha).tolist(), noisy, clean


def solver_node(log_snr: float) -> SolverNode:
    """The point of a given log-SNR; its time is linear in ln alpha between training times, and may be fractional."""
    grid = _path()[0]
    depth = 0.5 * math.log1p(math.exp(-2 * log_snr))  # -ln alpha
    right = min(max(bisect_right(grid, depth), 1), len(grid) - 1)
    fraction = min(max((depth - grid[right - 1]) / (grid[right] - grid[right - 1]), 0.0), 1.0)
    # 1000 (tau - 1/996) with tau = (i + 1) / 996 at training time i: up to 998.996, as the released solver has it
    time = (right - 1 + fraction) * TIMES / len(grid)
    return SolverNode(math.exp(-depth), math.sqrt(-math.expm1(-2 * depth)), log_snr, time)


@dataclass(frozen=True)
class DPMSolver:
    """DPM-Solver++, singlestep, order 3, equal steps of log-SNR, data prediction (2211.01095); deterministic.

    `steps` is the number of network evaluations; ValueError below 1. It adds no noise: a temperature is in what it
    begins with.
    """

    steps: int = 14
    tempers_start: ClassVar[bool] = True

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"DPM-Solver needs at least 1 head step; {self.steps} were asked for")

    @property
    def step_orders(self) -> list[int]:
        """The order of each interval; the last ones make up the number of evaluations."""
        threes, left = divmod(self.steps, 3)
        return [3] * (threes - 1) + [2, 1] if left == 0 else [3] * threes + [left]

    @property
    def intervals(self) -> list[list[SolverNode]]:
        """For each interval its nodes: the start, the `order - 1` inner ones and the end, equally far in log-SNR."""
        orders = self.step_orders
        _, noisy, clean = _path()
        width = (clean - noisy) / len(orders)
        return [
            [solver_node(noisy + width * (i + j / order)) for j in range(order + 1)] for i, order in enumerate(orders)
        ]

    @property
    def times(self) -> list[float]:
        """The network times of all evaluations."""
        return [point.time for nodes in self.intervals for point in nodes[:-1]]

    def __call__(self, denoise: Denoise, noise: Noise) -> Float[Tensor, "n C"]:
        """Draws the tokens that `denoise` is bound to."""
        x = noise(0)

        def data(x: Tensor, at: SolverNode) -> Tensor:
            return (x - at.sigma * denoise(x, at.time).chunk(2, dim=-1)[0]) / at.alpha

        for nodes in self.intervals:
            x = _integrate(data, x, nodes)
        return x


def _integrate(data: Callable[[Tensor, SolverNode], Tensor], x: Tensor, nodes: list[SolverNode]) -> Tensor:
    """x at the end of one interval: with 0, 1 or 2 inner nodes a solver of order 1, 2 or 3 (2211.01095, appendix)."""
    start, *inner, end = nodes
    first = data(x, start)

    def euler(to: SolverNode) -> Tensor:
        step = to.log_snr - start.log_snr
        return to.sigma / start.sigma * x - to.alpha * math.expm1(-step) * first

    if not inner:
        return euler(end)
    h = end.log_snr - start.log_snr
    change = data(euler(inner[0]), inner[0]) - first
    if len(inner) == 1:  # r = 1/2, so that 1 / (2r) = 1
        return euler(end) - end.alpha * math.expm1(-h) * change
    middle = inner[1]  # r1 = 1/3, r2 = 2/3, so that r2 / r1 = 2
    part = middle.log_snr - start.log_snr
    estimate = euler(middle) + 2 * middle.alpha * (math.expm1(-part) / part + 1) * change
    change = data(estimate, middle) - first
    return euler(end) + end.alpha * (math.expm1(-h) / h + 1) * change * 1.5
