"""Meissonic and Monetico: a masked multi-modal transformer over VQ codes (Bai et al. 2024, arXiv 2410.08261).

Blocks with separate weights for text and image that attend to each other, then blocks over both with one set of
weights, as in FLUX. Meissonic halves its grid of 64 x 64 tokens on the way in and doubles it on the way out; Monetico,
on 32 x 32 tokens, does not. The pooled text vector, the micro-conditions and the number of steps left modulate every
block. Names are those of the released state dict.

A condition is as for aMUSEd (maskgil/models/amused.py): the pooled vector, then CLIP's 77 text states.

B batch, N image tokens, L text tokens, S = L + N, D width, H heads, C numbers a head, E width of a text state.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskgil.condition import Condition
from maskgil.models.transformer import RMSNorm, identity_rotation, rotate, rotation_2d, sdpa
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
    sinusoidal_embedding,
    validate_token_grid,
)
from maskgil.sampling.code_space import CodeSpace

FIXED: dict[str, object] = {"patch_size": 1, "guidance_embeds": False}
TIME_WIDTH = 256  # numbers that the steps left are embedded in
TIME_SCALE = 1000.0  # the released code multiplies the step's number by it
ROPE_BASE = 10000.0


@dataclass(frozen=True)
class MeissonicConfig:
    """Sizes under their released names.

    num_layers             blocks with separate weights for text and image;  num_single_layers: with one set of weights
    joint_attention_dim    width of a text state;  pooled_projection_dim: of the pooled vector (the same)
    axes_dims_rope         numbers of a head that turn with (text or image, row, column)
    vocab_size             rows of the embedding table; the last one is the mask
    downsample             the grid is halved on the way in and doubled on the way out
    pixels_per_token       of the tokenizer, for the micro-conditions
    """

    num_layers: int = 14
    num_single_layers: int = 28
    attention_head_dim: int = 128
    num_attention_heads: int = 8
    joint_attention_dim: int = 1024
    pooled_projection_dim: int = 1024
    axes_dims_rope: tuple[int, int, int] = (16, 56, 56)
    vocab_size: int = 8256
    codebook_size: int = 8192
    downsample: bool = True
    pixels_per_token: int = 16
    text_length: int = 78  # CLIP's 77 tokens, and the pooled vector before them

    def __post_init__(self) -> None:
        text, *sides = self.axes_dims_rope
        if len(sides) != 2 or text + sum(sides) != self.attention_head_dim or sides[0] != sides[1]:
            raise ValueError(
                f"axes_dims_rope {self.axes_dims_rope} must add up to the {self.attention_head_dim} numbers of a head, "
                "with as many for rows as for columns"
            )
        if not self.pooled_projection_dim == self.joint_attention_dim == self.width:
            raise ValueError(
                f"the pooled vector is {self.pooled_projection_dim} wide, a text state {self.joint_attention_dim} and "
                f"the transformer {self.width}: they must agree"
            )
        if not self.codebook_size < self.vocab_size:
            raise ValueError(f"vocab_size {self.vocab_size} must exceed the {self.codebook_size} codes by the mask")

    @property
    def width(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def mask_id(self) -> int:
        return self.vocab_size - 1

    @property
    def text_dim(self) -> int:
        return self.joint_attention_dim

    @property
    def classes(self) -> None:
        """It is driven only by text."""
        return None

    @property
    def reads_remaining(self) -> bool:
        """Whether it is told how many steps are left."""
        return True

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_released(values: dict[str, Any], pixels_per_token: int = 16) -> "MeissonicConfig":
        """The config of a released transformer/config.json. ValueError for a variant that this code does not build."""
        usual = {
            f.name: f.default for f in fields(MeissonicConfig) if f.name not in ("pixels_per_token", "text_length")
        }
        known = read_config(values, usual, FIXED, "Meissonic")
        if bool(values.get("upsample", False)) != bool(values.get("downsample", False)):
            raise ValueError("this Meissonic config downsamples without upsampling, or the reverse")
        axes = tuple(known.get("axes_dims_rope", MeissonicConfig.axes_dims_rope))  # JSON gives a list
        settings: dict[str, Any] = {"downsample": False} | known | {"axes_dims_rope": axes}
        return MeissonicConfig(**settings, pixels_per_token=pixels_per_token)


MEISSONIC_PRESETS = {"meissonic": MeissonicConfig(), "monetico": MeissonicConfig(downsample=False)}


class Modulation(nn.Module):
    """A layer norm without weights, and numbers of the condition that scale, shift and gate what follows."""

    def __init__(self, width: int, numbers: int):
        super().__init__()
        self.linear = nn.Linear(width, numbers * width)
        self.numbers = numbers

    def forward(
        self, x: Float[Tensor, "B S D"], condition: Float[Tensor, "B D"]
    ) -> tuple[Float[Tensor, "B S D"], tuple[Float[Tensor, "B 1 D"], ...]]:
        """(normed, scaled and shifted x; the numbers after scale and shift)."""
        shift, scale, *others = self.linear(F.silu(condition))[:, None].chunk(self.numbers, dim=-1)
        return modulated(x, shift, scale), tuple(others)


def modulated(
    x: Float[Tensor, "B S D"], shift: Float[Tensor, "B 1 D"], scale: Float[Tensor, "B 1 D"]
) -> Float[Tensor, "B S D"]:
    return F.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift


class PerceptronGELU(nn.Module):
    """Linear, GELU-tanh, linear, with the released numbering."""

    def __init__(self, width: int):
        super().__init__()
        self.net = nn.ModuleDict(
            {"0": nn.ModuleDict({"proj": nn.Linear(width, 4 * width)}), "2": nn.Linear(4 * width, width)}
        )

    def forward(self, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        net: Any = self.net
        return net["2"](F.gelu(net["0"]["proj"](x), approximate="tanh"))


class ProjectedAttention(nn.Module):
    """Queries, keys and values of the image tokens, or of all tokens, normed over each head."""

    def __init__(self, config: MeissonicConfig):
        super().__init__()
        self.heads, width, head_dim = config.num_attention_heads, config.width, config.attention_head_dim
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.norm_q, self.norm_k = RMSNorm(head_dim, EPS), RMSNorm(head_dim, EPS)

    def forward(self, x: Float[Tensor, "B S D"], rotation: Float[Tensor, "S R 2"]) -> Float[Tensor, "B S D"]:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)) for f in (self.to_q, self.to_k, self.to_v))
        return sdpa(rotate(self.norm_q(q), rotation), rotate(self.norm_k(k), rotation), v, None).flatten(2)


class JointAttention(ProjectedAttention):
    """Attention over text and image together, with weights of their own for each."""

    def __init__(self, config: MeissonicConfig):
        super().__init__(config)
        width, head_dim = config.width, config.attention_head_dim
        self.add_q_proj, self.add_k_proj, self.add_v_proj = (nn.Linear(width, width) for _ in range(3))
        self.norm_added_q, self.norm_added_k = RMSNorm(head_dim, EPS), RMSNorm(head_dim, EPS)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.to_add_out = nn.Linear(width, width)

    def joint(
        self, image: Float[Tensor, "B N D"], text: Float[Tensor, "B L D"], rotation: Float[Tensor, "S R 2"]
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B L D"]]:
        """(image, text) after attention over both; the text comes first in the sequence."""
        mine = [f(image).unflatten(-1, (self.heads, -1)) for f in (self.to_q, self.to_k, self.to_v)]
        added = [f(text).unflatten(-1, (self.heads, -1)) for f in (self.add_q_proj, self.add_k_proj, self.add_v_proj)]
        q = torch.cat([self.norm_added_q(added[0]), self.norm_q(mine[0])], dim=1)
        k = torch.cat([self.norm_added_k(added[1]), self.norm_k(mine[1])], dim=1)
        v = torch.cat([added[2], mine[2]], dim=1)
        y = sdpa(rotate(q, rotation), rotate(k, rotation), v, None).flatten(2)
        return self.to_out[0](y[:, text.shape[1] :]), self.to_add_out(y[:, : text.shape[1]])


class JointBlock(nn.Module):
    """MM-DiT (Esser et al. 2024, arXiv 2403.03206, figure 2b)."""

    def __init__(self, config: MeissonicConfig):
        super().__init__()
        self.norm1, self.norm1_context = Modulation(config.width, 6), Modulation(config.width, 6)
        self.attn = JointAttention(config)
        self.ff, self.ff_context = PerceptronGELU(config.width), PerceptronGELU(config.width)

    def forward(
        self,
        image: Float[Tensor, "B N D"],
        text: Float[Tensor, "B L D"],
        condition: Float[Tensor, "B D"],
        rotation: Float[Tensor, "S R 2"],
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B L D"]]:
        normed, (gate, shift, scale, gate_ff) = self.norm1(image, condition)
        normed_text, (text_gate, text_shift, text_scale, text_gate_ff) = self.norm1_context(text, condition)
        attended, attended_text = self.attn.joint(normed, normed_text, rotation)
        image, text = image + gate * attended, text + text_gate * attended_text
        image = image + gate_ff * self.ff(modulated(image, shift, scale))
        return image, text + text_gate_ff * self.ff_context(modulated(text, text_shift, text_scale))


class SingleBlock(nn.Module):
    """Attention and perceptron side by side over all tokens."""

    def __init__(self, config: MeissonicConfig):
        super().__init__()
        width = config.width
        self.norm = Modulation(width, 3)
        self.attn = ProjectedAttention(config)
        self.proj_mlp, self.proj_out = nn.Linear(width, 4 * width), nn.Linear(5 * width, width)

    def forward(
        self, x: Float[Tensor, "B S D"], condition: Float[Tensor, "B D"], rotation: Float[Tensor, "S R 2"]
    ) -> Float[Tensor, "B S D"]:
        normed, (gate,) = self.norm(x, condition)
        hidden = F.gelu(self.proj_mlp(normed), approximate="tanh")
        return x + gate * self.proj_out(torch.cat([self.attn(normed, rotation), hidden], dim=2))


class Meissonic(nn.Module):
    """Logits of every image token at once. `null_states` is the encoding of an empty text, which rows without a
    condition see; whoever loads the model sets it."""

    null_states: Tensor

    def __init__(self, config: MeissonicConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.time_text_embed = nn.ModuleDict(
            {
                "timestep_embedder": ConditionMLP(TIME_WIDTH, width, bias=True),
                "text_embedder": ConditionMLP(config.pooled_projection_dim, width, bias=True),
            }
        )
        self.context_embedder = nn.Linear(config.joint_attention_dim, width)
        self.encoder_proj_layer_norm = RMSNorm(width, EPS)
        self.transformer_blocks = nn.ModuleList(JointBlock(config) for _ in range(config.num_layers))
        self.single_transformer_blocks = nn.ModuleList(SingleBlock(config) for _ in range(config.num_single_layers))
        self.embed = ConvEmbedding(config.vocab_size, width, width)
        self.mlm_layer = ConvHead(width, width, config.codebook_size)
        self.cond_embed = ConditionMLP(MICRO_CONDITIONS * MICRO_WIDTH + config.pooled_projection_dim, width, bias=False)
        self.project_to_hidden_norm, self.project_from_hidden_norm = RMSNorm(width, EPS), RMSNorm(width, EPS)
        self.project_to_hidden = nn.Linear(width, width, bias=False)
        self.project_from_hidden = nn.Linear(width, width, bias=False)
        self.down_block, self.up_block = nn.ModuleDict(), nn.ModuleDict()
        if config.downsample:
            self.down_block["downsample"] = Resample(width, up=False)
            self.up_block["upsample"] = Resample(width, up=True)
        self.register_buffer("null_states", torch.zeros(config.text_length, config.text_dim), persistent=False)

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
        remaining: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B N K"]:
        """Logits over the codes; masked tokens have the id config.mask_id. Rows with `drop` see the null condition.

        remaining: sampling steps left after this one, as the released sampler numbers them; None: 0, the last step.
        Raises ValueError for a condition or grid of another shape.
        """
        validate_token_grid(tokens, grid, self.config.downsample)
        remaining = torch.zeros(len(tokens), device=tokens.device) if remaining is None else remaining
        states = clip_states(condition, drop, self.null_states)
        modulation = self._modulation(states[:, 0], grid, remaining)
        text = self.encoder_proj_layer_norm(self.context_embedder(states[:, 1:]))
        x = self.embed(tokens.unflatten(1, grid))
        x = self.down_block["downsample"](x) if self.config.downsample else x
        inner = (x.shape[2], x.shape[3])
        image = self.project_to_hidden(channel_norm(self.project_to_hidden_norm, x).flatten(2).transpose(1, 2))
        rotation = self._rotation(text.shape[1], inner, x.device)
        for block in self.transformer_blocks:
            image, text = block(image, text, modulation, rotation)
        x = torch.cat([text, image], dim=1)
        for block in self.single_transformer_blocks:
            x = block(x, modulation, rotation)
        x = self.project_from_hidden(self.project_from_hidden_norm(x[:, text.shape[1] :]))
        x = x.transpose(1, 2).unflatten(2, inner)
        x = self.up_block["upsample"](x) if self.config.downsample else x
        return self.mlm_layer(x).flatten(2).transpose(1, 2)

    def _modulation(
        self, pooled: Float[Tensor, "B E"], grid: tuple[int, int], remaining: Tensor
    ) -> Float[Tensor, "B D"]:
        micro = micro_conditions(len(pooled), grid, self.config.pixels_per_token, pooled.device)
        text = self.cond_embed(torch.cat([pooled, micro.to(pooled.dtype)], dim=1))
        # The released code multiplies in the model's own precision.
        time = sinusoidal_embedding(remaining.to(pooled.dtype) * TIME_SCALE, TIME_WIDTH).to(pooled.dtype)
        return self.time_text_embed["timestep_embedder"](time) + self.time_text_embed["text_embedder"](text)

    def _rotation(self, length: int, grid: tuple[int, int], device: torch.device) -> Float[Tensor, "S R 2"]:
        """Text stands at (0, 0, 0); image tokens at (0, row, column)."""
        first, rows, columns = self.config.axes_dims_rope
        still = identity_rotation(grid[0] * grid[1], first, device)
        image = torch.cat([still, rotation_2d(*grid, rows + columns, ROPE_BASE, device)], dim=1)
        return torch.cat([identity_rotation(length, self.config.attention_head_dim, device), image])
