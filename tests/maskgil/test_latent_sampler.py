"""eMIGM in the one loop: laws of its sampler, and the released sampler's numbers and pictures."""

import math
from dataclasses import replace

import pytest
import torch
from test_emigm import TEXT, TINY, classes, make, plain_trunk
from torch import Tensor

from maskgil.condition import Condition
from maskgil.models.diffusion_samplers import DDPM, DPMSolver, denoiser
from maskgil.models.emigm import EMIGM
from maskgil.params import SAMPLERS, SamplingParams
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.latent_sampler import LatentSampler, random_counts_plan, reference_plan, transfer
from maskgil.sampling.latent_space import LatentSpace
from maskgil.sampling.loop import StepParams, sample
from maskgil.sampling.plans import masked_plan
from maskgil.sampling.schedules import cosine, exp, linear, log_exp
from maskgil.sampling.token_grid import TokenGrid

SOLVER = DPMSolver(2)


def blank(rows: int) -> TokenGrid:
    return TokenGrid.blank(rows, (2, 3), channels=3)


def draw(predict: LatentSampler, plan: list[StepParams], canvas: TokenGrid | None = None) -> Tensor:
    *_, last = sample(predict, blank(len(plan[0])) if canvas is None else canvas, plan)
    assert not last.mask.any()
    return last.tokens


# --- laws -------------------------------------------------------------------------------------------------------------


def test_a_seed_draws_the_same_whatever_shares_its_batch():
    model = make()

    def plan(*seeds: int) -> list[StepParams]:
        return masked_plan(6, 3, exp, "random", guidance=Guidance(3.0, interval=(0.2, 0.8)), seeds=seeds)

    together = draw(LatentSampler(model, classes(1, 4), SOLVER), plan(7, 8))
    for row, (label, seed) in enumerate([(1, 7), (4, 8)]):
        alone = draw(LatentSampler(model, classes(label), SOLVER), plan(seed))
        assert torch.allclose(together[row], alone[0], atol=1e-4)
    assert not torch.allclose(together[0], together[1])


def test_rows_at_different_steps_share_a_call():
    """One row guided and early, one unguided and late, joined for a step: each as if it were alone."""
    model = make()
    early = masked_plan(6, 3, exp, "random", guidance=Guidance(3.0), seeds=[7])
    late = masked_plan(6, 3, exp, "random", seeds=[8])
    first = LatentSampler(model, classes(1), SOLVER)
    second = LatentSampler(model, classes(4), SOLVER)
    *_, ahead = sample(second, blank(1), late[:2])
    alone = [next(sample(first, blank(1), early)), next(sample(second, ahead, late[2:]))]
    both = LatentSampler(model, classes(1, 4), SOLVER)
    joined = next(sample(both, TokenGrid.cat([blank(1), ahead]), [StepParams.cat([early[0], late[2]])]))
    for row in range(2):
        assert torch.equal(joined.mask[row], alone[row].mask[0])
        known = ~joined.mask[row]
        assert torch.allclose(joined.tokens[row][known], alone[row].tokens[0][known], atol=1e-4)
    assert both.nfe.tolist() == [2, 1]


def test_given_tokens_stay():
    given = torch.randn(1, 6, 3)
    masked = torch.tensor([[True, False, True, True, False, False]])
    tokens = draw(
        LatentSampler(make(), classes(1), SOLVER),
        masked_plan(3, 2, exp, "halton", seeds=[0]),
        TokenGrid(given.masked_fill(masked[..., None], float("nan")), masked, (2, 3)),
    )
    assert torch.equal(tokens[~masked], given[~masked]) and tokens.isfinite().all()


def test_a_scale_of_1_is_off_and_0_is_the_null_condition():
    model = make(TEXT)
    texts = Condition(torch.randn(1, 3, 7), torch.ones(1, 3, dtype=torch.bool))
    nothing = Condition(torch.zeros(1, 1, 7), torch.zeros(1, 1, dtype=torch.bool))

    def picture(condition: Condition, scale: float, negative: Condition | None = None) -> Tensor:
        plan = masked_plan(6, 2, exp, "random", guidance=Guidance(scale), seeds=[3])
        return draw(LatentSampler(model, condition, SOLVER, negative), plan)

    assert torch.allclose(picture(texts, 0.0), picture(nothing, 1.0), atol=1e-4)
    assert torch.allclose(picture(nothing, 0.0, negative=texts), picture(texts, 1.0), atol=1e-4)
    assert not torch.allclose(picture(texts, 1.0), picture(texts, 4.0))


def test_temperature_scales_what_ddpm_adds_and_what_the_solver_begins_with():
    model = make()

    def picture(sampler: DDPM | DPMSolver, temperature: float) -> Tensor:
        plan = masked_plan(6, 1, exp, "random", temperature=temperature, seeds=[3])
        return draw(LatentSampler(model, classes(1), sampler), plan)

    assert not torch.allclose(picture(SOLVER, 0.5), picture(SOLVER, 1.0))
    assert torch.equal(picture(SOLVER, 0.5), picture(SOLVER, 0.5))
    assert not torch.allclose(picture(DDPM(3), 0.0), picture(DDPM(3), 1.0))
    assert torch.equal(picture(DDPM(3), 0.5), picture(DDPM(3), 0.5))


def test_evaluations_outside_the_interval_are_not_made():
    model, rows = make(), []

    class Counted(EMIGM):
        def trunk(self, tokens: Tensor, *rest: Tensor) -> Tensor:
            rows.append(len(tokens))
            return super().trunk(tokens, *rest)

    model.__class__ = Counted
    plan = masked_plan(6, 6, linear, "random", guidance=Guidance(3.0, interval=(0.3, 0.7)), seeds=[1, 2])
    predict = LatentSampler(model, classes(0, 1), SOLVER)
    draw(predict, plan)
    assert rows == [2, 4, 4, 4, 2, 2]
    assert predict.nfe.tolist() == [sum(rows) // 2] * 2


def test_plans_and_canvases_of_the_other_family_are_refused():
    predict = LatentSampler(make(), classes(1), SOLVER)
    with pytest.raises(ValueError, match="no confidence to go by: choose order random"):
        next(sample(predict, blank(1), masked_plan(6, 2, exp)))
    with pytest.raises(ValueError, match="the canvas holds codes"):
        next(sample(predict, TokenGrid.blank(1, (2, 3), mask_id=9), masked_plan(6, 2, exp, "random")))
    with pytest.raises(ValueError, match="guidance interval"):
        Guidance(4.0, interval=(0.3, 0.1))
    with pytest.raises(ValueError, match="guidance interval"):
        Guidance(4.0, interval=(0.1, 1.5))


# --- the released sampler ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps, interval, first, last, nfe",
    [
        (16, (0.1, 0.3), 11, 13, 19),
        (16, (0.2, 0.4), 9, 11, 19),
        (16, (0.15, 0.35), 10, 12, 19),
        (64, (0.25, 0.5), 32, 47, 80),
        (128, (0.18, 0.6), 51, 103, 181),
        (128, (0.05, 0.4), 76, 120, 173),
        (128, (0.3, 0.7), 38, 88, 179),
    ],
)
def test_guided_steps_and_evaluations_are_the_published_ones(
    steps: int, interval: tuple[float, float], first: int, last: int, nfe: int
):
    guidance = Guidance(4.0, interval=interval)
    plans = [
        masked_plan(256, steps, exp, "random", guidance=guidance),
        reference_plan(1, 256, 1, steps, exp, guidance, seed=0)[0],
    ]
    for plan in plans:
        guided = [i for i, step in enumerate(plan) if len(step.guided)]
        assert guided == list(range(first, last + 1))
        assert [step.scale.item() for step in plan] == [4.0 if i in guided else 1.0 for i in range(len(plan))]
    assert sum(step.nfe.item() for step in plans[0]) == nfe


@pytest.mark.parametrize(
    "curve, starts, ends",
    [
        (exp, [0.64, 0.87, 1.19], [50.6, 69.2]),
        (cosine, [1.2], [25.1]),
        (linear, [16.0], [16.0]),
        (log_exp, [3.3], [119.0]),
    ],
)
def test_expected_tokens_of_a_step_are_the_published_ones(curve, starts: list[float], ends: list[float]):
    left, expected = 256.0, []
    for share in transfer(curve, 16):
        expected.append(left * share)
        left -= expected[-1]
    assert expected[: len(starts)] == pytest.approx(starts, rel=0.03)
    assert expected[-len(ends) :] == pytest.approx(ends, rel=0.01)


def test_every_row_decides_equally_many_at_other_places():
    plan, drawn = reference_plan(3, 256, 2, 16, exp, Guidance(1.0), seed=5)
    decided = torch.zeros(3, 256)
    for step, noise in zip(plan, drawn, strict=True):
        assert (step.num_unmask == step.num_unmask[0]).all() and step.num_unmask[0] >= 1
        assert noise.shape == (step.num_unmask.sum(), 2)
        decided += step.priority
    assert torch.equal(decided, torch.ones(3, 256))
    assert any(not torch.equal(step.priority[0], step.priority[1]) for step in plan)


def test_many_steps_end_when_nothing_is_left():
    plan, _ = reference_plan(2, 16, 1, 16, linear, Guidance(1.0), seed=0)
    assert sum(step.num_unmask[0].item() for step in plan) == 16 and len(plan) <= 16
    longer, _ = reference_plan(1, 256, 1, 256, exp, Guidance(1.0), seed=0)
    assert 235 <= len(longer) <= 255  # the published range is 244 to 250


def plain_sampler(model: EMIGM, labels: list[int], steps: int, guidance: Guidance, seed: int) -> Tensor:
    """The released sampler in its own order: trunk, then random numbers, then head, step by step on one generator."""
    generator = torch.Generator().manual_seed(seed)
    rows, (low, high), count = len(labels), guidance.interval, TINY.tokens
    tokens, masked = torch.zeros(rows, count, 3), torch.ones(rows, count, dtype=torch.bool)
    slots = model.class_emb.weight[labels][:, None].expand(-1, TINY.buffer, -1)
    times = torch.linspace(1, 1e-5, steps + 1)
    for i in range(steps):
        t, s = times[i], times[i + 1]
        guided = guidance.scale != 1 and low < s <= high
        z = plain_trunk(model, tokens, masked, slots)
        null = plain_trunk(model, tokens, masked, model.mask_token.expand_as(slots))
        p = 1 - (1 - torch.exp(-5 * s)) / (1 - torch.exp(-5 * t)) if i < steps - 1 else 1.0
        numbers = torch.rand(count, generator=generator)
        for _ in range(rows - 1):
            torch.randperm(count, generator=generator)
        chosen = [masked[0] & (numbers < p)]
        for row in range(1, rows):
            own = torch.empty(count)
            for state in (False, True):
                at, of_first = (masked[row] == state).nonzero()[:, 0], (masked[0] == state).nonzero()[:, 0]
                for target, source in zip(torch.randperm(len(at), generator=generator), of_first, strict=True):
                    own[at[target]] = numbers[source]
            chosen.append(masked[row] & (own < p))
        chosen = torch.stack(chosen)
        if not chosen.any():
            for row in range(rows):
                at = masked[row].nonzero()[:, 0]
                if len(at) > 1:
                    at = at[torch.randint(0, len(at), (1,), generator=generator)]
                chosen[row, at] = True
        if not chosen.any():
            break
        start = torch.randn(int(chosen.sum()), 3, generator=generator)
        net = model.diffloss.net
        conditional, other = denoiser(net, z[chosen]), denoiser(net, null[chosen])

        def denoise(x: Tensor, time: float, ours=conditional, theirs=other, scale=guidance.scale, on=guided) -> Tensor:
            return theirs(x, time) + scale * (ours(x, time) - theirs(x, time)) if on else ours(x, time)

        tokens[chosen] = DPMSolver(4)(denoise, lambda k, start=start: start)
        masked = masked & ~chosen
    return tokens


@pytest.mark.parametrize("labels", [[2], [0, 3, 4]])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_parity_plan_draws_the_released_picture(labels: list[int], scale: float):
    model, guidance = make(replace(TINY, depth=2)), Guidance(scale, interval=(0.2, 0.7))
    for seed in (0, 1):
        plan, drawn = reference_plan(len(labels), TINY.tokens, 3, 5, exp, guidance, seed)
        ours = draw(LatentSampler(model, classes(*labels), DPMSolver(4), drawn=drawn), plan)
        plain = plain_sampler(model, labels, 5, guidance, seed)
        assert torch.allclose(ours, plain, rtol=1e-3, atol=1e-3 * plain.abs().max())


# --- the published sampler as options ---------------------------------------------------------------------------------


def planned(params: SamplingParams, seeds: list[int], grid: tuple[int, int] = (16, 16)) -> list[StepParams]:
    """The plan that the pipeline makes of these options, on a blank grid."""
    space = LatentSpace(3, grid)
    canvas = space.blank(len(seeds), grid, "cpu")
    order, curve = space.order_and_schedule(params)
    plan = masked_plan(
        canvas.num_masked(), params.steps, curve, order, params.temperature, guidance=Guidance.of(params), seeds=seeds,
        refinement_passes=params.refinement_passes,
    )  # fmt: skip
    return space.finish_plan(plan, canvas, seeds, params)


def test_the_preset_is_the_published_evaluation():
    """2503.07197, table 8, 256 px in 16 steps: 19 evaluations, guided at steps 11 to 13; the head takes 8 steps."""
    for seed in range(8):
        plan = planned(SAMPLERS["emigm"], [seed])
        assert [i for i, step in enumerate(plan) if len(step.guided)] == [11, 12, 13]
        assert sum(step.nfe_per_row for step in plan) == 19 and {step.head for step in plan} == {DPMSolver(8)}
        assert sum(int(step.num_unmask) for step in plan) == 256 and min(int(step.num_unmask) for step in plan) >= 1


def test_random_counts_are_those_of_the_schedules_probability_and_of_the_rows_own_seed():
    params = replace(SAMPLERS["emigm"], steps=4, schedule="linear")
    together = planned(params, [3, 4])
    for row, seed in enumerate((3, 4)):
        for step, alone in zip(together, planned(params, [seed]), strict=True):
            assert torch.equal(step.priority[row], alone.priority[0])
    counts = torch.stack([step.num_unmask for step in planned(params, list(range(200)))]).float()
    assert torch.allclose(counts.mean(1), torch.full((4,), 64.0), atol=3.0)
    assert len({int(n) for n in counts[0]}) > 10, "each row has counts of its own"


@pytest.mark.parametrize(
    "shape, growth", [("linear", lambda f: f), ("cosine", lambda f: (1 - math.cos(math.pi * f)) / 2)]
)
def test_guidance_with_random_counts_grows_with_the_share_of_the_masked_tokens_that_are_decided(shape, growth):
    masked = torch.arange(256)[None] % torch.tensor([[1], [3]]) == 0  # all of row 0, a third of row 1
    guidance = Guidance(5.0, shape)
    plan = masked_plan(masked.sum(1).tolist(), 4, linear, "random", guidance=guidance, seeds=[3, 4])
    plan = random_counts_plan(plan, [3, 4], masked, linear, guidance)
    decided = torch.stack([step.num_unmask for step in plan]).cumsum(0) / masked.sum(1)
    assert torch.equal(decided[-1], torch.ones(2))
    for step, shares in zip(plan, decided.tolist(), strict=True):
        assert step.scale.tolist() == pytest.approx([1 + 4 * growth(share) for share in shares], abs=1e-5)


def test_the_head_is_chosen_by_options():
    assert planned(SamplingParams(), [0])[0].head is None
    assert planned(SamplingParams(head_steps=3), [0])[0].head == DPMSolver(3)
    assert planned(SamplingParams(head_sampler="ddpm"), [0])[0].head == DDPM(100)
    with pytest.raises(ValueError, match="head_sampler is ddpm: it takes 2 or more"):
        SamplingParams(head_sampler="ddpm", head_steps=1)
    with pytest.raises(ValueError, match="set refinement_passes to 0"):
        planned(SamplingParams(counts="random", refinement_passes=1), [0])
    model = make()
    plans = [
        planned(replace(SAMPLERS["emigm"], steps=3, **more), [5], (2, 3))
        for more in ({}, {"head_steps": 5}, {"head_sampler": "ddpm", "head_steps": 4})
    ]
    drawn = [draw(LatentSampler(model, classes(1), SOLVER), plan) for plan in plans]
    assert not torch.allclose(drawn[0], drawn[1]) and not torch.allclose(drawn[1], drawn[2])


@pytest.mark.parametrize(
    ("shape", "power", "half"),
    [
        ("linear", 1, 0.5),
        ("power", 2, 0.25),
        ("power", 3, 0.125),
        ("exp", 1, 0.917915),
        ("quarter_cosine", 1, 0.707107),
    ],
)
def test_guidance_grows_as_in_the_published_code(shape, power, half):
    """Its linear, power, cubic, exp and cosine, when half of the tokens are decided."""
    scales = Guidance(3.0, shape, power=power).scales([0.5, 1.0])
    assert scales[0] == pytest.approx(1 + 2 * half, abs=1e-5) and scales[1] == pytest.approx(3.0, abs=0.02)
