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
from whisper.model import ModelDimensions, Whisper

from speech.audio import RATE
from speech.mel import PAIR, encode, log_mel
from speech.tokenizer import END, LETTERS, NO_SPEECH, START, ASRTokenizer
from speech.transcriber import (
    BUNDLED,
    WEIGHTS,
    OpenAIWhisperBackend,
    RawTranscript,
    SmallWhisperBackend,
    Transcriber,
    split_long,
)
from speech.vad import CHUNK
from train.asr.noise import clip
from train.asr.tts_voices import ESPEAK, HELD_OUT, Voice, speak

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


class Parrot:
    """Says the same whatever it hears."""

    def __init__(self, text: str = "two cats", no_speech: float = 0.0, reach: int = 10 * RATE) -> None:
        self.draft, self.reach, self.lengths = RawTranscript(text, no_speech), reach, []

    def transcribe(self, audio: np.ndarray) -> RawTranscript:
        self.lengths.append(len(audio))
        return self.draft


@torch.no_grad()
def test_cached_decoding_is_greedy_decoding():
    model, sound = tiny(), np.random.default_rng(0).normal(0, 0.1, RATE // 2).astype(np.float32)
    heard = encode(model, log_mel(torch.from_numpy(sound))[None])
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
    parrot = Parrot()
    transcriber = Transcriber(parrot)
    silent = transcriber.transcribe(np.zeros(RATE, np.float32))
    assert silent.no_speech and silent.text == "" and "silence" in silent.reason
    noise = transcriber.transcribe(clip(0, seed=3)[1])
    assert noise.no_speech and "noise" in noise.reason
    assert parrot.lengths == []


def test_speech_is_cut_out_and_written():
    words = speak("two cats on the beach", HELD_OUT[1], seed=0)
    parrot = Parrot("two cats")
    result = Transcriber(parrot).transcribe(np.pad(words, (2 * RATE, 2 * RATE)))
    assert (result.text, result.words, result.no_speech, result.reason) == ("two cats", ("two", "cats"), False, "")
    assert len(parrot.lengths) == 1 and parrot.lengths[0] < len(words) + RATE
    doubtful = Transcriber(Parrot(no_speech=0.9)).transcribe(words)
    assert doubtful.no_speech and doubtful.text == "" and "words" in doubtful.reason


class Released(Whisper):
    """Writes down what it is told."""

    def __init__(self, text: str, *silent: float) -> None:
        super().__init__(DIMS)
        self.result = {"text": text, "segments": [{"no_speech_prob": silence} for silence in silent]}

    def transcribe(self, audio: np.ndarray, **options: object) -> dict:
        return self.result


def test_what_a_released_recogniser_keeps_was_heard():
    """It drops a window only where silence is likely and the words are unsure."""
    sound = np.full(RATE, 0.5, np.float32)
    for model, text in ((Released(" Two cats.", 0.9), "Two cats."), (Released(""), "")):
        written = Transcriber(OpenAIWhisperBackend(model)).transcribe(sound, spoken=True)
        assert (written.text, written.no_speech) == (text, not text)


def test_spoken_says_that_a_listener_has_decided():
    parrot = Parrot()
    assert not Transcriber(parrot).transcribe(clip(0, seed=3)[1], spoken=True).no_speech
    assert Transcriber(parrot).transcribe(np.zeros(RATE, np.float32), spoken=True).no_speech  # silence stays silence


def test_too_long():
    with pytest.raises(ValueError, match="600 s of audio, whisper-scenes takes 30 s"):
        Transcriber(Parrot()).transcribe(np.ones(600 * RATE, np.float32))


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
    with pytest.raises(ValueError, match="no recogniser 'small-ish': take whisper-scenes"):
        Transcriber.load("small-ish")


def test_a_released_size_without_a_network_says_what_to_do(monkeypatch, tmp_path):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="could not be downloaded.*whisper-scenes"):
        Transcriber.load("tiny.en")


def test_the_bundled_model_hears_captions_and_ignores_noise():
    bundled = Transcriber.load()
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
    assert whisper.load_model(str(WEIGHTS / BUNDLED / "model.pt"), device="cpu").dims.n_text_layer == 2
    assert sum(path.stat().st_size for path in (WEIGHTS / BUNDLED).iterdir()) < 30e6
    for i in range(16):
        kind, sound = clip(i, seed=9)
        assert bundled.transcribe(sound).no_speech, kind
