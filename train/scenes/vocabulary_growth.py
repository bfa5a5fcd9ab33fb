"""Adds words to a text encoder without changing its output for texts without them.

A new word becomes a piece with its own row of the embedding. The old pieces, their rows and all other weights stay the
same. A text without new words therefore has exactly the same states as before, and trained generators still work with
it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from torch import nn

from text_encoder.small_t5 import SmallT5Encoder
from train.scenes.captions import grammar_words, spoken_names
from train.scenes.scene import KNOWN_THINGS
from train.scenes.sprites import things

SCORE = -4.0  # log probability of a new piece in the unigram model: far above that of a word in single letters
WORD_START = "▁"


def new_words(encoder: SmallT5Encoder) -> list[str]:
    """The words that occur only in names of things after KNOWN_THINGS, and that the encoder's vocabulary splits into
    several pieces."""
    return sorted(word for word in _words_of_new_names() if len(encoder.pieces.encode(word)) > 1)


def first_new_piece(encoder: SmallT5Encoder) -> int:
    """Number of the first piece that `grow_vocabulary` added; 0 where the vocabulary never grew."""
    last = encoder.config.vocab_size
    pieces = {WORD_START + word for word in _words_of_new_names()}
    while last and encoder.pieces.id_to_piece(last - 1) in pieces:
        last -= 1
    return last if last < encoder.config.vocab_size else 0


def _words_of_new_names() -> set[str]:
    words = {new: set() for new in (False, True)}
    for thing in things():
        words[thing.index >= KNOWN_THINGS] |= {word for name in spoken_names(thing) for word in name.split()}
    return words[True] - words[False] - grammar_words()


def grow_vocabulary(encoder: SmallT5Encoder, words: Sequence[str], known: Iterable[str]) -> SmallT5Encoder:
    """The encoder with one more piece for each of `words`. The rows of the new pieces are initialized around the mean
    row of the old pieces of more than three letters.

    `known`: texts to check. Raises ValueError where a text without new words would be split into other pieces.
    """
    proto = ModelProto.FromString(encoder.vocabulary)
    for word in words:
        proto.pieces.add(piece=WORD_START + word, score=SCORE)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    config = replace(encoder.config, vocab_size=len(proto.pieces))
    grown = SmallT5Encoder(config, proto.SerializeToString())
    fresh_words = set(words)
    for text in known:
        if fresh_words.isdisjoint(text.split()) and encoder.pieces.encode(text) != grown.pieces.encode(text):
            raise ValueError(
                f"with the new words {text!r} would be split otherwise: leave out the new words that it contains"
            )
    old = encoder.t5.state_dict()
    rows = old["shared.weight"]
    whole = [i for i in range(len(rows)) if len(encoder.pieces.id_to_piece(i)) > 3]
    fresh = rows[whole].mean(0) + 0.5 * rows[whole].std(0) * torch.randn(len(words), rows.shape[1])
    for name in ("shared.weight", "encoder.embed_tokens.weight"):
        if name in old:
            old[name] = torch.cat([rows, fresh])
    grown.t5.load_state_dict(old)
    return grown


def freeze_known(encoder: SmallT5Encoder, known: int) -> nn.Parameter:
    """Freeze the encoder but for the rows of its embedding from `known` on: the gradient of all other rows is zero."""
    encoder.requires_grad_(False)
    rows = encoder.t5.shared.weight.requires_grad_(True)
    rows.register_hook(lambda gradient: torch.cat([torch.zeros_like(gradient[:known]), gradient[known:]]))
    return rows


def is_grown_from(encoder: SmallT5Encoder, known: SmallT5Encoder) -> bool:
    """Whether `encoder` is `known` with more words, so that texts without them have the same states."""
    new, old = encoder.weights(), known.weights()
    return new.keys() == old.keys() and all(torch.equal(new[name][: len(old[name])], old[name]) for name in old)
