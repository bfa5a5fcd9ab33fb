"""Learns the bundled recognizer's vocabulary: byte-pair pieces of the corpus, then the grammar's whole words.

Whole words keep captions short (eight tokens); with the pieces any word can be spelled.
"""

from collections import Counter
from collections.abc import Iterable

from speech.tokenizer import LETTERS, ASRTokenizer


def learn(texts: Iterable[str], words: Iterable[str], merges: int = 300) -> tuple[ASRTokenizer, int]:
    """(vocabulary, how many of its tokens are pieces): `merges` byte-pair merges (Sennrich et al., 2016) over `texts`,
    and every one of `words` whole.

    The same arguments give the same vocabulary: ties fall to the alphabet.
    """
    counts = Counter(" " + word for text in texts for word in text.split())
    spelled = {word: list(word) for word in counts}
    tokens = list(LETTERS)
    for _ in range(merges):
        pairs: Counter = Counter()
        for word, parts in spelled.items():
            for pair in zip(parts, parts[1:], strict=False):
                pairs[pair] += counts[word]
        if not pairs:
            break
        (left, right), _ = min(pairs.items(), key=lambda item: (-item[1], item[0]))
        tokens.append(left + right)
        spelled = {word: _merged(parts, left, right) for word, parts in spelled.items()}
    pieces = len(tokens)
    whole = sorted({" " + word for word in words} - set(tokens))
    return ASRTokenizer(tokens + whole), pieces


def pieces_of(vocabulary: ASRTokenizer, words: Iterable[str]) -> int:
    """Number of pieces in a learned vocabulary: the tokens before its whole words."""
    whole = {" " + word for word in words}
    count = len(vocabulary.tokens)
    while vocabulary.tokens[count - 1] in whole:
        count -= 1
    return count


def _merged(parts: list[str], left: str, right: str) -> list[str]:
    result: list[str] = []
    for part in parts:
        if result and result[-1] == left and part == right:
            result[-1] = left + right
        else:
            result.append(part)
    return result
