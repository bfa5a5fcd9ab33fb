"""`--reference`: the published MaskGIL trainer's settings, as options of the class-driven recipes."""

from dataclasses import replace

import pytest
from test_data_as_people_have_it import made_up_cache

from maskgil.models.config import PRESETS, released_layout
from train.activation_checkpointing import checkpointing_needed
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


def test_activations_are_computed_again_where_they_do_not_fit():
    assert checkpointing_needed(10e9, 71e9, 80e9) and not checkpointing_needed(10e9, 50e9, 80e9)
    per_picture = kept_bytes(PRESETS["t2i-xl"], 256)
    assert 1e9 < per_picture < 4e9, "two pictures keep about 6 GB at 775M"
