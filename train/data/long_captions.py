"""Captions cut to the length of a text encoder, and captions with their tags in other orders."""

import hashlib

import numpy as np

from text_encoder import TextEncoder


def cut_caption(encoder: TextEncoder, caption: str) -> str:
    """The first words of a caption, as many as the encoder reads. ValueError when it cannot read the first word."""
    words = caption.split()
    least, most = 0, len(words) - 1  # numbers of words: read, and possibly read
    while least < most:
        middle = (least + most + 1) // 2
        try:
            encoder.tokenize([" ".join(words[:middle])])
            least = middle
        except ValueError:
            most = middle - 1
    if not least:
        raise ValueError(f"the caption begins with a word that the text encoder cannot read whole: {words[0][:40]!r}")
    return " ".join(words[:least])


def with_shuffled_tags(captions: tuple[str, ...], count: int, key: str) -> tuple[str, ...]:
    """The captions, and `count` further orders of the first one's comma-separated tags, drawn by the picture's name."""
    tags = [tag.strip() for tag in captions[0].split(",") if tag.strip()] if captions else []
    if not count or len(tags) < 2:
        return captions
    draw = np.random.default_rng(list(hashlib.sha256(f"tags {key}".encode()).digest()))
    orders = (", ".join(tags[i] for i in draw.permutation(len(tags))) for _ in range(count))
    return tuple(dict.fromkeys((*captions, *orders)))
