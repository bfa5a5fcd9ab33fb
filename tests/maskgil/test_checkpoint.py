"""A folder comes back as it was saved; a kill leaves the old model or the new one; bad folders are named."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY, make_condition, make_tiny
from safetensors.torch import load_file, save_file

from app.cli import main
from maskgil import checkpoint
from maskgil.checkpoint import describe, fingerprint, load, resolve, save
from maskgil.models.ar import ARTransformer
from maskgil.tokenizers.vq import VQConfig, VQModel

SMALL_VQ = VQConfig(codebook_size=16, codebook_dim=4, channels=(32, 32), res_blocks=1, z_channels=8)


def save_tiny(folder, seed=0, dtype=torch.float32, **notes):
    model = make_tiny(seed=seed)
    save(folder, model, "maskgil", model.config.to_dict(), "# a card\n", dtype, **notes)
    return model


def test_a_folder_comes_back(tmp_path):
    model = save_tiny(tmp_path / "m", tokenizer_hash="abc")
    again = load(tmp_path / "m", "maskgil")
    tokens = torch.randint(33, (2, 6), generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(tokens, (2, 3), make_condition()), model(tokens, (2, 3), make_condition()))
    assert not again.training and again.config == model.config
    assert describe(tmp_path / "m")["tokenizer_hash"] == "abc"
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["README.md", "config.json", "model.safetensors"]


@pytest.mark.parametrize("zero_prefix", [False, True])
def test_ar_models_and_tokenizers_come_back(tmp_path, zero_prefix):
    config = replace(TINY, causal=True, qk_norm="none", null_length=8)
    ar_model = ARTransformer(config, zero_prefix)
    save(tmp_path / "ar", ar_model, ar_model.kind, config.to_dict(), dtype=torch.float32)
    again = load(tmp_path / "ar")
    assert again.zero_prefix == zero_prefix and again.config == config
    vq = VQModel(SMALL_VQ).eval()
    save(tmp_path / "vq", vq, "vq", SMALL_VQ.to_dict(), dtype=torch.float32)
    pixels = torch.rand(1, 3, 8, 8) * 2 - 1
    assert torch.equal(load(tmp_path / "vq").encode(pixels), vq.encode(pixels))


def test_bfloat16_halves_the_file_and_keeps_the_fingerprint(tmp_path):
    model = save_tiny(tmp_path / "a", dtype=torch.bfloat16)
    save_tiny(tmp_path / "b", dtype=torch.float32)
    small, large = (load(tmp_path / name) for name in "ab")
    assert small.output.weight.dtype == torch.float32
    assert load(tmp_path / "a", dtype=torch.bfloat16).output.weight.dtype == torch.bfloat16
    assert fingerprint(small.state_dict()) == fingerprint(large.state_dict()) == fingerprint(model.state_dict())
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in "ab"]
    assert sizes[0] < 0.6 * sizes[1]


def test_a_fingerprint_tells_names_shapes_and_values_apart():
    table = {"a.x": torch.arange(6.0), "b.x": torch.ones(2)}
    variants = [
        table,
        {"a.y": table["a.x"], "b.x": table["b.x"]},
        {"a.x": table["a.x"].view(2, 3), "b.x": table["b.x"]},
        {"a.x": table["a.x"] * 1.01, "b.x": table["b.x"]},
        {"a.x": table["a.x"].long(), "b.x": table["b.x"]},
    ]
    assert len({fingerprint(variant) for variant in variants}) == 5
    assert fingerprint(table) == fingerprint(dict(reversed(table.items())))
    assert fingerprint(table, "a.") == fingerprint({"a.x": table["a.x"], "b.x": torch.zeros(2)}, "a.")
    assert fingerprint(table, "a.") != fingerprint(table)


def test_saving_again_leaves_card_and_other_files_alone(tmp_path):
    save_tiny(tmp_path)
    (tmp_path / "samples.png").write_bytes(b"kept")
    other = make_tiny(seed=1)
    save(tmp_path, other, "maskgil", other.config.to_dict(), dtype=torch.float32)
    assert (tmp_path / "README.md").read_text() == "# a card\n" and (tmp_path / "samples.png").read_bytes() == b"kept"
    assert torch.equal(load(tmp_path).norm.weight, other.norm.weight)


SAVER = """
    import sys, torch
    from dataclasses import replace
    from maskgil import checkpoint
    from maskgil.models.config import ModelConfig
    from maskgil.models.maskgil import MaskGIL
    torch.set_num_threads(1)
    models = [MaskGIL(ModelConfig(codebook_size=32, dim=32 * n, layers=2, heads=2, ffn=64, classes=3)) for n in (1, 2)]
    print("ready", flush=True)
    while True:
        for model in models:
            checkpoint.save(sys.argv[1], model, "maskgil", model.config.to_dict(), f"# {model.config.dim}")
"""


def test_killed_while_saving_the_folder_is_whole(tmp_path):
    """Two models of different sizes overwrite each other: a mixture would not load."""
    folder, environment = tmp_path / "m", {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    for delay in (0.05, 0.09, 0.13):
        saver = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SAVER), str(folder)], stdout=subprocess.PIPE, env=environment
        )
        saver.stdout.readline()
        while not (folder / "config.json").exists():
            time.sleep(0.02)
        time.sleep(delay)
        saver.send_signal(signal.SIGKILL)
        saver.wait()
        model = load(folder)
        assert (folder / "README.md").read_text() == f"# {model.config.dim}"


@pytest.mark.parametrize("stop", range(12))
def test_stopped_at_any_step_of_a_save_the_folder_is_whole(tmp_path, monkeypatch, stop):
    """Every file operation of a save in turn is the last one that happens."""
    save_tiny(tmp_path, seed=0)
    old, new = (fingerprint(make_tiny(seed=seed).state_dict()) for seed in (0, 1))

    class Killed(BaseException):
        """As a kill: no handler of the code under test runs on it."""

    done = []

    def last_breath(function):
        def call(*arguments, **options):
            if len(done) == stop:
                raise Killed
            done.append(function)
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for owner, name in ((os, "replace"), (os, "fsync"), (Path, "write_text"), (checkpoint, "save_file")):
            patch.setattr(owner, name, last_breath(getattr(owner, name)))
        try:
            save_tiny(tmp_path, seed=1)
            assert len(done) == 10  # all of them were tried
        except Killed:
            pass
    found = fingerprint(load(tmp_path).state_dict())
    assert found == (old if stop <= 6 else new)
    save_tiny(tmp_path, seed=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert fingerprint(load(tmp_path).state_dict()) == new


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    model = save_tiny(tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(ValueError, match="could not write the model .*No space left on device.*untouched"):
        save_tiny(tmp_path, seed=1)
    assert torch.equal(load(tmp_path).norm.weight, model.norm.weight)
    assert not list(tmp_path.glob("*.new"))


def rewrite(folder, **changes):
    """config.json with other entries."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match="not a model folder: config.json is missing"):
        load(tmp_path / "none")
    model = save_tiny(tmp_path)
    weights, config = tmp_path / "model.safetensors", model.config.to_dict()
    with pytest.raises(ValueError, match="kind 'maskgil'; 'vq' is needed here"):
        load(tmp_path, "vq")

    whole = weights.read_bytes()
    for cut in (0, 4, len(whole) // 3, len(whole) - 1):
        weights.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="model.safetensors is cut"):
            load(tmp_path)
    weights.write_text("a text file")
    with pytest.raises(ValueError, match="not a safetensors file"):
        load(tmp_path)
    weights.unlink()
    with pytest.raises(ValueError, match="incomplete: model.safetensors is missing"):
        load(tmp_path)
    weights.write_bytes(whole)

    rewrite(tmp_path, config=config | {"codebook_size": 40})
    with pytest.raises(ValueError, match=r"tok_embeddings.weight is \(33, 32\), expected \(41, 32\)"):
        load(tmp_path)
    rewrite(tmp_path, config=config | {"layers": 3})
    with pytest.raises(ValueError, match=r"layers.2.attention.wqkv.weight \(96, 32\) is missing.*and \d+ more"):
        load(tmp_path)
    rewrite(tmp_path, config=config | {"layers": 1})
    with pytest.raises(ValueError, match=r"layers.1.attention.wo.weight \(32, 32\) is not part of the model"):
        load(tmp_path)
    rewrite(tmp_path, config=config | {"colour": 1})
    with pytest.raises(ValueError, match="unknown keys in the model config: colour"):
        load(tmp_path)
    rewrite(tmp_path, kind="t5")
    with pytest.raises(ValueError, match="kind is 't5', known are maskgil"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not JSON"):
        load(tmp_path)


@pytest.mark.parametrize("wrong", [{"channels": []}, {"codebook_size": -1}, {"z_channels": -8}, {"res_blocks": "two"}])
def test_an_impossible_config_is_named(tmp_path, wrong):
    model = VQModel(VQConfig(codebook_size=8, channels=(32,), res_blocks=1, z_channels=8, patch=4))
    save(tmp_path, model, "vq", model.config.to_dict())
    rewrite(tmp_path, config=model.config.to_dict() | wrong)
    with pytest.raises(ValueError, match="describe a vq model|expected") as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_foreign_tensor_is_named(tmp_path):
    save_tiny(tmp_path)
    weights = tmp_path / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(weights).items()}
    save_file(tensors | {"norm.bias": torch.zeros(32)}, weights)
    with pytest.raises(ValueError, match=r"norm.bias \(32,\) is not part of the model"):
        load(tmp_path)


def test_names_resolve_to_bundled_then_local_then_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKGIL_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "weights" / "scenes").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    assert resolve("scenes") == tmp_path / "weights" / "scenes" and checkpoint.bundled_names() == ["scenes"]
    assert resolve(tmp_path / "mine") == tmp_path / "mine"
    with pytest.raises(ValueError, match=r"no model 'sceness': it is not bundled \(scenes\), no folder"):
        resolve("sceness")
    with pytest.raises(ValueError, match="Hugging Face could not give it"):
        resolve("someone/no-such-model")


def test_bad_command_lines_are_one_line(tmp_path, capsys):
    (tmp_path / "notes.pt").write_text("not weights")
    for arguments, says in (
        (["llamagen-vq", str(tmp_path / "none.pt"), str(tmp_path / "out")], "none.pt"),
        (["llamagen-vq", str(tmp_path / "notes.pt"), str(tmp_path / "out")], "notes.pt"),
        (["llamagen-qv", "a", "b"], "did you mean llamagen-vq"),
        (["llamagen-vq"], "Missing"),
    ):
        assert main(["convert", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "Traceback" not in error and says in error, error
    assert not (tmp_path / "out").exists()
    assert main(["convert", "--help"]) == 0
    told = capsys.readouterr().out
    assert "vq_ds16_c2i.pt" in told and "chameleon-vq" in told and "maskgil-from-llamagen" in told


def test_weights_in_bytes_are_about_the_same_and_stay_so(tmp_path: Path):
    torch.manual_seed(0)
    model = VQModel(VQConfig(codebook_size=64, codebook_dim=4, channels=(32,), res_blocks=1, z_channels=32, patch=4))
    for folder, source in (("one", model), ("two", None)):
        source = source or checkpoint.load(tmp_path / "one", "vq")
        checkpoint.save(tmp_path / folder, source, "vq", model.config.to_dict(), bytewise=("decoder.",))
    one, two = (checkpoint.load(tmp_path / folder, "vq").state_dict() for folder in ("one", "two"))
    for name, tensor in model.state_dict().items():
        if name.startswith("decoder.") and tensor.dim() > 1:
            step = tensor.flatten(1).abs().amax(1) / 127
            assert ((one[name] - tensor).abs().flatten(1) <= 0.51 * step[:, None]).all(), name
            assert torch.allclose(one[name], two[name], atol=1e-6), "written again, it stays"
        else:
            assert torch.equal(one[name], tensor.bfloat16().to(tensor.dtype)), name
    plain = tmp_path / "plain"
    checkpoint.save(plain, model, "vq", model.config.to_dict())
    numbers = sum(t.numel() for name, t in one.items() if name.startswith("decoder.") and t.dim() > 1)
    sizes = [(tmp_path / folder / "model.safetensors").stat().st_size for folder in ("plain", "one")]
    assert sizes[0] - sizes[1] > 0.8 * numbers, "nearly a byte a number less"
    tensors = load_file(tmp_path / "one" / "model.safetensors")
    tensors["decoder.conv_in.weight.rows"] = torch.ones(3)
    save_file(tensors, tmp_path / "one" / "model.safetensors")
    with pytest.raises(ValueError, match="decoder.conv_in.weight.rows do not belong together"):
        checkpoint.load(tmp_path / "one", "vq")
