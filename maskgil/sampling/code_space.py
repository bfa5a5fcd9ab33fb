"""Codes of a codebook as tokens: what the pipeline asks of them (maskgil/generator.py).

B pictures, N tokens, K codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskgil import checkpoint
from maskgil.condition import Condition
from maskgil.generator import HiddenTokens, Sampler
from maskgil.params import SamplingParams
from maskgil.sampling.code_sampler import CodeSampler
from maskgil.sampling.loop import StepParams
from maskgil.sampling.schedules import MaskSchedule, schedule_by_name
from maskgil.sampling.scoring import MaskedTokenModel, code_log_likelihood
from maskgil.sampling.token_grid import TokenGrid


@dataclass(frozen=True)
class CodeSpace:
    """Codes 0 .. codebook_size - 1, and `mask_id` for a masked token."""

    fixed_shapes: ClassVar[bool] = True
    autoregressive: ClassVar[bool] = False
    takes_adapters: ClassVar[bool] = True
    tokenizer_kind: ClassVar[str] = "vq"
    codebook_size: int
    mask_id: int

    def validate_tokenizer(self, config: Any) -> None:
        """Raises ValueError for a tokenizer with another number of codes."""
        found = getattr(config, "codebook_size", "no")
        if found != self.codebook_size:
            raise ValueError(f"the generator draws {self.codebook_size} codes, this tokenizer has {found}")

    def validate_grids(self, grids: Sequence[tuple[int, int]], downsample: int) -> None:
        """Any grid can be drawn."""

    def validate_given(self, grid: TokenGrid, tokenizer_config: Any) -> None:
        """Raises ValueError for vectors, and for codes outside the codebook."""
        if grid.tokens.dim() == 3:
            raise ValueError("the canvas holds vectors, this model draws codes: use its own tokenizer")
        given = grid.tokens[~grid.mask]
        if given.numel() and not 0 <= int(given.min()) <= int(given.max()) < self.codebook_size:
            raise ValueError(
                f"the canvas holds tokens {int(given.min())}..{int(given.max())}; codes are 0..{self.codebook_size - 1}"
            )

    def blank(self, batch: int, grid: tuple[int, int], device: torch.device | str) -> TokenGrid:
        """A grid of only `mask_id`."""
        return TokenGrid.blank(batch, grid, self.mask_id, device)

    def without_masked(self, grid: TokenGrid) -> Int[Tensor, "B N"]:
        """The codes, with code 0 where they are masked."""
        return grid.tokens.masked_fill(grid.mask, 0)

    def fit_params(self, params: SamplingParams) -> SamplingParams:
        """The parameters as they are."""
        return params

    def order_and_schedule(self, params: SamplingParams) -> tuple[str, MaskSchedule]:
        """Decoding order and mask schedule, as the parameters have them."""
        return params.order, schedule_by_name(params.schedule)

    def finish_plan(
        self, plan: list[StepParams], canvas: TokenGrid, seeds: Sequence[int], params: SamplingParams
    ) -> list[StepParams]:
        """The plan as it is: codes have no diffusion head."""
        return plan

    def sampler(self, model: Any, condition: Condition, negative: Condition | None, head: Any = None) -> Sampler:
        """Samples codes by the logits of `model`; there is no diffusion head."""
        return CodeSampler(model, condition, negative)

    def open_tokenizer(self, folder: str | Path) -> Any:
        """The VQ tokenizer of a folder."""
        return checkpoint.load(folder, "vq")

    def hidden_outputs(
        self,
        model: Any,
        tokens: Int[Tensor, "B N"],
        grid: tuple[int, int],
        hidden: Bool[Tensor, "B N"],
        condition: Condition,
        drop: Bool[Tensor, " B"] | None,
    ) -> Float[Tensor, "B N K"]:
        """Logits."""
        return model(tokens.masked_fill(hidden, self.mask_id), grid, condition, drop)

    def hidden_loss(self, model: Any, outputs: Float[Tensor, "B N K"], target: HiddenTokens) -> Float[Tensor, ""]:
        """As `TokenSpace.hidden_loss`: cross-entropy."""
        hidden = target.hidden
        each = F.cross_entropy(
            outputs[hidden].float(), target.tokens[hidden], label_smoothing=target.smoothing, reduction="none"
        )
        if target.weight is not None:
            each = each * target.weight[:, None].expand_as(hidden)[hidden]
        return each.sum() / max(len(each), 1)  # an independent mask may hide nothing

    def log_likelihood(
        self, model: MaskedTokenModel, grid: TokenGrid, hidden: Bool[Tensor, "B N"], condition: Condition
    ) -> Float[Tensor, "B N"]:
        """As `TokenSpace.log_likelihood`: the log-probability of each hidden code."""
        return code_log_likelihood(model, grid, hidden, condition)
