"""train.asr: a corpus is prepared once, batches are functions of their number, the recognizer learns and is
exported. Tiny models and six spoken sentences.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import whisper
from fixed_backend import FixedBackend
from whisper_stand_ins import random_whisper

from speech.audio import RATE
from speech.mel import PAIR
from speech.tokenizer import END, NO_SPEECH, START
from speech.transcriber import SmallWhisperBackend, Transcriber
from speech.whisper_folder import save_whisper
from train.asr import corpus as corpora
from train.asr.corpus import FITS, Corpus, CorpusPlan, otherwise, prepare, spoken_form, unseen
from train.asr.dataset import IGNORED, SILENCE, SpeechDataset, _epoch
from train.asr.model import SMALL, SmallWhisper, SmallWhisperLoss, export, recipe, vocabulary_of
from train.asr.noise import KINDS, noise_clip
from train.eval.wer import (
    PeopleOptions,
    WerResult,
    rate,
    rate_people,
    speech_report,
    transcripts,
    wer_table,
)

TINY = replace(SMALL, n_audio_state=32, n_audio_head=2, n_audio_layer=1, n_text_state=32, n_text_head=2, n_text_layer=1)
PLAN = CorpusPlan(sentences=6, general=0, flite=0.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("spoken") / "corpus"
    prepare(folder, PLAN)
    return folder


@pytest.fixture(scope="module")
def batches(folder) -> SpeechDataset:
    vocabulary, pieces = vocabulary_of(Corpus(folder))
    return SpeechDataset(str(folder), vocabulary.tokens, pieces, seconds=12.0, silent=3)


def tiny(batches: SpeechDataset) -> SmallWhisper:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallWhisper(replace(TINY, n_vocab=3 + len(batches.tokens)))


def test_a_corpus_is_spoken_once_and_whole(folder):
    corpus = Corpus(folder)
    assert len(corpus.clips) == PLAN.sentences
    assert {clip_.voice.split(":")[0] for clip_ in corpus.clips} <= {"espeak-ng", "flite"}
    assert corpus.clips[-1].stop == len(corpus.sound)
    for clip_ in corpus.clips:
        sound = corpus.samples(clip_)
        assert 0.3 * RATE < len(sound) < PLAN.longest * RATE and abs(np.abs(sound).max() - 0.5) < 1e-2
    before = (folder / "sound.npy").stat().st_mtime_ns
    assert prepare(folder, PLAN).clips == corpus.clips
    assert (folder / "sound.npy").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="holds another corpus"):
        prepare(folder, replace(PLAN, seed=1))
    with pytest.raises(ValueError, match="no spoken corpus"):
        Corpus(folder / "absent")
    assert not list(folder.parent.glob("*.partial"))


def test_what_a_corpus_lacks_is_said_before_anything_is_spoken(tmp_path, monkeypatch, capsys):
    def speak(*lines: object):
        raise AssertionError("it speaks")

    monkeypatch.setattr(corpora, "speak_all", speak)
    noise, real, full = (tmp_path / name for name in ("noise", "real", "full"))
    for place in (noise, real, full):
        place.mkdir()
    (full / "letter").write_text("mine")
    (real / "transcripts.tsv").write_text("12-3-0001\tA CAT")
    for given, complaint in (
        ({"noise": tmp_path / "typo"}, "typo holds no .wav"),
        ({"noise": noise}, "noise holds no .wav"),
        ({"real": tmp_path / "typo"}, "typo/transcripts.tsv is missing"),
        ({"real": real}, "12-3-0001.mp3 is missing"),
        ({"folder": full}, "is there already and no corpus"),
        ({"folder": full / "letter"}, "is there already and no corpus"),
    ):
        with pytest.raises(ValueError, match=complaint):
            prepare(**({"folder": tmp_path / "corpus", "plan": PLAN} | given))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "noise", "real"]
    with pytest.raises(ValueError, match="typo/transcripts.tsv is missing"):
        speech_report(real=str(tmp_path / "typo"))
    assert capsys.readouterr().out == ""


def test_a_corpus_of_other_recordings_is_another(folder, tmp_path):
    soundfile.write(tmp_path / "hum.wav", np.zeros(RATE, np.float32), RATE)
    held = json.loads((folder / "index.json").read_text())
    there = tmp_path / "corpus"
    there.mkdir()
    np.save(there / "sound.npy", np.zeros(1, np.int16))
    held["wanted"]["noise"] = str(tmp_path)
    (there / "index.json").write_text(json.dumps(held))
    assert prepare(there, PLAN, noise=tmp_path / "corpus" / "..").clips == Corpus(folder).clips
    for noise in (tmp_path / "elsewhere", None):
        with pytest.raises(ValueError, match="holds another corpus"):
            prepare(there, PLAN, noise=noise)


def test_some_sentences_say_what_people_say_and_the_grammar_does_not():
    draw = np.random.default_rng(0)
    assert {otherwise("a sailboat and two ice cream cones", draw) for _ in range(20)} == {"a sailboat and two cones"}
    assert otherwise("a sailboat on the beach", draw) == "a ship on the beach"
    assert {otherwise("an apple", draw), otherwise("a red ladybug", draw)} <= {"a fruit", "a red insect", "a red bug"}
    for kept in ("two hot dogs", "a cat on the beach", "three panda bears"):
        assert otherwise(kept, draw) == kept
    assert {otherwise("two dogs", draw) for _ in range(30)} == {"two puppies", "two doggies"}


def test_no_corpus_holds_a_sentence_of_the_tests(folder):
    assert not {clip_.text for clip_ in Corpus(folder).clips} & set(unseen(PLAN.tests))
    assert spoken_form("A fox in 3D!") == "a fox in three d"


def test_a_batch_is_a_function_of_its_number(batches):
    first, again, other = batches(0), batches(0), batches(1)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert first["mel"].shape != other["mel"].shape or not torch.equal(first["mel"], other["mel"])
    _, band, frames = first["mel"].shape
    assert band == PAIR and frames * len(first["mel"]) / 50 < 1.6 * batches.seconds
    assert (first["tokens"][:, 0] == START).all() and first["mel"].abs().max() <= 1


def test_what_nearly_fills_the_recognizer_is_not_slowed_beyond_it(batches, tmp_path):
    stop = round(FITS * RATE)
    clip_ = {"text": "a cat", "voice": "real:1", "start": 0, "stop": stop}
    (tmp_path / "index.json").write_text(json.dumps({"wanted": {}, "clips": [clip_]}))
    np.save(tmp_path / "sound.npy", np.ones(stop, np.int16))
    long = replace(batches, folder=str(tmp_path))
    assert max(long(index)["mel"].shape[2] for index in range(24)) == 2 * SMALL.n_audio_ctx


def test_a_clip_that_is_too_long_for_the_recognizer_is_left_out(batches, tmp_path):
    stop, end = RATE, RATE + round((FITS + 1) * RATE)
    clips = [{"text": "a cat", "voice": "real:1", "start": 0, "stop": stop},
             {"text": "a dog and a cat", "voice": "real:1", "start": stop, "stop": end}]  # fmt: skip
    (tmp_path / "index.json").write_text(json.dumps({"wanted": {}, "clips": clips}))
    np.save(tmp_path / "sound.npy", np.ones(end, np.int16))
    assert {n for batch in _epoch(replace(batches, folder=str(tmp_path)), 0) for n in batch} <= {0, SILENCE}


def test_a_corpus_holds_clips_of_at_most_thirty_seconds(tmp_path):
    with pytest.raises(ValueError, match=r"longest=31 s: .*choose no more"):
        prepare(tmp_path / "longer", replace(PLAN, longest=31.0))


def test_an_epoch_hears_every_clip_once_and_some_silence(batches):
    for epoch in range(2):
        numbers = [number for batch in _epoch(batches, epoch) for number in batch]
        assert sorted(n for n in numbers if n != SILENCE) == list(range(PLAN.sentences))
        assert numbers.count(SILENCE) == PLAN.sentences // batches.silent


def test_what_is_asked_for_is_what_was_said(batches, folder):
    vocabulary, _ = vocabulary_of(Corpus(folder))
    said, silent = set(), 0
    for index in range(len(_epoch(batches, 0))):
        batch = batches(index)
        for tokens, letters in zip(batch["tokens"].tolist(), batch["letters"].tolist(), strict=True):
            tokens = [token for token in tokens if token != IGNORED]
            assert tokens[-1] == END
            if tokens == [START, NO_SPEECH, END]:
                silent += 1
                assert set(letters) == {IGNORED}
            else:
                said.add(vocabulary.decode(tokens))
    assert said == {clip_.text for clip_ in Corpus(folder).clips} and silent == 2


def test_noise_is_level_and_repeatable():
    for i, kind in enumerate(KINDS):
        name, sound = noise_clip(i, seed=0)
        assert name == kind and np.array_equal(sound, noise_clip(i, seed=0)[1])
        assert np.isfinite(sound).all() and np.abs(sound).max() <= 1 and 0.5 <= len(sound) / RATE <= 4


def test_a_tiny_model_learns_one_batch_and_is_exported(batches, folder, tmp_path):
    model, loss, batch = tiny(batches), SmallWhisperLoss(), batches(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    values = []
    for step in range(40):
        value, logged = loss([model], batch, torch.Generator().manual_seed(step), step)
        values.append(value.item())
        assert set(logged) == {"words", "ctc", "right"}
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert all(p.grad is not None for p in model.parameters())
    assert values[-1] < 0.5 * values[0]
    vocabulary, _ = vocabulary_of(Corpus(folder))
    export(model, vocabulary, tmp_path / "weights")
    assert sorted(p.name for p in (tmp_path / "weights").iterdir()) == ["model.pt", "tokens.json"]
    opened = whisper.load_model(str(tmp_path / "weights" / "model.pt"), device="cpu")
    assert torch.allclose(opened.encoder.conv1.weight, model.whisper.encoder.conv1.weight, atol=1e-2)
    assert isinstance(Transcriber.load(tmp_path / "weights").scribe, SmallWhisperBackend)


def test_the_loss_draws_only_from_its_generator(batches):
    model, loss, batch = tiny(batches), SmallWhisperLoss(), batches(0)
    one, two = (loss([model], batch, torch.Generator().manual_seed(3), 0)[0].item() for _ in range(2))
    assert one == two


def test_a_batch_that_says_nothing_has_a_loss(batches, monkeypatch):
    monkeypatch.setattr(SpeechDataset, "_batch", lambda self, index: [SILENCE, SILENCE])
    batch = batches(0)
    assert batch["letters"].shape == (2, 0) and batch["letters"].dtype == torch.long
    value, _ = SmallWhisperLoss()([tiny(batches)], batch, torch.Generator().manual_seed(0), 0)
    value.backward()
    assert value.isfinite() and value > 0


def test_the_recipe_is_whole_and_small(folder):
    whole = recipe(folder, steps=3)
    parameters = sum(p.numel() for p in whole.modules[0].module.whisper.parameters())
    assert 2 * parameters < 30e6  # bytes in half precision
    assert whole.batch_at(0)["mel"].shape[1] == PAIR


def test_training_goes_on_from_an_exported_recognizer(folder, tmp_path):
    begun = recipe(folder, steps=3)
    begun.export(begun.modules[0].module, tmp_path / "begun")
    further = recipe(folder, steps=3, init=tmp_path / "begun")
    whole, half = (one.modules[0].module.whisper.state_dict() for one in (begun, further))
    assert all(torch.allclose(value, half[name], atol=1e-2) for name, value in whole.items())
    assert further.batch_at.tokens == begun.batch_at.tokens
    assert 0 <= begun.batch_at.pieces - further.batch_at.pieces <= 1  # the last piece may happen to be a word
    with pytest.raises(ValueError, match="no recognizer"):
        recipe(folder, steps=3, init=tmp_path / "absent")


def test_windows_that_are_asked_for_take_the_place_of_the_recognizers_own(tmp_path):
    save_whisper(tmp_path / "short", random_whisper(n_audio_ctx=200), windows=(4.0,), int8=False)
    own, chosen = (Transcriber.load(tmp_path / "short", windows=windows) for windows in ((), (3.0, 1.0)))
    assert own.scribe.decoder.windows == (4 * RATE,) and chosen.scribe.decoder.windows == (RATE, 3 * RATE)
    assert (chosen.name, chosen.limit) == (own.name, own.limit)


def test_a_number_is_the_same_as_its_word(folder):
    corpus = Corpus(folder)
    found = rate(Transcriber(FixedBackend()), "a voice", [("2 cats", corpus.samples(corpus.clips[0]))])
    assert found.rate == 0


def test_word_error_rate(folder):
    corpus = Corpus(folder)
    sound = corpus.samples(corpus.clips[0])
    found = rate(Transcriber(FixedBackend()), "a voice", [("two cats", sound), ("two dogs", sound)])
    assert found == WerResult("a voice", 0.25, 2)
    assert list(wer_table([found]))[-1] == "| a voice | 25.0% | 2 |"


def test_a_recognizer_without_windows_refuses_them():
    with pytest.raises(ValueError, match="whisper-scenes has no windows: leave --windows out"):
        speech_report("whisper-scenes", windows=(3.0,))


def test_word_error_rate_on_recordings_of_people(folder, tmp_path, capsys, monkeypatch):
    """Any format, any length; the transcripts are as people write them."""
    corpus = Corpus(folder)
    sound = corpus.samples(corpus.clips[0])
    (tmp_path / "deep").mkdir()
    soundfile.write(tmp_path / "a-1.wav", sound, RATE)
    soundfile.write(tmp_path / "deep" / "b-2.flac", np.tile(sound, 40), RATE)
    listing = tmp_path / "transcripts.tsv"
    listing.write_text("id\ttext\na-1\tTwo cats.\nb-2\t2 cats two cats\n")
    monkeypatch.setattr(
        Transcriber, "load", lambda name, windows: Transcriber(FixedBackend(), Path(name).name, limit=5.0)
    )
    speech_report(real=str(tmp_path))
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith("real people: WER ") and said[-2] == f"2 clips of {tmp_path.name}, whisper-tiny-en"
    assert len(list(rate_people(Transcriber(FixedBackend()), transcripts(tmp_path)))) == 2
    for options, clips in (
        (PeopleOptions(speakers=("b-",)), 1),
        (PeopleOptions(longest=5.0), 1),
        (PeopleOptions(2), 1),
    ):
        speech_report(real=str(tmp_path), people=options)
        assert capsys.readouterr().out.startswith(f"{clips} clips of "), options
    with pytest.raises(ValueError, match="holds no such recordings"):
        speech_report(real=str(tmp_path), people=PeopleOptions(speakers=("c-",)))
    for content, message in (("c-3\tcats\n", "line 1: no recording named 'c-3'"), ("", "lists no recordings")):
        listing.write_text(content)
        with pytest.raises(ValueError, match=message):
            transcripts(tmp_path)
    listing.unlink()
    with pytest.raises(ValueError, match="is missing: it lists id, tab, text"):
        transcripts(tmp_path)
