"""`--reference`: the published MaskGIL trainer's settings, as options of the class-driven recipes."""

from dataclasses import replace

import pytest
import torch
from test_data_as_people_have_it import made_up_cache

from maskgil.models.config import PRESETS, released_layout
from train import activation_checkpointing
from train.activation_checkpointing import LONG_RUN, MemoryPlan, plan_memory
from train.model_flops import kept_bytes
from train.optim import build_optimizers
from train.recipes.large import CLASS_DRIVEN, c2i_b
from train.recipes.published import PUBLISHED, as_published
from train.trainer import train


@pytest.fixture
def cache(tmp_path, monkeypatch) -> str:
    made_up_cache(tmp_path / "cache", [12])
    for name in ("b", "b-llamagen"):
        monkeypatch.setitem(PRESETS, name, replace(PRESETS[name], dim=16, layers=1, heads=2))
    return str(tmp_path / "cache")


def test_a_published_run_is_the_published_one(cache, tmp_path):
    options = replace(CLASS_DRIVEN, batch=4, micro=4, workers=0, steps=2)
    made = c2i_b(cache, reference=True, options=options)
    (part,) = made.modules
    config = part.module.generator.config
    assert (
        config == replace(released_layout(PRESETS["b-llamagen"]), codebook_size=64, classes=1) and config.dropout == 0.1
    )
    loss = part.loss
    assert (loss.everywhere, loss.independent, loss.smoothing, loss.caption_dropout) == (True, True, 0.1, 0.1)
    assert (part.optim.betas, part.optim.weight_decay, part.optim.warmup, made.ema) == ((0.9, 0.96), 1e-5, 0, 0.0)
    (optimizer,) = build_optimizers(part.module, part.optim)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-5], "norms decay, too"
    train(made, tmp_path / "run")
    plain = c2i_b(cache, options=options).modules[0]
    assert plain.module.generator.config.norm == "post" and not plain.loss.everywhere


def test_what_was_asked_for_stays():
    asked = replace(CLASS_DRIVEN, lr=3e-4, steps=10)
    made = as_published(asked, CLASS_DRIVEN, "")
    assert (made.lr, made.steps, made.betas) == (3e-4, 10, (0.9, 0.96))
    usual = as_published(CLASS_DRIVEN, CLASS_DRIVEN, "")
    assert {name: getattr(usual, name) for name in PUBLISHED} == PUBLISHED
    with pytest.raises(ValueError, match="neither QK-norm nor post-norm"):
        as_published(replace(CLASS_DRIVEN, norm="post"), CLASS_DRIVEN, "")
    with pytest.raises(ValueError, match="leave --init weights/b out"):
        as_published(CLASS_DRIVEN, CLASS_DRIVEN, "weights/b")


@pytest.mark.parametrize("betas", [(0.9, 1.0), (-0.1, 0.9)])
def test_betas_are_bounded(betas):
    with pytest.raises(ValueError, match="betas=.*give two numbers from 0, below 1"):
        replace(CLASS_DRIVEN, betas=betas).check()


def planned(activations: float, steps: int = 10, compile: bool | None = None, recompute: bool | None = None, **of: str):
    """The plan of a model that holds 10 GB on a device of 80 GB."""
    return plan_memory(torch.device(of.get("device", "cuda")), 10e9, activations, 80e9, steps, compile, recompute)


def test_compiling_and_checkpointing_are_chosen_by_memory(monkeypatch):
    monkeypatch.setattr(activation_checkpointing, "has_triton", lambda: True)
    assert planned(50e9) == MemoryPlan(compile=False, recompute=False), "a short run that fits"
    assert planned(50e9, steps=LONG_RUN) == MemoryPlan(compile=True, recompute=False), "a long run wins it back"
    assert planned(80e9) == MemoryPlan(compile=True, recompute=False), "it fits only when compiled"
    assert planned(200e9) == MemoryPlan(compile=True, recompute=True), "it does not fit even then"
    assert planned(80e9, compile=False) == MemoryPlan(compile=False, recompute=True), "what was asked for counts"
    assert planned(10e9, compile=False, recompute=True) == MemoryPlan(compile=False, recompute=True)
    assert planned(200e9, LONG_RUN, device="cpu") == MemoryPlan(compile=False, recompute=False), "never on a processor"
    assert planned(0.0, compile=True, device="cpu") == MemoryPlan(compile=True, recompute=False)
    monkeypatch.setattr(activation_checkpointing, "has_triton", lambda: False)
    assert planned(80e9, LONG_RUN) == MemoryPlan(compile=False, recompute=True), "nothing that could compile"


def test_an_estimate_of_activations_is_near_what_was_measured():
    per_picture = kept_bytes(PRESETS["t2i-xl"], 256)
    assert 1e9 < per_picture < 4e9, "two pictures keep about 6 GB at 775M"
