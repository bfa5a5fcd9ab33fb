"""Batches of disturbed speech as a function of their number, so that a resumed run hears on exactly where it stopped.

Axes: B utterances, M mel values, F frame pairs of 20 ms, L tokens, S letters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch

from speech.audio import RATE
from speech.mel import log_mel
from speech.tokenizer import END, LETTERS, NO_SPEECH, START, ASRTokenizer
from train.asr.augment import cut, disturb, fit, mask, speed, warp
from train.asr.corpus import FITS, NOISE, REAL, Corpus
from train.asr.noise import KINDS, bank, make_noise

IGNORED = -100  # where a target is padding
SILENCE = -1  # in place of a clip's number: noise
STRIDE = RATE // 4  # batches have few lengths, so that kernels are prepared few times
MARGIN = 0.25  # seconds of silence that every utterance has at least, before and after together


@cache
def _opened(folder: str) -> Corpus:
    return Corpus(Path(folder))


@dataclass(frozen=True)
class SpeechDataset:
    """{"mel": (B, 160, F), "tokens": (B, L + 1) from START to END, "letters": (B, S)}, both padded with IGNORED.

    B follows from the length: about `seconds` of sound in each batch. `tokens` and `pieces` are a vocabulary and its
    number of pieces; one word in `spelling` is spelled from pieces though it is known whole, so that unknown words are
    no new situation. Real recordings come `real` times in an epoch; one clip in `silent` says nothing. Clips of more
    than FITS seconds are left out.
    """

    folder: str
    tokens: tuple[str, ...]
    pieces: int
    seconds: float = 180.0
    seed: int = 0
    real: int = 2
    silent: int = 16
    spelling: int = 12

    def __call__(self, index: int) -> dict[str, torch.Tensor]:
        corpus = _opened(self.folder)
        whole, parts = _vocabularies(self.tokens, self.pieces)
        tapes = [corpus.samples(c) for c in corpus.clips if c.voice.startswith(NOISE)] + [bank(self.seed)]
        said: list[tuple[str, np.ndarray, np.random.Generator]] = []
        for place, number in enumerate(self._batch(index)):
            draw = np.random.default_rng((self.seed, index, place))
            if number == SILENCE:
                said.append(("", np.zeros(0, np.float32), draw))
            else:
                sound = corpus.samples(corpus.clips[number])
                other = speed(sound, draw) if draw.random() < 0.7 else sound
                # Slowed down, what nearly fills the recognizer's reach would not fit.
                said.append((corpus.clips[number].text, other if len(other) <= FITS * RATE else sound, draw))
        length = -(-(max(len(sound) for _, sound, _ in said) + round(MARGIN * RATE)) // STRIDE) * STRIDE
        sounds, tokens, letters = [], [], []
        for text, sound, draw in said:
            if text:
                sound = disturb(fit(sound, length, draw), draw, tapes)
                spellers = [parts if draw.integers(self.spelling) == 0 else whole for _ in text.split()]
                ids = [i for word, by in zip(text.split(), spellers, strict=True) for i in by.encode(word)]
            else:
                sound, ids = non_speech(length, draw, tapes), [NO_SPEECH]
            sounds.append(sound)
            tokens.append([START, *ids, END])
            letters.append([LETTERS.index(letter) for letter in text.replace(" ", "")])
        mels = log_mel(torch.from_numpy(np.stack(sounds)))
        for mel, (_, _, draw) in zip(mels, said, strict=True):
            if draw.random() < 0.5:
                warp(mel, draw)
            mask(mel, draw)
        return {"mel": mels, "tokens": padded(tokens), "letters": padded(letters)}

    def _batch(self, index: int) -> list[int]:
        for epoch in _counter():
            batches = _epoch(self, epoch)
            if index < len(batches):
                return batches[index]
            index -= len(batches)
        raise AssertionError


def _counter() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


@lru_cache(maxsize=64)
def _epoch(batches: SpeechDataset, epoch: int) -> list[list[int]]:
    """Clip numbers (or SILENCE) of each batch: every clip once, neighbours in length together, batches in any order."""
    corpus = _opened(batches.folder)
    draw = np.random.default_rng((batches.seed, epoch, 37))
    numbers: list[int] = []
    for number, item in enumerate(corpus.clips):
        kind = item.voice.split(":")[0]
        if item.stop - item.start <= FITS * RATE:
            numbers += [number] * {REAL: batches.real, NOISE: 0}.get(kind, 1)
    numbers += [SILENCE] * (len(numbers) // batches.silent)
    clips = corpus.clips
    spans = [draw.uniform(1, 4) * RATE if n == SILENCE else clips[n].stop - clips[n].start for n in numbers]
    # A little disorder, so that neighbours differ from epoch to epoch.
    order = np.argsort(np.asarray(spans) * draw.uniform(0.95, 1.05, len(spans)))[::-1]
    result, begin = [], 0
    while begin < len(order):  # from the longest on: the first of a batch decides how many fit
        count = max(1, round(batches.seconds / (spans[order[begin]] * 1.08 / RATE + MARGIN)))
        result.append([numbers[place] for place in order[begin : begin + count]])
        begin += count
    return [result[i] for i in draw.permutation(len(result))]


@cache
def _vocabularies(tokens: tuple[str, ...], pieces: int) -> tuple[ASRTokenizer, ASRTokenizer]:
    """Ids agree: pieces come first."""
    return ASRTokenizer(tokens), ASRTokenizer(tokens[:pieces])


def non_speech(count: int, draw: np.random.Generator, tapes: list[np.ndarray]) -> np.ndarray:
    """Noise made for the occasion, or cut from a tape."""
    if draw.random() < 0.5:
        return make_noise(list(KINDS)[int(draw.integers(len(KINDS)))], count, draw)
    return cut(tapes[int(draw.integers(len(tapes)))], count, draw)


def padded(rows: list[list[int]], value: int = IGNORED) -> torch.Tensor:
    """The rows with `value` after their ends, as far as the longest."""
    width = max(map(len, rows))
    # Letters of silence alone have no width, from which no type would follow.
    return torch.tensor([row + [value] * (width - len(row)) for row in rows], dtype=torch.long)
