"""The loop's laws: an oracle is reproduced whatever the plan, given tokens stay, counts are exact, rows are alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maskgil import noise
from maskgil.decoding import Canvas, Order, Step, fill, listed, parallel, raster
from maskgil.guidance import Guidance
from maskgil.schedules import CURVES

GRID = (4, 6)
ANSWER = torch.arange(24)[None].repeat(3, 1) + torch.tensor([[0], [100], [200]])


class Oracle:
    """Knows the answer, says junk elsewhere, and is as sure as a hash of the step says. It notes where it was asked."""

    def __init__(self, answer: Tensor = ANSWER):
        self.answer, self.asked = answer, []

    def __call__(self, canvas: Canvas, step: Step, where: Tensor) -> tuple[Tensor, Tensor]:
        self.asked.append(where)
        known = where if self.answer.dim() == 2 else where[..., None]
        confidence = noise.uniform(step.seeds, 9, step.index, where.shape[1], 1)[..., 0].log()
        return torch.where(known, self.answer, -7), confidence


def some_holes(share: float, seed: int) -> Canvas:
    hole = torch.rand(ANSWER.shape, generator=torch.Generator().manual_seed(seed)) < share
    hole[:, 0] = True
    return Canvas(torch.where(hole, -1, ANSWER), hole, GRID)


orders = st.sampled_from([Order.CONFIDENCE, Order.RANDOM, Order.HALTON, Order.RASTER])


@settings(max_examples=40, deadline=None)
@given(orders, st.sampled_from(list(CURVES.values())), st.integers(1, 24), st.data())
def test_an_oracle_is_reproduced_whatever_the_plan(order, curve, steps, data):
    canvas = some_holes(data.draw(st.floats(0.1, 1)), data.draw(st.integers(0, 9)))
    holes = canvas.holes()
    steps = min(steps, min(holes))
    plan = parallel(holes, steps, curve, order, seeds=[1, 2, 3])
    seen = [canvas, *fill(Oracle(), canvas, plan)]
    assert torch.equal(seen[-1].tokens, ANSWER) and not seen[-1].hole.any()
    for i, (before, after) in enumerate(zip(seen, seen[1:], strict=False)):
        taken = before.hole & ~after.hole
        assert torch.equal(taken.sum(1), plan[i].reveal), "counts are exact"
        assert torch.equal(before.tokens[~before.hole], after.tokens[~before.hole]), "decided tokens are never touched"
        assert (after.revealed[taken] == i).all() and (after.confidence[taken] < 0).all()
    assert (seen[-1].revealed[~canvas.hole] == -1).all()


@pytest.mark.parametrize("order", [Order.RANDOM, Order.HALTON, Order.RASTER])
def test_early_orders_ask_for_what_they_decide(order):
    oracle, canvas = Oracle(), some_holes(0.7, 1)
    plan = parallel(canvas.holes(), 5, order=order, seeds=[1, 2, 3])
    for after, where in zip(fill(oracle, canvas, plan), oracle.asked, strict=False):
        assert torch.equal(where, canvas.hole & ~after.hole)
        canvas = after


def test_confidence_asks_for_every_hole_and_takes_the_surest():
    oracle, canvas = Oracle(), some_holes(0.7, 1)
    after = next(fill(oracle, canvas, parallel(canvas.holes(), 2, choice=0.0, seeds=[1, 2, 3])))
    assert torch.equal(oracle.asked[0], canvas.hole)
    _, confidence = oracle(canvas, parallel(1, 1, seeds=[1, 2, 3])[0], canvas.hole)
    taken = canvas.hole & ~after.hole
    for row in range(3):
        assert confidence[row][taken[row]].min() >= confidence[row][after.hole[row]].max()


@pytest.mark.parametrize("order", list(Order)[:4])
def test_a_row_does_not_see_its_batch(order):
    plan = parallel(24, 6, order=order, seeds=[5, 6, 7])
    together = list(fill(Oracle(), Canvas.blank(3, GRID), plan))
    for row in range(3):
        one = slice(row, row + 1)
        alone = fill(Oracle(ANSWER[one]), Canvas.blank(1, GRID), parallel(24, 6, order=order, seeds=[5 + row]))
        for some, whole in zip(alone, together, strict=True):
            assert torch.equal(some.hole, whole.hole[one]) and torch.equal(some.revealed, whole.revealed[one])


def test_rows_of_different_plans_share_a_step():
    """The rows of three plans, of other orders, lengths and options, joined and left one by one."""
    plans = [
        parallel(24, 4, order=Order.HALTON, seeds=[1], guidance=Guidance(3.0)),
        parallel(24, 6, seeds=[2], top_k=3),
        raster(24, seeds=[3], guidance=Guidance(2.0), top_p=0.5),
    ]
    answers = [ANSWER[i : i + 1] for i in range(3)]
    alone = [list(fill(Oracle(a), Canvas.blank(1, GRID), p)) for a, p in zip(answers, plans, strict=True)]
    canvases = [Canvas.blank(1, GRID) for _ in plans]
    for i in range(24):
        active = [row for row in range(3) if i < len(plans[row])]
        step = Step.cat([plans[row][i] for row in active])
        paint = Oracle(torch.cat([answers[row] for row in active]))
        joined = next(fill(paint, Canvas.cat([canvases[row] for row in active]), [step]))
        for at, row in enumerate(active):
            canvases[row] = joined.rows(slice(at, at + 1))
            assert torch.equal(canvases[row].hole, alone[row][i].hole)
        assert step.guided.tolist() == [at for at, row in enumerate(active) if row != 1]
        assert step.evaluations.tolist() == [1 if row == 1 else 2 for row in active]
    assert torch.equal(torch.cat([canvas.tokens for canvas in canvases]), ANSWER)


def test_options_of_joined_steps_stay_with_their_rows():
    step = Step.cat([parallel(4, 1, top_k=3)[0], parallel(4, 1, seeds=[1, 2], top_p=0.5)[0]])
    assert step.top_k.tolist() == [3, 0, 0] and step.top_p.tolist() == [1.0, 0.5, 0.5]
    assert Step.cat([parallel(4, 1)[0]] * 2).top_k is None


def test_hybrid_is_two_plans():
    """A raster prefix, then everything else at once."""
    *_, prefix = fill(Oracle(), Canvas.blank(3, GRID), raster(10, seeds=[1, 2, 3]))
    assert not prefix.hole[:, :10].any() and prefix.hole[:, 10:].all()
    *_, whole = fill(Oracle(), prefix, parallel(14, 3, seeds=[1, 2, 3], first=10))
    assert torch.equal(whole.tokens, ANSWER)
    assert whole.revealed[:, :10].tolist() == [list(range(10))] * 3 and int(whole.revealed.max()) == 12


def test_listed_positions_are_followed():
    masks = [torch.rand(3, 24) < 0.3]
    masks.append(~masks[0])
    plan = listed(masks, parallel(24, 2, seeds=[1, 2, 3]))
    first, second = fill(Oracle(), Canvas.blank(3, GRID), plan)
    assert torch.equal(~first.hole, masks[0]) and not second.hole.any()


def test_continuous_tokens_fill_the_same_way():
    answer = torch.randn(3, 24, 5)
    for order in (Order.RANDOM, Order.CONFIDENCE):
        *_, filled = fill(
            Oracle(answer), Canvas.blank(3, GRID, channels=5), parallel(24, 4, order=order, seeds=[1, 2, 3])
        )
        assert torch.equal(filled.tokens, answer)


def test_choice_noise_anneals_to_nothing_and_one_step_is_fine():
    assert [float(step.choice[0]) for step in parallel(24, 4, choice=3.0)] == pytest.approx([3, 2, 1, 0])
    assert len(parallel(24, 1)) == 1


def test_guided_steps_lie_inside_the_interval_alone():
    plan = parallel(256, 16, guidance=Guidance(4.0, interval=(0.1, 0.3)), seeds=[1, 2])
    assert [i for i, step in enumerate(plan) if len(step.guided)] == [11, 12, 13]
    assert sum(step.evaluations for step in plan).tolist() == [19, 19]


def test_the_only_step_of_a_plan_is_guided():
    for interval, guided in (((0.0, 1.0), 1), ((0.1, 1.0), 1), ((0.5, 0.7), 1), ((0.4, 0.4), 0)):
        (step,) = parallel(1, 1, guidance=Guidance(3.0, interval=interval))
        assert len(step.guided) == guided


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"steps": 0}, "0 steps"),
        ({"steps": 25}, "25 steps for 24 tokens"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"choice": -1.0}, "choice temperature"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"order": "spiral"}, "spiral"),
        ({"holes": [24, 24]}, "2 numbers of holes for 1 seeds"),
    ],
)
def test_impossible_plans_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        parallel(**({"holes": 24} | arguments))


def test_plans_and_canvases_must_fit():
    with pytest.raises(ValueError, match="plan is for 1 pictures, the canvas holds 3"):
        next(fill(Oracle(), Canvas.blank(3, GRID), parallel(24, 2)))
    with pytest.raises(ValueError, match="4 rows and 6 columns needs 24"):
        Canvas(torch.zeros(1, 5, dtype=torch.long), torch.ones(1, 5, dtype=torch.bool), GRID)
