"""Blocks: rotations by a plain second writing of their formulas, norms, cache, masks."""

import math

import pytest
import torch
from conftest import TINY, make_tiny

from maskgil.models.config import ModelConfig
from maskgil.models.transformer import (
    Block,
    KVCache,
    QKNorm,
    RMSNorm,
    identity_rotation,
    rotate,
    rotation_1d,
    rotation_2d,
    sdpa,
    set_attention_backend,
    zero_rotation,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("head_dim", [32, 64])
def test_rotation_2d_is_llamagens_on_any_grid(head_dim: int):
    rows, columns = 3, 5
    rotation = rotation_2d(rows, columns, head_dim, 10000.0, CPU)
    half = head_dim // 2
    for y in range(rows):
        for x in range(columns):
            angles = [y * 10000 ** (-i / half) for i in range(0, half, 2)]
            angles += [x * 10000 ** (-i / half) for i in range(0, half, 2)]
            expected = torch.tensor([[math.cos(a), math.sin(a)] for a in angles])
            torch.testing.assert_close(rotation[y * columns + x], expected, atol=1e-5, rtol=0)


def test_rotation_turns_neighbouring_pairs():
    x = torch.randn(1, 4, 2, 8)
    rotation = rotation_1d(4, 8, 10000.0, CPU)
    turned = torch.view_as_complex(x.unflatten(-1, (4, 2))) * torch.view_as_complex(rotation)[:, None]
    torch.testing.assert_close(rotate(x, rotation), torch.view_as_real(turned).flatten(-2))
    assert torch.equal(rotate(x, identity_rotation(4, 8, CPU)), x)
    assert not rotate(x, zero_rotation(4, 8, CPU)).any()


def test_attention_sees_relative_places_only():
    q, k = torch.randn(2, 1, 1, 1, 16)
    place = rotation_2d(6, 6, 16, 10000.0, CPU)

    def score(a: tuple[int, int], b: tuple[int, int]) -> float:
        at = [place[y * 6 + x][None] for y, x in (a, b)]
        return float((rotate(q, at[0]) * rotate(k, at[1])).sum())

    assert score((1, 2), (3, 1)) == pytest.approx(score((2, 4), (4, 3)), abs=1e-4)
    assert score((1, 2), (3, 1)) != pytest.approx(score((1, 2), (1, 3)), abs=1e-3)


def test_norms_against_their_formulas():
    x = torch.randn(2, 3, 4, 8)
    norm = RMSNorm(8, 1e-5)
    norm.weight.data.uniform_()
    torch.testing.assert_close(norm(x), x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight)
    head = QKNorm("layer", 4, 8, 1e-5)
    torch.testing.assert_close(
        head(x), (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    )


def block(**changes: object) -> Block:
    torch.manual_seed(0)
    return Block(ModelConfig.from_dict(TINY.to_dict() | changes)).eval()


def test_post_norm_is_the_swin_form():
    layer, x = block(norm="post"), torch.randn(1, 4, 32)
    rotation = rotation_1d(4, 16, 10000.0, CPU)
    h = x + layer.attention_norm(layer.attention(x, rotation, None))
    torch.testing.assert_close(layer(x, rotation, None), h + layer.ffn_norm(layer.feed_forward(h)))


@pytest.mark.parametrize("qk_norm", ["none", "layer", "rms"])
def test_a_causal_mask_and_a_cache_agree(qk_norm: str):
    layer, x = block(qk_norm=qk_norm), torch.randn(2, 6, 32)
    rotation = rotation_1d(6, 16, 10000.0, CPU)
    whole = layer(x, rotation, torch.ones(6, 6, dtype=torch.bool).tril()[None, None])
    cache = KVCache(2, 6, 2, 16, torch.float32, CPU)
    first = layer(x[:, :3], rotation[:3], torch.ones(3, 3, dtype=torch.bool).tril()[None, None], cache)
    rest = [layer(x[:, i : i + 1], rotation[i : i + 1], None, cache) for i in range(3, 6)]
    torch.testing.assert_close(torch.cat([first, *rest], 1), whole)


def test_xformers_on_a_cpu_says_what_to_choose(tiny, condition):
    set_attention_backend(tiny, "xformers")
    with pytest.raises(ValueError, match="CUDA.*sdpa"):
        tiny(torch.zeros(2, 4, dtype=torch.long), (2, 2), condition)
    with pytest.raises(ValueError, match="flash.*choose sdpa or xformers"):
        set_attention_backend(tiny, "flash")
    with pytest.raises(ValueError, match="their own attention, choose sdpa"):
        set_attention_backend(torch.nn.Linear(2, 2), "xformers")


@pytest.mark.parametrize("masked", [False, True])
def test_bfloat16_training_on_a_cpu_attends_the_same(masked: bool):
    q, k, v = torch.randn(3, 2, 7, 2, 16, dtype=torch.bfloat16)
    mask = (torch.arange(7) < torch.tensor([7, 3])[:, None])[:, None, None] if masked else None
    learning = sdpa(q.clone().requires_grad_(), k, v, mask)
    torch.testing.assert_close(learning.detach(), sdpa(q, k, v, mask), atol=3e-2, rtol=3e-2)


def test_attention_against_its_formula():
    model = make_tiny()
    layer, x = model.layers[0].attention, torch.randn(2, 5, 32)
    mask = (torch.arange(5) < torch.tensor([5, 3])[:, None])[:, None, None]
    rotation = rotation_1d(5, 16, 10000.0, CPU)
    q, k, v = (part.view(2, 5, 2, 16) for part in layer.wqkv(x).split(32, -1))
    q, k = rotate(layer.q_norm(q), rotation), rotate(layer.k_norm(k), rotation)
    scores = torch.einsum("bshc,bthc->bhst", q, k) / 4
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    expected = layer.wo(torch.einsum("bhst,bthc->bshc", weights, v).flatten(-2))
    torch.testing.assert_close(layer(x, rotation, mask), expected, atol=1e-4, rtol=1e-4)
