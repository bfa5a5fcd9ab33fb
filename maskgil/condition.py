"""What a picture is asked for: text states with a mask. A class label is a text of length one.

B batch, L text tokens, E width of the text states (1 for a label).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """States of the text tokens; `mask` is True where a token is real. What lies under False cannot matter.

    `expert`: the number of the generator's expert that draws each row (maskgil/experts.py); None: the first draws all.
    """

    states: Float[Tensor, "B L E"]
    mask: Bool[Tensor, "B L"]
    expert: Int[Tensor, " B"] | None = None

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
        expert = None
        if any(condition.expert is not None for condition in conditions):
            expert = torch.cat([condition.experts for condition in conditions])
        return Condition(torch.cat([c.states for c in padded]), torch.cat([c.mask for c in padded]), expert)

    def __len__(self) -> int:
        return self.states.shape[0]

    @property
    def length(self) -> int:
        return self.states.shape[1]

    @property
    def experts(self) -> Int[Tensor, " B"]:
        """The expert of each row, 0 for the first generator."""
        return torch.zeros(len(self), dtype=torch.long, device=self.mask.device) if self.expert is None else self.expert

    def drawn_by(self, expert: Int[Tensor, " B"] | None) -> "Condition":
        """The same texts for other experts."""
        return replace(self, expert=expert)

    def rows(self, index: Int[Tensor, " M"] | Bool[Tensor, " M"] | slice) -> "Condition":
        return Condition(self.states[index], self.mask[index], None if self.expert is None else self.expert[index])

    def repeat(self, n: int) -> "Condition":
        """Each row n times, copies side by side: a b -> a a b b."""
        expert = None if self.expert is None else self.expert.repeat_interleave(n, 0)
        return Condition(self.states.repeat_interleave(n, 0), self.mask.repeat_interleave(n, 0), expert)

    def pad(self, length: int) -> "Condition":
        """Padding columns on the right up to `length`; it never cuts."""
        assert length >= self.length, f"cannot pad {self.length} tokens to {length}"
        extra = length - self.length
        if not extra:
            return self
        return Condition(F.pad(self.states, (0, 0, 0, extra)), F.pad(self.mask, (0, extra)), self.expert)

    def trim(self) -> "Condition":
        """Without the columns that no row uses (at least one stays). Asks the device: call it before a loop."""
        used = self.mask.any(0)
        if bool(used.all()) or self.length == 1:
            return self
        if not bool(used.any()):
            used[0] = True
        return Condition(self.states[:, used], self.mask[:, used], self.expert)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Condition":
        # Labels (E = 1) keep their type: bfloat16 would merge those above 256.
        dtype = self.states.dtype if dtype is None or self.states.shape[2] == 1 else dtype
        expert = None if self.expert is None else self.expert.to(device=device)
        return Condition(self.states.to(device=device, dtype=dtype), self.mask.to(device=device), expert)


@runtime_checkable
class ConditionEncoder(Protocol):
    """What turns prompts, or names of classes, into a condition: a text encoder (text_encoder/__init__.py) or
    `ClassLabels`. `width`: of a state."""

    width: int

    def encode(self, prompts: Sequence[str]) -> Condition: ...

    def identity(self) -> dict[str, Tensor]: ...
