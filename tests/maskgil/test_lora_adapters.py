"""LoRA adapters beside a generator: what peft and diffusers compute, and nothing of it where they are not asked for."""

import json
import threading
from dataclasses import replace

import pytest
import torch
from conftest import TINY, make_condition, make_tiny
from diffusers import UVit2DModel
from peft import LoraConfig, inject_adapter_in_model
from released_folders import amused_folder
from safetensors.torch import load_file, save_file

import text_encoder
from maskgil.lora_adapters import AdaptedGenerator, load_adapter
from maskgil.pipeline import TextToImage
from train import lora

TOKENS = torch.arange(12).view(2, 6) % 33


def trained(folder, rank=4, seed=1, **config):
    """(a MaskGIL with peft's adapters, trained by chance; their folder, as our own recipe writes it)."""
    model = make_tiny()
    config = LoraConfig(r=rank, lora_alpha=8, target_modules=lora.TARGETS, **config)
    inject_adapter_in_model(config, model)
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    lora.save_adapters(model, config, "tiny", folder)
    return model, folder


def run(model):
    return model(TOKENS, (2, 3), make_condition())


@pytest.mark.parametrize(
    "config", [{}, {"use_rslora": True}, {"alpha_pattern": {"attention.wo": 2}}], ids=["plain", "rslora", "pattern"]
)
def test_peft_adapters_give_what_peft_gives(tmp_path, config):
    expected, folder = trained(tmp_path, **config)
    base = make_tiny()
    before = run(base)
    adapted = AdaptedGenerator(base, [(load_adapter(folder, base), 1.0)])
    torch.testing.assert_close(run(adapted), run(expected), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(run(adapted), before, atol=0.1)
    assert torch.equal(run(base), before)  # the generator itself is as it was


def test_weights_add_up_and_zero_is_off(tmp_path):
    _, one = trained(tmp_path / "one")
    _, two = trained(tmp_path / "two", rank=2, seed=2)
    base = make_tiny()
    first, second = load_adapter(one, base), load_adapter(two, base)
    torch.testing.assert_close(run(AdaptedGenerator(base, [(first, 0.0)])), run(base))
    both = AdaptedGenerator(base, [(first, 0.5), (second, -2.0)])
    merged = make_tiny()
    for adapter, weight in ((first, 0.5), (second, -2.0)):
        for name, update in adapter.updates.items():
            layer = merged.get_submodule(name)
            layer.weight.data += weight * update.scale * update.up @ update.down
    torch.testing.assert_close(run(both), run(merged), atol=1e-4, rtol=1e-4)


def test_a_thread_without_adapters_is_not_touched_by_one_with(tmp_path):
    _, folder = trained(tmp_path)
    base = make_tiny()
    adapted, plain = AdaptedGenerator(base, [(load_adapter(folder, base), 1.0)]), run(base)
    inside, seen, main = threading.Event(), [], threading.current_thread()
    other = threading.Thread(target=lambda: (inside.wait(), seen.append(run(base))))

    def meanwhile(*_):
        """In the middle of the adapted evaluation, the other thread makes one of its own."""
        if threading.current_thread() is main:
            inside.set()
            other.join()

    base.layers[0].register_forward_hook(meanwhile)
    other.start()
    run(adapted)
    assert torch.equal(seen[0], plain)


@pytest.fixture(scope="module")
def amused(tmp_path_factory):
    return amused_folder(tmp_path_factory.mktemp("amused") / "model")


@pytest.mark.parametrize("style", ["diffusers", "alpha", "old"])
def test_diffusers_adapters_give_what_diffusers_gives(amused, tmp_path, style):
    """As its training script for aMUSEd writes them, and two spellings that are met in the wild."""
    model = TextToImage.load(amused, text_encoder.load)
    reference = UVit2DModel.from_pretrained(amused / "transformer").eval()
    reference.add_adapter(
        LoraConfig(r=4, lora_alpha=6, target_modules=["to_q", "to_k", "to_v", "to_out.0", "ff.net.2"])
    )
    for name, parameter in reference.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    reference.save_lora_adapter(tmp_path / "saved", weight_name="pytorch_lora_weights.safetensors")
    held = load_file(tmp_path / "saved" / "pytorch_lora_weights.safetensors")
    if style != "diffusers":
        held = {f"transformer.{name}": tensor for name, tensor in held.items()}
        if style == "old":
            held = {n.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): t for n, t in held.items()}
        layers = {name.split(".lora")[0] for name in held}
        held |= {f"{layer}.alpha": torch.tensor(6.0) for layer in layers}
        save_file(held, tmp_path / "ink.safetensors")
    path = tmp_path / ("saved" if style == "diffusers" else "ink.safetensors")
    adapted = AdaptedGenerator(model.generator, [(load_adapter(path, model.generator), 1.0)])
    condition, tokens = model.condition(["a cat"]), torch.randint(0, 40, (1, 64))
    states = condition.states
    with torch.no_grad():
        expected = reference(tokens.view(1, 8, 8), states[:, 1:], states[:, 0], torch.tensor([[32, 32, 0, 0, 6.0]]))
        got = adapted(tokens, (8, 8), condition)
        plain = model.generator(tokens, (8, 8), condition)
    torch.testing.assert_close(got, expected.flatten(2).transpose(1, 2), atol=1e-4, rtol=0)
    assert not torch.allclose(got, plain, atol=1e-2)


def test_what_does_not_fit_is_named(tmp_path):
    _, folder = trained(tmp_path / "good")
    wide = make_tiny(replace(TINY, dim=48, heads=3))
    with pytest.raises(
        ValueError, match=r"the matrices of layers.0.attention.wo are \(4, 32\) and \(32, 4\), expected"
    ):
        load_adapter(folder, wide)
    with pytest.raises(ValueError, match="changes layers.1.*it is for another one"):
        load_adapter(folder, make_tiny(replace(TINY, layers=1)))
    with pytest.raises(ValueError, match="holds no LoRA adapter"):
        load_adapter(tmp_path, make_tiny())
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(ValueError, match="use_dora True.*plain LoRA is supported"):
        load_adapter(folder, make_tiny())
    (folder / "adapter_model.safetensors").write_bytes(b"x" * 40)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="cut or not a safetensors file"):
        load_adapter(folder, make_tiny())
    for name, message in (("text_encoder.q", "the text encoder"), ("transformer.q", "no linear layer")):
        save_file(
            {f"{name}.lora_A.weight": torch.zeros(2, 4), f"{name}.lora_B.weight": torch.zeros(4, 2)},
            tmp_path / "x.safetensors",
        )
        with pytest.raises(ValueError, match=message):
            load_adapter(tmp_path / "x.safetensors", make_tiny())
    save_file({"norm.weight": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="no LoRA: norm.weight"):
        load_adapter(tmp_path / "x.safetensors", make_tiny())


def test_a_weight_out_of_bounds_is_refused(tmp_path):
    _, folder = trained(tmp_path)
    base = make_tiny()
    adapter = load_adapter(folder, base)
    for weight in (11.0, float("nan")):
        with pytest.raises(ValueError, match="give a number from -10 to 10"):
            AdaptedGenerator(base, [(adapter, weight)])


LAYER, BAD = "layers.0.attention.wo", float("nan")


@pytest.mark.parametrize(
    "down, up, alpha, message",
    [
        (torch.tensor(1.0), torch.tensor(1.0), None, "has no two matrices"),
        (torch.zeros(0, 32), torch.zeros(32, 0), None, "has no two matrices"),
        (torch.zeros(2, 32).int(), torch.zeros(32, 2).int(), None, "whole numbers"),
        (torch.full((2, 32), BAD), torch.zeros(32, 2), None, "not finite"),
        (torch.zeros(2, 32), torch.zeros(32, 2), torch.zeros(2), "scale of .* cannot be read"),
        (torch.zeros(2, 32), torch.zeros(32, 2), torch.tensor(BAD), "alpha is not finite"),
    ],
)
def test_matrices_that_are_none_are_refused(tmp_path, down, up, alpha, message):
    tensors = {f"transformer.{LAYER}.lora_A.weight": down, f"transformer.{LAYER}.lora_B.weight": up}
    tensors |= {} if alpha is None else {f"transformer.{LAYER}.alpha": alpha}
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=message):
        load_adapter(tmp_path / "x.safetensors", make_tiny())


@pytest.mark.parametrize("notes", ['{"transformer.lora_alpha": []}', "[" * 10**5,
    '{"transformer.lora_alpha": 1, "transformer.alpha_pattern": {"(a+)+$": 2}}'], ids=range(3))  # fmt: skip
def test_notes_of_diffusers_that_are_damaged_are_refused(tmp_path, notes):
    tensors = {f"transformer.{LAYER}.lora_A.weight": torch.zeros(2, 32)}
    tensors |= {f"transformer.{LAYER}.lora_B.weight": torch.zeros(32, 2)}
    save_file(tensors, tmp_path / "x.safetensors", {"lora_adapter_metadata": notes})
    with pytest.raises(ValueError, match=r"x\.safetensors"):
        load_adapter(tmp_path / "x.safetensors", make_tiny())


CONFIGS = (
    *("{}", "[]", "[" * 10**5, '{"lora_alpha": NaN}', '{"lora_alpha": 1, "alpha_pattern": [1]}'),
    *('{"lora_alpha": 1, "alpha_pattern": {"(((": 1}}', '{"lora_alpha": 1, "alpha_pattern": {"(a+)+$": 1}}'),
    '{"lora_alpha": 1, "alpha_pattern": {"wo": "x"}}',
)


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_configs_of_peft_that_are_damaged_are_refused(tmp_path, config):
    """An expression from a file is not run: it could take for ever."""
    _, folder = trained(tmp_path)
    (folder / "adapter_config.json").write_text(config)
    with pytest.raises(ValueError, match="plain LoRA is supported"):
        load_adapter(folder, make_tiny())
