"""How likely the tokens of a canvas are to the model that drew them: what revisions, candidates and edits go by.

Codes have a probability. Vectors have a bound of their density: that by which the head learns its variances, summed
over all times, is but for a constant at least -log p(x | z) (Ho et al. 2020, 2006.11239, equation 5; 2102.09672,
equation 4). It is read at a few times, at each place with the same noise for all, so that drawings, or texts, are
compared by what they say.

B rows, N tokens, K codes; n vectors of C channels, D width of the trunk.
"""

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskgil.condition import Condition
from maskgil.models.config import ModelConfig
from maskgil.models.diffusion_head import TIMES, DiffusionHead, bound, diffusion_schedule
from maskgil.models.emigm import EMIGM
from maskgil.sampling import counter_rng
from maskgil.sampling.loop import SCORING_NFE, TokenGrid

READ = 8  # times at which the bound is read, in the middle of equal parts


@runtime_checkable
class MaskedTokenModel(Protocol):
    """What is asked of a generator of codes: see maskgil/models/maskgil.py."""

    config: ModelConfig

    def __call__(
        self, tokens: Tensor, grid: tuple[int, int], condition: Condition, drop: Tensor | None = None
    ) -> Tensor: ...


def log_probability(logits: Float[Tensor, "B N K"], codes: Int[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Of each code under its logits."""
    return logits.gather(-1, codes[..., None])[..., 0] - logits.logsumexp(-1)


def likelihood(
    model: MaskedTokenModel | EMIGM, canvas: TokenGrid, hidden: Bool[Tensor, "B N"], condition: Condition
) -> Float[Tensor, "B N"]:
    """Log-probability in nats of what stands at each place of `hidden`, or its bound, given the text and what is
    neither hidden nor a hole: one evaluation of the model, unguided. Elsewhere it means nothing.

    Of vectors only differences do, their density's unit being that of the space.
    """
    unseen = canvas.mask | hidden
    if isinstance(model, EMIGM):
        z = model(canvas.tokens, unseen, condition)
        row, place = (hidden & ~canvas.mask).nonzero(as_tuple=True)
        found = torch.zeros(unseen.shape, device=unseen.device)
        found[row, place] = vector_bound(model.diffloss, z[row, place], canvas.tokens[row, place], place)
        return found
    logits = model(canvas.tokens.masked_fill(unseen, model.config.mask_id), canvas.grid, condition).float()
    return log_probability(logits, canvas.tokens.masked_fill(canvas.mask, 0))


def checkerboard_log_likelihood(
    model: MaskedTokenModel | EMIGM, canvas: TokenGrid, condition: Condition
) -> Float[Tensor, "B N"]:
    """The same of each token given those in the other half of a chequerboard: HALVES evaluations, in one call."""
    height, width = canvas.grid
    place = torch.arange(height * width, device=canvas.mask.device)
    half = ((place // width + place % width) % 2 == 0).expand(len(canvas), -1)
    twice = TokenGrid.cat([canvas] * SCORING_NFE)
    first, second = likelihood(model, twice, torch.cat([half, ~half]), Condition.cat([condition] * SCORING_NFE)).chunk(
        2
    )
    return torch.where(half, first, second)


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
