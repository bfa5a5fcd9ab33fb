"""How well a recogniser hears: word error rates on voices, programs and people that it never heard, and on noise.

Everything is spoken when asked for, from sentences that no corpus holds; real speakers are scored where their
recordings are given. Whole recordings go through the Transcriber with its gates, as in the product.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
from jaxtyping import Float

from speech.audio import RATE
from speech.tokenizer import plain
from speech.transcriber import SMALLEST, Transcriber
from train.asr.corpus import LibriUtterance, held_out_speakers, read, unseen
from train.asr.noise import clip
from train.asr.tts_voices import FOREIGN, HELD_OUT, TRAINING, UtteranceSpec, Voice, speak_all

AROUND = round(0.3 * RATE)  # silence before and after, as a person leaves it
NOISES = 200
LONGEST_REAL = 8.5  # seconds


@dataclass(frozen=True)
class WerResult:
    """Word error rate (0 best; errors by spoken words) over `utterances`; for noise, the share that gave any words."""

    what: str
    rate: float
    utterances: int

    def __str__(self) -> str:
        return f"| {self.what} | {100 * self.rate:.1f}% | {self.utterances} |"


def score(
    transcriber: Transcriber, readings: Sequence[LibriUtterance] = (), per_voice: int = 40
) -> Iterator[WerResult]:
    """Scores one after the other, as they come. `readings`: those that corpus.prepare took; its held-out speakers."""
    texts = unseen(seed=1)
    draw = np.random.default_rng(41)
    known = [TRAINING[i] for i in draw.choice(len(TRAINING), per_voice)]
    yield _voices(transcriber, "voices heard in training, new sentences", known, texts)
    for i, voice in enumerate((*HELD_OUT, *FOREIGN), start=1):
        name = f"{voice} (program never heard)" if voice in FOREIGN else f"{voice} (voice never heard)"
        yield _voices(transcriber, name, [voice] * per_voice, texts[i * per_voice :])
    if readings:
        held_out = held_out_speakers(readings)
        pairs = ((r.text, r.samples()) for r in readings if r.speaker in held_out)
        pairs = ((text, sound) for text, sound in pairs if len(sound) <= LONGEST_REAL * RATE)
        yield rate(transcriber, f"{len(held_out)} real people, any English (LibriSpeech)", pairs)
    written = [not transcriber.transcribe(clip(i, seed=0)[1]).no_speech for i in range(NOISES)]
    yield WerResult("noise and silence: share that gave words", float(np.mean(written)), NOISES)
    # The model's own judgement, as if voice activity had let everything through.
    written = [not transcriber.transcribe(clip(i, seed=0)[1], spoken=True).no_speech for i in range(NOISES)]
    yield WerResult("the same without voice activity", float(np.mean(written)), NOISES)


def table(scores: Iterable[WerResult]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield "| spoken by | word error rate | utterances |"
    yield "|---|---|---|"
    yield from map(str, scores)


def report(model: str = SMALLEST, real: str | None = None) -> None:
    """`python -m train.eval.scene_score speech`: prints the table line by line."""
    readings = list(read(Path(real))) if real else []  # refuses what is missing before minutes of speaking
    for line in table(score(Transcriber.load(model), readings)):
        print(line, flush=True)


def _voices(transcriber: Transcriber, what: str, voices: list[Voice], texts: list[str]) -> WerResult:
    lines = [UtteranceSpec(text, voice, 7000 + i) for i, (text, voice) in enumerate(zip(texts, voices, strict=False))]
    return rate(transcriber, what, zip((line.text for line in lines), speak_all(lines), strict=True))


def rate(transcriber: Transcriber, what: str, pairs: Iterable[tuple[str, Float[np.ndarray, " T"]]]) -> WerResult:
    said, written = [], []
    for text, sound in pairs:
        said.append(text)
        written.append(plain(transcriber.transcribe(np.pad(sound, AROUND)).text))
    return WerResult(what, float(jiwer.wer(said, written)), len(said))
