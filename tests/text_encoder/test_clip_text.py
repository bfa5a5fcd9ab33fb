"""CLIP's text states: pooled vector first, all 77 tokens, the same from a text model and from a whole CLIP."""

import shutil

import pytest
import torch
from released_folders import TINY_TEXT, save_clip
from transformers import CLIPConfig, CLIPModel, CLIPTextModelWithProjection

import text_encoder
from text_encoder import ClipTextEncoder, TextEncoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    save_clip(folder, TINY_TEXT)
    return folder


@pytest.fixture(scope="module")
def encoder(folder) -> ClipTextEncoder:
    return text_encoder.load(folder / "text_encoder")


def test_states_are_the_pooled_vector_and_the_last_layer_but_one(folder, encoder):
    condition = encoder.encode(["a cat", ""])
    model = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder").eval()
    ids, _ = encoder.tokenize(["a cat", ""])
    with torch.no_grad():
        out = model(ids, output_hidden_states=True)
    assert isinstance(encoder, TextEncoder) and condition.states.shape == (2, encoder.length, encoder.width)
    torch.testing.assert_close(condition.states[:, 0], out.text_embeds)
    torch.testing.assert_close(condition.states[:, 1:], out.hidden_states[-2])
    assert condition.mask.all()


def test_company_does_not_change_a_prompt(encoder):
    alone, both = encoder.encode(["a cat"]), encoder.encode(["a cat", "a dog " * 9])
    torch.testing.assert_close(both.states[:1], alone.states, atol=1e-5, rtol=1e-4)


def test_a_long_prompt_is_refused_by_check_and_cut_by_encode(encoder):
    with pytest.raises(ValueError, match="has 102 tokens, this text encoder reads 77"):
        encoder.check("x" * 100)
    encoder.check("x" * 75)
    assert encoder.encode(["x" * 100]).length == 78
    with pytest.raises(ValueError, match="list of prompts"):
        encoder.tokenize("a cat")


def test_the_text_half_of_a_whole_clip_is_read(folder, encoder, tmp_path):
    """Meissonic's text encoder is a repository with both halves."""
    text = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder")
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = CLIPConfig(text_config=text.config.to_dict(), vision_config=vision, projection_dim=16)
    whole = CLIPModel(config)
    missing = whole.load_state_dict(text.state_dict(), strict=False).missing_keys
    assert all(name.startswith(("vision", "visual", "logit_scale")) for name in missing)
    whole.save_pretrained(tmp_path / "text_encoder")
    shutil.copytree(folder / "tokenizer", tmp_path / "tokenizer")
    half = text_encoder.load(tmp_path / "text_encoder")
    torch.testing.assert_close(half.encode(["a cat"]).states, encoder.encode(["a cat"]).states)


def test_a_projection_of_another_width_is_refused(tmp_path):
    save_clip(tmp_path, TINY_TEXT | {"projection_dim": 8})
    with pytest.raises(ValueError, match="projects to 8 numbers and its states have 16"):
        text_encoder.load(tmp_path / "text_encoder")


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(ValueError, match="no CLIP text encoder"):
        ClipTextEncoder(tmp_path)
