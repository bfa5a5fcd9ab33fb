"""When each word of a transcript is spoken: Whisper's own alignment, or an estimate from the voice activity.

`align_words` follows the cross-attention of a released Whisper's alignment heads from token to token (dynamic time
warping, `whisper.timing`); its times are exact to 20 ms at best. A recognizer without such heads gets
`estimate_word_times`: the words share the spans of speech in proportion to their letters.

Axes: T samples at 16 kHz.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from whisper.audio import HOP_LENGTH, N_SAMPLES, log_mel_spectrogram, pad_or_trim
from whisper.model import Whisper
from whisper.timing import find_alignment, merge_punctuations
from whisper.tokenizer import Tokenizer

from speech.audio import RATE
from speech.vad import VoiceActivityDetector, speech_spans

PREPENDED, APPENDED = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"  # marks that belong to the next, to the previous word


@dataclass(frozen=True)
class TimedWord:
    """A word and when it is spoken, in seconds. `probability`: of its tokens, 1 where it is not known."""

    word: str
    start: float
    end: float
    probability: float = 1.0


def align_words(
    model: Whisper, tokenizer: Tokenizer, audio: Float[np.ndarray, " T"], tokens: Sequence[int], start: float = 0.0
) -> list[TimedWord]:
    """The words of `tokens`, which were decoded from these samples (at most 30 s). `start`: seconds before the audio.

    Times never go back, and never past the end of the audio.
    """
    samples = pad_or_trim(torch.from_numpy(np.ascontiguousarray(audio, np.float32)), N_SAMPLES)
    mel = log_mel_spectrogram(samples.to(model.device), model.dims.n_mels)
    frames = min(len(audio), N_SAMPLES) // HOP_LENGTH
    words = find_alignment(model, tokenizer, list(tokens), mel, max(2, frames))
    merge_punctuations(words, PREPENDED, APPENDED)
    timed, latest, end = [], 0.0, len(audio) / RATE
    for word in words:
        if not word.word.strip():
            continue
        begins = min(max(latest, float(word.start)), end)
        latest = min(max(begins, float(word.end)), end)
        times = round(start + begins, 3), round(start + latest, 3)
        timed.append(TimedWord(word.word.strip(), *times, float(word.probability)))
    return timed


def within_speech(words: Sequence[TimedWord], spans: Sequence[tuple[int, int]]) -> list[TimedWord]:
    """The words cut to the spans of speech, in samples: an alignment gives a pause to the words around it. A word that
    reaches over a pause keeps its longest part; one that no span touches stays as it is."""
    cut = []
    for word in words:
        parts = [(max(word.start, start / RATE), min(word.end, stop / RATE)) for start, stop in spans]
        start, end = max(parts, key=lambda part: part[1] - part[0], default=(word.start, word.end))
        times = (round(start, 3), round(end, 3)) if end > start else (word.start, word.end)
        cut.append(TimedWord(word.word, *times, word.probability))
    return cut


def estimate_word_times(samples: Float[np.ndarray, " T"], words: Sequence[str]) -> list[TimedWord]:
    """The words of 16 kHz samples with estimated times."""
    spans = speech_spans(VoiceActivityDetector().probabilities(samples)) or [(0, len(samples))]
    ends = np.cumsum([stop - start for start, stop in spans])
    letters = np.cumsum([0, *(len(word) + 1 for word in words)])

    def seconds(share: float, is_start: bool) -> float:
        """The time at which this share of all speech has been heard; a word begins after a pause, not before it."""
        at = share * ends[-1]
        index = min(int(np.searchsorted(ends, at, side="right" if is_start else "left")), len(spans) - 1)
        return float((spans[index][1] - (ends[index] - at)) / RATE)

    shares = letters / max(letters[-1], 1)
    return [
        TimedWord(word, round(seconds(shares[i], True), 3), round(seconds(shares[i + 1], False), 3))
        for i, word in enumerate(words)
    ]
