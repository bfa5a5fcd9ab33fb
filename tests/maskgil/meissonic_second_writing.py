"""Meissonic written a second time, from the paper and the names of its tensors: plain functions of a state dict.

Complex numbers turn queries and keys, loops go over heads, nothing is shared with maskgil/models/meissonic.py.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def logits(
    weights: dict[str, Tensor], shape: dict, codes: Tensor, states: Tensor, pixels: int, remaining: int
) -> Tensor:
    """(B, h, w, K) for codes (B, h, w). `states`: pooled vector and 77 text states; `pixels`: a side of the image."""
    w = weights
    pooled, text = states[:, 0], states[:, 1:]
    conditions = torch.cat([waves(float(v), 256) for v in (pixels, pixels, 0, 0, 6)])
    vector = mlp(w, "cond_embed", torch.cat([pooled, conditions.expand(len(pooled), -1)], 1))
    time = mlp(w, "time_text_embed.timestep_embedder", waves(1000.0 * remaining, 256)[None])
    vector = F.silu(time + mlp(w, "time_text_embed.text_embedder", vector))
    x = w["embed.embeddings.weight"][codes]
    x = rms(x, w["embed.layer_norm.weight"]) @ w["embed.conv.weight"][:, :, 0, 0].T
    if shape["downsample"]:
        x = rms(x, w["down_block.downsample.norm.weight"])
        kernel = w["down_block.downsample.conv.weight"]
        x = sum(x[:, i::2, j::2] @ kernel[:, :, i, j].T for i in range(2) for j in range(2))
    rows, columns = x.shape[1:3]
    image = rms(x.flatten(1, 2), w["project_to_hidden_norm.weight"]) @ w["project_to_hidden.weight"].T
    text = rms(linear(w, "context_embedder", text), w["encoder_proj_layer_norm.weight"])
    turn = rotations(shape["axes_dims_rope"], text.shape[1], rows, columns)
    heads = shape["num_attention_heads"]
    for i in range(shape["num_layers"]):
        text, image = joint_block(w, f"transformer_blocks.{i}", text, image, vector, turn, heads)
    both = torch.cat([text, image], 1)
    for i in range(shape["num_single_layers"]):
        both = single_block(w, f"single_transformer_blocks.{i}", both, vector, turn, heads)
    image = rms(both[:, text.shape[1] :], w["project_from_hidden_norm.weight"]) @ w["project_from_hidden.weight"].T
    x = image.view(len(image), rows, columns, -1)
    if shape["downsample"]:
        x = rms(x, w["up_block.upsample.norm.weight"])
        kernel, larger = w["up_block.upsample.conv.weight"], torch.zeros(len(x), 2 * rows, 2 * columns, x.shape[-1])
        for i in range(2):
            for j in range(2):
                larger[:, i::2, j::2] = x @ kernel[:, :, i, j]
        x = larger
    x = rms(x @ w["mlm_layer.conv1.weight"][:, :, 0, 0].T, w["mlm_layer.layer_norm.weight"])
    return x @ w["mlm_layer.conv2.weight"][:, :, 0, 0].T


def joint_block(w, name, text, image, vector, turn, heads):
    a = linear(w, f"{name}.norm1.linear", vector).chunk(6, -1)
    b = linear(w, f"{name}.norm1_context.linear", vector).chunk(6, -1)
    y, z = shifted(image, a[0], a[1]), shifted(text, b[0], b[1])
    queries, keys, values = (
        torch.cat([linear(w, f"{name}.attn.add_{part}_proj", z), linear(w, f"{name}.attn.to_{part}", y)], 1)
        for part in "qkv"
    )
    length = text.shape[1]
    norms = []
    for part in "qk":
        norms.append((w[f"{name}.attn.norm_added_{part}.weight"], w[f"{name}.attn.norm_{part}.weight"]))
    attended = attention(queries, keys, values, norms, length, turn, heads)
    image = image + a[2][:, None] * linear(w, f"{name}.attn.to_out.0", attended[:, length:])
    text = text + b[2][:, None] * linear(w, f"{name}.attn.to_add_out", attended[:, :length])
    image = image + a[5][:, None] * feed_forward(w, f"{name}.ff", shifted(image, a[3], a[4]))
    text = text + b[5][:, None] * feed_forward(w, f"{name}.ff_context", shifted(text, b[3], b[4]))
    return text, image


def single_block(w, name, x, vector, turn, heads):
    shift, scale, gate = linear(w, f"{name}.norm.linear", vector).chunk(3, -1)
    y = shifted(x, shift, scale)
    norms = [(w[f"{name}.attn.norm_{part}.weight"],) * 2 for part in "qk"]
    attended = attention(*(linear(w, f"{name}.attn.to_{part}", y) for part in "qkv"), norms, 0, turn, heads)
    hidden = gelu(linear(w, f"{name}.proj_mlp", y))
    return x + gate[:, None] * linear(w, f"{name}.proj_out", torch.cat([attended, hidden], -1))


def attention(queries, keys, values, norms, length, turn, heads):
    outputs = []
    for q, k, v in zip(*(part.chunk(heads, -1) for part in (queries, keys, values)), strict=True):
        (added_q, own_q), (added_k, own_k) = norms
        q = torch.cat([rms(q[:, :length], added_q), rms(q[:, length:], own_q)], 1)
        k = torch.cat([rms(k[:, :length], added_k), rms(k[:, length:], own_k)], 1)
        q, k = (torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turn).flatten(-2) for x in (q, k))
        scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
        outputs.append(scores.softmax(-1) @ v)
    return torch.cat(outputs, -1)


def rotations(axes, length, rows, columns):
    """e^(i position frequency) of every token: text at 0, image tokens at their row and column."""
    place = torch.zeros(length + rows * columns, 3, dtype=torch.float64)
    place[length:, 1] = torch.arange(rows).repeat_interleave(columns)
    place[length:, 2] = torch.arange(columns).repeat(rows)
    angles = [
        place[:, axis, None] * 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        for axis, width in enumerate(axes)
    ]
    angles = torch.cat(angles, 1)
    return torch.complex(angles.cos(), angles.sin()).to(torch.complex64)


def waves(value: float, width: int) -> Tensor:
    """In float32 as published: a value of 47,000 turns every rounding of a frequency into one of the third digit."""
    frequencies = (-math.log(10000.0) * torch.arange(width // 2, dtype=torch.float32) / (width // 2)).exp()
    return torch.cat([(value * frequencies).cos(), (value * frequencies).sin()])


def rms(x, weight):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def shifted(x, shift, scale):
    centered = x - x.mean(-1, keepdim=True)
    normed = centered / (centered.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return normed * (1 + scale[:, None]) + shift[:, None]


def gelu(x):
    return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def feed_forward(w, name, x):
    return linear(w, f"{name}.net.2", gelu(linear(w, f"{name}.net.0.proj", x)))


def mlp(w, name, x):
    first, second = (w[f"{name}.linear_{i}.weight"] for i in (1, 2))
    hidden = x @ first.T + w.get(f"{name}.linear_1.bias", 0)
    return F.silu(hidden) @ second.T + w.get(f"{name}.linear_2.bias", 0)
