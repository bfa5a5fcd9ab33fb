"""What the tokenizer of scenes adds to LlamaGen's: a classifier of cells, patch memory, and corrections of pixels.

Axes: B batch, H W pixels, h w latent cells, D latent channels, M features, P pixels of a cell, I input channels.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from maskgil.tokenizers.vq_layers import AttnBlock, ResnetBlock, group_norm, zero_

REFINED = 4  # pixels a side that refiner and upscaler fold into channels


CONTEXT = 32  # channels of the features before them


UPSCALE = 2  # pixels a side that an upscaler makes of each


class CellClassifierBranch(nn.Module):
    """Features from which linear heads read what each cell shows, given all cells: which drawing, and which piece.

    A decoder that is trained only on pixels uses a cell and little around it: from its features a linear head reads
    the thing of every second cell. This branch is trained only to classify (train/losses/cell_labels.py), and the
    decoder takes its features as an input.
    """

    def __init__(self, dim: int, channels: int, blocks: int):
        super().__init__()
        self.conv_in = nn.Conv2d(dim, channels, 3, padding=1)
        pairs = ((ResnetBlock(channels, channels), AttnBlock(channels)) for _ in range(blocks))
        self.blocks = nn.ModuleList(block for pair in pairs for block in pair)
        self.norm_out = group_norm(channels)

    def forward(self, z: Float[Tensor, "B D h w"]) -> Float[Tensor, "B M h w"]:
        x = self.conv_in(z)
        for block in self.blocks:
            x = block(x)
        return self.norm_out(x)


class PatchMemory(nn.Module):
    """Pixels of whole cells from a wide hidden layer, each number of which stands for a piece of a drawing. A new one
    adds nothing."""

    def __init__(self, features: int, width: int, pixels: int):
        super().__init__()
        self.key, self.value = nn.Conv2d(features, width, 1), nn.Conv2d(width, pixels, 1)
        zero_(self.value)

    def forward(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B P h w"]:
        return self.value(F.silu(self.key(features)))


class ResidualCorrection(nn.Module):
    """Pixels to add, REFINED px at a time, by convolutions. A new one adds nothing, so that it may be put behind a
    decoder that is trained already."""

    def __init__(self, inputs: int, channels: int, blocks: int):
        super().__init__()
        self.conv_in = nn.Conv2d(inputs, channels, 3, padding=1)
        self.res = nn.ModuleList(ResnetBlock(channels, channels) for _ in range(blocks))
        self.norm_out = group_norm(channels)
        self.conv_out = nn.Conv2d(channels, 3 * REFINED**2, 3, padding=1)
        zero_(self.conv_out)

    def correction(self, x: Float[Tensor, "B I h w"]) -> tuple[Float[Tensor, "B 3 _ _"], Float[Tensor, "B D h w"]]:
        """(pixels to add, the features that they were read off)."""
        x = self.conv_in(x)
        for block in self.res:
            x = block(x)
        x = F.silu(self.norm_out(x))
        return F.pixel_shuffle(self.conv_out(x), REFINED), x


class Refiner(ResidualCorrection):
    """A correction of decoded pixels: convolutions of REFINED px see over the seams of larger patches. It reads the
    pixels and the decoder's last features."""

    def __init__(self, features: int, patch: int, channels: int, blocks: int):
        super().__init__(3 * REFINED**2 + CONTEXT, channels, blocks)
        self.spread = patch // REFINED
        self.context = nn.Conv2d(features, CONTEXT * self.spread**2, 1)

    def forward(
        self, pixels: Float[Tensor, "B 3 H W"], features: Float[Tensor, "B C h w"]
    ) -> tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B D _ _"]]:
        """(corrected pixels, the features that the correction was read off)."""
        context = F.pixel_shuffle(self.context(features), self.spread)
        added, x = self.correction(torch.cat([F.pixel_unshuffle(pixels, REFINED), context], dim=1))
        return pixels + added, x


class Upscaler(ResidualCorrection):
    """Pictures of UPSCALE times the size: an interpolation, and its correction by sub-pixel convolution (ESPCN, Shi et
    al. 2016). It reads the pixels and the refiner's features."""

    def __init__(self, features: int, channels: int, blocks: int):
        super().__init__(3 * (REFINED // UPSCALE) ** 2 + CONTEXT, channels, blocks)
        self.context = nn.Conv2d(features, CONTEXT * UPSCALE**2, 1)

    def forward(self, pixels: Float[Tensor, "B 3 H W"], features: Float[Tensor, "B D _ _"]) -> Float[Tensor, "B 3 _ _"]:
        context = F.pixel_shuffle(self.context(features), UPSCALE)
        added, _ = self.correction(torch.cat([F.pixel_unshuffle(pixels, REFINED // UPSCALE), context], dim=1))
        return F.interpolate(pixels, scale_factor=UPSCALE, mode="bilinear", align_corners=False) + added
