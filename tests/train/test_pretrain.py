"""The large recipes on tiny models, from a cache to an exported generator; adapters; the training benchmark."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from commands import flags, help_of, made, maskgil
from PIL import Image
from safetensors import SafetensorError
from test_image_cache import VQ, Letters, maker, png
from torch import nn

from benchmarks import training
from maskgil import checkpoint
from maskgil.condition import Condition
from maskgil.models.config import PRESETS, ModelConfig
from maskgil.models.maskgil import MaskGIL
from maskgil.sampling.code_sampler import CodeSampler
from maskgil.tokenizers.vq import VQModel
from train import lora
from train.activation_checkpointing import bytes_needed
from train.commands import recipes
from train.data import image_sources
from train.data.image_cache import CacheWriter, fill_cache
from train.losses.conditioned import Conditioned
from train.losses.masked_token import MaskedTokenLoss
from train.precision import chosen_precision
from train.recipes.pretrain import CosineSchedule, PretrainOptions

CONFIG = ModelConfig(codebook_size=64, dim=16, layers=2, heads=2, ffn=32, text_dim=3, text_length=20, dropout=0.0)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Pictures with captions, their cache, the tokenizer, and a tiny model to go on from."""
    (tmp_path / "in").mkdir()
    for i, colour in enumerate(("red", "lime", "blue", "white")):
        (tmp_path / "in" / f"{i}.png").write_bytes(png(64, 64, colour))
        (tmp_path / "in" / f"{i}.txt").write_text(colour)
    made = maker(image_sources.source(str(tmp_path / "in")), tmp_path / "cache")
    fill_cache(made)
    checkpoint.save(tmp_path / "tokenizer", made.tokenizer, "vq", VQ.to_dict(), dtype=torch.float32)
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "init", MaskGIL(CONFIG), "maskgil", CONFIG.to_dict(), dtype=torch.float32)
    return tmp_path


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_text_driven_run_from_cache_to_export(folder):
    """As a person starts it; the second stage goes on from the first one's export."""
    common = [
        f"--data={folder / 'cache'}",
        f"--valid={folder / 'cache'}",
        "--batch=4",
        "--micro=2",
        "--workers=0",
        "--ema=0.9",
    ]
    common += [
        "--warmup=2",
        "--token-dropout=0",
        "--lr=0.01",
        "--schedule=cosine",
        f"--tokenizer={folder / 'tokenizer'}",
    ]
    maskgil(
        "train",
        *[
            "t2i-xl-256",
            *common,
            f"--init={folder / 'init'}",
            "--steps=40",
            "--valid-every=20",
            f"--out={folder / 'one'}",
        ],
    )
    logged = rows(folder / "one")
    assert logged[-1]["step"] == 40 and logged[39]["valid"] < logged[19]["valid"]
    assert Image.open(folder / "one" / "samples" / "0000040.png").size == (4 * 64, 2 * 64)
    notes = checkpoint.describe(folder / "one" / "export" / "generator")
    cache = json.loads((folder / "cache" / "cache.json").read_text())
    assert notes["tokenizer_hash"] == cache["tokenizer"] and notes["text_encoder_hash"] == cache["text_encoder"]
    maskgil(
        "train", *["t2i-xl-512", *common, f"--init={folder / 'one' / 'export'}", "--steps=2", f"--out={folder / 'two'}"]
    )
    assert checkpoint.load(folder / "two" / "export" / "generator", "maskgil").config.dim == 16


def test_what_does_not_fit_is_one_line(folder):
    cache, init = folder / "cache", folder / "init"
    with pytest.raises(ValueError, match="holds pictures with captions: use a t2i recipe"):
        maskgil("train", "c2i-b", f"--data={cache}", f"--out={folder / 'x'}")
    with pytest.raises(ValueError, match="Missing from maskgil train t2i-xl-512: --init"):
        maskgil("train", "t2i-xl-512", f"--data={cache}")
    with pytest.raises(ValueError, match="is no multiple of micro=3"):
        maskgil("train", "t2i-xl-256", f"--data={cache}", f"--init={init}", "--batch=4", "--micro=3")
    with pytest.raises(ValueError, match="is no cache of pictures"):
        maskgil("train", "t2i-xl-256", f"--data={folder}", f"--init={init}")
    other = replace(CONFIG, codebook_size=32)
    checkpoint.save(folder / "other", MaskGIL(other), "maskgil", other.to_dict())
    with pytest.raises(ValueError, match="has codebook_size 32, .* needs 64"):
        maskgil("train", "t2i-xl-256", f"--data={cache}", f"--init={folder / 'other'}")
    checkpoint.save(folder / "other", MaskGIL(CONFIG), "maskgil", CONFIG.to_dict(), tokenizer_hash="another")
    with pytest.raises(ValueError, match="trained with the tokenizer another"):
        maskgil("train", "t2i-xl-256", f"--data={cache}", f"--init={folder / 'other'}")


@pytest.mark.parametrize("option, says", [
    ("--micro=0", "micro=0: give 1 or more"), ("--steps=0", "steps=0"),
    ("--sample-every=-1", "sample_every=-1: give 0 or"),
    ("--seed=-1", "seed=-1: give 0 to 524287"), ("--seed=524288", "seed=524288: give 0 to 524287"),
    ("--schedule=linear", "choose cosine, constant"), ("--precision=fp8", "choose auto, bf16, no"),
    ("--caption-dropout=5", "caption_dropout=5.0: give 0.0 to 1.0"), ("--ema=7", "ema=7.0: give 0.0 to 0.999999"),
    ("--clip=-3", "clip=-3.0: give 0.0 or more"), ("--lr=nan", "lr=nan: give"),
    ("--qk-norm=cosine", "qk_norm=cosine: choose none, layer, rms"), ("--norm=mid", "norm=mid: choose pre, post"),
])  # fmt: skip
def test_values_that_no_run_can_have_are_one_line(folder, monkeypatch, option, says):
    monkeypatch.setitem(PRESETS, "t2i-xl", CONFIG)
    with pytest.raises(ValueError, match=says):
        maskgil("train", "t2i-xl-256", f"--data={folder / 'cache'}", f"--out={folder / 'run'}", option)


def test_an_empty_cache_is_one_line(folder, monkeypatch):
    """Before anything is made of it, and before a worker reads it."""
    monkeypatch.setitem(PRESETS, "t2i-xl", CONFIG)
    (folder / "empty").mkdir()
    (folder / "empty" / "cache.json").write_text((folder / "cache" / "cache.json").read_text())
    for data, valid in (("empty", ""), ("cache", "empty")):
        pairs = {"data": str(folder / data), "valid": valid and str(folder / valid), "batch": "2", "micro": "2"}
        with pytest.raises(ValueError, match="empty holds no pictures yet: run maskgil data images"):
            made("t2i-xl-256", pairs)


def test_a_run_keeps_to_the_tokenizer_of_its_cache(folder, monkeypatch):
    monkeypatch.setitem(PRESETS, "t2i-xl", CONFIG)
    options = ["--batch=2", "--micro=2", "--steps=2", "--workers=0", f"--out={folder / 'run'}"]
    maskgil("train", "t2i-xl-256", f"--data={folder / 'cache'}", *options, "--stop-at=1")
    with pytest.raises(ValueError, match="was begun with the tokenizer .*: give another out="):
        maskgil("train", "t2i-xl-256", f"--data={other_cache(folder)}", *options)
    maskgil("train", "t2i-xl-256", f"--data={folder / 'cache'}", *options)


def test_norms_of_a_new_model_are_chosen_and_of_an_old_one_kept(folder, monkeypatch):
    monkeypatch.setitem(PRESETS, "t2i-xl", CONFIG)
    recipe, pairs = "t2i-xl-256", {"data": str(folder / "cache"), "batch": "2", "micro": "2"}
    config = made(recipe, pairs | {"qk_norm": "rms", "norm": "post"}).modules[0].module.generator.config
    assert (config.qk_norm, config.norm) == ("rms", "post")
    assert made(recipe, pairs).modules[0].module.generator.config.norm == "pre"
    init = pairs | {"init": str(folder / "init")}
    assert made(recipe, init | {"qk_norm": "none"}).modules[0].module.generator.config.qk_norm == "none"
    with pytest.raises(ValueError, match="init has norm=pre, which cannot become post: leave norm= out"):
        made(recipe, init | {"norm": "post"})


def test_sheets_are_drawn_in_the_precision_of_the_run(folder, monkeypatch):
    monkeypatch.setitem(PRESETS, "t2i-xl", CONFIG)
    drawn = []
    decode = CodeSampler.__call__

    def watched(self, *given):
        drawn.append(torch.is_autocast_enabled("cpu"))
        return decode(self, *given)

    monkeypatch.setattr(CodeSampler, "__call__", watched)
    common = flags(data=folder / "cache", tokenizer=folder / "tokenizer", batch=2, micro=2, workers=0)
    for precision in ("bf16", "no"):
        maskgil("train", "t2i-xl-256", *common, "--steps=1", f"--precision={precision}", f"--out={folder / precision}")
    half = len(drawn) // 2
    assert half and set(drawn[:half]) == {True} and set(drawn[half:]) == {False}


def test_a_class_driven_recipe(tmp_path, monkeypatch):
    for name in ("cat", "dog"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "0.png").write_bytes(png(64, 64))
    source = image_sources.source(str(tmp_path / "in"))
    fill_cache(CacheWriter(source, VQModel(VQ).eval(), None, tmp_path / "cache", [(64, 64)]))
    monkeypatch.setitem(PRESETS, "b", replace(PRESETS["b"], dim=16, layers=1, heads=2))
    options = ["--batch=2", "--micro=2", "--steps=1", "--workers=0", f"--out={tmp_path / 'run'}"]
    maskgil("train", "c2i-b", f"--data={tmp_path / 'cache'}", *options)
    export = tmp_path / "run" / "export" / "generator"
    assert checkpoint.load(export).config.classes == 2 and checkpoint.describe(export)["classes"] == ["cat", "dog"]


def test_every_recipe_takes_its_options():
    table = recipes()
    assert {"t2i-xl-256", "t2i-xl-512", "t2i-xl-1024", "t2i-xxl-256", "c2i-b", "c2i-l", "c2i-xl", "c2i-xxl", "lora",
            "scenes-generator"} <= set(table)  # fmt: skip
    assert not any(name.startswith("-") for name in table)
    for name, default in (("t2i-xxl-256", "--shard, --no-shard.*default: True"), ("t2i-xl-512", "default: 5e-05")):
        assert re.search(default, help_of("train", name), re.DOTALL), name
    with pytest.raises(ValueError, match="Missing from maskgil train t2i-xl-256: --data STR"):
        made("t2i-xl-256", {})


def test_cosine_rises_and_falls():
    schedule = CosineSchedule(10)
    factors = [schedule(step, 100) for step in range(101)]
    assert factors[0] == pytest.approx(0.1) and factors[10] == 1 and factors[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in zip(factors[10:], factors[11:], strict=False))
    assert PretrainOptions().schedule == "constant"


def test_adapters_are_apart_and_merge_exactly(tmp_path):
    torch.manual_seed(0)
    model = MaskGIL(CONFIG).eval()
    nn.init.normal_(model.output.weight)
    plain = MaskGIL(CONFIG).eval()
    plain.load_state_dict(model.state_dict())
    config = lora.adapted(model, 4)
    moving = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(moving) == 2 * 5 * CONFIG.layers and all("lora_" in name for name in moving)
    batch = {"tokens": torch.randint(64, (2, 4)), "grid": (2, 2), "numbers": torch.arange(2),
             "states": torch.randn(2, 3, 3), "mask": torch.ones(2, 3, dtype=torch.bool)}  # fmt: skip

    def total(generator: MaskGIL) -> torch.Tensor:
        return MaskedTokenLoss()([Conditioned(generator)], batch, torch.Generator(), 0)[0].total

    assert torch.equal(total(model), total(plain))
    optimizer = torch.optim.AdamW(moving.values(), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        total(model).backward()
        optimizer.step()
    assert total(model) < total(plain)
    lora.save_adapters(model, config, "base", tmp_path)
    assert {p.name for p in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert torch.allclose(total(lora.merged(plain, tmp_path)), total(model), rtol=1e-4)
    with pytest.raises(ValueError, match="does not fit the model"):
        lora.merged(MaskGIL(replace(CONFIG, layers=1)), tmp_path)


def test_adapters_are_added_at_the_scale_they_were_trained_with(tmp_path):
    """peft's files may say another alpha than r, and do wherever peft wrote them by itself."""
    torch.manual_seed(0)
    model = MaskGIL(CONFIG)
    plain = MaskGIL(CONFIG)
    plain.load_state_dict(model.state_dict())
    config = lora.adapted(model, 2)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(p)
    lora.save_adapters(model, config, "base", tmp_path)
    name = "layers.0.attention.wo.weight"
    once = lora.merged(plain, tmp_path).state_dict()[name] - plain.state_dict()[name]
    config.lora_alpha = 6
    lora.save_adapters(model, config, "base", tmp_path)
    thrice = lora.merged(plain, tmp_path).state_dict()[name] - plain.state_dict()[name]
    assert once.abs().max() > 0.1 and torch.allclose(3 * once, thrice, atol=1e-4)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match="holds no adapters: adapter_config.json is missing"):
        lora.merged(plain, tmp_path)


def test_a_full_disk_keeps_the_adapters_that_were_there(tmp_path, monkeypatch):
    model = MaskGIL(CONFIG)
    config = lora.adapted(model, 2)
    lora.save_adapters(model, config, "base", tmp_path)
    before = (tmp_path / "adapter_model.safetensors").read_bytes()

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(lora, "save_file", full)
    with pytest.raises(ValueError, match="could not write .* free space"):
        lora.save_adapters(model, config, "base", tmp_path)
    assert (tmp_path / "adapter_model.safetensors").read_bytes() == before and not list(tmp_path.glob("*.partial"))


def test_adapters_of_xl_fit_into_12_gb():
    """By arithmetic: what is held, and everything that a forward pass of 2 pictures keeps, nothing recomputed."""
    with torch.device("meta"):
        model = MaskGIL(PRESETS["t2i-xl"]).to(torch.bfloat16)
        lora.adapted(model, 16)
        moving = sum(p.numel() for p in model.parameters() if p.requires_grad)
        states, mask = torch.zeros(2, 120, 2048, dtype=torch.bfloat16), torch.ones(2, 120, dtype=torch.bool)
        kept: dict[int, torch.Tensor] = {}
        weights = {id(p) for p in model.parameters()}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if id(tensor) not in weights and not isinstance(tensor, nn.Parameter):
                kept[id(tensor)] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = model(torch.zeros(2, 256, dtype=torch.long), (16, 16), Condition(states, mask))
    assert 12e6 < moving < 13e6 and logits.shape == (2, 256, 16384)
    held = bytes_needed([Conditioned(model)])
    # logits, their float32 copy, its softmax and its gradient
    activations = sum(t.numel() * t.element_size() for t in kept.values()) + logits.numel() * (2 + 3 * 4)
    assert 3e9 < held < 4e9 and 0.5e9 < activations and held + activations < 12e9


def other_cache(folder: Path) -> Path:
    """The same pictures through another tokenizer."""
    fill_cache(maker(image_sources.source(str(folder / "in")), folder / "other", seed=1))
    return folder / "other"


@pytest.fixture
def whole_model(folder, monkeypatch) -> Path:
    """A text-to-image folder, with an encoder that notes where it is asked to go."""
    (folder / "model").mkdir()
    (folder / "tokenizer").rename(folder / "model" / "tokenizer")
    (folder / "init").rename(folder / "model" / "generator")
    monkeypatch.setattr(lora.text_encoder, "load", lambda name: Letters())
    return folder


def test_lora_from_a_folder_of_pictures(whole_model):
    folder = whole_model
    options = ["--size=64", "--rank=2", "--batch=2", "--micro=1", "--steps=2", "--workers=0", f"--out={folder / 'run'}"]
    maskgil("train", "lora", f"--model={folder / 'model'}", f"--pictures={folder / 'in'}", *options)
    assert (folder / "run" / "export" / "adapter_model.safetensors").stat().st_size < 50_000
    assert (folder / "run" / "state.pt").stat().st_size < 200_000  # the frozen model is not in it
    adapter, merged = folder / "run" / "export", folder / "new"
    maskgil("export", "lora", f"--model={folder / 'model'}", f"--adapter={adapter}", f"--out={merged}")
    assert checkpoint.load(folder / "new" / "generator", "maskgil").config == CONFIG
    assert (folder / "new" / "tokenizer" / "config.json").is_file()


def test_options_of_lora_have_their_effect_or_are_refused(whole_model):
    folder, recipe = whole_model, "lora"
    pairs = {"model": str(folder / "model"), "pictures": str(folder / "in"), "size": "64", "batch": "2", "micro": "1"}
    chosen = made(recipe, pairs | {"schedule": "cosine", "wandb": "mine", "precision": "no", "valid_every": "7"})
    assert isinstance(chosen.schedule, CosineSchedule) and (chosen.wandb, chosen.precision) == ("mine", "no")
    assert chosen.valid_every == 7
    assert chosen.modules[0].module.generator.output.weight.dtype == torch.float32
    with pytest.raises(ValueError, match="differ in tokenizer"):
        made(recipe, pairs | {"valid": str(other_cache(folder))})
    assert made(recipe, pairs | {"valid": str(folder / "cache")}).valid_at(0)["tokens"].shape == (1, 16)
    plain = made(recipe, pairs)
    measured = torch.bfloat16 if chosen_precision("auto") == "bf16" else torch.float32
    assert plain.schedule is None and plain.modules[0].module.generator.output.weight.dtype == measured
    for key, value, says in (("shard", True, "leave it out"), ("tokenizer", "x", "leave it out"),
                             ("qk_norm", "rms", "cannot become rms"), ("rank", "0", "rank=0: give 1 or more"),
                             ("micro", "0", "micro=0"), ("batch", "3", "is no multiple of micro=2")):  # fmt: skip
        with pytest.raises(ValueError, match=says):
            made(recipe, pairs | ({"micro": "2"} if key == "batch" else {}) | {key: value})


def test_captions_are_encoded_where_the_model_is_trained(whole_model, monkeypatch):
    folder, moves = whole_model, []

    class Device(Letters):
        def to(self, device):
            moves.append(device)
            return self

    monkeypatch.setattr(lora.text_encoder, "load", lambda name: Device())
    pairs = {"model": str(folder / "model"), "pictures": str(folder / "in"), "size": "64"}
    made("lora", pairs)
    assert moves == [PartialState().device]


@pytest.mark.parametrize("name, rate", [
    ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA H100 NVL", 835e12),
    ("NVIDIA GH200 480GB", 989e12), ("NVIDIA H200", 989e12),
])  # fmt: skip
def test_the_rate_is_that_of_the_very_card(monkeypatch, name, rate):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert training.chip(torch.device("cuda")) == (name, rate, "data sheet")


def test_the_benchmark_prints_a_line(capsys):
    maskgil("bench", "training", "--models=tiny", "--batch=1", "--steps=6", "--size=64")
    shown = capsys.readouterr().out
    assert "ms a step of 1" in shown and "MFU" in shown and "GB" in shown and "CPU" in shown
    with torch.device("meta"):
        weights = [p for n, p in MaskGIL(training.TEXT).named_parameters() if "layers" in n and p.ndim == 2]
    least = 6 * 376 * sum(p.numel() for p in weights)  # each meets 256 image and 120 text tokens
    assert least < training.step_flops(training.TEXT, 1, 256) < 1.2 * least
    adapting = training.step_flops(training.TEXT, 1, 256, frozen=True)
    assert 4 / 6 * least < adapting < 4 / 6 * 1.2 * least
