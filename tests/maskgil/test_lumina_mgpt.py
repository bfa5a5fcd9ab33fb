"""Sentences of Lumina-mGPT and grids of codes are the same thing, cut anywhere; broken ones say where."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import maskgil
from conftest import TINY, make_tiny
from PIL import Image
from test_converters import full, taming_file

import text_encoder
from maskgil import checkpoint
from maskgil.converters import chameleon_vq
from maskgil.converters.lumina_mgpt import LuminaSequence, prefix_canvas
from maskgil.pipeline import TextToImage
from maskgil.sampling.loop import sample
from maskgil.sampling.plans import masked_plan
from maskgil.tokenizers.vq import VQConfig
from text_encoder import SmallT5Encoder, train_vocabulary

ROOT = Path(__file__).resolve().parents[2]

CODES = 64


@pytest.fixture
def lumina(tmp_path):
    """A vocabulary with the published names and ids, fewer codes, and image ids in an order of their own."""
    names = {f"<reserved{i:05d}>": i + 4 for i in range(8700, 8900)}
    names |= {"<racm3:break>": 8197, "<eoss>": 8196, "hello": 9000, "IMGIMGless": 9001}
    order = torch.randperm(CODES, generator=torch.Generator().manual_seed(0)).tolist()
    for number, code in enumerate(order):
        names["IMGIMG" + "".join("ABCDEFGHIJ"[int(digit)] for digit in str(code)) + "Z"] = number + 4
    path = tmp_path / "text_tokenizer.json"
    path.write_text(json.dumps({"model": {"vocab": names}}))
    loaded = LuminaSequence.load(path)
    assert loaded.id_of.tolist() == [order.index(code) + 4 for code in range(CODES)]
    return loaded


def test_the_published_layout(lumina):
    tokens = torch.arange(24) % CODES
    sentence = lumina.write(tokens, (4, 6)).tolist()
    assert sentence[:3] == [8197, 8804 + 2, 8804 + 3] and sentence[-1] == 8196  # height first
    assert [i for i, number in enumerate(sentence) if number == 8803] == [9, 16, 23, 30]
    assert len(sentence) == 3 + 4 * 7 + 1


def test_a_sentence_cut_anywhere_is_a_prefix(lumina):
    tokens = torch.randint(CODES, (24,), generator=torch.Generator().manual_seed(1))
    sentence = lumina.write(tokens, (4, 6))
    prompt = torch.tensor([0, 9000, 9000])
    for length in range(3, len(sentence) + 1):
        codes, grid = lumina.read(torch.cat([prompt, sentence[:length]]))
        body = min(length - 3, 28)
        assert grid == (4, 6) and len(codes) == body - body // 7
        assert torch.equal(codes, tokens[: len(codes)])


def test_a_prefix_can_be_completed(lumina):
    """The hybrid: what the sentence holds stays, the rest is decided in parallel."""
    tokens = torch.arange(24)
    codes, grid = lumina.read(lumina.write(tokens, (4, 6))[:12])
    canvas = prefix_canvas(codes, grid, mask_id=CODES)

    def oracle(canvas, step, where):
        return tokens[None], torch.zeros(1, 24)

    *_, whole = sample(oracle, canvas, masked_plan(24 - len(codes), steps=3))
    assert torch.equal(whole.tokens[0], tokens) and not whole.mask.any()


def test_broken_sentences_say_where(lumina):
    sentence = lumina.write(torch.arange(24), (4, 6))
    with pytest.raises(ValueError, match="id 8197 is missing"):
        lumina.read(sentence[1:])
    with pytest.raises(ValueError, match="height and width"):
        lumina.read(sentence[:2])
    for place, number, says in (
        (9, 5, "row 0, column 6 holds id 5 where a newline is due"),
        (11, 8803, "row 1, column 1 holds id 8803 where an image id is due"),
        (12, 999999, "row 1, column 2 holds id 999999"),
        (31, 5, "followed by id 5, not by 8196"),
    ):
        broken = sentence.clone()
        broken[place] = number
        with pytest.raises(ValueError, match=says):
            lumina.read(broken)
    with pytest.raises(ValueError, match="sides must be even"):
        lumina.write(torch.arange(15), (3, 5))


def test_foreign_vocabularies_are_refused(tmp_path):
    path = tmp_path / "v.json"
    for content in ("{", "{}", '{"model": {"vocab": {"a": 1}}}'):
        path.write_text(content)
        with pytest.raises(ValueError, match="not Chameleon's vocabulary"):
            LuminaSequence.load(path)
    names = {"<racm3:break>": 1, "<eoss>": 2, "<reserved08799>": 3, "<reserved08800>": 4, "IMGIMGBZ": 9}
    path.write_text(json.dumps({"model": {"vocab": names}}))
    with pytest.raises(ValueError, match="1 image codes"):
        LuminaSequence.load(path)


@pytest.fixture
def model(tmp_path) -> Path:
    """A text-driven folder on a tokenizer of Chameleon's build, 16 px a code, which draws 96x64."""
    folder = tmp_path / "model"
    widths = (32,) * 5
    config = VQConfig(CODES, 16, widths, res_blocks=1, z_channels=16, l2_norm=False, level_attention=False)
    found = chameleon_vq(full(taming_file(widths, z=16, codes=CODES, blocks=1)), "vqgan.ckpt", config)
    checkpoint.write(folder / "tokenizer", found.tensors, found.kind, found.config)
    tokenizer = checkpoint.load(folder / "tokenizer")
    train_vocabulary(["a red fox", "two dogs on the beach"] * 20, tmp_path, 60)
    encoder = SmallT5Encoder.fresh(tmp_path, d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=2, length=8)
    encoder.save(folder / "text_encoder")
    parts = {"tokenizer_hash": tokenizer, "text_encoder_hash": encoder}
    hashes = {name: checkpoint.fingerprint(part.identity()) for name, part in parts.items()}
    trunk = replace(TINY, codebook_size=CODES)
    checkpoint.save(folder / "generator", make_tiny(trunk), "maskgil", trunk.to_dict(), **hashes)
    (folder / "vocabulary.json").write_text(json.dumps({"sizes": [[96, 64]]}))
    return folder


@pytest.mark.journey
def test_the_command_completes_what_a_sentence_begins(lumina, model, tmp_path):
    tokens = torch.randint(CODES, (24,), generator=torch.Generator().manual_seed(1))
    sentence = lumina.write(tokens, (4, 6)).tolist()
    pictures = {}
    for given in (2 + 1, 2 + 1 + 12 + 1, len(sentence)):
        (tmp_path / "ids.json").write_text(json.dumps([0, 9000, *sentence[:given]]))
        options = [
            "--vocabulary=text_tokenizer.json",
            "--sentence=ids.json",
            "--prompt=a red fox",
            "--out=x.png",
            "--seed=3",
        ]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "app",
                "convert",
                "lumina-sentence",
                f"--model={model}",
                *options,
                "--steps=2",
                "--guidance=3",
            ],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        pictures[given] = np.asarray(Image.open(tmp_path / "x.png"), dtype=int)
        assert pictures[given].shape == (64, 96, 3)
    assert "24 of 24 tokens" in done.stdout and not (tmp_path / "x.png.partial").exists()
    decoded = TextToImage.load(model, text_encoder.load).images_of(prefix_canvas(tokens, (4, 6), CODES))[0]
    whole = pictures[len(sentence)]
    assert abs(whole - np.asarray(decoded, dtype=int)).max() <= 1, "a finished sentence is only decoded"
    nothing, half = (abs(pictures[given] - whole).mean() for given in (3, 16))
    assert 0 < half < nothing, "half of it was given"


def test_what_the_sentence_says_stays(lumina, model, tmp_path, monkeypatch):
    tokens = torch.randint(CODES, (24,), generator=torch.Generator().manual_seed(1))
    (tmp_path / "ids.json").write_text(json.dumps(lumina.write(tokens, (4, 6))[: 3 + 7 + 3].tolist()))
    drawn, decode = [], TextToImage.images_of
    monkeypatch.setattr(TextToImage, "images_of", lambda self, canvas: drawn.append(canvas) or decode(self, canvas))
    monkeypatch.chdir(tmp_path)
    options = ["--vocabulary=text_tokenizer.json", "--sentence=ids.json", "--prompt=a red fox", "--out=x.png"]
    maskgil("convert", "lumina-sentence", f"--model={model}", *options)
    assert torch.equal(drawn[0].tokens[0, :9], tokens[:9]) and not drawn[0].mask.any()


def test_what_cannot_be_completed_is_one_line(lumina, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokens = torch.arange(32) % CODES

    def refused(ids, *changes: str) -> str:
        Path("ids.json").write_text(ids if isinstance(ids, str) else json.dumps(ids.tolist()))
        changed = {change.partition("=")[0] for change in changes}
        options = ["--vocabulary=text_tokenizer.json", "--sentence=ids.json", "--prompt=a red fox", "--out=x.png"]
        options = [word for word in options if word.partition("=")[0] not in changed]
        with pytest.raises(ValueError) as error:
            maskgil(
                "convert",
                "lumina-sentence",
                f"--model={model}",
                *[word for word in options if word.partition("=")[0] not in {c.partition("=")[0] for c in changes}],
                *changes,
            )
        assert not list(tmp_path.glob("x.png*")) and "\n" not in str(error.value)
        return str(error.value)

    assert "cannot draw 128x64: the nearest size is 96x64" in refused(lumina.write(tokens, (4, 8))[:9])
    fine = lumina.write(tokens[:24], (4, 6))[:9]
    assert "JSON list of ids" in refused("[1, -2]") and "cannot read the sentence" in refused("[1,")
    assert "holds no picture" in refused("[1, 2]")
    assert "is not Chameleon's vocabulary" in refused(fine, "--vocabulary=ids.json")
    assert "the prompt is empty" in refused(fine, "--prompt=") and "unknown: --size=3" in refused(fine, "--size=3")
    assert "Error parsing --steps" in refused(fine, "--steps=few")
    names = json.loads(Path("text_tokenizer.json").read_text())["model"]["vocab"]
    fewer = {name: number for name, number in names.items() if name not in ("IMGIMGGDZ", "IMGIMGGCZ")}  # 63, 62
    Path("fewer.json").write_text(json.dumps({"model": {"vocab": fewer}}))
    assert "draws 64 codes, fewer.json names 62" in refused(fine, "--vocabulary=fewer.json")
    full_disk = OSError(28, "No space left on device")
    monkeypatch.setattr(Image.Image, "save", lambda *_, **__: (_ for _ in ()).throw(full_disk))
    assert "could not write x.png" in refused(fine, "--steps=1")
