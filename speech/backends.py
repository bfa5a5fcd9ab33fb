"""The models behind a transcriber: the small Whisper with its own vocabulary, and any Whisper that OpenAI released.

whisper's modules are used as they are. Each backend transcribes one piece of sound of at most `reach` samples.

Axes: T samples at 16 kHz.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from whisper.model import Whisper

from speech.audio import RATE
from speech.greedy_decoding import DecodingContext, GreedyDecoder
from speech.mel import PAIR, encode_mel, log_mel, longest
from speech.tokenizer import END, NO_SPEECH, START, ASRTokenizer
from speech.vad import VoiceActivityDetector, speech_spans
from speech.word_alignment import TimedWord, align_words, estimate_word_times, within_speech


@dataclass(frozen=True)
class RawTranscript:
    """One piece written down.

    no_speech    the model's probability that there was nothing to write
    log_prob     mean natural logarithm of the probability of the tokens
    compression  length of the text over its length after zlib; over 2.4 it repeats itself
    tokens       what the text was decoded from: a later call may give them as its `guess`
    """

    text: str
    no_speech: float
    log_prob: float = 0.0
    compression: float = 1.0
    tokens: tuple[int, ...] = ()
    language: str = "en"


@dataclass(frozen=True)
class TranscribedPiece:
    """Samples [start, stop) of a recording and what the backend wrote of them."""

    start: int
    stop: int
    draft: RawTranscript


@runtime_checkable
class ASRBackend(Protocol):
    """A model that writes down at most `reach` samples at a time.

    hears_pauses     it goes on after a pause inside a piece; otherwise each stretch of speech needs a call of its own
    is_multilingual  it understands other languages than English
    """

    reach: int
    hears_pauses: bool
    is_multilingual: bool

    def transcribe(
        self, audio: Float[np.ndarray, " T"], guess: Sequence[int] = (), context: DecodingContext | None = None
    ) -> RawTranscript:
        """`guess`: tokens of an earlier hypothesis of the same speech. `context`: language, task and text before; None:
        the backend's own. A backend ignores what is of no use to it."""
        ...

    def word_times(
        self, audio: Float[np.ndarray, " T"], pieces: Sequence[TranscribedPiece], task: str = "transcribe"
    ) -> tuple[list[TimedWord], bool]:
        """(the words of pieces of these samples with their times, whether they were aligned with the sound: otherwise
        the times are estimates). `task`: what the pieces were transcribed for."""
        ...


class SmallWhisperBackend:
    """A Whisper with this project's vocabulary, decoded greedily over the sound's own length."""

    hears_pauses = False
    is_multilingual = False

    def __init__(self, model: Whisper, vocabulary: ASRTokenizer) -> None:
        if model.dims.n_vocab != len(vocabulary):
            raise ValueError(
                f"the model writes {model.dims.n_vocab} tokens, the vocabulary has {len(vocabulary)}: "
                "model.pt and tokens.json are not of one training"
            )
        if model.dims.n_mels != PAIR:
            raise ValueError(f"the model hears {model.dims.n_mels} values a frame, not {PAIR}: train it by our recipe")
        self.model, self.vocabulary, self.reach = model.eval(), vocabulary, longest(model)
        self._one_at_a_time = threading.Lock()  # the key-value cache hangs on the model's own modules

    @torch.inference_mode()
    def transcribe(
        self, audio: Float[np.ndarray, " T"], guess: Sequence[int] = (), context: DecodingContext | None = None
    ) -> RawTranscript:
        """`guess` is ignored, because decoding takes a tenth of the encoder's time, and so is `context`, because the
        model has learned neither languages nor tasks."""
        model = self.model
        samples = torch.from_numpy(audio[: self.reach]).to(model.device)
        with self._one_at_a_time:
            heard = encode_mel(model, log_mel(samples)[None])
            cache, hooks = model.install_kv_cache_hooks()
            try:
                token, ids, no_speech = START, [], None
                while len(ids) < model.dims.n_text_ctx:
                    logits = model.decoder(torch.tensor([[token]], device=model.device), heard, kv_cache=cache)[0, -1]
                    if no_speech is None:
                        no_speech = float(logits.softmax(-1)[NO_SPEECH])
                    logits[[START, NO_SPEECH]] = -torch.inf
                    token = int(logits.argmax())
                    if token == END:
                        break
                    ids.append(token)
            finally:
                for hook in hooks:
                    hook.remove()
        return RawTranscript(self.vocabulary.decode(ids), no_speech, tokens=tuple(ids))

    def word_times(
        self, audio: Float[np.ndarray, " T"], pieces: Sequence[TranscribedPiece], task: str = "transcribe"
    ) -> tuple[list[TimedWord], bool]:
        """Estimates: the model has no heads that were trained or found to align."""
        return estimate_word_times(audio, [word for piece in pieces for word in piece.draft.text.split()]), False


class OpenAIWhisperBackend:
    """A released Whisper, decoded greedily over the shortest window that holds the sound.

    `windows`: lengths in seconds that the encoder may be given, the shortest first. `context`: of calls without one.
    """

    hears_pauses = True

    def __init__(
        self, model: Whisper, windows: Sequence[float] = (30.0,), context: DecodingContext | None = None
    ) -> None:
        self.decoder = GreedyDecoder(model, windows)
        self.model, self.reach = self.decoder.model, self.decoder.reach
        self.context = context or DecodingContext()
        self.is_multilingual = model.is_multilingual
        self._one_at_a_time = threading.Lock()

    def transcribe(
        self, audio: Float[np.ndarray, " T"], guess: Sequence[int] = (), context: DecodingContext | None = None
    ) -> RawTranscript:
        """`guess`: tokens of an earlier hypothesis of the same speech, which are checked before decoding goes on."""
        with self._one_at_a_time:
            states = self.decoder.encode(audio)
            window = self.decoder.decode(states, len(audio) / RATE, context or self.context, guess)
        return RawTranscript(
            window.text, window.no_speech, window.log_prob, window.compression, window.tokens, window.language
        )

    def word_times(
        self, audio: Float[np.ndarray, " T"], pieces: Sequence[TranscribedPiece], task: str = "transcribe"
    ) -> tuple[list[TimedWord], bool]:
        """Times by the model's cross-attention, for pieces that were transcribed here."""
        words: list[TimedWord] = []
        for piece in pieces:
            sound, draft = audio[piece.start : piece.stop], piece.draft
            with self._one_at_a_time:
                tokenizer = self.decoder.tokenizer(draft.language, task)
                words += align_words(self.model, tokenizer, sound, draft.tokens, piece.start / RATE)
        return within_speech(words, speech_spans(VoiceActivityDetector().probabilities(audio))), True
