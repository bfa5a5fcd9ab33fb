"""What a model's weights take in memory is said before it is loaded, and is what they take."""

import pytest
import torch
from released_folders import CLIP_H, CLIP_L, TINY_TEXT, amused_folder, save_clip
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

import text_encoder
from app.core import registry, released_models
from app.core.memory_need import ModelSizes, encoder_bytes, fit_in_words, memory_need, ways_that_fit
from app.core.weight_counts import CLIP_BYTES, EXACT, EncoderSize, encoder_size
from app.serving import model_pool
from maskgil.pipeline import TextToImage
from maskgil.released import catalog
from text_encoder.encoder_memory import ENCODER_MEMORY, OffloadedEncoder, available_memories, loading_arguments

WIDE = TINY_TEXT | {"hidden_size": 256, "projection_dim": 256, "intermediate_size": 1024}
GB = 10**9


def held(module: nn.Module) -> int:
    """Bytes of all tensors of a module."""
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


@pytest.mark.parametrize("memory", ENCODER_MEMORY)
def test_a_text_encoder_takes_what_is_said(tmp_path, memory):
    save_clip(tmp_path, WIDE)
    size = encoder_size(tmp_path / "text_encoder")
    assert size.adjustable and size.itemsize == CLIP_BYTES and 0 < size.exact < size.numbers
    encoder = text_encoder.load(tmp_path / "text_encoder", memory)
    if memory == "offload":
        assert isinstance(encoder, OffloadedEncoder) and held(encoder) == 0
    else:
        assert isinstance(encoder, nn.Module) and held(encoder) == pytest.approx(encoder_bytes(size, memory), rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_takes_what_is_said(tmp_path, dtype):
    folder = amused_folder(tmp_path / "model")
    need = memory_need(registry.find_local(str(folder)).parts_sizes, dtype.itemsize, "full")
    model = TextToImage.load(folder, text_encoder.load, dtype=dtype)
    parts = (model.generator, model.tokenizer, model.text_encoder)
    taken = sum(held(part) for part in parts if isinstance(part, nn.Module))
    assert need.resting == need.peak == pytest.approx(taken, rel=0.05)


def exact_numbers(names: dict[str, int]) -> int:
    return sum(count for name, count in names.items() if name.endswith(EXACT))


def test_the_catalog_knows_the_sizes_of_its_text_encoders():
    for model in catalog.MODELS:
        with torch.device("meta"):
            if model.clip:
                shape = CLIP_L if "amused" in model.name else CLIP_H
                config = CLIPTextConfig(
                    hidden_size=shape["hidden_size"],
                    projection_dim=shape["projection_dim"],
                    intermediate_size=shape["intermediate_size"],
                    num_hidden_layers=shape["layers"],
                    num_attention_heads=shape["heads"],
                )
                encoder = CLIPTextModelWithProjection(config)
            else:
                shape = {"d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_layers": 24, "num_heads": 32}
                encoder = T5EncoderModel(T5Config(**shape, feed_forward_proj="gated-gelu"))
        names = {name: parameter.numel() for name, parameter in encoder.named_parameters()}
        size = released_models.catalog_sizes(model).encoder
        assert (size.numbers, size.exact) == (sum(names.values()), exact_numbers(names))


SIZES = ModelSizes(1_000_000_000, 100_000_000, EncoderSize(1_000_000_000, 100_000_000, 4, True))


@pytest.mark.parametrize(
    "free, words",
    [
        (9.0, "It fits in fp32: 8.4 GB of the 9.0 GB"),
        (6.5, "It fits in fp32 with the text encoder in bf16: 6.4 GB"),
        (5.8, "It fits in fp32 with the text encoder in 8bit: 5.7 GB"),
        (3.5, "It fits in bf16 with the text encoder in 4bit: 3.3 GB"),
        (3.0, "It does not fit: the least it takes is 3.3 GB, and 3.0 GB are free here."),
    ],
)
def test_what_fits_is_the_most_exact_way(free, words):
    assert fit_in_words(SIZES, free * GB, ENCODER_MEMORY).startswith(words)


def test_an_offloaded_encoder_counts_while_it_reads():
    need = memory_need(SIZES, 2, "offload")
    assert (need.resting, need.peak) == (2.4e9, 6.4e9)
    assert str(need) == "2.4 GB, 6.4 GB while a prompt is read"
    small = ModelSizes(10, 10, EncoderSize(10))
    assert memory_need(small, 4, "offload") == memory_need(small, 4, "full"), "a small one stays"
    assert [way[:2] for way in ways_that_fit(small, 1000, ENCODER_MEMORY)] == [("fp32", "full"), ("bf16", "full")]


def test_a_model_that_does_not_fit_says_which_way_would(tmp_path, monkeypatch):
    folder = amused_folder(tmp_path / "model")
    model = registry.find_local(str(folder))
    whole = memory_need(model.parts_sizes, 4, "full").peak
    monkeypatch.setattr(model_pool, "free_memory", lambda: int(whole) - 1)
    with pytest.raises(
        ValueError, match="takes .* GB of memory in float32.*: choose fp32 and its text encoder in bf16"
    ):
        model_pool.open_model(str(folder))
    assert model_pool.open_model(str(folder), encoder_memory="bf16").sizes == [(32, 32)]
    monkeypatch.setattr(model_pool, "free_memory", lambda: 1)
    with pytest.raises(ValueError, match="unload another, or take a smaller one"):
        model_pool.open_model(str(folder))
    with pytest.raises(ValueError, match="choose one of full, bf16, 8bit, 4bit, offload"):
        model_pool.open_model(str(folder), encoder_memory="2bit")


def test_fewer_bits_are_offered_where_they_can_be_had(monkeypatch):
    assert available_memories() == ENCODER_MEMORY
    monkeypatch.setattr("text_encoder.encoder_memory.find_spec", lambda name: None)
    assert available_memories() == ("full", "bf16", "offload")
    assert loading_arguments("bf16") == {"dtype": torch.bfloat16} and loading_arguments("full") == {}


def test_the_pool_holds_a_model_as_it_was_chosen_last(tmp_path):
    folder = str(amused_folder(tmp_path / "model"))
    pool = model_pool.ModelPool(model_pool.open_model)
    first = pool.load(folder)
    assert first.encoder_memory == "full" and pool.load(folder, encoder_memory="full") is first
    second = pool.load(folder, torch.bfloat16, "offload")
    assert isinstance(second.model.text_encoder, OffloadedEncoder) and second.model.dtype == torch.bfloat16
    pool.unload(folder)
    again = pool.load(folder)
    assert (again.encoder_memory, again.model.dtype) == ("offload", torch.bfloat16)
    with pytest.raises(ValueError, match="choose one of"):
        pool.load(folder, encoder_memory="2bit")
    assert pool.load(folder) is again, "a way that is refused changes nothing"
