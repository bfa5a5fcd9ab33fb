"""Sound as the recogniser wants it: 16 kHz, mono, float32 in [-1, 1]; from a file, its bytes, or an array.

Axes: T samples at 16 kHz, S samples at the source's rate, C channels.
"""

import io
from math import log10
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

RATE = 16_000  # Hz
BLOCK = 16_384  # frames that are read at a time
LONGEST = 30.0  # seconds: a spoken prompt, with room to hesitate
SHORTEST = 0.05  # seconds: less holds no syllable
QUIET = -55.0  # dBFS of the loudest 32 ms: below it nobody spoke into this microphone


def load(
    source: str | Path | bytes | np.ndarray, rate: int = RATE, longest: float | int = LONGEST
) -> Float[np.ndarray, " T"]:
    """Samples at 16 kHz from a file's path, a file's bytes (wav, flac, mp3, ogg), or an array (S,) or (S, C).

    `rate` is that of an array; files know theirs. Integer arrays are scaled by their type's range.
    Raises ValueError, in one line with the numbers, for what is no sound, is empty or broken, or lasts longer than
    `longest` seconds: refused before it is decoded, so that an hour of MP3 costs nothing.
    """
    if isinstance(source, np.ndarray):
        samples, name = _from_array(source), "the recording"
    else:
        samples, rate, name = _from_file(source, longest)
    seconds = len(samples) / rate
    if seconds > longest:
        raise ValueError(_too_long(name, seconds, longest))
    if seconds < SHORTEST:
        raise ValueError(f"{name} lasts {seconds:.2f} s: there is nothing to hear; record at least a word")
    if not np.isfinite(samples).all():
        raise ValueError(f"{name} holds NaN or infinite samples: record or export it again")
    mono = samples.mean(axis=1, dtype=np.float32) if samples.ndim == 2 else samples
    if rate != RATE:
        mono = soxr.resample(mono, rate, RATE)
    return np.clip(mono, -1.0, 1.0).astype(np.float32)  # resampling rings slightly over full scale


def loudest(audio: Float[np.ndarray, " T"]) -> float:
    """Level of the loudest 32 ms in dB of full scale; digital silence is -200."""
    frames = np.pad(audio, (0, -len(audio) % 512)).reshape(-1, 512)
    power = float(np.square(frames).mean(axis=1).max(initial=0.0))
    return 10 * log10(max(power, 1e-20))


def _from_file(source: str | Path | bytes, longest: float | int) -> tuple[np.ndarray, int, str]:
    if isinstance(source, bytes):
        name, stream = "the recording", io.BytesIO(source)
        if not source:
            raise ValueError("the recording is empty (0 bytes): record again")
    else:
        name, stream = f"'{source}'", Path(source)
        if not stream.is_file():
            raise ValueError(f"{name} is no file: give the path of a wav, flac, mp3 or ogg file")
        if not stream.stat().st_size:
            raise ValueError(f"{name} is empty (0 bytes): record again")
    try:
        with soundfile.SoundFile(stream) as sound:
            rate, seconds = sound.samplerate, sound.frames / sound.samplerate
            if seconds > longest:
                raise ValueError(_too_long(name, seconds, longest))
            # The header may promise fewer frames than the file holds, never more than we are ready to read. Channels
            # are mixed as they are read: a small file may have many of them.
            blocks = sound.blocks(BLOCK, frames=round(longest * rate) + 1, dtype="float32", always_2d=True)
            mixed = [block.mean(axis=1, dtype=np.float32) for block in blocks]
            return np.concatenate([np.zeros(0, np.float32), *mixed]), rate, name
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{name} is not audio that can be read (wav, flac, mp3, ogg): {error.error_string}") from None


def _from_array(samples: np.ndarray) -> np.ndarray:
    if samples.ndim not in (1, 2):
        raise ValueError(f"audio is samples (S,) or samples and channels (S, C), not an array of shape {samples.shape}")
    if np.issubdtype(samples.dtype, np.integer):
        limits = np.iinfo(samples.dtype)
        middle = (limits.max + limits.min + 1) // 2  # 0, or 128 for unsigned bytes
        return ((samples.astype(np.float64) - middle) / (limits.max - middle + 1)).astype(np.float32)
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"audio is made of integers or floats, not of {samples.dtype}")
    return samples.astype(np.float32)


def _too_long(name: str, seconds: float, longest: float | int) -> str:
    return f"{name} lasts {seconds:.0f} s and the limit is {longest:.0f} s: cut it to one spoken prompt"
