"""The VQ family: LlamaGen's modules to the last parameter, and the laws of tokens."""

import pytest
import torch

from maskgil.tokenizers.vq import VQ_PRESETS, VQConfig, VQModel

SMALL = VQConfig(codebook_size=64, codebook_dim=4, channels=(32, 64), res_blocks=1, z_channels=32, patch=2)


@pytest.mark.parametrize(("name", "parameters", "tensors"), [("llamagen-vq16", 71_883_403, 344),
                                                             ("llamagen-vq8", 70_109_835, 300)])  # fmt: skip
def test_released_sizes(name, parameters, tensors):
    with torch.device("meta"):
        model = VQModel(VQ_PRESETS[name])
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors
    assert model.config.downsample == (16 if name.endswith("16") else 8)


def test_released_names():
    with torch.device("meta"):
        state = VQModel(VQ_PRESETS["llamagen-vq16"]).state_dict()
    shapes = {
        "encoder.conv_in.weight": (128, 3, 3, 3),
        "encoder.conv_blocks.2.res.0.nin_shortcut.weight": (256, 128, 1, 1),
        "encoder.conv_blocks.4.attn.1.proj_out.bias": (512,),
        "encoder.mid.1.q.weight": (512, 512, 1, 1),
        "decoder.conv_blocks.1.res.0.nin_shortcut.weight": (256, 512, 1, 1),
        "decoder.conv_blocks.3.upsample.conv.weight": (128, 128, 3, 3),
        "quantize.embedding.weight": (16384, 8),
        "quantize.codebook_used": (65536,),
        "quant_conv.weight": (8, 256, 1, 1),
        "post_quant_conv.weight": (256, 8, 1, 1),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_any_shape_goes_through():
    model = VQModel(SMALL).eval()
    pixels = torch.rand(2, 3, 16, 24) * 2 - 1
    tokens = model.encode(pixels)
    assert model.grid(16, 24) == (4, 6) and tokens.shape == (2, 24)
    again = model.decode(tokens, (4, 6))
    assert again.shape == pixels.shape and again.abs().max() <= 1


def test_a_code_is_its_own_nearest():
    model = VQModel(SMALL)
    tokens = torch.arange(64).view(1, 8, 8)
    assert torch.equal(model.quantize.nearest(model.quantize.codebook()[tokens]), tokens)


def test_without_normalisation_nearest_is_euclidean():
    model = VQModel(VQConfig(codebook_size=50, codebook_dim=4, channels=(32,), z_channels=32, l2_norm=False))
    z = torch.randn(1, 5, 5, 4)
    distances = torch.cdist(z.view(-1, 4), model.quantize.codebook())
    assert torch.equal(model.quantize.nearest(z).flatten(), distances.argmin(1))


def test_identity_ignores_the_decoder():
    model = VQModel(SMALL)
    names = set(model.identity())
    assert "quantize.embedding.weight" in names and "encoder.conv_in.weight" in names
    assert not any(name.startswith(("decoder", "post_quant")) for name in names)


@pytest.mark.parametrize(("height", "width"), [(15, 16), (16, 0), (10, 16)])
def test_sides_that_do_not_divide_are_refused(height, width):
    with pytest.raises(ValueError, match="does not divide into tokens"):
        VQModel(SMALL).grid(height, width)


def test_bad_tokens_are_refused():
    model = VQModel(SMALL)
    with pytest.raises(ValueError, match="codes 0..63"):
        model.decode(torch.full((1, 4), 64), (2, 2))
    with pytest.raises(ValueError, match="do not fill a grid"):
        model.decode(torch.zeros(1, 5, dtype=torch.long), (2, 2))


def test_channels_must_fit_the_norm():
    with pytest.raises(ValueError, match="multiples of 32"):
        VQConfig(channels=(48, 64))
