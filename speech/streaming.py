"""Live dictation as pure logic: chunks of sound go in, events come out. No threads, no clock, no sockets, no model.

The listener never decodes. It yields `TranscribeRequest`, an order to write down the utterance so far; whoever runs it
does so
wherever it likes (a worker thread) and hands the words back with `heard`, which yields what they mean:

    Start -> Partial, Partial, ... -> Pause -> Final               a pause: worth starting to draw what was said so far
                                      Pause -> Resume -> ...       speech went on: there may be more words

An order may be overtaken: speech went on after a pause, or the utterance is over. `wanted` says which orders are still
worth their decoding, so that whoever is slow need not obey them all.

Words are committed by LocalAgreement-2 (Liu et al., 2020; ufal/whisper_streaming): what two successive hypotheses have
in common from the start on no longer changes; the rest is pending. Utterances are short enough to hear anew each time.

Axes: chunks of 512 samples (32 ms) at 16 kHz.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float

from speech.audio import LONGEST, RATE
from speech.spoken_commands import is_unfinished
from speech.vad import CHUNK, SILENCE, SPEECH, VoiceActivityDetector

SECONDS = CHUNK / RATE  # of a chunk


class TranscribeReason(Enum):
    PARTIAL = "partial"  # to show words while they are spoken
    PAUSE = "pause"  # to guess what the person meant, should this be the end


@dataclass(frozen=True)
class SpeechStarted:
    """Somebody began to speak, `at` seconds after the listener began."""

    utterance: int
    at: float


@dataclass(frozen=True)
class TranscribeRequest:
    """An order: write this down and give the words to `Listener.heard`."""

    utterance: int
    number: int
    reason: TranscribeReason
    audio: Float[np.ndarray, " T"]
    settled: tuple[str, ...] = ()  # words of the utterance before this audio


@dataclass(frozen=True)
class PartialTranscript:
    """`committed` words stay; `pending` ones may still change."""

    utterance: int
    committed: tuple[str, ...]
    pending: tuple[str, ...]


@dataclass(frozen=True)
class SpeechPaused:
    """A short silence: `words` may be all there is."""

    utterance: int
    words: tuple[str, ...]


@dataclass(frozen=True)
class SpeechResumed:
    """Speech went on after a Pause."""

    utterance: int


@dataclass(frozen=True)
class FinalTranscript:
    """The utterance is over, `at` seconds. No words: a cough, a click."""

    utterance: int
    words: tuple[str, ...]
    at: float


Event = SpeechStarted | TranscribeRequest | PartialTranscript | SpeechPaused | SpeechResumed | FinalTranscript


@dataclass(frozen=True)
class EndpointingConfig:
    """Seconds.

    pause       silence after which the words so far are transcribed and drawn
    end         silence after which they are final
    unfinished  the same where the sentence cannot be over: "two cats on the"
    partial     speech between two hypotheses
    before      sound kept from before the first voiced chunk: soft first consonants
    shortest    voiced sound of a real utterance
    settle      an utterance longer than this is settled at its next pause of `settle_pause`: what was said before it
                is not transcribed again, which bounds the time of a transcription
    longest     an utterance is closed here, spoken on or not
    """

    pause: float = 0.1
    end: float = 0.7
    unfinished: float = 1.5
    partial: float = 0.3
    before: float = 0.25
    shortest: float = 0.13
    settle: float = 7.0
    settle_pause: float = 0.3
    longest: float = LONGEST - 1

    def __post_init__(self) -> None:
        if not 0 < self.pause <= self.end:
            raise ValueError(f"a pause of {self.pause} s must be positive and at most the end of {self.end} s")


class LocalAgreement:
    """LocalAgreement-2 over word sequences."""

    def __init__(self) -> None:
        self.committed: tuple[str, ...] = ()
        self._last: tuple[str, ...] = ()

    def update(self, words: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The newest hypothesis -> (committed, pending). What was committed is never taken back: hypotheses that begin
        with other words commit nothing more, and the utterance's final words settle it."""
        words = tuple(words)
        common = 0
        for a, b in zip(self._last, words, strict=False):
            if a != b:
                break
            common += 1
        if words[: len(self.committed)] == self.committed and common > len(self.committed):
            self.committed = words[:common]
        self._last = words
        return self.committed, words[len(self.committed) :]


class StreamingTranscriber:
    """One person's microphone. `activity`: the chance that a chunk of 32 ms is speech, from 0 to 1; left out, that of
    a detector of its own, because a detector has a state."""

    def __init__(
        self,
        activity: Callable[[np.ndarray], float] | None = None,
        timing: EndpointingConfig | None = None,
    ):
        # To be called once for each chunk, in order, on any thread.
        self.chance: Callable[[np.ndarray], float] = activity or VoiceActivityDetector().feed
        self.timing = timing or EndpointingConfig()
        self._clock = 0  # chunks fed
        self._orders = 0
        self._utterance = -1
        self._before: list[np.ndarray] = []
        self._ending: dict[int, float] = {}  # order -> when its utterance ended, while its words are still being heard
        self._speaking = False
        self._forget()

    def _forget(self) -> None:
        self._chunks: list[np.ndarray] = []
        self._voiced, self._silent, self._since = 0, 0, 0  # chunks: spoken, since the last spoken, since the last order
        self._agreement = LocalAgreement()
        self._partial: int | None = None  # the order in flight: one at a time
        self._pause: int | None = None  # the order given at the present pause
        self._paused = False
        self._guess: tuple[str, ...] | None = None  # its answer
        self._settled: tuple[str, ...] = ()  # words of the sound that is no longer kept

    def feed(self, chunk: Float[np.ndarray, "512"], chance: float | None = None) -> Iterator[Event]:
        """The next 32 ms, with what `chance` said of them where somebody has asked already."""
        self._clock += 1
        chance = self.chance(chunk) if chance is None else chance
        if not self._speaking:
            self._before = [*self._before, chunk][-max(1, round(self.timing.before / SECONDS)) :]
            if chance > SPEECH:
                yield self._begin()
            return
        self._chunks.append(chunk)
        self._since += 1
        if chance > SILENCE:
            if self._guess is not None:
                yield SpeechResumed(self._utterance)
                self._settle()
            self._voiced, self._silent = self._voiced + 1, 0
            self._paused, self._pause, self._guess = False, None, None
        else:
            self._silent += 1
        quiet = self._silent * SECONDS
        over = quiet >= self._end_silence() or len(self._chunks) * SECONDS >= self.timing.longest
        if (over or quiet >= self.timing.pause) and not self._paused:
            self._paused = True
            if self._voiced * SECONDS >= self.timing.shortest:
                order = self._order(TranscribeReason.PAUSE)
                self._pause = order.number
                yield order
        if over:
            yield from self._end()
        elif not self._paused and self._partial is None and self._since * SECONDS >= self.timing.partial:
            order = self._order(TranscribeReason.PARTIAL)
            self._partial = order.number
            yield order

    def _end_silence(self) -> float:
        """Seconds of silence that end the utterance: more while its words want more."""
        waits = self._guess is not None and is_unfinished(self._guess)
        return max(self.timing.end, self.timing.unfinished) if waits else self.timing.end

    def _settle(self) -> None:
        """Keep the words up to a long pause in a long utterance, and go on with the sound after it."""
        if self._silent * SECONDS < self.timing.settle_pause or len(self._chunks) * SECONDS < self.timing.settle:
            return
        self._settled, self._agreement = self._guess or (), LocalAgreement()
        self._chunks = self._chunks[-max(1, round(self.timing.before / SECONDS)) :]

    def on_transcript(self, order: TranscribeRequest, words: Sequence[str]) -> Iterator[Event]:
        """The answer to an order. Late partials, and pauses that were none, are dropped."""
        words = (*order.settled, *words)
        if order.number in self._ending:
            yield FinalTranscript(order.utterance, words, self._ending.pop(order.number))
        elif order.number == self._partial:
            self._partial = None
            if order.settled == self._settled:
                yield PartialTranscript(order.utterance, *self._agreement.update(words))
        elif order.number == self._pause:
            self._guess = words
            yield SpeechPaused(order.utterance, words)

    def is_wanted(self, order: TranscribeRequest) -> bool:
        """Whether the words of this order would still mean anything."""
        return order.number in self._ending or order.number in (self._partial, self._pause)

    def flush(self) -> Iterator[Event]:
        """Nothing more will be said: an utterance that is being spoken is over, as if it had ended in silence."""
        if not self._speaking:
            return
        if not self._paused and self._voiced * SECONDS >= self.timing.shortest:
            # The recognizer knows how words sound that silence follows.
            self._chunks += [np.zeros(CHUNK, np.float32)] * round(self.timing.pause / SECONDS)
            order = self._order(TranscribeReason.PAUSE)
            self._pause = order.number
            yield order
        yield from self._end()

    def _begin(self) -> SpeechStarted:
        self._forget()
        self._utterance += 1
        self._speaking, self._voiced = True, 1
        self._chunks, self._before = self._before, []
        return SpeechStarted(self._utterance, (self._clock - len(self._chunks)) * SECONDS)

    def _end(self) -> Iterator[Event]:
        at = self._clock * SECONDS
        if self._pause is not None and self._guess is None:
            self._ending[self._pause] = at
        else:
            yield FinalTranscript(self._utterance, self._guess or (), at)
        self._before = self._chunks[len(self._chunks) - self._silent :]
        self._speaking = False
        self._forget()

    def _order(self, why: TranscribeReason) -> TranscribeRequest:
        self._since = 0
        self._orders += 1
        return TranscribeRequest(self._utterance, self._orders, why, np.concatenate(self._chunks), self._settled)


def transcribe_stream(
    chunks: Iterable[Float[np.ndarray, "512"]],
    listener: StreamingTranscriber,
    write: Callable[[np.ndarray], Sequence[str]],
) -> Iterator[Event]:
    """Runs a listener where waiting is no matter (a file, a test): orders are obeyed on the spot and not shown."""
    for chunk in chunks:
        for event in listener.feed(chunk):
            if isinstance(event, TranscribeRequest):
                yield from listener.on_transcript(event, write(event.audio))
            else:
                yield event
