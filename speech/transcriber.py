"""Writes down what was said, with a bundled Whisper or any released one; silence and noise give no words.

Three gates stand before the words, because a recognizer that is asked to write always writes something: nobody is loud
enough (audio.QUIET), nobody speaks (voice activity), and the model's own probabilities.

Axes: T samples at 16 kHz, N chunks of 32 ms.
"""

import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import whisper
from jaxtyping import Float
from whisper.model import Whisper

from speech.audio import LONGEST, QUIET, RATE, loudest_dbfs
from speech.backends import ASRBackend, OpenAIWhisperBackend, RawTranscript, SmallWhisperBackend, TranscribedPiece
from speech.greedy_decoding import DecodingContext
from speech.tokenizer import ASRTokenizer
from speech.vad import CHUNK, VoiceActivityDetector, speech_spans
from speech.whisper_folder import is_whisper_folder, load_whisper
from speech.word_alignment import TimedWord

BUNDLED = "whisper-tiny-en"
SMALLEST = "whisper-scenes"  # the smallest bundled one: it knows the scenes' words only
RELEASED_LIMIT = 120.0  # seconds of a recording for a released Whisper
WHOLE = (30.0,)  # seconds of sound for which a released Whisper was trained

# Whisper's own limits (transcribe.py of openai-whisper): below this mean log-probability, or above this compression
# ratio, a text counts as failed; above this probability of no speech, an unsure text counts as silence.
UNSURE = -1.0
REPETITIVE = 2.4
NO_SPEECH_LIMIT = 0.6

SMALL_NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
NUMBERS = {str(number): word for number, word in enumerate(SMALL_NUMBERS)}
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@dataclass(frozen=True)
class Transcript:
    """What was said.

    text        as the recognizer writes it
    words       in lower case, without punctuation, small numbers spelled out: what is drawn
    no_speech   nothing was said; `reason` says in one line why we think so
    understood  False: the text is a guess, and `reason` says so
    tokens      of the backend; a later call for more of the same speech may give them as its `guess`
    pieces      what it was put together from
    """

    text: str
    words: tuple[str, ...]
    no_speech: bool
    reason: str
    understood: bool = True
    tokens: tuple[int, ...] = ()
    pieces: tuple[TranscribedPiece, ...] = ()

    @property
    def language(self) -> str:
        """The code of the language that was spoken."""
        return self.pieces[0].draft.language if self.pieces else "en"

    @property
    def prompt(self) -> str:
        """The text as a prompt: only its words."""
        return " ".join(spoken_words(self.text))


def spoken_words(text: str) -> tuple[str, ...]:
    """The words of a text as they were said: "2 cats, please!" gives two, cats, please."""
    return tuple(NUMBERS.get(word, word.replace("’", "'")) for word in WORD.findall(text.lower()))


class Transcriber:
    """A backend behind the gates. `limit` is the longest recording in seconds that it should be given."""

    def __init__(self, scribe: ASRBackend, name: str = BUNDLED, limit: float = LONGEST) -> None:
        self.scribe, self.name, self.limit = scribe, name, limit

    @classmethod
    def load(cls, name_or_path: str | Path, device: str = "cpu", windows: Sequence[float] = ()) -> "Transcriber":
        """The recognizer of a folder, a released size ("base.en"; needs a network once), or a .pt file.

        A folder is one that `save_whisper` or transformers wrote, or one with model.pt and tokens.json.
        `windows`: lengths in seconds that the encoder is given; left out: those of the folder, or 30 s.
        Raises ValueError for an unknown name, a size that cannot be downloaded, a broken or foreign file, and windows
        for the small Whisper, which has none.
        """
        name = str(name_or_path)
        path = Path(name)
        chosen = sorted(windows)
        if is_whisper_folder(path):
            model, own = load_whisper(path, device)
            return cls(OpenAIWhisperBackend(model, chosen or own), path.name, RELEASED_LIMIT)
        path = path / "model.pt" if path.is_dir() else path
        tokens = path.with_name("tokens.json")
        if name in whisper.available_models():
            return cls(OpenAIWhisperBackend(_released(name, device), chosen or WHOLE), name, RELEASED_LIMIT)
        if not path.is_file():
            sizes = ", ".join(whisper.available_models())
            raise ValueError(
                f"no recognizer '{name}': take {BUNDLED}, {SMALLEST}, a folder, a .pt file, or one of {sizes}"
            )
        model = _checkpoint(path, device)
        if tokens.is_file():
            if windows:
                raise ValueError(f"{path.parent.name} has no windows: leave --windows out")
            return cls(SmallWhisperBackend(model, ASRTokenizer.load(tokens)), path.parent.name)
        if model.dims.n_vocab < 50_000:
            raise ValueError(f"{path} writes {model.dims.n_vocab} tokens of its own but no tokens.json is beside it")
        return cls(OpenAIWhisperBackend(model, chosen or WHOLE), path.stem, RELEASED_LIMIT)

    @property
    def is_multilingual(self) -> bool:
        """Whether it understands other languages than English."""
        return self.scribe.is_multilingual

    def transcribe(
        self,
        audio: Float[np.ndarray, " T"],
        spoken: bool = False,
        guess: Sequence[int] = (),
        context: DecodingContext | None = None,
    ) -> Transcript:
        """16 kHz samples (audio.load) -> what was said. `spoken`: a listener has already found the speech. `guess`:
        tokens of an earlier transcript of the beginning of this very speech. `context`: language, task and text before;
        a recognizer that knows none of it ignores it.

        Raises ValueError for audio over `limit` seconds.
        """
        if len(audio) > self.limit * RATE:
            raise ValueError(f"{len(audio) / RATE:.0f} s of audio, {self.name} takes {self.limit:.0f} s: cut it first")
        if (level := loudest_dbfs(audio)) < QUIET:
            return _nothing(f"only silence was recorded ({level:.0f} dB, speech is over {QUIET:.0f}): is the mic on?")
        whole = spoken and self.scribe.hears_pauses and len(audio) <= self.scribe.reach
        chances = np.zeros(0, np.float32) if whole else VoiceActivityDetector().probabilities(audio)
        spans = [] if whole else speech_spans(chances)
        if not spans and not spoken:
            return _nothing("nobody speaks in this recording, there is only noise: speak closer to the microphone")
        spans = spans or [(0, len(audio))]
        pieces = split_long(spans, chances, self.scribe.reach, joined=self.scribe.hears_pauses)
        written = [
            TranscribedPiece(
                start, stop, self.scribe.transcribe(audio[start:stop], guess if len(pieces) == 1 else (), context)
            )
            for start, stop in pieces
        ]
        written = [piece for piece in written if piece.draft.text and not _is_silence(piece.draft)]
        drafts = [piece.draft for piece in written]
        if not drafts:
            return _nothing("there was a sound but no words in it that could be made out: say it again")
        text, tokens = " ".join(draft.text for draft in drafts), tuple(t for draft in drafts for t in draft.tokens)
        understood = all(draft.log_prob > UNSURE and draft.compression < REPETITIVE for draft in drafts)
        reason = "" if understood else "I did not understand that: say it again, or correct the words"
        return Transcript(text, spoken_words(text), False, reason, understood, tokens, tuple(written))

    def word_times(
        self, audio: Float[np.ndarray, " T"], transcript: Transcript, task: str = "transcribe"
    ) -> tuple[list[TimedWord], bool]:
        """(the words of a transcript of these samples with their times, whether they were aligned). A recognizer
        without an alignment of its own gives estimates."""
        return self.scribe.word_times(audio, transcript.pieces, task)


def _is_silence(draft: RawTranscript) -> bool:
    """Whether the model thinks that there was nothing to write. A released one often thinks so of clear speech, so
    that its words must be unsure, too."""
    return draft.no_speech > NO_SPEECH_LIMIT and (draft.log_prob == 0.0 or draft.log_prob < UNSURE / 2)


def split_long(
    spans: list[tuple[int, int]], chances: Float[np.ndarray, " N"], reach: int, joined: bool = True
) -> list[tuple[int, int]]:
    """Spans of speech, `joined` while they fit into `reach` samples together; a longer one is cut where it is least
    sure of being speech, in the second half of what fits."""
    pieces: list[tuple[int, int]] = []
    for start, stop in spans:
        if joined and pieces and stop - pieces[-1][0] <= reach:
            pieces[-1] = (pieces[-1][0], stop)
            continue
        while stop - start > reach:
            low, high = (start + reach // 2) // CHUNK + 1, (start + reach) // CHUNK
            cut = (low + int(chances[low:high].argmin())) * CHUNK
            pieces.append((start, cut))
            start = cut
        pieces.append((start, stop))
    return pieces


def _nothing(reason: str) -> Transcript:
    return Transcript("", (), no_speech=True, reason=reason)


def _released(name: str, device: str) -> Whisper:
    try:
        return whisper.load_model(name, device=device)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong checksum is a RuntimeError
        raise ValueError(
            f"Whisper '{name}' is not on this machine and could not be downloaded ({error}): connect to the network "
            f"once, give the path of its .pt file, or use {BUNDLED}"
        ) from None


def _checkpoint(path: Path, device: str) -> Whisper:
    try:
        return whisper.load_model(str(path), device=device)
    except (RuntimeError, OSError, EOFError, KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ValueError(f"{path} is no whole Whisper checkpoint ({reason}): download or restore it again") from None
