"""The recognizer of this process: loaded once, on first use; what it wrote down is remembered."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from app.core.registry import UnavailableError
from app.serving import metrics
from maskgil import model_folder
from speech import audio as sound
from speech.greedy_decoding import AUTO, DecodingContext
from speech.transcriber import Transcriber, Transcript
from speech.word_alignment import TimedWord

REMEMBERED = 128  # transcripts
CALLS_AT_ONCE = 8  # of microphones, and as many of programs; in this process one of each is transcribed at a time
live_calls = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="recognizer")
recording_calls = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="recognizer of programs")


@dataclass(frozen=True)
class TimedTranscript:
    """A transcript, the seconds of the recording, its words with their times, and whether the recognizer aligned them
    or they are estimates."""

    transcript: Transcript
    duration: float
    words: tuple[TimedWord, ...]
    is_aligned: bool


@runtime_checkable
class Recognizer(Protocol):
    """Writes down speech: SpeechRecognizer in this process, ClusterRecognizer in replicas."""

    name: str

    def load(self) -> object:
        """Load it. Raises UnavailableError when it is missing or broken."""
        ...

    def transcribe(self, recording: Path | bytes, context: DecodingContext | None = None) -> Transcript: ...

    def transcribe_timed(self, recording: Path | bytes, context: DecodingContext | None = None) -> TimedTranscript: ...

    def transcribe_live(self, spoken: Float[np.ndarray, " T"], guess: Sequence[int] = ()) -> Transcript: ...


class SpeechRecognizer:
    """Safe to use from several threads. One recording and one live utterance at a time are transcribed, each with the
    cores that PyTorch takes. `name`: a bundled recognizer, a file, or a released Whisper size."""

    def __init__(self, name: str):
        self.name = name
        self._lock = threading.Lock()
        self._recordings, self._utterances = threading.Lock(), threading.Lock()  # held while one is transcribed
        self._transcriber: Transcriber | None = None
        self._written: OrderedDict[bytes, Transcript] = OrderedDict()

    def load(self) -> Transcriber:
        """The recognizer. Raises UnavailableError when it is missing or broken."""
        with self._lock:
            if self._transcriber is None:
                try:
                    self._transcriber = Transcriber.load(model_folder.bundled_or_given(self.name))
                except ValueError as error:
                    raise UnavailableError(str(error)) from error
            return self._transcriber

    def transcribe(self, recording: Path | bytes, context: DecodingContext | None = None) -> Transcript:
        """What is said in a recording; in English where no context asks for another. Raises ValueError for what is no
        sound, empty, or too long, and for a language that the recognizer does not know."""
        return self._transcript(self._samples(recording, context), context)

    def transcribe_timed(self, recording: Path | bytes, context: DecodingContext | None = None) -> TimedTranscript:
        """The same with the time of each word."""
        samples = self._samples(recording, context)
        transcript = self._transcript(samples, context)
        with self._recordings:
            words, is_aligned = self.load().word_times(samples, transcript, context.task if context else "transcribe")
        return TimedTranscript(transcript, len(samples) / sound.RATE, tuple(words), is_aligned)

    def _samples(self, recording: Path | bytes, context: DecodingContext | None) -> Float[np.ndarray, " T"]:
        transcriber = self.load()
        if context is not None and not transcriber.is_multilingual and context.language not in ("en", AUTO):
            raise ValueError(
                f"{self.name} understands English only: give language en, or another recognizer such as base"
            )
        return sound.load_audio(recording, longest=transcriber.limit)

    def _transcript(self, samples: Float[np.ndarray, " T"], context: DecodingContext | None) -> Transcript:
        context = context or self._drawn_context()
        key = hashlib.sha256(samples.tobytes() + repr(context).encode()).digest()
        with self._lock:
            if key in self._written:
                self._written.move_to_end(key)
                return self._written[key]
        with self._recordings:
            transcript = self.load().transcribe(samples, context=context)
        metrics.WORDS.inc(len(transcript.words))
        with self._lock:
            self._written[key] = transcript
            while len(self._written) > REMEMBERED:
                self._written.popitem(last=False)
        return transcript

    def transcribe_live(self, spoken: Float[np.ndarray, " T"], guess: Sequence[int] = ()) -> Transcript:
        """Speech that a listener has already found. `guess`: tokens of an earlier transcript of its beginning."""
        transcriber, context = self.load(), self._drawn_context()
        with self._utterances:
            transcript = transcriber.transcribe(spoken, spoken=True, guess=guess, context=context)
        metrics.WORDS.inc(len(transcript.words))
        return transcript

    def _drawn_context(self) -> DecodingContext | None:
        """Models draw English words: what is said in another language is translated, where the recognizer can."""
        return DecodingContext(AUTO, "translate") if self.load().is_multilingual else None
