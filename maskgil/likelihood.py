"""How likely the tokens of a canvas are to the model that drew them: what revisions, candidates and edits go by.

Codes have a probability. Vectors have a bound of their density: the diffusion head's loss, summed over its times, is
but for a constant at least -log p(x | z) (Ho et al. 2020, 2006.11239, equation 5; with learned variances 2102.09672,
equation 4). It is read at a few times, with noise that depends on the place alone, so that two drawings, or two texts,
are compared by the same.

B rows, N tokens, K codes, C channels of a vector, D width of the trunk.
"""

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskgil import noise
from maskgil.condition import Condition
from maskgil.config import ModelConfig
from maskgil.decoding import HALVES, Canvas
from maskgil.diffusion_head import TIMES, DiffusionHead, bound, tables
from maskgil.emigm import EMIGM

READ = 8  # times at which the bound is read, in the middle of equal parts


@runtime_checkable
class Model(Protocol):
    """What is asked of a generator of codes: see maskgil/generator.py."""

    config: ModelConfig

    def __call__(
        self, tokens: Tensor, grid: tuple[int, int], condition: Condition, drop: Tensor | None = None
    ) -> Tensor: ...


def log_probability(logits: Float[Tensor, "B N K"], codes: Int[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Of each code under its logits."""
    return logits.gather(-1, codes[..., None])[..., 0] - logits.logsumexp(-1)


def likelihood(
    model: Model | EMIGM, canvas: Canvas, hidden: Bool[Tensor, "B N"], condition: Condition
) -> Float[Tensor, "B N"]:
    """Log-probability in nats of what stands at each place of `hidden`, or its bound, given the text and what is
    neither hidden nor a hole: one evaluation of the model, unguided. Elsewhere it means nothing.

    Of vectors only differences do, their density's unit being that of the space.
    """
    unseen = canvas.hole | hidden
    if isinstance(model, EMIGM):
        z = model(canvas.tokens, unseen, condition)
        tokens = canvas.tokens.masked_fill(canvas.hole[..., None], 0)
        return vector_bound(model.diffloss, z, tokens)
    logits = model(canvas.tokens.masked_fill(unseen, model.config.mask_id), canvas.grid, condition).float()
    return log_probability(logits, canvas.tokens.masked_fill(canvas.hole, 0))


def by_halves(model: Model | EMIGM, canvas: Canvas, condition: Condition) -> Float[Tensor, "B N"]:
    """The same of each token given those in the other half of a chequerboard: HALVES evaluations, in one call."""
    height, width = canvas.grid
    place = torch.arange(height * width, device=canvas.hole.device)
    half = ((place // width + place % width) % 2 == 0).expand(len(canvas), -1)
    twice = Canvas.cat([canvas] * HALVES)
    first, second = likelihood(model, twice, torch.cat([half, ~half]), Condition.cat([condition] * HALVES)).chunk(2)
    return torch.where(half, first, second)


def vector_bound(
    head: DiffusionHead, z: Float[Tensor, "B N D"], tokens: Float[Tensor, "B N C"]
) -> Float[Tensor, "B N"]:
    """Minus the variational bound of each token, by the midpoint rule over its times."""
    rows, places, channels = tokens.shape
    table = tables(z.device)
    x, z = tokens.flatten(0, 1).float(), z.flatten(0, 1)
    place, zero = torch.arange(places, device=z.device), torch.zeros(places, dtype=torch.long, device=z.device)
    total = torch.zeros(len(x), device=z.device)
    for i in range(READ):
        when = (2 * i + 1) * TIMES // (2 * READ)
        time = torch.full((len(x),), when, device=z.device)
        drawn = noise.normal(noise.uniform_at(zero, noise.Stream.LIKELIHOOD, zero + when, place, channels))
        noisy = table.alpha[when] * x + table.sigma[when] * drawn.repeat(rows, 1)
        epsilon, v = head.net(noisy.to(z.dtype), time[:1].float(), z).float().chunk(2, dim=-1)
        total += bound(x, noisy, time, epsilon, v)
    return (-total * channels * math.log(2) * TIMES / READ).view(rows, places)
