"""train.asr.augment: what each disturbance may change and what it must leave."""

import numpy as np
import torch

from speech.audio import RATE
from speech.mel import BANDS, PAIR
from train.asr.augment import cut, disturb, fit, mask, mix, room, speed, warp

TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_speed_changes_pitch_and_length_together():
    for seed in range(5):
        quick = speed(TONE, draw(seed))
        hertz = np.abs(np.fft.rfft(quick)).argmax() * RATE / len(quick)
        assert abs(hertz * len(quick) / RATE - 440) < 3 and abs(len(quick) / RATE - 1) < 0.2


def test_noise_comes_in_at_its_ratio():
    noise = draw(1).standard_normal(100).astype(np.float32)
    for ratio in (0.0, 20.0):
        added = mix(TONE, noise, ratio) - TONE
        assert abs(10 * np.log10(np.square(TONE).mean() / np.square(added).mean()) - ratio) < 0.1


def test_lengths():
    assert len(room(TONE, draw())) == len(TONE) == len(disturb(TONE, draw(), [TONE]))
    assert len(fit(TONE, RATE + 7, draw())) == RATE + 7 and len(fit(TONE, RATE, draw())) == RATE
    assert len(cut(TONE, 10, draw())) == 10 and len(cut(TONE, 3 * RATE, draw())) == 3 * RATE


def test_disturbed_sound_is_finite_and_within_full_scale():
    for seed in range(20):
        sound = disturb(TONE, draw(seed), [TONE, np.zeros(RATE, np.float32)])
        assert np.isfinite(sound).all() and 0.09 < np.abs(sound).max() <= 1.001
        assert np.array_equal(sound, disturb(TONE, draw(seed), [TONE, np.zeros(RATE, np.float32)]))


def test_warp_moves_bands_alike_in_both_frames_of_a_pair():
    mel = torch.full((PAIR, 4), -1.0)
    mel[[40, 40 + BANDS]] = 1.0
    places = set()
    for seed in range(8):
        warped = mel.clone()
        warp(warped, draw(seed))
        assert torch.equal(warped[:BANDS], warped[BANDS:]) and warped.abs().max() <= 1
        places.add(int(warped[:BANDS, 0].argmax()))
    assert len(places) > 3 and all(35 <= place <= 46 for place in places)


def test_mask_only_silences():
    mel = torch.rand(PAIR, 50)
    masked = mel.clone()
    mask(masked, draw(3))
    changed = masked != mel
    assert (masked[changed] == -1).all() and 0 < changed.float().mean() < 0.5
