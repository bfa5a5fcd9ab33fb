"""Greedy decoding with a released Whisper over one short window: the fast path of live speech.

whisper's own `transcribe` pads to 30 s, predicts timestamps and decodes again at rising temperatures where it is not
confident. Here sound is padded to the shortest window that holds it (`windows` in the folder's config.json), and every
token is taken once. A previous hypothesis of the same utterance is checked in one pass of the decoder: decoding goes on
from the first token that differs, so the result is that of decoding anew.

Axes: T samples at 16 kHz, P positions of 20 ms, L tokens, V vocabulary, D width.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from whisper.audio import HOP_LENGTH, log_mel_spectrogram
from whisper.model import AudioEncoder, Whisper
from whisper.tokenizer import LANGUAGES, Tokenizer, get_tokenizer

from speech.audio import RATE

TOKENS_PER_SECOND = 8  # nobody speaks faster; what exceeds it by MORE_TOKENS is a loop
MORE_TOKENS = 12
REPEATS = 3  # a phrase that comes so often in a row is a loop
PHRASE = 40  # tokens of the longest phrase that is looked for: whole sentences come again and again, too
SHORT_REPETITION = 4  # tokens; fewer may come twice where decoding stops
PROMPT_TOKENS = 100  # of the text before; the last ones count
AUTO = "auto"  # a language that is detected


@dataclass(frozen=True)
class DecodedWindow:
    """The text of one window. `log_prob`: mean natural logarithm of the probability of its tokens (whisper counts a
    text below -1 as failed); `no_speech`: probability in [0, 1]; `compression`: length of the text over its length
    after zlib (over 2.4 it repeats itself)."""

    text: str
    tokens: tuple[int, ...]
    log_prob: float
    no_speech: float
    compression: float
    language: str


@dataclass(frozen=True)
class DecodingContext:
    """What is spoken and what is written.

    language  a code of Whisper's such as "de", or "auto"; models for English only take no notice
    task      "transcribe", or "translate" into English; models for English only take no notice
    prompt    text that comes before, which biases towards its words and its style
    """

    language: str = "en"
    task: str = "transcribe"
    prompt: str = ""

    def __post_init__(self) -> None:
        if self.language != AUTO and self.language not in LANGUAGES:
            raise ValueError(f"language {self.language!r} is none that Whisper knows: give a code such as en, or auto")
        if self.task not in ("transcribe", "translate"):
            raise ValueError(f"task {self.task!r} is neither transcribe nor translate")


class GreedyDecoder:
    """A Whisper and what its greedy decoding needs. Not for several threads at once: the cache hangs on the model."""

    def __init__(self, model: Whisper, windows: Sequence[float] = (30.0,)) -> None:
        self.model = model.eval()
        self.windows = tuple(round(seconds * RATE) for seconds in windows)
        most = model.dims.n_audio_ctx * 2 * HOP_LENGTH
        if max(self.windows) > most:
            raise ValueError(f"a window of {max(windows):g} s is longer than the model's {most / RATE:g} s")
        tokenizer = self.tokenizer("en", "transcribe")
        self.suppressed = torch.zeros(model.dims.n_vocab, dtype=torch.bool)
        self.suppressed[_never(tokenizer)] = True
        self.blank = torch.zeros_like(self.suppressed)
        self.blank[[*tokenizer.encode(" "), tokenizer.eot]] = True

    @property
    def reach(self) -> int:
        """Samples of the longest window."""
        return max(self.windows)

    def tokenizer(self, language: str, task: str) -> Tokenizer:
        multilingual, count = self.model.is_multilingual, self.model.num_languages
        if not multilingual:
            return get_tokenizer(False, num_languages=count)
        return get_tokenizer(True, num_languages=count, language=language, task=task)

    @torch.inference_mode()
    def encode(self, audio: Float[np.ndarray, " T"]) -> Float[Tensor, "1 P D"]:
        """Encoder states of the shortest window that holds the sound; what is longer than the longest is cut."""
        count = next((window for window in self.windows if window >= len(audio)), self.reach)
        samples = torch.zeros(count)
        samples[: min(count, len(audio))] = torch.from_numpy(np.ascontiguousarray(audio[:count], np.float32))
        mel = log_mel_spectrogram(samples.to(self.model.device), self.model.dims.n_mels)
        return encode_window(self.model.encoder, mel[None])

    @torch.inference_mode()
    def decode(
        self,
        states: Float[Tensor, "1 P D"],
        seconds: float,
        speech: DecodingContext | None = None,
        guess: Sequence[int] = (),
    ) -> DecodedWindow:
        """Text of the encoder states. `seconds` of sound bound the tokens; `guess`: tokens of an earlier hypothesis."""
        speech = speech or DecodingContext()
        language = self.detect(states) if speech.language == AUTO else speech.language
        tokenizer = self.tokenizer(language, speech.task)
        start = list(tokenizer.sot_sequence_including_notimestamps)
        prompt = speech.prompt.strip()
        before = [tokenizer.sot_prev, *tokenizer.encode(" " + prompt)[-PROMPT_TOKENS:]] if prompt else []
        most = min(round(TOKENS_PER_SECOND * seconds) + MORE_TOKENS, self.model.dims.n_text_ctx // 2)
        cache, hooks = self.model.install_kv_cache_hooks()
        try:
            prefix = [*before, *start]
            given = list(guess)[:most]
            logits = self._next(prefix + given, states, cache)
            no_speech = float(logits[len(before)].softmax(-1)[tokenizer.no_speech])
            logits = logits[len(prefix) - 1 :]
            tokens: list[int] = []
            total = 0.0
            while True:
                token, log_prob = self._choose(logits[min(len(tokens), len(logits) - 1)], not tokens)
                total += log_prob
                if token == tokenizer.eot:
                    break
                if len(tokens) >= most:
                    del tokens[len(tokens) - repetition(tokens) :]
                    break
                tokens.append(token)
                if len(tokens) <= len(given) and given[len(tokens) - 1] == token:
                    continue  # the earlier hypothesis is confirmed up to here
                if count := looping(tokens):
                    del tokens[-count:]
                    break
                if given:
                    self._forget(cache, len(prefix) + len(tokens) - 1)
                    given = []
                logits = self._next([token], states, cache)
        finally:
            for hook in hooks:
                hook.remove()
        text = tokenizer.decode(tokens).strip()
        return DecodedWindow(
            text, tuple(tokens), total / (len(tokens) + 1), no_speech, compression_ratio(text), language
        )

    def detect(self, states: Float[Tensor, "1 P D"]) -> str:
        """The code of the likeliest language."""
        if not self.model.is_multilingual:
            return "en"
        tokenizer = self.tokenizer("en", "transcribe")
        logits = self.model.decoder(torch.tensor([[tokenizer.sot]], device=self.model.device), states)[0, -1]
        likeliest = max(tokenizer.all_language_tokens, key=lambda token: float(logits[token]))
        return tokenizer.all_language_codes[tokenizer.all_language_tokens.index(likeliest)]

    def _next(self, tokens: list[int], states: Tensor, cache: dict) -> Float[Tensor, "L V"]:
        """Logits after each of the tokens, which follow those in the cache."""
        return self.model.decoder(torch.tensor([tokens], device=self.model.device), states, kv_cache=cache)[0]

    def _choose(self, logits: Float[Tensor, " V"], first: bool) -> tuple[int, float]:
        device = logits.device
        allowed = logits.masked_fill(self.suppressed.to(device), -torch.inf)
        if first:
            allowed = allowed.masked_fill(self.blank.to(device), -torch.inf)
        token = int(allowed.argmax())
        return token, float(allowed[token] - allowed.logsumexp(-1))

    def _forget(self, cache: dict, length: int) -> None:
        """Shorten the cached keys and values of the decoder's self-attention to so many tokens."""
        for block in self.model.decoder.blocks:
            for module in (block.attn.key, block.attn.value):
                cache[module] = cache[module][:, :length]


def encode_window(encoder: AudioEncoder, mel: Float[Tensor, "B M F"]) -> Float[Tensor, "B P D"]:
    """AudioEncoder.forward for F = 2 P frames up to the model's own length: the first rows of the position table.

    A released Whisper was trained only for 30 s; shorter windows of 10 s cost tiny.en half a point of WER.
    """
    x = F.gelu(encoder.conv1(mel))
    x = F.gelu(encoder.conv2(x)).transpose(1, 2)
    x = (x + encoder.positional_embedding[: x.shape[1]]).to(x.dtype)
    for block in encoder.blocks:
        x = block(x)
    return encoder.ln_post(x)


def looping(tokens: Sequence[int]) -> int:
    """How many tokens at the end are repetitions of what stands before them, once a phrase has come REPEATS times in a
    row; 0 while there is no loop. A single token must come twice as often: people say "very very very"."""
    for length in range(1, PHRASE + 1):
        repeats = REPEATS if length > 1 else 2 * REPEATS
        if len(tokens) < length * repeats:
            break
        phrase = tuple(tokens[-length:])
        if all(tuple(tokens[-length * (i + 1) : len(tokens) - length * i]) == phrase for i in range(repeats)):
            return length * (repeats - 1)
    return 0


def repetition(tokens: Sequence[int]) -> int:
    """How many tokens at the end say once more what stands before them; 0 for fewer than SHORT_REPETITION. For tokens
    that came to their limit, where a phrase need not be said three times to be a loop, and its last time may be cut."""
    for period in range(1, len(tokens) // 2 + 1):
        count = 0
        while count < len(tokens) - period and tokens[-1 - count] == tokens[-1 - count - period]:
            count += 1
        if count >= max(period, SHORT_REPETITION):
            return count
    return 0


def compression_ratio(text: str) -> float:
    """Bytes of the text over its bytes after zlib; 1 for an empty text."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 1.0


def _never(tokenizer: Tokenizer) -> list[int]:
    """Tokens that are no speech: symbols such as brackets and notes, and all special ones but the end."""
    special = range(tokenizer.eot + 1, tokenizer.timestamp_begin)
    timestamps = range(tokenizer.timestamp_begin, tokenizer.encoding.n_vocab)
    return sorted({*tokenizer.non_speech_tokens, *special, *timestamps})
