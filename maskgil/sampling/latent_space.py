"""Vectors as tokens: what the pipeline asks of them (maskgil/generator.py).

B pictures, N tokens, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from maskgil.condition import Condition
from maskgil.generator import HiddenTokens
from maskgil.models.diffusion_samplers import DDPM, DPMSolver
from maskgil.params import DecodingOrder, SamplingParams
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.latent_sampler import LatentSampler, random_counts_plan
from maskgil.sampling.latent_scoring import LatentTrunk, latent_log_likelihood
from maskgil.sampling.loop import StepParams
from maskgil.sampling.schedules import MaskSchedule, arccos, exp, schedule_by_name
from maskgil.sampling.token_grid import TokenGrid
from maskgil.tokenizers.autoencoder import validate_given_tokens
from maskgil.tokenizers.vq_latents import load_latent_tokenizer


@dataclass(frozen=True)
class LatentSpace:
    """Vectors of `channels` numbers, on the one `grid` of (rows, columns) that the generator has learned."""

    fixed_shapes: ClassVar[bool] = False  # the encoder reads only known tokens
    autoregressive: ClassVar[bool] = False
    takes_adapters: ClassVar[bool] = False
    tokenizer_kind: ClassVar[str] = "latent"
    channels: int
    grid: tuple[int, int]

    @property
    def codebook_size(self) -> None:
        """Vectors have no codebook."""

    def validate_tokenizer(self, config: Any) -> None:
        """Raises ValueError for a tokenizer with another number of channels."""
        found = getattr(config, "channels", "no")
        if found != self.channels:
            raise ValueError(f"the generator draws {self.channels} channels of a latent, this tokenizer has {found}")

    def validate_grids(self, grids: Sequence[tuple[int, int]], downsample: int) -> None:
        """Raises ValueError for every grid but the learned one."""
        if wrong := [grid for grid in grids if grid != self.grid]:
            asked = ", ".join(f"{columns * downsample}x{rows * downsample}" for rows, columns in wrong)
            rows, columns = self.grid
            raise ValueError(
                f"sizes {asked}: the generator has learned {columns * downsample}x{rows * downsample} alone"
            )

    def validate_given(self, grid: TokenGrid, tokenizer_config: Any) -> None:
        """Raises ValueError for codes, and for vectors that no picture has, as unscaled latents are."""
        if grid.tokens.dim() != 3:
            raise ValueError("the canvas holds codes, this model draws vectors: use its own tokenizer")
        validate_given_tokens(grid.tokens[~grid.mask], tokenizer_config.scale)

    def blank(self, batch: int, grid: tuple[int, int], device: torch.device | str) -> TokenGrid:
        """A grid of masked zero vectors."""
        return TokenGrid.blank(batch, grid, device=device, channels=self.channels)

    def without_masked(self, grid: TokenGrid) -> Float[Tensor, "B N C"]:
        """The vectors, with zeros where they are masked."""
        return grid.tokens.masked_fill(grid.mask[..., None], 0)

    def fit_params(self, params: SamplingParams) -> SamplingParams:
        """The parameters as they are."""
        return params

    def order_and_schedule(self, params: SamplingParams) -> tuple[str, MaskSchedule]:
        """Vectors have no confidence: order confidence is random, and schedule arccos, which goes with confidence, is
        exp (2503.07197, section 3.3). Any schedule is read as the share that remains masked."""
        order = DecodingOrder.RANDOM if params.order == DecodingOrder.CONFIDENCE else params.order
        schedule = schedule_by_name(params.schedule)
        return order, exp if schedule is arccos else replace(schedule, num_unmasked="remain")

    def finish_plan(
        self, plan: list[StepParams], canvas: TokenGrid, seeds: Sequence[int], params: SamplingParams
    ) -> list[StepParams]:
        """The plan with the head that the parameters ask for, and with random counts where they do."""
        steps = params.head_steps
        if params.counts == "random":
            if params.refinement_passes:
                raise ValueError("counts is random: refinement passes need fixed ones; set refinement_passes to 0")
            curve = self.order_and_schedule(params)[1]
            plan = random_counts_plan(plan, seeds, canvas.mask, curve, Guidance.of(params))
        if params.head_sampler == "dpm-solver" and steps is None:
            return plan
        head = DDPM(steps or 100) if params.head_sampler == "ddpm" else DPMSolver(steps or 8)
        return [replace(step, head=head) for step in plan]

    def sampler(self, model: LatentTrunk, condition: Condition, negative: Condition | None, head: Any) -> LatentSampler:
        """Samples vectors by the diffusion head of `model` with the solver `head`."""
        return LatentSampler(model, condition, head, negative)

    def open_tokenizer(self, folder: str | Path) -> Any:
        """The tokenizer of latents of a folder, or the latents of its VQ tokenizer."""
        return load_latent_tokenizer(folder)

    def hidden_outputs(
        self,
        model: Any,
        tokens: Float[Tensor, "B N C"],
        grid: tuple[int, int],
        hidden: Bool[Tensor, "B N"],
        condition: Condition,
        drop: Bool[Tensor, " B"] | None,
    ) -> Float[Tensor, "B N D"]:
        """Vectors z, which the diffusion head reads."""
        return model(tokens, hidden, condition, drop)

    def hidden_loss(self, model: Any, outputs: Float[Tensor, "B N D"], target: HiddenTokens) -> Float[Tensor, ""]:
        """As `TokenSpace.hidden_loss`: the loss of the diffusion head."""
        return model.loss(outputs, target.tokens, target.hidden, target.draws, target.repeats, target.weight)

    def log_likelihood(
        self, model: LatentTrunk, grid: TokenGrid, hidden: Bool[Tensor, "B N"], condition: Condition
    ) -> Float[Tensor, "B N"]:
        """As `TokenSpace.log_likelihood`, by the bound: only differences count, since its unit is that of the space."""
        return latent_log_likelihood(model, grid, hidden, condition)
