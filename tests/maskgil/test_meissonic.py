"""Meissonic and Monetico against a plain second writing: the same logits, and codes under the same noise."""

import math

import meissonic_second_writing as second_writing
import pytest
import torch
from released_folders import FULL_MEISSONIC, TINY_MEISSONIC, meissonic_folder
from safetensors.torch import load_file

import text_encoder
from maskgil.models.meissonic import MEISSONIC_PRESETS, Meissonic, MeissonicConfig
from maskgil.pipeline import TextToImage
from maskgil.sampling import counter_rng
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.loop import StepParams, sample
from maskgil.sampling.plans import masked_plan
from maskgil.sampling.schedules import maskgit

PROMPTS = ["a cat on the beach", "two red apples"]


@pytest.fixture(scope="module", params=[True, False], ids=["meissonic", "monetico"])
def folder(request, tmp_path_factory):
    return meissonic_folder(tmp_path_factory.mktemp("meissonic") / "model", request.param)


@pytest.fixture(scope="module")
def model(folder) -> TextToImage:
    return TextToImage.load(folder, text_encoder.load)


@pytest.fixture(scope="module")
def reference(folder, model):
    """The second writing as a function of (codes (B, h, w), text states, steps left)."""
    weights = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    shape, side = TINY_MEISSONIC | {"downsample": model.generator.config.downsample}, model.sizes[0][0]
    return lambda codes, states, remaining: second_writing.logits(weights, shape, codes, states, side, remaining)


@pytest.mark.parametrize("remaining", [0, 47])
def test_logits_are_those_of_the_second_writing(model, reference, remaining):
    grid = model.grid(model.sizes[0])
    tokens = torch.randint(0, 40, (2, grid[0] * grid[1]))
    condition = model.condition(PROMPTS)
    expected = reference(tokens.unflatten(1, grid), condition.states, remaining).flatten(1, 2)
    got = model.generator(tokens, grid, condition, remaining=torch.tensor([remaining] * 2))
    assert expected.std() > 0.1
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps, scale", [(9, 9.0), (2, 1.0)])
def test_codes_are_those_of_the_released_loop(model, reference, steps, scale):
    """The released scheduler in five lines: sample every code, hide again the least sure, fewer each time."""
    seeds, mask = [5], model.generator.config.mask_id
    condition, null = model.condition(PROMPTS[:1]).states, model.condition(["", ""]).states[:1]
    rows, columns = model.grid(model.sizes[0])
    codes, noise = torch.full((1, rows * columns), mask), torch.tensor(seeds)
    for i in range(steps):
        step, hidden = torch.tensor([i]), codes == mask
        grid = codes.view(1, rows, columns)
        logits = reference(grid, null, steps - 1 - i) if scale != 1 else 0
        logits = logits + scale * (reference(grid, condition, steps - 1 - i) - logits)
        logits = logits.flatten(1, 2)
        draws = counter_rng.uniform(noise, counter_rng.RngStream.TOKEN, step, *logits.shape[1:])
        guess = torch.where(hidden, (logits + counter_rng.gumbel(draws)).argmax(-1), codes)
        sure = logits.log_softmax(-1).gather(-1, guess.clamp(max=31)[..., None])[..., 0]
        draw = counter_rng.uniform(noise, counter_rng.RngStream.ORDER, step, logits.shape[1], 1)[..., 0]
        sure = sure + 2.0 * (1 - i / max(1, steps - 1)) * counter_rng.gumbel(draw)
        ratio = torch.tensor((i + 1) / steps, dtype=torch.float32)
        again = int((rows * columns * torch.cos(ratio * math.pi / 2)).floor()) if i < steps - 1 else 0
        worst = sure.masked_fill(~hidden, torch.inf).argsort(1)[:, :again]
        codes = guess.scatter(1, worst, mask)
    plan = masked_plan(rows * columns, steps, maskgit, choice_temperature=2.0, guidance=Guidance(scale), seeds=seeds)
    *_, drawn = sample(model.sampler(model.condition(PROMPTS[:1])), model.blank(1), plan)
    assert torch.equal(drawn.tokens, codes)


def test_rows_at_different_steps_share_a_batch(model):
    """Each row reads the steps that it has left, whoever else is in its batch."""
    grid = model.blank(1)
    plans = [masked_plan(grid.mask.shape[1], steps, maskgit, seeds=[3], guidance=Guidance(3.0)) for steps in (4, 9)]
    together = StepParams.cat([plans[0][1], plans[1][2]])
    assert together.remaining.tolist() == [2, 6]
    condition = model.condition(PROMPTS)
    both = model.sampler(condition).logits(model.blank(2), together)
    for row, step in enumerate((plans[0][1], plans[1][2])):
        alone = model.sampler(condition.rows(slice(row, row + 1))).logits(grid, step)
        torch.testing.assert_close(both[row : row + 1], alone, atol=1e-3, rtol=0)
    assert not torch.allclose(both[0], both[1], atol=0.1)


def test_released_sizes():
    with torch.device("meta"):
        sizes = {name: sum(p.numel() for p in Meissonic(c).parameters()) for name, c in MEISSONIC_PRESETS.items()}
    assert sizes == {"meissonic": 1_006_946_304, "monetico": 998_555_648}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"guidance_embeds": True}, "guidance_embeds = True"),
        ({"downsample": True, "upsample": False}, "downsamples without upsampling"),
        ({"axes_dims_rope": [16, 16, 16]}, "must add up to the 128"),
        ({"joint_attention_dim": 768}, "they must agree"),
    ],
)
def test_other_variants_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        MeissonicConfig.from_released(change)


@pytest.mark.slow
@pytest.mark.parametrize("downsample", [True, False], ids=["meissonic", "monetico"])
def test_parity_at_released_sizes(tmp_path, downsample):
    """A billion parameters with random weights, through the product's path: logits, and the codes of a step."""
    folder = meissonic_folder(tmp_path / "model", downsample, full=True)
    model = TextToImage.load(folder, text_encoder.load)
    weights = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    condition, grid, side = model.condition(PROMPTS[:1]), model.grid(model.sizes[0]), model.sizes[0][0]
    shape, blank = FULL_MEISSONIC | {"downsample": downsample}, model.blank(1)
    masked = torch.full((1, *grid), model.generator.config.mask_id)
    with torch.no_grad():
        expected = second_writing.logits(weights, shape, masked, condition.states, side, 1).flatten(1, 2)
        got = model.generator(masked.flatten(1), grid, condition, remaining=torch.tensor([1]))
    assert expected.std() > 0.1
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
    seeds, first = torch.tensor([7]), torch.tensor([0])
    draws = counter_rng.uniform(seeds, counter_rng.RngStream.TOKEN, first, *expected.shape[1:])
    codes = (expected + counter_rng.gumbel(draws)).argmax(-1)
    plan = masked_plan(codes.shape[1], 2, maskgit, choice_temperature=2.0, guidance=Guidance(1.0), seeds=[7])
    drawn = next(iter(sample(model.sampler(condition), blank, plan[:1])))
    known = ~drawn.mask
    assert 0 < known.sum() < known.numel() and torch.equal(drawn.tokens[known], codes[known])
