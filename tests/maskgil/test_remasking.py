"""Repainting: the same text changes nothing, kept tokens stay to the bit, company does not matter, costs count."""

from dataclasses import replace

import pytest
import torch
from conftest import TINY, make_condition, make_tiny
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmarks.generation import RandomText, random_model
from maskgil.condition import Condition
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.sampling.code_sampler import CodeSampler
from maskgil.sampling.loop import sample
from maskgil.sampling.plans import masked_plan
from maskgil.sampling.remasking import MARGIN, RemaskResult, complementary, remask_changed, remask_plan
from maskgil.sampling.token_grid import TokenGrid
from maskgil.tokenizers.vq import VQConfig, VQModel

GRID = (4, 6)
SEEDS = [1, 2, 3]
OLD, NEW = make_condition((3, 5, 2)), make_condition((4, 6, 5), seed=1)


class Counted(nn.Module):
    """A model that counts the rows that it was called with, and keeps what it was shown."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.config, self.token_space, self.rows, self.shown = model, model.config, model.token_space, 0, []

    def forward(self, tokens: Tensor, *rest: object) -> Tensor:
        self.rows += len(tokens)
        self.shown.append(tokens)
        return self.model(tokens, *rest)


@pytest.fixture(scope="module")
def draws() -> TextToImage:
    tokenizer = VQModel(VQConfig(codebook_size=32, channels=(32,), res_blocks=1, z_channels=8, patch=4))
    encoder = RandomText(5, d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=2, vocab_size=20)
    return random_model(TINY, tokenizer, encoder, (24, 16), torch.device("cpu"), torch.float32)


def drawn(model: nn.Module, condition: Condition = OLD, steps: int = 6, seeds: list[int] = SEEDS) -> TokenGrid:
    """Pictures of which so many of 6 steps were made."""
    blank = TokenGrid.blank(len(seeds), GRID, TINY.mask_id)
    made = list(sample(CodeSampler(model, condition), blank, masked_plan(24, 6, seeds=seeds)))
    return made[steps - 1]


def remasked(model: nn.Module, draws: TextToImage, changed: RemaskResult, text: Condition = NEW) -> TokenGrid:
    predict = CodeSampler(model, text)
    return [
        changed.canvas,
        *sample(predict, changed.canvas, remask_plan(draws, changed, SEEDS, SamplingParams(steps=6))),
    ][-1]


@pytest.mark.parametrize("steps", [2, 6])
def test_the_same_text_keeps_everything(tiny, draws, steps):
    canvas = drawn(tiny, steps=steps)
    changed = remask_changed(tiny, canvas, OLD, OLD.pad(8), SEEDS, masks=4)
    assert changed.kept.tolist() == [1, 1, 1] and changed.change.abs().max() < 1e-3
    for part in ("tokens", "mask", "unmasked_at", "confidence"):
        assert torch.equal(getattr(changed.canvas, part), getattr(canvas, part)), part
    assert (remask_plan(draws, changed, SEEDS, SamplingParams(steps=6)) == []) is (steps == 6), (
        "a finished picture is the answer"
    )


def test_what_fell_becomes_a_masked_token_and_what_is_kept_stays_to_the_bit(tiny, draws):
    canvas = drawn(tiny)
    changed = remask_changed(tiny, canvas, OLD, NEW, SEEDS, masks=4)
    assert torch.equal(changed.canvas.mask, changed.change < -MARGIN)
    assert (changed.kept > 0).all() and (changed.kept < 1).all(), "this text changes something, and not everything"
    torch.testing.assert_close(changed.kept, (~changed.canvas.mask).float().mean(1))
    last, keep = remasked(tiny, draws, changed), ~changed.canvas.mask
    assert not last.mask.any() and not torch.equal(last.tokens, canvas.tokens)
    for part in ("tokens", "unmasked_at", "confidence"):
        assert torch.equal(getattr(last, part)[keep], getattr(canvas, part)[keep]), part
    assert changed.first == 6 and (last.unmasked_at[~keep] >= 6).all(), "steps go on counting: no noise is drawn twice"


def test_a_token_is_scored_without_itself_and_once(tiny):
    """By hand: the difference of log-probabilities at the hidden places, one mask at a time."""
    canvas, counted = drawn(tiny, steps=4), Counted(tiny)
    changed = remask_changed(counted, canvas, OLD, NEW, SEEDS, masks=4)
    assert counted.rows == 2 * 4 * 3 and changed.nfe == 8
    times, expected = torch.zeros(3, 24), torch.zeros(3, 24)
    for shown in counted.shown:
        tokens = shown[:3]
        assert torch.equal(tokens, shown[3:]), "both texts see the same"
        hidden = (tokens == TINY.mask_id) & ~canvas.mask
        old, new = (tiny(tokens, GRID, text).log_softmax(-1) for text in (OLD, NEW))
        codes = canvas.tokens.masked_fill(canvas.mask, 0)[..., None]
        expected += (new - old).gather(-1, codes)[..., 0] * hidden
        times += hidden
    assert torch.equal(times, (~canvas.mask).float())
    torch.testing.assert_close(changed.change, expected, atol=1e-3, rtol=1e-3)


def test_company_does_not_matter(tiny):
    canvas = drawn(tiny, steps=5)
    together = remask_changed(tiny, canvas, OLD, NEW, SEEDS, masks=4)
    for row, seed in enumerate(SEEDS):
        one = slice(row, row + 1)
        alone = remask_changed(tiny, canvas.rows(one), OLD.rows(one), NEW.rows(one), [seed], masks=4)
        assert torch.equal(alone.canvas.mask[0], together.canvas.mask[row])
        torch.testing.assert_close(alone.change[0], together.change[row], atol=1e-3, rtol=1e-3)


def test_what_lies_under_a_masked_token_cannot_matter(tiny):
    canvas = drawn(tiny, steps=3)
    other = replace(canvas, tokens=torch.where(canvas.mask, 7, canvas.tokens))
    first, second = (remask_changed(tiny, c, OLD, NEW, SEEDS, masks=4) for c in (canvas, other))
    assert torch.equal(first.change, second.change) and torch.equal(first.canvas.mask, second.canvas.mask)
    assert (first.canvas.mask >= canvas.mask).all(), "a masked token stays one"


def test_pictures_with_and_without_masked_tokens_go_together(tiny, draws):
    """One of three texts stays the same: its picture is kept whole while the others change."""
    canvas = drawn(tiny)
    mixed = Condition.cat([OLD.rows(slice(0, 1)), NEW.rows(slice(1, 3))])
    changed = remask_changed(tiny, canvas, OLD, mixed, SEEDS, masks=4)
    assert changed.canvas.num_masked()[0] == 0 and min(changed.canvas.num_masked()[1:]) > 0
    last = remasked(tiny, draws, changed, mixed)
    assert not last.mask.any() and torch.equal(last.tokens[0], canvas.tokens[0])


def test_nothing_decided_costs_nothing_and_leaves_the_whole_plan(tiny, draws):
    counted = Counted(tiny)
    changed = remask_changed(counted, TokenGrid.blank(3, GRID, TINY.mask_id), OLD, NEW, SEEDS, masks=4)
    assert counted.rows == changed.nfe == changed.first == 0 and changed.kept.tolist() == [1, 1, 1]
    guided = SamplingParams(steps=6, guidance_scale=3.0, guidance_interval=(0.0, 1.0))
    for ours, usual in zip(
        remask_plan(draws, changed, SEEDS, guided), draws.plan(changed.canvas, SEEDS, guided), strict=True
    ):
        assert torch.equal(ours.num_unmask, usual.num_unmask) and torch.equal(ours.index, usual.index)


def test_few_tokens_need_few_masks(tiny):
    masked = torch.ones(3, 24, dtype=torch.bool)
    masked[:, 5] = False
    assert remask_changed(tiny, TokenGrid(torch.zeros(3, 24).long(), masked, GRID), OLD, NEW, SEEDS).nfe == 2


@given(st.integers(1, 6), st.integers(0, 2**31), st.lists(st.booleans(), min_size=24, max_size=24))
def test_masks_are_complementary_and_of_one_size(masks: int, seed: int, decided: list[bool]):
    here = torch.tensor([decided])
    group = complementary(here, torch.tensor([seed]), masks)[0]
    assert ((group >= 0) == here[0]).all() and int(group.max()) < masks
    counts = torch.bincount(group[group >= 0], minlength=masks)
    assert int(counts.max() - counts.min()) <= 1


def test_masks_follow_the_seed():
    everything = torch.ones(3, 24, dtype=torch.bool)
    first, same, other = complementary(everything, torch.tensor([5, 5, 6]), 4)
    assert torch.equal(first, same) and not torch.equal(first, other)


@pytest.mark.parametrize("masked", [1, 7, 12, 23, 24])
def test_what_is_left_is_drawn_by_the_end_of_the_whole_plan(draws, masked):
    """As many tokens a step, as daring and as guided; the first of its steps has what is left for it."""
    masked = torch.arange(24)[None] < torch.tensor([[masked], [min(masked, 2)], [0]])
    canvas = TokenGrid(torch.zeros(3, 24).long(), masked, GRID)
    changed = RemaskResult(canvas, torch.zeros(3, 24), torch.ones(3), nfe=0, first=9)
    settings = SamplingParams(
        steps=6, guidance_scale=3.0, guidance_shape="linear", guidance_interval=(0.3, 0.8), refinement_passes=0
    )
    whole = draws.plan(TokenGrid.blank(1, GRID, TINY.mask_id), [1], settings)
    left = remask_plan(draws, changed, SEEDS, settings)
    assert [int(step.index[0]) for step in left] == list(range(9, 9 + len(left)))
    for row, n in enumerate(canvas.num_masked()):
        counts = [int(step.num_unmask[row]) for step in left]
        assert sum(counts) == n
        taken = [count for count in counts if count][1:]
        assert taken == [int(step.num_unmask[0]) for step in whole][len(whole) - len(taken) :]
    for step, usual in zip(left, whole[len(whole) - len(left) :], strict=True):
        assert (
            step.choice_temperature.tolist() == usual.choice_temperature.tolist() * 3
            and step.scale.tolist() == usual.scale.tolist() * 3
        )
    assert int(left[0].num_unmask[0]) > 0, "no step for nothing"


def test_only_what_fell_is_revised(draws):
    masked = torch.arange(24)[None] < torch.tensor([[24], [8], [0]])
    changed = RemaskResult(TokenGrid(torch.zeros(3, 24).long(), masked, GRID), torch.zeros(3, 24), torch.ones(3), 0, 4)
    *_, last = remask_plan(draws, changed, SEEDS, SamplingParams(steps=6, refinement_passes=1))
    assert (
        last.num_remask.tolist() == [6, 2, 0] and last.remask_since.tolist() == [4, 4, 4] and int(last.index[0]) == 10
    )


def test_bad_input_is_one_line(tiny):
    canvas = drawn(tiny)
    with pytest.raises(ValueError, match="2 seeds for 3 pictures"):
        remask_changed(tiny, canvas, OLD, NEW, [1, 2], masks=4)
    with pytest.raises(ValueError, match="0 masks"):
        remask_changed(tiny, canvas, OLD, NEW, SEEDS, masks=0)


def test_a_larger_margin_keeps_more():
    tiny = make_tiny()
    canvas = drawn(tiny)
    shares = [remask_changed(tiny, canvas, OLD, NEW, SEEDS, margin=m, masks=4).kept for m in (0.0, 0.5, 5.0, 1e9)]
    assert all((a <= b).all() for a, b in zip(shares, shares[1:], strict=False)) and shares[-1].tolist() == [1, 1, 1]
