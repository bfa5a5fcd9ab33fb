"""The VQ family: LlamaGen's modules to the last parameter, and the laws of tokens."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from maskgil import checkpoint
from maskgil.tokenizers.vq import VQ_PRESETS, VQConfig, VQModel
from train.data.cache_files import write_note
from train.data.scene_cache import corpus, write_scenes
from train.data.scene_datasets import DecoderBatches
from train.data.token_cache import NOTE
from train.recipes.scenes_tokenizers import scenes_decoder
from train.scenes.sprites import Sprites

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


def test_nearest_is_exact_where_the_rest_is_computed_roughly():
    model = VQModel(VQConfig(codebook_size=4096, codebook_dim=8, channels=(32,), res_blocks=1, z_channels=32, patch=2))
    z = F.normalize(torch.randn(1, 16, 16, 8), dim=-1)
    with torch.autocast("cpu", torch.bfloat16):
        roughly = model.quantize.nearest(z)
    assert torch.equal(roughly, model.quantize.nearest(z))


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


COARSE = replace(SMALL, patch=4, channels=(32, 32), decoder_channels=(32,), decoder_patch=8)


def test_a_decoder_that_goes_on_paints_twice_as_large_and_at_first_interpolates(tmp_path):
    """Refiner and upscaler are put behind it, neither of which corrects anything yet; tokens stay what they were."""
    torch.manual_seed(0)
    plain = VQModel(COARSE).eval()
    checkpoint.save(tmp_path, plain, "vq", plain.config.to_dict())
    plain = checkpoint.load(tmp_path, "vq").eval()  # what halves of the bits leave of it
    write_note(tmp_path / NOTE, {"corpus": corpus()})  # of scenes, none of which is drawn here
    recipe = scenes_decoder(str(tmp_path), str(tmp_path), str(tmp_path))
    decoder_only = recipe.modules[0].module.eval()
    tokens = torch.randint(64, (2, 6))
    with torch.no_grad():
        coarse = plain.decoder(plain.post_quant_conv(plain.quantize.codebook()[tokens].mT.unflatten(2, (2, 3))))
        wanted = F.interpolate(coarse, scale_factor=2, mode="bilinear")
        assert torch.allclose(decoder_only(tokens, (2, 3)), wanted, atol=1e-6)
    assert decoder_only.decoder.last_layer is decoder_only.decoder.upscaler.conv_out.weight
    torch.nn.init.normal_(decoder_only.decoder.last_layer, std=0.1)
    recipe.export(decoder_only, tmp_path / "export")
    finer = checkpoint.load(tmp_path / "export", "vq").eval()
    assert not torch.allclose(finer.decode(tokens, (2, 3)), wanted.clamp(-1, 1), atol=0.01)
    assert finer.identity().keys() == plain.identity().keys()
    again = scenes_decoder(str(tmp_path / "export"), str(tmp_path), str(tmp_path)).modules[0].module
    assert torch.equal(again.decoder.last_layer, finer.decoder.last_layer)

    assert (plain.config.downsample, finer.config.downsample, finer.config.encoded) == (8, 16, 8)
    pixels = torch.rand(1, 3, 16, 24) * 2 - 1
    large = pixels.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(finer.encode(large), plain.encode(pixels)) and finer.grid(32, 48) == (2, 3)
    with pytest.raises(ValueError, match="24x16 px does not divide into tokens of 16x16 px"):
        finer.encode(pixels)


@pytest.mark.journey
@pytest.mark.parametrize("recipe_batch", [0, 1])
def test_scenes_are_painted_in_the_size_of_the_tokenizers_pictures(tmp_path, recipe_batch):
    finer = VQModel(replace(COARSE, patch=8, decoder_patch=16, refiner_channels=32, refiner_blocks=1,
                            upscaler_channels=32, upscaler_blocks=1))  # fmt: skip
    write_scenes(finer, Sprites(), tmp_path, 1024, checkpoint.fingerprint(finer.identity()))
    data = DecoderBatches((str(tmp_path),), None, batch=4, scale=finer.config.upscale)
    batch = data(recipe_batch)
    rows, columns = batch["grid"]
    assert batch["pixels"].shape == (4, 3, 32 * rows, 32 * columns)
    tokens = finer.encode(batch["pixels"].float().div(127.5).sub(1))
    same, others = ((tokens == theirs).float().mean() for theirs in (batch["tokens"], batch["tokens"].roll(1, 0)))
    assert same > 0.5 and same > others + 0.2, "the finer picture shows the encoder what the scene shows"


def test_a_refiner_sees_across_the_seams_of_patches():
    """The pixels of one patch reach those of its neighbour, which the linear layer before it never lets them."""
    torch.manual_seed(0)
    refiner = VQModel(replace(COARSE, refiner_channels=32, refiner_blocks=1)).decoder.refiner
    torch.nn.init.normal_(refiner.conv_out.weight, std=0.1)
    pixels = torch.rand(1, 3, 8, 16, requires_grad=True)
    refiner(pixels, torch.zeros(1, 32, 1, 2))[0][..., :8].sum().backward()
    assert pixels.grad[..., 8:].abs().max() > 1e-4


def test_a_refiner_wants_patches_that_it_divides():
    with pytest.raises(ValueError, match="a refiner works on 4 px"):
        replace(SMALL, refiner_channels=32)
    with pytest.raises(ValueError, match="an upscaler reads the features of a refiner"):
        replace(COARSE, upscaler_channels=32)
