"""Word pieces of captions as padded rows: what a text encoder that is trained with a generator reads.

Axes: B captions, L text tokens.
"""

from collections.abc import Sequence
from functools import lru_cache

import sentencepiece
import torch
from jaxtyping import Bool, Int
from torch import Tensor

PAD, END = 0, 1  # as in T5


@lru_cache(maxsize=4)
def word_pieces(vocabulary: bytes) -> sentencepiece.SentencePieceProcessor:
    """The sentencepiece model whose file has these bytes."""
    return sentencepiece.SentencePieceProcessor(model_proto=vocabulary)


def padded_pieces(pieces: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """(ids, mask of real tokens): each row ends with END and is padded with PAD."""
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor([*p, END]) for p in pieces], batch_first=True)
    return ids, ids != PAD
