"""speech.vad: a stream and a recording agree; speech is found, noise is not; torch's threads are left alone."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from speech.audio import RATE
from speech.vad import CHUNK, VoiceActivityDetector, speech_spans
from train.asr.noise import noise_clip
from train.asr.tts_voices import HELD_OUT, speak

ROOT = Path(__file__).resolve().parents[2]


def test_stream_and_recording_agree_and_find_the_words():
    threads = torch.get_num_threads()
    words = speak("two cats on the beach", HELD_OUT[1], seed=0)
    sound = np.pad(words, (RATE, RATE))
    chances = VoiceActivityDetector().probabilities(sound)
    stream = VoiceActivityDetector()
    one_by_one = [stream.feed(sound[i : i + CHUNK]) for i in range(0, len(sound) - CHUNK + 1, CHUNK)]
    assert np.allclose(chances[: len(one_by_one)], one_by_one, atol=1e-4)
    ((start, stop),) = speech_spans(chances)
    assert abs(start - RATE) < RATE / 2 and abs(stop - RATE - len(words)) < RATE / 2
    assert torch.get_num_threads() == threads and "silero_vad" not in sys.modules


def test_noise_is_no_speech():
    for i in range(16):
        kind, sound = noise_clip(i, seed=5)
        assert speech_spans(VoiceActivityDetector().probabilities(sound)) == [], kind


def test_spans_close_after_a_pause_and_are_padded_and_joined():
    def at(*spoken: tuple[int, int]) -> np.ndarray:
        chances = np.zeros(200, np.float32)
        for start, stop in spoken:
            chances[start:stop] = 1
        return chances

    assert speech_spans(at()) == []
    assert speech_spans(at((50, 60)), pad=0.0) == [(50 * CHUNK, 60 * CHUNK)]
    assert len(speech_spans(at((50, 60), (65, 70)), pad=0.0)) == 1  # 160 ms are no pause
    assert len(speech_spans(at((50, 60), (75, 80)), pad=0.0)) == 2
    assert len(speech_spans(at((50, 60), (75, 80)), pad=0.3)) == 1  # widened until they touch
    assert speech_spans(at((0, 200)), pad=0.2) == [(0, 200 * CHUNK)]


def test_listening_asks_no_host_and_writes_nothing_at_home(tmp_path: Path):
    """onnxruntime keeps a database of its use in the home folder and sends it, unless it is told not to."""
    code = "import numpy; from speech.vad import VoiceActivityDetector as V; V().feed(numpy.zeros(512, numpy.float32))"
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=200)
    assert not list(tmp_path.rglob("*"))
