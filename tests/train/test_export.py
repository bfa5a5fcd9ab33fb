"""Large models as folders: parts that belong together become one whole folder, others one clear line and no folder."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from app_fixtures import tiny_model
from commands import flags, maskgil
from conftest import TINY, make_tiny
from test_text_encoder import make_t5

import text_encoder
from maskgil import checkpoint
from maskgil.aspect_buckets import aspect_buckets
from maskgil.class_labels import ClassLabels
from maskgil.models.emigm import EMIGM, EMIGMConfig
from maskgil.params import SAMPLERS, SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.tokenizers.autoencoder import AutoencoderConfig, AutoencoderTokenizer
from maskgil.tokenizers.vq import VQConfig, VQModel
from text_encoder import SmallT5Encoder
from train import export
from train.scenes.captions import spoken_names
from train.scenes.sprites import things
from train.scenes.vocabulary_growth import grow_vocabulary

ROOT = Path(__file__).resolve().parents[2]
TEXT = replace(TINY, text_dim=24)  # as wide as make_t5's
CLASSES = replace(TINY, text_dim=None, classes=3)
NAMES = ["tench, Tinca", "golden retriever", "crane"]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A tokenizer, a text encoder of Hugging Face's layout, and the exports of a text- and a class-driven run."""
    torch.manual_seed(0)
    tokenizer = VQModel(VQConfig(codebook_size=32, channels=(32,), res_blocks=1, z_channels=8, patch=4)).eval()
    checkpoint.save(tmp_path / "tokenizer", tokenizer, "vq", tokenizer.config.to_dict())
    make_t5(tmp_path / "t5")
    made_by = {"tokenizer_hash": checkpoint.fingerprint(tokenizer.identity())}
    reads = {"text_encoder_hash": checkpoint.fingerprint(text_encoder.load(tmp_path / "t5").identity())}
    for name, config, notes in (("text", TEXT, reads), ("class", CLASSES, {"classes": ["n01", "n02,x", "n03"]})):
        folder = tmp_path / name / "generator"
        checkpoint.save(folder, make_tiny(config), "maskgil", config.to_dict(), **made_by, **notes)
    (tmp_path / "names.json").write_text(json.dumps(NAMES))
    return tmp_path


def publish(parts: Path, kind: str, **changes: object) -> Path:
    """Run the command with the right parts, but for `changes`; "" leaves one out."""
    options: dict[str, object] = {"generator": parts / kind, "tokenizer": parts / "tokenizer", "out": parts / "out"}
    options |= {"text_encoder": parts / "t5"} if kind == "text" else {"class_names": parts / "names.json"}
    sizes = str(changes.pop("size", "64 32")).split()
    given = {name: value for name, value in {**options, **changes}.items() if value}
    maskgil("export", kind, *flags(**given), *(["--size", *sizes] if sizes else []))
    return parts / "out"


def test_a_text_driven_folder_stands_alone_and_draws_every_bucket(parts):
    folder = publish(parts, "text")
    for name in ("text", "tokenizer", "t5"):
        (parts / name).rename(parts / f"{name} is gone")
    draws = TextToImage.load(folder, text_encoder.load)
    assert draws.picture_sizes.bucket_classes == (64, 32) and set(draws.sizes) == {
        *aspect_buckets(64),
        *aspect_buckets(32),
    }
    assert draws.sizes[0] == (64, 64) and len(draws.sizes) == len(set(draws.sizes))
    for size in draws.sizes:
        assert draws.images(["a cat"], [1], size)[0].size == size
    assert {path.name for path in folder.iterdir()} == {"generator", "text_encoder", "tokenizer", "vocabulary.json"}
    assert not [path for path in parts.iterdir() if path.name.startswith(".")]


def test_a_text_encoder_of_hugging_face_is_named_and_not_copied(parts):
    """By a real process, whose Hugging Face cache holds the encoder."""
    hub = parts / "hf" / "hub" / "models--google--tiny-t5"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text("1" * 40)
    (hub / "snapshots").mkdir()
    (parts / "t5").rename(hub / "snapshots" / ("1" * 40))
    options = ["--generator=text", "--tokenizer=tokenizer", "--text-encoder=google/tiny-t5", "--size=64", "--out=out"]
    command = [sys.executable, "-m", "app", "export", "text", *options]
    environment = os.environ | {"HF_HOME": str(parts / "hf"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=parts, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (parts / "out" / "text_encoder").iterdir()] == ["config.json"]
    assert json.loads((parts / "out" / "text_encoder" / "config.json").read_text())["name"] == "google/tiny-t5"


def test_a_class_driven_folder_knows_its_names(parts):
    draws = TextToImage.load(publish(parts, "class"), text_encoder.load)
    assert draws.sizes == [(64, 64), (32, 32)] and not draws.picture_sizes.bucket_classes
    (named,) = draws.images(["Golden Retriever"], [1], settings=SAMPLERS["reference"])
    assert named.size == (64, 64)
    assert named.tobytes() == draws.images(["1"], [1], settings=SAMPLERS["reference"])[0].tobytes()
    (parts / "out").rename(parts / "named")
    folder = publish(parts, "class", class_names="", shape="any")
    assert ClassLabels.open(folder, 3).number("n02,x") == 1, "the folders that it was trained on"
    assert TextToImage.load(folder, text_encoder.load).picture_sizes.bucket_classes == (64, 32)


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder"])
def test_a_part_of_another_model_is_refused_before_anything_is_written(parts, part):
    if part == "tokenizer":
        other = VQModel(VQConfig(codebook_size=32, channels=(32,), res_blocks=1, z_channels=8, patch=4)).eval()
        checkpoint.save(parts / "other", other, "vq", other.config.to_dict())
    else:
        torch.manual_seed(9)
        make_t5(parts / "other")
    with pytest.raises(ValueError, match=f"was trained with another {part.replace('_', ' ')} than .*other") as refusal:
        publish(parts, "text", **{part: str(parts / "other")})
    assert "\n" not in str(refusal.value)
    assert not (parts / "out").exists() and not [path for path in parts.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "kind, changes, message",
    [
        ("text", {"size": "250"}, "multiple of 32"),
        ("text", {"size": "big"}, "Error parsing --size: .*big"),
        ("text", {"shape": "round"}, "--shape round"),
        ("text", {"size": ""}, "Missing from maskgil export text: --size"),
        ("text", {"weight": "1"}, "unknown: --weight=1"),
        ("text", {"generator": "class"}, "driven by classes: publish it with `maskgil export class`"),
        ("class", {"generator": "text"}, "driven by texts: publish it with `maskgil export text`"),
        ("class", {"class_names": "tokenizer/config.json"}, "no list of class names"),
        ("class", {"class_names": "nowhere.json"}, "no list of class names"),
        ("class", {"out": "tokenizer"}, "is there already"),
    ],
)
def test_what_cannot_be_published_is_one_line(parts, monkeypatch, kind, changes, message):
    monkeypatch.chdir(parts)
    before = sorted(parts.iterdir())
    with pytest.raises(ValueError, match=message):
        publish(parts, kind, **changes)
    assert sorted(parts.iterdir()) == before


def test_a_generator_that_does_not_say_what_made_it_is_refused(parts):
    checkpoint.save(parts / "text" / "generator", make_tiny(TEXT), "maskgil", TEXT.to_dict())
    with pytest.raises(ValueError, match="does not say which tokenizer it was trained with"):
        publish(parts, "text")


def test_a_folder_that_fails_at_the_end_does_not_appear(parts, monkeypatch):
    """The disk is full when the vocabulary is written, say."""

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(OSError, match="no space left"):
        publish(parts, "text")
    assert not (parts / "out").exists() and not [path for path in parts.iterdir() if path.name.startswith(".")]


def test_a_converted_emigm_becomes_a_folder_on_its_owners_word(parts, capsys):
    torch.manual_seed(0)
    trunk = EMIGM(EMIGMConfig(16, 2, 1, 1, 16, channels=4, grid=(4, 4), buffer=4, classes=3))
    latents = AutoencoderTokenizer(AutoencoderConfig(channels=4, widths=(8, 8, 8), layers=1, groups=4, patch=4))
    checkpoint.save(parts / "emigm", trunk, "emigm", trunk.config.to_dict())
    checkpoint.save(parts / "kl", latents, "latent", latents.config.to_dict())
    options = {"generator": str(parts / "emigm"), "tokenizer": str(parts / "kl"), "size": "64"}
    with pytest.raises(ValueError, match="does not say which tokenizer"):
        publish(parts, "class", **options)
    with pytest.raises(ValueError, match="has learned 64x64 alone"):
        publish(parts, "class", **options | {"size": "128"}, adopt=True)
    draws = TextToImage.load(publish(parts, "class", **options, adopt=True), text_encoder.load)
    assert "on your word it is" in capsys.readouterr().err
    assert draws.images(["crane"], [1], settings=SamplingParams(steps=2))[0].size == (64, 64)


def export_of(model: Path, out: Path) -> dict[str, Path]:
    """The parts of a small text-to-image folder, as runs export them."""
    shutil.copytree(model / "generator", out / "generator")
    shutil.copytree(model / "text_encoder", out / "text_encoder")
    return {"tokenizer": model / "tokenizer", "generator": out}


def test_scenes_replace_what_is_there_whole_or_not_at_all(tmp_path):
    shipped, fresh = tiny_model(tmp_path / "shipped"), export_of(tiny_model(tmp_path / "new"), tmp_path / "run")
    before = {path: path.read_bytes() for path in shipped.rglob("*") if path.is_file()}
    torch.manual_seed(5)
    other = VQModel(VQConfig(codebook_size=64, channels=(32,), res_blocks=1, z_channels=32, patch=8))
    checkpoint.save(tmp_path / "other", other, "vq", other.config.to_dict())
    with pytest.raises(ValueError, match="was trained with another tokenizer"):
        maskgil("export", "scenes", *flags(**(fresh | {"tokenizer": tmp_path / "other"}), out=shipped))
    assert {path: path.read_bytes() for path in shipped.rglob("*") if path.is_file()} == before
    maskgil("export", "scenes", *flags(**fresh), f"--out={shipped}")
    assert (shipped / "README.md").read_text().startswith("# Tiny"), "the card stays"
    assert len(json.loads((shipped / "vocabulary.json").read_text())["objects"]) > 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "other", "run", "shipped"]
    TextToImage.load(shipped, text_encoder.load)


def test_an_expert_draws_beside_the_generator_that_was_there(tmp_path, monkeypatch):
    shipped = tiny_model(tmp_path / "shipped")
    parts = {"tokenizer": shipped / "tokenizer", "generator": shipped}
    foreign, run = tiny_model(tmp_path / "foreign"), tmp_path / "run"
    maskgil("export", "scenes", *flags(**export_of(shipped, tmp_path / "first")), f"--out={shipped}")
    *_, before = TextToImage.load(shipped, text_encoder.load).draw(["a cat"], [3])
    encoder = SmallT5Encoder.load(shipped / "text_encoder")
    grown = grow_vocabulary(encoder, ["dragon"], [])
    expert = make_tiny(checkpoint.load(shipped / "generator", "maskgil").config, seed=8)
    notes = checkpoint.describe(shipped / "generator")
    hashes = {"tokenizer_hash": notes["tokenizer_hash"], "text_encoder_hash": checkpoint.fingerprint(grown.identity())}
    checkpoint.save(run / "generator", expert, "maskgil", expert.config.to_dict(), **hashes)
    shutil.copytree(foreign / "text_encoder", run / "text_encoder")
    with torch.no_grad():
        other = SmallT5Encoder.load(run / "text_encoder")
        other.t5.shared.weight.add_(1)
        other.save(run / "text_encoder", torch.float32)
    with pytest.raises(ValueError, match="is not the generator's text encoder with more words"):
        maskgil("export", "scenes", *flags(**parts, expert=run, out=shipped))
    shutil.rmtree(run / "text_encoder")
    grown.save(run / "text_encoder", torch.float32)
    known = len(things())
    monkeypatch.setattr(export, "KNOWN_THINGS", known)
    with pytest.raises(ValueError, match=f"no things after the first {known}"):
        maskgil("export", "scenes", *flags(**parts, expert=run, out=shipped))
    monkeypatch.setattr(export, "KNOWN_THINGS", known - 1)
    maskgil("export", "scenes", *flags(**parts, expert=run, out=shipped))
    draws = TextToImage.load(shipped, text_encoder.load)
    *_, after = draws.draw(["a cat"], [3])
    assert torch.equal(after.canvas.tokens, before.canvas.tokens)
    (told,) = json.loads((shipped / "vocabulary.json").read_text())["experts"]
    assert set(told["names"]) == set(spoken_names(things()[-1]))
    assert draws.condition(["a cat", f"a cat and a {told['names'][0]}"]).experts.tolist() == [0, 1]
