"""eMIGM at its released sizes, on tiny models: a cache of latents, training, and a folder that draws by class."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import flags, made, maskgil
from PIL import Image
from safetensors.torch import load_file, save_file
from test_image_cache import VQ
from test_pretrain import rows

import text_encoder
from maskgil import checkpoint
from maskgil.models.emigm import EMIGM, EMIGM_PRESETS, EMIGMConfig
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.tokenizers.autoencoder import AUTOENCODER_PRESETS, AutoencoderConfig, AutoencoderTokenizer
from maskgil.tokenizers.vq import VQModel
from train.activation_checkpointing import blocks, bytes_needed, recomputed
from train.data.cached_batches import CachedBatches, ImageCache
from train.data.image_cache import CacheWriter, fill_cache
from train.data.image_sources import source
from train.losses.diffusion_token import LatentTokenLoss
from train.losses.generation_methods import METHODS
from train.optim import OptimConfig, build_optimizers
from train.recipes import emigm
from train.recipes.emigm import RELEASED, RELEASED_LARGE
from train.recipes.kl_tokenizer import measured_scale

KL = AutoencoderConfig(channels=4, widths=(8, 8, 8), layers=1, groups=4, patch=4, scale=1.0)
DC = AutoencoderConfig(
    "dc", 4, (8, 8, 8, 16, 16, 16), encoder=(0, 1, 1, 1, 1, 1), decoder=(0, 1, 1, 1, 1, 1), scale=1.0
)
TINY = EMIGMConfig(width=32, heads=2, depth=1, head_depth=1, head_width=32, buffer=4, dropout=0.0)
PICTURES = 20


def pixels(config: AutoencoderConfig, folder: Path) -> dict:
    """The pictures of the folder as a batch, whatever its number."""
    side = 64 if config.family == "kl" else 128
    images = [Image.open(path).resize((side, side)) for path in sorted(folder.rglob("*.png"))]
    return {"pixels": torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)}


def a_tokenizer(config: AutoencoderConfig, folder: Path) -> AutoencoderTokenizer:
    """Untrained, but scaled as an export is."""
    torch.manual_seed(0)
    model = AutoencoderTokenizer(config).eval().requires_grad_(False)
    model.config = replace(config, scale=measured_scale(model, lambda _: pixels(config, folder), batches=1))
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two classes, their tokenizer and their cache."""
    folder, rng = tmp_path_factory.mktemp("latents"), np.random.default_rng(0)
    for number in range(PICTURES):
        place = folder / "in" / ("cat", "dog")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(256, size=(4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((80, 64), Image.Resampling.NEAREST).save(place / f"{number:02d}.png")
    with torch.random.fork_rng():
        tokenizer = a_tokenizer(KL, folder / "in")
    checkpoint.save(folder / "tokenizer", tokenizer, "latent", tokenizer.config.to_dict(), dtype=torch.float32)
    fill_cache(a_maker(folder, folder / "cache"))
    return folder


def a_maker(folder: Path, out: Path, **options) -> CacheWriter:
    tokenizer = checkpoint.load(folder / "tokenizer", "latent").requires_grad_(False)
    return CacheWriter(source(str(folder / "in")), tokenizer, None, out, [(64, 64)], batch=3, **options)


@pytest.fixture(autouse=True)
def tiny_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in ("xs", "b"):
        monkeypatch.setitem(EMIGM_PRESETS, f"emigm-{size}-64", TINY)


def options(folder: Path, **changes: object) -> dict[str, object]:
    given = {"data": folder / "cache", "batch": 8, "micro": 4, "workers": 0, "warmup": 2, "ema": 0.9, "lr": 0.01}
    return given | changes


def run(folder: Path, recipe: str = "emigm-b", **changes: object) -> Path:
    maskgil("train", recipe, *flags(**options(folder, **changes)))
    return Path(str(changes["out"]))


# --- the cache --------------------------------------------------------------------------------------------------------


def test_the_cache_holds_what_the_tokenizer_says(folder):
    cache, made_by = ImageCache.open(folder / "cache"), a_maker(folder, folder).tokenizer
    batch = cache.read((64, 64), np.arange(PICTURES))
    assert batch["tokens"].shape == batch["std"].shape == (PICTURES, 16, 4) and batch["grid"] == (4, 4)
    assert sorted(batch["labels"].tolist()) == [0] * 10 + [1] * 10
    (unit,) = (folder / "cache").glob("*.safetensors")
    held = load_file(unit)
    assert held["64x64/tokens"].dtype == held["64x64/std"].dtype == torch.float16
    image = Image.open(folder / "in" / "cat" / "00.png")
    assert image.size == (80, 64) and not 0 < cache.note["latent"]["scale"] < 0.01
    centred = a_maker(folder, folder / "centred", centre=True, flip=True)
    fill_cache(centred)
    both = ImageCache.open(folder / "centred").read((64, 64), np.arange(2))
    cut = torch.from_numpy(np.array(image)[:, 8:72]).permute(2, 0, 1)[None].float().div(127.5).sub(1)
    mean, deviation = made_by.moments(torch.cat([cut, cut.flip(3)]))
    assert torch.allclose(both["tokens"], mean, atol=5e-3) and torch.allclose(both["std"], deviation, rtol=5e-3)
    assert both["labels"].tolist() == [0, 0] and ImageCache.open(folder / "centred").tables[64, 64].rows == 40
    with pytest.raises(ValueError, match="made with another crop and flip: give another folder"):
        fill_cache(a_maker(folder, folder / "centred"))


def test_the_cache_goes_on_and_its_processes_share_the_work(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("train.data.folder_sources.UNIT", 8)
    fill_cache(a_maker(folder, tmp_path / "out"), rank=0, world=2)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.safetensors")}
    fill_cache(a_maker(folder, tmp_path / "out"), rank=1, world=2)
    (gone, *kept) = sorted((tmp_path / "out").glob("*.safetensors"))
    content = gone.read_bytes()
    assert len(before) == -(-(len(kept) + 1) // 2) and len(kept) >= 2, "every other unit"
    gone.unlink()
    fill_cache(a_maker(folder, tmp_path / "out"))
    assert gone.read_bytes() == content
    assert all(path == gone or path.stat().st_mtime_ns == time for path, time in before.items())
    assert ImageCache.open(tmp_path / "out").tables[64, 64].rows == PICTURES


def test_batches_are_samples_of_the_posterior_and_functions_of_their_number(folder):
    data, cache = CachedBatches(str(folder / "cache"), PICTURES), ImageCache.open(folder / "cache")
    first, later = data(0), data(1)  # an epoch each
    assert torch.equal(first["tokens"], data(0)["tokens"]) and "std" not in first
    everything = cache.read((64, 64), np.arange(PICTURES))
    spread = everything["std"].square().mean().sqrt()

    def gap(batch: dict) -> torch.Tensor:
        """Of each sample from the nearest mean."""
        return (batch["tokens"][:, None] - everything["tokens"]).square().mean((2, 3)).min(1).values.sqrt()

    assert torch.allclose(gap(first).mean(), spread, rtol=0.1)
    order = [batch["tokens"].flatten(1).sum(1).argsort() for batch in (first, later)]
    assert not torch.allclose(first["tokens"][order[0]], later["tokens"][order[1]])


def test_a_deterministic_tokenizer_keeps_its_latents_alone(folder, tmp_path, monkeypatch):
    """By the command, as for the other kind."""
    model = a_tokenizer(DC, folder / "in")
    checkpoint.save(tmp_path / "dc", model, "latent", model.config.to_dict(), dtype=torch.float32)
    out = tmp_path / "out"
    maskgil("data", "images", *[
        f"--source={folder / 'in'}", f"--tokenizer={tmp_path / 'dc'}", f"--out={out}", "--size=128", "--shape=square",
        "--device=cpu", "--crop=centre",
    ])  # fmt: skip
    (unit,) = out.glob("*.safetensors")
    held = load_file(unit)
    assert set(held) == {"128x128/tokens", "128x128/labels"} and held["128x128/tokens"].shape == (PICTURES, 16, 4)
    data = CachedBatches(str(out), PICTURES)
    assert data(0)["grid"] == (4, 4) and torch.equal(data(0)["tokens"].half(), data(0)["tokens"])
    monkeypatch.setitem(EMIGM_PRESETS, "emigm-b-128", TINY)
    recipe = made("emigm-b", options(folder, data=out))
    assert recipe.modules[0].module.generator.config.grid == (4, 4)
    for wrong, nearest in (("--crop=center", "did you mean centre"), ("--shape=round", "choose one of any, square")):
        with pytest.raises(ValueError, match=nearest):
            maskgil("data", "images", wrong, f"--source={folder / 'in'}", "--tokenizer=x", "--out=y")


def test_latents_of_the_wrong_scale_are_one_line(folder, tmp_path):
    maker = a_maker(folder, tmp_path / "out")
    maker.tokenizer.config = replace(maker.tokenizer.config, scale=5 * maker.tokenizer.config.scale)
    with pytest.raises(ValueError, match="latents with a standard deviation of [45].*have about 1") as refusal:
        fill_cache(maker)
    assert "\n" not in str(refusal.value) and not list((tmp_path / "out").glob("*.safetensors"))
    wrong = shutil.copytree(folder / "cache", tmp_path / "wrong")
    for path in wrong.glob("*.safetensors"):
        held = load_file(path)
        save_file(held | {name: held[name] * 5 for name in ("64x64/tokens", "64x64/std")}, path)
    with pytest.raises(ValueError, match="wrong: latents with a standard deviation of [45]"):
        made("emigm-b", options(folder, data=wrong))


# --- the recipes ------------------------------------------------------------------------------------------------------


def test_a_run_from_cache_to_a_folder_that_draws_by_class(folder, tmp_path):
    """As a person starts it; a second run goes on from the first one's export, a third from what was published."""
    more = {"valid": folder / "cache", "tokenizer": folder / "tokenizer", "repeats": 2}
    one = run(folder, steps=40, valid_every=20, sample_every=40, out=tmp_path / "one", **more)
    logged = rows(one)
    assert logged[-1]["step"] == 40 and logged[39]["valid"] < logged[19]["valid"] < 1, "an untrained head has 1.72"
    assert Image.open(one / "samples" / "0000040.png").size == (8 * 64, 2 * 64)
    notes, cache = checkpoint.describe(one / "export" / "generator"), ImageCache.open(folder / "cache").note
    assert (notes["kind"], notes["tokenizer_hash"], notes["classes"]) == ("emigm", cache["tokenizer"], ["cat", "dog"])
    target, parts = tmp_path / "model", {"generator": one / "export", "tokenizer": folder / "tokenizer", "size": 64}
    maskgil("export", *["class", *flags(**parts), f"--out={target}"])
    draws = TextToImage.load(target, text_encoder.load)
    settings = SamplingParams(steps=4, guidance_scale=3.0, guidance_interval=(0.1, 0.6))
    (named,), (numbered,) = (draws.images([name], [1], settings=settings) for name in ("dog", "1"))
    assert named.size == (64, 64) and named.tobytes() == numbered.tobytes()
    torch.manual_seed(5)
    other = AutoencoderTokenizer(KL)
    checkpoint.save(tmp_path / "other", other, "latent", KL.to_dict())
    with pytest.raises(ValueError, match="was trained with another tokenizer than .*other"):
        maskgil("export", *["class", *flags(**(parts | {"tokenizer": tmp_path / "other"})), f"--out={tmp_path / 'no'}"])
    with pytest.raises(ValueError, match="was made with another tokenizer than"):
        made("emigm-b", options(folder, tokenizer=tmp_path / "other"))
    for number, init in enumerate((one / "export", target)):
        on = run(folder, "emigm-xs", steps=1, init=init, out=tmp_path / f"on-{number}", lr=0)
        before, after = (checkpoint.load(f / "export" / "generator", "emigm").state_dict() for f in (one, on))
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_killed_run_goes_on_to_the_same_losses(folder, tmp_path):
    def losses(out: Path) -> float:
        return rows(out)[-1]["loss"]

    whole = run(folder, steps=5, out=tmp_path / "whole")
    for stop in (2, 5):
        run(folder, steps=5, stop_at=stop, out=tmp_path / "parts")
    assert losses(whole) == losses(tmp_path / "parts")
    sharded = run(folder, steps=5, out=tmp_path / "sharded", shard=True, recompute="yes", precision="no", stop_at=2)
    assert (sharded / "sharded-0000002").is_dir()
    run(folder, steps=5, out=tmp_path / "sharded", shard=True, recompute="yes", precision="no")
    run(folder, steps=5, out=tmp_path / "plain", precision="no")
    assert losses(sharded) == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)
    assert checkpoint.load(sharded / "export" / "generator", "emigm").config.classes == 2


def test_draws_are_the_batchs_own_whoever_computes_it(folder):
    """With several batches a step, and several processes, none repeats another's masks, times and noises."""
    recipe = made("emigm-b", options(folder))
    model, data, objective = recipe.modules[0].module, recipe.batch_at, recipe.modules[0].loss

    def loss(index: int, seed: int) -> tuple[float, float]:
        part, shown = objective([model], data(index), torch.Generator().manual_seed(seed), 0)
        return part.total.item(), float(shown["masked"])

    assert loss(0, 1) == loss(0, 2)
    assert len({loss(index, 1)[1] for index in range(8)}) > 3
    other = LatentTokenLoss(METHODS["emigm"], seed=1)([model], data(0), torch.Generator(), 0)[0]
    assert other.total.item() != loss(0, 1)[0]


def test_what_does_not_fit_is_one_line(folder, tmp_path, monkeypatch):
    recipe = "emigm-b"
    fill_cache(CacheWriter(source(str(folder / "in")), VQModel(VQ).eval(), None, tmp_path / "codes", [(64, 64)]))
    with pytest.raises(ValueError, match="holds codes, which MaskGIL learns from: use a t2i or c2i recipe"):
        made(recipe, options(folder, data=tmp_path / "codes"))
    for name in ("c2i-b", "c2i-ar", "t2i-xl-256"):
        with pytest.raises(ValueError, match="holds latents, which eMIGM learns from: use an emigm recipe"):
            made(name, options(folder))
    for change, says in (
        ({"smoothing": 0.1}, "smoothing=0.1: that is for models of codes"), ({"qk_norm": "rms"}, "qk_norm=rms: that"),
        ({"repeats": 0}, "repeats=0: give 1 or more"), ({"batch": 6}, "no multiple of micro=4"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=says):
            made(recipe, options(folder, **change))
    monkeypatch.delitem(EMIGM_PRESETS, "emigm-b-64")
    with pytest.raises(ValueError, match="holds pictures of 64x64; .* with --shape square --size 256 or 512"):
        made(recipe, options(folder))
    monkeypatch.setitem(EMIGM_PRESETS, "emigm-b-64", TINY)
    torch.manual_seed(0)
    for config, notes, says in (
        (replace(TINY, channels=4, grid=(4, 4), classes=3), {}, "has classes 3, .* needs 2"),
        (replace(TINY, channels=8, grid=(4, 4), classes=2), {}, "has channels 8, .* needs 4"),
        (replace(TINY, channels=4, grid=(4, 4), classes=2), {"tokenizer_hash": "another"}, "the tokenizer another"),
    ):
        checkpoint.save(tmp_path / "init", EMIGM(config), "emigm", config.to_dict(), **notes)
        with pytest.raises(ValueError, match=says):
            made(recipe, options(folder, init=tmp_path / "init"))


def test_a_converted_release_goes_on(folder, tmp_path, monkeypatch):
    """It does not say its tokenizer; its size and its null token stay, whichever recipe is asked."""
    monkeypatch.delitem(EMIGM_PRESETS, "emigm-b-64")
    torch.manual_seed(0)
    config = replace(TINY, width=16, channels=4, grid=(4, 4), classes=2, null="token", dropout=0.1)
    model = EMIGM(config)
    checkpoint.save(tmp_path / "released", model, "emigm", config.to_dict(), dtype=torch.float32)
    begun = made("emigm-b", options(folder, init=tmp_path / "released")).modules[0].module.generator
    assert begun.config == config and begun.training
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in begun.state_dict().items())


def test_validation_may_be_cut_otherwise_but_not_encoded(folder, tmp_path):
    fill_cache(a_maker(folder, tmp_path / "centred", centre=True))
    recipe = made("emigm-b", options(folder, valid=tmp_path / "centred"))
    assert recipe.valid_at(0)["tokens"].shape == (4, 16, 4)
    note = json.loads((tmp_path / "centred" / "cache.json").read_text())
    (tmp_path / "centred" / "cache.json").write_text(json.dumps(note | {"tokenizer": "another"}))
    with pytest.raises(ValueError, match="differ in tokenizer"):
        made("emigm-b", options(folder, valid=tmp_path / "centred"))


def released_cache(folder: Path, side: int) -> Path:
    """A cache of ImageNet, as it would lie there, with one picture."""
    latent = AUTOENCODER_PRESETS["kl16" if side == 256 else "dc-ae-f32c32"]
    note = {"tokenizer": "x", "latent": latent.to_dict(), "downsample": side // 16, "shapes": [[side, side]]}
    folder.mkdir()
    (folder / "cache.json").write_text(json.dumps(note | {"classes": [str(number) for number in range(1000)]}))
    picture = {"tokens": torch.zeros(1, 256, latent.channels), "labels": torch.zeros(1, dtype=torch.long)}
    save_file({f"{side}x{side}/{name}": tensor for name, tensor in picture.items()}, folder / "0.safetensors")
    return folder


@pytest.mark.parametrize("name, side, parameters", [
    ("emigm-xs", 256, 69_018_848), ("emigm-s", 512, 132_145_728), ("emigm-b", 256, 207_924_000),
    ("emigm-l", 512, 478_403_136), ("emigm-h", 256, 942_401_824),
])  # fmt: skip
def test_recipes_have_the_released_sizes(name, side, parameters, tmp_path, monkeypatch):
    def weightless(config: EMIGMConfig) -> EMIGM:
        with torch.device("meta"):
            return EMIGM(config)

    monkeypatch.setattr(emigm, "EMIGM", weightless)
    data = str(released_cache(tmp_path / "cache", side))
    recipe = made(name, {"data": data})
    module = recipe.modules[0].module
    assert sum(p.numel() for p in module.parameters()) == parameters
    assert bytes_needed([module]) == 20 * parameters
    config = module.generator.config
    assert (config.grid, config.channels, config.null, config.mae) == ((16, 16), side // 16, "mask", True)
    assert len(blocks(module)) == 2 * config.depth + config.head_depth
    with pytest.raises(ValueError, match="emigm-h draws squares of one size: .* --size 256$"):
        made("emigm-h", {"data": str(released_cache(tmp_path / "other", 512))})


def test_the_settings_are_the_released_ones():
    for options, batch, rate in ((RELEASED, 1024, 4e-4), (RELEASED_LARGE, 2048, 8e-4)):
        assert (options.batch, options.lr, options.clip, options.ema) == (batch, rate, 3.0, 0.9999)
        epoch = 1_281_167 / batch
        assert options.steps / epoch == pytest.approx(800, rel=0.01)
        assert options.warmup / epoch == pytest.approx(100, rel=0.01)
        assert (options.weight_decay, options.caption_dropout, options.schedule) == (0.02, 0.1, "constant")
        assert options.batch // options.micro == 32
        options.check()
    chosen = METHODS["emigm"]
    assert (chosen.curve.name, chosen.weighting, chosen.t_min, chosen.null) == ("exp", "one", 0.2, "mask")
    assert OptimConfig().betas == (0.9, 0.95)


def test_the_head_biases_and_norms_do_not_decay():
    model = EMIGM(TINY)
    (optimizer,) = build_optimizers(model, OptimConfig(weight_decay=0.02))
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in decayed}
    assert {"mask_token", "class_emb.weight", "encoder_pos_embed_learned", "z_proj.weight"} <= names
    assert not [name for name in names if name.startswith("diffloss") or name.endswith("bias") or "norm" in name]


def test_recomputed_activations_change_nothing():
    """Dropout is drawn again as it was; the head is recomputed too."""
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        config = replace(TINY, channels=4, grid=(4, 4), classes=2, dropout=0.1)
        model = emigm.diffused(2).module(EMIGM(config))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        if again:
            recomputed(model)
        batch = {"tokens": torch.randn(3, 16, 4), "grid": (4, 4), "labels": torch.tensor([0, 1, 1]),
                 "numbers": torch.arange(3)}  # fmt: skip
        torch.manual_seed(1)
        LatentTokenLoss(METHODS["emigm"])([model], batch, torch.Generator(), 0)[0].total.backward()
        found.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
