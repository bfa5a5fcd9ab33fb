"""The unified framework: each choice does what it says, and every method is a row that learns."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from maskgil.condition import Condition
from maskgil.sampling.code_sampler import CodeSampler
from maskgil.sampling.loop import sample
from maskgil.sampling.plans import masked_plan
from maskgil.sampling.schedules import SCHEDULES, cosine, exp, linear
from maskgil.sampling.token_grid import TokenGrid
from train.losses.diffusion_token import LatentTokenLoss, LatentTrainingModule
from train.losses.generation_methods import METHODS, MaskedGenerationConfig, method, training_mask
from train.recipes.method_generators import CodeTrunk, TrunkSizes, generator_for

GRID, CODES, CHANNELS, TEXT = (3, 4), 20, 3, (8, 4)
PLAIN = MaskedGenerationConfig("exact", "one", "categorical", cosine)


class Words(torch.nn.Module):
    """A text encoder without a past: a state for each id."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(10, TEXT[0])

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.table(ids) * mask[..., None]


def tiny(framework: MaskedGenerationConfig, width: int = 16) -> LatentTrainingModule:
    torch.manual_seed(0)
    sizes = TrunkSizes(width, 2, 2, head=(1, 32))
    generator = generator_for(framework, sizes, GRID, TEXT, codes=CODES, channels=CHANNELS)
    return LatentTrainingModule(generator, Words().requires_grad_(False), repeats=8)


def a_batch(framework: MaskedGenerationConfig, rows: int = 4) -> dict:
    draw = torch.Generator().manual_seed(1)
    ids = torch.tensor([[1, 2, 3], [4, 5, 0], [6, 0, 0], [7, 8, 9]])[:rows]
    tokens = torch.randint(CODES, (rows, 12), generator=draw)
    if framework.conditional == "diffusion":
        tokens = torch.randn(rows, 12, CHANNELS, generator=draw)
    return {"tokens": tokens, "grid": GRID, "ids": ids, "mask": ids != 0}


def masks(framework: MaskedGenerationConfig, rows: int = 400, tokens: int = 64) -> tuple[Tensor, Tensor]:
    return framework.masks(rows, tokens, torch.Generator().manual_seed(0))


# --- the choices ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("curve", SCHEDULES.values(), ids=lambda curve: curve.name)
def test_exact_counts_are_exact_and_independent_ones_only_on_average(curve):
    hidden, u = masks(replace(PLAIN, curve=curve))
    assert (hidden.sum(1) == (64 * curve.gamma(u)).ceil().clamp(1, 64)).all() and len(u.unique()) > 300
    hidden, u = masks(replace(PLAIN, curve=curve, masking="independent"))
    wide = (hidden.sum(1) - 64 * curve.gamma(u)) / 8  # a binomial count is within half of this, as deviations go
    assert wide.mean().abs() < 0.1 and 0.1 < wide.std() < 0.5
    assert (hidden.float().mean(0) - curve.gamma(u).mean()).abs().max() < 0.12  # no place is favoured


@pytest.mark.parametrize("masking", ["exact", "independent"])
def test_a_masked_autoencoder_shares_time_and_count_but_not_places(masking):
    hidden, u = masks(replace(PLAIN, masking=masking, trunk="mae"))
    assert len(u.unique()) == 1 and len(hidden.sum(1).unique()) == 1
    assert 1 < int(hidden[0].sum()) and len(hidden.unique(dim=0)) > 300


def test_truncation_leaves_an_atom_at_its_time():
    _, u = masks(replace(PLAIN, t_min=0.4), rows=4000)
    low = 0.999 * torch.tensor(0.4) + 0.001
    assert u.min() == low and (u == low).float().mean().item() == pytest.approx(0.4, abs=0.03)
    _, whole = masks(PLAIN, rows=4000)
    assert whole.min() < 0.01 and (u >= whole).all()


def test_the_bound_weighs_a_time_as_its_curve_says():
    u = torch.tensor([0.1, 0.5, 1.0])
    assert PLAIN.weights(u) is None
    assert torch.allclose(replace(PLAIN, weighting="bound", curve=linear).weights(u), 1 / u)
    weights = replace(PLAIN, weighting="bound", curve=exp).weights(u)
    assert torch.allclose(weights, 5 * torch.exp(-5 * u) / (1 - torch.exp(-5 * u)))


@pytest.mark.parametrize("conditional", ["categorical", "diffusion"])
def test_the_loss_is_linear_in_the_weights_of_its_rows(conditional):
    framework = replace(PLAIN, conditional=conditional)
    model, batch = tiny(framework).eval(), a_batch(framework)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    hidden = torch.arange(12).expand(4, 12) % 3 == 0
    drop = torch.zeros(4, dtype=torch.bool)

    def loss(*weight: float) -> float:
        draws = torch.Generator().manual_seed(3)
        given = torch.tensor(weight) if weight else None
        with torch.no_grad():
            words = {"ids": batch["ids"], "mask": batch["mask"]}
            return model(batch["tokens"], GRID, hidden, given, drop, draws, **words)[0].item()

    alone = [loss(*row) for row in torch.eye(4).tolist()]
    assert loss() == pytest.approx(loss(1.0, 1.0, 1.0, 1.0)) == pytest.approx(sum(alone))
    assert loss(0.5, 2.0, 0.0, 3.0) == pytest.approx(0.5 * alone[0] + 2 * alone[1] + 3 * alone[3], rel=1e-4)


@pytest.mark.parametrize("conditional", ["categorical", "diffusion"])
def test_nothing_hidden_is_no_loss(conditional):
    framework = replace(PLAIN, conditional=conditional)
    batch, none = a_batch(framework), torch.zeros(4, 12, dtype=torch.bool)
    drop, draws = torch.zeros(4, dtype=torch.bool), torch.Generator()
    words = {"ids": batch["ids"], "mask": batch["mask"]}
    assert tiny(framework)(batch["tokens"], GRID, none, None, drop, draws, **words)[0].item() == 0


def test_wrong_choices_are_named():
    with pytest.raises(ValueError, match="method=magic: choose one of maskgit, mar, mdm, maskgil, emigm"):
        method("magic")
    with pytest.raises(ValueError, match="masking=some: choose one of exact, independent"):
        method("mdm", masking="some")
    with pytest.raises(ValueError, match="curve=straight: choose one of linear"):
        method("mdm", curve="straight")
    assert method("mdm", curve="exp", null="", t_min=0.2) == replace(METHODS["mdm"], curve=exp, t_min=0.2)
    with pytest.raises(ValueError, match="t_min is 1.0"):
        replace(PLAIN, t_min=1.0)


def test_training_masks_have_the_published_statistics():
    """Mean ratio 0.854 with exp and t_min 0.2; a fifth of the batches sit at the clamp; rows mask equally many."""
    generator = torch.Generator().manual_seed(0)
    ratios, clamped = [], 0
    for _ in range(600):
        masked, u = training_mask(2, 256, exp, 0.2, generator)
        assert masked[0].sum() == masked[1].sum() >= 2
        ratios.append(masked[0].float().mean().item())
        clamped += u.item() == pytest.approx(0.999 * 0.2 + 0.001)
    assert sum(ratios) / 600 == pytest.approx(0.854, abs=0.02)
    assert clamped / 600 == pytest.approx(0.2, abs=0.05)
    untruncated = [training_mask(1, 256, exp, 0.0, generator)[0].float().mean().item() for _ in range(600)]
    assert sum(untruncated) / 600 == pytest.approx(0.801, abs=0.03)


def test_rows_of_a_training_batch_hide_different_places():
    masked, _ = training_mask(2, 256, exp, 0.2, torch.Generator().manual_seed(0))
    assert not torch.equal(masked[0], masked[1])


def test_bad_training_masks_are_refused():
    for tokens, t_min in ((256, -0.1), (256, 1.1), (1, 0.2)):
        with pytest.raises(ValueError, match="t_min must lie in"):
            training_mask(2, tokens, exp, t_min, torch.Generator())


# --- the methods ------------------------------------------------------------------------------------------------------

CHOICES = product(["categorical", "diffusion"], ["single", "mae"], ["token", "mask"])


@pytest.mark.parametrize("conditional, trunk, null", list(CHOICES))
def test_choices_are_independent_and_reach_every_parameter(conditional, trunk, null):
    for masking, weighting in product(["exact", "independent"], ["one", "bound"]):
        framework = MaskedGenerationConfig(masking, weighting, conditional, exp, trunk, null, t_min=0.2)
        model = tiny(framework)
        for parameter in model.generator.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        part, _ = LatentTokenLoss(framework, caption_dropout=0.5)(
            [model], a_batch(framework), torch.Generator().manual_seed(2), 0
        )
        part.total.backward()
        without = [name for name, p in model.generator.named_parameters() if p.grad is None]
        assert part.total.isfinite() and not without


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns(name):
    framework = METHODS[name]
    model, batch, objective = tiny(framework, 32), a_batch(framework), LatentTokenLoss(framework)
    optimizer = torch.optim.AdamW(model.generator.parameters(), 6e-3)

    def now(seed: int) -> torch.Tensor:
        part, shown = objective([model], batch, torch.Generator().manual_seed(seed), 0)
        assert 0 < shown["masked"] <= 1
        return part.total / part.count

    def known() -> float:
        """On masks that do not change, whose draw would hide what is learned."""
        with torch.no_grad():
            return sum(now(1000 + seed).item() for seed in range(8))

    before = known()
    for step in range(60):
        loss = now(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert known() < 0.9 * before


def test_the_same_seed_is_the_same_loss():
    framework = METHODS["emigm"]
    model, batch, objective = tiny(framework), a_batch(framework), LatentTokenLoss(framework)
    first, again, other = (
        objective([model], batch, torch.Generator().manual_seed(seed), 0)[0].total.item() for seed in (5, 5, 6)
    )
    assert first == again != other


# --- codes under a masked autoencoder ---------------------------------------------------------------------------------


def code_trunk() -> CodeTrunk:
    model = tiny(replace(PLAIN, trunk="mae")).generator.eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_codes_of_a_masked_autoencoder_are_drawn_by_the_one_loop():
    model, condition = code_trunk(), Condition(torch.randn(2, 3, TEXT[0]), torch.ones(2, 3, dtype=torch.bool))
    blank = TokenGrid.blank(2, GRID, model.config.mask_id)
    *_, drawn = sample(CodeSampler(model, condition), blank, masked_plan(12, 4, seeds=[1, 2]))
    assert not drawn.mask.any() and 0 <= int(drawn.tokens.min()) <= int(drawn.tokens.max()) < CODES
    with pytest.raises(ValueError, match="has learned"):
        model(blank.tokens, (4, 3), condition)


def test_a_known_code_is_seen_from_everywhere():
    model, condition = code_trunk(), Condition(torch.randn(1, 3, TEXT[0]), torch.ones(1, 3, dtype=torch.bool))
    tokens = torch.full((1, 12), CODES)
    unknown = model(tokens, GRID, condition)
    tokens[0, 5] = 3
    known = model(tokens, GRID, condition)
    assert ((known - unknown).abs().amax(-1) > 1e-3).all()


def learning(model: LatentTrainingModule, framework: MaskedGenerationConfig, batch: dict) -> list[float]:
    """Losses of 60 steps on one batch."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 3e-3)
    seen, objective = [], LatentTokenLoss(framework, caption_dropout=0.0)
    for step in range(60):
        part, _ = objective([model], batch, torch.Generator().manual_seed(step), step)
        optimizer.zero_grad()
        (part.total / part.count).backward()
        optimizer.step()
        seen.append(float(part.total.detach() / part.count))
    return seen


def test_a_guess_adds_its_squared_error_and_teaches_the_trunk():
    """The loss of noise says next to nothing of a vector that only the trunk knows; a guess says it at once."""
    framework = METHODS["emigm"]
    plain, guesses = tiny(framework), tiny(framework)
    guesses = LatentTrainingModule(guesses.generator, guesses.text_encoder, repeats=8, guess=True)
    torch.nn.init.zeros_(guesses.guess.weight)
    torch.nn.init.zeros_(guesses.guess.bias)
    batch = a_batch(framework)
    results = [LatentTokenLoss(framework)([m], batch, torch.Generator().manual_seed(5), 0)[0] for m in (plain, guesses)]
    own = torch.randint(2**62, (), generator=torch.Generator().manual_seed(5))
    hidden, _ = framework.masks(4, 12, torch.Generator().manual_seed(int(own)))
    error = batch["tokens"][hidden].square().mean()
    assert results[0].count == results[1].count == hidden.sum()
    assert torch.allclose((results[1].total - results[0].total) / hidden.sum(), error, atol=1e-4)
    seen = learning(guesses, framework, batch)
    assert sum(seen[-10:]) < 0.7 * sum(seen[:10])


def test_a_teacher_says_what_it_believes_of_the_same_cells():
    framework = METHODS["emigm"]
    pupil, teacher = tiny(framework), tiny(METHODS["maskgil"], width=24).generator
    plain = LatentTokenLoss(framework)
    taught = LatentTrainingModule(pupil.generator, pupil.text_encoder, repeats=8, teacher=teacher)
    torch.nn.init.zeros_(taught.taught.weight)
    torch.nn.init.zeros_(taught.taught.bias)
    batch = a_batch(framework) | {"codes": torch.randint(CODES, (4, 12), generator=torch.Generator().manual_seed(3))}
    parts = [plain([m], batch, torch.Generator().manual_seed(5), 0)[0] for m in (pupil, taught)]
    # The error is in units of the belief's own size: who says nothing is off by 1.
    assert torch.allclose((parts[1].total - parts[0].total) / parts[0].count, torch.ones(()), atol=1e-4)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    seen = learning(taught, framework, batch)
    assert sum(seen[-10:]) < 0.7 * sum(seen[:10])
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert not teacher.training and all(p.grad is None for p in teacher.parameters())
