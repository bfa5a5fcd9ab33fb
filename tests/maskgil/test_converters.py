"""Released files of exactly the published names and shapes fit, whole; a wrong tensor is named; others are refused.

Names and shapes are written here a second time, from the published descriptions and not from our modules. Full-size
tensors are one number seen through `expand`, so that a file of them is small.
"""

import argparse
import functools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from commands import maskgil
from test_emigm_converter import emigm_file, kl16_file

from maskgil.checkpoint import build_module, describe, load
from maskgil.condition import Condition
from maskgil.converters import CONVERTERS, chameleon_vq, convert, llamagen_gpt, maskgil_from_llamagen
from maskgil.models.ar import ARTransformer
from maskgil.models.config import PRESETS, ModelConfig
from maskgil.models.emigm import EMIGM_PRESETS
from maskgil.models.maskgil import MaskGIL
from maskgil.tokenizers.vq import VQConfig, VQModel


def both(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def resnet(name, inputs, outputs):
    names = both(f"{name}.norm1", inputs) | both(f"{name}.conv1", outputs, inputs, 3, 3)
    names |= both(f"{name}.norm2", outputs) | both(f"{name}.conv2", outputs, outputs, 3, 3)
    return names | (both(f"{name}.nin_shortcut", outputs, inputs, 1, 1) if inputs != outputs else {})


def attention(name, channels):
    names = both(f"{name}.norm", channels)
    for part in ("q", "k", "v", "proj_out"):
        names |= both(f"{name}.{part}", channels, channels, 1, 1)
    return names


def ends(widths, z, codes, code_dim):
    """What both namings share: first and last layers, quantiser."""
    names = both("encoder.conv_in", widths[0], 3, 3, 3) | both("encoder.conv_out", z, widths[-1], 3, 3)
    names |= both("decoder.conv_in", widths[-1], z, 3, 3) | both("decoder.conv_out", 3, widths[0], 3, 3)
    names |= both("encoder.norm_out", widths[-1]) | both("decoder.norm_out", widths[0])
    names |= both("quant_conv", code_dim, z, 1, 1) | both("post_quant_conv", z, code_dim, 1, 1)
    return names | {"quantize.embedding.weight": (codes, code_dim)}


def llamagen_vq_file(widths=(128, 128, 256, 256, 512)):
    last = len(widths) - 1
    names = ends(widths, 256, 16384, 8) | {"quantize.codebook_used": (65536,)}
    for level, width in enumerate(widths):
        for block in (0, 1):
            inputs = widths[max(level - 1, 0)] if block == 0 else width
            names |= resnet(f"encoder.conv_blocks.{level}.res.{block}", inputs, width)
        if level < last:
            names |= both(f"encoder.conv_blocks.{level}.downsample.conv", width, width, 3, 3)
    for level, width in enumerate(widths[::-1]):
        for block in (0, 1, 2):
            inputs = widths[::-1][max(level - 1, 0)] if block == 0 else width
            names |= resnet(f"decoder.conv_blocks.{level}.res.{block}", inputs, width)
        if level < last:
            names |= both(f"decoder.conv_blocks.{level}.upsample.conv", width, width, 3, 3)
    for block in (0, 1):
        names |= attention(f"encoder.conv_blocks.{last}.attn.{block}", widths[-1])
    for block in (0, 1, 2):
        names |= attention(f"decoder.conv_blocks.0.attn.{block}", widths[-1])
    for side in ("encoder", "decoder"):
        names |= attention(f"{side}.mid.1", widths[-1])
        for block in (0, 2):
            names |= resnet(f"{side}.mid.{block}", widths[-1], widths[-1])
    return names


def taming_file(widths=(128, 128, 256, 256, 512), z=256, codes=8192, blocks=2):
    """Chameleon's vqgan.ckpt: levels counted from the finest on both sides, blocks in the middle named apart."""
    last = len(widths) - 1
    names = ends(widths, z, codes, z)
    for level, width in enumerate(widths):
        for block in range(blocks):
            inputs = widths[max(level - 1, 0)] if block == 0 else width
            names |= resnet(f"encoder.down.{level}.block.{block}", inputs, width)
        for block in range(blocks + 1):
            inputs = widths[min(level + 1, last)] if block == 0 else width
            names |= resnet(f"decoder.up.{level}.block.{block}", inputs, width)
        if level < last:
            names |= both(f"encoder.down.{level}.downsample.conv", width, width, 3, 3)
        if level > 0:
            names |= both(f"decoder.up.{level}.upsample.conv", width, width, 3, 3)
    for side in ("encoder", "decoder"):
        names |= attention(f"{side}.mid.attn_1", widths[-1])
        for block in (1, 2):
            names |= resnet(f"{side}.mid.block_{block}", widths[-1], widths[-1])
    return names


def gpt_file(dim, layers, hidden, classes=None, codes=16384, text=(120, 2048)):
    names = {"tok_embeddings.weight": (codes, dim), "output.weight": (codes, dim), "norm.weight": (dim,)}
    if classes is None:
        names |= {"cls_embedding.uncond_embedding": text}
        names |= {"cls_embedding.cap_proj.fc1.weight": (dim, text[1]), "cls_embedding.cap_proj.fc2.weight": (dim, dim)}
    else:
        names |= {"cls_embedding.embedding_table.weight": (classes + 1, dim)}
    for layer in range(layers):
        part = f"layers.{layer}"
        names |= {f"{part}.attention.wqkv.weight": (3 * dim, dim), f"{part}.attention.wo.weight": (dim, dim)}
        names |= {f"{part}.feed_forward.w{i}.weight": (hidden, dim) for i in (1, 3)}
        names |= {f"{part}.feed_forward.w2.weight": (dim, hidden)}
        names |= {f"{part}.attention_norm.weight": (dim,), f"{part}.ffn_norm.weight": (dim,)}
    return names


def thin(names):
    """Tensors of these shapes that take no memory."""
    return {name: torch.full((1,), 0.01).expand(shape) for name, shape in names.items()}


def full(names, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in names.items()}


def numbers(names):
    return sum(functools.reduce(int.__mul__, shape) for shape in names.values())


SIZES = {"b": (768, 12, 2048), "l": (1024, 24, 2816), "xl": (1280, 36, 3584), "xxl": (1536, 48, 4096)}
FILES = {
    "vq16": ("llamagen-vq", llamagen_vq_file()),
    "vq8": ("llamagen-vq", llamagen_vq_file((128, 256, 256, 512))),
    "chameleon": ("chameleon-vq", taming_file()),
    "t2i": ("llamagen-gpt", gpt_file(1280, 36, 3584)),
    **{size: ("llamagen-gpt", gpt_file(*shape, classes=1000)) for size, shape in SIZES.items()},
}


def test_the_lists_written_here_are_the_published_ones():
    """Counts of the published checkpoints, codebook statistics and null caption apart."""
    counts = {name: numbers(names) for name, (_, names) in FILES.items()}
    assert counts["vq16"] - 65536 == 71_883_403 and len(FILES["vq16"][1]) == 344
    assert counts["vq8"] - 65536 == 70_109_835 and len(FILES["vq8"][1]) == 300
    assert counts["t2i"] - 245_760 == 777_678_080


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("wrapped", ["model", "flat"])
def test_every_tensor_of_a_released_file_is_used(name, wrapped, tmp_path):
    converter, names = FILES[name]
    path, tensors = tmp_path / "file.pt", thin(names)
    arguments = argparse.Namespace(lr=1e-4)  # LlamaGen's training script saves its arguments too
    torch.save({"model": tensors, "steps": 7, "args": arguments} if wrapped == "model" else tensors, path)
    result = convert(converter, path)
    model = build_module(result.kind, result.config, "test")
    assert result.tensors.keys() == model.state_dict().keys()
    assert all(result.tensors[name].shape == tensor.shape for name, tensor in model.state_dict().items())
    assert sum(tensor.numel() for tensor in result.tensors.values()) == numbers(names)


@pytest.mark.parametrize("name", ["vq16", "vq8", "chameleon", "t2i", "b"])
def test_a_tensor_that_is_wrong_missing_or_foreign_is_named(name):
    converter, names = FILES[name]
    run = CONVERTERS[converter].run
    victim = [
        n for n in names if n.endswith(("mid.1.q.weight", "mid.attn_1.q.weight", "layers.3.attention.wo.weight"))
    ][-1]
    tensors = thin(names)
    with pytest.raises(ValueError, match=rf"{victim} is \(3, 5\), expected \({names[victim][0]}, "):
        run(tensors | {victim: torch.zeros(3, 5)}, "file.pt")
    with pytest.raises(ValueError, match=rf"{victim} .* is missing"):
        run({n: t for n, t in tensors.items() if n != victim}, "file.pt")
    with pytest.raises(ValueError, match=r"freqs_cis \(7,\) is not part of the model"):
        run(tensors | {"freqs_cis": torch.zeros(7)}, "file.pt")


@pytest.mark.parametrize("size", [*SIZES, "t2i-xl"])
def test_a_warm_start_has_the_shapes_of_the_preset(size):
    names = gpt_file(1280, 36, 3584) if size == "t2i-xl" else gpt_file(*SIZES[size], classes=1000)
    # One row of codes instead of 16,384: the tables that grow are copied
    small = {n: (16, s[1]) if n in ("tok_embeddings.weight", "output.weight") else s for n, s in names.items()}
    result = maskgil_from_llamagen(thin(small), "file.pt")
    assert ModelConfig.from_dict(result.config) == replace(PRESETS[f"{size}-llamagen"], codebook_size=16)


@pytest.mark.parametrize(
    ("converter", "kind", "names"),
    [("emigm", "emigm", emigm_file(EMIGM_PRESETS["emigm-xs-256"])), ("kl16", "latent", kl16_file())],
)
def test_continuous_models_come_in_by_the_same_command(converter, kind, names):
    result = CONVERTERS[converter].run(thin(names), "file.pth")
    model = build_module(kind, result.config, "test")
    assert result.kind == kind and result.tensors.keys() == model.state_dict().keys()


SMALL = {"dim": 64, "layers": 2, "hidden": 256, "codes": 12}


def test_a_class_driven_warm_start_maps_rows_as_published():
    tensors = full(gpt_file(**SMALL, classes=5))
    result = maskgil_from_llamagen(dict(tensors), "file.pt")
    table = result.tensors["tok_embeddings.weight"]
    assert table.shape == (12 + 1 + 5 + 1, 64)
    assert torch.equal(table[:12], tensors["tok_embeddings.weight"])
    assert torch.equal(table[13:], tensors["cls_embedding.embedding_table.weight"])  # the null class last
    assert 0.01 < table[12].std() < 0.03
    assert torch.equal(result.tensors["output.weight"][:12], tensors["output.weight"])
    assert not result.tensors["output.weight"][12].any()
    for name in ("layers.1.attention.wqkv.weight", "layers.0.ffn_norm.weight", "norm.weight"):
        assert torch.equal(result.tensors[name], tensors[name])


def test_a_text_driven_warm_start_runs(tmp_path):
    path = tmp_path / "t2i.pt"
    torch.save({"module": full(gpt_file(**SMALL, text=(6, 10)))}, path)
    maskgil("convert", "maskgil-from-llamagen", path, tmp_path / "mar")
    model = load(tmp_path / "mar", "maskgil")
    condition = Condition(torch.randn(1, 6, 10), torch.ones(1, 6, dtype=torch.bool))
    logits = model(torch.full((1, 4), model.config.mask_id), (2, 2), condition, torch.tensor([True]))
    assert logits.shape == (1, 4, 12) and logits.isfinite().all()
    assert "t2i.pt" in (tmp_path / "mar" / "README.md").read_text()


@pytest.mark.parametrize("classes", [None, 5])
def test_a_converted_gpt_is_llamagen(classes, tmp_path):
    tensors = full(gpt_file(**SMALL, classes=classes, text=(6, 10)))
    path = tmp_path / "gpt.pt"
    torch.save(tensors, path)
    maskgil("convert", "llamagen-gpt", path, tmp_path / "gpt")
    model = load(tmp_path / "gpt")
    assert isinstance(model, ARTransformer) and model.zero_prefix and describe(tmp_path / "gpt")["kind"] == "llamagen"
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in tensors.items())


def taming(tensors, levels):
    """A plain second writing of taming's VQGAN: (encode to latents, decode from codes) by the file's own names."""

    def conv(x, name, **options):
        return F.conv2d(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], **options)

    def norm(x, name):
        return F.group_norm(x, 32, tensors[f"{name}.weight"], tensors[f"{name}.bias"], eps=1e-6)

    def swish(x):
        return x * x.sigmoid()

    def block(x, name):
        h = conv(swish(norm(x, f"{name}.norm1")), f"{name}.conv1", padding=1)
        h = conv(swish(norm(h, f"{name}.norm2")), f"{name}.conv2", padding=1)
        return h + (conv(x, f"{name}.nin_shortcut") if f"{name}.nin_shortcut.weight" in tensors else x)

    def middle(x, name):
        x = block(x, f"{name}.block_1")
        q, k, v = (conv(norm(x, f"{name}.attn_1.norm"), f"{name}.attn_1.{part}").flatten(2) for part in "qkv")
        weight = (q.transpose(1, 2) @ k / q.shape[1] ** 0.5).softmax(2)  # queries by keys
        x = x + conv((v @ weight.transpose(1, 2)).view(x.shape), f"{name}.attn_1.proj_out")
        return block(x, f"{name}.block_2")

    def encode(pixels):
        x = conv(pixels, "encoder.conv_in", padding=1)
        for level in range(levels):
            x = block(x, f"encoder.down.{level}.block.0")
            if level < levels - 1:
                x = conv(F.pad(x, (0, 1, 0, 1)), f"encoder.down.{level}.downsample.conv", stride=2)
        x = conv(swish(norm(middle(x, "encoder.mid"), "encoder.norm_out")), "encoder.conv_out", padding=1)
        latents = conv(x, "quant_conv").flatten(2).transpose(1, 2)
        return torch.cdist(latents, tensors["quantize.embedding.weight"][None]).argmin(2)

    def decode(codes, grid):
        z = tensors["quantize.embedding.weight"][codes].transpose(1, 2).unflatten(2, grid)
        x = middle(conv(conv(z, "post_quant_conv"), "decoder.conv_in", padding=1), "decoder.mid")
        for level in reversed(range(levels)):
            x = block(block(x, f"decoder.up.{level}.block.0"), f"decoder.up.{level}.block.1")
            if level:
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
                x = conv(x, f"decoder.up.{level}.upsample.conv", padding=1)
        return conv(swish(norm(x, "decoder.norm_out")), "decoder.conv_out", padding=1).clamp(-1, 1)

    return encode, decode


def test_a_converted_chameleon_is_taming():
    widths = (32, 32, 64)
    tensors = full(taming_file(widths, z=16, codes=20, blocks=1))
    config = VQConfig(20, 16, widths, res_blocks=1, z_channels=16, l2_norm=False, level_attention=False)
    losses = {"loss.discriminator.main.0.weight": torch.zeros(3)}
    result = chameleon_vq(tensors | losses, "vqgan.ckpt", config)
    model = VQModel(config).eval()
    model.load_state_dict(result.tensors)
    encode, decode = taming(tensors, len(widths))
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    codes = encode(pixels)
    assert torch.equal(model.encode(pixels), codes) and len(codes.unique()) > 3
    assert torch.allclose(model.decode(codes, (4, 4)), decode(codes, (4, 4)), atol=1e-4)


class Foreign:
    """An object that unpickling would have to make by running code."""


def test_files_that_are_refused(tmp_path):
    def said(content=None, name="file.pt", converter="llamagen-gpt"):
        path = tmp_path / name
        if content is not None:
            torch.save(content, path)
        with pytest.raises(ValueError) as caught:
            convert(converter, path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no file" in said(name="none.pt")
    assert "objects that could run code, which are refused" in said({"model": Foreign()})
    assert "holds no tensors by name" in said([torch.zeros(3)])
    assert "it also holds epoch (int)" in said({"epoch": 3, "w": torch.zeros(3)})
    assert "is no LlamaGen GPT: norm.weight is missing; it holds a" in said({"model": {"a": torch.zeros(3)}})
    assert "norm.weight has shape (2, 2)" in said({"norm.weight": torch.zeros(2, 2)})
    assert "is no LlamaGen tokenizer: it has 0" in said({"a": torch.zeros(3)}, converter="llamagen-vq")
    (tmp_path / "text.pt").write_text("not weights")
    assert "not a torch file" in said(name="text.pt")
    (tmp_path / "text.safetensors").write_text("not weights")
    assert "not a safetensors file" in said(name="text.safetensors")
    torch.save(thin(gpt_file(**SMALL, classes=5)), tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    for cut in (len(whole) // 2, len(whole) - 10, 0):
        (tmp_path / "cut.pt").write_bytes(whole[:cut])
        assert "is cut" in said(name="cut.pt")


def test_layers_of_another_width_are_named():
    tensors = thin(gpt_file(**SMALL, classes=5) | {"layers.1.feed_forward.w2.weight": (64, 512)})
    with pytest.raises(ValueError, match=r"layers.1.feed_forward.w2.weight is \(64, 512\), expected \(64, 256\)"):
        llamagen_gpt(tensors, "file.pt")


def published_maskgil_file(dim: int = 64, layers: int = 2, codes: int = 12, classes: int = 5) -> dict:
    """Names and shapes of the published trainer's checkpoint (class-driven, 64 numbers a head)."""
    hidden = -(-(8 * dim // 3) // 256) * 256
    names = {"tok_emb.weight": (codes + 1 + classes + 1, dim), "output.weight": (codes + 1, dim), "norm.weight": (dim,)}
    for i in range(layers):
        block = f"layers.{i}"
        names |= {f"{block}.attention.wqkv.weight": (3 * dim, dim), f"{block}.attention.wo.weight": (dim, dim)}
        names |= {f"{block}.feed_forward.{w}.weight": (hidden, dim) for w in ("w1", "w3")}
        names |= {f"{block}.feed_forward.w2.weight": (dim, hidden)}
        names |= {f"{block}.attention_norm.weight": (dim,), f"{block}.ffn_norm.weight": (dim,)}
    return names


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_a_checkpoint_of_the_published_trainer_converts(prefix, tmp_path):
    """Wrapped by DDP or torch.compile, with its optimizer, and with tables that the model computes by itself."""
    names = published_maskgil_file()
    tensors = {name: torch.randn(shape) for name, shape in names.items()}
    extra = {"freqs_cis": torch.zeros(257, 32, 2), "layers.0.attention.kv_cache.k_cache": torch.zeros(1, 1, 4, 64)}
    held = {prefix + name: tensor for name, tensor in (tensors | extra).items()}
    torch.save(
        {"iter": 7, "global_epoch": 1, "model_state_dict": held, "optimizer_state_dict": {"state": {}}},
        tmp_path / "current.pth",
    )
    result = convert("maskgil", tmp_path / "current.pth")
    config = ModelConfig.from_dict(result.config)
    assert (config.rope, config.classes, config.codebook_size, config.heads) == ("released", 5, 12, 1)
    model = MaskGIL(config)
    model.load_state_dict(result.tensors)
    assert torch.equal(model.tok_embeddings.weight, tensors["tok_emb.weight"])
    with pytest.raises(ValueError, match="no MaskGIL checkpoint: tok_emb.weight"):
        CONVERTERS["maskgil"].run({"a": torch.zeros(1)}, "file.pt")
    with pytest.raises(ValueError, match="layers.1.ffn_norm.weight .* is missing"):
        CONVERTERS["maskgil"].run({n: t for n, t in tensors.items() if n != "layers.1.ffn_norm.weight"}, "file.pt")


@pytest.mark.parametrize(
    ("switch", "message"),
    [
        ({"use_mae": False}, "--use_mae false"),
        ({"patch_size": 2}, "--patch_size 2"),
        ({"use_unsup_cfg": False}, "--use_unsup_cfg False, and its mask_token has the shape .* with it"),
    ],
)
def test_switches_of_an_emigm_file_that_are_not_supported_are_refused_by_name(switch, message, tmp_path):
    usual = {"use_mae": True, "patch_size": 1, "use_unsup_cfg": True, "lr": None}
    tensors = thin(emigm_file(EMIGM_PRESETS["emigm-xs-256"]))
    for kind in (dict, lambda values: argparse.Namespace(**values)):
        torch.save({"model_ema": tensors, "args": kind(usual)}, tmp_path / "good.pth")
        assert convert("emigm", tmp_path / "good.pth").kind == "emigm"
        torch.save({"model_ema": tensors, "args": kind(usual | switch)}, tmp_path / "other.pth")
        with pytest.raises(ValueError, match=message):
            convert("emigm", tmp_path / "other.pth")
