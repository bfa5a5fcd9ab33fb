"""A generator whose condition is given as plain tensors, because DDP and FSDP pass only those on.

Axes: B batch, N image tokens, L text tokens, E width of a text state, K codes.
"""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskgil.condition import Condition
from maskgil.models.ar import ARTransformer
from maskgil.models.maskgil import MaskGIL

CONDITION = ("ids", "states", "mask", "labels")  # entries of a batch that make its condition


def batch_condition(
    text_encoder: nn.Module | None,
    ids: Int[Tensor, "B L"] | None = None,
    states: Float[Tensor, "B L E"] | None = None,
    mask: Bool[Tensor, "B L"] | None = None,
    labels: Int[Tensor, " B"] | None = None,
) -> Condition:
    """The condition of a batch: word pieces `ids` for the text encoder, or its `states`, each with `mask`; or class
    `labels`."""
    if labels is not None:
        return Condition.classes(labels)
    return Condition(states if ids is None else text_encoder(ids, mask), mask)


class Conditioned(nn.Module):
    """A generator, or its autoregressive model, and the text encoder that is trained with it, if there is one.

    The condition is that of `batch_condition`.
    """

    def __init__(self, generator: MaskGIL | ARTransformer, text_encoder: nn.Module | None = None):
        super().__init__()
        self.generator, self.text_encoder = generator, text_encoder

    def forward(
        self,
        tokens: Int[Tensor, "B N"],
        grid: tuple[int, int],
        drop: Bool[Tensor, " B"] | None,
        **condition: Tensor,
    ) -> Float[Tensor, "B N K"]:
        """Logits; rows of `drop` see the null condition."""
        return self.generator(tokens, tuple(grid), batch_condition(self.text_encoder, **condition), drop)


class WithLayoutHeads(nn.Module):
    """A text-driven generator in training, with heads halfway up its layers that predict what each cell will show.

    The caption nearly determines the thing in a cell and the part of it, so the heads learn far sooner than the tokens,
    which depend on these. The heads are dropped at export.
    """

    def __init__(self, driven: Conditioned, kinds: tuple[int, ...]):
        """`kinds`: number of answers of each head."""
        super().__init__()
        self.driven = driven
        self.heads = nn.ModuleList(nn.Linear(driven.generator.config.dim, kind) for kind in kinds)

    @property
    def generator(self) -> nn.Module:
        return self.driven.generator

    @property
    def text_encoder(self) -> nn.Module:
        return self.driven.text_encoder

    def forward(self, tokens, grid, drop, **condition) -> tuple[Tensor, ...]:
        """Logits of the tokens, then of each head."""
        layers, seen = self.generator.late_blocks, []
        watch = layers[len(layers) // 2].register_forward_hook(lambda layer, given, out: seen.append(out))
        try:
            logits = self.driven(tokens, grid, drop, **condition)
        finally:
            watch.remove()
        cells = seen[0][:, -tokens.shape[1] :]  # the text comes first
        cells = F.rms_norm(cells, cells.shape[-1:])
        return logits, *(head(cells) for head in self.heads)


def given_condition(batch: dict) -> dict[str, Tensor]:
    """The arguments of `batch_condition` that a batch has."""
    return {name: batch[name] for name in CONDITION if name in batch}


def predict(
    model: nn.Module, tokens: Int[Tensor, "B N"], batch: dict, drop: Bool[Tensor, " B"] | None
) -> tuple[Float[Tensor, "B N K"], list[Tensor]]:
    """(logits of the tokens, logits of each layout head) for the condition of a batch."""
    out = model(tokens, tuple(batch["grid"]), drop, **given_condition(batch))
    logits, *heads = out if isinstance(out, tuple) else (out,)
    return logits, heads
