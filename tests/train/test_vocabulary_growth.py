"""A text encoder learns new words, and what it makes of old ones stays to the bit."""

from pathlib import Path

import pytest
import torch

from text_encoder.small_t5 import SmallT5Encoder
from train.recipes.scenes import scenes_text
from train.scenes import vocabulary_growth
from train.scenes.vocabulary_growth import freeze_known, grow_vocabulary, is_grown_from

BUNDLED = Path(__file__).resolve().parents[2] / "weights" / "scenes" / "text_encoder"
KNOWN = ["two cats on the beach", "a red apple to the left of a blue dog", "pixel art of a robot"]


@pytest.fixture(scope="module")
def encoder() -> SmallT5Encoder:
    return SmallT5Encoder.load(BUNDLED)


@pytest.fixture
def grown(encoder: SmallT5Encoder) -> SmallT5Encoder:
    return grow_vocabulary(encoder, ["zeppelin", "zeppelins"], KNOWN)


def test_a_new_word_is_one_piece(encoder: SmallT5Encoder, grown: SmallT5Encoder):
    assert len(encoder.pieces.encode("zeppelin")) > 2
    assert grown.pieces.encode("a zeppelin")[1:] == [encoder.config.vocab_size]


def test_texts_without_new_words_keep_their_states(encoder: SmallT5Encoder, grown: SmallT5Encoder):
    before, after = encoder.encode(KNOWN), grown.encode(KNOWN)
    assert torch.equal(before.states, after.states) and torch.equal(before.mask, after.mask)
    assert is_grown_from(grown, encoder) and not is_grown_from(encoder, grown)


def test_only_the_new_rows_learn(encoder: SmallT5Encoder, grown: SmallT5Encoder):
    freeze_known(grown, encoder.config.vocab_size)
    optimizer = torch.optim.AdamW([p for p in grown.parameters() if p.requires_grad], lr=0.1, weight_decay=0)
    ids, mask = grown.tokenize(["two zeppelins over a dog"])
    grown(ids, mask).square().sum().backward()
    rows = grown.t5.shared.weight.detach().clone()
    optimizer.step()
    changed = (grown.t5.shared.weight != rows).any(1)
    assert changed.any() and not changed[: encoder.config.vocab_size].any()
    assert is_grown_from(grown, encoder)


def test_a_word_that_would_cut_known_texts_otherwise_is_refused(encoder: SmallT5Encoder):
    with pytest.raises(ValueError, match="would be split otherwise"):
        grow_vocabulary(encoder, ["bea"], ["beau"])


def test_without_a_new_word_there_is_nothing_to_grow(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vocabulary_growth, "KNOWN_THINGS", 10**6)
    with pytest.raises(ValueError, match="add a thing first"):
        scenes_text(init=str(BUNDLED), grow=True)


def test_where_the_new_pieces_begin(monkeypatch: pytest.MonkeyPatch, encoder: SmallT5Encoder, grown: SmallT5Encoder):
    monkeypatch.setattr(vocabulary_growth, "_words_of_new_names", lambda: {"zeppelin", "zeppelins"})
    assert vocabulary_growth.first_new_piece(encoder) == 0
    assert vocabulary_growth.first_new_piece(grown) == encoder.config.vocab_size
