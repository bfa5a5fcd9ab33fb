"""Tunes a released Whisper to the sentences of the scenes, to spoken commands and to short windows of sound.

All weights but the token embedding learn, by the cross-entropy of the words. Each batch has one of the windows and
holds only sound that the product would give to it: longer than the window before, and no longer than this one. Windows
of 15 and 30 s need whole recordings of people: without them the model learns to end after one sentence.
What people read keeps the case and the punctuation that the released model writes, with the words of the transcript.
Noise is to give <|nospeech|>.

Axes: B pieces of sound, M mel bands, F frames of 10 ms, L tokens, V vocabulary, T samples at 16 kHz.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm
from whisper.audio import log_mel_spectrogram
from whisper.model import Whisper
from whisper.tokenizer import get_tokenizer

from maskgil.fileio import atomic_write
from maskgil.model_folder import bundled_or_given
from speech.audio import RATE
from speech.backends import OpenAIWhisperBackend
from speech.greedy_decoding import encode_window
from speech.tokenizer import normalize_transcript
from speech.whisper_folder import load_whisper, save_whisper
from train.asr.augment import disturb, speed
from train.asr.corpus import NOISE, REAL, Clip, Corpus
from train.asr.dataset import IGNORED, non_speech, padded
from train.asr.noise import bank
from train.asr.short_windows import checked_windows
from train.optim import OptimConfig
from train.recipe import OptimizedModule, Recipe, SumAndCount

TEXTS = "texts.json"  # of a corpus: what people read, with case and punctuation
OVERLAP = 0.8  # a window also learns from sound a little shorter than what it is given
BEFORE, AFTER = 0.35, 0.6  # seconds: the most silence around a piece


@dataclass(frozen=True)
class LabelledClip:
    """A clip of a corpus with its text as Whisper writes it. `real`: a person read it."""

    text: str
    clip: Clip
    real: bool


def write_texts(corpus: Corpus, folder: Path, name: str, longest: float) -> int:
    """Writes down the recordings of people in a corpus of at most `longest` seconds, with the recognizer `name`.

    Writes texts.json: {number of the clip: its transcript with the recognizer's case and punctuation}, and returns how
    many there are.
    """
    scribe = OpenAIWhisperBackend(*load_whisper(bundled_or_given(name)))
    texts = {}
    for number, clip in enumerate(tqdm(corpus.clips, desc="writing down", mininterval=5)):
        if clip.voice.startswith(REAL) and clip.stop - clip.start <= longest * RATE:
            texts[number] = corrected(scribe.transcribe(corpus.samples(clip)).text, clip.text)
    with atomic_write(folder / TEXTS) as partial:
        partial.write_text(json.dumps(texts))
    return len(texts)


def corrected(written: str, transcript: str) -> str:
    """What was written, with the transcript's words where the two differ."""
    words = written.split()
    plain = [normalize_transcript(word) for word in words]
    true, text = transcript.split(), []
    for kind, first, last, start, stop in SequenceMatcher(None, plain, true, autojunk=False).get_opcodes():
        text += words[first:last] if kind == "equal" else true[start:stop]
    return " ".join(text)


@cache
def _opened(folder: str) -> tuple[Corpus, tuple[LabelledClip, ...]]:
    """A corpus, and all that is learned from it."""
    corpus = Corpus(Path(folder))
    texts = json.loads((Path(folder) / TEXTS).read_text())
    clips = [
        LabelledClip(as_written(clip.text), clip, False)
        for clip in corpus.clips
        if not clip.voice.startswith((REAL, NOISE))
    ]
    clips += [LabelledClip(text, corpus.clips[int(number)], True) for number, text in texts.items()]
    return corpus, tuple(clips)


def as_written(text: str) -> str:
    """Spoken words as Whisper writes a sentence: "no a cat" -> "No, a cat."."""
    words = ["I" if word == "i" else word for word in text.split()]
    if words[0] == "no" and len(words) > 1:
        words[0] = "no,"
    line = " ".join(words)
    return f"{line[0].upper()}{line[1:]}."


@dataclass(frozen=True)
class TunedBatches:
    """Batch number -> {"mel": (B, M, F), "tokens": (B, L), "target": (B, L)}, padded with IGNORED in `target`.

    Each batch has one of `windows` (seconds), all as often. `real`: least share of the pieces that people
    read, which is larger where more of the clips are theirs; `silent`: share without speech.
    """

    folder: str
    windows: tuple[float, ...]
    mels: int
    languages: int
    batch: int
    real: float = 0.4
    silent: float = 0.06
    seed: int = 0

    def __call__(self, index: int) -> dict[str, Tensor]:
        corpus, clips = _opened(self.folder)
        number = int(np.random.default_rng((self.seed, index)).integers(len(self.windows)))
        count = round(self.windows[number] * RATE)
        pools = _pools(self.folder, self.windows[number], self.windows[number - 1] if number else 0.0)
        real = max(self.real, len(pools[1]) / (len(pools[0]) + len(pools[1])))  # a few clips are not drawn all the time
        tapes = [corpus.samples(clip) for clip in corpus.clips if clip.voice.startswith(NOISE)] + [bank(self.seed)]
        tokenizer = get_tokenizer(False, num_languages=self.languages)
        sounds, tokens, targets = [], [], []
        for place in range(self.batch):
            draw = np.random.default_rng((self.seed, index, place))
            pool = pools[int(draw.random() < real)] or pools[0] or pools[1]
            said = None if draw.random() < self.silent else clips[pool[int(draw.integers(len(pool)))]]
            sounds.append(self._sound(corpus, said, count, draw, tapes))
            ids = tokenizer.encode(f" {said.text}") if said else []
            tokens.append([tokenizer.sot, tokenizer.no_timestamps, *ids])
            targets.append([tokenizer.no_timestamps if said else tokenizer.no_speech, *ids, tokenizer.eot])
        mel = torch.stack([log_mel_spectrogram(torch.from_numpy(sound), self.mels) for sound in sounds])
        return {"mel": mel, "tokens": padded(tokens, tokenizer.eot), "target": padded(targets)}

    def _sound(
        self, corpus: Corpus, said: LabelledClip | None, count: int, draw: np.random.Generator, tapes: list[np.ndarray]
    ) -> Float[np.ndarray, " T"]:
        """`count` samples: the clip in another room and surroundings, and digital silence after it."""
        if said is None:
            sound = non_speech(round(draw.uniform(0.3, 1.0) * count), draw, tapes)
            return np.pad(sound, (0, count - len(sound)))
        sound = corpus.samples(said.clip)
        if draw.random() < 0.5 and len(faster := speed(sound, draw)) <= count:
            sound = faster
        room = (count - len(sound)) / RATE
        before = round(min(draw.uniform(0, BEFORE), room) * RATE)
        after = round(min(draw.uniform(0, AFTER), room - before / RATE) * RATE)
        sound = np.pad(sound, (before, after))
        if draw.random() < 0.5:
            sound = disturb(sound, draw, tapes)
        return np.pad(sound, (0, count - len(sound))).astype(np.float32)


@cache
def _pools(folder: str, window: float, before: float) -> tuple[list[int], list[int]]:
    """Numbers of the (spoken, read) clips that a window holds and the one before it does not."""
    clips = _opened(folder)[1]
    least, most = round(OVERLAP * before * RATE), round((window - 0.1) * RATE)
    fitting = [i for i, each in enumerate(clips) if least < each.clip.stop - each.clip.start <= most]
    if not fitting:
        raise ValueError(f"{folder} holds no sound of {OVERLAP * before:g} to {window:g} s: speak a larger corpus")
    return [i for i in fitting if not clips[i].real], [i for i in fitting if clips[i].real]


class TunedWhisper(nn.Module):
    """A Whisper whose token embedding stays as it is: it holds half of the weights, and most words never come up."""

    def __init__(self, model: Whisper) -> None:
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder
        self.decoder.token_embedding.weight.requires_grad_(False)

    def forward(self, mel: Float[Tensor, "B M F"], tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L V"]:
        return self.decoder(tokens, encode_window(self.encoder, mel))


class WordsLoss:
    """Cross-entropy of the next token."""

    def __call__(self, modules: Sequence[nn.Module], batch: dict, generator: torch.Generator, step: int) -> tuple:
        logits = modules[0](batch["mel"], batch["tokens"]).float()
        target = batch["target"]
        known = target != IGNORED
        total = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=IGNORED, reduction="sum")
        right = (logits.argmax(-1) == target)[known].float().mean().item()
        return SumAndCount(total, known.sum()), {"right": right, "frames": batch["mel"].shape[-1]}


def tuned_recipe(corpus: str, init: str, windows: tuple[float, ...], steps: int, batch: int, lr: float) -> Recipe:
    """The recipe whose export is `init` tuned on a corpus, with these windows before its own."""
    place = Path(bundled_or_given(init))
    model, own = load_whisper(place)
    if model.is_multilingual:
        raise ValueError(f"{init} is multilingual; this recipe teaches English: give a model for English only")
    windows = checked_windows(windows, own[-1])
    folder = Path(corpus)
    opened = Corpus(folder)
    if not (folder / TEXTS).is_file():
        write_texts(opened, folder, init, own[-1])

    def export(average: nn.Module, out: Path) -> None:
        assert isinstance(average, TunedWhisper)
        model.encoder.load_state_dict(average.encoder.state_dict())
        model.decoder.load_state_dict(average.decoder.state_dict())
        card = f"# {out.name}\n\n`{init}`, tuned by `maskgil train whisper-tuned` ({steps:,} steps of {batch}).\n"
        save_whisper(out, model, sorted({*windows, *own}), card, source=f"{init}, tuned")

    return Recipe(
        name="whisper-tuned",
        steps=steps,
        modules=(
            OptimizedModule(
                TunedWhisper(model),
                WordsLoss(),
                OptimConfig(lr=lr, betas=(0.9, 0.98), warmup=min(30, steps // 10), decay=0.6),
            ),
        ),
        batch_at=TunedBatches(corpus, windows, model.dims.n_mels, model.num_languages, batch),
        precision="no",
        ema=0.95,
        save_every=20,
        sample_every=0,
        export=export,
    )
