"""Revisions: the least likely of what was drawn is decided anew, and nothing else is touched."""

import pytest
import torch
from conftest import TINY, make_condition, make_tiny
from torch import Tensor, nn

from maskgil.condition import Condition
from maskgil.sampling.code_sampler import CodeSampler
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.loop import StepParams, sample, sample_step
from maskgil.sampling.plans import masked_plan
from maskgil.sampling.token_grid import TokenGrid

GRID = (3, 4)
TRUTH = torch.arange(12) % TINY.codebook_size


class Knows(nn.Module):
    """A model that is sure of the truth, and surest where a neighbour is seen."""

    config = TINY

    def forward(self, tokens: Tensor, *rest: object) -> Tensor:
        logits = torch.zeros(*tokens.shape, TINY.codebook_size)
        return logits.scatter(-1, TRUTH.expand_as(tokens)[..., None], 9.0)


@pytest.fixture
def condition() -> Condition:
    return make_condition((3, 4))


def finished(seeds: list[int], condition: Condition, model: nn.Module | None = None) -> TokenGrid:
    predict = CodeSampler(model or make_tiny(), condition)
    *_, canvas = sample(predict, TokenGrid.blank(len(seeds), GRID, TINY.mask_id), masked_plan(12, 3, seeds=seeds))
    return canvas


def revision(seeds: list[int], **options) -> StepParams:
    return masked_plan(12, 3, seeds=seeds, refinement_passes=1, **options)[-1]


def test_likelihood_is_that_of_each_half_given_the_other(condition: Condition):
    model, canvas = make_tiny(), finished([1, 2], condition)
    masked = torch.zeros(2, 12, dtype=torch.bool)
    masked[1, 5] = True  # hidden in both halves
    canvas = TokenGrid(canvas.tokens, masked, GRID)
    found = CodeSampler(model, condition).likelihood(canvas, torch.tensor([1, 0]))
    for place, row in enumerate((1, 0)):
        for cell in range(12):
            own = [n for n in range(12) if (n // 4 + n % 4) % 2 == (cell // 4 + cell % 4) % 2]
            seen = canvas.tokens[row].clone()
            seen[[*own, *masked[row].nonzero()[:, 0].tolist()]] = TINY.mask_id
            logits = model(seen[None], GRID, condition.rows(torch.tensor([row])))[0, cell].log_softmax(-1)
            if not masked[row, cell]:
                torch.testing.assert_close(found[place, cell], logits[canvas.tokens[row, cell]], atol=1e-4, rtol=1e-4)


def test_a_stray_piece_is_found_and_put_right(condition: Condition):
    canvas = finished([1, 2], condition, Knows())
    stray = canvas.tokens.clone()
    stray[0, [2, 7]], stray[1, 11] = 30, 3
    astray = TokenGrid(stray, canvas.mask, GRID, canvas.unmasked_at)
    after = sample_step(CodeSampler(Knows(), condition), astray, revision([1, 2]))
    assert torch.equal(after.tokens, TRUTH.expand(2, -1)) and not after.mask.any()
    assert after.unmasked_at[0, [2, 7]].tolist() == [3, 3] and (after.unmasked_at == 3).sum(1).tolist() == [3, 3]


def test_what_was_given_or_drawn_before_the_plan_stays(condition: Condition):
    tokens = torch.full((2, 12), 30)  # all of it unlikely
    given = torch.tensor([-1] * 4 + [0, 1, 4, 4, 5, 5, 6, 6])
    canvas = TokenGrid(tokens, torch.zeros(2, 12, dtype=torch.bool), GRID, given.repeat(2, 1))
    step = masked_plan(8, 3, seeds=[1, 2], refinement_passes=1, remask_fraction=1.0, first_step=4)[-1]
    after = sample_step(CodeSampler(Knows(), condition), canvas, step)
    assert torch.equal(after.tokens[:, :6], tokens[:, :6]) and torch.equal(after.tokens[:, 6:], TRUTH[6:].expand(2, -1))
    assert torch.equal(after.unmasked_at[:, :6], canvas.unmasked_at[:, :6])


def test_a_row_is_revised_in_company_as_it_is_alone(condition: Condition):
    model, canvas = make_tiny(), finished([1, 2], condition)
    alone = sample_step(CodeSampler(model, condition.rows(slice(1, 2))), canvas.rows(slice(1, 2)), revision([2]))
    plain = masked_plan(12, 3, guidance=Guidance(3.0), seeds=[1])[0]
    joined = TokenGrid.cat([TokenGrid.blank(1, GRID, TINY.mask_id), canvas.rows(slice(1, 2))])
    predict = CodeSampler(model, condition)
    together = sample_step(predict, joined, StepParams.cat([plain, revision([2])]))
    assert torch.equal(together.tokens[1], alone.tokens[0]) and torch.equal(
        together.unmasked_at[1], alone.unmasked_at[0]
    )
    assert together.mask[0].any() and not together.mask[1].any()
    assert predict.nfe.tolist() == [2, 3], "guided; two halves and the step itself"


def test_a_plan_says_what_it_costs_and_few_masked_tokens_are_not_revised():
    plan = masked_plan(12, 3, guidance=Guidance(2.0, interval=(0.1, 1.0)), seeds=[1], refinement_passes=2)
    assert [step.nfe_per_row for step in plan] == [2, 2, 1, 3, 3] and [int(step.index) for step in plan] == list(
        range(5)
    )
    assert [step.nfe.tolist() for step in plan] == [[step.nfe_per_row] for step in plan]
    assert [int(step.num_unmask) for step in plan[3:]] == [3, 3]
    assert len(masked_plan(2, 2, seeds=[1], refinement_passes=1)) == 2
    both = masked_plan([2, 12], 2, seeds=[1, 2], refinement_passes=1)
    assert both[-1].num_remask.tolist() == [0, 3]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"refinement_passes": -1}, "refinement_passes is -1"),
        ({"refinement_passes": 101}, "refinement_passes is 101"),
        ({"remask_fraction": 0.0}, "remask_fraction is 0"),
    ],
)
def test_impossible_numbers_are_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        masked_plan(12, 3, seeds=[1], **options)
