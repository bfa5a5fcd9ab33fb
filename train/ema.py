"""An exponential moving average of a model's parameters, kept in float32 beside it."""

import copy

import torch
from torch import nn


class EMA:
    """`model` is the averaged copy: always in evaluation mode, never given a gradient."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """The decay grows with the step (Karras et al. 2024, in spirit): early noise is forgotten quickly."""
        decay = min(self.decay, (1 + step) / (10 + step))
        ours, theirs = list(self.model.parameters()), list(model.parameters())
        torch._foreach_lerp_(ours, [p.detach() for p in theirs], 1 - decay)
        for a, b in zip(self.model.buffers(), model.buffers(), strict=True):
            a.copy_(b)
