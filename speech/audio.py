"""Sound as the recognizer takes it: 16 kHz, mono, float32 in [-1, 1]; from a file, its bytes, or an array.

FFmpeg, which PyAV's wheels contain, decodes whatever browsers, phones and recorders write: webm and ogg with Opus, m4a,
mp4 and 3gp with AAC, mp3, wav, flac, aiff, caf, amr, telephone codecs. Files are decoded block by block up to the
length limit, which counts decoded seconds: lengths in headers are often missing or wrong.

Axes: T samples at 16 kHz, S samples at the source's rate, C channels.
"""

import io
import os
from collections.abc import Iterator
from io import BufferedIOBase
from math import log10
from pathlib import Path

import av
import numpy as np
import soxr
from jaxtyping import Float

RATE = 16_000  # Hz
LONGEST = 30.0  # seconds: a spoken prompt, with room to hesitate
SHORTEST = 0.05  # seconds: less holds no syllable
QUIET = -55.0  # dBFS of the loudest 32 ms: below it nobody spoke into this microphone
CANCELLED = 0.01  # power of the mix over that of a channel: below it the channels cancel each other
RATES = (1_000, 768_000)  # Hz
KINDS = "wav, flac, mp3, ogg, opus, webm, m4a, mp4, aac, 3gp, amr, aiff"  # for messages
EXTENSIONS = (
    "wav flac mp3 ogg oga opus webm weba m4a mp4 mov aac 3gp amr aiff aif caf au w64 wma mka mkv".split()
)  # of recordings, for file choosers
# The containers that FFmpeg may open: no playlists and no other formats that name files or addresses.
CONTAINERS = "wav,w64,aiff,au,caf,flac,mp3,aac,ogg,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,amr,asf,ac3,mpegts,wv"


def load_audio(
    source: str | Path | bytes | np.ndarray, rate: int = RATE, longest: float | int = LONGEST
) -> Float[np.ndarray, " T"]:
    """Samples at 16 kHz from a file's path, a file's bytes, or an array (S,) or (S, C).

    `rate` is that of an array; files know theirs. Integer arrays are scaled by their type's range. Channels are mixed;
    where they cancel each other, the louder one of the first two is taken.
    Raises ValueError, in one line with the numbers, for what is no sound, is empty or broken, or lasts longer than
    `longest` seconds, of which no more is decoded. A file that was cut is as long as what decodes.
    """
    if isinstance(source, np.ndarray):
        name, sound = "the recording", _Mono(longest)
        samples = _from_array(source)
        sound.add(samples[None] if samples.ndim == 1 else samples.T, rate)
    else:
        name, stream = _opened(source)
        sound = _Mono(longest)
        with stream:
            _decode(stream, name, sound)
    if sound.seconds > longest:
        limit = f"{longest:.0f} s"
        raise ValueError(f"{name} lasts over {limit} and the limit is {limit}: cut it to one spoken prompt")
    if sound.seconds < SHORTEST:
        raise ValueError(f"{name} lasts {sound.seconds:.2f} s: there is nothing to hear; record at least a word")
    mono = sound.finish()
    if not np.isfinite(mono).all():
        raise ValueError(f"{name} holds NaN or infinite samples: record or export it again")
    return np.clip(mono, -1.0, 1.0)  # resampling rings slightly over full scale


class _Mono:
    """The mix of the channels and the first two of them, resampled to 16 kHz as they come."""

    def __init__(self, longest: float) -> None:
        self.longest, self.seconds = longest, 0.0
        self._blocks: list[np.ndarray] = []
        self._resampler: soxr.ResampleStream | None = None
        self._form = (RATE, 1)  # rate and number of channels that are kept

    def add(self, channels: Float[np.ndarray, "C S"], rate: int) -> None:
        """The next samples; what exceeds the limit is counted and dropped."""
        if not RATES[0] <= rate <= RATES[1]:
            raise ValueError(f"a rate of {rate} Hz; {RATES[0]} to {RATES[1]} Hz can be read")
        left = round((self.longest - self.seconds) * rate) + 1
        self.seconds += channels.shape[1] / rate
        channels = channels[:, : max(0, left)]
        kept = channels[:1] if len(channels) == 1 else np.stack([channels.mean(axis=0), channels[0], channels[1]])
        if self._form != (rate, len(kept)) or self._resampler is None and rate != RATE:
            self._flush()
            self._form = (rate, len(kept))
            self._resampler = soxr.ResampleStream(rate, RATE, len(kept), "float32") if rate != RATE else None
        block = np.ascontiguousarray(kept.T, np.float32)
        self._keep(block if self._resampler is None else self._resampler.resample_chunk(block))

    def finish(self) -> Float[np.ndarray, " T"]:
        """The mix, or a channel where channels cancel."""
        self._flush()
        samples = np.concatenate(self._blocks)
        mix = samples[:, 0]
        power = np.einsum("sc,sc->c", samples, samples)
        loudest = 1 + int(power[1:].argmax())
        return np.ascontiguousarray(samples[:, loudest] if power[0] < CANCELLED * power[loudest] else mix)

    def _flush(self) -> None:
        if self._resampler is not None:
            self._keep(self._resampler.resample_chunk(np.zeros((0, self._form[1]), np.float32), last=True))
            self._resampler = None

    def _keep(self, block: Float[np.ndarray, "S C"]) -> None:
        self._blocks.append(block if block.shape[1] == 3 else np.repeat(block, 3, axis=1))


def loudest_dbfs(audio: Float[np.ndarray, " T"]) -> float:
    """Level of the loudest 32 ms in dB of full scale; digital silence is -200."""
    frames = np.pad(audio, (0, -len(audio) % 512)).reshape(-1, 512)
    power = float(np.square(frames).mean(axis=1).max(initial=0.0))
    return 10 * log10(max(power, 1e-20))


def _opened(source: str | Path | bytes) -> tuple[str, BufferedIOBase]:
    """(its name for messages, the open file)."""
    if isinstance(source, bytes):
        if not source:
            raise ValueError("the recording is empty (0 bytes): record again")
        return "the recording", io.BytesIO(source)
    path = Path(source)
    name = f"'{os.fsencode(path).decode(errors='replace')}'"  # names need not be UTF-8
    if not path.is_file():
        raise ValueError(f"{name} is no file: give the path of a recording ({KINDS})")
    if not path.stat().st_size:
        raise ValueError(f"{name} is empty (0 bytes): record again")
    return name, path.open("rb")


def _decode(stream: BufferedIOBase, name: str, sound: _Mono) -> None:
    """Decode the first audio track of a file as far as it goes, and up to the limit."""
    try:
        with av.open(stream, options={"format_whitelist": CONTAINERS}) as container:
            if not container.streams.audio:
                raise ValueError(f"{name} has no audio track: record or export it again")
            for channels, rate in _blocks(container):
                sound.add(channels, rate)
                if sound.seconds > sound.longest:
                    return
    except av.error.FFmpegError as error:
        if not sound.seconds:
            raise ValueError(f"{name} is not audio that can be read ({KINDS}): {error.strerror}") from None
        return  # it was cut: what came before is whole


def _blocks(container: "av.container.InputContainer") -> Iterator[tuple[Float[np.ndarray, "C S"], int]]:
    """What decodes of the first audio track, with its rate in Hz. A packet that is broken is skipped."""
    broken: av.error.FFmpegError | None = None
    decoded = False
    for packet in container.demux(container.streams.audio[0]):
        try:
            for frame in packet.decode():
                samples = frame.to_ndarray()
                if not frame.format.is_planar:
                    samples = samples.reshape(-1, len(frame.layout.channels)).T
                decoded = True
                yield _from_array(samples), frame.sample_rate
        except av.error.InvalidDataError as error:
            broken = error
    if broken is not None and not decoded:
        raise broken


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
