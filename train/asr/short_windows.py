"""Tunes a released Whisper's encoder so that short windows give the same states as within 30 seconds.

A released Whisper was trained on sound padded to 30 s; over shorter windows its errors grow. The encoder is tuned so
that its states over a short window equal those that the untouched encoder has over 30 s of the same sound (squared
distance, as FUTO's whisper-acft does, MIT, github.com/futo-org/whisper-acft). No transcript is needed; the decoder
stays as it is.

Axes: B recordings, M mel bands, F frames of 10 ms, P positions of 20 ms, D width, T samples at 16 kHz.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from whisper.audio import HOP_LENGTH, log_mel_spectrogram
from whisper.model import Whisper

from maskgil.model_folder import bundled_or_given
from speech import audio
from speech.audio import RATE
from speech.greedy_decoding import encode_window
from speech.whisper_folder import load_whisper, save_whisper
from train.optim import OptimConfig
from train.recipe import OptimizedModule, Recipe, SumAndCount

RECORDINGS = (".flac", ".wav", ".mp3", ".ogg", ".opus", ".m4a", ".webm")
SHORTEST = 0.5  # seconds of a piece


class TunedEncoder(nn.Module):
    """A Whisper of which only the encoder is trained."""

    def __init__(self, model: Whisper) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, mel: Float[Tensor, "B M F"]) -> Float[Tensor, "B P D"]:
        return encode_window(self.encoder, mel)


class WindowStatesLoss:
    """Mean squared distance of the states over a window to those of `teacher` over its full length."""

    def __init__(self, teacher: Whisper) -> None:
        self.teacher = teacher.eval().requires_grad_(False)

    def __call__(self, modules: Sequence[nn.Module], batch: dict, generator: torch.Generator, step: int) -> tuple:
        mel, frames = batch["mel"], int(batch["frames"])
        self.teacher.to(mel.device)
        with torch.no_grad():
            wanted = encode_window(self.teacher.encoder, mel)[:, : frames // 2]
        distance = (modules[0](mel[..., :frames]) - wanted).float().square()
        return SumAndCount(distance.sum(), torch.tensor(distance.numel())), {"frames": frames}


@dataclass(frozen=True)
class RecordedWindows:
    """Batch number -> {"mel": (B, M, F) of pieces of recordings, padded to the full length, "frames": of the window}.

    Each batch has one of `windows` (seconds), in turn; its pieces are at most so long. `held_out`: recordings whose
    names begin so are left out.
    """

    folder: str
    windows: tuple[float, ...]
    full: float
    mels: int
    batch: int
    held_out: tuple[str, ...] = ()
    seed: int = 0

    def __call__(self, index: int) -> dict[str, Tensor]:
        window = self.windows[index % len(self.windows)]
        draw = np.random.default_rng((self.seed, index))
        files = recordings(self.folder, self.held_out)
        pieces = [self._piece(files[int(draw.integers(len(files)))], window, draw) for _ in range(self.batch)]
        mel = torch.stack([log_mel_spectrogram(torch.from_numpy(piece), self.mels) for piece in pieces])
        return {"mel": mel, "frames": torch.tensor(round(window * RATE) // HOP_LENGTH // 2 * 2)}

    def _piece(self, path: Path, window: float, draw: np.random.Generator) -> Float[np.ndarray, " T"]:
        """Some of a recording, no longer than the window, at the start of the full length."""
        sound = audio.load_audio(path, longest=600.0)
        count = min(len(sound), round(draw.uniform(SHORTEST, window) * RATE))
        start = int(draw.integers(len(sound) - count + 1))
        padded = np.zeros(round(self.full * RATE), np.float32)
        padded[:count] = sound[start : start + count]
        return padded


@cache
def recordings(folder: str, held_out: tuple[str, ...] = ()) -> tuple[Path, ...]:
    """The recordings below a folder, in order of their paths. ValueError where there are none."""
    found = tuple(
        path
        for path in sorted(Path(folder).rglob("*"))
        if path.suffix.lower() in RECORDINGS and not path.name.startswith(held_out or ("\0",))
    )
    if not found:
        raise ValueError(f"{folder} holds no recordings ({', '.join(RECORDINGS)}): give a folder of speech")
    return found


def checked_windows(windows: tuple[float, ...], longest: float) -> tuple[float, ...]:
    """The windows in order. ValueError for none, and for one that is not from 1 to `longest` seconds."""
    windows = tuple(sorted(windows))
    if not windows or windows[0] < 1 or windows[-1] > longest:
        raise ValueError(f"windows are {windows}: give seconds from 1 to {longest:g}")
    return windows


def window_recipe(
    folder: str, init: str, windows: tuple[float, ...], steps: int, batch: int, lr: float, held_out: tuple[str, ...]
) -> Recipe:
    """The recipe whose export is `init` with a tuned encoder and these windows before its own."""
    place = Path(bundled_or_given(init))
    teacher, own = load_whisper(place)
    model, _ = load_whisper(place)
    full = own[-1]
    windows = checked_windows(windows, full)
    recordings(folder, held_out)
    student = TunedEncoder(model)

    def export(average: nn.Module, out: Path) -> None:
        assert isinstance(average, TunedEncoder)
        model.encoder.load_state_dict(average.encoder.state_dict())
        names = ", ".join(held_out) or "none"
        card = (
            f"# {out.name}\n\nThe Whisper of `{init}` with its encoder tuned to windows of "
            f"{', '.join(f'{w:g}' for w in windows)} s by `maskgil train whisper-windows` ({steps:,} steps of {batch} "
            f"recordings). Recordings held out of training: names that begin with {names}. The license is that of "
            f"`{init}`.\n"
        )
        save_whisper(out, model, sorted({*windows, *own}), card, source=f"{init}, encoder tuned to short windows")

    return Recipe(
        name="whisper-windows",
        steps=steps,
        modules=(
            OptimizedModule(student, WindowStatesLoss(teacher), OptimConfig(lr=lr, warmup=min(100, steps // 10))),
        ),
        batch_at=RecordedWindows(folder, windows, full, teacher.dims.n_mels, batch, held_out),
        ema=0.99,
        save_every=200,
        sample_every=0,
        export=export,
    )
