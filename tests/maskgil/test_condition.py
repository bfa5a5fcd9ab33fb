"""Conditions: rows, padding, trimming; labels survive every move."""

import pytest
import torch
from conftest import make_condition

from maskgil.condition import Condition


def test_padding_and_trimming_are_inverse():
    condition = make_condition((3, 5))
    again = condition.pad(9).trim()
    assert torch.equal(again.states, condition.states) and torch.equal(again.mask, condition.mask)


def test_trim_drops_left_padding_and_keeps_a_column_for_nothing():
    left = Condition(torch.randn(2, 4, 3), torch.tensor([[False, False, True, True]] * 2))
    assert torch.equal(left.trim().states, left.states[:, 2:])
    empty = Condition(torch.randn(2, 4, 3), torch.zeros(2, 4, dtype=torch.bool))
    assert empty.trim().length == 1 and not empty.trim().mask.any()


def test_cat_pads_to_the_longest():
    short, long = make_condition((2,)), make_condition((6, 1), seed=1)
    both = Condition.cat([short, long])
    assert len(both) == 3 and both.length == 6
    assert torch.equal(both.mask.sum(1), torch.tensor([2, 6, 1]))
    assert torch.equal(both.rows(slice(0, 1)).trim().states, short.states)


def test_repeat_keeps_copies_side_by_side():
    condition = make_condition((1, 4))
    assert torch.equal(condition.repeat(3).rows(torch.tensor([2, 3])).states, condition.states)


def test_labels_survive_narrow_types():
    labels = torch.tensor([0, 257, 999])
    moved = Condition.classes(labels).to("cpu", torch.bfloat16)
    assert torch.equal(moved.states[:, 0, 0].long(), labels)
    assert make_condition().to(dtype=torch.bfloat16).states.dtype == torch.bfloat16


def test_padding_never_cuts():
    with pytest.raises(AssertionError, match="cannot pad 5"):
        make_condition((5,)).pad(3)
