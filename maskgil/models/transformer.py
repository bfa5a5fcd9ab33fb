"""LLaMA blocks over image tokens, bidirectional or causal: what MaskGIL and its AR model are made of.

RMSNorm, SwiGLU, rotary positions in one or two dimensions, optional norm of queries and keys, norm before or after each
half block, no biases. Modules carry the names of LlamaGen's state dict, so that its weights map one to one.

B batch, S queries, T keys, D width, H heads, C numbers a head, R = C / 2 rotated pairs.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from maskgil.models.config import ModelConfig

# A rotation holds (cos, sin) of each pair's angle: Float[Tensor, "S R 2"]. Parts are joined with torch.cat.


def identity_rotation(length: int, head_dim: int, device: torch.device) -> Float[Tensor, "length R 2"]:
    """No rotation: tokens without a place in the picture."""
    return torch.eye(2, device=device)[0].expand(length, head_dim // 2, 2)  # made there: a copy would stall a GPU


def zero_rotation(length: int, head_dim: int, device: torch.device) -> Float[Tensor, "length R 2"]:
    """LlamaGen's rows for condition tokens: query and key become zero, so that only the value speaks."""
    return torch.zeros(length, head_dim // 2, 2, device=device)


def rotation_1d(length: int, head_dim: int, base: float, device: torch.device) -> Float[Tensor, "length R 2"]:
    """Positions 0 .. length - 1 in raster order: angle = position * base^(-2r / C)."""
    position = torch.arange(length, device=device, dtype=torch.float32)
    return _cos_sin(position[:, None] * _frequencies(head_dim, base, device))


def rotation_2d(rows: int, columns: int, head_dim: int, base: float, device: torch.device) -> Float[Tensor, "N R 2"]:
    """LlamaGen's 2-D form for any grid: the first half of the pairs turns with the row, the second with the column."""
    frequencies = _frequencies(head_dim // 2, base, device)
    y = torch.arange(rows, device=device, dtype=torch.float32)[:, None] * frequencies
    x = torch.arange(columns, device=device, dtype=torch.float32)[:, None] * frequencies
    angles = torch.cat([y[:, None].expand(-1, columns, -1), x[None].expand(rows, -1, -1)], dim=-1)
    return _cos_sin(angles.flatten(0, 1))


def _frequencies(width: int, base: float, device: torch.device) -> Float[Tensor, " R"]:
    return base ** (-torch.arange(0, width, 2, device=device, dtype=torch.float32) / width)


def _cos_sin(angles: Float[Tensor, "S R"]) -> Float[Tensor, "S R 2"]:
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def rotate(x: Float[Tensor, "B S H C"], rotation: Float[Tensor, "*B S R 2"]) -> Float[Tensor, "B S H C"]:
    """Turns the pairs (2r, 2r + 1) of every head by the angles of its position, in float32. Rows may have positions of
    their own."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rotation.unsqueeze(-3).unbind(-1)
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2).to(x.dtype)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, computed in float32."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "*S D"]) -> Float[Tensor, "*S D"]:
        return F.rms_norm(x.float(), x.shape[-1:], eps=self.eps).to(x.dtype) * self.weight


class QKNorm(nn.Module):
    """Norm of queries or keys over each head, with weights for every head (Chameleon, section 2.3)."""

    def __init__(self, kind: str, heads: int, head_dim: int, eps: float):
        super().__init__()
        self.kind, self.eps = kind, eps
        self.weight = nn.Parameter(torch.ones(heads, head_dim))
        self.bias = nn.Parameter(torch.zeros(heads, head_dim)) if kind == "layer" else None

    def forward(self, x: Float[Tensor, "B S H C"]) -> Float[Tensor, "B S H C"]:
        if self.bias is not None:
            normed = F.layer_norm(x.float(), x.shape[-1:], eps=self.eps) * self.weight + self.bias
        else:
            normed = F.rms_norm(x.float(), x.shape[-1:], eps=self.eps) * self.weight
        return normed.to(x.dtype)


class KVCache:
    """Keys and values of the tokens read so far, one per layer. Filled from the left; `used` tokens are valid."""

    def __init__(self, batch: int, length: int, heads: int, head_dim: int, dtype: torch.dtype, device: torch.device):
        self.keys = torch.zeros(batch, length, heads, head_dim, dtype=dtype, device=device)
        self.values = torch.zeros_like(self.keys)
        self.used = 0

    def append(
        self, keys: Float[Tensor, "B S H C"], values: Float[Tensor, "B S H C"]
    ) -> tuple[Float[Tensor, "B T H C"], Float[Tensor, "B T H C"]]:
        """All keys and values so far, the new ones last."""
        end = self.used + keys.shape[1]
        assert end <= self.keys.shape[1], f"the cache holds {self.keys.shape[1]} tokens, {end} were given"
        self.keys[:, self.used : end] = keys
        self.values[:, self.used : end] = values
        self.used = end
        return self.keys[:, :end], self.values[:, :end]


class Attention(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.heads, self.head_dim, self.how = config.heads, config.head_dim, "sdpa"
        self.wqkv = nn.Linear(config.dim, 3 * config.dim, bias=False)  # rows q | k | v
        self.wo = nn.Linear(config.dim, config.dim, bias=False)
        self.resid_dropout = nn.Dropout(config.dropout)
        if config.qk_norm == "none":
            self.q_norm = self.k_norm = nn.Identity()
        else:
            self.q_norm = QKNorm(config.qk_norm, config.heads, config.head_dim, config.norm_eps)
            self.k_norm = QKNorm(config.qk_norm, config.heads, config.head_dim, config.norm_eps)

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        rotation: Float[Tensor, "*_ S R 2"],
        mask: Bool[Tensor, "#B 1 #S T"] | None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "B S D"]:
        q, k, v = self.wqkv(x).unflatten(-1, (3, self.heads, self.head_dim)).unbind(2)
        q = rotate(self.q_norm(q), rotation)
        k = rotate(self.k_norm(k), rotation)
        if cache is not None:
            k, v = cache.append(k, v)
        attended = xformers_attention(q, k, v, mask) if self.how == "xformers" else sdpa(q, k, v, mask)
        return self.resid_dropout(self.wo(attended.flatten(-2)))


def sdpa(
    q: Float[Tensor, "B S H C"],
    k: Float[Tensor, "B T H C"],
    v: Float[Tensor, "B T H C"],
    mask: Bool[Tensor, "#B 1 #S T"] | None,
) -> Float[Tensor, "B S H C"]:
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if q.is_cpu and q.dtype == torch.bfloat16 and q.requires_grad:
        # torch's own bfloat16 backward is slow on a CPU: written out, a training step at 80 tokens takes 15% less.
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        scores = scores if mask is None else scores.masked_fill(~mask, float("-inf"))
        return (scores.softmax(-1) @ v).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def xformers_attention(
    q: Float[Tensor, "B S H C"],
    k: Float[Tensor, "B T H C"],
    v: Float[Tensor, "B T H C"],
    mask: Bool[Tensor, "#B 1 #S T"] | None,
) -> Float[Tensor, "B S H C"]:
    """The same through xformers' memory-efficient attention. It has no kernel for a CPU."""
    if not q.is_cuda:
        raise ValueError(f"attention 'xformers' needs a CUDA device and the model is on {q.device}; choose 'sdpa'")
    # Imported here: it takes seconds, and machines without CUDA need not have it.
    from xformers.ops import memory_efficient_attention

    bias = None
    if mask is not None:
        # The kernel wants a bias for every head and query whose rows start at multiples of 8.
        (batch, queries, heads, _), keys = q.shape, k.shape[1]
        room = torch.zeros(batch, heads, queries, -(-keys // 8) * 8, dtype=q.dtype, device=q.device)
        bias = room[..., :keys].masked_fill_(~mask, float("-inf"))
    return memory_efficient_attention(q, k, v, attn_bias=bias)


def set_attention_backend(model: nn.Module, how: str) -> None:
    """Chooses the attention of every block: 'sdpa' (anywhere) or 'xformers' (CUDA only). Not a part of the model."""
    if how not in ("sdpa", "xformers"):
        raise ValueError(f"attention is {how!r}; choose sdpa or xformers")
    blocks = [module for module in model.modules() if isinstance(module, Attention)]
    if how == "xformers" and not blocks:
        raise ValueError("attention=xformers: the blocks of this model have their own attention, choose sdpa")
    for block in blocks:
        block.how = how


def attention_backend(model: nn.Module) -> str:
    """The attention of a model's blocks, as `set_attention_backend` chose it; sdpa where it has no such block."""
    return next((module.how for module in model.modules() if isinstance(module, Attention)), "sdpa")


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.hidden, bias=False)
        self.w3 = nn.Linear(config.dim, config.hidden, bias=False)
        self.w2 = nn.Linear(config.hidden, config.dim, bias=False)
        self.ffn_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        return self.ffn_dropout(self.w2(F.silu(self.w1(x)) * self.w3(x)))


class Block(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.post_norm = config.norm == "post"
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        rotation: Float[Tensor, "*_ S R 2"],
        mask: Bool[Tensor, "#B 1 #S T"] | None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "B S D"]:
        """mask is True where a query may look at a key; None lets every query look everywhere."""
        if self.post_norm:
            x = x + self.attention_norm(self.attention(x, rotation, mask, cache))
            return x + self.ffn_norm(self.feed_forward(x))
        x = x + self.attention(self.attention_norm(x), rotation, mask, cache)
        return x + self.feed_forward(self.ffn_norm(x))


class CaptionEmbedding(nn.Module):
    """Text states to the width of the trunk (fc1, GELU-tanh, fc2), and the learned null caption in text space."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        assert config.text_dim is not None
        self.cap_proj = nn.ModuleDict(
            {
                "fc1": nn.Linear(config.text_dim, config.dim, bias=False),
                "fc2": nn.Linear(config.dim, config.dim, bias=False),
            }
        )
        self.uncond_embedding = (
            nn.Parameter(torch.randn(config.null_length, config.text_dim) / config.text_dim**0.5)
            if config.null == "caption"
            else None
        )

    def forward(self, states: Float[Tensor, "B L E"]) -> Float[Tensor, "B L D"]:
        return self.cap_proj["fc2"](F.gelu(self.cap_proj["fc1"](states), approximate="tanh"))


class LMHead(nn.Module):
    """Logits over the codes. `rows` may exceed `codes`: the released head has a row for the mask token too, which is
    kept so that shapes agree, and is never scored, so that the mask can never be sampled."""

    def __init__(self, dim: int, rows: int, codes: int):
        super().__init__()
        self.codes = codes
        self.weight = nn.Parameter(torch.zeros(rows, dim))

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N K"]:
        return F.linear(x, self.weight[: self.codes])


def initialize(module: nn.Module) -> None:
    """N(0, 0.02) for linear maps and tables. The head stays at zero: every code is equally likely at first."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
