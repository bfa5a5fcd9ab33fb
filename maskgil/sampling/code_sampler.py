"""A model and a condition as what `sample` calls: sampler(canvas, step, where) -> tokens, confidence.

B rows, N tokens, K codes, G guided rows.
"""

import functools
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskgil.condition import Condition
from maskgil.sampling import counter_rng
from maskgil.sampling.guidance import apply_guidance
from maskgil.sampling.loop import StepParams
from maskgil.sampling.scoring import (
    MaskedTokenModel,
    checkerboard_log_likelihood,
    code_log_likelihood,
    log_probability,
)
from maskgil.sampling.token_grid import TokenGrid

LARGEST = 2**26  # logits that codes are sampled from at once


class CodeSampler:
    """Samples codes of every masked token at once from a bidirectional model.

    condition holds one text for each row. negative, if given, takes the place of the null condition (a text for each
    row too): guidance then leads away from it. `nfe` counts the evaluations of the model that each row has cost.
    """

    def __init__(self, model: MaskedTokenModel, condition: Condition, negative: Condition | None = None):
        self.model, self.condition, self.negative = model, condition, negative
        self.nfe = torch.zeros(len(condition), dtype=torch.long, device=condition.mask.device)

    def __call__(
        self, canvas: TokenGrid, step: StepParams, where: Bool[Tensor, "B N"]
    ) -> tuple[Int[Tensor, "B N"], Float[Tensor, "B N"]]:
        logits = self.logits(canvas, step)
        self.nfe = self.nfe + step.nfe
        return sample_tokens(logits, step)

    def likelihood(self, canvas: TokenGrid, rows: Int[Tensor, " D"]) -> Float[Tensor, "D N"]:
        """Of each token of these rows, given the text and half of the others."""
        score = functools.partial(code_log_likelihood, self.model)
        return checkerboard_log_likelihood(score, canvas.rows(rows), self.condition.rows(rows))

    def logits(self, canvas: TokenGrid, step: StepParams) -> Float[Tensor, "B N K"]:
        """Guided logits in float32. Unguided rows are evaluated once, guided ones twice, all in one call."""
        mask = self.model.config.mask_id
        tokens = canvas.tokens.masked_fill(canvas.mask, mask)
        rows, guided = len(step), step.guided
        remaining = step.remaining if self.model.config.reads_remaining else None
        timed = {} if remaining is None else {"remaining": torch.cat([remaining, remaining[guided]])}
        if len(guided) == 0:
            return self.model(tokens, canvas.grid, self.condition, **timed).float()
        other = self.condition if self.negative is None else self.negative
        own = self.condition.expert  # both evaluations of a row are of the expert that draws it
        drop = None
        if self.negative is None:
            drop = torch.arange(rows + len(guided), device=tokens.device) >= rows
        logits = self.model(
            torch.cat([tokens, tokens[guided]]),
            canvas.grid,
            Condition.cat([self.condition, other.drawn_by(own).rows(guided)]),
            drop,
            **timed,
        ).float()
        conditional, null = logits[:rows], logits[rows:]
        return conditional.index_copy(0, guided, apply_guidance(null, conditional[guided], step.scale[guided]))


def sample_tokens(logits: Float[Tensor, "B N K"], step: StepParams) -> tuple[Int[Tensor, "B N"], Float[Tensor, "B N"]]:
    """A code for every position and its log-probability, both at the row's temperature.

    Adding Gumbel noise and taking the highest samples softmax(logits / temperature); noise scaled by the temperature
    instead of logits divided by it allows 0, the likeliest code, whose confidence is taken at temperature 1.
    """
    # Noise takes several times the memory of the logits: only so many rows at once.
    rows = max(1, LARGEST // logits[0].numel())
    settings: list[Any] = [step.seeds, step.index, step.temperature, step.top_k, step.top_p]
    nothing: Any = None
    parts = [
        _sampled(logits[i : i + rows], *(nothing if each is None else each[i : i + rows] for each in settings))
        for i in range(0, len(logits), rows)
    ]
    tokens, confidence = zip(*parts, strict=True)
    return torch.cat(tokens), torch.cat(confidence)


def _sampled(
    logits: Float[Tensor, "B N K"],
    seeds: Int[Tensor, " B"],
    index: Int[Tensor, " B"],
    temperature: Float[Tensor, " B"],
    top_k: Int[Tensor, " B"] | None,
    top_p: Float[Tensor, " B"] | None,
) -> tuple[Int[Tensor, "B N"], Float[Tensor, "B N"]]:
    temperature = temperature[:, None, None]
    if top_k is not None or top_p is not None:
        logits = _truncate(logits, temperature, top_k, top_p)
    draws = counter_rng.uniform(seeds, counter_rng.RngStream.TOKEN, index, logits.shape[1], logits.shape[2])
    tokens = (logits + temperature * counter_rng.gumbel(draws)).argmax(-1)
    scaled = logits / torch.where(temperature > 0, temperature, 1.0)
    return tokens, log_probability(scaled, tokens)


def _truncate(
    logits: Float[Tensor, "B N K"],
    temperature: Float[Tensor, "B 1 1"],
    top_k: Int[Tensor, " B"] | None,
    top_p: Float[Tensor, " B"] | None,
) -> Float[Tensor, "B N K"]:
    """-inf for codes outside the row's top-k, and outside the fewest that make up top-p at its temperature."""
    order = logits.argsort(dim=-1, descending=True, stable=True)
    rank = torch.arange(logits.shape[-1], device=logits.device)
    keep = torch.ones_like(order, dtype=torch.bool)
    if top_k is not None:
        k = torch.where(top_k > 0, top_k, logits.shape[-1])
        keep &= rank < k[:, None, None]
    if top_p is not None:
        probability = (logits.gather(-1, order) / temperature.clamp_min(1e-6)).masked_fill(~keep, -torch.inf)
        probability = probability.softmax(-1)
        before, share = probability.cumsum(-1) - probability, top_p[:, None, None]
        keep &= (before < share) | (share >= 1) | (rank == 0)  # sums that were rounded up to 1 cut off nothing
    kept = torch.zeros_like(keep).scatter(-1, order, keep)
    return logits.masked_fill(~kept, -torch.inf)
