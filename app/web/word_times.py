"""Times of a transcript's words, and subtitles made of them.

The recognizer returns words without times. They are estimated: voice activity detection gives the spans of speech, and
the words share them in proportion to their letters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from speech.audio import RATE
from speech.vad import VoiceActivityDetector, speech_spans

WORDS_PER_CUE = 10  # of a subtitle
GAP = 0.8  # seconds of silence that end a segment
ESTIMATED = "word times are estimated from the voice activity"


@dataclass(frozen=True)
class TimedWord:
    """A word and when it is spoken, in seconds."""

    word: str
    start: float
    end: float


def estimate_word_times(samples: Float[np.ndarray, " T"], words: Sequence[str]) -> list[TimedWord]:
    """The words of 16 kHz samples with estimated times."""
    spans = speech_spans(VoiceActivityDetector().probabilities(samples)) or [(0, len(samples))]
    ends = np.cumsum([stop - start for start, stop in spans])
    letters = np.cumsum([0, *(len(word) + 1 for word in words)])

    def seconds(share: float, is_start: bool) -> float:
        """The time at a share of all speech; at the border of two spans a word starts in the later one."""
        at = share * ends[-1]
        index = min(int(np.searchsorted(ends, at, side="right" if is_start else "left")), len(spans) - 1)
        return float((spans[index][1] - (ends[index] - at)) / RATE)

    shares = letters / max(letters[-1], 1)
    return [
        TimedWord(word, round(seconds(shares[i], True), 3), round(seconds(shares[i + 1], False), 3))
        for i, word in enumerate(words)
    ]


def segments(words: Sequence[TimedWord]) -> list[list[TimedWord]]:
    """Words in groups of at most WORDS_PER_CUE, split at silences."""
    groups: list[list[TimedWord]] = []
    for word in words:
        if not groups or len(groups[-1]) >= WORDS_PER_CUE or word.start - groups[-1][-1].end > GAP:
            groups.append([])
        groups[-1].append(word)
    return groups


def to_srt(words: Sequence[TimedWord]) -> str:
    """SubRip subtitles."""
    cues = [f"{number}\n{_span(group, ',')}\n{_text(group)}\n" for number, group in enumerate(segments(words), 1)]
    return "\n".join(cues)


def to_vtt(words: Sequence[TimedWord]) -> str:
    """WebVTT subtitles."""
    return "\n".join(["WEBVTT\n", *(f"{_span(group, '.')}\n{_text(group)}\n" for group in segments(words))])


def _text(group: Sequence[TimedWord]) -> str:
    return " ".join(word.word for word in group)


def _span(group: Sequence[TimedWord], point: str) -> str:
    return f"{_clock(group[0].start, point)} --> {_clock(group[-1].end, point)}"


def _clock(seconds: float, point: str) -> str:
    """3.5 -> 00:00:03,500."""
    milliseconds = round(1000 * seconds)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
