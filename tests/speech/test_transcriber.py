"""speech.transcriber: three gates before the words, decoding that agrees with whisper's forward pass, clear errors.

Most tests use a tiny model with random weights: what it writes is nonsense, how it is called is not.
"""

import math
import urllib.error
from dataclasses import asdict

import numpy as np
import pytest
import torch
import whisper
from fixed_backend import FixedBackend
from whisper.model import ModelDimensions, Whisper

from maskgil.model_folder import weights_folder
from speech.audio import RATE
from speech.mel import PAIR, encode_mel, log_mel
from speech.tokenizer import END, LETTERS, NO_SPEECH, START, ASRTokenizer
from speech.transcriber import (
    BUNDLED,
    SMALLEST,
    RawTranscript,
    SmallWhisperBackend,
    Transcriber,
    split_long,
    spoken_words,
)
from speech.vad import CHUNK
from train.asr.noise import noise_clip
from train.asr.tts_voices import ESPEAK, FLITE, HELD_OUT, Voice, speak

VOCABULARY = ASRTokenizer([*LETTERS, " cat", " two"])
DIMS = ModelDimensions(
    n_mels=PAIR, n_audio_ctx=25, n_audio_state=16, n_audio_head=2, n_audio_layer=1,
    n_vocab=len(VOCABULARY), n_text_ctx=8, n_text_state=16, n_text_head=2, n_text_layer=1,
)  # fmt: skip


def tiny(seed: int = 0) -> Whisper:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Whisper(DIMS).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def saved(model: Whisper, folder) -> None:
    folder.mkdir(exist_ok=True)
    torch.save({"dims": asdict(model.dims), "model_state_dict": model.state_dict()}, folder / "model.pt")
    VOCABULARY.save(folder / "tokens.json")


@torch.no_grad()
def test_cached_decoding_is_greedy_decoding():
    model, sound = tiny(), np.random.default_rng(0).normal(0, 0.1, RATE // 2).astype(np.float32)
    heard = encode_mel(model, log_mel(torch.from_numpy(sound))[None])
    ids = [START]
    while len(ids) <= model.dims.n_text_ctx:
        logits = model.decoder(torch.tensor([ids]), heard)[0, -1]
        if len(ids) == 1:
            silent = float(logits.softmax(-1)[NO_SPEECH])
        logits[[START, NO_SPEECH]] = -math.inf
        if (token := int(logits.argmax())) == END:
            break
        ids.append(token)
    scribe = SmallWhisperBackend(model, VOCABULARY)
    for _ in range(2):  # the cache of the first call must not reach the second
        draft = scribe.transcribe(sound)
        assert draft.text == VOCABULARY.decode(ids) and math.isclose(draft.no_speech, silent, rel_tol=1e-4)
    assert not model.decoder.blocks[0].attn.key._forward_hooks


def test_silence_and_noise_reach_no_model():
    backend = FixedBackend()
    transcriber = Transcriber(backend)
    silent = transcriber.transcribe(np.zeros(RATE, np.float32))
    assert silent.no_speech and silent.text == "" and "silence" in silent.reason
    noise = transcriber.transcribe(noise_clip(0, seed=3)[1])
    assert noise.no_speech and "noise" in noise.reason
    assert backend.lengths == []


def test_speech_is_cut_out_and_written():
    words = speak("two cats on the beach", HELD_OUT[1], seed=0)
    backend = FixedBackend("two cats")
    result = Transcriber(backend).transcribe(np.pad(words, (2 * RATE, 2 * RATE)))
    assert (result.text, result.words, result.no_speech, result.reason) == ("two cats", ("two", "cats"), False, "")
    assert len(backend.lengths) == 1 and backend.lengths[0] < len(words) + RATE
    doubtful = Transcriber(FixedBackend(no_speech=0.9)).transcribe(words)
    assert doubtful.no_speech and doubtful.text == "" and "words" in doubtful.reason


def test_words_are_judged_by_their_probabilities():
    """Released models think silence likely even of clear speech: their words must be unsure, too."""
    sound = np.full(RATE, 0.5, np.float32)
    for draft, no_speech, understood in (
        (RawTranscript("Two cats.", 0.9, log_prob=-0.2), False, True),
        (RawTranscript("Two cats.", 0.9, log_prob=-0.8), True, True),
        (RawTranscript("You make all the number sketch.", 0.1, log_prob=-1.3), False, False),
        (RawTranscript("cats " * 30, 0.1, log_prob=-0.1, compression=9.0), False, False),
        (RawTranscript("", 0.1, log_prob=-0.1), True, True),
    ):
        backend = FixedBackend()
        backend.draft = draft
        written = Transcriber(backend).transcribe(sound, spoken=True)
        assert (written.no_speech, written.understood) == (no_speech, understood), draft
        assert bool(written.reason) == (no_speech or not understood)


def test_words_are_those_that_were_said():
    assert spoken_words("2 cats, on the Beach!") == ("two", "cats", "on", "the", "beach")
    assert spoken_words("It’s 3D. 13 Bäume?") == ("it's", "3d", "13", "bäume")


def test_a_recognizer_that_stops_at_pauses_is_given_one_stretch_at_a_time():
    words = speak("two cats on the beach", HELD_OUT[1], seed=0)
    sound = np.concatenate([words, np.zeros(RATE, np.float32), words])
    backend = FixedBackend()
    assert Transcriber(backend).transcribe(sound, spoken=True).text == "two cats" and len(backend.lengths) == 1
    backend = FixedBackend()
    backend.hears_pauses = False
    assert Transcriber(backend).transcribe(sound, spoken=True).text == "two cats two cats"


def test_spoken_says_that_a_listener_has_decided():
    backend = FixedBackend()
    assert not Transcriber(backend).transcribe(noise_clip(0, seed=3)[1], spoken=True).no_speech
    assert Transcriber(backend).transcribe(np.zeros(RATE, np.float32), spoken=True).no_speech  # silence stays silence


def test_too_long():
    with pytest.raises(ValueError, match="600 s of audio, whisper-tiny-en takes 30 s"):
        Transcriber(FixedBackend()).transcribe(np.ones(600 * RATE, np.float32))


def test_pieces_fit_and_lose_nothing():
    chances = np.ones(1000, np.float32)
    chances[700] = 0.1
    reach = 500 * CHUNK
    assert split_long([(0, 10), (20, 30)], chances, reach) == [(0, 30)]
    assert split_long([(0, 400 * CHUNK), (450 * CHUNK, 600 * CHUNK)], chances, reach) == [
        (0, 400 * CHUNK),
        (450 * CHUNK, 600 * CHUNK),
    ]
    parts = split_long([(300 * CHUNK, 1000 * CHUNK)], chances, reach)
    assert parts == [(300 * CHUNK, 700 * CHUNK), (700 * CHUNK, 1000 * CHUNK)]  # where it is least sure
    assert all(
        stop - start <= reach for start, stop in split_long([(0, 1000 * CHUNK)], np.ones(1000, np.float32), reach)
    )


def test_loading_a_folder_and_a_released_file(tmp_path):
    saved(tiny(), tmp_path / "own")
    for name in (tmp_path / "own", str(tmp_path / "own" / "model.pt")):
        assert isinstance(Transcriber.load(name).scribe, SmallWhisperBackend)
    assert whisper.load_model(str(tmp_path / "own" / "model.pt"), device="cpu").dims.n_audio_state == 16


def test_broken_and_foreign_files_are_refused(tmp_path):
    saved(tiny(), tmp_path / "own")
    model, tokens = tmp_path / "own" / "model.pt", tmp_path / "own" / "tokens.json"
    whole = model.read_bytes()
    for content in (b"no pickle", whole[: len(whole) // 2], b""):
        model.write_bytes(content)
        with pytest.raises(ValueError, match="no whole Whisper checkpoint") as caught:
            Transcriber.load(tmp_path / "own")
        assert "\n" not in str(caught.value)
    torch.save({"weights": torch.zeros(3)}, model)
    with pytest.raises(ValueError, match="no whole Whisper checkpoint"):
        Transcriber.load(model)
    model.write_bytes(whole)
    ASRTokenizer([*LETTERS, " cat"]).save(tokens)
    with pytest.raises(ValueError, match="33 tokens, the vocabulary has 32"):
        Transcriber.load(model)
    tokens.unlink()
    with pytest.raises(ValueError, match="no tokens.json"):
        Transcriber.load(model)
    with pytest.raises(ValueError, match="no recognizer 'small-ish': take whisper-tiny-en, whisper-scenes"):
        Transcriber.load("small-ish")


def test_a_released_size_without_a_network_says_what_to_do(monkeypatch, tmp_path):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="could not be downloaded.*whisper-tiny-en"):
        Transcriber.load("tiny.en")


def test_the_smallest_model_hears_captions_and_ignores_noise():
    bundled = Transcriber.load(weights_folder() / SMALLEST)
    voice = Voice(ESPEAK, "en-us")
    said = ["two cats on the beach", "a red apple", "a fox to the left of a castle", "three balloons in the sky"]
    right = 0
    for i, text in enumerate(said):
        sound = np.pad(speak(text, voice, seed=i), RATE // 2)
        for loudness in (1.0, 0.05):
            written = bundled.transcribe(loudness * sound)
            right += written.words == tuple(text.split())
            assert not written.no_speech
    assert right >= 6  # of 8
    assert whisper.load_model(str(weights_folder() / SMALLEST / "model.pt"), device="cpu").dims.n_text_layer == 2
    assert sum(path.stat().st_size for path in (weights_folder() / SMALLEST).iterdir()) < 30e6
    for i in range(16):
        kind, sound = noise_clip(i, seed=9)
        assert bundled.transcribe(sound).no_speech, kind


def test_the_bundled_model_hears_sentences_and_ignores_noise():
    bundled = Transcriber.load(weights_folder() / BUNDLED)
    said = ["two cats on the beach", "a red apple", "three balloons in the sky"]
    sounds = [np.pad(speak(text, Voice(FLITE, "slt"), seed=i), RATE // 2) for i, text in enumerate(said)]
    right = sum(
        bundled.transcribe(sound).words == tuple(text.split()) for text, sound in zip(said, sounds, strict=True)
    )
    assert right >= 2
    assert all(bundled.transcribe(noise_clip(i, seed=9)[1]).no_speech for i in range(8))
    first = bundled.transcribe(sounds[0], spoken=True)
    assert bundled.transcribe(sounds[0], spoken=True, guess=first.tokens).text == first.text
