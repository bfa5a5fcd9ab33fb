"""How well a recognizer hears: word error rates on voices, programs and people that it never heard, and on noise.

Everything is spoken when asked for, from sentences that no corpus holds; real speakers are scored where their
recordings are given. Whole recordings go through the Transcriber with its gates, as in the product.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jiwer
import numpy as np
from jaxtyping import Float
from tyro.conf import arg
from whisper.normalizers import EnglishTextNormalizer

from maskgil.model_folder import bundled_or_given
from speech import audio
from speech.audio import RATE
from speech.transcriber import BUNDLED, Transcriber
from train.asr.corpus import unseen
from train.asr.noise import noise_clip
from train.asr.tts_voices import FOREIGN, HELD_OUT, TRAINING, UtteranceSpec, Voice, speak_all

AROUND = round(0.3 * RATE)  # silence before and after, as a person leaves it
NOISES = 200


@dataclass(frozen=True)
class WerResult:
    """Word error rate (0 best; errors by spoken words) over `utterances`; for noise, the share that gave any words."""

    what: str
    rate: float
    utterances: int

    def __str__(self) -> str:
        return f"| {self.what} | {100 * self.rate:.1f}% | {self.utterances} |"


@dataclass(frozen=True)
class PeopleOptions:
    """Which recordings of people are scored, and how."""

    every: int = 1
    """Every n-th recording counts."""
    speakers: tuple[str, ...] = ()
    """Only recordings whose names begin so, such as 1272."""
    longest: float = 3600.0
    """Only recordings of at most so many seconds."""


def score(transcriber: Transcriber, per_voice: int = 40, noises: int = NOISES) -> Iterator[WerResult]:
    """Scores in synthetic voices one after the other, as they come."""
    texts = unseen(seed=1)
    draw = np.random.default_rng(41)
    known = [TRAINING[i] for i in draw.choice(len(TRAINING), per_voice)]
    yield _voices(transcriber, "voices heard in training, new sentences", known, texts)
    for i, voice in enumerate((*HELD_OUT, *FOREIGN), start=1):
        name = f"{voice} (program never heard)" if voice in FOREIGN else f"{voice} (voice never heard)"
        yield _voices(transcriber, name, [voice] * per_voice, texts[i * per_voice :])
    if not noises:
        return
    written = [not transcriber.transcribe(noise_clip(i, seed=0)[1]).no_speech for i in range(noises)]
    yield WerResult("noise and silence: share that gave words", float(np.mean(written)), noises)
    # The model's own judgement, as if voice activity had let everything through.
    written = [not transcriber.transcribe(noise_clip(i, seed=0)[1], spoken=True).no_speech for i in range(noises)]
    yield WerResult("the same without voice activity", float(np.mean(written)), noises)


def wer_table(scores: Iterable[WerResult]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield "| spoken by | word error rate | utterances |"
    yield "|---|---|---|"
    yield from map(str, scores)


def speech_report(
    model: str = BUNDLED,
    real: str | None = None,
    windows: tuple[float, ...] = (),
    per_voice: int = 40,
    noises: int = NOISES,
    people: Annotated[PeopleOptions, arg(name="")] = PeopleOptions(),  # noqa: B008
) -> None:
    """Word error rates of a speech recognizer on voices that it never heard, or on recordings of people.

    Args:
        model: The recognizer: a bundled name, a folder, or a released Whisper size.
        real: A folder of recordings of people, with transcripts.tsv: they are scored instead of synthetic voices.
        windows: Seconds that the encoder is given, such as 3 10 30; left out: the recognizer's own.
        per_voice: Sentences in each synthetic voice.
        noises: Clips of noise, music and silence, which are to give no words.
    """
    transcriber = Transcriber.load(bundled_or_given(model), windows=windows)
    if real:
        report_people(Path(real), transcriber, people)
        return
    for line in wer_table(score(transcriber, per_voice, noises)):
        print(line, flush=True)


def transcripts(folder: Path) -> list[tuple[str, Path]]:
    """(text, recording) of every line of transcripts.tsv: id, tab, text. The recording is any file of that stem.

    Raises ValueError when the list is missing or empty, or a recording is.
    """
    listing = folder / "transcripts.tsv"
    if not listing.is_file():
        raise ValueError(f"{listing} is missing: it lists id, tab, text, one recording a line")
    recordings = {path.stem: path for path in sorted(folder.rglob("*")) if path.is_file() and path != listing}
    pairs = []
    for number, line in enumerate(listing.read_text(encoding="utf-8-sig").splitlines(), 1):
        name, tab, text = line.partition("\t")
        if not line.strip() or (number == 1 and (name, text) == ("id", "text")):
            continue
        if not tab or name not in recordings:
            raise ValueError(f"{listing}, line {number}: no recording named {name!r} lies in {folder}")
        pairs.append((text, recordings[name]))
    if not pairs:
        raise ValueError(f"{listing} lists no recordings")
    return pairs


def rate_people(
    transcriber: Transcriber, pairs: Sequence[tuple[str, Path]], longest: float = 3600.0
) -> Iterator[tuple[int, float]]:
    """(number of clips so far, their word error rate after Whisper's English normalizer), clip by clip.

    Clips longer than the transcriber's limit are cut at pauses.
    """
    normalize = EnglishTextNormalizer()
    patient = Transcriber(transcriber.scribe, transcriber.name, limit=longest)
    errors = words = 0
    for number, (text, path) in enumerate(pairs, 1):
        reference = normalize(text)
        if not reference:
            raise ValueError(f"the transcript of {path.name} has no words: {text!r}")
        counts = jiwer.process_words(
            reference, normalize(patient.transcribe(audio.load_audio(path, longest=longest)).text)
        )
        errors += counts.substitutions + counts.deletions + counts.insertions
        words += len(reference.split())
        yield number, errors / words


def report_people(folder: Path, transcriber: Transcriber, options: PeopleOptions) -> None:
    """Prints the word error rate on recordings of people in the folder. ValueError when the options leave none."""
    pairs = [(text, path) for text, path in transcripts(folder) if path.name.startswith(options.speakers or "")]
    if options.longest < PeopleOptions.longest:
        pairs = [pair for pair in pairs if _seconds(pair[1]) <= options.longest]
    pairs = pairs[:: options.every]
    if not pairs:
        raise ValueError(f"{folder} holds no such recordings: give other speakers, or a larger longest")
    number, error_rate = 0, 0.0
    for number, error_rate in rate_people(transcriber, pairs):
        if number % 50 == 0:
            print(f"{number} of {len(pairs)} clips: WER {100 * error_rate:.1f} %", flush=True)
    print(f"{number} clips of {folder.name}, {transcriber.name}")
    print(f"real people: WER {100 * error_rate:.1f} %")


def _seconds(path: Path) -> float:
    return len(audio.load_audio(path, longest=PeopleOptions.longest)) / RATE


def _voices(transcriber: Transcriber, what: str, voices: list[Voice], texts: list[str]) -> WerResult:
    lines = [UtteranceSpec(text, voice, 7000 + i) for i, (text, voice) in enumerate(zip(texts, voices, strict=False))]
    return rate(transcriber, what, zip((line.text for line in lines), speak_all(lines), strict=True))


def rate(transcriber: Transcriber, what: str, pairs: Iterable[tuple[str, Float[np.ndarray, " T"]]]) -> WerResult:
    """Word error rate after Whisper's English normalizer, which takes "2 cats" for "two cats"."""
    normalize = EnglishTextNormalizer()
    said, written = [], []
    for text, sound in pairs:
        said.append(normalize(text))
        written.append(normalize(transcriber.transcribe(np.pad(sound, AROUND)).text))
    return WerResult(what, float(jiwer.wer(said, written)), len(said))
