"""aMUSEd: a masked U-ViT over VQ codes, driven by CLIP's text states (Patil et al. 2024, arXiv 2401.01808).

ConvNeXt blocks with attention to the text before and after a transformer with self- and cross-attention. The pooled
text vector and the micro-conditions (image size, crop, aesthetic score) modulate every block. The module tree and the
names are those of diffusers' UVit2DModel, in which the weights are released.

A condition's first state is the pooled text vector, the others are the text tokens (text_encoder/clip_text.py). All are
read, padding included, as in training. The null condition is the encoding of an empty text.

B batch, N = h w image tokens, L text tokens, D hidden size, C channels of the outer blocks, E width of a text state.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskgil.condition import Condition
from maskgil.models.transformer import RMSNorm
from maskgil.models.uvit_layers import (
    EPS,
    MICRO_CONDITIONS,
    MICRO_WIDTH,
    ConditionMLP,
    ConvEmbedding,
    ConvHead,
    Resample,
    channel_norm,
    clip_states,
    micro_conditions,
    read_config,
    validate_token_grid,
)
from maskgil.sampling.code_space import CodeSpace

FIXED: dict[str, object] = {
    "use_bias": False,
    "ln_elementwise_affine": True,
    "layer_norm_eps": EPS,
    "micro_cond_encode_dim": MICRO_WIDTH,
}


@dataclass(frozen=True)
class AmusedConfig:
    """Sizes under their released names.

    vocab_size           rows of the embedding table; the last one is the mask
    encoder_hidden_size  width of a text state;  cond_embed_dim: of the pooled text vector (the same)
    in_channels          width of embedding table and head;  block_out_channels: of the outer blocks
    downsample           the outer blocks halve the grid on the way in and double it on the way out (aMUSEd 512)
    sample_size          tokens on a side of the released image size
    pixels_per_token     of the tokenizer, for the micro-conditions
    """

    hidden_size: int = 1024
    encoder_hidden_size: int = 768
    cond_embed_dim: int = 768
    vocab_size: int = 8256
    codebook_size: int = 8192
    in_channels: int = 768
    block_out_channels: int = 768
    num_res_blocks: int = 3
    block_num_heads: int = 12
    num_hidden_layers: int = 22
    num_attention_heads: int = 16
    intermediate_size: int = 2816
    downsample: bool = False
    sample_size: int = 16
    pixels_per_token: int = 16
    text_length: int = 78  # CLIP's 77 tokens, and the pooled vector before them

    def __post_init__(self) -> None:
        if self.cond_embed_dim != self.encoder_hidden_size:
            raise ValueError(
                f"the pooled text vector is {self.cond_embed_dim} wide and a text state {self.encoder_hidden_size}: "
                "they must agree"
            )
        for width, heads in ((self.hidden_size, self.num_attention_heads), (self.channels, self.block_num_heads)):
            if width % heads:
                raise ValueError(f"width {width} does not divide into {heads} attention heads")
        if not self.codebook_size < self.vocab_size:
            raise ValueError(f"vocab_size {self.vocab_size} must exceed the {self.codebook_size} codes by the mask")

    @property
    def channels(self) -> int:
        return self.block_out_channels

    @property
    def mask_id(self) -> int:
        return self.vocab_size - 1

    @property
    def text_dim(self) -> int:
        return self.encoder_hidden_size

    @property
    def classes(self) -> None:
        """It is driven only by text."""
        return None

    @property
    def reads_remaining(self) -> bool:
        """Whether it is told how many steps are left."""
        return False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_released(values: dict[str, Any], pixels_per_token: int = 16) -> "AmusedConfig":
        """The config of a released transformer/config.json. ValueError for a variant that this code does not build."""
        usual = {f.name: f.default for f in fields(AmusedConfig) if f.name not in ("pixels_per_token", "text_length")}
        known = read_config(values, usual, FIXED, "aMUSEd")
        if bool(values.get("upsample", False)) != bool(values.get("downsample", False)):
            raise ValueError("this aMUSEd config downsamples without upsampling, or the reverse: it is no released one")
        return AmusedConfig(**known, pixels_per_token=pixels_per_token)


AMUSED_PRESETS = {
    "amused-256": AmusedConfig(),  # 603,537,664 parameters
    "amused-512": AmusedConfig(downsample=True, sample_size=32),  # 608,257,792
}


class MultiHeadAttention(nn.Module):
    """Attention to `context`, or to the input itself, without biases."""

    def __init__(self, width: int, heads: int, context: int):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width, bias=False)])  # released: followed by a dropout

    def forward(
        self, x: Float[Tensor, "B N D"], context: Float[Tensor, "B L E"] | None = None
    ) -> Float[Tensor, "B N D"]:
        context = x if context is None else context
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        return self.to_out[0](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class AdaptiveNorm(nn.Module):
    """A norm whose scale and shift come from the pooled condition."""

    def __init__(self, width: int, norm: nn.Module):
        super().__init__()
        self.linear = nn.Linear(width, 2 * width, bias=False)
        self.norm = norm

    def forward(self, x: Float[Tensor, "B N D"], pooled: Float[Tensor, "B D"]) -> Float[Tensor, "B N D"]:
        scale, shift = self.linear(F.silu(pooled)).chunk(2, dim=1)
        return self.norm(x) * (1 + scale[:, None]) + shift[:, None]


class GatedFeedForward(nn.Module):
    """GEGLU (Shazeer 2020, arXiv 2002.05202). `net` has the released numbering."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.net = nn.ModuleDict(
            {
                "0": nn.ModuleDict({"proj": nn.Linear(width, 2 * hidden, bias=False)}),
                "2": nn.Linear(hidden, width, bias=False),
            }
        )

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        net: Any = self.net
        x, gate = net["0"]["proj"](x).chunk(2, dim=-1)
        return net["2"](x * F.gelu(gate))


class TransformerLayer(nn.Module):
    """Self-attention, attention to the text, feed-forward; each behind an adaptive norm."""

    def __init__(self, config: AmusedConfig):
        super().__init__()
        width, heads = config.hidden_size, config.num_attention_heads
        self.norm1, self.norm2 = (AdaptiveNorm(width, RMSNorm(width, EPS)) for _ in range(2))
        self.norm3 = AdaptiveNorm(width, nn.LayerNorm(width, eps=EPS, bias=False))
        self.attn1, self.attn2 = (MultiHeadAttention(width, heads, width) for _ in range(2))
        self.ff = GatedFeedForward(width, config.intermediate_size)

    def forward(
        self, x: Float[Tensor, "B N D"], text: Float[Tensor, "B L D"], pooled: Float[Tensor, "B D"]
    ) -> Float[Tensor, "B N D"]:
        x = x + self.attn1(self.norm1(x, pooled))
        x = x + self.attn2(self.norm2(x, pooled), text)
        return x + self.ff(self.norm3(x, pooled))


class GlobalResponseNorm(nn.Module):
    """ConvNeXt V2's (Woo et al. 2023, arXiv 2301.00808, section 3.3), over the cells of an image."""

    def __init__(self, channels: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Float[Tensor, "B h w C"]) -> Float[Tensor, "B h w C"]:
        strength = x.norm(p=2, dim=(1, 2), keepdim=True)
        return self.gamma * (x * (strength / (strength.mean(-1, keepdim=True) + 1e-6))) + self.beta + x


class ConvNextBlock(nn.Module):
    """A depthwise convolution and a perceptron over channels, then scaled and shifted by the pooled condition."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = RMSNorm(channels, EPS)
        self.channelwise_linear_1 = nn.Linear(channels, 4 * channels, bias=False)
        self.channelwise_norm = GlobalResponseNorm(4 * channels)
        self.channelwise_linear_2 = nn.Linear(4 * channels, channels, bias=False)
        self.cond_embeds_mapper = nn.Linear(width, 2 * channels, bias=False)

    def forward(self, x: Float[Tensor, "B C h w"], pooled: Float[Tensor, "B D"]) -> Float[Tensor, "B C h w"]:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.channelwise_linear_2(self.channelwise_norm(F.gelu(self.channelwise_linear_1(y))))
        scale, shift = self.cond_embeds_mapper(F.silu(pooled))[..., None, None].chunk(2, dim=1)
        return (x + y.permute(0, 3, 1, 2)) * (1 + scale) + shift


class TextAttentionBlock(nn.Module):
    """Twice attention to the text, without a feed-forward layer. The text has the transformer's width."""

    def __init__(self, channels: int, heads: int, width: int):
        super().__init__()
        self.kv_mapper = nn.Linear(width, channels, bias=False) if width != channels else None
        self.norm1, self.norm2 = RMSNorm(channels, EPS), RMSNorm(channels, EPS)
        self.attn1, self.attn2 = (MultiHeadAttention(channels, heads, channels) for _ in range(2))

    def forward(self, x: Float[Tensor, "B N C"], text: Float[Tensor, "B L D"]) -> Float[Tensor, "B N C"]:
        if self.kv_mapper is not None:
            text = self.kv_mapper(F.silu(text))
        x = x + self.attn1(self.norm1(x), text)
        return x + self.attn2(self.norm2(x), text)


class OuterBlock(nn.Module):
    """ConvNeXt and text attention blocks in turn; resampling before them (down) or after them (up)."""

    def __init__(self, config: AmusedConfig, up: bool):
        super().__init__()
        channels, width = config.channels, config.hidden_size
        self.downsample = Resample(channels, up=False) if config.downsample and not up else None
        self.res_blocks = nn.ModuleList(ConvNextBlock(channels, width) for _ in range(config.num_res_blocks))
        self.attention_blocks = nn.ModuleList(
            TextAttentionBlock(channels, config.block_num_heads, width) for _ in range(config.num_res_blocks)
        )
        self.upsample = Resample(channels, up=True) if config.downsample and up else None

    def forward(
        self, x: Float[Tensor, "B C h w"], text: Float[Tensor, "B L D"], pooled: Float[Tensor, "B D"]
    ) -> Float[Tensor, "B C _ _"]:
        x = x if self.downsample is None else self.downsample(x)
        for convolution, attention in zip(self.res_blocks, self.attention_blocks, strict=True):
            x = convolution(x, pooled)
            x = attention(x.flatten(2).transpose(1, 2), text).transpose(1, 2).unflatten(2, x.shape[2:])
        return x if self.upsample is None else self.upsample(x)


class Amused(nn.Module):
    """Logits of every image token at once. `null_states` is the encoding of an empty text, which rows without a
    condition see; whoever loads the model sets it."""

    null_states: Tensor

    def __init__(self, config: AmusedConfig):
        super().__init__()
        self.config = config
        width, channels = config.hidden_size, config.channels
        self.encoder_proj = nn.Linear(config.encoder_hidden_size, width, bias=False)
        self.encoder_proj_layer_norm = RMSNorm(width, EPS)
        self.embed = ConvEmbedding(config.vocab_size, config.in_channels, channels)
        self.cond_embed = ConditionMLP(MICRO_CONDITIONS * MICRO_WIDTH + config.cond_embed_dim, width, bias=False)
        self.down_block = OuterBlock(config, up=False)
        self.project_to_hidden_norm = RMSNorm(channels, EPS)
        self.project_to_hidden = nn.Linear(channels, width, bias=False)
        self.transformer_layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_hidden_layers))
        self.project_from_hidden_norm = RMSNorm(width, EPS)
        self.project_from_hidden = nn.Linear(width, channels, bias=False)
        self.up_block = OuterBlock(config, up=True)
        self.mlm_layer = ConvHead(channels, config.in_channels, config.codebook_size)
        self.register_buffer(
            "null_states", torch.zeros(config.text_length, config.encoder_hidden_size), persistent=False
        )

    @property
    def token_space(self) -> CodeSpace:
        """Codes: see maskgil/generator.py."""
        return CodeSpace(self.config.codebook_size, self.config.mask_id)

    def forward(
        self,
        tokens: Int[Tensor, "B N"],
        grid: tuple[int, int],
        condition: Condition,
        drop: Bool[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B N K"]:
        """Logits over the codes; masked tokens have the id config.mask_id. Rows with `drop` see the null condition.

        grid is (rows, columns) with rows * columns = N. Raises ValueError for a condition or grid of another shape.
        """
        validate_token_grid(tokens, grid, self.config.downsample)
        pooled, text = self._condition(condition, drop, grid)
        x = self.down_block(self.embed(tokens.unflatten(1, grid)), text, pooled)
        inner = x.shape[2:]
        x = self.project_to_hidden(channel_norm(self.project_to_hidden_norm, x).flatten(2).transpose(1, 2))
        for layer in self.transformer_layers:
            x = layer(x, text, pooled)
        x = self.project_from_hidden(self.project_from_hidden_norm(x)).transpose(1, 2).unflatten(2, inner)
        return self.mlm_layer(self.up_block(x, text, pooled)).flatten(2).transpose(1, 2)

    def _condition(
        self, condition: Condition, drop: Bool[Tensor, " B"] | None, grid: tuple[int, int]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B L D"]]:
        """(pooled text and micro-conditions, text tokens), both in the transformer's width."""
        states = clip_states(condition, drop, self.null_states)
        text = self.encoder_proj_layer_norm(self.encoder_proj(states[:, 1:]))
        micro = micro_conditions(len(states), grid, self.config.pixels_per_token, states.device)
        return self.cond_embed(torch.cat([states[:, 0], micro.to(states.dtype)], dim=1)), text
