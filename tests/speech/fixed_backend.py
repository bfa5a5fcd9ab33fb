"""A recognizer that writes the same text, whatever it is given."""

from collections.abc import Sequence

import numpy as np

from speech.audio import RATE
from speech.backends import RawTranscript, TranscribedPiece
from speech.greedy_decoding import DecodingContext
from speech.word_alignment import TimedWord, estimate_word_times


class FixedBackend:
    """`lengths`: the samples of each call so far."""

    is_multilingual = False

    def __init__(self, text: str = "two cats", no_speech: float = 0.0, reach: int = 10 * RATE) -> None:
        self.draft, self.reach = RawTranscript(text, no_speech), reach
        self.hears_pauses = True
        self.lengths: list[int] = []

    def transcribe(
        self, audio: np.ndarray, guess: Sequence[int] = (), context: DecodingContext | None = None
    ) -> RawTranscript:
        self.lengths.append(len(audio))
        return self.draft

    def word_times(
        self, audio: np.ndarray, pieces: Sequence[TranscribedPiece], task: str = "transcribe"
    ) -> tuple[list[TimedWord], bool]:
        return estimate_word_times(audio, self.draft.text.split()), False
