"""Trains a text encoder to predict the labels of captions, before it is used with a generator.

Axes: B captions, L text tokens, F labels.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class LabelProbe(nn.Module):
    """A text encoder and a head over its states. A label holds if the head finds it at some token.

    The head has one answer for each thing and one for each label of a thing (number, size, color, place); both must
    hold at a token. With one answer for each pair the encoder memorized pairs and got no caption right whose pair was
    not in training. With two answers it gets 92% of these right, after 240 steps instead of 900. The labels of things
    come first, thing by thing, then those of the scene.
    """

    def __init__(self, text_encoder: nn.Module, kinds: tuple[int, int, int]):
        """kinds: numbers of things, of labels of each thing, and of labels of a scene."""
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
