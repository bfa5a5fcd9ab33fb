"""train.asr.tts_voices: every program speaks, repeatably; training, held-out and foreign voices are apart."""

import numpy as np
import pytest

from train.asr.tts_voices import (
    ESPEAK,
    FESTIVAL,
    FLITE,
    FOREIGN,
    HELD_OUT,
    TRAINING,
    UtteranceSpec,
    Voice,
    speak,
    speak_all,
)


@pytest.mark.parametrize("voice", [TRAINING[3], HELD_OUT[0], *FOREIGN], ids=str)
def test_every_program_speaks_and_repeats_itself(voice: Voice):
    sound = speak("a red apple", voice, seed=4)
    assert sound.dtype == np.float32 and 0.4 < len(sound) / 16_000 < 3
    assert abs(np.abs(sound).max() - 0.5) < 1e-3
    assert np.array_equal(sound, speak("a red apple", voice, seed=4))
    if "hts" not in voice.name:  # that voice has a pace of its own
        assert len(speak("a red apple", voice, seed=5)) != len(sound)


def test_many_lines_come_in_order_from_one_process():
    texts = ["an owl", "three balloons in the sky", "an owl"]
    for voice in FOREIGN:
        first, second, third = speak_all([UtteranceSpec(text, voice, seed=1) for text in texts])
        assert np.array_equal(first, third) and len(second) > len(first)


def test_voices_are_apart():
    assert not set(TRAINING) & set(HELD_OUT)
    assert FESTIVAL not in {voice.synthesiser for voice in (*TRAINING, *HELD_OUT)}
    assert {voice.synthesiser for voice in TRAINING} == {ESPEAK, FLITE}
    heard = {voice.name.split("+")[-1] for voice in TRAINING}
    assert not heard & {voice.name.split("+")[-1] for voice in HELD_OUT}


def test_only_words_are_spoken():
    for text in ("", "3 cats", "Cats", 'a "cat"', "a cat)"):
        with pytest.raises(ValueError, match="lower-case words"):
            speak(text, TRAINING[0], seed=0)


def test_a_missing_program_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="espeak-ng is not installed"):
        speak("a cat", TRAINING[0], seed=0)
