"""speech.audio: any rate, channels, format and number type become 16 kHz mono floats; the rest is refused clearly."""

import io
import tracemalloc

import numpy as np
import pytest
import soundfile

from speech.audio import RATE, load, loudest_dbfs


def tone(seconds: float = 0.5, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def pitch(samples: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * RATE / len(samples))


def written(samples: np.ndarray, rate: int, kind: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3", "OGG"])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_every_format_and_rate_keeps_length_and_pitch(kind: str, rate: int, tmp_path):
    content = written(tone(rate=rate), rate, kind)
    path = tmp_path / f"tone.{kind.lower()}"
    path.write_bytes(content)
    for source in (content, path, str(path)):
        samples = load(source)
        assert samples.dtype == np.float32 and samples.ndim == 1
        assert abs(len(samples) / RATE - 0.5) < 0.1  # MP3 pads to whole frames
        assert abs(pitch(samples) - 440) < 4


def test_stereo_is_averaged_and_integers_are_scaled():
    both = np.stack([tone(), -tone()], axis=1)
    assert np.abs(load(both)).max() == 0
    half = np.full(RATE, 1 << 14, dtype=np.int16)
    assert np.allclose(load(half), 0.5)
    assert np.allclose(load(np.full(RATE, 192, dtype=np.uint8)), 0.5)
    assert np.allclose(load(half, rate=8000)[1000:-1000], 0.5, atol=1e-3)
    assert len(load(half, rate=8000)) == 2 * RATE


def test_many_channels_are_mixed_as_they_are_read(tmp_path):
    """A FLAC of silence in 8 channels is tiny, and would be hundreds of megabytes if it were held as it is."""
    sound = np.zeros((40 * RATE, 8), dtype=np.int16)
    sound[:, 3] = 1 << 14
    soundfile.write(tmp_path / "eight.flac", sound[: 20 * RATE], 2 * RATE)
    tracemalloc.start()
    mono = load(tmp_path / "eight.flac")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.allclose(mono[1000:-1000], 1 / 16, atol=1e-4) and len(mono) == 10 * RATE
    assert most < 4 * 20 * RATE * 4, "less than half of the channels"


def sweep(seconds: float, rate: int = RATE) -> np.ndarray:
    """No part of it is like another."""
    return (0.5 * np.sin(np.cumsum(np.linspace(0.05, 0.5, round(seconds * rate))))).astype(np.float32)


def test_a_file_that_is_read_by_blocks_stays_in_step():
    """MP3 that is sought in, be it to where it stands, goes on a little beside it."""
    sound = sweep(4)
    for kind in ("MP3", "OGG", "FLAC"):
        assert np.abs(load(written(sound, RATE, kind)) - sound).mean() < 0.02, kind


@pytest.mark.parametrize("kind", ["MP3", "FLAC", "WAV"])
def test_a_file_that_was_cut_is_as_long_as_what_decodes(kind: str):
    sound = sweep(4)
    whole = written(sound, RATE, kind)
    cut = load(whole[: len(whole) // 2])
    assert 1.7 * RATE < len(cut) < 2.1 * RATE
    assert np.abs(cut - sound[: len(cut)]).mean() < 0.02, "nothing is repeated, nothing is made up"


def without_length(flac: bytes) -> bytes:
    """What is written to a pipe: 36 bits of STREAMINFO, the number of samples, are 0."""
    return flac[:21] + bytes([flac[21] & 0xF0, 0, 0, 0, 0]) + flac[26:]


def test_a_recording_that_does_not_say_how_long_it_is_is_read_up_to_the_limit():
    sound = sweep(4)
    flac = without_length(written(sound, RATE, "FLAC"))
    assert np.allclose(load(flac), sound, atol=1e-4)
    assert 1.7 * RATE < len(load(flac[: len(flac) // 2])) < 2.1 * RATE
    with pytest.raises(ValueError, match="lasts over 3 s and the limit is 3 s"):
        load(flac, longest=3)
    with pytest.raises(ValueError, match="not audio"):
        load(flac[:200])


def test_loudness_in_decibels():
    assert loudest_dbfs(np.zeros(RATE, np.float32)) == -200
    assert abs(loudest_dbfs(tone()) - 20 * np.log10(0.5 / np.sqrt(2))) < 0.1
    quiet = np.concatenate([tone(), np.zeros(RATE, np.float32)])
    assert abs(loudest_dbfs(quiet) - loudest_dbfs(tone())) < 0.1


def test_what_is_no_sound_is_refused_in_one_line(tmp_path):
    text = tmp_path / "letter.wav"
    text.write_text("two cats on the beach\n" * 100)
    empty = tmp_path / "empty.wav"
    empty.touch()
    cut = tmp_path / "cut.wav"
    cut.write_bytes(written(tone(), RATE, "WAV")[:20])
    nothing = tmp_path / "nothing.wav"
    nothing.write_bytes(written(np.zeros(0, np.float32), RATE, "WAV"))
    cases = {
        text: "not audio",
        empty: "0 bytes",
        cut: "not audio",
        nothing: "nothing to hear",
        tmp_path / "absent.wav": "no file",
        tmp_path: "no file",
        b"": "0 bytes",
        b"RIFF and then nonsense": "not audio",
    }
    for source, message in cases.items():
        with pytest.raises(ValueError, match=message) as caught:
            load(source)
        assert "\n" not in str(caught.value)
    for array, message in {
        "(2, 2, 2)": np.zeros((2, 2, 2), np.float32),
        "NaN": np.full(RATE, np.nan, np.float32),
        "complex": np.zeros(RATE, np.complex64),
        "0.00 s": np.zeros(0, np.float32),
    }.items():
        with pytest.raises(ValueError) as caught:
            load(message)
        assert array in str(caught.value)


def test_ten_minutes_are_refused_before_they_are_read(tmp_path):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros(600 * 8000, np.int16), 8000)
    for source in (path, path.read_bytes(), np.zeros(600 * RATE, np.float32)):
        with pytest.raises(ValueError, match=r"lasts 600 s and the limit is 30 s"):
            load(source)
    assert len(load(path, longest=601)) == 600 * RATE
