"""Continuous tokenizers: sizes of the released ones, the original VAE code's numbers, scales and bad input."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from maskgil.converters import taming_name
from maskgil.converters.emigm import convert_kl
from maskgil.tokenizers.autoencoder import (
    AUTOENCODER_PRESETS,
    AutoencoderConfig,
    AutoencoderTokenizer,
    to_tokens,
    validate_scale,
)
from maskgil.tokenizers.vq import Decoder, Encoder, VQConfig

pytest.importorskip("diffusers")

TINY = AutoencoderConfig(channels=4, widths=(32, 32, 64), layers=1, scale=0.5)


def make(config: AutoencoderConfig = TINY, seed: int = 0) -> AutoencoderTokenizer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoencoderTokenizer(config).eval().requires_grad_(False)


def pixels(rows: int = 2, height: int = 8, width: int = 12) -> Tensor:
    return torch.rand(rows, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_cells_of_pixels_may_enter_whole():
    """A patch of 2 stands for one level: as many tokens, all pixels within reach."""
    config = replace(TINY, widths=(32, 64), patch=2)
    model = make(config)
    assert config.downsample == TINY.downsample == 4 and model.encode(pixels()).shape == (2, 6, 4)
    result = model.reconstruct(model.posterior(pixels())[0])
    assert result.shape == pixels().shape and not torch.equal(result[..., ::2, :], result[..., 1::2, :])
    with pytest.raises(ValueError, match="patch is 0"):
        replace(TINY, patch=0)


def test_a_decoder_may_have_a_shape_of_its_own():
    config = replace(TINY, decoder_widths=(96,), decoder_patch=4)
    model, mirror = make(config), make()
    assert model.encode(pixels()).shape == (2, 6, 4) and model.reconstruct(model.posterior(pixels())[0]).shape == (
        pixels().shape
    )
    assert model.identity().keys() == mirror.identity().keys()
    wide = {p.shape[0] for name, p in model.net.decoder.named_parameters() if name.endswith("conv1.weight")}
    assert wide == {96}
    assert AutoencoderConfig.from_dict(
        {k: list(v) if isinstance(v, tuple) else v for k, v in config.to_dict().items()}
    ) == (config)
    with pytest.raises(ValueError, match="come together"):
        replace(TINY, decoder_widths=(96,))
    with pytest.raises(ValueError, match="tokens of 4 px; a decoder of 2 levels and patches of 4 px reads others"):
        replace(TINY, decoder_widths=(32, 32), decoder_patch=4)


@pytest.mark.parametrize(
    "name, parameters, tensors, downsample, scale",
    [("kl16", 66_456_019, 312, 16, 0.2325), ("dc-ae-f32c32", 323_356_460, None, 32, 0.3189)],
)
def test_sizes_are_the_released_ones(name: str, parameters: int, tensors: int | None, downsample: int, scale: float):
    config = AUTOENCODER_PRESETS[name]
    with torch.device("meta"):
        model = AutoencoderTokenizer(config)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert tensors is None or len(model.state_dict()) == tensors
    assert (config.downsample, config.scale) == (downsample, scale)


def test_kl_computes_what_the_original_code_does():
    """LlamaGen's convolutional network is the same one under other names: with attention at the coarsest level in the
    encoder, and in the decoder only in the middle."""
    torch.manual_seed(0)
    shape = VQConfig(channels=TINY.widths, res_blocks=1)
    encoder, decoder = (
        Encoder(replace(shape, z_channels=8)),
        Decoder(replace(shape, z_channels=4, level_attention=False)),
    )
    quant, post_quant = torch.nn.Conv2d(8, 8, 1), torch.nn.Conv2d(4, 4, 1)
    parts = {"encoder": encoder, "decoder": decoder, "quant_conv": quant, "post_quant_conv": post_quant}
    state = {
        taming_name(f"{part}.{name}", last=2): tensor
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }
    config, tensors = convert_kl(state | {"loss.logvar": torch.zeros(())})
    assert config == replace(TINY, scale=0.2325)
    model = AutoencoderTokenizer(config).eval()
    model.load_state_dict(tensors)
    with torch.no_grad():
        mean, log_variance = quant(encoder(pixels())).chunk(2, dim=1)
        ours, deviation = model.posterior(pixels())
        assert torch.allclose(ours, mean, atol=1e-5)
        assert torch.allclose(deviation, (0.5 * log_variance).exp(), atol=1e-5)
        assert torch.allclose(model.reconstruct(mean), decoder(post_quant(mean)), atol=1e-5)


def test_tokens_are_scaled_samples_of_the_posterior_in_raster_order():
    model = make()
    mean, deviation = model.posterior(pixels())
    noise = torch.randn(2, 6, 4)
    assert torch.allclose(model.encode(pixels()), 0.5 * to_tokens(mean))
    assert torch.allclose(model.encode(pixels(), noise), 0.5 * (to_tokens(mean) + to_tokens(deviation) * noise))
    assert torch.equal(to_tokens(mean)[1, 4], mean[1, :, 1, 1])  # 3 columns: token 4 is row 1, column 1


def test_decoding_undoes_the_scale():
    model = make()
    mean, _ = model.posterior(pixels())
    assert torch.allclose(model.decode(model.encode(pixels()), (2, 3)), model.reconstruct(mean).clamp(-1, 1), atol=1e-5)


def test_latents_of_the_wrong_scale_are_recognised():
    right = torch.randn(16, 64, 4, generator=torch.Generator().manual_seed(0))
    for config in (TINY, *AUTOENCODER_PRESETS.values()):
        validate_scale(right, config.scale)
        with pytest.raises(ValueError, match=r"seem not scaled: .* have about 1"):
            validate_scale(right / config.scale, config.scale)
        with pytest.raises(ValueError, match="seem scaled twice"):
            validate_scale(right * config.scale, config.scale)
    with pytest.raises(ValueError, match="standard deviation of nan"):
        validate_scale(right * float("nan"), TINY.scale)


def test_configs_survive_json_and_refuse_nonsense():
    for config in (TINY, *AUTOENCODER_PRESETS.values()):
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in config.to_dict().items()}
        assert AutoencoderConfig.from_dict(values) == config
    with pytest.raises(ValueError, match="unknown keys in the latent tokenizer's config: z"):
        AutoencoderConfig.from_dict({"z": 1})
    with pytest.raises(ValueError, match="multiples of the 32 norm groups"):
        replace(TINY, widths=(48,))
    with pytest.raises(ValueError, match="a latent scale is positive; 0.0"):
        replace(TINY, scale=0.0)
    with pytest.raises(ValueError, match="DC-AE has 6 levels"):
        AutoencoderConfig(family="dc")


def test_shapes_that_do_not_fit_are_refused():
    model = make()
    with pytest.raises(ValueError, match="a picture of 13x8 px does not divide into tokens of 4x4 px"):
        model.encode(pixels(width=13))
    with pytest.raises(ValueError, match="6 tokens do not fill a grid of 2 rows and 4 columns"):
        model.decode(torch.zeros(1, 6, 4), (2, 4))
    with pytest.raises(ValueError, match="tokens of 5 channels; this tokenizer has 4"):
        model.decode(torch.zeros(1, 6, 5), (2, 3))
