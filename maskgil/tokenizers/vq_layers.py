"""The layers of the VQ tokenizer, as LlamaGen names them.

Axes: B batch, C channels, H W pixels or cells.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def zero_(layer: nn.Conv2d) -> None:
    """Zero the weights and the bias of a layer, in place: it adds nothing until it is trained."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def group_norm(channels: int) -> nn.GroupNorm:
    """The normalization of every layer: 32 groups."""
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1, self.conv1 = group_norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = group_norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Float[Tensor, "B I h w"]) -> Float[Tensor, "B O h w"]:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttnBlock(nn.Module):
    """One head of self-attention over all cells."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = group_norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        y = self.norm(x)
        q, k, v = (f(y).flatten(2).transpose(1, 2).unsqueeze(1) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.proj_out(y)


class Downsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C _ _"]:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # right and bottom only, as the released weights expect


class Upsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C _ _"]:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class ResolutionLevel(nn.Module):
    """The blocks of one resolution; `attn` may be empty, the resampling absent."""

    def __init__(self, inputs: int, outputs: int, blocks: int, attention: bool):
        super().__init__()
        self.res = nn.ModuleList(ResnetBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks))
        self.attn = nn.ModuleList(AttnBlock(outputs) for _ in range(blocks if attention else 0))

    def forward(self, x: Float[Tensor, "B I h w"]) -> Float[Tensor, "B O _ _"]:
        for i, block in enumerate(self.res):
            x = block(x)
            if i < len(self.attn):
                x = self.attn[i](x)
        for name in ("downsample", "upsample"):
            if hasattr(self, name):
                x = getattr(self, name)(x)
        return x


def middle_blocks(channels: int, attention: bool) -> nn.ModuleList:
    """The blocks at the lowest resolution."""
    between = AttnBlock(channels) if attention else nn.Identity()
    return nn.ModuleList([ResnetBlock(channels, channels), between, ResnetBlock(channels, channels)])
