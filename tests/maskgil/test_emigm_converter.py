"""Released continuous models: files of exactly the published names and shapes fit; the tied token; foreign files."""

import logging
import re
from dataclasses import replace

import pytest
import torch
from test_emigm import TINY, classes, make
from torch import Tensor

from maskgil.converters.emigm import convert_dc_ae, convert_emigm, convert_kl
from maskgil.models.emigm import EMIGM, EMIGM_PRESETS, EMIGMConfig
from maskgil.tokenizers.autoencoder import AUTOENCODER_PRESETS, AutoencoderTokenizer

SQUARE = replace(TINY, grid=(2, 2))  # a file does not say its grid: released ones are square


def both(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def emigm_file(config: EMIGMConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a released file, written from the published description."""
    d, w, slots = config.width, config.head_width, 64 + 256
    names = {"class_emb.weight": (1000, d), "fake_latent": (1, d), "mask_token": (1, d)}
    names |= {"encoder_pos_embed_learned": (1, slots, d), "decoder_pos_embed_learned": (1, slots, d)}
    names |= {"diffusion_pos_embed_learned": (1, 256, d)} | both("z_proj", d, config.channels)
    names |= both("z_proj_ln", d) | both("encoder_norm", d) | both("decoder_norm", d) | both("decoder_embed", d, d)
    for part in ("encoder", "decoder"):
        for i in range(config.depth):
            block = f"{part}_blocks.{i}"
            names |= both(f"{block}.norm1", d) | both(f"{block}.norm2", d)
            names |= both(f"{block}.attn.qkv", 3 * d, d) | both(f"{block}.attn.proj", d, d)
            names |= both(f"{block}.mlp.fc1", 4 * d, d) | both(f"{block}.mlp.fc2", d, 4 * d)
    head = "diffloss.net"
    names |= both(f"{head}.time_embed.mlp.0", w, 256) | both(f"{head}.time_embed.mlp.2", w, w)
    names |= both(f"{head}.cond_embed", w, d) | both(f"{head}.input_proj", w, config.channels)
    for i in range(config.head_depth):
        block = f"{head}.res_blocks.{i}"
        names |= both(f"{block}.in_ln", w) | both(f"{block}.mlp.0", w, w) | both(f"{block}.mlp.2", w, w)
        names |= both(f"{block}.adaLN_modulation.1", 3 * w, w)
    names |= both(f"{head}.final_layer.linear", 2 * config.channels, w)
    return names | both(f"{head}.final_layer.adaLN_modulation.1", 2 * w, w)


def kl16_file() -> dict[str, tuple[int, ...]]:
    widths = (128, 128, 256, 256, 512)

    def resnet(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
        names = both(f"{name}.norm1", inputs) | both(f"{name}.conv1", outputs, inputs, 3, 3)
        names |= both(f"{name}.norm2", outputs) | both(f"{name}.conv2", outputs, outputs, 3, 3)
        return names | (both(f"{name}.nin_shortcut", outputs, inputs, 1, 1) if inputs != outputs else {})

    def attention(name: str) -> dict[str, tuple[int, ...]]:
        names = both(f"{name}.norm", 512)
        for part in ("q", "k", "v", "proj_out"):
            names |= both(f"{name}.{part}", 512, 512, 1, 1)
        return names

    names = both("encoder.conv_in", 128, 3, 3, 3) | both("encoder.norm_out", 512)
    names |= both("encoder.conv_out", 32, 512, 3, 3) | both("quant_conv", 32, 32, 1, 1)
    names |= both("decoder.conv_in", 512, 16, 3, 3) | both("decoder.norm_out", 128)
    names |= both("decoder.conv_out", 3, 128, 3, 3) | both("post_quant_conv", 16, 16, 1, 1)
    for side in ("encoder", "decoder"):
        names |= resnet(f"{side}.mid.block_1", 512, 512) | resnet(f"{side}.mid.block_2", 512, 512)
        names |= attention(f"{side}.mid.attn_1")
    for i, width in enumerate(widths):
        before, coarser = widths[max(i - 1, 0)], widths[min(i + 1, 4)]
        for j in range(2):
            names |= resnet(f"encoder.down.{i}.block.{j}", before if j == 0 else width, width)
        for j in range(3):
            names |= resnet(f"decoder.up.{i}.block.{j}", coarser if j == 0 else width, width)
        names |= both(f"encoder.down.{i}.downsample.conv", width, width, 3, 3) if i < 4 else {}
        names |= both(f"decoder.up.{i}.upsample.conv", width, width, 3, 3) if i > 0 else {}
    return names | attention("encoder.down.4.attn.0") | attention("encoder.down.4.attn.1")


def weightless(names: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Tensors without memory."""
    return {name: torch.empty(shape, device="meta") for name, shape in names.items()}


@pytest.mark.parametrize("name", EMIGM_PRESETS)
def test_released_trunks_fit(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "equal", lambda *_: True)  # tensors without memory cannot be compared
    config, tensors = convert_emigm(weightless(emigm_file(EMIGM_PRESETS[name])))
    assert config == EMIGM_PRESETS[name]
    assert sum(t.numel() for t in tensors.values()) == sum(
        torch.Size(s).numel() for n, s in emigm_file(config).items() if n != "fake_latent"
    )


def test_kl16_fits():
    names = kl16_file()
    assert len(names) == 312
    config, tensors = convert_kl(weightless(names))
    assert config == AUTOENCODER_PRESETS["kl16"] and len(tensors) == 312


def test_dc_ae_fits():
    config = AUTOENCODER_PRESETS["dc-ae-f32c32"]
    with torch.device("meta"):
        state = AutoencoderTokenizer(config).net.state_dict()
    assert convert_dc_ae(state)[0] == config


def original_name(name: str) -> str:
    """What DC-AE's own code calls a tensor of diffusers' AutoencoderDC, for the f32c32 layout."""
    name = re.sub(r"^(en|de)coder\.(down|up)_blocks\.(\d+)\.(\d+)\.", r"\1coder.stages.\3.op_list.\4.", name)
    stage = r"^((?:en|de)coder\.stages\.\d+\.op_list\.\d+)"
    name = re.sub(stage + r"\.attn\.", r"\1.context_module.main.", name)
    name = re.sub(stage + r"\.conv_out\.", r"\1.local_module.main.", name)
    name = name.replace(".norm_out.", ".proj.norm.") if ".context_module." in name else name
    for ours, theirs in (
        ("conv_inverted", "inverted_conv"),
        ("conv_depth", "depth_conv"),
        ("conv_point", "point_conv"),
    ):
        name = name.replace(f".{ours}.", f".{theirs}.conv.")
    name = name.replace(".local_module.main.norm.", ".local_module.main.point_conv.norm.")
    if ".context_module." not in name and ".local_module." not in name and ".stages." in name:
        name = re.sub(stage + r"\.norm\.", r"\1.main.conv2.norm.", name)
        name = re.sub(stage + r"\.conv([12])\.", r"\1.main.conv\2.conv.", name)
        name = re.sub(stage + r"\.conv\.", r"\1.main.conv.conv.", name)
    for ours, theirs in (
        ("encoder.conv_in.conv.", "encoder.project_in.conv.conv."),
        ("encoder.conv_out.", "encoder.project_out.main.op_list.0.conv."),
        ("decoder.conv_in.", "decoder.project_in.main.conv."),
        ("decoder.norm_out.", "decoder.project_out.op_list.0."),
        ("decoder.conv_out.conv.", "decoder.project_out.op_list.2.conv.conv."),
    ):
        name = theirs + name.removeprefix(ours) if name.startswith(ours) else name
    return name


def original_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of diffusers' AutoencoderDC as the original single file has it: queries, keys and values in one, and
    1 x 1 convolutions where diffusers has linear layers."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if ".attn.to_k." in name or ".attn.to_v." in name:
            continue
        if ".attn.to_q." in name:
            parts = [state[name.replace("to_q", f"to_{part}")] for part in "qkv"]
            found[original_name(name).replace("to_q.weight", "qkv.conv.weight")] = torch.cat(parts)[..., None, None]
        elif ".attn.to_out." in name:
            found[original_name(name).replace("to_out.weight", "proj.conv.weight")] = tensor[..., None, None]
        else:
            found[original_name(name)] = tensor
    return found


def test_dc_ae_fits_in_its_original_layout():
    config = AUTOENCODER_PRESETS["dc-ae-f32c32"]
    with torch.device("meta"):
        state = AutoencoderTokenizer(config).net.state_dict()
    original = original_layout(state)
    assert "encoder.project_in.conv.conv.weight" in original and "encoder.conv_in.conv.weight" not in original
    found, tensors = convert_dc_ae(original)
    assert found == config and {name.removeprefix("net.") for name in tensors} == state.keys()


def released_state(fake_latent: Tensor) -> dict[str, Tensor]:
    """A tiny model's tensors as a released file has them."""
    return dict(make(SQUARE).state_dict()) | {"fake_latent": fake_latent}


def test_the_mask_token_of_the_file_serves_in_both_roles(caplog: pytest.LogCaptureFixture):
    mask = make(SQUARE).mask_token
    for fake, words in ((mask + 0.25, "differ by up to 0.25"), (mask.clone(), "")):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            config, tensors = convert_emigm(released_state(fake), heads=2)
        assert words in caplog.text and bool(words) == bool(caplog.text)
        assert config == replace(SQUARE, dropout=0.1)
        model = EMIGM(config)
        model.load_state_dict(tensors)
        drop = torch.tensor([True])
        assert torch.equal(model.slots(classes(1), drop)[0], mask.expand(4, -1))
        assert torch.equal(model.mask_token, mask)


def test_mar_files_keep_their_own_null_token():
    tokens = make(replace(SQUARE, null="token"))
    state = dict(tokens.state_dict())
    state["mask_token"] = state["mask_token"][None]
    config, tensors = convert_emigm(state, heads=2)
    assert config.null == "token"
    model = EMIGM(config)
    model.load_state_dict(tensors)
    assert torch.equal(model.null_token, tokens.fake_latent)


def test_foreign_and_broken_files_are_refused():
    state = released_state(torch.zeros(1, 16))
    with pytest.raises(ValueError, match="no eMIGM checkpoint: z_proj.weight, .*; it holds tok_embeddings.weight"):
        convert_emigm({"tok_embeddings.weight": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match="no KL autoencoder: it holds class_emb.weight"):
        convert_kl({name: state[name] for name in sorted(state)})
    theirs = {"encoder.conv_in.weight": torch.zeros(1), "post_quant_conv.weight": torch.zeros(4, 4, 1, 1)}
    with pytest.raises(ValueError, match="lacks encoder.down.0.block.0.conv1.weight: it is cut, or has other names"):
        convert_kl(theirs)
    with pytest.raises(ValueError, match="lacks encoder.down.1.block.0.conv1.weight"):
        convert_kl(theirs | {f"encoder.down.{name}": torch.zeros(8, 1) for name in ("0.block.0.conv1.weight", "1.x")})
    with pytest.raises(ValueError, match="width 16; released ones are 448, 512, 768, 1024, 1280 wide"):
        convert_emigm(state)
    with pytest.raises(ValueError, match="fake_latent or mask_token is missing"):
        convert_emigm({name: tensor for name, tensor in state.items() if name != "fake_latent"}, heads=2)
    with pytest.raises(ValueError, match="of 6 tokens: not a square"):
        convert_emigm(dict(make().state_dict()), heads=2)
    with pytest.raises(ValueError, match=r"encoder_norm.bias is \(3,\), expected \(16,\)"):
        convert_emigm(state | {"encoder_norm.bias": torch.zeros(3)}, heads=2)
    with pytest.raises(ValueError, match="extra"):
        convert_emigm(state | {"extra": torch.zeros(3)}, heads=2)
