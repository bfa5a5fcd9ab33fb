"""Two hundred sounds that are no speech go the whole way of a live microphone: no words, no picture.

They are synthesised here, by other means than the noises that the recognizer was trained with (train/asr/noise.py),
and pass the shipped voice activity, listener and recognizer.
"""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from test_live_socket import ME, Socket

from app.core.gallery_store import Gallery
from app.serving.local_engine import LocalEngine
from app.serving.recognizer import SpeechRecognizer
from app.serving.services import AppServices
from app.web import live_protocol, live_session, live_socket
from speech.audio import RATE

ROOT = Path(__file__).resolve().parents[2]
CLIPS, SECONDS = 40, 1.0
COUNT = round(SECONDS * RATE)
TIME = np.arange(COUNT) / RATE

Draw = np.random.Generator


def band(draw: Draw, low: float, high: float) -> np.ndarray:
    """Noise between two frequencies."""
    spectrum = np.fft.rfft(draw.standard_normal(COUNT))
    hertz = np.fft.rfftfreq(COUNT, 1 / RATE)
    spectrum[(hertz < low) | (hertz > high)] = 0
    return np.fft.irfft(spectrum, COUNT)


def swell(draw: Draw, rise: float, fall: float) -> np.ndarray:
    """From nothing to full in `rise` seconds, then down by e every `fall` seconds."""
    local = TIME - draw.uniform(0, 0.4)
    return np.where(local < 0, 0, np.minimum(1, local / rise) * np.exp(-np.maximum(0, local - rise) / fall))


def tone(draw: Draw) -> np.ndarray:
    return np.sin(2 * np.pi * draw.uniform(80, 3000) * TIME)


def sweep(draw: Draw) -> np.ndarray:
    first, last = draw.uniform(100, 3000, 2)
    return np.sin(2 * np.pi * (first * TIME + (last - first) * TIME**2 / (2 * SECONDS)))


def beeps(draw: Draw) -> np.ndarray:
    return tone(draw) * (np.sin(2 * np.pi * draw.uniform(1, 6) * TIME) > 0)


def chord(draw: Draw) -> np.ndarray:
    root = 110 * 2 ** (draw.integers(0, 24) / 12)
    notes = root * 2 ** (np.array([0, draw.choice([3, 4]), 7]) / 12)
    strings = sum(np.sin(2 * np.pi * note * k * TIME) / k**2 for note in notes for k in range(1, 6))
    return strings * swell(draw, 0.01, draw.uniform(0.2, 1.5))


def hum(draw: Draw) -> np.ndarray:
    mains = draw.choice([50, 60])
    return sum(draw.uniform(0, 1) * np.sin(2 * np.pi * mains * k * TIME + draw.uniform(0, 6)) / k for k in range(1, 12))


def clicks(draw: Draw) -> np.ndarray:
    sound = np.zeros(COUNT)
    for start in draw.integers(0, COUNT - 800, draw.integers(1, 12)):
        length = int(draw.integers(20, 800))
        sound[start : start + length] += np.exp(-np.arange(length) / (length / 5)) * draw.choice([-1, 1], length)
    return sound


def breath(draw: Draw) -> np.ndarray:
    return band(draw, draw.uniform(200, 600), draw.uniform(2000, 6000)) * np.sin(np.pi * TIME / SECONDS) ** 2


def burst(draw: Draw) -> np.ndarray:
    return draw.standard_normal(COUNT) * swell(draw, 0.005, draw.uniform(0.02, 0.3))


def cough(draw: Draw) -> np.ndarray:
    """A plosive start and a hoarse rest, once or twice."""
    return sum(band(draw, 150, draw.uniform(2000, 5000)) * swell(draw, 0.01, 0.07) for _ in range(draw.integers(1, 3)))


def rain(draw: Draw) -> np.ndarray:
    return band(draw, draw.uniform(20, 500), draw.uniform(1500, 8000))


KINDS = (tone, sweep, beeps, chord, hum, clicks, breath, burst, cough, rain)


def clip(index: int) -> np.ndarray:
    """From a whisper to full scale, as int16."""
    draw = np.random.default_rng((index, 41))
    sound = KINDS[index % len(KINDS)](draw)
    return np.round(sound / np.abs(sound).max() * 10 ** draw.uniform(-1.5, 0) * 32767).astype("<i2")


@pytest.mark.slow
@pytest.mark.parametrize("recognizer", ["whisper-scenes", "whisper-tiny-en"])
def test_noises_give_no_words_and_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recognizer: str):
    """Noise, music and silence through the socket of the Speak page: four clips of each kind."""
    if not (ROOT / "weights" / recognizer / "README.md").exists():
        pytest.skip(f"needs {recognizer}")
    asked = []
    services = AppServices(LocalEngine(asked.append), SpeechRecognizer(recognizer), Gallery(tmp_path / "gallery"))
    monkeypatch.setattr(live_socket, "get_services", lambda: services)
    monkeypatch.setattr(live_session, "MAX_SECONDS", 1e9)  # here, minutes go by in seconds
    monkeypatch.setattr(live_session, "MAX_AHEAD", 1e9)
    silence = np.zeros(round(0.35 * RATE), "<i2")
    sound = np.concatenate([part for index in range(CLIPS) for part in (clip(index), silence)]).tobytes()

    async def listen() -> Socket:
        socket = Socket()
        for start in range(0, len(sound), live_protocol.MAX_FRAME):
            socket.up.put_nowait({"type": "websocket.receive", "bytes": sound[start : start + live_protocol.MAX_FRAME]})
        socket.tell('{"type": "end"}')
        await live_socket.serve_socket(socket, ME)
        return socket

    socket = asyncio.run(listen())
    assert socket.code == 1000 and socket.of("ready") and not socket.of("error")
    heard = [words for words in socket.of("words") if words["committed"] or words["pending"]]
    assert not heard and not socket.of("final"), heard
    assert not asked and not services.engine.jobs(ME) and not socket.of("picture") and not services.gallery.entries(ME)
