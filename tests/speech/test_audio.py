"""speech.audio: any rate, channels, format and number type become 16 kHz mono floats; the rest is refused clearly."""

import io
import os
import tracemalloc

import av
import numpy as np
import pytest
import soundfile

from speech.audio import RATE, load_audio, loudest_dbfs


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
        samples = load_audio(source)
        assert samples.dtype == np.float32 and samples.ndim == 1
        assert abs(len(samples) / RATE - 0.5) < 0.1  # MP3 pads to whole frames
        assert abs(pitch(samples) - 440) < 4


def test_stereo_is_averaged_and_integers_are_scaled():
    assert np.allclose(load_audio(np.stack([tone(), tone() / 2], axis=1)), 0.75 * tone(), atol=1e-6)
    half = np.full(RATE, 1 << 14, dtype=np.int16)
    assert np.allclose(load_audio(half), 0.5)
    assert np.allclose(load_audio(np.full(RATE, 192, dtype=np.uint8)), 0.5)
    assert np.allclose(load_audio(half, rate=8000)[1000:-1000], 0.5, atol=1e-3)
    assert len(load_audio(half, rate=8000)) == 2 * RATE


def test_many_channels_are_mixed_as_they_are_read(tmp_path):
    """A FLAC of silence in 8 channels is tiny, and would be hundreds of megabytes if it were held as it is."""
    sound = np.zeros((40 * RATE, 8), dtype=np.int16)
    sound[:, 3] = 1 << 14
    soundfile.write(tmp_path / "eight.flac", sound[: 20 * RATE], 2 * RATE)
    tracemalloc.start()
    mono = load_audio(tmp_path / "eight.flac")
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
        read = load_audio(written(sound, RATE, kind))
        assert len(sound) - 320 <= len(read) <= len(sound) + 1600, kind  # codecs cut and pad to whole frames
        assert np.abs(read[:63_000] - sound[:63_000]).mean() < 0.02, kind


@pytest.mark.parametrize("kind", ["MP3", "FLAC", "WAV"])
def test_a_file_that_was_cut_is_as_long_as_what_decodes(kind: str):
    sound = sweep(4)
    whole = written(sound, RATE, kind)
    cut = load_audio(whole[: len(whole) // 2])
    assert 1.7 * RATE < len(cut) < 2.1 * RATE
    assert np.abs(cut - sound[: len(cut)]).mean() < 0.02, "nothing is repeated, nothing is made up"


def without_length(flac: bytes) -> bytes:
    """What is written to a pipe: 36 bits of STREAMINFO, the number of samples, are 0."""
    return flac[:21] + bytes([flac[21] & 0xF0, 0, 0, 0, 0]) + flac[26:]


def test_a_recording_that_does_not_say_how_long_it_is_is_read_up_to_the_limit():
    sound = sweep(4)
    flac = without_length(written(sound, RATE, "FLAC"))
    assert np.allclose(load_audio(flac), sound, atol=1e-4)
    assert 1.7 * RATE < len(load_audio(flac[: len(flac) // 2])) < 2.1 * RATE
    with pytest.raises(ValueError, match="lasts over 3 s and the limit is 3 s"):
        load_audio(flac, longest=3)
    with pytest.raises(ValueError, match="not audio"):
        load_audio(flac[:200])


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
            load_audio(source)
        assert "\n" not in str(caught.value)
    for array, message in {
        "(2, 2, 2)": np.zeros((2, 2, 2), np.float32),
        "NaN": np.full(RATE, np.nan, np.float32),
        "complex": np.zeros(RATE, np.complex64),
        "0.00 s": np.zeros(0, np.float32),
    }.items():
        with pytest.raises(ValueError) as caught:
            load_audio(message)
        assert array in str(caught.value)


def test_ten_minutes_are_refused(tmp_path):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros(600 * 8000, np.int16), 8000)
    for source in (path, path.read_bytes(), np.zeros(600 * RATE, np.float32)):
        with pytest.raises(ValueError, match=r"lasts over 30 s and the limit is 30 s"):
            load_audio(source)
    assert len(load_audio(path, longest=601)) == 600 * RATE


def encoded(samples: np.ndarray, container: str, codec: str, rate: int) -> bytes:
    """As FFmpeg writes it: mono of this rate."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        resampler = av.AudioResampler(stream.format, "mono", rate, frame_size=stream.codec_context.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("webm", "libopus", 48000),  # Chrome, Firefox
        ("mp4", "aac", 44100),  # Safari, phones
        ("3gp", "aac", 16000),
        ("adts", "aac", 22050),
        ("ogg", "libopus", 48000),
        ("aiff", "pcm_s16be", 44100),
        ("au", "pcm_s16be", 22050),
        ("wav", "pcm_mulaw", 8000),  # telephones
        ("wav", "pcm_alaw", 8000),
        ("wav", "adpcm_ms", 22050),
        ("wav", "pcm_s24le", 48000),
        ("caf", "pcm_f32le", 16000),
    ],
)
def test_what_browsers_phones_and_recorders_write_is_read(container: str, codec: str, rate: int):
    samples = load_audio(encoded(tone(2.0), container, codec, rate))
    assert abs(len(samples) / RATE - 2) < 0.15
    middle = samples[RATE // 2 : -RATE // 2]
    assert abs(pitch(middle) - 440) < 4 and abs(np.abs(middle).max() - 0.5) < 0.1


@pytest.mark.parametrize("size", [b"\x00\x00\x00\x00", b"\xff\xff\xff\xff"])
def test_a_wav_whose_header_has_no_length_is_read_to_its_end(size: bytes):
    whole = written(tone(1.0), RATE, "WAV")
    at = whole.index(b"data") + 4
    for content in (whole[:at] + size + whole[at + 4 :], whole[:4] + size + whole[8:at] + size + whole[at + 4 :]):
        assert len(load_audio(content)) == RATE


def test_the_length_of_an_mp3_is_what_decodes():
    """Without a Xing header, lengths are guessed from the first frame's bit rate."""
    quiet, loud = np.zeros(8 * RATE, np.float32), np.random.default_rng(0).uniform(-0.5, 0.5, 4 * RATE)
    file = io.BytesIO()
    soundfile.write(file, np.concatenate([quiet, loud]), RATE, format="MP3", bitrate_mode="VARIABLE")
    content = file.getvalue()
    start = content.index(b"Xing")
    assert abs(len(load_audio(content[:start] + bytes(4) + content[start + 4 :], longest=13)) / RATE - 12) < 0.2


def test_channels_that_cancel_each_other_are_not_silence():
    both = np.stack([tone(), -tone()], axis=1)
    for source in (both, written(both, RATE, "WAV"), written(both, RATE, "FLAC")):
        assert np.allclose(np.abs(load_audio(source)), np.abs(tone()), atol=1e-3)


def test_names_need_not_be_utf8(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"sp\xe9.wav")
    with open(path, "wb") as file:
        file.write(written(tone(), RATE, "WAV"))
    assert len(load_audio(os.fsdecode(path))) == RATE // 2
    with open(path, "wb") as file:
        file.write(b"no sound")
    with pytest.raises(ValueError, match="not audio") as caught:
        load_audio(os.fsdecode(path))
    str(caught.value).encode()


def test_a_file_that_names_other_files_is_not_followed(tmp_path):
    """FFmpeg opens playlists, whose entries could be any file or address."""
    (tmp_path / "said.wav").write_bytes(written(tone(), RATE, "WAV"))
    entry = tmp_path / "said.wav"
    for playlist in (f"#EXTM3U\n#EXTINF:1,\n{entry}\n#EXT-X-ENDLIST\n", f"ffconcat version 1.0\nfile {entry}\n"):
        with pytest.raises(ValueError, match="not audio"):
            load_audio(playlist.encode())
