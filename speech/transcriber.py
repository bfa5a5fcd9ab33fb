"""Writes down what was said, with the bundled small Whisper or any released one; silence and noise give no words.

Three gates stand before the words, because a recogniser asked to write always writes something: nobody is loud enough
(audio.QUIET), nobody speaks (voice activity), and the model's own <|nospeech|>. whisper's modules are used as they are:
the bundled model is decoded by a loop of our own, since whisper's assumes its 50,000 tokens and 30 seconds.

Axes: T samples at 16 kHz, N chunks of 32 ms.
"""

import pickle
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import whisper
from jaxtyping import Float
from whisper.model import Whisper

from speech.audio import LONGEST, QUIET, RATE, loudest_dbfs
from speech.mel import PAIR, encode, log_mel, longest
from speech.tokenizer import END, NO_SPEECH, START, ASRTokenizer
from speech.vad import CHUNK, VoiceActivityDetector, speech_spans

BUNDLED = "whisper-scenes"
WEIGHTS = Path(__file__).parents[1] / "weights"


@dataclass(frozen=True)
class Transcript:
    """What was said. `no_speech`: nothing was, and `reason` says in one line why we think so (else it is empty)."""

    text: str
    words: tuple[str, ...]
    no_speech: bool
    reason: str


@dataclass(frozen=True)
class RawTranscript:
    """One piece written down: `no_speech` is the model's probability that there was nothing to write."""

    text: str
    no_speech: float


@runtime_checkable
class ASRBackend(Protocol):
    """A model that writes down at most `reach` samples at a time."""

    reach: int

    def transcribe(self, audio: Float[np.ndarray, " T"]) -> RawTranscript: ...


class SmallWhisperBackend:
    """A Whisper with our vocabulary, decoded greedily over the sound's own length."""

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
    def transcribe(self, audio: Float[np.ndarray, " T"]) -> RawTranscript:
        model = self.model
        samples = torch.from_numpy(audio[: self.reach]).to(model.device)
        with self._one_at_a_time:
            heard = encode(model, log_mel(samples)[None])
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
        return RawTranscript(self.vocabulary.decode(ids), no_speech)


class OpenAIWhisperBackend:
    """One of OpenAI's checkpoints, decoded by whisper itself, which walks through long sound in windows."""

    reach = 1 << 62

    def __init__(self, model: Whisper) -> None:
        self.model = model.eval()
        self._one_at_a_time = threading.Lock()

    def transcribe(self, audio: Float[np.ndarray, " T"]) -> RawTranscript:
        with self._one_at_a_time:
            result = self.model.transcribe(
                audio, fp16=self.model.device.type == "cuda", condition_on_previous_text=False, verbose=None
            )
        # whisper has dropped what it thinks silent. What is left was heard, even where <|nospeech|> was likely: it goes
        # by how sure the words are, too.
        text = result["text"].strip()
        return RawTranscript(text, 0.0 if text else 1.0)


class Transcriber:
    """A scribe behind the gates. `limit` is the longest recording in seconds that it should be given."""

    def __init__(self, scribe: ASRBackend, name: str = BUNDLED, limit: float = LONGEST) -> None:
        self.scribe, self.name, self.limit = scribe, name, limit

    @classmethod
    def load(cls, name_or_path: str | Path = BUNDLED, device: str = "cpu") -> "Transcriber":
        """`whisper-scenes` (bundled), a folder like it, a released size ("base.en"; needs a network once), or a .pt.

        Raises ValueError for an unknown name, a size that cannot be downloaded, and a broken or foreign file.
        """
        name = str(name_or_path)
        path = WEIGHTS / name if (WEIGHTS / name).is_dir() else Path(name)
        path = path / "model.pt" if path.is_dir() else path
        tokens = path.with_name("tokens.json")
        if name in whisper.available_models():
            return cls(OpenAIWhisperBackend(_released(name, device)), name, limit=120.0)
        if not path.is_file():
            sizes = ", ".join(whisper.available_models())
            raise ValueError(f"no recogniser '{name}': take {BUNDLED}, a folder, a .pt file, or one of {sizes}")
        model = _checkpoint(path, device)
        if tokens.is_file():
            return cls(SmallWhisperBackend(model, ASRTokenizer.load(tokens)), path.parent.name)
        if model.dims.n_vocab < 50_000:
            raise ValueError(f"{path} writes {model.dims.n_vocab} tokens of its own but no tokens.json is beside it")
        return cls(OpenAIWhisperBackend(model), path.stem, limit=120.0)

    def transcribe(self, audio: Float[np.ndarray, " T"], spoken: bool = False) -> Transcript:
        """16 kHz samples (audio.load) -> what was said. `spoken`: a listener has already found the speech.

        Raises ValueError for audio over `limit` seconds.
        """
        if len(audio) > self.limit * RATE:
            raise ValueError(f"{len(audio) / RATE:.0f} s of audio, {self.name} takes {self.limit:.0f} s: cut it first")
        if (level := loudest_dbfs(audio)) < QUIET:
            return _nothing(f"only silence was recorded ({level:.0f} dB, speech is over {QUIET:.0f}): is the mic on?")
        unsure = not spoken or len(audio) > self.scribe.reach  # too long for the model: cut where nobody speaks
        chances = VoiceActivityDetector().probabilities(audio) if unsure else np.zeros(0, np.float32)
        found = [(0, len(audio))] if spoken else speech_spans(chances)
        if not found:
            return _nothing("nobody speaks in this recording, there is only noise: speak closer to the microphone")
        drafts = [
            self.scribe.transcribe(audio[start:stop]) for start, stop in split_long(found, chances, self.scribe.reach)
        ]
        text = " ".join(draft.text for draft in drafts if draft.text and draft.no_speech < 0.5)
        if not text:
            return _nothing("there was a sound but no words in it that could be made out: say it again")
        return Transcript(text, tuple(text.split()), no_speech=False, reason="")


def split_long(found: list[tuple[int, int]], chances: Float[np.ndarray, " N"], reach: int) -> list[tuple[int, int]]:
    """Spans of speech joined while they fit into `reach` samples together; a longer one is cut where it is least sure
    of being speech, in the second half of what fits."""
    joined: list[tuple[int, int]] = []
    for start, stop in found:
        if joined and stop - joined[-1][0] <= reach:
            joined[-1] = (joined[-1][0], stop)
            continue
        while stop - start > reach:
            low, high = (start + reach // 2) // CHUNK + 1, (start + reach) // CHUNK
            cut = (low + int(chances[low:high].argmin())) * CHUNK
            joined.append((start, cut))
            start = cut
        joined.append((start, stop))
    return joined


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
