"""Other speakers, rooms, microphones and surroundings out of one clean recording. Cheap: training waits for it.

Randomness comes in as a generator, `draw`.

Axes: T samples at 16 kHz (T changes with speed), M mel values, F frame pairs of 20 ms.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from speech.audio import RATE
from speech.mel import BANDS

Sound = Float[np.ndarray, " _"]  # any length: several have one of their own


def speed(sound: Sound, draw: np.random.Generator, most: float = 0.15) -> Sound:
    """Played up to 15% faster or slower: formants and pitch move along, which makes another speaker of the same one.

    Linear interpolation: what it aliases is below the noise that comes on top.
    """
    factor = draw.uniform(1 - most, 1 + most)
    return np.interp(np.arange(0, len(sound) - 1, factor), np.arange(len(sound)), sound).astype(np.float32)


def colour(sound: Sound, draw: np.random.Generator) -> Sound:
    """Another microphone: a random four-tap filter tilts and bends the spectrum."""
    taps = np.concatenate([[1.0], draw.uniform(-0.6, 0.6, 3)]).astype(np.float32)
    return np.convolve(sound, taps)[: len(sound)]


def room(sound: Sound, draw: np.random.Generator) -> Sound:
    """A small room: some thirty echoes within 0.25 s that fall by 60 dB in `decay` seconds (Sabine's T60)."""
    decay, wet = draw.uniform(0.1, 0.6), draw.uniform(0.1, 0.6)
    delays = np.sort(draw.integers(16, RATE // 4, 30))
    strengths = wet * 10 ** (-3 * delays / RATE / decay) * draw.choice([-1.0, 1.0], 30)
    result = sound.copy()
    for delay, strength in zip(delays, strengths.astype(np.float32), strict=True):
        if abs(strength) > 0.01 and delay < len(sound):
            result[delay:] += strength * sound[: len(sound) - delay]
    return result


def mix(sound: Sound, noise: Sound, ratio: float) -> Sound:
    """`noise` (cut or repeated to length) under `sound`, `ratio` dB below it in power."""
    noise = np.resize(noise, len(sound))
    power, level = float(np.square(sound).mean()), float(np.square(noise).mean())
    return sound + noise * np.float32(np.sqrt(max(power, 1e-12) / max(level, 1e-12)) * 10 ** (-ratio / 20))


def cut(tape: Sound, count: int, draw: np.random.Generator) -> Sound:
    """`count` samples from anywhere on a tape."""
    if len(tape) <= count:
        return np.resize(tape, count)
    start = int(draw.integers(0, len(tape) - count))
    return tape[start : start + count]


def fit(sound: Sound, count: int, draw: np.random.Generator) -> Sound:
    """Into `count` samples, digital silence around it; noise is mixed in afterwards."""
    before = int(draw.integers(0, count - len(sound) + 1))
    return np.pad(sound, (before, count - len(sound) - before))


def disturb(sound: Sound, draw: np.random.Generator, tapes: list[Sound]) -> Sound:
    """Another microphone, room and surroundings, each with its chance; peak between 0.1 and 1. A few stay clean."""
    if draw.random() < 0.5:
        sound = colour(sound, draw)
    if draw.random() < 0.35:
        sound = room(sound, draw)
    if draw.random() < 0.7:
        tape = tapes[int(draw.integers(len(tapes)))]
        sound = mix(sound, cut(tape, len(sound), draw), draw.uniform(3, 40))
    return (sound * (draw.uniform(0.1, 1.0) / max(float(np.abs(sound).max()), 1e-6))).astype(np.float32)


def warp(mel: Float[Tensor, "M F"], draw: np.random.Generator, most: float = 0.12) -> None:
    """Another length of the vocal tract at the same pace, in place (VTLP, Jaitly & Hinton, 2013): the bands are read at
    places stretched by up to 12%. Mel bands stand for frequencies closely enough."""
    places = (torch.arange(BANDS) * draw.uniform(1 - most, 1 + most)).clamp(max=BANDS - 1)
    low = places.long()
    between = (places - low).float()[:, None]
    bands = mel.unflatten(0, (2, BANDS))
    bands.copy_(torch.lerp(bands[:, low], bands[:, (low + 1).clamp(max=BANDS - 1)], between))


def mask(mel: Float[Tensor, "M F"], draw: np.random.Generator, bands: int = 12, pairs: int = 6) -> None:
    """SpecAugment (Park et al., 2019), lightly and in place: a stripe of bands (in both frames of each pair) and one of
    frame pairs fall silent."""
    width, height = int(draw.integers(0, pairs + 1)), int(draw.integers(0, bands + 1))
    start = int(draw.integers(0, max(1, mel.shape[1] - width)))
    low = int(draw.integers(0, BANDS - height + 1))
    mel[:, start : start + width] = -1.0
    mel.unflatten(0, (2, BANDS))[:, low : low + height] = -1.0
