"""An exponential moving average of a model's parameters, kept in float32 beside it."""

import copy

import torch
from torch import Tensor, nn


def local(tensor: Tensor) -> Tensor:
    """This process's piece of a sharded tensor, sharing its memory; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # DTensor takes seconds to import


@torch.no_grad()
def all_finite(tensors: list[Tensor]) -> bool:
    """Whether all numbers of these tensors, or of this process's pieces of them, are finite."""
    pieces = [local(t).detach() for t in tensors if t.is_floating_point()]
    pieces = [piece for piece in pieces if piece.numel()]
    if not pieces:
        return True
    largest = torch._foreach_norm(pieces, ord=float("inf"))
    return bool(torch.stack([norm.float() for norm in largest]).isfinite().all())


class EMA:
    """`model` is the averaged copy: always in evaluation mode, never given a gradient."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> bool:
        """Move the average towards `model`. If a weight of `model` is not finite, return False and change nothing.

        The decay grows with the step (after Karras et al. 2024, 2312.02696): early weights are forgotten quickly.
        """
        theirs = [p.detach() for p in model.parameters()]
        if not all_finite([p for p in model.parameters() if p.requires_grad]):
            return False
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), theirs, 1 - decay)
        for a, b in zip(self.model.buffers(), model.buffers(), strict=True):
            a.copy_(b)
        return True
