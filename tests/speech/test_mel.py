"""speech.mel: whisper's own spectrogram and whisper's own encoder, for any length."""

import pytest
import torch
import whisper
from whisper.model import ModelDimensions, Whisper

from speech.mel import BANDS, PAIR, POSITION, encode_mel, log_mel, longest

DIMS = ModelDimensions(
    n_mels=PAIR, n_audio_ctx=25, n_audio_state=16, n_audio_head=2, n_audio_layer=2,
    n_vocab=40, n_text_ctx=8, n_text_state=16, n_text_head=2, n_text_layer=1,
)  # fmt: skip


def test_spectrogram_is_whispers_in_pairs_levelled():
    samples = torch.randn(2, 3200, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.1], [0.001]])
    pairs = log_mel(samples)
    assert pairs.shape == (2, PAIR, 10)
    for ours, wave in zip(pairs, samples, strict=True):
        theirs = whisper.log_mel_spectrogram(wave)
        theirs = theirs - theirs.max() + 1
        assert torch.allclose(ours[:BANDS], theirs[:, 0::2], atol=1e-5)
        assert torch.allclose(ours[BANDS:], theirs[:, 1::2], atol=1e-5)


def test_loudness_does_not_matter():
    wave = torch.randn(4800, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(log_mel(wave), log_mel(0.01 * wave), atol=1e-4)


@torch.no_grad()
def test_full_length_is_whispers_own_encoder_and_less_is_allowed():
    model = Whisper(DIMS).eval()
    mel = torch.randn(2, PAIR, 2 * DIMS.n_audio_ctx)
    assert torch.allclose(encode_mel(model, mel), model.encoder(mel), atol=1e-5)
    assert encode_mel(model, mel[..., :13]).shape == (2, 7, 16)
    assert longest(model) == 25 * POSITION
    with pytest.raises(AssertionError):
        encode_mel(model, torch.randn(1, PAIR, 2 * DIMS.n_audio_ctx + 2))
