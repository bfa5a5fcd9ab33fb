"""eMIGM as what `fill` calls, and the released sampler as a plan: its positions and noise drawn beforehand.

    sampler = LatentSampler(model, condition, DPMSolver(8))
    plan = masked_plan(256, steps=16, curve=exp, order="random")
    sample(sampler, TokenGrid.blank(1, (16, 16), channels=16), plan)

    plan, drawn = released(batch, 256, 16, 16, exp, Guidance(4.0, interval=(0.1, 0.3)), seed=0)
    fill(LatentSampler(model, condition, DPMSolver(8), drawn=drawn), blank, plan)  # the released code's picture

Axes: B rows, N tokens, C channels, D width, S slots of the buffer, G guided rows, n tokens decided by a step.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskgil.condition import Condition
from maskgil.models.diffusion_head import TIMES
from maskgil.models.diffusion_samplers import DDPM, DPMSolver, denoiser
from maskgil.sampling import counter_rng
from maskgil.sampling.guidance import END, Guidance
from maskgil.sampling.latent_scoring import LatentTrunk, latent_log_likelihood
from maskgil.sampling.loop import DecodingOrder, StepParams
from maskgil.sampling.plans import fixed_plan, masked_plan
from maskgil.sampling.schedules import MaskSchedule
from maskgil.sampling.scoring import checkerboard_log_likelihood
from maskgil.sampling.token_grid import TokenGrid


class LatentSampler:
    """Draws the continuous tokens that a step decides: the trunk once (twice for guided rows), the head only on those.

    condition  one text or label for each row
    negative   takes the place of the null condition where guided
    sampler    of the head, where a step names none. A step's temperature scales the noise that DDPM adds, and that
               which DPMSolver, which adds none, begins with: below 1 a token is more like the others that could stand
               there
    drawn      the head's starting noise (n, C) of each step in turn, in place of the seeds' (for parity)
    nfe        evaluations of the trunk that each row has cost

    The filled buffers are kept, so that the condition is read once, and again only by what judges (`likelihood`). A
    step asks the device for two numbers: the length of the encoder and how many tokens to draw.
    """

    def __init__(
        self,
        model: LatentTrunk,
        condition: Condition,
        sampler: DPMSolver | DDPM,
        negative: Condition | None = None,
        drawn: Sequence[Float[Tensor, "_ C"]] | None = None,
    ):
        self.model, self.sampler, self.condition = model, sampler, condition
        with torch.no_grad():
            self.slots = model.slots(condition)
            self.null = model.null_token.expand_as(self.slots) if negative is None else model.slots(negative)
        self.drawn = None if drawn is None else iter(drawn)
        self.nfe = torch.zeros(len(condition), dtype=torch.long, device=condition.mask.device)

    def __call__(
        self, canvas: TokenGrid, step: StepParams, where: Bool[Tensor, "B N"]
    ) -> tuple[Float[Tensor, "B N C"], Float[Tensor, "B N"]]:
        """Tokens at `where`, the canvas's elsewhere; the confidence is 0, since a sample's probability is not known.

        Raises ValueError for a canvas of codes, and for a plan that goes by confidence.
        """
        if canvas.tokens.dim() != 3:
            raise ValueError("this model draws continuous tokens; the canvas holds codes")
        if DecodingOrder.CONFIDENCE in step.orders:
            raise ValueError("continuous tokens have no confidence to go by: choose order random, halton or raster")
        z, null = self._trunk(canvas, step)
        sampler = step.head or self.sampler
        row, place = where.nonzero(as_tuple=True)
        head = self.model.diffloss.net
        if null is None:
            denoise = denoiser(head, z[row, place])
        else:
            half = torch.full((len(step),), -1, device=row.device)
            half[step.guided] = torch.arange(len(step.guided), device=row.device)
            chosen = (half[row] >= 0).nonzero()[:, 0]
            of = row[chosen]
            denoise = denoiser(head, z[row, place], null[half[of], place[chosen]], chosen, step.scale[of])

        def draw(k: int) -> Float[Tensor, "n C"]:
            if self.drawn is not None and k == 0:
                return next(self.drawn).to(z.device)
            # A number of its own for each of the head's noises, at most 1000, within the step's.
            index = step.index[row] * (TIMES + 1) + k
            uniform = counter_rng.uniform_at(
                step.seeds[row], counter_rng.RngStream.DIFFUSION, index, place, canvas.tokens.shape[2]
            )
            tempered = k > 0 or sampler.tempers_start
            return counter_rng.normal(uniform) * (step.temperature[row, None] if tempered else 1.0)

        tokens = canvas.tokens.clone()
        tokens[row, place] = sampler(denoise, draw).to(tokens.dtype)
        self.nfe = self.nfe + step.nfe
        return tokens, torch.zeros_like(canvas.confidence)

    def likelihood(self, canvas: TokenGrid, rows: Int[Tensor, " D"]) -> Float[Tensor, "D N"]:
        """Of each token of these rows, given the text and half of the others."""
        score = functools.partial(latent_log_likelihood, self.model)
        return checkerboard_log_likelihood(score, canvas.rows(rows), self.condition.rows(rows))

    def _trunk(
        self, canvas: TokenGrid, step: StepParams
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "G N D"] | None]:
        """z under the condition, and z of the guided rows without it; one call of the trunk."""
        if len(step.guided) == 0:
            return self.model.trunk(canvas.tokens, canvas.mask, self.slots), None
        tokens, masked, slots = (
            torch.cat([whole, half[step.guided]])
            for whole, half in (
                (canvas.tokens, canvas.tokens),
                (canvas.mask, canvas.mask),
                (self.slots, self.null),
            )
        )
        z = self.model.trunk(tokens, masked, slots)
        return z[: len(step)], z[len(step) :]


def transfer(curve: MaskSchedule, steps: int) -> list[float]:
    """The probability that a masked token is decided at each step: 1 - gamma(s) / gamma(t), and 1 at the last.

    In float32 over linspace(1, 1e-5, steps + 1), as the released code compares it.
    """
    times = torch.linspace(1.0, END, steps + 1)
    gamma = curve.gamma(times)
    return [*(1 - gamma[1:-1] / gamma[:-2]).tolist(), 1.0]


def reference_plan(
    batch: int,
    tokens: int,
    channels: int,
    steps: int,
    curve: MaskSchedule,
    guidance: Guidance,
    seed: int,
    device: torch.device | str = "cpu",
) -> tuple[list[StepParams], list[Float[Tensor, "_ C"]]]:
    """The released sampler's plan for a blank canvas, and the head's starting noise of each step, from one seed.

    Everything random is drawn here, in the order of the released code after torch.manual_seed(seed) on a CPU: which
    tokens a step decides does not depend on the model. All rows decide equally many at each step: the masked
    tokens whose uniform number is below `transfer`, or one if there is none. The plan ends when nothing is left, and so
    may be shorter than `steps`.
    """
    generator = torch.Generator().manual_seed(seed)
    masked = torch.ones(batch, tokens, dtype=torch.bool)
    masks, drawn = [], []
    for share in transfer(curve, steps):
        uniform = _uniforms(masked, generator)
        decided = masked & (uniform < share)
        if not decided.any():
            for row in range(batch):
                left = masked[row].nonzero()[:, 0]
                if len(left) == 1:  # the released code asks for no random number here
                    decided[row, left] = True
                elif len(left) > 1:
                    decided[row, left[torch.randint(0, len(left), (1,), generator=generator)]] = True
        if not decided.any():
            break
        masked = masked & ~decided
        masks.append(decided)
        drawn.append(torch.randn(int(decided.sum()), channels, generator=generator))
    counts = [int(mask[0].sum()) for mask in masks]
    decided_share = [sum(counts[: i + 1]) / tokens for i in range(len(counts))]
    scales = guidance.scales(decided_share + [1.0] * (steps - len(counts)))
    rows = torch.arange(batch, device=device)
    plan = masked_plan(tokens, len(masks), curve, DecodingOrder.RANDOM, seeds=[seed] * batch, device=device)
    plan = fixed_plan([mask.to(device) for mask in masks], plan)
    return [
        replace(step, scale=torch.full((batch,), scale, device=device), guided=rows if scale != 1 else rows[:0])
        for step, scale in zip(plan, scales, strict=False)
    ], [start.to(device) for start in drawn]


def random_counts_plan(
    plan: Sequence[StepParams],
    seeds: Sequence[int],
    masked: Bool[Tensor, "B N"],
    curve: MaskSchedule,
    guidance: Guidance,
) -> list[StepParams]:
    """A plan of as many steps in which each masked token is decided with the probability `transfer` of its step, one at
    the least: the released rule, for each row by its own seed. Steps in which no row has a masked token left are
    dropped.
    """
    masked, masks = masked.cpu(), []
    totals = masked.sum(1)  # before the steps empty it
    generators = [torch.Generator().manual_seed(int(seed) % 2**63) for seed in seeds]
    for share in transfer(curve, len(plan)):
        decided = torch.zeros_like(masked)
        for row, generator in enumerate(generators):
            uniform = torch.rand(masked.shape[1], generator=generator)
            decided[row] = masked[row] & (uniform < share)
            if masked[row].any() and not decided[row].any():
                left = masked[row].nonzero()[:, 0]
                decided[row, left[torch.randint(0, len(left), (1,), generator=generator)]] = True
        if not decided.any():
            break
        masked = masked & ~decided
        masks.append(decided)
    device = plan[0].num_unmask.device
    known = torch.stack(masks).sum(2).cumsum(0) / totals.clamp_min(1)
    shares = torch.cat([known, torch.ones(len(plan) - len(masks), len(seeds))])
    scales = torch.tensor([guidance.scales(shares[:, row].tolist()) for row in range(len(seeds))]).T
    fixed = fixed_plan([mask.to(device) for mask in masks], plan[: len(masks)])
    return [
        replace(step, scale=scale.to(device), guided=(scale != 1).nonzero()[:, 0].to(device))
        for step, scale in zip(fixed, scales, strict=False)
    ]


def _uniforms(masked: Bool[Tensor, "B N"], generator: torch.Generator) -> Float[Tensor, "B N"]:
    """Row 0 draws N numbers; the others have its numbers of masked places at their own, shuffled, and so for the rest:
    every row then decides as many."""
    first = torch.rand(masked.shape[1], generator=generator)
    rows = first.repeat(len(masked), 1)
    for _ in range(1, len(masked)):
        torch.randperm(masked.shape[1], generator=generator)  # drawn and not used by the released code
    for row in range(1, len(masked)):
        for kind in (~masked, masked):
            places = kind[row].nonzero()[:, 0]
            rows[row, places[torch.randperm(len(places), generator=generator)]] = first[kind[0]]
    return rows
