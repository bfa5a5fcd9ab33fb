"""Masked-token prediction: cross-entropy of masked tokens given the others and the condition.

Masks and dropped conditions are a function of the picture's number in the stream of the run, so the loss is the same
for any number of processes.

Axes: B batch, N image tokens.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskgil.sampling import counter_rng
from maskgil.sampling.schedules import MaskSchedule, arccos, exact_mask
from train.losses.conditioned import Conditioned, predict
from train.losses.token_targets import distillation_loss, layout_loss, token_loss
from train.recipe import SumAndCount
from train.training_step import unwrapped

MASKS = 64  # a random stream that sampling does not use (maskgil.sampling.counter_rng.RngStream)


def picture_seeds(batch: dict, seed: int) -> Tensor:
    """(B,) seeds of pictures, from their numbers in the stream of the run and the run's seed of 19 bits."""
    return batch["numbers"] + (seed << 44)


def dropped(draws: Tensor, share: float, null: str) -> Tensor | None:
    """Which rows see the null condition; None for a model without one and a share of 0."""
    return None if null == "none" and not share else draws < share


@dataclass(frozen=True)
class Teacher:
    """A generator that knows some of the things. Its probabilities are a part of the target in pictures that show only
    these.

    A distribution tells more than the token of a cell, so the student keeps this knowledge with far fewer pictures.

    driven  the generator with the student's text encoder; neither is trained
    things  it knows things 1 to `things`
    weight  the share of its probabilities in the target
    kinds   it is not used for pictures with more kinds of things
    """

    driven: Conditioned
    things: int
    weight: float = 0.7
    kinds: int = 2

    def knows(self, cells: Int[Tensor, "B N"]) -> Bool[Tensor, " B"]:
        """Rows that show only known things. `cells`: the number of the thing in each cell (0: none)."""
        ordered = cells.sort(1).values
        kinds = ((ordered[:, 1:] != ordered[:, :-1]) & (ordered[:, 1:] > 0)).sum(1) + (ordered[:, 0] > 0)
        return (ordered[:, -1] <= self.things) & (kinds <= self.kinds)

    @torch.no_grad()
    def shares(
        self, tokens: Int[Tensor, "b N"], batch: dict, drop: Bool[Tensor, " B"] | None, rows: Bool[Tensor, " B"]
    ) -> Float[Tensor, "b N K"]:
        """Its probabilities for `rows` of a batch. `tokens`: those of these rows, some of them masked."""
        self.driven.generator.to(tokens.device).eval()
        condition = {name: batch[name][rows] for name in ("ids", "mask")}
        logits = self.driven(tokens, tuple(batch["grid"]), None if drop is None else drop[rows], **condition)
        return logits.float().softmax(-1)


@dataclass(frozen=True)
class MaskedTokenLoss:
    """The loss of MaskGIT (Chang et al. 2022), with options of MaskGIL's published code.

    caption_dropout  share of pictures that see the null condition, for guidance (0.1 in the published code)
    smoothing        label smoothing (0.1 in the published code)
    everywhere       also score the visible tokens, as the published code does
    independent      mask each token by itself with the ratio as its probability, as the published code does, instead of
                     exactly that share of them
    curve            uniform numbers -> mask ratios; arccos in the published code, mean 0.637
    layout           weight of the loss of a WithLayoutHeads model's heads on the masked cells
    near             codes that share the target of a code, and their shares (neighbor_targets)
    things_first     mask the cells of things before those of the background, to a degree drawn for each row. Sampling
                     decides the background first, and only a thing that is masked whole must be read from the caption
    teacher          its probabilities are a part of the target (Teacher)
    """

    caption_dropout: float = 0.1
    smoothing: float = 0.0
    everywhere: bool = False
    curve: MaskSchedule = arccos
    seed: int = 0
    layout: float = 0.0
    near: tuple[Tensor, Tensor] | None = None
    things_first: bool = False
    independent: bool = False
    teacher: Teacher | None = None

    def masks(self, batch: dict) -> tuple[Tensor, Tensor]:
        """(masked (B, N), a uniform number for each picture's condition (B,))."""
        seeds, count = picture_seeds(batch, self.seed), batch["tokens"].shape[1]
        positions = count + 2 + self.things_first
        draws = counter_rng.uniform(seeds, MASKS, torch.zeros_like(seeds), positions, 1)[..., 0]
        ratio, order = self.curve.gamma(draws[:, 0]), draws[:, 2 : count + 2]
        if self.things_first:
            order = order - draws[:, count + 2 :] * (batch["things"] > 0)
        masked = order < ratio[:, None] if self.independent else exact_mask(ratio, order)
        return masked, draws[:, 1]

    def of_tokens(
        self, logits: Float[Tensor, "B N K"], tokens: Int[Tensor, "B N"], scored: Bool[Tensor, "B N"]
    ) -> Float[Tensor, ""]:
        """Cross-entropy with the pictures' tokens, summed over the scored ones."""
        return token_loss(logits[scored].float(), tokens[scored], self.smoothing, self.near)

    def __call__(self, modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[SumAndCount, dict]:
        model, tokens = modules[0], batch["tokens"]
        config = unwrapped(model).generator.config
        masked, draws = self.masks(batch)
        drop = dropped(draws, self.caption_dropout, config.null)
        seen = tokens.masked_fill(masked, config.mask_id)
        logits, heads = predict(model, seen, batch, drop)
        scored = torch.ones_like(masked) if self.everywhere else masked
        total, count = self.of_tokens(logits, tokens, scored), scored.sum()
        if self.teacher is not None and (known := self.teacher.knows(batch["things"])).any():
            shares, weight = self.teacher.shares(seen[known], batch, drop, known), self.teacher.weight
            taught = distillation_loss(logits[known][scored[known]].float(), shares[scored[known]])
            total = total + weight * (taught - self.of_tokens(logits, tokens, scored & known[:, None]))
        with torch.no_grad():
            accuracy = (logits[masked].argmax(-1) == tokens[masked]).float().mean()
        layout, report = layout_loss(heads, batch, masked)
        return SumAndCount(total + self.layout * layout * count, count), {"accuracy": accuracy} | report
