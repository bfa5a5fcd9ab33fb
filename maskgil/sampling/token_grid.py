"""Tokens on a grid, some of them masked.

B rows, N tokens, C channels of a continuous token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class TokenGrid:
    """Tokens on a grid of (rows, columns), some of them masked. The value of a masked token means nothing.

    tokens      codes, or vectors for continuous models
    mask        True where the token is still to be decided
    revealed    the step that decided a token; -1 for given tokens and masked tokens
    confidence  log-probability of a token when it was decided (what the sampler says); 0 for given tokens and masked
    tokens
    """

    tokens: Int[Tensor, "B N"] | Float[Tensor, "B N C"]
    mask: Bool[Tensor, "B N"]
    grid: tuple[int, int]
    # None is taken for the values of a grid that no step has touched, and replaced by them.
    unmasked_at: Int[Tensor, "B N"] = None  # type: ignore[assignment]
    confidence: Float[Tensor, "B N"] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        rows, columns = self.grid
        if self.mask.shape != self.tokens.shape[:2] or rows * columns != self.mask.shape[1]:
            raise ValueError(
                f"a canvas of {rows} rows and {columns} columns needs {rows * columns} tokens a picture; "
                f"tokens are {tuple(self.tokens.shape)}, masked tokens {tuple(self.mask.shape)}"
            )
        if self.unmasked_at is None:
            object.__setattr__(self, "unmasked_at", torch.full_like(self.mask, -1, dtype=torch.long))
        if self.confidence is None:
            object.__setattr__(self, "confidence", torch.zeros_like(self.mask, dtype=torch.float32))

    @staticmethod
    def blank(
        batch: int,
        grid: tuple[int, int],
        mask_id: int = 0,
        device: torch.device | str = "cpu",
        channels: int | None = None,
    ) -> "TokenGrid":
        """Only masked tokens: `mask_id` everywhere, or zero vectors when `channels` is given."""
        shape = (batch, grid[0] * grid[1])
        masked = torch.ones(shape, dtype=torch.bool, device=device)
        if channels is None:
            return TokenGrid(torch.full(shape, mask_id, device=device), masked, grid)
        return TokenGrid(torch.zeros(*shape, channels, device=device), masked, grid)

    def __len__(self) -> int:
        return self.mask.shape[0]

    def num_masked(self) -> list[int]:
        """Masked tokens of each row. Asks the device: for making plans, not inside a step."""
        return self.mask.sum(1).tolist()

    def rows(self, index: Int[Tensor, " M"] | slice) -> "TokenGrid":
        return TokenGrid(
            self.tokens[index], self.mask[index], self.grid, self.unmasked_at[index], self.confidence[index]
        )

    def repeat(self, n: int) -> "TokenGrid":
        """Each row n times, copies side by side: a b -> a a b b."""
        rows = torch.arange(len(self), device=self.mask.device)
        return self.rows(rows.repeat_interleave(n)) if n > 1 else self

    @staticmethod
    def cat(canvases: Sequence["TokenGrid"]) -> "TokenGrid":
        """All rows one after the other; the grids must agree."""
        assert len({canvas.grid for canvas in canvases}) == 1, "canvases of different grids"
        parts = ("tokens", "mask", "unmasked_at", "confidence")
        joined = {part: torch.cat([getattr(canvas, part) for canvas in canvases]) for part in parts}
        return TokenGrid(grid=canvases[0].grid, **joined)


def fill_nearest(
    tokens: Int[Tensor, "B N"] | Float[Tensor, "B N C"], masked: Bool[Tensor, "B N"], grid: tuple[int, int]
) -> Int[Tensor, "B N"] | Float[Tensor, "B N C"]:
    """Every masked token takes the decided token nearest to it; where nothing is decided, tokens stay."""
    if not bool(masked.any()):
        return tokens
    rows, columns = grid
    place = torch.arange(rows * columns, device=tokens.device)
    y, x = place // columns, place % columns
    distance = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
    nearest = distance.masked_fill(masked[:, None, :], rows**2 + columns**2).argmin(-1)
    return tokens[torch.arange(len(tokens), device=tokens.device)[:, None], nearest]
