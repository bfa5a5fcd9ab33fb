"""Text encoders in less memory: the same states offloaded, near ones in fewer bits, and words without the package."""

import pytest
import torch
from released_folders import TINY_TEXT, save_clip
from torch import nn

import text_encoder
from text_encoder import encoder_memory

WIDE = TINY_TEXT | {"hidden_size": 128, "projection_dim": 128, "intermediate_size": 256}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    save_clip(folder, WIDE)
    return folder / "text_encoder"


def held(module: nn.Module) -> int:
    """Bytes of all tensors of a module."""
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


def test_an_offloaded_encoder_gives_the_same_and_holds_nothing(folder):
    full, offloaded = text_encoder.load(folder), text_encoder.load(folder, "offload")
    assert isinstance(offloaded, text_encoder.TextEncoder) and offloaded.width == full.width
    for _ in range(2):
        assert torch.equal(offloaded.encode(["a cat"]).states, full.encode(["a cat"]).states)
        assert held(offloaded) == 0
    ids, mask = offloaded.tokenize(["a cat"])
    assert torch.equal(offloaded(ids, mask), full(ids, mask))
    assert all(torch.equal(full.identity()[name], tensor) for name, tensor in offloaded.identity().items())
    with pytest.raises(ValueError, match="102 tokens"):
        offloaded.check("x" * 100)
    assert held(offloaded) == 0 < held(full)


@pytest.mark.parametrize("memory, share, error", [("8bit", 0.6, 0.1), ("4bit", 0.5, 0.4)])
def test_fewer_bits_take_less_memory_and_stay_near(folder, memory, share, error):
    full, small = text_encoder.load(folder), text_encoder.load(folder, memory)
    assert held(small) < share * held(full)
    expected, got = full.encode(["a cat"]).states, small.encode(["a cat"]).states
    assert got.dtype == torch.float32 and 0 < (got - expected).norm() < error * expected.norm()


def test_what_cannot_be_had_is_refused_in_words(folder, monkeypatch):
    with pytest.raises(ValueError, match="choose one of full, bf16, 8bit, 4bit, offload"):
        text_encoder.load(folder, "2bit")
    monkeypatch.setattr(encoder_memory, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"bitsandbytes: pip install 'maskgil\[low-memory\]', or choose offload"):
        text_encoder.load(folder, "4bit")
