"""Orders: permutations that spread, or do not, as they say."""

import pytest
import torch

from maskgil.sampling.orders import DecodingOrder, halton_ranks, priority, top_k_mask

CPU = torch.device("cpu")


@pytest.mark.parametrize("order", [DecodingOrder.RANDOM, DecodingOrder.HALTON, DecodingOrder.RASTER])
def test_early_orders_are_permutations_of_every_grid(order):
    for grid in ((1, 5), (4, 4), (6, 10)):
        scores = priority(order, torch.tensor([3, 3, 4]), grid)
        assert all(len(row.unique()) == grid[0] * grid[1] for row in scores)
        assert torch.equal(scores[0], scores[1])
        assert torch.equal(scores[0], scores[2]) == (order is DecodingOrder.RASTER)


def test_raster_reads_left_to_right():
    assert priority(DecodingOrder.RASTER, torch.tensor([0]), (2, 3)).argsort(descending=True).tolist() == [
        [0, 1, 2, 3, 4, 5]
    ]


def test_halton_is_spread():
    """Any 16 of 64 cells in sequence leave no quarter of the grid empty; the first points are by hand."""
    ranks = halton_ranks((8, 8), CPU)
    first = ranks.argsort()
    assert first[:3].tolist() == [4 * 8 + 2, 2 * 8 + 5, 6 * 8 + 0]  # (1/2, 1/3), (1/4, 2/3), (3/4, 1/9)
    for start in range(0, 64, 16):
        quarter = [(int(cell) // 8 // 4, int(cell) % 8 // 4) for cell in first[start : start + 16]]
        assert all(quarter.count((y, x)) >= 2 for y in (0, 1) for x in (0, 1))


def test_highest_takes_masked_tokens_alone():
    score = torch.tensor([[5.0, -torch.inf, 3.0, 4.0], [1.0, 1.0, 1.0, 1.0]])
    masked = torch.tensor([[False, True, True, True], [True, True, True, False]])
    assert top_k_mask(score, masked, torch.tensor([2, 2])).tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]
    assert torch.equal(top_k_mask(score, masked, torch.tensor([9, 0])), masked & torch.tensor([[True], [False]]))


def test_confidence_is_not_known_early():
    with pytest.raises(AssertionError, match="confidence"):
        priority(DecodingOrder.CONFIDENCE, torch.tensor([0]), (2, 2))
