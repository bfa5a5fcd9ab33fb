"""Continuous tokens of scenes, from pictures to a folder that draws: tokenizer, cache, training, publishing, use."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from app_fixtures import scene_words, tiny_latents, tiny_model
from commands import maskgil
from PIL import Image
from safetensors.torch import load_file, save_file

import text_encoder as encoders
from app.core.request import GenerationRequest
from app.serving.local_engine import LocalEngine
from maskgil import checkpoint
from maskgil.condition import Condition
from maskgil.inpainting import inpainting_input
from maskgil.models.config import ModelConfig
from maskgil.models.diffusion_samplers import DPMSolver
from maskgil.models.emigm import EMIGM
from maskgil.models.maskgil import MaskGIL
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.sampling import remasking
from maskgil.sampling.schedules import cosine, exp
from maskgil.sampling.token_grid import TokenGrid
from maskgil.tokenizers.autoencoder import (
    AutoencoderConfig,
    AutoencoderTokenizer,
    validate_given_tokens,
    validate_scale,
)
from maskgil.tokenizers.vq import VQConfig, VQModel
from train import export
from train.data.latent_cache import LatentCache, SceneLatents, write_latents
from train.data.scene_cache import corpus, scene_number
from train.data.scene_datasets import ScenePixels
from train.image_rows import write_image_rows
from train.losses.generation_methods import METHODS, method
from train.recipes.kl_tokenizer import KLLoss, LatentsWithCellHead, folded, kl_recipe, measured_scale, unit_latents
from train.recipes.method_generators import TrunkSizes, generator_for
from train.recipes.scenes_emigm import MethodOptions, init_from_maskgil, method_recipe
from train.scenes.labels import parts
from train.scenes.scene import BACKGROUNDS, STYLES
from train.scenes.sprites import Sprites
from train.trainer import train

KL = AutoencoderConfig(channels=4, widths=(8, 8, 8), layers=1, groups=4, patch=4, scale=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_latents(tmp_path_factory.mktemp("model") / "vectors")


@pytest.fixture(scope="module")
def draws(folder: Path) -> TextToImage:
    model = TextToImage.load(folder, encoders.load)
    model.head = DPMSolver(2)
    return model


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    """A folder of a tokenizer whose scale was measured, as an export's is."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoencoderTokenizer(KL).eval()
    out = tmp_path_factory.mktemp("kl")
    scale = measured_scale(model, ScenePixels(None, batch=8, crowd=0.0), batches=2)
    checkpoint.save(out, model, "latent", replace(KL, scale=scale).to_dict())
    return out


@pytest.fixture(scope="module")
def cached(tmp_path_factory, tokenizer: Path) -> Path:
    out = tmp_path_factory.mktemp("latents")
    write_latents(checkpoint.load(tokenizer, "latent"), Sprites(), out, total=64, shard=32)
    return out


def alike(one: Image.Image, other: Image.Image) -> bool:
    """The same but for rounding, which depends on the size of a batch."""
    return np.abs(np.asarray(one, float) - np.asarray(other, float)).max() <= 2


# --- a model folder ---------------------------------------------------------------------------------------------------


def test_a_folder_of_vectors_draws_as_one_of_codes_does(draws):
    steps = list(draws.draw(["a cat", "two dogs"], [1, 2], settings=SamplingParams(steps=3)))
    assert [p.step for p in steps] == [1, 2, 3, 4] and not steps[-1].canvas.mask.any()
    alone = draws.images(["two dogs"], [2], settings=SamplingParams(steps=3))[0]
    together = draws.images_of(steps[-1].canvas)[1]
    assert alone.size == (64, 64) and alike(alone, together)
    grey = draws.pixels(steps[0].canvas)[0, :, steps[0].canvas.mask[0].view(4, 4).repeat_interleave(16, 0)
                                        .repeat_interleave(16, 1)]  # fmt: skip
    assert grey.numel() and (grey == 0).all()


def test_vectors_go_by_chance_and_exp_unless_another_curve_is_asked_for(draws):
    assert draws.generator.token_space.order_and_schedule(SamplingParams()) == ("random", exp)
    asked = draws.generator.token_space.order_and_schedule(SamplingParams(order="halton", schedule="cosine"))
    assert asked == ("halton", replace(cosine, num_unmasked="remain"))


def test_a_linear_curve_decides_as_many_vectors_at_each_step(draws):
    """gamma(t) = t is what remains (2503.07197, section 3.3)."""
    assert draws.generator.token_space.order_and_schedule(SamplingParams(schedule="linear"))[1].counts(8, 64) == [8] * 8
    plan = draws.plan(
        TokenGrid.blank(1, (4, 4), channels=4), [1], SamplingParams(steps=4, schedule="linear", remask_fraction=0.5)
    )
    assert [int(step.num_unmask) for step in plan] == [4] * 4 + [8], "and a refinement pass"


def test_evaluations_outside_the_interval_are_saved(draws):
    def cost(low: float, high: float) -> int:
        settings = SamplingParams(steps=10, guidance_scale=3.0, guidance_interval=(low, high), refinement_passes=0)
        *_, last = draws.draw(["a cat"], [1], settings=settings)
        return last.nfe

    assert cost(0.0, 1.0) == 20 and cost(0.1, 0.3) == 12 and cost(0.5, 0.5) == 10


def test_a_part_is_painted_over(draws):
    image = draws.images(["a cat"], [1], settings=SamplingParams(steps=2))[0]
    begun = inpainting_input(draws, image, [5, 6])
    *_, last = draws.draw(["a dog"], [4], settings=SamplingParams(steps=2), canvas=begun.token_grid(1))
    kept = torch.ones(16, dtype=torch.bool)
    kept[[5, 6]] = False
    assert torch.equal(last.canvas.tokens[0, kept], begun.tokens[kept])
    assert begun.token_grid(3).tokens.shape == (3, 16, 4)


def test_latents_of_the_wrong_scale_are_refused_in_one_line(draws):
    tokens, masked = torch.randn(1, 16, 4), torch.zeros(1, 16, dtype=torch.bool)
    masked[0, 3] = True
    ordinary = TokenGrid(tokens, masked, (4, 4))
    assert len(list(draws.draw(["a cat"], [1], settings=SamplingParams(steps=1), canvas=ordinary))) == 1
    for wrong in (tokens / 0.25, tokens * float("nan")):
        with pytest.raises(ValueError, match="multiply latents by the tokenizer's scale"):
            draws.draw(["a cat"], [1], canvas=TokenGrid(wrong, masked, (4, 4)))
    with pytest.raises(ValueError, match="holds codes, this model draws vectors"):
        draws.draw(["a cat"], [1], canvas=TokenGrid(tokens[..., 0].long(), masked, (4, 4)))
    validate_given_tokens(tokens[:, :0].flatten(0, 1), 0.25)  # nothing given is nothing wrong


def test_what_does_not_fit_is_refused(draws, folder, tmp_path):
    with pytest.raises(ValueError, match="has learned 64x64 alone"):
        TextToImage(draws.generator, draws.text_encoder, draws.tokenizer, [(64, 64), (96, 64)])
    other = AutoencoderTokenizer(replace(draws.tokenizer.config, channels=8))
    with pytest.raises(ValueError, match="draws 4 channels of a latent, this tokenizer has 8"):
        TextToImage(draws.generator, draws.text_encoder, other, [(64, 64)])
    mixed = shutil.copytree(folder, tmp_path / "mixed")
    codes = tiny_model(tmp_path / "codes")
    shutil.rmtree(mixed / "tokenizer")
    shutil.copytree(codes / "tokenizer", mixed / "tokenizer")
    with pytest.raises(ValueError, match="is not what .* was trained with"):
        TextToImage.load(mixed, encoders.load)


def test_another_scale_is_another_tokenizer(folder, tmp_path):
    """The scale is not a weight, and yet decides what the tokens are."""
    changed = shutil.copytree(folder, tmp_path / "changed")
    entries = json.loads((changed / "tokenizer" / "config.json").read_text())
    entries["config"]["scale"] = 0.5
    (changed / "tokenizer" / "config.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match="is not what .* was trained with"):
        TextToImage.load(changed, encoders.load)


def guided(steps: int) -> SamplingParams:
    """Settings with which a negative prompt has an effect."""
    return SamplingParams(steps=steps, guidance_scale=2.0)


def test_the_engine_draws_it_for_several_at_once(draws):
    engine = LocalEngine(find=lambda name: draws)
    try:
        jobs = [
            engine.submit(GenerationRequest("a cat", seed=s, negative_prompt=n, params=guided(s)))
            for s, n in ((2, ""), (3, ""), (3, "dog"))
        ]
        assert all(job.wait(60) for job in jobs)
        assert [job.error for job in jobs] == ["", "", ""]
        alone = draws.images(["a cat"], [2], settings=guided(2))[0]
        assert alike(jobs[0].pictures()[0], alone)
        assert not torch.allclose(jobs[1].frames[-1].grid.tokens, jobs[2].frames[-1].grid.tokens)
        grown = engine.submit(
            GenerationRequest("a cat at night", seed=2, params=SamplingParams(steps=2)), after=jobs[0]
        )
        assert grown.wait(60) and not grown.error and "grown out of" in grown.request.edit, grown.frames
        old, new = (draws.condition([text]) for text in ("a cat", "a cat at night"))
        before = jobs[0].frames[-1].grid
        kept = ~remasking.remask_changed(draws.generator, before, old, new, [2]).canvas.mask
        assert torch.equal(grown.frames[-1].grid.tokens[kept], before.tokens[kept])
    finally:
        engine.close()


# --- the tokenizer and its cache --------------------------------------------------------------------------------------


def test_the_tokenizer_learns_pixels_and_names():
    torch.manual_seed(0)
    named = LatentsWithCellHead(AutoencoderTokenizer(replace(KL, widths=(16, 16, 32), groups=8)), things=3)
    covers = torch.randint(0, 4, (4, 2, 2))
    colours = torch.tensor([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)
    pixels = colours[covers].permute(0, 3, 1, 2).repeat_interleave(16, 2).repeat_interleave(16, 3)
    batch, objective = {"pixels": pixels, "covers": covers}, KLLoss()
    optimizer = torch.optim.AdamW(named.parameters(), 3e-3)
    first = None
    for step in range(90):
        loss, shown = objective([named], batch, torch.Generator().manual_seed(step), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first = first or shown
    assert shown["l1"] < 0.6 * first["l1"] and shown["cell_accuracy"] > 0.9 and shown["kl"] >= 0


def codes_model() -> VQModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VQModel(VQConfig(codebook_size=32, codebook_dim=4, channels=(32,), res_blocks=1, z_channels=8, patch=16))


def test_means_come_to_resemble_a_teachers_latents():
    torch.manual_seed(0)
    named, teacher = LatentsWithCellHead(AutoencoderTokenizer(KL), things=3), codes_model().eval().requires_grad_(False)
    pixels = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    target = unit_latents(teacher, pixels.float().div(127.5).sub(1))
    assert target.shape == (4, 4, 2, 2) and torch.allclose(target.square().mean(1), torch.ones(4, 2, 2), atol=1e-4)
    batch = {"pixels": pixels, "covers": torch.zeros(4, 2, 2, dtype=torch.long)}
    objective, far = KLLoss(teacher=teacher, anchor=5.0), []
    optimizer = torch.optim.AdamW(named.parameters(), 3e-3)
    for step in range(60):
        loss, shown = objective([named], batch, torch.Generator().manual_seed(step), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        far.append(shown["loss/distill"])
    assert far[-1] < 0.3 * far[0]


def test_a_measured_scale_gives_tokens_of_deviation_one(tokenizer):
    model = checkpoint.load(tokenizer, "latent")
    pixels = torch.cat([ScenePixels(None, batch=8, crowd=0.0, seed=s)(0)["pixels"][..., :96, :96] for s in range(3)])
    pixels = pixels.float().div(127.5).sub(1)
    noise = torch.randn(len(pixels), 36, 4)
    assert 0.6 < model.encode(pixels, noise).std() < 1.6
    validate_scale(model.encode(pixels, noise), 0.2)


@torch.no_grad()
def test_going_on_begins_at_a_deviation_of_one_and_paints_the_same(tokenizer, tmp_path):
    old, new = checkpoint.load(tokenizer, "latent"), folded(checkpoint.load(tokenizer, "latent"))
    pixels, scale = torch.randn(2, 3, 96, 96), old.config.scale
    assert scale != 1 and new.config.scale == 1
    for ours, theirs in zip(new.posterior(pixels), old.posterior(pixels), strict=True):
        assert torch.allclose(ours, scale * theirs, atol=1e-5)
    grid, noise = (6, 6), torch.randn(2, 36, 4)
    assert torch.allclose(new.encode(pixels, noise), old.encode(pixels, noise), atol=1e-5)
    assert torch.allclose(new.decode(new.encode(pixels), grid), old.decode(old.encode(pixels), grid), atol=1e-4)
    begun = kl_recipe(None, 2, 2, 1e-3, write_image_rows, loss=KLLoss(divergence=0.5), init=str(tokenizer)).modules[0]
    assert begun.module.model.config.scale == 1 and begun.loss.divergence == 0.5
    kept = kl_recipe(None, 2, 2, 1e-3, write_image_rows, init=str(tokenizer), frozen=True).modules[0].module.model
    assert kept.config.scale == scale, "what a cache was made with stays"


def test_the_cache_goes_on_and_holds_what_the_tokenizer_says(cached, tokenizer):
    model, table = checkpoint.load(tokenizer, "latent"), LatentCache.open(cached).table
    assert table["mean"].shape == (64, 64, 4) and table["numbers"].tolist() == list(range(64))
    first = cached / "128x128-0000.safetensors"
    before, other = first.stat().st_mtime_ns, cached / "128x128-0001.safetensors"
    again = load_file(other)
    other.unlink()
    write_latents(model, Sprites(), cached, total=64, shard=32)
    assert first.stat().st_mtime_ns == before
    assert all(torch.equal(tensor, again[name]) for name, tensor in load_file(other).items())
    with pytest.raises(ValueError, match="another tokenizer"):
        write_latents(AutoencoderTokenizer(KL).eval(), Sprites(), cached, total=64)


def test_a_cache_may_hold_the_codes_that_a_teacher_reads(tokenizer, folder, tmp_path):
    vq = codes_model().eval()
    write_latents(checkpoint.load(tokenizer, "latent"), Sprites(), tmp_path, total=8, shard=8, codes=vq)
    table = LatentCache.open(tmp_path).table
    assert table["codes"].shape == (8, 64) and len(table["codes"].unique()) > 1
    words = (folder / "text_encoder" / "spiece.model").read_bytes()
    batch = SceneLatents(str(tmp_path), words, batch=4, words=200)(0)
    mean, std = table["mean"].float(), table["std"].float()
    at = [torch.distributions.Normal(mean, std).log_prob(row).sum((1, 2)).argmax() for row in batch["tokens"]]
    assert torch.equal(batch["codes"], table["codes"][torch.stack(at)].long())

    with pytest.raises(ValueError, match="made with other codes, or with none"):
        write_latents(checkpoint.load(tokenizer, "latent"), Sprites(), tmp_path, total=16, shard=8)

    def taught_by_scenes(encoder: str | Path) -> None:
        method_recipe(
            "tiny", METHODS["emigm"], str(tmp_path), str(encoder),
            MethodOptions(1, 1, 1e-3, None, 16, 2, 2, (1, 16), teacher="weights/scenes"),
        )  # fmt: skip

    with pytest.raises(ValueError, match="does not hold: make it with codes="):
        taught_by_scenes("weights/scenes/text_encoder")
    with pytest.raises(ValueError, match="teacher=weights/scenes reads text encoder"):
        taught_by_scenes(folder / "text_encoder")


def test_a_cache_of_the_wrong_scale_is_refused(cached, tmp_path):
    wrong = shutil.copytree(cached, tmp_path / "wrong")
    note = json.loads((wrong / "cache.json").read_text())
    note["latent"]["scale"] = 0.2
    (wrong / "cache.json").write_text(json.dumps(note))
    for path in wrong.glob("*.safetensors"):
        parts = load_file(path)
        save_file(parts | {"mean": parts["mean"] / 0.2, "std": parts["std"] / 0.2}, path)
    with pytest.raises(ValueError, match="seem not scaled"):
        LatentCache.open(wrong)
    with pytest.raises(ValueError, match="is no cache of scenes"):
        LatentCache.open(tmp_path)
    for path in wrong.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(ValueError, match="holds no cached scenes: run maskgil data latents"):
        LatentCache.open(wrong)
    with pytest.raises(ValueError, match="Missing from maskgil data latents: --out"):
        maskgil("data", "latents", "--tokenizer=x")


def test_batches_are_functions_of_their_number(cached, folder):
    vocabulary = (folder / "text_encoder" / "spiece.model").read_bytes()
    data = SceneLatents(str(cached), vocabulary, batch=6, words=200)
    one, two, other = data(3), data(3), data(4)
    assert torch.equal(one["tokens"], two["tokens"]) and torch.equal(one["ids"], two["ids"])
    assert not torch.equal(one["tokens"], other["tokens"]) and one["tokens"].shape == (6, 64, 4)
    assert one["grid"] == (8, 8) and one["ids"].shape == one["mask"].shape
    scenes = [scene_number(n, 128, 128)[0] for n in range(64)]
    known = {tuple(parts(s)[0].flat): (BACKGROUNDS.index(s.background), STYLES.index(s.style)) for s in scenes}
    for row, grounds, styles in zip(one["things"], one["grounds"], one["styles"], strict=True):
        assert set(zip(grounds.tolist(), styles.tolist(), strict=True)) == {known[tuple(row.tolist())]}
    assert one["things"].shape == one["parts"].shape == (6, 64) and ((one["things"] > 0) == (one["parts"] > 0)).all()
    with pytest.raises(ValueError, match="pieces; there are 3 slots"):
        replace(data, words=3)(0)


# --- the recipes ------------------------------------------------------------------------------------------------------


def test_the_tokenizer_recipe_exports_a_scaled_tokenizer(tmp_path):
    recipe = replace(kl_recipe(None, 2, 2, 1e-3, write_image_rows, KL), workers=0, sample_every=2)
    train(recipe, tmp_path)
    model = checkpoint.load(tmp_path / "export", "latent")
    assert model.config.scale != 1 and (tmp_path / "samples" / "0000002.png").is_file()


@pytest.mark.parametrize("blocks", ["vit", "llama"])
def test_a_masked_autoencoder_of_codes_is_made_of_the_blocks_that_are_asked_for(blocks, tmp_path):
    scene_words(tmp_path / "words")
    (tmp_path / "cache.json").write_text(json.dumps({"tokenizer": "any", "corpus": corpus()}))
    sizes = 1, 1, 1e-3, None, 16, 2, 2, (1, 16)
    asked = method("maskgil", trunk="mae")
    recipe = method_recipe("tiny", asked, str(tmp_path), str(tmp_path / "words"), MethodOptions(*sizes, blocks=blocks))
    assert recipe.modules[0].module.generator.trunk.config.blocks == blocks


@pytest.mark.parametrize("trunk", ["mae", "single"])
def test_a_text_driven_emigm_trains_and_is_published(trunk, cached, tokenizer, tmp_path, monkeypatch):
    words = tmp_path / "words"
    scene_words(words)
    recipe = method_recipe(
        "tiny", method("emigm", trunk=trunk), str(cached), str(words),
        MethodOptions(3, 4, 1e-3, 0.02, width=16, depth=2, heads=2, head=(1, 16), repeats=1, valid=str(cached)),
    )  # fmt: skip
    average = train(replace(recipe, workers=0, precision="bf16", valid_batches=2), tmp_path / "run")
    assert isinstance(average.generator, EMIGM) and average.generator.config.mae == (trunk == "mae")
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 3 and rows[-1]["valid"] > 0
    monkeypatch.setattr(export, "vocabulary", lambda: {"sizes": [[128, 128], [96, 96]], "words": ["a"]})
    out = tmp_path / "published"
    maskgil("export", *[
        "emigm", f"--tokenizer={tokenizer}", f"--generator={tmp_path / 'run' / 'export'}", f"--text-encoder={words}",
        f"--out={out}",
    ])  # fmt: skip
    model = TextToImage.load(out, encoders.load)
    assert model.sizes == [(128, 128)]
    assert model.images(["a cat"], [1], settings=SamplingParams(steps=2))[0].size == (128, 128)
    again = model.images(["a cat"], [1], settings=SamplingParams(steps=2))[0]
    maskgil("export", *[
        "emigm", f"--tokenizer={tokenizer}", f"--generator={tmp_path / 'run' / 'export'}", f"--text-encoder={words}",
        "--borrow=published", f"--out={tmp_path / 'shared'}",
    ])  # fmt: skip
    assert not list((tmp_path / "shared" / "text_encoder").glob("*.safetensors"))
    assert alike(
        TextToImage.load(tmp_path / "shared", encoders.load).images(["a cat"], [1], settings=SamplingParams(steps=2))[
            0
        ],
        again,
    )
    with pytest.raises(ValueError, match="another text encoder"):
        maskgil("export", *[
            "emigm", f"--tokenizer={tokenizer}", f"--generator={tmp_path / 'run' / 'export'}",
            f"--text-encoder={tiny_latents(tmp_path / 'other') / 'text_encoder'}", f"--out={tmp_path / 'no'}",
        ])  # fmt: skip


def test_a_trunk_begins_as_a_maskgil():
    """With as many blocks, and nothing known but the text, it says what that model's logits are made of."""
    torch.manual_seed(0)
    known = MaskGIL(ModelConfig(32, 16, 3, 2, 48, text_dim=8, text_length=5, qk_norm="rms", dropout=0.0)).eval()
    for parameter in known.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    vq, framework = codes_model(), method("emigm", trunk="single")
    sizes, shape = TrunkSizes(16, (1, 2), 2, head=(1, 16), blocks="llama"), ((2, 3), (8, 5))
    ours = generator_for(framework, sizes, *shape, channels=4).eval()
    init_from_maskgil(ours, known, vq)
    condition = Condition(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool))
    blank = torch.full((2, 6), known.config.mask_id)
    z = ours(torch.zeros(2, 6, 4), torch.ones(2, 6, dtype=torch.bool), condition)
    assert torch.allclose(z, known.features(blank, (2, 3), condition), atol=1e-5)
    codes = vq.quantize.codebook().detach() * 2
    table = known.tok_embeddings.weight[:32].detach()
    error = (ours.z_proj(codes) - table).square().mean()
    assert error < 0.7 * table.square().mean(), "vectors are read as their codes were"
    shallow = generator_for(framework, replace(sizes, depth=(1, 1)), *shape, channels=4)
    init_from_maskgil(shallow, known, vq, steps=1)
    assert torch.equal(shallow.decoder_blocks[0].attention.wo.weight, known.layers[2].attention.wo.weight)
    with pytest.raises(ValueError, match="of its own width, heads, text and channels alone"):
        init_from_maskgil(generator_for(framework, replace(sizes, blocks="vit"), *shape, channels=4), known, vq)


def test_a_cache_of_the_other_kind_is_refused(cached, folder):
    with pytest.raises(ValueError, match="holds latents; conditional=categorical learns from codes"):
        method_recipe(
            "tiny",
            METHODS["maskgit"],
            str(cached),
            str(folder / "text_encoder"),
            MethodOptions(1, 1, 1e-3, None, 16, 2, 2, (1, 16)),
        )


@pytest.mark.parametrize("blocks", ["vit", "llama"])
@torch.no_grad()
def test_what_goes_on_with_another_encoder_reads_as_before_and_meets_other_pictures(blocks, cached, tmp_path):
    known, other = tmp_path / "known", tmp_path / "other"
    encoder = scene_words(known)
    encoder.t5.encoder.final_layer_norm.weight.mul_(torch.rand(16) + 0.5)  # the same, told otherwise
    scene_words(other)
    encoder.save(other, torch.float32)
    sizes, asked = (1, 1, 1e-3, None, 16, (1, 1), 2, (1, 16)), method("emigm", trunk="single")
    first = method_recipe("tiny", asked, str(cached), str(known), MethodOptions(*sizes, blocks=blocks))
    for parameter in first.modules[0].module.generator.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    first.export(first.modules[0].module, tmp_path / "run")
    goes = {"init": str(tmp_path / "run"), "blocks": blocks}
    with pytest.raises(ValueError, match="was trained with text encoder"):
        method_recipe("tiny", asked, str(cached), str(other), MethodOptions(*sizes, **goes))
    on = method_recipe("tiny", asked, str(cached), str(other), MethodOptions(*sizes, **goes, known_encoder=str(known)))
    hidden, texts = torch.ones(2, 64, dtype=torch.bool), ["two cats on the beach", "a red car at night"]
    seen = [
        recipe.modules[0].module.generator.eval()(torch.zeros(2, 64, 4), hidden, encoders.load(words).encode(texts))
        for recipe, words in ((first, known), (on, other))
    ]
    assert torch.allclose(*seen, atol=0.05 * float(seen[0].std())), (seen[0] - seen[1]).abs().max()
    assert on.seed != first.seed and on.batch_at.seed != first.batch_at.seed
