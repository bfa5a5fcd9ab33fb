"""Sound as the recogniser wants it: 16 kHz, mono, float32 in [-1, 1]; from a file, its bytes, or an array.

Axes: T samples at 16 kHz, S samples at the source's rate, C channels.
"""

import io
from collections.abc import Iterator
from math import log10
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

RATE = 16_000  # Hz
BLOCK = 4096  # frames that are read at a time
UNKNOWN = 2**63 - 1  # libsndfile's number of frames where the header has none
LONGEST = 30.0  # seconds: a spoken prompt, with room to hesitate
SHORTEST = 0.05  # seconds: less holds no syllable
QUIET = -55.0  # dBFS of the loudest 32 ms: below it nobody spoke into this microphone


def load(
    source: str | Path | bytes | np.ndarray, rate: int = RATE, longest: float | int = LONGEST
) -> Float[np.ndarray, " T"]:
    """Samples at 16 kHz from a file's path, a file's bytes (wav, flac, mp3, ogg), or an array (S,) or (S, C).

    `rate` is that of an array; files know theirs. Integer arrays are scaled by their type's range.
    Raises ValueError, in one line with the numbers, for what is no sound, is empty or broken, or lasts longer than
    `longest` seconds: refused before it is decoded, so that an hour of MP3 costs nothing. A file that was cut is as
    long as what decodes.
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


def loudest_dbfs(audio: Float[np.ndarray, " T"]) -> float:
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
        with _Forwards(stream) as sound:
            rate, seconds = sound.samplerate, sound.frames / sound.samplerate
            if seconds > longest and sound.frames != UNKNOWN:
                raise ValueError(_too_long(name, seconds, longest))
            # One frame over the limit tells that a file without a stated length is too long.
            mixed = _mixed(sound, round(longest * rate) + 1)
            return np.concatenate([np.zeros(0, np.float32), *mixed]), rate, name
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{name} is not audio that can be read (wav, flac, mp3, ogg): {error.error_string}") from None


class _Forwards(soundfile.SoundFile):
    """Read from its beginning to its end. In a file that can seek, soundfile seeks after every block to where it stands
    already, which puts MP3 out of step from there on and is an error at the end of a FLAC that was cut."""

    def seekable(self) -> bool:
        return False


def _mixed(sound: soundfile.SoundFile, most: int) -> Iterator[Float[np.ndarray, " S"]]:
    """At most so many frames, as far as they decode; channels are mixed as they come: a small file may have many."""
    left = most
    while left > 0:
        try:
            block = sound.read(min(BLOCK, left), "float32", always_2d=True)
        except soundfile.LibsndfileError:
            if left == most:
                raise
            return  # it was cut: what came before is whole
        if not len(block):
            return
        yield block.mean(axis=1, dtype=np.float32)
        left -= len(block)


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
    length = f"{seconds:.0f} s" if seconds >= longest + 0.5 else f"over {longest:.0f} s"  # read no further than that
    return f"{name} lasts {length} and the limit is {longest:.0f} s: cut it to one spoken prompt"
