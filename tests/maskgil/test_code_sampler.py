"""The token sampler: guidance costs what it says, sampling follows its distribution, masked tokens' contents cannot
matter."""

from dataclasses import replace

import pytest
import torch
from conftest import TINY, make_condition, make_tiny
from torch import Tensor, nn

from maskgil.condition import Condition
from maskgil.sampling import code_sampler
from maskgil.sampling.code_sampler import CodeSampler, sample_tokens
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.loop import DecodingOrder, StepParams, sample
from maskgil.sampling.plans import masked_plan
from maskgil.sampling.token_grid import TokenGrid

GRID = (3, 4)


class Counted(nn.Module):
    """A model that remembers how many rows each call had."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.config, self.calls = model, model.config, []

    def forward(self, tokens: Tensor, *rest: object) -> Tensor:
        self.calls.append(len(tokens))
        return self.model(tokens, *rest)


def draw(model: nn.Module, condition: Condition, seeds: list[int], **options: object) -> TokenGrid:
    blank = TokenGrid.blank(len(seeds), GRID, TINY.mask_id)
    *_, canvas = sample(CodeSampler(model, condition), blank, masked_plan(12, seeds=seeds, **options))
    return canvas


def test_evaluations_outside_the_interval_are_saved(tiny, condition):
    counted = Counted(tiny)
    sampler = CodeSampler(counted, condition)
    plan = masked_plan(12, 6, guidance=Guidance(3.0, interval=(0.2, 0.7)), seeds=[1, 2])
    *_, last = sample(sampler, TokenGrid.blank(2, GRID, TINY.mask_id), plan)
    assert counted.calls == [2, 4, 4, 4, 2, 2]  # steps end at 5/6, 4/6, ..., 0
    assert sampler.nfe.tolist() == [9, 9]


def test_only_guided_rows_are_doubled(tiny, condition):
    counted = Counted(tiny)
    step = StepParams.cat([masked_plan(12, 2, seeds=[1])[0], masked_plan(12, 3, guidance=Guidance(3.0), seeds=[2])[0]])
    blank = TokenGrid.blank(2, GRID, TINY.mask_id)
    sampler = CodeSampler(counted, condition)
    logits = sampler.logits(blank, step)
    assert counted.calls == [3]
    null = tiny(blank.tokens, GRID, condition, torch.tensor([True, True]))
    conditional = tiny(blank.tokens, GRID, condition)
    torch.testing.assert_close(logits[0], conditional[0], atol=1e-4, rtol=1e-4)
    guided = null[1] + 3 * (conditional[1] - null[1])
    torch.testing.assert_close(logits[1], guided, atol=1e-3, rtol=1e-4)


def test_a_negative_text_takes_the_null_half(tiny, condition):
    negative = make_condition((4, 2), seed=5)
    blank = TokenGrid.blank(2, GRID, TINY.mask_id)
    step = masked_plan(12, 1, guidance=Guidance(2.0), seeds=[1, 2])[0]
    logits = CodeSampler(tiny, condition, negative).logits(blank, step)
    away, towards = tiny(blank.tokens, GRID, negative), tiny(blank.tokens, GRID, condition)
    torch.testing.assert_close(logits, away + 2 * (towards - away), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("guidance", [None, Guidance(3.0)])
def test_same_seed_same_tokens_whatever_shares_the_batch(tiny, guidance):
    condition = make_condition((3, 5, 4))
    together = draw(tiny, condition, [5, 6, 7], steps=4, guidance=guidance)
    for row in range(3):
        alone = draw(tiny, condition.rows(slice(row, row + 1)), [5 + row], steps=4, guidance=guidance)
        assert torch.equal(alone.tokens[0], together.tokens[row])
        assert torch.equal(alone.unmasked_at[0], together.unmasked_at[row])
    same = draw(tiny, condition.rows(torch.tensor([0, 0])), [5, 9], steps=4, guidance=guidance)
    assert torch.equal(same.tokens[0], together.tokens[0]) and not torch.equal(same.tokens[1], same.tokens[0])


@pytest.mark.parametrize("order", list(DecodingOrder)[:4])
def test_what_lies_under_a_masked_token_cannot_matter_and_given_tokens_stay(tiny, condition, order):
    tokens = torch.randint(32, (2, 12))
    masked = torch.rand(2, 12) < 0.6
    masked[:, :4] = True
    results = []
    for junk in (TINY.mask_id, 3):
        canvas = TokenGrid(torch.where(masked, junk, tokens), masked, GRID)
        plan = masked_plan(canvas.num_masked(), 3, order=order, seeds=[1, 2], guidance=Guidance(2.0))
        *_, filled = sample(CodeSampler(tiny, condition), canvas, plan)
        assert torch.equal(filled.tokens[~masked], tokens[~masked])
        results.append(filled.tokens)
    assert torch.equal(*results)


def test_the_mask_is_never_sampled():
    model = make_tiny(replace(TINY, codebook_size=2))
    canvas = draw(model, make_condition((2, 3)), [1, 2], steps=3)
    assert int(canvas.tokens.max()) < 2 and int(canvas.tokens.min()) >= 0


def step_of(rows: int, **options: object) -> StepParams:
    return masked_plan(rows, 1, seeds=range(rows), **options)[0]


def frequencies(logits: Tensor, **options: object) -> Tensor:
    many = logits.expand(40, 500, -1)
    tokens, _ = sample_tokens(many, step_of(40, **options))
    return torch.bincount(tokens.flatten(), minlength=logits.shape[-1]) / tokens.numel()


def test_samples_follow_their_distribution_and_temperature_divides():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    for temperature in (0.5, 1.0, 2.0):
        expected = (logits / temperature).softmax(-1)
        torch.testing.assert_close(frequencies(logits, temperature=temperature), expected, atol=0.02, rtol=0)
    assert frequencies(logits, temperature=0.0).tolist() == [0, 0, 1, 0]


def test_truncation_keeps_the_likeliest():
    logits = torch.tensor([0.1, 0.4, 0.3, 0.2]).log()
    torch.testing.assert_close(frequencies(logits, top_k=2), torch.tensor([0, 4 / 7, 3 / 7, 0]), atol=0.02, rtol=0)
    torch.testing.assert_close(frequencies(logits, top_p=0.75), torch.tensor([0, 4, 3, 2]) / 9, atol=0.02, rtol=0)
    assert frequencies(logits, top_p=0.1).tolist() == [0, 1, 0, 0]
    mixed = StepParams.cat([step_of(1, top_k=1), step_of(1)])
    tokens, _ = sample_tokens(logits.expand(2, 500, -1), mixed)
    assert tokens[0].unique().tolist() == [1] and len(tokens[1].unique()) == 4


def test_many_logits_are_sampled_from_in_parts(monkeypatch):
    step = StepParams.cat([step_of(2, top_k=3), step_of(3, temperature=0.5)])
    logits = torch.randn(5, 6, 7)
    whole = sample_tokens(logits, step)
    for largest in (1, 2 * 6 * 7):
        monkeypatch.setattr(code_sampler, "LARGEST", largest)
        assert all(torch.equal(a, b) for a, b in zip(sample_tokens(logits, step), whole, strict=True))


def test_top_p_of_everything_leaves_everything():
    """Rounded up, the sum of a peaked row is 1 before its tail."""
    logits = torch.zeros(1, 1, 4096)
    logits[..., 0] = 14.0
    kept = code_sampler._truncate(logits, torch.ones(1, 1, 1), None, torch.ones(1))
    assert kept.isfinite().all()


def test_confidence_is_the_log_probability_of_the_sample():
    logits = torch.randn(2, 5, 7)
    for temperature, divisor in ((1.0, 1.0), (2.0, 2.0), (0.0, 1.0)):
        tokens, confidence = sample_tokens(logits, step_of(2, temperature=temperature))
        expected = (logits / divisor).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        torch.testing.assert_close(confidence, expected)
