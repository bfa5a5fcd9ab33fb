"""Per-token diffusion: p(x | z) of one continuous token x, given the trunk's vector z at its place (MAR, 2406.11838).

The noise x_t = alpha_t x + sigma_t noise follows the cosine schedule over 1000 times. A small MLP predicts
[epsilon | v], v placing the log-variance between its two bounds (learned range, Nichol & Dhariwal, 2102.09672).
The samplers are in diffusion_samplers.py.

Axes: n tokens of any rows and positions, C channels of a token, D trunk width, W head width, g guided tokens.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

TIMES = 1000
HALF_BIN = 1 / 255  # the bound's first term treats a token as an image value in [-1, 1], as ADM does


# --- the noise schedule ---------------------------------------------------------------------------------------------


@lru_cache(1)
def betas() -> Float[Tensor, " T"]:
    """beta_i = min(1 - f((i + 1) / 1000) / f(i / 1000), 0.999), f(u) = cos^2(pi/2 (u + 0.008) / 1.008), in float64."""
    u = torch.arange(TIMES + 1, dtype=torch.float64) / TIMES
    f = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=0.999)


class DiffusionSchedule(NamedTuple):
    """What the loss reads at a time; (T, 1) each, so that a row of times picks columns that broadcast over channels."""

    alpha: Tensor  # x_t = alpha x_0 + sigma noise
    sigma: Tensor
    from_start: Tensor  # the posterior's mean is from_start x_0 + from_noisy x_t
    from_noisy: Tensor
    low: Tensor  # log beta~, the posterior's variance; its first entry is 0, so the second stands in
    high: Tensor  # log beta


@lru_cache(8)
def diffusion_schedule(device: torch.device) -> DiffusionSchedule:
    """The schedule on `device`: computed in float64, read in float32."""
    beta = betas()
    bar = (1 - beta).cumprod(0)
    before = F.pad(bar[:-1], (1, 0), value=1.0)
    posterior = beta * (1 - before) / (1 - bar)
    low = torch.cat([posterior[1:2], posterior[1:]]).log()
    from_start = beta * before.sqrt() / (1 - bar)
    from_noisy = (1 - beta).sqrt() * (1 - before) / (1 - bar)
    columns = (bar.sqrt(), (1 - bar).sqrt(), from_start, from_noisy, low, beta.log())
    return DiffusionSchedule(*(column[:, None].to(device, torch.float32) for column in columns))


# --- the network ----------------------------------------------------------------------------------------------------


class TimeEmbedding(nn.Module):
    """time -> vector: [cos, sin] at 128 frequencies 10000^(-k/128), then an MLP."""

    def __init__(self, width: int, frequencies: int = 128):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))
        self.frequencies = frequencies

    def forward(self, time: Float[Tensor, " m"]) -> Float[Tensor, "m W"]:
        index = torch.arange(self.frequencies, device=time.device, dtype=torch.float32)
        angle = time[:, None] * torch.exp(-math.log(10000) / self.frequencies * index)
        dtype = next(self.mlp.parameters()).dtype
        return self.mlp(torch.cat([angle.cos(), angle.sin()], dim=-1).to(dtype))


class ResidualBlock(nn.Module):
    """x + gate * MLP(LN(x) (1 + scale) + shift); shift, scale and gate come from time and z (adaLN, DiT)."""

    def __init__(self, width: int):
        super().__init__()
        self.in_ln = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))

    def forward(self, x: Float[Tensor, "n W"], y: Float[Tensor, "n W"]) -> Float[Tensor, "n W"]:
        shift, scale, gate = self.adaLN_modulation(y).chunk(3, dim=-1)
        return x + gate * self.mlp(self.in_ln(x) * (1 + scale) + shift)


class FinalLayer(nn.Module):
    """LN without weights, shifted and scaled by time and z, then linear to [epsilon | v]."""

    def __init__(self, width: int, channels: int):
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Float[Tensor, "n W"], y: Float[Tensor, "n W"]) -> Float[Tensor, "n C2"]:
        shift, scale = self.adaLN_modulation(y).chunk(2, dim=-1)
        return self.linear(self.norm_final(x) * (1 + scale) + shift)


class SimpleMLPAdaLN(nn.Module):
    """The denoising MLP. The names of its parameters are those of the released files."""

    def __init__(self, channels: int, width: int, depth: int, condition: int):
        super().__init__()
        self.time_embed = TimeEmbedding(width)
        self.cond_embed = nn.Linear(condition, width)
        self.input_proj = nn.Linear(channels, width)
        self.res_blocks = nn.ModuleList(ResidualBlock(width) for _ in range(depth))
        self.final_layer = FinalLayer(width, 2 * channels)
        self._initialize()

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        times: Any = self.time_embed.mlp
        for linear in (times[0], times[2]):
            nn.init.normal_(linear.weight, std=0.02)
        # Zeros at the end of every branch: the untrained head predicts epsilon = v = 0, a loss of about 1.72.
        layers: Any = (*self.res_blocks, self.final_layer)
        for layer in layers:
            nn.init.zeros_(layer.adaLN_modulation[1].weight)
        nn.init.zeros_(self.final_layer.linear.weight)

    def forward(
        self, x: Float[Tensor, "n C"], time: Float[Tensor, " m"], z: Float[Tensor, "n D"]
    ) -> Float[Tensor, "n C2"]:
        """[epsilon | v] of x_t at `time` (0..999; one for each token, or a single one for all)."""
        y = self.time_embed(time) + self.cond_embed(z)
        x = self.input_proj(x)
        for block in self.res_blocks:
            x = block(x, y)
        return self.final_layer(x, y)


class DiffusionHead(nn.Module):
    """The network with its loss; `net` carries the released prefix `diffloss.net.`."""

    def __init__(self, channels: int, width: int, depth: int, condition: int):
        super().__init__()
        self.net = SimpleMLPAdaLN(channels, width, depth, condition)

    def loss(
        self,
        z: Float[Tensor, "n D"],
        target: Float[Tensor, "n C"],
        time: Int[Tensor, " n"],
        noise: Float[Tensor, "n C"],
    ) -> Float[Tensor, " n"]:
        """MSE of epsilon plus the variational bound in bits, for each token; the bound trains only the variance."""
        table = diffusion_schedule(target.device)
        target = target.detach().float()
        x = table.alpha[time] * target + table.sigma[time] * noise
        epsilon, v = self.net(x.to(z.dtype), time.float(), z).float().chunk(2, dim=-1)
        return (epsilon - noise).square().mean(-1) + bound(target, x, time, epsilon.detach(), v)


def bound(
    target: Float[Tensor, "n C"],
    x: Float[Tensor, "n C"],
    time: Int[Tensor, " n"],
    epsilon: Float[Tensor, "n C"],
    v: Float[Tensor, "n C"],
) -> Float[Tensor, " n"]:
    """One term of the variational bound at each token's time, in bits, mean over channels (2102.09672, equation 4).

    KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)); at time 0 the discretised likelihood of x_0 instead.
    """
    table = diffusion_schedule(x.device)
    start = (x - table.sigma[time] * epsilon) / table.alpha[time]
    true_mean = table.from_start[time] * target + table.from_noisy[time] * x
    mean = table.from_start[time] * start + table.from_noisy[time] * x
    low, high = table.low[time], table.high[time]
    k = (v + 1) / 2
    log_variance = k * high + (1 - k) * low
    kl = 0.5 * (
        log_variance - low - 1 + (low - log_variance).exp() + (true_mean - mean).square() * (-log_variance).exp()
    )
    first = -discretized_log_likelihood(target, mean, 0.5 * log_variance)
    return torch.where(time == 0, first.mean(-1), kl.mean(-1)) / math.log(2)


def discretized_log_likelihood(
    x: Float[Tensor, "n C"], mean: Float[Tensor, "n C"], log_scale: Float[Tensor, "n C"]
) -> Float[Tensor, "n C"]:
    """log of the Gaussian's mass within half a bin of x, open-ended at +-1, in nats; tanh stands for erf as in ADM."""

    def cdf(value: Tensor) -> Tensor:
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (value + 0.044715 * value**3)))

    above = cdf((x - mean + HALF_BIN) * (-log_scale).exp())
    below = cdf((x - mean - HALF_BIN) * (-log_scale).exp())
    mass = torch.where(x < -0.999, above, torch.where(x > 0.999, 1 - below, above - below))
    return mass.clamp(min=1e-12).log()
