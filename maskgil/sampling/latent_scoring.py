"""The likelihood of vectors under a trunk with a diffusion head: a variational bound.

A diffusion head gives no probability of a token. The variational bound by which it learns its variances, summed over
all times, is at least -log p(x | z) but for a constant (Ho et al. 2020, 2006.11239, equation 5; 2102.09672, equation
4). It is read at a few times, with the same noise at each place for all, so that differences between pictures or texts
count.

B rows, N tokens, n vectors of C channels, D width of the trunk.
"""

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskgil.condition import Condition
from maskgil.models.diffusion_head import TIMES, DiffusionHead, bound, diffusion_schedule
from maskgil.sampling import counter_rng
from maskgil.sampling.token_grid import TokenGrid

READ = 8  # times at which the bound is read, in the middle of equal parts


@runtime_checkable
class LatentTrunk(Protocol):
    """A trunk with a diffusion head: see maskgil/models/emigm.py."""

    diffloss: DiffusionHead

    def __call__(self, tokens: Tensor, masked: Tensor, condition: Condition, drop: Tensor | None = None) -> Tensor: ...

    @property
    def null_token(self) -> Tensor: ...

    def slots(self, condition: Condition, drop: Tensor | None = None) -> Tensor: ...

    def trunk(self, tokens: Tensor, masked: Tensor, slots: Tensor, visible: int | None = None) -> Tensor: ...


def latent_log_likelihood(
    model: LatentTrunk, grid: TokenGrid, hidden: Bool[Tensor, "B N"], condition: Condition
) -> Float[Tensor, "B N"]:
    """The bound of each hidden vector, given the condition and the vectors that are neither hidden nor masked."""
    unseen = grid.mask | hidden
    z = model(grid.tokens, unseen, condition)
    row, place = (hidden & ~grid.mask).nonzero(as_tuple=True)
    found = torch.zeros(unseen.shape, device=unseen.device)
    found[row, place] = vector_bound(model.diffloss, z[row, place], grid.tokens[row, place], place)
    return found


def vector_bound(
    head: DiffusionHead, z: Float[Tensor, "n D"], tokens: Float[Tensor, "n C"], place: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Minus the variational bound of each token, by the midpoint rule over its times; `place`: what its noise is of."""
    table, channels = diffusion_schedule(z.device), tokens.shape[1]
    x, zero = tokens.float(), torch.zeros_like(place)
    total = torch.zeros(len(x), device=z.device)
    for i in range(READ):
        when = (2 * i + 1) * TIMES // (2 * READ)
        time = torch.full((len(x),), when, device=z.device)
        drawn = counter_rng.normal(
            counter_rng.uniform_at(zero, counter_rng.RngStream.LIKELIHOOD, zero + when, place, channels)
        )
        noisy = table.alpha[when] * x + table.sigma[when] * drawn
        epsilon, v = head.net(noisy.to(z.dtype), time[:1].float(), z).float().chunk(2, dim=-1)
        total += bound(x, noisy, time, epsilon, v)
    return -total * channels * math.log(2) * TIMES / READ
