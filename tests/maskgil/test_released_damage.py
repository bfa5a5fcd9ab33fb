"""Folders of released models that are cut, incomplete, mixed up or hostile: refused in one line, and nothing is run."""

import json
import os
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from released_folders import amused_folder, llamagen_repositories, meissonic_folder
from safetensors.torch import load_file, save_file

import text_encoder
from maskgil.pipeline import TextToImage
from maskgil.released import layout
from maskgil.released.conversion import convert_llamagen

WEIGHTS = {
    "transformer": "transformer/diffusion_pytorch_model.safetensors",
    "vqvae": "vqvae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}
CONFIGS = ("transformer/config.json", "vqvae/config.json", "text_encoder/config.json")
WORDS = ("tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return amused_folder(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def refused(folder: Path) -> str:
    """What is said of a folder that cannot be loaded."""
    with pytest.raises(ValueError) as error:
        TextToImage.load(folder, text_encoder.load)
    said = str(error.value)
    assert "\n" not in said and len(said) < 600, said
    return said


@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize("keep", [0, 7, 200, 0.5, -1])
def test_cut_weights(folder: Path, part: str, keep: float):
    file = folder / WEIGHTS[part]
    data = file.read_bytes()
    file.write_bytes(data[: round(len(data) * keep) if 0 < keep < 1 else keep])
    assert part in refused(folder)


@pytest.mark.parametrize("part", WEIGHTS)
def test_weights_of_another_model(folder: Path, part: str, tmp_path: Path):
    other = meissonic_folder(tmp_path / "other") / WEIGHTS["vqvae" if part == "transformer" else "transformer"]
    shutil.copy(other, folder / WEIGHTS[part])
    assert part in refused(folder)


@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize("change", ["gone", "shape"])
def test_a_tensor_that_is_gone_or_has_another_shape(folder: Path, part: str, change: str):
    """No library fills in what is missing with random numbers."""
    tensors = load_file(folder / WEIGHTS[part])
    name = next(name for name, tensor in tensors.items() if tensor.dim() == 2)
    tensor = tensors.pop(name)
    if change == "shape":
        tensors[name] = torch.zeros(len(tensor) + 1, tensor.shape[1])
    save_file(tensors, folder / WEIGHTS[part], {"format": "pt"})
    refused(folder)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", "\x00", "[" * 10**5])
def test_damaged_configs(folder: Path, name: str, text: str):
    (folder / name).write_text(text)
    refused(folder)


@pytest.mark.parametrize("value", ["32", None, 0, -1, 2.5, True, [1], 10**9, 1e30], ids=str)
@pytest.mark.parametrize("part, key", [
    *(("transformer", key) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")),
    *(("vqvae", key) for key in ("block_out_channels", "layers_per_block", "latent_channels", "norm_num_groups")),
    *(("text_encoder", key) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")),
])  # fmt: skip
def test_configs_with_other_values(folder: Path, part: str, key: str, value: object):
    """Refused at once: nothing is built so many times, or so large."""
    config = json.loads((folder / part / "config.json").read_text()) | {key: value}
    (folder / part / "config.json").write_text(json.dumps(config))
    refused(folder)


@pytest.mark.parametrize("layers", [2, 4])
def test_a_text_encoder_with_other_layers_than_its_config_says(folder: Path, layers: int):
    config = json.loads((folder / "text_encoder" / "config.json").read_text()) | {"num_hidden_layers": layers}
    (folder / "text_encoder" / "config.json").write_text(json.dumps(config))
    assert re.search("a layer more than its config says|lack the weights", refused(folder))


@pytest.mark.parametrize("value", ["8 px", None, 0, -1, 10**9])
def test_sizes_that_no_model_has(folder: Path, value: object):
    """Refused when models are listed, too."""
    config = json.loads((folder / "transformer" / "config.json").read_text()) | {"sample_size": value}
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="known released model"):
        layout.ReleasedFolder.open(folder)


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("text", ["", "{", "\x00\xff", "[" * 10**5])
def test_damaged_tokenizers(folder: Path, name: str, text: str):
    """Refused, or loaded where the file is not needed: never another error."""
    if not (folder / name).is_file():
        pytest.skip("this version of the library writes no such file")
    (folder / name).write_text(text)
    try:
        TextToImage.load(folder, text_encoder.load)
    except ValueError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("name", [*CONFIGS, *WEIGHTS.values(), "tokenizer/vocab.json"])
def test_missing_files(folder: Path, name: str):
    (folder / name).unlink()
    assert name.partition("/")[0] in refused(folder)


def test_pickles_are_not_taken_for_weights(folder: Path):
    """A folder with pickles alone lacks its safetensors."""
    for name in WEIGHTS.values():
        (folder / name).unlink()
        torch.save({}, folder / name.replace(".safetensors", ".bin"))
    assert re.search("no file named model.safetensors|safetensors missing", refused(folder))


class Hostile:
    """A pickle that runs a command where it is opened."""

    def __init__(self, made: Path):
        self.made = made

    def __reduce__(self):
        return os.mkdir, (str(self.made),)


@pytest.mark.parametrize("name", ["t2i_XL_stage1_256.pt", "vq_ds16_t2i.pt"])
def test_a_hostile_pickle_is_not_run(tmp_path: Path, name: str):
    llamagen_repositories(tmp_path)
    folder, made = tmp_path / "model", tmp_path / "hacked"
    shutil.copytree(tmp_path / "t2i", folder / "released")
    for data in (pickle.dumps(Hostile(made)), b"", b"PK\x03\x04"):
        (folder / "released" / name).write_bytes(data)
        with pytest.raises(ValueError) as error:
            convert_llamagen(folder, 256)
        assert "\n" not in str(error.value)
    torch.save({"model": Hostile(made)}, folder / "released" / name)
    with pytest.raises(ValueError):
        convert_llamagen(folder, 256)
    assert not made.exists()


def test_values_that_are_not_finite_do_not_end_the_program(folder: Path):
    """A NaN in the weights gives a picture or an error, not a crash."""
    tensors = load_file(folder / WEIGHTS["transformer"])
    name = next(name for name, tensor in tensors.items() if tensor.dim() == 2)
    tensors[name][:] = float("nan")
    save_file(tensors, folder / WEIGHTS["transformer"], {"format": "pt"})
    try:
        TextToImage.load(folder, text_encoder.load).images(["a cat"], [1])
    except ValueError as error:
        assert json.dumps(str(error))
