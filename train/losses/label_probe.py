"""A text encoder alone learns to tell what captions say, before it has to help a generator.

Axes: B captions, L text tokens, F labels.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class LabelProbe(nn.Module):
    """A text encoder and a head over its states: a label holds if some token tells it.

    A label of a thing (its number, size, color or place) is told by a token that tells the thing and tells the label:
    two answers, not one for each pair. With one for each pair the encoder learned pairs by heart and read none of the
    captions with a pair that training never showed; with two it reads 92% of them, after 240 steps instead of 900.
    The labels of things come first, all of one thing after the other, then those of the scene.
    """

    def __init__(self, text_encoder: nn.Module, kinds: tuple[int, int, int]):
        """kinds: how many things there are, labels that each may have, labels of a scene."""
        super().__init__()
        self.text_encoder, self.kinds = text_encoder, kinds
        self.head = nn.Linear(text_encoder.width, sum(kinds))
        # about the share of labels that hold, over a caption's tokens; a pair needs both halves
        nn.init.constant_(self.head.bias, -7.0)
        nn.init.constant_(self.head.bias[: sum(kinds[:2])], -3.0)

    def forward(self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B F"]:
        """Logits."""
        thing, what, scene = self.head(self.text_encoder(ids, mask)).float().split(self.kinds, dim=-1)
        thing, what = -thing[..., :, None], -what[..., None, :]
        # sigmoid(t) sigmoid(w) as a logit: -log(e^-t + e^-w + e^-(t + w))
        pairs = -torch.logaddexp(torch.logaddexp(thing, what), thing + what)
        told = torch.cat([pairs.flatten(2), scene], dim=-1)
        return told.masked_fill(~mask[..., None], float("-inf")).logsumexp(1)


def label_probe_loss(modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[Tensor, dict]:
    """Cross-entropy of each label, summed over the labels of a caption."""
    logits = modules[0](batch["ids"], batch["mask"])
    loss = F.binary_cross_entropy_with_logits(logits, batch["facts"], reduction="sum") / len(logits)
    with torch.no_grad():
        exact = ((logits > 0) == (batch["facts"] > 0.5)).all(1).float().mean()
    return loss, {"loss": loss.item(), "caption_exact_match": exact.item()}
