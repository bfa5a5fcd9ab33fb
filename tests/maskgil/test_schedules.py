"""Curves: the spec's tables, and the laws of every plan."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskgil.sampling.schedules import (
    SCHEDULES,
    arccos,
    cosine,
    exact_mask,
    exp,
    independent_mask,
    linear,
    log_exp,
    root,
    schedule_by_name,
    sqrt,
    square,
)


@pytest.mark.parametrize(
    "curve, counts",
    [
        (arccos, [1, 18, 26, 32, 38, 43, 48, 50]),
        (cosine, [1, 12, 22, 32, 41, 47, 51, 50]),
        (linear, [1, 9, 18, 27, 37, 46, 55, 63]),
        (square, [1, 13, 24, 34, 41, 46, 49, 48]),
        (root, [1, 7, 14, 22, 30, 41, 55, 86]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_counts_are_the_released_ones(curve, counts):
    assert curve.counts(8, 256) == counts


def test_remaining_tokens_follow_the_ratio():
    """eMIGM's expected tokens a step at N = 256, T = 16, before the floor of one."""
    for curve, first, last in ((exp, (0.64, 0.87, 1.19), 69.2), (cosine, (1.2,), 25.1), (log_exp, (3.3,), 119.0)):
        gamma = curve.gamma(torch.linspace(1, 0, 17, dtype=torch.float64)) / curve.gamma(torch.ones(1))
        expected = -gamma.diff() * 256
        torch.testing.assert_close(expected[: len(first)], torch.tensor(first).double(), atol=0.05, rtol=0.01)
        assert float(expected[-1]) == pytest.approx(last, abs=0.5)
    assert replace(linear, num_unmasked="remain").counts(16, 256) == [16] * 16
    assert replace(cosine, num_unmasked="remain").counts(8, 256) == [5, 14, 24, 32, 39, 44, 48, 50]  # MaskGIT's own


@given(st.sampled_from(list(SCHEDULES.values())), st.sampled_from(["share", "remain"]), st.data())
def test_counts_are_positive_and_exact(curve, reveal, data):
    tokens = data.draw(st.integers(1, 1100))
    steps = data.draw(st.integers(1, min(tokens, 300)))
    counts = replace(curve, num_unmasked=reveal).counts(steps, tokens)
    assert len(counts) == steps and min(counts) >= 1 and sum(counts) == tokens


@pytest.mark.parametrize("steps, tokens, message", [(0, 4, "0 steps"), (-1, 4, "-1 steps"), (5, 4, "at most 4")])
def test_impossible_step_counts_are_refused(steps, tokens, message):
    with pytest.raises(ValueError, match=message):
        arccos.counts(steps, tokens)


@pytest.mark.parametrize("curve", SCHEDULES.values(), ids=lambda curve: curve.name)
def test_curves_rise_from_nothing_and_know_their_slope(curve):
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    gamma = curve.gamma(t)
    assert abs(float(gamma[0])) < 1e-12 and 0.99 < float(gamma[-1]) <= 1 and (gamma.diff() > 0).all()
    inside = t[5:-5].clone().requires_grad_()
    curve.gamma(inside).sum().backward()
    torch.testing.assert_close(curve.slope(inside.detach()), inside.grad)
    torch.testing.assert_close(curve.weight(inside.detach()), inside.grad / gamma[5:-5])


def test_weights_are_those_of_emigm():
    t = torch.tensor([0.2, 0.5, 0.9])
    torch.testing.assert_close(linear.weight(t), 1 / t)
    torch.testing.assert_close(cosine.weight(t), torch.pi / 2 * torch.tan(torch.pi / 2 * (1 - t)))
    torch.testing.assert_close(exp.weight(t), 5 * torch.exp(-5 * t) / (1 - torch.exp(-5 * t)))


def test_the_mean_training_ratio_of_arccos():
    ratio = arccos.gamma(torch.linspace(0, 1, 10001))
    assert float(ratio.mean()) == pytest.approx(0.637, abs=1e-3)


@given(st.floats(0, 1), st.integers(1, 70))
def test_exact_masks_hold_exactly_their_share(ratio, tokens):
    uniform = torch.rand(3, tokens, generator=torch.Generator().manual_seed(tokens))
    mask = exact_mask(torch.full((3,), ratio), uniform)
    count = max(1, min(tokens, int(torch.ceil(torch.tensor(ratio) * tokens))))
    assert mask.sum(1).tolist() == [count] * 3


def test_independent_masks_hold_their_share_on_average():
    mask = independent_mask(torch.tensor([0.0, 0.3, 1.0]), torch.rand(3, 10000))
    assert mask.float().mean(1).tolist() == pytest.approx([0, 0.3, 1], abs=0.03)


def test_powers_of_time_are_curves_too():
    t = torch.tensor([0.1, 0.5, 1.0])
    torch.testing.assert_close(schedule_by_name("poly-2").gamma(t), t**2)
    torch.testing.assert_close(schedule_by_name("poly-0.5").weight(t), sqrt.weight(t))
    assert schedule_by_name("exp") is exp
    for wrong in ("poly-0", "poly-x", "straight"):
        with pytest.raises(ValueError, match=f"curve={wrong}: choose one of linear"):
            schedule_by_name(wrong)
