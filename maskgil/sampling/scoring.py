"""The log-likelihood of tokens under the model that drew them: refinement, best of n and edits go by it.

A masked model scores half of the tokens given the other half, and the other way round, as a masked language model
scores a sentence (Salazar et al. 2020, 1910.14659).

B rows, N tokens, K codes.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskgil.condition import Condition
from maskgil.sampling.loop import SCORING_NFE
from maskgil.sampling.token_grid import TokenGrid

# (grid, hidden, condition) -> log-likelihood of the hidden tokens: see `TokenSpace.log_likelihood`.
LogLikelihood = Callable[[TokenGrid, Bool[Tensor, "B N"], Condition], Float[Tensor, "B N"]]


@runtime_checkable
class MaskedTokenConfig(Protocol):
    """What samplers read of a model's config. `reads_remaining`: whether the model reads how many tokens are masked."""

    @property
    def mask_id(self) -> int: ...

    @property
    def reads_remaining(self) -> bool: ...


@runtime_checkable
class MaskedTokenModel(Protocol):
    """A generator of codes: see maskgil/models/maskgil.py."""

    config: MaskedTokenConfig

    def __call__(
        self, tokens: Tensor, grid: tuple[int, int], condition: Condition, drop: Tensor | None = None
    ) -> Tensor: ...


def log_probability(logits: Float[Tensor, "B N K"], codes: Int[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Of each code under its logits."""
    return logits.gather(-1, codes[..., None])[..., 0] - logits.logsumexp(-1)


def code_log_likelihood(
    model: MaskedTokenModel, grid: TokenGrid, hidden: Bool[Tensor, "B N"], condition: Condition
) -> Float[Tensor, "B N"]:
    """Log-probability of each hidden code, given the condition and the codes that are neither hidden nor masked."""
    unseen = grid.mask | hidden
    logits = model(grid.tokens.masked_fill(unseen, model.config.mask_id), grid.grid, condition).float()
    return log_probability(logits, grid.tokens.masked_fill(grid.mask, 0))


def checkerboard_log_likelihood(score: LogLikelihood, grid: TokenGrid, condition: Condition) -> Float[Tensor, "B N"]:
    """Log-likelihood of each token given those in the other half of a checkerboard: SCORING_NFE evaluations, in one
    call."""
    height, width = grid.grid
    place = torch.arange(height * width, device=grid.mask.device)
    half = ((place // width + place % width) % 2 == 0).expand(len(grid), -1)
    twice = TokenGrid.cat([grid] * SCORING_NFE)
    both = score(twice, torch.cat([half, ~half]), Condition.cat([condition] * SCORING_NFE))
    first, second = both.chunk(2)
    return torch.where(half, first, second)
