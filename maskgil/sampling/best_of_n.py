"""Of several drawings of the same words, the one that the model itself believes most.

    draws.images(["a blue cat and a red dog"], seeds=[7], settings=Settings(candidates=4))

DALL-E and Parti draw many candidates and let a contrastive model choose (Ramesh et al. 2021, 2102.12092, section 2.6;
Yu et al. 2022, 2206.10789, section 6.1). A masked model needs no other: it scores each token by the other half of the
picture and the words, as it does for a refinement pass (maskgil/sampling/loop.py). A picture is as good as its weakest
part: of the
scores of what was drawn the lowest quarter are summed, so that a thing gone wrong is not made up for by a large easy
background, nor by what was given.

P pictures, K candidates of each, B = P K rows, those of one picture side by side; N tokens.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maskgil.sampling.loop import SCORING_NFE
from maskgil.sampling.token_grid import TokenGrid

WEAKEST_SHARE = 0.25  # share of a picture's tokens by which it is judged
APART = 2**48  # between the seeds of candidates: nobody numbers pictures so far (GenEval's copies lie 2^32 apart)
SEEDS = 2**63


@runtime_checkable
class Scorer(Protocol):
    """What is asked of a sampler: see maskgil/sampling/code_sampler.py."""

    def likelihood(self, canvas: TokenGrid, rows: Int[Tensor, " D"]) -> Float[Tensor, "D N"]: ...


def candidate_seeds(seeds: Sequence[int], candidates: int) -> list[int]:
    """Of every candidate; the first of a picture has the picture's own, and is what is drawn when there is no other."""
    return [(seed + i * APART) % SEEDS for seed in seeds for i in range(candidates)]


def candidates_nfe(each: int, candidates: int) -> int:
    """Evaluations that a picture costs whose candidates cost `each`, the choice among them included."""
    return candidates * (each + SCORING_NFE) if candidates > 1 else each


@torch.no_grad()
def best_candidates(critic: Scorer, canvas: TokenGrid, candidates: int) -> Int[Tensor, " P"]:
    """The row of each picture's best candidate; of equals the first. Asks for HALVES evaluations of every row."""
    scores = critic.likelihood(canvas, torch.arange(len(canvas), device=canvas.mask.device))
    drawn = canvas.unmasked_at >= 0
    few = (WEAKEST_SHARE * drawn.sum(1, keepdim=True)).round().clamp_min(1)
    rank = torch.arange(scores.shape[1], device=scores.device)
    lowest = scores.masked_fill(~drawn, torch.inf).sort(dim=1).values
    worth = torch.where(rank < few, lowest, 0.0).sum(1).view(-1, candidates)
    first = torch.arange(len(worth), device=worth.device) * candidates
    return first + worth.argmax(1)


def first_candidates(canvas: TokenGrid, candidates: int) -> TokenGrid:
    """While nothing is chosen, the first of each picture's."""
    return canvas.rows(slice(None, None, candidates)) if candidates > 1 else canvas
