"""The commonest English words with their classes, for text_encoder/prompt_reader/english_words.txt.

A line is a class, a tab, and words of it. The classes are those of WordNet.word_class.
"""

import re

from train.stand_ins.word_vectors import WordVectors
from train.stand_ins.wordnet import WordNet

WIDTH = 116  # characters of a line
CLASSES = "nmbva"


def word_lines(wordnet: WordNet, vectors: WordVectors, most: int = 60_000) -> list[str]:
    """Lines of all of WordNet's words that are among the `most` commonest."""
    words = [
        word for word in wordnet.classes if re.fullmatch("[a-z]{2,}", word) and vectors.ranks.get(word, most) < most
    ]
    lines = []
    for kind in CLASSES:
        line = ""
        for word in sorted(word for word in words if wordnet.word_class(word) == kind):
            if len(line) + len(word) + 1 > WIDTH:
                lines.append(f"{kind}\t{line}")
                line = ""
            line = f"{line} {word}".strip()
        lines.append(f"{kind}\t{line}")
    return lines
