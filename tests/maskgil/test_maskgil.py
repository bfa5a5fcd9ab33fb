"""MaskGIL: parameter counts to the last digit, and laws of conditioning, padding and shape."""

from dataclasses import replace

import pytest
import torch
from conftest import TINY, make_condition, make_tiny

from maskgil.condition import Condition
from maskgil.models.config import PRESETS, ModelConfig, released_layout
from maskgil.models.maskgil import MaskGIL

CLASSES = replace(TINY, text_dim=None, classes=10)


def parameters(config: ModelConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in MaskGIL(config).parameters())


@pytest.mark.parametrize(
    "name, count, papers",
    [
        ("b", 110_889_984, 110_926_848),
        ("l", 342_913_024, 343_011_328),
        ("xl", 774_702_080, 774_886_400),
        ("xxl", 1_410_975_744, 1_411_270_656),
    ],
)
def test_class_driven_sizes(name: str, count: int, papers: int):
    """The paper's architecture adds the weights and biases of QK-norm to LlamaGen's and the published code's."""
    plain = PRESETS[f"{name}-llamagen"]
    assert parameters(plain) == parameters(released_layout(PRESETS[name])) == count
    assert parameters(PRESETS[name]) == papers == count + 4 * plain.dim * plain.layers


@pytest.mark.parametrize("name", ["b", "l", "xl", "xxl", "t2i-xl"])
def test_presets_are_the_papers_and_have_a_variant_for_llamagens_weights(name: str):
    config, plain = PRESETS[name], PRESETS[f"{name}-llamagen"]
    assert (config.rope, config.qk_norm, config.norm) == ("2d", "layer", "post")
    assert replace(config, qk_norm="none", norm="pre") == plain


def test_text_driven_sizes():
    assert parameters(replace(PRESETS["t2i-xl-llamagen"], null="none")) == 777_680_640
    assert parameters(PRESETS["t2i-xl-llamagen"]) == 777_680_640 + 120 * 2048
    assert parameters(PRESETS["t2i-xl"]) == 778_110_720
    assert parameters(PRESETS["scenes"]) == 9_036_736


def test_tensors_carry_llamagens_names_and_shapes():
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in MaskGIL(PRESETS["t2i-xl-llamagen"]).state_dict().items()}
    expected = {
        "tok_embeddings.weight": (16385, 1280),
        "output.weight": (16385, 1280),
        "norm.weight": (1280,),
        "cls_embedding.uncond_embedding": (120, 2048),
        "cls_embedding.cap_proj.fc1.weight": (1280, 2048),
        "cls_embedding.cap_proj.fc2.weight": (1280, 1280),
    }
    for i in range(36):
        expected |= {
            f"layers.{i}.attention.wqkv.weight": (3840, 1280),
            f"layers.{i}.attention.wo.weight": (1280, 1280),
            f"layers.{i}.feed_forward.w1.weight": (3584, 1280),
            f"layers.{i}.feed_forward.w3.weight": (3584, 1280),
            f"layers.{i}.feed_forward.w2.weight": (1280, 3584),
            f"layers.{i}.attention_norm.weight": (1280,),
            f"layers.{i}.ffn_norm.weight": (1280,),
        }
    assert shapes == expected


def test_the_mask_is_never_among_the_logits_and_an_untrained_head_prefers_nothing(condition):
    logits = MaskGIL(TINY)(torch.full((2, 6), TINY.mask_id), (2, 3), condition)
    assert logits.shape == (2, 6, 32) and not logits.any()


@pytest.mark.parametrize("rope", ["2d", "1d"])
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("qk_norm", ["none", "layer"])
def test_variants_draw_any_grid(rope: str, norm: str, qk_norm: str, condition):
    model = make_tiny(ModelConfig.from_dict(TINY.to_dict() | {"rope": rope, "norm": norm, "qk_norm": qk_norm}))
    for grid in ((2, 3), (3, 2), (1, 7)):
        assert model(torch.zeros(2, grid[0] * grid[1], dtype=torch.long), grid, condition).isfinite().all()


def test_what_lies_under_padding_cannot_matter(tiny, condition):
    tokens = torch.randint(33, (2, 6))
    logits = tiny(tokens, (2, 3), condition)
    junk = condition.pad(8)
    junk.states[~junk.mask] = 100.0
    torch.testing.assert_close(tiny(tokens, (2, 3), junk), logits, atol=1e-4, rtol=1e-4)


def test_a_row_does_not_see_its_batch(tiny):
    tokens, condition = torch.randint(33, (3, 6)), make_condition((2, 7, 4))
    logits = tiny(tokens, (2, 3), condition)
    for row in range(3):
        alone = tiny(tokens[row : row + 1], (2, 3), condition.rows(slice(row, row + 1)).trim())
        torch.testing.assert_close(alone, logits[row : row + 1], atol=1e-4, rtol=1e-4)


def test_the_text_and_the_shape_matter(tiny):
    tokens = torch.full((1, 6), TINY.mask_id)
    one = tiny(tokens, (2, 3), make_condition((3,)))
    assert not torch.allclose(one, tiny(tokens, (2, 3), make_condition((3,), seed=1)))
    assert not torch.allclose(one, tiny(tokens, (3, 2), make_condition((3,))))


@pytest.mark.parametrize("null, null_length", [("caption", 1), ("caption", 4), ("caption", 8), ("mask", 1)])
def test_dropped_rows_forget_their_text_and_leave_the_others_alone(null, null_length: int):
    model = make_tiny(replace(TINY, null=null, null_length=null_length))
    tokens, drop = torch.randint(33, (2, 6)), torch.tensor([False, True])
    one, other = make_condition((3, 5)), make_condition((5, 2), seed=1)
    mixed = model(tokens, (2, 3), one, drop)
    torch.testing.assert_close(mixed[:1], model(tokens, (2, 3), one)[:1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixed[1:], model(tokens, (2, 3), other, drop)[1:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("null", ["caption", "mask"])
@pytest.mark.parametrize("rope", ["2d", "released"])
def test_classes_drive_and_drop(null, rope):
    model = make_tiny(replace(CLASSES, null=null, rope=rope))
    tokens, labels = torch.randint(33, (2, 6)), torch.tensor([3, 9])
    logits = model(tokens, (2, 3), Condition.classes(labels))
    drop = torch.tensor([True, False])
    mixed = model(tokens, (2, 3), Condition.classes(labels), drop)
    torch.testing.assert_close(mixed[1], logits[1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(mixed[0], logits[0])
    again = model(tokens, (2, 3), Condition.classes(torch.tensor([5, 9])), drop)
    torch.testing.assert_close(again, mixed)


def test_the_released_layout_zeroes_the_first_token():
    """Its published rotation table is one row late: see maskgil/models/config.py."""
    model = make_tiny(replace(CLASSES, rope="released"))
    rotation = model._rotation((2, 3), 1, torch.device("cpu"))
    assert rotation.shape[0] == 7 and not rotation[0].any()
    assert torch.equal(rotation[1], torch.tensor([1.0, 0.0]).expand(8, 2))


@pytest.mark.parametrize("null", ["caption", "mask"])
def test_every_parameter_learns(null):
    """Except the head's row of the mask token, which is never scored."""
    model = make_tiny(replace(TINY, null=null)).requires_grad_(True)
    logits = model(torch.randint(33, (2, 6)), (2, 3), make_condition(), torch.tensor([True, False]))
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    assert not model.output.weight.grad[-1].any()


def test_wrong_conditions_and_grids_are_refused(tiny, condition):
    tokens = torch.zeros(2, 6, dtype=torch.long)
    with pytest.raises(ValueError, match="6 tokens do not fill a grid of 2 rows and 2 columns"):
        tiny(tokens, (2, 2), condition)
    with pytest.raises(ValueError, match="3 wide; this model reads text states of width 12"):
        tiny(tokens, (2, 3), make_condition(width=3))
    with pytest.raises(ValueError, match="9 tokens; this model reads at most 8"):
        tiny(tokens, (2, 3), make_condition((9, 2)))
    with pytest.raises(ValueError, match="reads class labels"):
        make_tiny(CLASSES)(tokens, (2, 3), condition)
    with pytest.raises(ValueError, match="no null condition"):
        make_tiny(replace(TINY, null="none"))(tokens, (2, 3), condition, torch.tensor([True, False]))
    with pytest.raises(ValueError, match="looks both ways"):
        MaskGIL(replace(TINY, causal=True))
