"""Floating-point operations of a training step of a small model."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from experiments.paper_findings.arms import GRID, HEAD, HEADS, REPEATS, Small
from train.data.latent_cache import WORDS
from train.losses.diffusion_token import LatentTokenLoss, LatentTrainingModule
from train.losses.generation_methods import method
from train.recipes.method_generators import TrunkSizes, generator_for


class Mute(torch.nn.Module):
    """Says nothing of any text: what an encoder is while operations are counted."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, ids: Int[Tensor, "B L"], mask: Tensor) -> Float[Tensor, "B L E"]:
        return torch.zeros(*ids.shape, self.width)


def arm_step_flops(small: Small, text: int = 256, rows: int = 4, draws: int = 16) -> float:
    """Floating-point operations that a row of a training step of a small eMIGM takes, forward and backward, trunk and
    head, as torch counts them: the mean over masks. text: width of the text states."""
    framework = method(small.method, **dict(small.choices))
    sizes = TrunkSizes(small.width, small.depth, HEADS, HEAD)
    generator = generator_for(framework, sizes, (8, 8), (text, WORDS), channels=8)
    model, loss = LatentTrainingModule(generator, Mute(text), repeats=REPEATS), LatentTokenLoss(framework)
    ids = torch.ones(rows, WORDS, dtype=torch.long)
    batch = {"tokens": torch.randn(rows, GRID**2, 8), "grid": (GRID, GRID), "ids": ids, "mask": ids > 0}
    with FlopCounterMode(display=False) as counter, torch.autocast("cpu", torch.bfloat16):
        for seed in range(draws):
            loss([model], batch, torch.Generator().manual_seed(seed), 0)[0].total.backward()
    return counter.get_total_flops() / (rows * draws)
