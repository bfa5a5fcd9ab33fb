"""Targets of a token's cross-entropy, and the loss of layout heads.

Axes: B batch, N image tokens, K codes, C channels of a code, n scored tokens or neighbors.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def neighbor_targets(
    codebook: Float[Tensor, "K C"], neighbours: int = 16, temperature: float = 0.04
) -> tuple[Int[Tensor, "K n"], Float[Tensor, "K n"]]:
    """(codes, shares): the codes that share the target of each code, by cosine similarity; shares sum to 1.

    A small codebook that was trained on few pictures is dense: a patch gets one of several near codes at random, and
    all of them decode alike. With the exact code as the target, most of a generator's loss is that randomness.
    """
    unit = F.normalize(codebook, dim=-1)
    similarity, codes = torch.cat([part @ unit.T for part in unit.split(1024)]).topk(neighbours, dim=1)
    return codes, (similarity / temperature).softmax(1)


def token_loss(
    logits: Float[Tensor, "n K"],
    tokens: Int[Tensor, " n"],
    smoothing: float = 0.0,
    near: tuple[Tensor, Tensor] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy summed over the tokens. `near`: codes that share the target of a token (neighbor_targets)."""
    if near is None:
        return F.cross_entropy(logits, tokens, label_smoothing=smoothing, reduction="sum")
    codes, shares = (table.to(tokens.device)[tokens] for table in near)
    return -(shares * logits.log_softmax(1).gather(1, codes)).sum()


def distillation_loss(logits: Float[Tensor, "n K"], shares: Float[Tensor, "n K"]) -> Float[Tensor, ""]:
    """Cross-entropy with a teacher's probabilities, summed over the tokens (Hinton et al. 2015, at temperature 1)."""
    return -(shares * logits.log_softmax(1)).sum()


# Answers of layout heads for each cell, in this order (train/scenes/labels.py).
LAYOUT = ("things", "parts", "grounds", "styles", "colours")


def layout_loss(answers: list[Tensor], batch: dict, scored: Bool[Tensor, "B N"]) -> tuple[Tensor | float, dict]:
    """(sum over heads, each one) of the cross-entropy of a WithLayoutHeads model's heads on the scored cells."""
    wrong = {
        name: F.cross_entropy(answer[scored].float(), batch[name][scored])
        for name, answer in zip(LAYOUT, answers, strict=False)
    }
    return sum(wrong.values()), {name: loss.item() for name, loss in wrong.items()}
