"""The recognizer of this process: loaded once, on first use; what it wrote down is remembered."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from app.serving import metrics
from maskgil import model_folder
from speech import audio as sound
from speech.transcriber import Transcriber, Transcript

REMEMBERED = 128  # transcripts
CALLS_AT_ONCE = 8  # of microphones, and as many of programs; in this process one of each is transcribed at a time
live_calls = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="recognizer")
recording_calls = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="recognizer of programs")


@runtime_checkable
class Recognizer(Protocol):
    """Writes down speech: SpeechRecognizer in this process, ClusterRecognizer in replicas."""

    name: str

    def load(self) -> object:
        """Load it. Raises ValueError when it is missing or broken."""
        ...

    def transcribe(self, recording: Path | bytes) -> Transcript: ...

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
        """The recognizer. Raises ValueError when it is missing or broken."""
        with self._lock:
            if self._transcriber is None:
                self._transcriber = Transcriber.load(model_folder.bundled_or_given(self.name))
            return self._transcriber

    def transcribe(self, recording: Path | bytes) -> Transcript:
        """What is said in a recording. Raises ValueError for what is no sound, empty, or too long."""
        transcriber = self.load()
        samples = sound.load_audio(recording, longest=transcriber.limit)
        key = hashlib.sha256(samples.tobytes()).digest()
        with self._lock:
            if key in self._written:
                self._written.move_to_end(key)
                return self._written[key]
        with self._recordings:
            transcript = transcriber.transcribe(samples)
        metrics.WORDS.inc(len(transcript.words))
        with self._lock:
            self._written[key] = transcript
            while len(self._written) > REMEMBERED:
                self._written.popitem(last=False)
        return transcript

    def transcribe_live(self, spoken: Float[np.ndarray, " T"], guess: Sequence[int] = ()) -> Transcript:
        """Speech that a listener has already found. `guess`: tokens of an earlier transcript of its beginning."""
        transcriber = self.load()
        with self._utterances:
            transcript = transcriber.transcribe(spoken, spoken=True, guess=guess)
        metrics.WORDS.inc(len(transcript.words))
        return transcript
