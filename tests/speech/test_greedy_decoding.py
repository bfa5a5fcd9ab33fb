"""speech.greedy_decoding: whisper's own greedy decoding, loops that end, hypotheses that change nothing."""

import numpy as np
import pytest
import torch
import whisper
from whisper_stand_ins import MULTILINGUAL, random_whisper

from speech.audio import RATE
from speech.greedy_decoding import DecodingContext, GreedyDecoder, compression_ratio, encode_window, looping, repetition

SOUND = np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32)


@pytest.fixture(scope="module")
def decoder() -> GreedyDecoder:
    return GreedyDecoder(random_whisper(), windows=(3.0, 30.0))


def test_it_is_whispers_own_greedy_decoding():
    model = random_whisper()
    decoder = GreedyDecoder(model)
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(SOUND))
    options = whisper.DecodingOptions(language="en", without_timestamps=True, fp16=False, sample_len=12)
    theirs = whisper.decode(model, mel, options)
    ours = decoder.decode(decoder.encode(SOUND), seconds=0.0)
    assert len(ours.tokens) > 3
    assert list(ours.tokens) == theirs.tokens[: len(ours.tokens)]
    assert np.isclose(ours.no_speech, theirs.no_speech_prob, rtol=1e-3)


def test_a_window_is_the_shortest_that_holds_the_sound(decoder):
    assert decoder.encode(SOUND).shape == (1, 150, 64)
    assert decoder.encode(np.tile(SOUND, 2)).shape == (1, 1500, 64)
    assert decoder.encode(np.tile(SOUND, 20)).shape == (1, 1500, 64), "what is longer is cut"
    with pytest.raises(ValueError, match="40 s is longer than the model's 30 s"):
        GreedyDecoder(decoder.model, (40.0,))


def test_an_earlier_hypothesis_changes_nothing_but_the_time(decoder):
    states = decoder.encode(SOUND)
    plain = decoder.decode(states, 1.0)
    half, other = plain.tokens[: len(plain.tokens) // 2], tuple(reversed(plain.tokens))
    for guess in (plain.tokens, half, other, (*plain.tokens, 11, 12), (*half, 13, 14)):
        again = decoder.decode(states, 1.0, guess=guess)
        assert again.tokens == plain.tokens and np.isclose(again.log_prob, plain.log_prob, rtol=1e-3)
    assert not decoder.model.decoder.blocks[0].attn.key._forward_hooks


def test_a_prompt_is_no_part_of_the_text(decoder):
    states = decoder.encode(SOUND)
    assert (
        decoder.decode(states, 1.0, DecodingContext(prompt="a picture of a cat")).no_speech
        != decoder.decode(states, 1.0).no_speech
    )


def test_a_loop_is_found_once_it_has_come_three_times():
    assert looping([1, 2, 3, 4]) == 0 and looping([7, 7, 7]) == 0
    assert looping([1, 2, 3, 2, 3]) == 0
    assert looping([1, 2, 3, 2, 3, 2, 3]) == 4, "the first time stays"
    assert looping([5] * 6) == 5
    assert looping([*range(20)] * 3) == 40, "a whole sentence"


def test_what_is_said_once_more_at_the_limit_of_tokens_is_dropped():
    sentence = [*range(12)]
    assert repetition([99, *sentence, *sentence, 0, 1, 2]) == 15, "the first time stays"
    assert repetition(sentence * 2) == 12 and repetition([*sentence, 0, 1, 2]) == 0
    assert repetition([1, 2, 1, 2]) == 0 and repetition([1, 2] * 3) == 4 and repetition([]) == 0


def test_repetition_compresses():
    assert compression_ratio("") == 1.0 and compression_ratio("two cats on the beach") < 1.2
    assert compression_ratio("two cats " * 20) > 2.4


def test_a_multilingual_model_takes_a_language_or_finds_one():
    decoder = GreedyDecoder(random_whisper(MULTILINGUAL), windows=(3.0,))
    states = decoder.encode(SOUND)
    german = decoder.decode(states, 0.0, DecodingContext("de"))
    assert german.language == "de"
    english = decoder.decode(states, 0.0, DecodingContext("de", "translate"))
    assert english.no_speech == german.no_speech and english.log_prob != german.log_prob
    assert decoder.decode(states, 0.0, DecodingContext("auto")).language in whisper.tokenizer.LANGUAGES
    for wrong in (("klingon", "transcribe"), ("en", "sing")):
        with pytest.raises(ValueError, match=wrong[0] if wrong[0] != "en" else wrong[1]):
            DecodingContext(*wrong)


@torch.inference_mode()
def test_every_window_up_to_the_models_own_is_encoded_as_whisper_does(decoder):
    mel = torch.randn(1, 80, 3000)
    assert torch.allclose(encode_window(decoder.model.encoder, mel), decoder.model.encoder(mel), atol=1e-5)
