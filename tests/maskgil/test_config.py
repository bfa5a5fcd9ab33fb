"""Configs: LLaMA's width rule, JSON round trip, one clear line for what cannot be built."""

import json
from dataclasses import replace

import pytest

from maskgil.models.config import PRESETS, ModelConfig, released_layout

SMALL = ModelConfig(codebook_size=16, dim=64, layers=1, heads=1, classes=10)


@pytest.mark.parametrize("name, hidden", [("b", 2048), ("l", 2816), ("xl", 3584), ("xxl", 4096), ("t2i-xl", 3584)])
def test_feed_forward_width_follows_llama(name: str, hidden: int):
    assert PRESETS[name].hidden == hidden
    assert PRESETS[name].head_dim == 64


@pytest.mark.parametrize("name", PRESETS)
def test_json_round_trip(name: str):
    assert ModelConfig.from_dict(json.loads(json.dumps(PRESETS[name].to_dict()))) == PRESETS[name]


def test_unknown_and_missing_keys_are_named():
    with pytest.raises(ValueError, match="unknown.*depth"):
        ModelConfig.from_dict(SMALL.to_dict() | {"depth": 3})
    with pytest.raises(ValueError, match="lacks: heads"):
        ModelConfig.from_dict({key: value for key, value in SMALL.to_dict().items() if key != "heads"})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"dim": 0}, "dim is 0"),
        ({"layers": 1.5}, "layers is 1.5"),
        ({"heads": 3}, "64 over 3 heads"),
        ({"dim": 18, "heads": 3}, "multiple of 4"),
        ({"qk_norm": "batch"}, "qk_norm is 'batch'"),
        ({"norm": "sandwich"}, "pre, post"),
        ({"rope": "3d"}, "rope is '3d'"),
        ({"null": "zero"}, "null is 'zero'"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"text_dim": 8}, "exactly one"),
        ({"classes": None}, "exactly one"),
        ({"classes": None, "text_dim": 8, "rope": "released"}, "class-driven"),
        ({"causal": 1}, "causal is 1"),
        ({"null_length": 200}, "null_length 200 exceeds"),
    ],
)
def test_impossible_models_are_refused(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_dict(SMALL.to_dict() | change)


def test_released_changes_the_layout_alone():
    assert released_layout(replace(SMALL, qk_norm="rms", norm="post")) == replace(SMALL, rope="released")
