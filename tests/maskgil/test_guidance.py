"""Guidance: one convention, the spec's intervals, evaluations saved outside them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskgil.sampling.guidance import Guidance, apply_guidance


def guided(guidance: Guidance, steps: int) -> list[int]:
    return [step for step, scale in enumerate(guidance.scales([0.5] * steps)) if scale != 1]


@pytest.mark.parametrize(
    "steps, interval, first, last, nfe",
    [
        (16, (0.1, 0.3), 11, 13, 19),
        (16, (0.2, 0.4), 9, 11, 19),
        (128, (0.18, 0.6), 51, 103, 181),
        (128, (0.05, 0.4), 76, 120, 173),
        (128, (0.3, 0.7), 38, 88, 179),
        (16, (0.15, 0.35), 10, 12, 19),
        (64, (0.25, 0.5), 32, 47, 80),
        (16, (0.0, 1.0), 0, 15, 32),
    ],
)
def test_intervals_guide_the_steps_that_emigm_does(steps, interval, first, last, nfe):
    steps_guided = guided(Guidance(4.0, interval=interval), steps)
    assert steps_guided == list(range(first, last + 1)) and steps + len(steps_guided) == nfe


def test_the_released_ramp():
    """w i / (T - 1) with w = scale - 1; the released code divides by zero at T = 1."""
    ramp = Guidance(4.0, "ramp")
    assert ramp.scales([0.0] * 4) == pytest.approx([1, 2, 3, 4])
    assert ramp.scales([1.0]) == [4.0]


def test_shapes_grow_with_what_is_decided():
    decided = [0.25, 0.5, 1.0]
    assert Guidance(5.0, "linear").scales(decided) == pytest.approx([2, 3, 5])
    assert Guidance(5.0, "cosine").scales(decided) == pytest.approx([1.585786, 3, 5])
    assert Guidance(5.0, "power", power=2).scales(decided) == pytest.approx([1.25, 2, 5])


@given(st.integers(1, 200), st.sampled_from(["constant", "ramp", "linear", "cosine", "power"]))
def test_scale_one_is_off(steps, shape):
    assert guided(Guidance(1.0, shape), steps) == []


def test_the_convention():
    null, conditional = torch.randn(2, 3, 5, 7)
    scale = torch.tensor([1.0, 0.0, 4.0])
    result = apply_guidance(null, conditional, scale)
    assert torch.equal(result[0], conditional[0]) and torch.equal(result[1], null[1])
    w = 3.0  # MaskGIL: (1 + w) conditional - w null
    torch.testing.assert_close(result[2], (1 + w) * conditional[2] - w * null[2])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"scale": float("nan")}, "guidance is nan"),
        ({"scale": -1.0}, "guidance is -1.0"),
        ({"scale": float("inf")}, "guidance is inf"),
        ({"interval": (0.5, 0.2)}, r"\(0.5, 0.2\)"),
        ({"interval": (-0.1, 0.2)}, "interval"),
        ({"interval": (0.0, 1.5)}, "interval"),
        ({"interval": (float("nan"), 1.0)}, "interval"),
        ({"power": 0.0}, "power"),
    ],
)
def test_impossible_guidance_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Guidance(**arguments)
