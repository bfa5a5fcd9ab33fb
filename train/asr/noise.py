"""Synthetic sounds without speech: to train <|nospeech|>, to disturb speech, and to score silence.

Axes: T samples at 16 kHz.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from speech.audio import RATE

Noise = Float[np.ndarray, " T"]


def coloured(count: int, draw: np.random.Generator, slope: float) -> Noise:
    """Gaussian noise of power 1 / f^slope: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(draw.standard_normal(count))
    spectrum *= np.maximum(np.fft.rfftfreq(count, 1 / RATE), 40.0) ** (-slope / 2)
    return _level(np.fft.irfft(spectrum, count))


def hum(count: int, draw: np.random.Generator) -> Noise:
    """Mains at 50 or 60 Hz with harmonics, over a little hiss."""
    base, time = draw.choice([50.0, 60.0]), np.arange(count) / RATE
    sound = 0.05 * draw.standard_normal(count)
    for k in range(1, 9):
        sound += np.sin(2 * np.pi * base * k * time + draw.uniform(0, 6.28)) * draw.uniform(0.1, 1) / k
    return _level(sound)


def chord(count: int, draw: np.random.Generator) -> Noise:
    """One to four tones with harmonics, struck and fading again and again."""
    time, sound = np.arange(count) / RATE, np.zeros(count)
    for start in np.arange(0, count, round(draw.uniform(0.3, 1.5) * RATE)):
        local = time[: count - start]
        fade = np.exp(-local * draw.uniform(0.3, 5.0))
        for _ in range(draw.integers(1, 5)):
            tone = 2 * np.pi * 110.0 * 2 ** (draw.integers(0, 36) / 12) * local
            sound[start:] += fade * (np.sin(tone) + draw.uniform(0, 0.5) * np.sin(2 * tone))
    return _level(sound)


def clicks(count: int, draw: np.random.Generator) -> Noise:
    """Keys, mouse, taps on the microphone: short decaying bursts at random times."""
    sound = 0.003 * draw.standard_normal(count)
    for _ in range(draw.integers(1, 3 + count // 4000)):
        length = int(draw.integers(40, 1200))
        burst = draw.standard_normal(length) * np.exp(-np.arange(length) / (length / 6)) * draw.uniform(0.2, 1)
        start = int(draw.integers(0, max(1, count - length)))
        sound[start : start + length] += burst[: count - start]
    return _level(sound)


def breath(count: int, draw: np.random.Generator) -> Noise:
    """Pinkish noise that swells and ebbs, as breathing and wind do."""
    time = np.arange(count) / RATE
    swell = np.maximum(0, np.sin(2 * np.pi * (draw.uniform(0.2, 1.2) * time + draw.uniform()))) ** 2
    return _level(coloured(count, draw, draw.uniform(0.3, 1.3)) * (swell + 0.02))


def pink(count: int, draw: np.random.Generator) -> Noise:
    return coloured(count, draw, 1.0)


def hiss(count: int, draw: np.random.Generator) -> Noise:
    return coloured(count, draw, draw.uniform(0.0, 0.5))


def rumble(count: int, draw: np.random.Generator) -> Noise:
    return coloured(count, draw, draw.uniform(1.5, 2.5))


def silence(count: int, draw: np.random.Generator) -> Noise:
    """The last bit of a sound card."""
    return draw.integers(-2, 3, count).astype(np.float32) / 32768


KINDS: dict[str, Callable[[int, np.random.Generator], Noise]] = {
    kind.__name__: kind for kind in (pink, hiss, rumble, hum, chord, clicks, breath, silence)
}


def make_noise(kind: str, count: int, draw: np.random.Generator) -> Noise:
    """`count` samples of a kind, from a whisper to full scale."""
    level = 1.0 if kind == "silence" else 10 ** draw.uniform(-1.5, 1.0)
    return np.clip(level * KINDS[kind](count, draw), -1, 1).astype(np.float32)


def noise_clip(index: int, seed: int) -> tuple[str, Noise]:
    """Number `index` of a test set: its kind (they take turns) and 0.5 to 4 s of it."""
    draw = np.random.default_rng((seed, index, 23))
    kind = list(KINDS)[index % len(KINDS)]
    return kind, make_noise(kind, round(draw.uniform(0.5, 4.0) * RATE), draw)


@lru_cache(maxsize=2)
def bank(seed: int, seconds: int = 120) -> Noise:
    """A long recording of every kind but silence, to cut from, because synthesis takes longer than reading."""
    draw = np.random.default_rng((seed, 29))
    kinds = [kind for name, kind in KINDS.items() if name != "silence"]
    return np.concatenate([kind(4 * RATE, draw) for _ in range(seconds // 4 // len(kinds)) for kind in kinds])


def _level(sound: np.ndarray) -> Noise:
    """To an RMS of 0.1 (-20 dB)."""
    return (sound * (0.1 / max(float(np.sqrt(np.square(sound).mean())), 1e-9))).astype(np.float32)
