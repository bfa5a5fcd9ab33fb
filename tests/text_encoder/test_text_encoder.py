"""Laws of text encoders: company and padding cannot matter, folders come back whole, bad ones are named."""

import json

import huggingface_hub.constants
import pytest
import safetensors.torch
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, GemmaConfig, GemmaModel, PreTrainedTokenizerFast, T5EncoderModel

import text_encoder
from maskgil import checkpoint, shared_parts
from text_encoder import HuggingFaceEncoder, SmallT5Config, SmallT5Encoder, TextEncoder, load, train_vocabulary
from text_encoder.huggingface import left, right

NOUNS, PLACES = ["cat", "dog", "red apple", "blue car"], ["on the beach", "at night", "in the snow"]
SENTENCES = [f"{n} {noun} {place}" for n in ("a", "two", "three") for noun in NOUNS for place in PLACES]
SMALL = {"d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "length": 16}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    train_vocabulary(SENTENCES, folder, 2000)
    return folder


@pytest.fixture
def encoder(vocabulary):
    torch.manual_seed(0)
    return SmallT5Encoder.fresh(vocabulary, **SMALL)


def test_a_small_corpus_gives_a_small_vocabulary_and_always_the_same(vocabulary, tmp_path):
    again = train_vocabulary(SENTENCES, tmp_path, 2000)
    assert again.read_bytes() == (vocabulary / "spiece.model").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["spiece.model"]


def test_known_words_are_one_piece_each(encoder):
    assert encoder.tokenize(["three blue car in the snow"])[1].sum() == 7
    assert encoder.tokenize(["zebra"])[1].sum() > 2  # an unknown word is spelt


def test_case_and_width_of_letters_do_not_matter(encoder):
    ids, mask = encoder.tokenize(["Two CATS on the beach", "two cats on the beach"])
    assert torch.equal(ids[0], ids[1]) and mask.all()


def test_company_does_not_change_a_prompt(encoder):
    alone = encoder.encode(["a cat"])
    both = encoder.encode(["a cat", "three blue car in the snow at night", ""])
    length = alone.states.shape[1]
    assert torch.allclose(both.states[:1, :length], alone.states, atol=1e-5)
    assert both.mask[0].sum() == length and both.mask[2].sum() == 1
    assert not both.states[~both.mask].any()


def test_trains_under_autocast(encoder):
    ids, mask = encoder.tokenize(["a cat", "two dog at night"])
    with torch.autocast("cpu", torch.bfloat16):
        states = encoder(ids, mask)
    states.float().square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in encoder.parameters())


def test_encode_has_neither_gradient_nor_dropout(encoder):
    encoder.train()
    first, second = encoder.encode(["a cat"]), encoder.encode(["a cat"])
    assert torch.equal(first.states, second.states) and not first.states.requires_grad and encoder.training


def test_a_long_prompt_is_refused_with_both_lengths(encoder):
    with pytest.raises(ValueError, match=r"has \d+ tokens, this text encoder reads 16"):
        encoder.encode(["a cat"] * 2 + ["cat " * 5000])
    with pytest.raises(ValueError, match="list of prompts"):
        encoder.encode("a cat")


def test_a_folder_comes_back(encoder, tmp_path):
    encoder.save(tmp_path / "e", torch.float32)
    again = text_encoder.load(tmp_path / "e")
    assert isinstance(again, TextEncoder) and isinstance(again, SmallT5Encoder) and not again.training
    assert torch.equal(again.encode(SENTENCES[:3]).states, encoder.encode(SENTENCES[:3]).states)
    theirs = T5EncoderModel.from_pretrained(tmp_path / "e").eval()  # the folder opens in transformers too
    ids, mask = encoder.tokenize(SENTENCES[:3])
    states = theirs(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
    assert torch.allclose(states, again.encode(SENTENCES[:3]).states, atol=1e-6)


def test_saving_again_replaces_the_weights_alone(encoder, vocabulary, tmp_path):
    encoder.save(tmp_path)
    other = SmallT5Encoder.fresh(vocabulary, **SMALL)
    other.save(tmp_path, torch.float32)
    assert torch.equal(SmallT5Encoder.load(tmp_path).t5.shared.weight, other.t5.shared.weight)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors", "spiece.model"]
    with pytest.raises(ValueError, match="another text encoder .config.json differs"):
        SmallT5Encoder.fresh(vocabulary, **SMALL | {"num_layers": 1}).save(tmp_path)


def test_damaged_folders_are_named(encoder, tmp_path):
    encoder.save(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole, tensors = weights.read_bytes(), safetensors.torch.load(weights.read_bytes())

    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="model.safetensors is cut"):
        text_encoder.load(tmp_path)

    name = "encoder.final_layer_norm.weight"
    save_file({**tensors, name: torch.zeros(7)}, weights)
    with pytest.raises(ValueError, match=r"encoder.final_layer_norm.weight: file \(7,\), model \(24,\)"):
        text_encoder.load(tmp_path)

    weights.write_bytes(whole)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 5}))
    with pytest.raises(ValueError, match="config.json says 5"):
        text_encoder.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"kind": "t5"}))
    with pytest.raises(ValueError, match="does not describe a text encoder"):
        text_encoder.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"kind": "vq"}))
    with pytest.raises(ValueError, match="kind 'vq', not a text encoder"):
        text_encoder.load(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="not a JSON object"):
        text_encoder.load(tmp_path)
    weights.unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="model.safetensors is missing"):
        text_encoder.load(tmp_path)
    with pytest.raises(ValueError, match="config.json is missing"):
        text_encoder.load(tmp_path.parent)


def test_two_models_may_share_an_encoder(encoder, tmp_path):
    encoder.save(tmp_path / "owner" / "text_encoder")
    shared_parts.link_part("owner", tmp_path / "other" / "text_encoder")
    found = load(tmp_path / "other" / "text_encoder")
    assert checkpoint.fingerprint(found.identity()) == checkpoint.fingerprint(encoder.identity())
    assert sum(f.stat().st_size for f in (tmp_path / "other").rglob("*") if f.is_file()) < 200
    shared_parts.link_part("other", tmp_path / "third" / "text_encoder")
    with pytest.raises(ValueError, match="borrows the text encoder of other, but .* holds none"):
        load(tmp_path / "third" / "text_encoder")
    shared_parts.link_part("nobody", tmp_path / "third" / "text_encoder")
    with pytest.raises(ValueError, match="borrows the text encoder of nobody, but .*nobody.text_encoder holds none"):
        load(tmp_path / "third" / "text_encoder")


def test_identity_tells_vocabularies_apart(encoder, vocabulary):
    pieces = encoder.identity()["vocabulary"]
    assert bytes(pieces.tolist()) == (vocabulary / "spiece.model").read_bytes()


def test_left_and_right_keep_order():
    mask = torch.tensor([[True, False, True, False], [False, True, True, True]])
    rows = torch.tensor([[1, 0, 2, 0], [0, 1, 2, 3]])
    assert right(rows, mask).tolist() == [[1, 2, 0, 0], [1, 2, 3, 0]]
    assert left(rows, mask).tolist() == [[0, 0, 1, 2], [0, 1, 2, 3]]
    assert torch.equal(left(rows[..., None], mask)[..., 0], left(rows, mask))


def words(folder):
    """A word-level tokenizer in Hugging Face's layout."""
    names = ["<pad>", "</s>", "<unk>", *sorted({word for sentence in SENTENCES for word in sentence.split()})]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return len(names)


def make_t5(folder, **sizes):
    size = words(folder)
    config = SmallT5Config(size, **{key: value for key, value in (SMALL | sizes).items() if key != "length"}).t5()
    T5EncoderModel(config).save_pretrained(folder)


def make_gemma(folder):
    GemmaModel(
        GemmaConfig(
            vocab_size=words(folder), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, head_dim=8,
        )
    ).save_pretrained(folder)  # fmt: skip


def make_bert(folder):
    BertModel(
        BertConfig(
            vocab_size=words(folder), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2,
        )
    ).save_pretrained(folder)  # fmt: skip


@pytest.mark.parametrize("make", [make_t5, make_gemma, make_bert])
def test_hugging_face_encoders_pad_on_either_side_with_the_same_states(make, tmp_path):
    torch.manual_seed(0)
    make(tmp_path)
    prompts = ["a cat on the beach", "two dog"]
    rights = HuggingFaceEncoder(str(tmp_path), length=9, dtype=torch.float32).encode(prompts)
    lefts = HuggingFaceEncoder(str(tmp_path), length=9, padding="left", dtype=torch.float32).encode(prompts)
    assert torch.equal(rights.mask.sum(1), lefts.mask.sum(1)) and lefts.mask[1, -1] and not lefts.mask[1, 0]
    assert torch.allclose(rights.states[rights.mask], lefts.states[lefts.mask], atol=1e-5)
    assert not lefts.states[~lefts.mask].any()
    alone = HuggingFaceEncoder(str(tmp_path), dtype=torch.float32).encode(prompts[1:])
    assert torch.allclose(alone.states[0], rights.states[1, : alone.mask.sum()], atol=1e-5)


def test_hugging_face_prompts_are_cut_at_the_length(tmp_path):
    make_t5(tmp_path)
    encoder = HuggingFaceEncoder(str(tmp_path), length=5)
    assert encoder.encode(["cat " * 500, ""]).states.shape == (2, 5, 24)
    encoder.check("cat " * 5)
    with pytest.raises(ValueError, match=r"the prompt 'cat .*' has 6 tokens, this text encoder reads 5: shorten it"):
        encoder.check("cat " * 6)
    assert encoder.width == 24 and not any(parameter.requires_grad for parameter in encoder.parameters())


def test_a_reference_folder_names_its_encoder(tmp_path):
    make_t5(tmp_path / "theirs")
    encoder = text_encoder.load(tmp_path / "theirs")
    assert isinstance(encoder, HuggingFaceEncoder) and isinstance(encoder, TextEncoder)
    encoder.save(tmp_path / "ours")
    again = text_encoder.load(tmp_path / "ours")
    assert [path.name for path in (tmp_path / "ours").iterdir()] == ["config.json"]
    for name, tensor in encoder.identity().items():
        assert torch.equal(tensor, again.identity()[name])


def test_a_name_that_cannot_be_had_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"no text encoder 'google/no-such-t5'.*not in the Hugging Face") as caught:
        text_encoder.load("google/no-such-t5")
    assert "\n" not in str(caught.value)
