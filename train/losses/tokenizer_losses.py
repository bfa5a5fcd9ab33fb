"""Losses of tokenizers and their decoders: reconstruction, and classification of what covers each cell.

Axes: B batch, N image tokens, K codes, C latent channels, h w cells, H W pixels.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from maskgil.tokenizers.vq import VQModel
from train.losses.codebook import quantize_with_gradient
from train.losses.reconstruction import ReconstructionLoss
from train.training_step import unwrapped


class TokenizerWithCellHead(nn.Module):
    """A tokenizer in training, with a head that classifies from the tokens what covers each cell.

    With a loss on pixels only, a small tokenizer learns colors long before identities; the head makes the codes carry
    both. It is dropped at export.
    """

    def __init__(self, model: VQModel, things: int):
        super().__init__()
        self.model = model
        if hasattr(model, "naming"):  # which pixels are not to teach, while the codes that it reads change
            model.naming.requires_grad_(False)
        self.head = nn.Conv2d((model.config.decoder_channels or model.config.channels)[-1], things + 1, 1)

    def forward(
        self, pixels: Float[Tensor, "B 3 H W"], noise: Float[Tensor, "B h w C"] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(reconstruction, logits of things (B, T+1, h, w), codebook loss). `noise`: of latents that are not
        quantized."""
        z = self.model.latents(self.model.to_encoder_resolution(pixels))
        if noise is None:
            z, _, extra = quantize_with_gradient(self.model, z)
        else:
            z, extra = F.normalize(z + noise, dim=-1), z.new_zeros(())
        z = z.permute(0, 3, 1, 2)
        cells = self.model.decoder.encode_latents(self.model.post_quant_conv(z))
        return self.model.decoder.to_pixels(cells, self.model.cell_features(z)), self.head(cells), extra


class TokenizerLoss:
    """Reconstruction through the codebook, and classification of what covers each cell. Until step `quantize_from` the
    latents are normalised but not quantized, so that the codebook is initialized from clusters of trained latents."""

    def __init__(self, quantize_from: int, cell_weight: float = 0.1, likeness: ReconstructionLoss | None = None):
        self.quantize_from, self.cell_weight = quantize_from, cell_weight
        self.likeness = likeness or ReconstructionLoss()

    def __call__(self, modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[Tensor, dict]:
        model = unwrapped(modules[0]).model
        pixels = batch["pixels"].float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
        noise = None
        if step < self.quantize_from:
            shape = (len(pixels), *model.grid(*pixels.shape[2:]), model.config.codebook_dim)
            noise = 0.05 * torch.randn(shape, generator=generator, device=pixels.device)
        result, names, extra = modules[0](pixels, noise)
        result, names = result.float(), names.float()
        cell_loss = F.cross_entropy(names, batch["covers"])
        loss, report = self.likeness(result, batch, pixels, modules, model.decoder.last_layer, step)
        loss = loss + extra + self.cell_weight * cell_loss
        with torch.no_grad():
            l1 = (result - pixels).abs().mean()
            there = batch["covers"] > 0
            named = (names.argmax(1) == batch["covers"])[there].float().mean()
        return loss, report | {"l1": l1.item(), "vq": extra.item(), "cell_accuracy": named.item()}


def latents_of(
    codebook: Float[Tensor, "K C"], tokens: Int[Tensor, "B N"], grid: tuple[int, int]
) -> Float[Tensor, "B C h w"]:
    """The latents of tokens, which a decoder and its cell classifier read."""
    return codebook[tokens].unflatten(1, grid).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


class DecoderOnly(nn.Module):
    """The decoder of a tokenizer, which can be trained while its tokens, and generators of them, stay.

    The cell classifier is not trained (train/losses/cell_labels.py trains it). `coarse`: refiner and upscaler are
    neither trained nor used, so that a step takes a third of the time.
    """

    def __init__(self, model: VQModel, coarse: bool = False):
        super().__init__()
        self.decoder, self.post_quant_conv, self.coarse = model.decoder, model.post_quant_conv, coarse
        for part in ("refiner", "upscaler") if coarse else ():
            getattr(model.decoder, part).requires_grad_(False)
        self.naming = model.naming.requires_grad_(False) if hasattr(model, "naming") else None
        self.register_buffer("codebook", model.quantize.codebook().detach().clone())

    def forward(self, tokens: Int[Tensor, "B N"], grid: tuple[int, int]) -> Float[Tensor, "B 3 H W"]:
        z = latents_of(self.codebook, tokens, grid)
        named = None if self.naming is None else self.naming(z)
        return self.decoder(self.post_quant_conv(z), named, corrected=not self.coarse)


def corrupt_codes(
    tokens: Int[Tensor, "B N"], near: tuple[Tensor, Tensor], most: float, generator: torch.Generator
) -> Int[Tensor, "B N"]:
    """In half of the pictures a share of the tokens, up to `most`, is replaced by near codes (neighbor_targets), as
    when a generator samples them."""
    codes, shares = (table.to(tokens.device)[tokens.flatten()] for table in near)
    other = codes.gather(1, torch.multinomial(shares, 1, generator=generator)).view_as(tokens)
    share = torch.rand(2, len(tokens), 1, generator=generator, device=tokens.device)
    rate = torch.where(share[0] < 0.5, most * share[1], 0.0)
    given = torch.rand(tokens.shape, generator=generator, device=tokens.device) < rate
    return torch.where(given, other, tokens)


class DecoderLoss:
    """Reconstruction loss from given tokens; pixels of objects weigh three times as much as the background.

    corruption: the largest share of tokens that is replaced by `near` codes, so that the decoder tolerates them.
    """

    def __init__(
        self, likeness: ReconstructionLoss, near: tuple[Tensor, Tensor] | None = None, corruption: float = 0.0
    ):
        self.likeness, self.near, self.corruption = likeness, near, corruption

    def __call__(self, modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[Tensor, dict]:
        model = unwrapped(modules[0])
        pixels = batch["pixels"].float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
        tokens = batch["tokens"]
        if self.near is not None and self.corruption:
            tokens = corrupt_codes(tokens, self.near, self.corruption, generator)
        result = modules[0](tokens, tuple(batch["grid"])).float()
        there = (batch["covers"] > 0)[:, None].float()
        weight = F.interpolate(1 + 2 * there, size=pixels.shape[2:], mode="nearest")
        weight = weight / weight.mean()
        loss, report = self.likeness(result, batch, pixels, modules, model.decoder.last_layer, step, weight)
        with torch.no_grad():
            l1 = (result - pixels).abs()
            on = (l1 * (weight > 1)).sum() / (3 * (weight > 1).sum()).clamp(1)
        return loss, report | {"l1": l1.mean().item(), "l1/foreground": on.item()}
