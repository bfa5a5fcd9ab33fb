"""aMUSEd against diffusers, which released it: the same logits, codes under the same noise, and pixels."""

from unittest import mock

import diffusers.schedulers.scheduling_amused as reference_scheduler
import pytest
import torch
from diffusers import AmusedScheduler, UVit2DModel, VQModel
from released_folders import amused_folder
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

import text_encoder
from maskgil.condition import Condition
from maskgil.models.amused import AMUSED_PRESETS, Amused, AmusedConfig
from maskgil.pipeline import TextToImage
from maskgil.sampling import counter_rng
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.loop import sample
from maskgil.sampling.plans import masked_plan
from maskgil.sampling.schedules import maskgit
from maskgil.sampling.token_grid import TokenGrid

PROMPTS = ["a cat on the beach", "two red apples"]


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "downsampled"])
def folder(request, tmp_path_factory):
    return amused_folder(tmp_path_factory.mktemp("amused") / "model", downsample=request.param)


@pytest.fixture(scope="module")
def model(folder) -> TextToImage:
    return TextToImage.load(folder, text_encoder.load)


def reference_states(folder, prompts):
    """What the released pipeline hands to its transformer: (text states, pooled vectors)."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder").eval()
    ids = tokenizer(prompts, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        out = encoder(ids, output_hidden_states=True)
    return out.hidden_states[-2], out.text_embeds


def micro(model, batch):
    (width, height), *_ = model.sizes
    return torch.tensor([[width, height, 0, 0, 6.0]] * batch)


def reference_codes(folder, model, prompts, steps, scale, seeds):
    """The released pipeline's loop, with the noise of our random number generator in the place of torch's."""
    transformer = UVit2DModel.from_pretrained(folder / "transformer").eval()
    scheduler = AmusedScheduler.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(steps, (2, 0))
    states, pooled = reference_states(folder, [""] * len(prompts) + prompts)
    rows, columns = model.grid(model.sizes[0])
    codes = torch.full((len(prompts), rows, columns), scheduler.config.mask_token_id)
    seeds, index = torch.tensor(seeds), torch.zeros(len(seeds), dtype=torch.long)

    def multinomial(probabilities, *_, **__):
        logits = probabilities.log().view(len(seeds), -1, probabilities.shape[-1])
        draw = counter_rng.uniform(seeds, counter_rng.RngStream.TOKEN, index, *logits.shape[1:])
        return (logits + counter_rng.gumbel(draw)).argmax(-1).view(-1, 1)

    def gumbel(values, **_):
        draw = counter_rng.uniform(seeds, counter_rng.RngStream.ORDER, index, values.shape[1], 1)[..., 0]
        return counter_rng.gumbel(draw)

    with (
        mock.patch.object(torch, "multinomial", multinomial),
        mock.patch.object(reference_scheduler, "gumbel_noise", gumbel),
        torch.no_grad(),
    ):
        for timestep in scheduler.timesteps:
            logits = transformer(torch.cat([codes] * 2), states, pooled, micro(model, 2 * len(prompts)))
            null, conditional = logits.chunk(2)
            guided = null + scale * (conditional - null)
            codes = scheduler.step(guided, timestep, codes).prev_sample
            index += 1
    return codes


def test_logits_are_those_of_diffusers(folder, model):
    transformer = UVit2DModel.from_pretrained(folder / "transformer").eval()
    states, pooled = reference_states(folder, PROMPTS)
    rows, columns = model.grid(model.sizes[0])
    tokens = torch.randint(0, model.generator.config.vocab_size, (2, rows * columns))
    with torch.no_grad():
        expected = transformer(tokens.view(2, rows, columns), states, pooled, micro(model, 2))
        got = model.generator(tokens, (rows, columns), model.condition(PROMPTS))
    assert expected.std() > 0.05
    torch.testing.assert_close(got, expected.flatten(2).transpose(1, 2), atol=1e-4, rtol=0)


def test_dropped_rows_read_an_empty_text(model):
    grid = model.grid(model.sizes[0])
    tokens = torch.zeros(2, grid[0] * grid[1], dtype=torch.long)
    condition, empty = model.condition(PROMPTS), model.condition(["", PROMPTS[1]])
    dropped = model.generator(tokens, grid, condition, torch.tensor([True, False]))
    torch.testing.assert_close(dropped, model.generator(tokens, grid, empty), atol=1e-4, rtol=0)
    assert not torch.allclose(dropped, model.generator(tokens, grid, condition), atol=1e-2)


@pytest.mark.parametrize("steps, scale", [(12, 10.0), (5, 3.0), (1, 1.0)])
def test_codes_are_those_of_diffusers_under_the_same_noise(folder, model, steps, scale):
    seeds = [3, 2**40]
    expected = reference_codes(folder, model, PROMPTS, steps, scale, seeds)
    grid = model.blank(2)
    plan = masked_plan(
        grid.mask.shape[1], steps, maskgit, choice_temperature=2.0, guidance=Guidance(scale), seeds=seeds
    )
    *_, drawn = sample(model.sampler(model.condition(PROMPTS)), grid, plan)
    assert torch.equal(drawn.tokens, expected.flatten(1))
    assert len(drawn.tokens.unique()) > 8


def test_pixels_and_codes_of_images_are_those_of_diffusers(folder, model):
    vq = VQModel.from_pretrained(folder / "vqvae").eval()
    rows, columns = model.grid(model.sizes[0])
    codes = torch.randint(0, 32, (2, rows * columns))
    with torch.no_grad():
        shape = (2, rows, columns, vq.config.latent_channels)
        decoded = vq.decode(codes.view(2, rows, columns), force_not_quantize=True, shape=shape).sample.clip(0, 1)
        drawn = TokenGrid(codes, torch.zeros_like(codes, dtype=torch.bool), (rows, columns))
        ours = model.pixels(drawn)
        torch.testing.assert_close((ours + 1) / 2, decoded, atol=1e-6, rtol=0)
        expected = vq.quantize(vq.encode(decoded).latents)[2][2].view(2, -1)
    assert torch.equal(model.tokenizer.encode(2 * decoded - 1), expected)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 12, 24, 48, 64])
@pytest.mark.parametrize("tokens", [64, 256, 577, 1024, 4096])
def test_steps_decide_as_many_tokens_as_in_diffusers(steps, tokens):
    """The scheduler's own rounding, which is float32's: 12 steps of 256 tokens leave 127 after the eighth."""
    scheduler = AmusedScheduler(mask_token_id=9)
    scheduler.set_timesteps(steps, (2, 0))
    codes, counts = torch.full((1, tokens), 9), []
    for timestep in scheduler.timesteps:
        before = int((codes == 9).sum())
        codes = scheduler.step(torch.zeros(1, tokens, 4), timestep, codes).prev_sample
        counts.append(before - int((codes == 9).sum()))
    assert maskgit.counts(steps, tokens) == counts


def test_released_sizes():
    with torch.device("meta"):
        sizes = {name: sum(p.numel() for p in Amused(config).parameters()) for name, config in AMUSED_PRESETS.items()}
    assert sizes == {"amused-256": 603_537_664, "amused-512": 608_257_792}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"use_bias": True}, "use_bias = True"),
        ({"downsample": True, "upsample": False}, "without upsampling"),
        ({"cond_embed_dim": 8}, "they must agree"),
        ({"num_attention_heads": 7}, "does not divide into 7"),
    ],
)
def test_other_variants_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        AmusedConfig.from_released(change)


def test_a_condition_of_another_shape_is_refused(model):
    tokens = torch.zeros(1, 64, dtype=torch.long)
    short = Condition(torch.zeros(1, 5, 16), torch.ones(1, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="this model reads 78 of width 16"):
        model.generator(tokens, (8, 8), short)
    with pytest.raises(ValueError, match="64 tokens do not fill"):
        model.generator(tokens, (8, 7), short)


def test_an_odd_grid_cannot_be_halved(folder, model):
    if not model.generator.config.downsample:
        return
    with pytest.raises(ValueError, match="even numbers"):
        model.generator(torch.zeros(1, 63, dtype=torch.long), (9, 7), model.condition(["a"]))


@pytest.mark.slow
@pytest.mark.parametrize("downsample", [False, True], ids=["amused-256", "amused-512"])
def test_parity_at_released_sizes(tmp_path, downsample):
    """603 M parameters with random weights: logits, codes and pixels."""
    folder = amused_folder(tmp_path / "model", downsample, full=True)
    model = TextToImage.load(folder, text_encoder.load)
    test_logits_are_those_of_diffusers(folder, model)
    expected = reference_codes(folder, model, PROMPTS[:1], 4, 10.0, [7])
    plan = masked_plan(
        model.blank(1).mask.shape[1], 4, maskgit, choice_temperature=2.0, guidance=Guidance(10.0), seeds=[7]
    )
    *_, drawn = sample(model.sampler(model.condition(PROMPTS[:1])), model.blank(1), plan)
    assert torch.equal(drawn.tokens, expected.flatten(1))
    vq = VQModel.from_pretrained(folder / "vqvae").eval()
    with torch.no_grad():
        shape = (*expected.shape, vq.config.latent_channels)
        pixels = vq.decode(expected, force_not_quantize=True, shape=shape).sample.clip(0, 1)
    torch.testing.assert_close((model.pixels(drawn) + 1) / 2, pixels, atol=1e-6, rtol=0)
