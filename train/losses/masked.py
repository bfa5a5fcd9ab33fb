"""What the big recipes train: a generator over cached tokens and text states, or labels, by masked-token prediction.

The loss is a sum over scored tokens and their count, so that the loop can divide by the tokens of all processes and
accumulation steps. Every random choice is a function of the picture's number in the stream of the run: the masks, and
so the loss, are the same however many processes share the work.

Axes: B batch, N image tokens, L text tokens, E width of a text state, K codes.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskgil.condition import Condition
from maskgil.models.ar import ARTransformer
from maskgil.models.maskgil import MaskGIL
from maskgil.sampling import counter_rng
from maskgil.sampling.schedules import MaskSchedule, arccos, exact_mask
from train.recipe import SumAndCount
from train.training_step import unwrapped

MASKS = 64  # a stream of its own, apart from those that sampling draws from (maskgil.sampling.counter_rng.Stream)


class Conditioned(nn.Module):
    """A generator, or its twin, with its condition as plain tensors, which is what DDP and FSDP pass on."""

    def __init__(self, generator: MaskGIL | ARTransformer):
        super().__init__()
        self.generator = generator

    def forward(
        self,
        tokens: Int[Tensor, "B N"],
        grid: tuple[int, int],
        drop: Bool[Tensor, " B"] | None,
        states: Float[Tensor, "B L E"] | None = None,
        mask: Bool[Tensor, "B L"] | None = None,
        labels: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B N K"]:
        condition = Condition(states, mask) if labels is None else Condition.classes(labels)
        return self.generator(tokens, grid, condition, drop)


class MaskedFeatureLoss:
    """Cross-entropy of masked tokens given the others and the condition.

    caption_dropout  share of pictures that see the null condition, for guidance
    smoothing        label smoothing (0.1 in the released code)
    everywhere       also score the visible tokens, as the released code does
    """

    def __init__(
        self,
        caption_dropout: float = 0.1,
        smoothing: float = 0.0,
        everywhere: bool = False,
        curve: MaskSchedule = arccos,
        seed: int = 0,
    ):
        self.caption_dropout, self.smoothing, self.everywhere = caption_dropout, smoothing, everywhere
        self.curve, self.seed = curve, seed

    def __call__(self, modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[SumAndCount, dict]:
        model, tokens = modules[0], batch["tokens"]
        seeds = batch["numbers"] + (self.seed << 44)
        draws = counter_rng.uniform(seeds, MASKS, torch.zeros_like(seeds), tokens.shape[1] + 2, 1)[..., 0]
        hidden = exact_mask(self.curve.gamma(draws[:, 0]), draws[:, 2:])
        config = unwrapped(model).generator.config
        drop = draws[:, 1] < self.caption_dropout
        if config.null == "none" and not self.caption_dropout:
            drop = None  # such a model cannot be asked to drop anything
        condition = {name: batch[name] for name in ("states", "mask", "labels") if name in batch}
        logits = model(tokens.masked_fill(hidden, config.mask_id), tuple(batch["grid"]), drop, **condition)
        scored = torch.ones_like(hidden) if self.everywhere else hidden
        total = F.cross_entropy(logits[scored].float(), tokens[scored], label_smoothing=self.smoothing, reduction="sum")
        with torch.no_grad():
            right = (logits[hidden].argmax(-1) == tokens[hidden]).float().mean()
        return SumAndCount(total, scored.sum()), {"right": right}
