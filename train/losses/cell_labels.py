"""The cell classifier of a decoder (maskgil/tokenizers/vq.py): it predicts from the tokens what each cell shows.

Its heads predict the thing and the part of it, its color and style, and the background. No picture is rendered or
decoded, so training sees more than ten times as many scenes a second as a decoder does. The heads are dropped at
export; `scenes-decoder` then trains with the classifier's features.

Axes: B batch, N tokens, h w cells.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from maskgil.tokenizers.vq import VQModel
from train.losses.tokenizer_losses import corrupt_codes, latents_of

WIDTH, BLOCKS, MEMORY = 256, 3, 1536  # of the bundled tokenizer's cell classifier and patch memory


class CellClassifier(nn.Module):
    """A cell classifier and a head for each of `cells` (train/scenes/labels.py), with `kinds` answers."""

    def __init__(self, model: VQModel, kinds: tuple[int, ...]):
        super().__init__()
        self.naming = model.naming
        self.heads = nn.ModuleList(nn.Conv2d(model.config.naming_channels, kind, 1) for kind in kinds)
        self.register_buffer("codebook", model.quantize.codebook().detach().clone())

    def forward(self, tokens: Int[Tensor, "B N"], grid: tuple[int, int]) -> list[Float[Tensor, "B _ N"]]:
        """Logits of each head."""
        told = self.naming(latents_of(self.codebook, tokens, grid))
        return [head(told).flatten(2) for head in self.heads]


class CellClassifierLoss:
    """Cross-entropy of every head, on corrupted tokens (DecoderLoss); reports the accuracy on things."""

    def __init__(self, kinds: tuple[str, ...], near: tuple[Tensor, Tensor], corruption: float):
        self.kinds, self.near, self.corruption = kinds, near, corruption

    def __call__(self, modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[Tensor, dict]:
        tokens = corrupt_codes(batch["tokens"], self.near, self.corruption, generator)
        loss, report, there = tokens.new_zeros((), dtype=torch.float), {}, batch["things"] > 0
        for kind, logits in zip(self.kinds, modules[0](tokens, tuple(batch["grid"])), strict=True):
            loss = loss + F.cross_entropy(logits.float(), batch[kind])
            report[kind] = (logits.argmax(1) == batch[kind])[there].float().mean().item()
        return loss, {"loss": loss.item()} | report
