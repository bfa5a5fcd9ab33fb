"""Synthetic speakers: espeak-ng, flite and festival run as programs, split into training, held-out and foreign voices.

A recognizer trained on synthesisers learns their artefacts, so the split is by voices and synthesisers: TRAINING voices
speak the corpus; HELD_OUT voices are not in training, but come from a program that is; FOREIGN voices come from a
program (festival) that is not.
(Two festival voices descend from the same people as flite's kal and slt, through other signal processing.)

Axes: T samples at 16 kHz.
"""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from speech.audio import RATE

SPEAKABLE = re.compile(r"[a-z' ]+")
PADDING = round(0.05 * RATE)  # silence kept around the speech


@dataclass(frozen=True)
class Delivery:
    """How one line is spoken: `pace` 1 = the voice's own (0.65 slow, 1.2 quick), `pitch` likewise, and `gap` seconds
    between words (only espeak-ng can), as people dictate to machines.

    The programs read quickly, 200 words a minute and more; people who describe a picture do not.
    """

    pace: float = 1.0
    pitch: float = 1.0
    gap: float = 0.0

    @classmethod
    def drawn(cls, seed: int) -> "Delivery":
        draw = np.random.default_rng((seed, 11))
        pace, pitch = draw.uniform(0.65, 1.2), draw.uniform(0.8, 1.25)
        gap = draw.uniform(0.02, 0.12) if draw.random() < 0.25 else 0.0
        return cls(round(float(pace), 3), round(float(pitch), 3), round(float(gap), 2))


@dataclass(frozen=True)
class UtteranceSpec:
    """One utterance: `text` in lower-case words, its `voice`, and the seed of its delivery."""

    text: str
    voice: "Voice"
    seed: int


@dataclass(frozen=True)
class Synthesizer:
    """A program that speaks. `say(name, [(text, delivery), ...], folder)` writes folder/0.wav, folder/1.wav, ..."""

    name: str
    say: Callable[[str, Sequence[tuple[str, Delivery]], Path], None]


@dataclass(frozen=True)
class Voice:
    synthesiser: Synthesizer
    name: str

    def __str__(self) -> str:
        return f"{self.synthesiser.name}:{self.name}"


def speak(text: str, voice: Voice, seed: int) -> Float[np.ndarray, " T"]:
    """`text` in this voice at 16 kHz, peak 0.5; pace and pitch are drawn from `seed`: same arguments, same samples."""
    return next(speak_all([UtteranceSpec(text, voice, seed)]))


def speak_all(lines: Iterable[UtteranceSpec]) -> Iterator[Float[np.ndarray, " T"]]:
    """The lines in order, lazily. Neighbours with one voice share a process, which matters to festival (slow start).

    Raises ValueError for text that is not lower-case words (synthesisers would spell out or skip the rest), and when
    a synthesiser is missing.
    """
    for voice, group in groupby(lines, key=lambda line: line.voice):
        group = list(group)
        for line in group:
            if not SPEAKABLE.fullmatch(line.text):
                raise ValueError(f"can only speak lower-case words: {line.text!r}")
        with tempfile.TemporaryDirectory() as folder:
            orders = [(line.text, Delivery.drawn(line.seed)) for line in group]
            voice.synthesiser.say(voice.name, orders, Path(folder))
            for i, line in enumerate(group):
                try:
                    samples, rate = soundfile.read(Path(folder) / f"{i}.wav", dtype="float32")
                except soundfile.LibsndfileError as error:
                    raise ValueError(f"{voice} wrote no sound for {line.text!r}") from error
                yield _trimmed(soxr.resample(samples, rate, RATE))


def _trimmed(samples: Float[np.ndarray, " S"]) -> Float[np.ndarray, " T"]:
    """Peak 0.5, without the silence (40 dB below the peak) that each synthesiser puts around its speech."""
    loudness = np.abs(samples)
    heard = np.flatnonzero(loudness > 0.01 * loudness.max())
    start, stop = max(0, heard[0] - PADDING), heard[-1] + PADDING
    return (samples[start:stop] * (0.5 / loudness.max())).astype(np.float32)


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=600)
    except FileNotFoundError:
        package = command[0]
        raise ValueError(f"{package} is not installed: `apt-get install {package}` (make test does it)") from None
    except subprocess.CalledProcessError as error:
        raise ValueError(f"{command[0]} failed: {error.stderr.decode(errors='replace').strip()[:300]}") from error


def _espeak(name: str, orders: Sequence[tuple[str, Delivery]], folder: Path) -> None:
    for i, (text, how) in enumerate(orders):
        pace = round(165 * how.pace)  # words per minute
        pitch = round(np.clip(50 + 100 * (how.pitch - 1), 0, 99))
        manner = ["-s", str(pace), "-p", str(pitch), "-g", str(round(how.gap * 100))]
        _run("espeak-ng", "-v", name, *manner, "-w", str(folder / f"{i}.wav"), text)


def _flite(name: str, orders: Sequence[tuple[str, Delivery]], folder: Path) -> None:
    for i, (text, how) in enumerate(orders):
        changes = ["--setf", f"duration_stretch={1 / how.pace:.3f}", "--setf", f"f0_shift={how.pitch:.3f}"]
        _run("flite", "-voice", name, *changes, "-t", text, "-o", str(folder / f"{i}.wav"))


def _festival(name: str, orders: Sequence[tuple[str, Delivery]], folder: Path) -> None:
    """One process for all the lines. The pitch stays the voice's own, and the pace of its HTS voices does, too."""
    script = [f"(voice_{name})"]
    for i, (text, how) in enumerate(orders):
        script.append(f"(Parameter.set 'Duration_Stretch {1 / how.pace:.3f})")
        script.append(f'(utt.save.wave (SynthText "{text}") "{folder / f"{i}.wav"}" \'riff)')
    (folder / "say.scm").write_text("\n".join(script))
    _run("festival", "-b", str(folder / "say.scm"))


ESPEAK = Synthesizer("espeak-ng", _espeak)
FLITE = Synthesizer("flite", _flite)
FESTIVAL = Synthesizer("festival", _festival)

_ACCENTS = "en-us en-gb en-gb-scotland en-gb-x-rp en-gb-x-gbclan en-029 en-us-nyc".split()
_VARIANTS = (
    "m1 m2 m3 m4 m5 m6 m7 f1 f2 f3 f4 klatt klatt2 klatt3 klatt4 Alex Andrea Annie Diogo Gene Hugo Jacky Lee Marco "
    "Mario Michael Mike adam anika antonio aunty belinda benjamin boris caleb david ed gustave john linda max michel "
    "miguel norbert pablo paul pedro quincy rob robert sandro shelby travis victor zac"
).split()

TRAINING = tuple(Voice(ESPEAK, f"{accent}+{variant}") for accent in _ACCENTS for variant in _VARIANTS) + tuple(
    Voice(FLITE, name) for name in ("awb", "slt", "kal16", "kal")
)
HELD_OUT = (
    Voice(FLITE, "rms"),  # another person than the other flite voices
    Voice(ESPEAK, "en-us+steph"),
    Voice(ESPEAK, "en-us+Denis"),
    Voice(ESPEAK, "en-gb+m8"),
    Voice(ESPEAK, "en-gb-scotland+f5"),
    Voice(ESPEAK, "en-gb-x-gbcwmd+edward"),  # an accent that training never hears, too
)
FOREIGN = (Voice(FESTIVAL, "kal_diphone"), Voice(FESTIVAL, "cmu_us_slt_arctic_hts"))
