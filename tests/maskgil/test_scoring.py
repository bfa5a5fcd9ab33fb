"""How likely vectors are: the bound against densities that are known, and what goes by it."""

import functools

import pytest
import torch
from test_emigm import classes, make
from torch import Tensor, nn

from maskgil.models.diffusion_head import DiffusionHead, SimpleMLPAdaLN, diffusion_schedule
from maskgil.models.diffusion_samplers import DPMSolver
from maskgil.models.emigm import EMIGM
from maskgil.sampling import best_of_n, remasking
from maskgil.sampling.latent_sampler import LatentSampler
from maskgil.sampling.latent_scoring import latent_log_likelihood, vector_bound
from maskgil.sampling.loop import sample, sample_step
from maskgil.sampling.plans import masked_plan
from maskgil.sampling.schedules import exp
from maskgil.sampling.scoring import checkerboard_log_likelihood
from maskgil.sampling.token_grid import TokenGrid

GRID = (2, 3)


class KnowsGauss(SimpleMLPAdaLN):
    """The head of N(mean, spread^2): its noise is known exactly, alpha (mean, spread) and sigma making a Gaussian."""

    def __init__(self, mean: float, spread: float):
        super().__init__(3, 8, 1, 16)
        self.mean, self.spread = mean, spread

    def forward(self, x: Tensor, time: Tensor, z: Tensor) -> Tensor:
        table, t = diffusion_schedule(x.device), time.long()
        alpha, sigma = table.alpha[t], table.sigma[t]
        epsilon = sigma * (x - alpha * self.mean) / (alpha**2 * self.spread**2 + sigma**2)
        return torch.cat([epsilon, torch.zeros_like(x)], dim=-1)


@pytest.mark.parametrize(("mean", "spread"), [(0.0, 1.0), (1.0, 0.7)])
def test_the_bound_tells_apart_what_a_density_tells_apart(mean: float, spread: float):
    head = DiffusionHead(8, 16, 1, 4)
    head.net = KnowsGauss(mean, spread)
    draw = torch.Generator().manual_seed(0)
    sizes = torch.linspace(0.2, 1.6, 500)[:, None]
    tokens = mean + spread * sizes * torch.randn(500, 8, generator=draw)
    found = vector_bound(head, torch.zeros(500, 4), tokens, torch.zeros(500, dtype=torch.long))
    true = torch.distributions.Normal(mean, spread).log_prob(tokens).sum(1)
    assert torch.corrcoef(torch.stack([found, true]))[0, 1] > 0.8
    slope = torch.linalg.lstsq(torch.stack([true, torch.ones(500)], 1), found[:, None]).solution[0]
    assert 0.75 < slope < 1.35, "in nats"


def lively() -> EMIGM:
    """One whose words and cells are heard."""
    model = make()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


def gaussian() -> EMIGM:
    """One to which all vectors are N(0, 1)."""
    model = make()
    model.diffloss.net = KnowsGauss(0.0, 1.0)
    return model


@pytest.fixture
def canvas() -> TokenGrid:
    """Drawn in three steps by who takes all vectors for N(0, 1)."""
    plan = masked_plan(6, 3, exp, "random", seeds=[1, 2])
    *_, drawn = sample(
        LatentSampler(gaussian(), classes(1, 4), DPMSolver(2)), TokenGrid.blank(2, GRID, channels=3), plan
    )
    return drawn


@torch.no_grad()
def test_a_token_is_judged_by_what_is_seen_and_not_by_itself(canvas: TokenGrid):
    model, hidden = lively(), torch.zeros(2, 6, dtype=torch.bool)
    hidden[:, [0, 4]] = True
    before = latent_log_likelihood(model, canvas, hidden, classes(1, 4))
    other = canvas.tokens.clone()
    other[:, 4] += 1  # hidden from the other one, too
    after = latent_log_likelihood(model, TokenGrid(other, canvas.mask, GRID), hidden, classes(1, 4))
    assert torch.allclose(before[:, 0], after[:, 0], atol=1e-3)
    assert not torch.allclose(before[:, 4], after[:, 4], atol=0.1)
    other[:, 1] += 1
    seen = latent_log_likelihood(model, TokenGrid(other, canvas.mask, GRID), hidden, classes(1, 4))
    assert not torch.allclose(before[:, 0], seen[:, 0], atol=1e-2)


@torch.no_grad()
def test_halves_are_judged_each_by_the_other(canvas: TokenGrid):
    model = make()
    half = torch.tensor([True, False, True, False, True, False]).expand(2, -1)
    first, second = (latent_log_likelihood(model, canvas, hidden, classes(1, 4)) for hidden in (half, ~half))
    found = LatentSampler(model, classes(1, 4), DPMSolver(2)).likelihood(canvas, torch.tensor([1, 0]))
    assert torch.allclose(found.flip(0), torch.where(half, first, second), atol=1e-3)
    assert torch.allclose(
        checkerboard_log_likelihood(functools.partial(latent_log_likelihood, model), canvas, classes(1, 4)).flip(0),
        found,
        atol=1e-3,
    )


def test_a_stray_vector_is_found_and_drawn_anew(canvas: TokenGrid):
    tokens = canvas.tokens.clone()
    tokens[:, 2] = 9.0
    astray = TokenGrid(tokens, canvas.mask, GRID, canvas.unmasked_at)
    step = masked_plan(6, 3, exp, "random", seeds=[1, 2], refinement_passes=1, remask_fraction=1 / 6)[-1]
    paint = LatentSampler(gaussian(), classes(1, 4), DPMSolver(2))
    after = sample_step(paint, astray, step)
    assert (after.tokens[:, 2] < 9).all() and not after.mask.any() and paint.nfe.tolist() == [3, 3]
    others = [0, 1, 3, 4, 5]
    assert torch.equal(after.tokens[:, others], tokens[:, others]) and (after.unmasked_at[:, 2] == 3).all()


def test_of_candidates_the_one_without_a_stray_vector_is_shown(canvas: TokenGrid):
    tokens = canvas.tokens[:1].repeat(3, 1, 1)
    tokens[0, 2], tokens[2, 5] = 9.0, -9.0
    three = TokenGrid(tokens, torch.zeros(3, 6, dtype=torch.bool), GRID, canvas.unmasked_at[:1].repeat(3, 1))
    paint = LatentSampler(gaussian(), classes(1, 1, 1), DPMSolver(2))
    assert best_of_n.best_candidates(paint, three, 3).tolist() == [1]


def test_a_picture_of_vectors_keeps_what_the_same_words_say(canvas: TokenGrid):
    model = lively()
    same = remasking.remask_changed(model, canvas, classes(1, 4), classes(1, 4), [1, 2])
    assert same.kept.tolist() == [1, 1] and not same.canvas.mask.any() and same.change.abs().max() < 1e-3
    other = remasking.remask_changed(model, canvas, classes(1, 4), classes(2, 3), [1, 2], margin=0.0)
    assert torch.equal(other.canvas.mask, other.change < 0) and 0 < int(other.canvas.mask.sum())
