"""Next-token prediction: cross-entropy of every token given the condition and the tokens before it (LlamaGen).

Axes: B batch, N image tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from maskgil.sampling import counter_rng
from train.losses.conditioned import predict
from train.losses.masked_token import MASKS, dropped, picture_seeds
from train.losses.token_targets import layout_loss, token_loss
from train.recipe import SumAndCount
from train.training_step import unwrapped


@dataclass(frozen=True)
class NextTokenLoss:
    """caption_dropout, smoothing, seed, layout and near as for MaskedTokenLoss."""

    caption_dropout: float = 0.1
    smoothing: float = 0.0
    seed: int = 0
    layout: float = 0.0
    near: tuple[Tensor, Tensor] | None = None

    def __call__(self, modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[SumAndCount, dict]:
        model, tokens = modules[0], batch["tokens"]
        seeds = picture_seeds(batch, self.seed)
        draws = counter_rng.uniform(seeds, MASKS, torch.zeros_like(seeds), 1, 1)[:, 0, 0]
        drop = dropped(draws, self.caption_dropout, unwrapped(model).generator.config.null)
        logits, heads = predict(model, tokens, batch, drop)
        total = token_loss(logits.flatten(0, 1).float(), tokens.flatten(), self.smoothing, self.near)
        accuracy = (logits.detach().argmax(-1) == tokens).float().mean()
        layout, report = layout_loss(heads, batch, torch.ones_like(tokens, dtype=torch.bool))
        count = torch.tensor(tokens.numel(), device=tokens.device)
        return SumAndCount(total + self.layout * layout * count, count), {"accuracy": accuracy} | report
