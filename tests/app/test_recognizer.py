"""app.serving.recognizer: callers of one process take turns, and microphones do not wait for recordings."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from app.serving import recognizer
from app.serving.recognizer import SpeechRecognizer
from speech.audio import RATE
from speech.transcriber import Transcriber, Transcript


class Scribe(Transcriber):
    """A transcriber without a model. It notes how many calls of each kind are in it at once."""

    limit = 30.0
    is_multilingual = False

    def __init__(self):
        self.inside = {True: 0, False: 0}
        self.most = {True: 0, False: 0}
        self.both = threading.Barrier(2, timeout=60)  # one utterance and one recording are here together

    def transcribe(
        self, samples: np.ndarray, spoken: bool = False, guess: tuple[int, ...] = (), context=None
    ) -> Transcript:
        self.inside[spoken] += 1
        self.most[spoken] = max(self.most[spoken], self.inside[spoken])
        self.both.wait()
        self.inside[spoken] -= 1
        return Transcript("a cat", ("a", "cat"), False, "")


def test_one_recording_and_one_utterance_are_transcribed_at_a_time(tmp_path, monkeypatch: pytest.MonkeyPatch):
    scribe = Scribe()
    monkeypatch.setattr(Transcriber, "load", lambda name: scribe)
    listener = SpeechRecognizer("whisper-scenes")
    recordings = []
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", np.full(RATE, 0.1 * (i + 1), np.float32), RATE)
        recordings.append((tmp_path / f"{i}.wav").read_bytes())
    with ThreadPoolExecutor(8) as callers:
        calls = [callers.submit(listener.transcribe, recording) for recording in recordings]
        calls += [callers.submit(listener.transcribe_live, np.zeros(RATE, np.float32)) for _ in recordings]
        assert {call.result(60).text for call in calls} == {"a cat"}
    assert scribe.most == {True: 1, False: 1}
    assert recognizer.CALLS_AT_ONCE > 1
