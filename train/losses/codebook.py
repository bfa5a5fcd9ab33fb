"""A codebook in training: straight-through gradients, its initialization by clusters, and revival of unused codes.

Axes: n latents, K codes, C latent channels, B batch, h w cells.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from maskgil.tokenizers.vq import VQModel
from train.precision import chosen_precision


def quantize_with_gradient(model: VQModel, z: Float[Tensor, "B h w C"]) -> tuple[Tensor, Tensor, Tensor]:
    """(straight-through latents, tokens, codebook + commitment loss), VQ-VAE with beta 0.25 (van den Oord 2017)."""
    tokens = model.quantize.nearest(z.detach())
    codes = F.embedding(tokens, model.quantize.codebook())
    loss = (codes - z.detach()).square().mean() + 0.25 * (codes.detach() - z).square().mean()
    return z + (codes - z).detach(), tokens, loss


@torch.no_grad()
def spread_codebook(model: VQModel, latents: Float[Tensor, "n C"], generator: torch.Generator, rounds: int = 8) -> None:
    """Initialize the codebook with clusters of latents (k-means on the sphere)."""
    k = model.config.codebook_size
    device = latents.device
    centres = latents[torch.randperm(len(latents), generator=generator, device=device)[:k]]
    for _ in range(rounds):
        nearest = torch.cat([(part @ centres.T).argmax(1) for part in latents.split(4096)])
        sums = torch.zeros_like(centres).index_add_(0, nearest, latents)
        empty = sums.norm(dim=1) < 1e-6
        chosen = torch.randint(len(latents), (int(empty.sum()),), generator=generator, device=device)
        sums[empty] = latents[chosen]
        centres = F.normalize(sums, dim=-1)
    model.quantize.embedding.weight.copy_(centres)


@torch.no_grad()
def revive_unused(model: VQModel, latents: Float[Tensor, "n C"], generator: torch.Generator) -> None:
    """Move codes that none of these latents uses, at most 5% of all, to the latents with the largest error."""
    codes = model.quantize.codebook()
    similarity, nearest = zip(*[(part @ codes.T).max(1) for part in latents.split(4096)], strict=True)
    used = torch.bincount(torch.cat(nearest), minlength=len(codes))
    unused = (used == 0).nonzero().flatten()
    unused = unused[torch.randperm(len(unused), generator=generator, device=unused.device)[: len(codes) // 20]]
    worst = torch.cat(similarity).argsort()[: 4 * len(unused)]
    chosen = worst[torch.randperm(len(worst), generator=generator, device=unused.device)[: len(unused)]]
    model.quantize.embedding.weight[unused[: len(chosen)]] = latents[chosen]


class CodebookRevival:
    """Called after each step: initializes the codebook when quantization begins, and revives unused codes until step
    `until`.

    more_batches  number -> a batch with "pixels" (B, 3, H, W) uint8
    start, more   numbers of batches whose latents initialize the codebook, and revive it
    """

    def __init__(
        self,
        quantize_from: int,
        more_batches: Callable[[int], dict],
        every: int = 100,
        until: int = 10**9,
        start: int = 48,
        more: int = 16,
    ):
        self.quantize_from, self.more_batches, self.every, self.until = quantize_from, more_batches, every, until
        self.start, self.more = start, more

    @torch.no_grad()
    def _latents(self, model: VQModel, step: int, batches: int) -> Float[Tensor, "n C"]:
        device, latents = next(model.parameters()).device, []
        half = chosen_precision("auto", device) == "bf16"
        for i in range(batches):
            pixels = self.more_batches(10_000_000 + step * 64 + i)["pixels"].to(device).float().div(127.5).sub(1)
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                small = model.to_encoder_resolution(pixels).contiguous(memory_format=torch.channels_last)
                latents.append(model.latents(small).flatten(0, 2).float())
        return torch.cat(latents)

    def __call__(self, training: nn.Module, batch: dict, generator: torch.Generator, step: int) -> None:
        """`training`: a module whose `model` is the tokenizer."""
        model = training.model
        if step + 1 == self.quantize_from:
            spread_codebook(model, self._latents(model, step, self.start), generator)
        elif self.quantize_from < step < self.until and step % self.every == 0:
            revive_unused(model, self._latents(model, step, self.more), generator)
