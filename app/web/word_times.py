"""Subtitles and segments made of a transcript's words and their times."""

from collections.abc import Sequence

from speech.word_alignment import TimedWord

WORDS_PER_CUE = 10  # of a subtitle
GAP = 0.8  # seconds of silence that end a segment
ESTIMATED = "word times are estimated from the voice activity: this recognizer has no alignment"


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
