"""speech.whisper_folder and speech.ctranslate2_format: what is written is read again, what is foreign is refused."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from whisper_stand_ins import ctranslate2_variables, random_whisper, write_ctranslate2

from maskgil.model_folder import weights_folder
from speech.ctranslate2_format import PINNED, convert_ctranslate2, read_variables, whisper_of_variables
from speech.transcriber import BUNDLED, OpenAIWhisperBackend, Transcriber
from speech.whisper_folder import CARD, CONFIG, is_whisper_folder, load_whisper, openai_names, save_whisper

MODEL = random_whisper()


def close(left, right) -> bool:
    """Whether two models have the same weights, up to a step of int8."""
    pairs = zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    return all(torch.allclose(a, b, atol=float(a.abs().max()) / 100) for a, b in pairs)


def test_a_folder_is_read_as_it_was_written(tmp_path):
    save_whisper(tmp_path / "whisper", MODEL, windows=(10, 30), card="# Whisper\n", source="a test")
    model, windows = load_whisper(tmp_path / "whisper")
    assert close(MODEL, model) and windows == (10.0, 30.0) and model.dims == MODEL.dims
    assert torch.equal(model.alignment_heads.to_dense(), MODEL.alignment_heads.to_dense())
    assert (tmp_path / "whisper" / CARD).read_text() == "# Whisper\n"
    save_whisper(tmp_path / "whisper", MODEL, card="# Others\n")
    assert load_whisper(tmp_path / "whisper")[1] == (30.0,) and [p.name for p in tmp_path.iterdir()] == ["whisper"]
    assert isinstance(Transcriber.load(tmp_path / "whisper").scribe, OpenAIWhisperBackend)


def test_a_folder_of_transformers_is_read(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.WhisperConfig(
        vocab_size=51864, num_mel_bins=80, d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=256, decoder_ffn_dim=256, max_target_positions=64,
    )  # fmt: skip
    theirs = transformers.WhisperForConditionalGeneration(config).eval()
    theirs.save_pretrained(tmp_path)
    assert is_whisper_folder(tmp_path)
    ours, windows = load_whisper(tmp_path)
    mel, tokens = torch.randn(1, 80, 3000), torch.tensor([[50257, 50362, 7]])
    with torch.inference_mode():
        assert torch.allclose(theirs(mel, decoder_input_ids=tokens).logits, ours(mel, tokens), atol=1e-4)
    assert windows == (30.0,) and set(openai_names(theirs.state_dict())) == set(ours.state_dict())


def test_an_incomplete_or_foreign_folder_is_refused_in_one_line(tmp_path):
    save_whisper(tmp_path / "whisper", MODEL)
    config, weights = tmp_path / "whisper" / CONFIG, tmp_path / "whisper" / "model.safetensors"
    whole, tensors = config.read_text(), load_file(weights)
    for change, message in (
        (lambda: config.write_text(whole.replace('"n_mels": 80', '"n_mels": 70')), "does not hold a Whisper"),
        (lambda: config.write_text(whole.replace("30.0", "-1.0")), "windows"),
        (lambda: config.write_text("{"), "cannot be read"),
        (lambda: save_file({k: v for k, v in tensors.items() if "ln_post" not in k}, weights), "tensors are missing"),
        (lambda: weights.write_bytes(weights.read_bytes()[:1000]), "cannot be read"),
        (lambda: weights.unlink(), "model.safetensors is missing"),
    ):
        config.write_text(whole)
        change()
        with pytest.raises(ValueError, match=message) as caught:
            load_whisper(tmp_path / "whisper")
        assert "\n" not in str(caught.value)


def test_ctranslate2_weights_become_the_same_model(tmp_path):
    source = tmp_path / "model.bin"
    write_ctranslate2(ctranslate2_variables(MODEL), source)
    assert close(MODEL, whisper_of_variables(read_variables(source)))
    with pytest.raises(ValueError, match="which is none that is known"):
        convert_ctranslate2(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    convert_ctranslate2(source, tmp_path / "out", sha256=digest)
    assert close(MODEL, load_whisper(tmp_path / "out")[0]) and "MIT License" in (tmp_path / "out" / CARD).read_text()
    assert digest in json.loads((tmp_path / "out" / CONFIG).read_text())["source"]


def test_foreign_ctranslate2_files_are_refused(tmp_path):
    source, arrays = tmp_path / "model.bin", ctranslate2_variables(MODEL)
    write_ctranslate2(arrays, source)
    whole = source.read_bytes()
    for content, message in (
        (whole[:5000], "in the middle of a variable"),
        (b"\x05" + whole[1:], "version 6 is needed"),
        (whole.replace(b"WhisperSpec", b"Transformer"), "not a WhisperSpec"),
    ):
        source.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_variables(source)
    for change, message in (
        ({"decoder/extra": np.zeros(3, np.float16)}, "are not of a Whisper: decoder/extra"),
        ({"encoder/conv1/weight": np.zeros((64, 80, 3), np.int8)}, "quantized"),
    ):
        with pytest.raises(ValueError, match=message):
            whisper_of_variables(arrays | change)
    del arrays["encoder/layer_0/ffn/linear_1/bias"]
    with pytest.raises(ValueError, match="linear_1/bias is missing"):
        whisper_of_variables(arrays)


def test_the_bundled_recognizer_ships_with_its_notice():
    folder = weights_folder() / BUNDLED
    assert max(path.stat().st_size for path in folder.iterdir()) < 50e6
    card = (folder / CARD).read_text()
    assert "Copyright (c) 2022 OpenAI" in card and PINNED[0].sha256 in card
