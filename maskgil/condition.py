"""What a picture is asked for: text states with a mask. A class label is a text of length one.

B batch, L text tokens, E width of the text states (1 for a label).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """States of the text tokens; `mask` is True where a token is real. What lies under False cannot matter."""

    states: Float[Tensor, "B L E"]
    mask: Bool[Tensor, "B L"]

    @staticmethod
    def classes(ids: Int[Tensor, " B"]) -> "Condition":
        """Class labels as states (B, 1, 1). float32 holds every label below 2^24 exactly."""
        states = ids.to(torch.float32)[:, None, None]
        return Condition(states, torch.ones_like(states[..., 0], dtype=torch.bool))

    @staticmethod
    def cat(conditions: Sequence["Condition"]) -> "Condition":
        """All rows one after the other, padded to the longest."""
        length = max(condition.length for condition in conditions)
        padded = [condition.pad(length) for condition in conditions]
        return Condition(torch.cat([c.states for c in padded]), torch.cat([c.mask for c in padded]))

    def __len__(self) -> int:
        return self.states.shape[0]

    @property
    def length(self) -> int:
        return self.states.shape[1]

    def rows(self, index: Int[Tensor, " M"] | Bool[Tensor, " M"] | slice) -> "Condition":
        return Condition(self.states[index], self.mask[index])

    def repeat(self, n: int) -> "Condition":
        """Each row n times, copies side by side: a b -> a a b b."""
        return Condition(self.states.repeat_interleave(n, 0), self.mask.repeat_interleave(n, 0))

    def pad(self, length: int) -> "Condition":
        """Padding columns on the right up to `length`; it never cuts."""
        assert length >= self.length, f"cannot pad {self.length} tokens to {length}"
        extra = length - self.length
        return Condition(F.pad(self.states, (0, 0, 0, extra)), F.pad(self.mask, (0, extra))) if extra else self

    def trim(self) -> "Condition":
        """Without the columns that no row uses (at least one stays). Asks the device: call it before a loop."""
        used = self.mask.any(0)
        if bool(used.all()) or self.length == 1:
            return self
        if not bool(used.any()):
            used[0] = True
        return Condition(self.states[:, used], self.mask[:, used])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Condition":
        # Labels (E = 1) keep their type: bfloat16 would merge those above 256.
        dtype = self.states.dtype if dtype is None or self.states.shape[2] == 1 else dtype
        return Condition(self.states.to(device=device, dtype=dtype), self.mask.to(device=device))


@runtime_checkable
class ConditionEncoder(Protocol):
    """What turns prompts, or names of classes, into a condition: a text encoder (text_encoder/__init__.py) or
    `ClassLabels`. `width`: of a state."""

    width: int

    def encode(self, prompts: Sequence[str]) -> Condition: ...

    def identity(self) -> dict[str, Tensor]: ...
