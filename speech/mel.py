"""From samples to what the bundled Whisper's decoder attends to, at the sound's own length and half the positions.

whisper's AudioEncoder.forward accepts one length only (30 s in the released models): three spoken seconds would cost
as much as thirty. Calling its submodules with the first rows of the position table is the same function without the
padding (sinusoids do not depend on the length), and needs no change in whisper.
Frames enter in pairs, two times 80 bands as 160, so that a position is 40 ms and not 20: all that the spectrogram
holds at half the cost. The bundled model is trained so; released models never come here.

Axes: B batch, T samples at 16 kHz, M = 160 values of a frame pair, F frame pairs (20 ms), P positions (40 ms), D width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from whisper.audio import HOP_LENGTH, N_FFT, mel_filters
from whisper.model import Whisper

BANDS = 80
PAIR = 2 * BANDS
POSITION = 4 * HOP_LENGTH  # samples


def log_mel(samples: Float[Tensor, "*B T"]) -> Float[Tensor, "*B M F"]:
    """Whisper's log-mel spectrogram in pairs of frames, F = ceil((T // 160) / 2), moved so that the loudest point is 1
    and what is 80 dB below it -1.

    So loudness cannot matter: a soft speaker looks like a loud one. (Whether anybody speaks is asked before.)
    Written again for batches, since whisper's takes one maximum for all rows, and because |z|^2 from its parts costs
    a third of `abs()` and a square.
    """
    window = torch.hann_window(N_FFT, device=samples.device)
    spectrum = torch.stft(samples, N_FFT, HOP_LENGTH, window=window, return_complex=True)[..., :-1]
    power = torch.addcmul(spectrum.real * spectrum.real, spectrum.imag, spectrum.imag)
    mel = (mel_filters(samples.device, BANDS) @ power).clamp(min=1e-10).log10()
    mel = (mel - mel.amax((-2, -1), keepdim=True)).clamp(min=-8.0) / 4 + 1
    mel = F.pad(mel, (0, mel.shape[-1] % 2), value=-1.0)
    return torch.cat([mel[..., 0::2], mel[..., 1::2]], dim=-2)


def longest(model: Whisper) -> int:
    """Samples that the position table covers."""
    return model.dims.n_audio_ctx * POSITION


def encode_mel(model: Whisper, mel: Float[Tensor, "B M F"]) -> Float[Tensor, "B P D"]:
    """AudioEncoder.forward for F <= 2 n_audio_ctx frames; P = ceil(F / 2)."""
    encoder = model.encoder
    assert mel.shape[1] == model.dims.n_mels == PAIR, f"{mel.shape[1]} values a frame, not {model.dims.n_mels}"
    x = F.gelu(encoder.conv1(mel))
    x = F.gelu(encoder.conv2(x)).transpose(1, 2)
    assert x.shape[1] <= model.dims.n_audio_ctx, f"{x.shape[1]} positions, {model.dims.n_audio_ctx} fit"
    x = x.to(mel.dtype) + encoder.positional_embedding[: x.shape[1]].to(mel.dtype)  # full precision under autocast
    for block in encoder.blocks:
        x = block(x)
    return encoder.ln_post(x)
