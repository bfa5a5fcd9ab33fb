"""Counted noise: a function of its arguments alone, uniform, and unrelated from one argument to the next."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskgil.sampling.counter_rng import gumbel, normal, uniform, uniform_at

SEEDS, STEPS = torch.tensor([7, -3, 2**62]), torch.tensor([0, 5, 2])


def test_a_row_does_not_see_its_batch():
    together = uniform(SEEDS, 0, STEPS, 6, 4)
    for row in range(3):
        assert torch.equal(uniform(SEEDS[row : row + 1], 0, STEPS[row : row + 1], 6, 4)[0], together[row])


@given(st.integers(0, 2), st.integers(0, 5), st.integers(1, 9))
def test_fewer_positions_or_draws_are_the_first_of_more(row, position, draws):
    many = uniform(SEEDS, 1, STEPS, 6, 9)
    few = uniform_at(SEEDS[row], 1, STEPS[row], torch.tensor(position), draws)
    assert torch.equal(few, many[row, position, :draws])


def test_the_numbers_are_pinned():
    """The same on every device and in every release, since pictures are remembered by their seed: written in plain
    integers, and once as literals."""
    wrap, golden, first, second = 2**64 - 1, 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB

    def mix(x: int) -> int:
        x = (x ^ x >> 30) * first & wrap
        x = (x ^ x >> 27) * second & wrap
        return x ^ x >> 31

    def number(seed: int, stream: int, step: int, position: int, draw: int) -> float:
        key = mix(seed + golden & wrap)
        for part in (stream, step, position):
            key = mix(key + (part + 1) * golden & wrap)
        bits = (key ^ mix(draw * golden & wrap)) * first & wrap
        bits = (bits ^ bits >> 32) * second & wrap
        return ((bits >> 41) + 0.5) / 2**23

    for row in range(3):
        for position in (0, 5):
            for draw in (0, 3):
                expected = number(int(SEEDS[row]), 2, int(STEPS[row]), position, draw)
                assert float(uniform(SEEDS, 2, STEPS, 6, 4)[row, position, draw]) == expected
    numbers = uniform(torch.tensor([7]), 0, torch.tensor([1]), 2, 2).double() * 2**24
    assert numbers.flatten().tolist() == [11767173, 14591647, 16187129, 8623349]


def test_they_are_uniform_and_inside():
    u = uniform(torch.arange(4), 0, torch.zeros(4, dtype=torch.long), 64, 2048)
    assert float(u.min()) > 0 and float(u.max()) < 1
    counts = torch.histc(u, 256, 0, 1)
    chi = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert abs(float(chi) - 255) < 5 * (2 * 255) ** 0.5


@pytest.mark.parametrize("change", ["seed", "stream", "step", "position", "draw"])
def test_neighbours_are_unrelated(change):
    def numbers(**by: int) -> torch.Tensor:
        seeds = torch.arange(8) * 5 + by.get("seed", 0)
        u = uniform(seeds, by.get("stream", 0), torch.full((8,), by.get("step", 0)), 65, 513)
        return u[:, by.get("position", 0) :][:, :64, by.get("draw", 0) :][..., :512] - 0.5

    product = numbers() * numbers(**{change: 1}) * 12
    assert abs(float(product.mean())) < 4.5 / product.numel() ** 0.5


def test_positions_of_one_row_are_unrelated_in_pairs():
    u = uniform(torch.tensor([1]), 0, torch.tensor([0]), 512, 1024)[0]
    correlation = ((u - 0.5) * 12**0.5) @ ((u - 0.5) * 12**0.5).T / 32
    correlation.fill_diagonal_(0)
    assert float(correlation.std()) == pytest.approx(1, abs=0.02) and float(correlation.abs().max()) < 6


def test_gumbel_and_normal_have_their_moments():
    u = uniform(torch.tensor([3]), 2, torch.tensor([0]), 100, 1000)
    assert float(gumbel(u).mean()) == pytest.approx(0.5772, abs=0.02)
    assert float(normal(u).mean()) == pytest.approx(0, abs=0.02)
    assert float(normal(u).std()) == pytest.approx(1, abs=0.02)
    assert gumbel(u).isfinite().all() and normal(u).isfinite().all()
