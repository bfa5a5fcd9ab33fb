"""The continuous tokens of a vector-quantised tokenizer: its latents before quantisation, which becomes the first thing
that the decoder does (VQ-reg of Latent Diffusion, Rombach et al. 2022, 2112.10752, section 3.1).

A model of such tokens draws vectors freely, and what is a little beside a code is painted as that code: the decoder
needs no training to bear with it.

Axes: B batch, H W pixels, h w latent cells, N = h w tokens in raster order, C latent channels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from maskgil import checkpoint
from maskgil.tokenizers.autoencoder import AutoencoderTokenizer
from maskgil.tokenizers.vq import VQModel


@dataclass(frozen=True)
class VQLatentConfig:
    """What is asked of a continuous tokenizer's config: channels of a token, scale (tokens are latents times it), and
    pixels a token side."""

    channels: int
    scale: float
    downsample: int

    @property
    def upscale(self) -> int:
        """Pixels a side of a picture for each that is read: its codes are those of the whole picture."""
        return 1

    def to_dict(self) -> dict[str, Any]:
        return {"family": "vq", "channels": self.channels, "scale": self.scale}


class VQLatentTokenizer(nn.Module):
    """A VQ tokenizer in the place of an AutoencoderTokenizer.

    stored           what a folder of it holds
    code_tokenizer   the tokenizer of `codes`

    ValueError unless its codes lie on the unit sphere: the scale of other latents would have to be measured.
    """

    def __init__(self, vq: VQModel):
        super().__init__()
        if not vq.config.l2_norm:
            raise ValueError("only a VQ tokenizer with codes on the unit sphere has continuous tokens of a known scale")
        self.vq = vq
        channels = vq.config.codebook_dim
        self.config = VQLatentConfig(channels, channels**0.5, vq.config.downsample)

    @property
    def stored(self) -> VQModel:
        return self.vq

    @property
    def code_tokenizer(self) -> VQModel:
        return self.vq

    def identity(self) -> dict[str, Tensor]:
        """What decides which tokens a picture has: not that of the VQ, whose tokens are codes."""
        return self.vq.identity() | {"scale": torch.tensor(round(1e6 * self.config.scale))}

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of tokens of a picture. ValueError unless both sides are multiples of `downsample`."""
        return self.vq.grid(height, width)

    @torch.no_grad()
    def moments(self, pixels: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B N C"], Float[Tensor, "B N C"]]:
        """Tokens of what the encoder reads (`VQModel.shrink`), and a deviation of 0."""
        latents = self.config.scale * self.vq.latents(pixels).flatten(1, 2).float()
        return latents, torch.zeros_like(latents)

    def encode(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N C"]:
        """Tokens of pixels in [-1, 1]; sides are multiples of `config.downsample`."""
        self.grid(*pixels.shape[2:])
        return self.moments(self.vq.to_encoder_resolution(pixels))[0]

    @torch.no_grad()
    def decode(self, tokens: Float[Tensor, "B N C"], grid: tuple[int, int]) -> Float[Tensor, "B 3 H W"]:
        """Pixels in [-1, 1] of a grid (rows, columns) of scaled tokens, each painted as the code nearest to it."""
        if tokens.shape[2] != self.config.channels:
            raise ValueError(f"tokens of {tokens.shape[2]} channels; this tokenizer has {self.config.channels}")
        if tokens.shape[1] != grid[0] * grid[1]:
            raise ValueError(f"{tokens.shape[1]} tokens do not fill a grid of {grid[0]} rows and {grid[1]} columns")
        return self.vq.decode(self.codes(tokens), grid)

    def codes(self, tokens: Float[Tensor, "B N C"]) -> Int[Tensor, "B N"]:
        """The codes nearest to tokens."""
        latents = nn.functional.normalize(tokens.float(), dim=-1)
        return self.vq.quantize.nearest(latents[:, None]).flatten(1)


def load_latent_tokenizer(folder: str | Path) -> AutoencoderTokenizer | VQLatentTokenizer:
    """The continuous tokenizer of a folder: one of latents as it is, a VQ tokenizer in a VQLatentTokenizer. ValueError
    as checkpoint.load."""
    if checkpoint.describe(folder)["kind"] == "vq":
        vq = checkpoint.load(folder, "vq")
        assert isinstance(vq, VQModel)
        return VQLatentTokenizer(vq).eval()
    latent = checkpoint.load(folder, "latent")
    assert isinstance(latent, AutoencoderTokenizer)
    return latent
