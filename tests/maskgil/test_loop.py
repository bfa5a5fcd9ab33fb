"""The loop's laws: an oracle is reproduced whatever the plan, given tokens stay, counts are exact, rows are alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maskgil.sampling import counter_rng
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.loop import DecodingOrder, StepParams, sample
from maskgil.sampling.plans import fixed_plan, masked_plan, raster_plan
from maskgil.sampling.schedules import SCHEDULES
from maskgil.sampling.token_grid import TokenGrid

GRID = (4, 6)
ANSWER = torch.arange(24)[None].repeat(3, 1) + torch.tensor([[0], [100], [200]])


class Oracle:
    """Knows the answer, says junk elsewhere, and is as sure as a hash of the step says. It notes where it was asked."""

    def __init__(self, answer: Tensor = ANSWER):
        self.answer, self.asked = answer, []

    def __call__(self, canvas: TokenGrid, step: StepParams, where: Tensor) -> tuple[Tensor, Tensor]:
        self.asked.append(where)
        known = where if self.answer.dim() == 2 else where[..., None]
        confidence = counter_rng.uniform(step.seeds, 9, step.index, where.shape[1], 1)[..., 0].log()
        return torch.where(known, self.answer, -7), confidence


def some_masked(share: float, seed: int) -> TokenGrid:
    masked = torch.rand(ANSWER.shape, generator=torch.Generator().manual_seed(seed)) < share
    masked[:, 0] = True
    return TokenGrid(torch.where(masked, -1, ANSWER), masked, GRID)


orders = st.sampled_from([DecodingOrder.CONFIDENCE, DecodingOrder.RANDOM, DecodingOrder.HALTON, DecodingOrder.RASTER])


@settings(max_examples=40, deadline=None)
@given(orders, st.sampled_from(list(SCHEDULES.values())), st.integers(1, 24), st.data())
def test_an_oracle_is_reproduced_whatever_the_plan(order, curve, steps, data):
    canvas = some_masked(data.draw(st.floats(0.1, 1)), data.draw(st.integers(0, 9)))
    masked = canvas.num_masked()
    steps = min(steps, min(masked))
    plan = masked_plan(masked, steps, curve, order, seeds=[1, 2, 3])
    seen = [canvas, *sample(Oracle(), canvas, plan)]
    assert torch.equal(seen[-1].tokens, ANSWER) and not seen[-1].mask.any()
    for i, (before, after) in enumerate(zip(seen, seen[1:], strict=False)):
        taken = before.mask & ~after.mask
        assert torch.equal(taken.sum(1), plan[i].num_unmask), "counts are exact"
        assert torch.equal(before.tokens[~before.mask], after.tokens[~before.mask]), "decided tokens are never touched"
        assert (after.unmasked_at[taken] == i).all() and (after.confidence[taken] < 0).all()
    assert (seen[-1].unmasked_at[~canvas.mask] == -1).all()


@pytest.mark.parametrize("order", [DecodingOrder.RANDOM, DecodingOrder.HALTON, DecodingOrder.RASTER])
def test_early_orders_ask_for_what_they_decide(order):
    oracle, canvas = Oracle(), some_masked(0.7, 1)
    plan = masked_plan(canvas.num_masked(), 5, order=order, seeds=[1, 2, 3])
    for after, where in zip(sample(oracle, canvas, plan), oracle.asked, strict=False):
        assert torch.equal(where, canvas.mask & ~after.mask)
        canvas = after


def test_confidence_asks_for_every_masked_token_and_takes_the_surest():
    oracle, canvas = Oracle(), some_masked(0.7, 1)
    after = next(sample(oracle, canvas, masked_plan(canvas.num_masked(), 2, choice_temperature=0.0, seeds=[1, 2, 3])))
    assert torch.equal(oracle.asked[0], canvas.mask)
    _, confidence = oracle(canvas, masked_plan(1, 1, seeds=[1, 2, 3])[0], canvas.mask)
    taken = canvas.mask & ~after.mask
    for row in range(3):
        assert confidence[row][taken[row]].min() >= confidence[row][after.mask[row]].max()


@pytest.mark.parametrize("order", list(DecodingOrder)[:4])
def test_a_row_does_not_see_its_batch(order):
    plan = masked_plan(24, 6, order=order, seeds=[5, 6, 7])
    together = list(sample(Oracle(), TokenGrid.blank(3, GRID), plan))
    for row in range(3):
        one = slice(row, row + 1)
        alone = sample(Oracle(ANSWER[one]), TokenGrid.blank(1, GRID), masked_plan(24, 6, order=order, seeds=[5 + row]))
        for some, whole in zip(alone, together, strict=True):
            assert torch.equal(some.mask, whole.mask[one]) and torch.equal(some.unmasked_at, whole.unmasked_at[one])


def test_rows_of_different_plans_share_a_step():
    """The rows of three plans, of other orders, lengths and options, joined and left one by one."""
    plans = [
        masked_plan(24, 4, order=DecodingOrder.HALTON, seeds=[1], guidance=Guidance(3.0)),
        masked_plan(24, 6, seeds=[2], top_k=3),
        raster_plan(24, seeds=[3], guidance=Guidance(2.0), top_p=0.5),
    ]
    answers = [ANSWER[i : i + 1] for i in range(3)]
    alone = [list(sample(Oracle(a), TokenGrid.blank(1, GRID), p)) for a, p in zip(answers, plans, strict=True)]
    canvases = [TokenGrid.blank(1, GRID) for _ in plans]
    for i in range(24):
        active = [row for row in range(3) if i < len(plans[row])]
        step = StepParams.cat([plans[row][i] for row in active])
        predict = Oracle(torch.cat([answers[row] for row in active]))
        joined = next(sample(predict, TokenGrid.cat([canvases[row] for row in active]), [step]))
        for at, row in enumerate(active):
            canvases[row] = joined.rows(slice(at, at + 1))
            assert torch.equal(canvases[row].mask, alone[row][i].mask)
        assert step.guided.tolist() == [at for at, row in enumerate(active) if row != 1]
        assert step.nfe.tolist() == [1 if row == 1 else 2 for row in active]
    assert torch.equal(torch.cat([canvas.tokens for canvas in canvases]), ANSWER)


def test_options_of_joined_steps_stay_with_their_rows():
    step = StepParams.cat([masked_plan(4, 1, top_k=3)[0], masked_plan(4, 1, seeds=[1, 2], top_p=0.5)[0]])
    assert step.top_k.tolist() == [3, 0, 0] and step.top_p.tolist() == [1.0, 0.5, 0.5]
    assert StepParams.cat([masked_plan(4, 1)[0]] * 2).top_k is None


def test_hybrid_is_two_plans():
    """A raster prefix, then everything else at once."""
    *_, prefix = sample(Oracle(), TokenGrid.blank(3, GRID), raster_plan(10, seeds=[1, 2, 3]))
    assert not prefix.mask[:, :10].any() and prefix.mask[:, 10:].all()
    *_, whole = sample(Oracle(), prefix, masked_plan(14, 3, seeds=[1, 2, 3], first_step=10))
    assert torch.equal(whole.tokens, ANSWER)
    assert whole.unmasked_at[:, :10].tolist() == [list(range(10))] * 3 and int(whole.unmasked_at.max()) == 12


def test_listed_positions_are_followed():
    masks = [torch.rand(3, 24) < 0.3]
    masks.append(~masks[0])
    plan = fixed_plan(masks, masked_plan(24, 2, seeds=[1, 2, 3]))
    first, second = sample(Oracle(), TokenGrid.blank(3, GRID), plan)
    assert torch.equal(~first.mask, masks[0]) and not second.mask.any()


def test_continuous_tokens_fill_the_same_way():
    answer = torch.randn(3, 24, 5)
    for order in (DecodingOrder.RANDOM, DecodingOrder.CONFIDENCE):
        *_, filled = sample(
            Oracle(answer), TokenGrid.blank(3, GRID, channels=5), masked_plan(24, 4, order=order, seeds=[1, 2, 3])
        )
        assert torch.equal(filled.tokens, answer)


def test_choice_noise_anneals_to_nothing_and_one_step_is_fine():
    assert [float(step.choice_temperature[0]) for step in masked_plan(24, 4, choice_temperature=3.0)] == pytest.approx(
        [3, 2, 1, 0]
    )
    assert len(masked_plan(24, 1)) == 1


def test_guided_steps_lie_inside_the_interval_alone():
    plan = masked_plan(256, 16, guidance=Guidance(4.0, interval=(0.1, 0.3)), seeds=[1, 2])
    assert [i for i, step in enumerate(plan) if len(step.guided)] == [11, 12, 13]
    assert sum(step.nfe for step in plan).tolist() == [19, 19]


def test_the_only_step_of_a_plan_is_guided():
    for interval, guided in (((0.0, 1.0), 1), ((0.1, 1.0), 1), ((0.5, 0.7), 1), ((0.4, 0.4), 0)):
        (step,) = masked_plan(1, 1, guidance=Guidance(3.0, interval=interval))
        assert len(step.guided) == guided


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"steps": 0}, "0 steps"),
        ({"steps": 25}, "25 steps for 24 tokens"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"choice_temperature": -1.0}, "choice temperature"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"order": "spiral"}, "spiral"),
        ({"num_masked": [24, 24]}, "2 numbers of masked tokens for 1 seeds"),
    ],
)
def test_impossible_plans_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        masked_plan(**({"num_masked": 24} | arguments))


def test_plans_and_canvases_must_fit():
    with pytest.raises(ValueError, match="plan is for 1 pictures, the canvas holds 3"):
        next(sample(Oracle(), TokenGrid.blank(3, GRID), masked_plan(24, 2)))
    with pytest.raises(ValueError, match="4 rows and 6 columns needs 24"):
        TokenGrid(torch.zeros(1, 5, dtype=torch.long), torch.ones(1, 5, dtype=torch.bool), GRID)
