"""Optimizers: AdamW with decoupled groups, and Muon for everything that is a matrix.

Muon (Jordan et al., 2024) replaces a matrix's momentum by the nearest orthogonal matrix, found with Newton-Schulz
steps. Convolutions count as matrices (out, in * kernel). On the scene corpus it needs far fewer updates than AdamW;
embeddings, norms, biases and heads stay with AdamW.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from maskgil.models.diffusion_head import DiffusionHead
from maskgil.models.transformer import QKNorm
from train.precision import chosen_precision


@dataclass(frozen=True)
class OptimConfig:
    lr: float = 1e-3  # of AdamW's groups
    muon_lr: float | None = None  # None = AdamW for everything
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0  # matrices only ...
    decay_all: bool = False  # ... or every parameter
    warmup: int = 100  # steps from 0 to the full rate
    decay: float = 0.3  # the last share of the run falls linearly to `floor`; 0 = constant
    floor: float = 0.0  # of the full rate
    clip: float = 1.0  # gradient norm; 0 = off

    def factor(self, step: int, steps: int) -> float:
        """Share of the full learning rate at `step` of `steps` steps."""
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        tail = self.decay * steps
        left = (steps - step) / tail if tail else 1.0
        return warm * max(self.floor, min(1.0, left))


@torch.no_grad()
def orthogonalise(matrix: Tensor) -> Tensor:
    """(..., m, n) -> about U V^T of its singular value decomposition: four quintic Newton-Schulz steps.

    These steps are most of Muon's cost on a CPU; a fifth one changes little.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.to(torch.bfloat16 if chosen_precision("auto", matrix.device) == "bf16" else torch.float32)
    wide = x.shape[-2] > x.shape[-1]
    x = x.mT if wide else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(4):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if wide else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum 0.95 with Nesterov's look-ahead; matrices of one shape are orthogonalised together."""

    def __init__(self, params: list[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[tuple, list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault((p.shape[0], p[0].numel()), []).append(p)
            for (rows, columns), params in by_shape.items():
                momenta = []
                for p in params:
                    state = self.state[p]
                    if "momentum" not in state:
                        state["momentum"] = torch.zeros_like(p)
                    state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                    momenta.append(p.grad.lerp(state["momentum"], group["momentum"]).reshape(rows, columns))
                updates = orthogonalise(torch.stack(momenta))
                scale = max(1.0, rows / columns) ** 0.5
                for p, update in zip(params, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update.view_as(p), alpha=-group["lr"] * scale)


def is_matrix(name: str, p: nn.Parameter) -> bool:
    """Whether Muon trains a parameter: hidden matrices, but no embedding tables and no first or last layer. The
    projection inside the caption embedding counts as hidden: under AdamW its outputs grow until all captions look
    alike.

    T5's queries and keys are excluded. Their products are neither normalised nor scaled, and under Muon they grow to
    hundreds. Attention then picks one token regardless of relative positions, and the encoder gives "a cat left of a
    dog" and "a dog left of a cat" the same states."""
    ends = ("conv_in", "conv_out", "embed", "output", "shared", "relative_attention_bias", "head",
            "SelfAttention.q", "SelfAttention.k")  # fmt: skip
    layer = ".".join(name.split(".")[-3:-1])
    return p.ndim >= 2 and min(p.shape[0], p[0].numel()) > 8 and not any(end in layer for end in ends)


def build_optimizers(model: nn.Module, config: OptimConfig) -> list[torch.optim.Optimizer]:
    """One or two optimizers; each group remembers its full rate as `full_lr`."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    # (heads, head_dim) looks like a matrix, but it is a gain: decay would shrink it to 0
    gains = {id(p) for module in model.modules() if isinstance(module, QKNorm) for p in module.parameters()}
    muon = [p for n, p in named if config.muon_lr and is_matrix(n, p) and id(p) not in gains]
    taken = {id(p) for p in muon}
    rest = [p for _, p in named if id(p) not in taken]
    # eMIGM's released recipe has no decay for the diffusion head.
    heads = {id(p) for module in model.modules() if isinstance(module, DiffusionHead) for p in module.parameters()}
    # A checkpoint stores parameters by their place in the groups. Without decay the groups are alike, and gains keep
    # the place that older checkpoints have them at.
    apart = gains | heads if config.weight_decay else set()
    decayed = {id(p) for p in rest if config.decay_all or (p.ndim >= 2 and id(p) not in apart)}
    groups = [
        {"params": [p for p in rest if id(p) in decayed], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if id(p) not in decayed], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=config.betas, fused=True)
    ]
    if muon:
        optimizers.append(Muon(muon, lr=config.muon_lr, weight_decay=config.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["full_lr"] = group["lr"]
    return optimizers
