"""Sentences in synthetic voices that the bundled recognizer understands."""

import io
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from maskgil.model_folder import weights_folder
from speech.audio import RATE
from speech.transcriber import BUNDLED

VOICES = ("flite:slt", "flite:rms", "espeak-ng:en-us", "flite:awb", "espeak-ng:en-gb", "flite:kal16")
needs_voices = pytest.mark.skipif(
    not all(map(shutil.which, ("flite", "espeak-ng")))
    or not (weights_folder() / BUNDLED / "model.safetensors").is_file(),
    reason="needs flite, espeak-ng and the bundled recognizer",
)


def speak(text: str, voice: str = VOICES[0]) -> np.ndarray:
    """16 kHz samples of a sentence in a voice, a little slower than the program's own pace."""
    program, _, name = voice.partition(":")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        if program == "flite":
            command = ["flite", "-voice", name, "--setf", "duration_stretch=1.2", "-t", text, "-o", str(path)]
        else:
            command = ["espeak-ng", "-v", name, "-s", "140", "-w", str(path), text]
        subprocess.run(command, check=True, capture_output=True)
        samples, rate = soundfile.read(io.BytesIO(path.read_bytes()), dtype="float32")
    return soxr.resample(samples, rate, RATE).astype(np.float32)


def recorded(text: str, voice: str = VOICES[0]) -> np.ndarray:
    """The same with the silence that a microphone hears around it."""
    return np.pad(speak(text, voice), (RATE // 2, RATE // 2))
