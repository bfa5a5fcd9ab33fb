"""train.asr.tuned_whisper: a released Whisper learns sentences over short windows, and is written as it was."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from whisper.model import ModelDimensions, Whisper
from whisper.tokenizer import get_tokenizer

from speech.audio import RATE
from speech.whisper_folder import load_whisper, save_whisper
from train.asr.command_phrases import command_phrases
from train.asr.corpus import Corpus
from train.asr.dataset import IGNORED
from train.asr.tts_voices import SPEAKABLE
from train.asr.tuned_whisper import TEXTS, TunedBatches, TunedWhisper, WordsLoss, as_written, corrected
from train.recipes.asr import whisper_tuned
from train.trainer import train

SECONDS = 4.0  # of the tiny model's own window
CLIPS = (("two cats", "flite:slt", 0.8), ("make it blue", "flite:slt", 1.5), ("he was here", "real:7", 0.6),
         ("and there it is", "real:7", 1.6), ("", "noise:tap", 2.0))  # fmt: skip


def tiny_whisper(vocabulary: int = 51864) -> Whisper:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Whisper(ModelDimensions(80, round(SECONDS * 50), 32, 2, 1, vocabulary, 32, 32, 2, 1)).eval()
        torch.nn.init.normal_(model.decoder.positional_embedding, std=0.02)  # as it is made, its memory is any
        return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model and a corpus of tones."""
    save_whisper(tmp_path / "model", tiny_whisper(), windows=(SECONDS,), int8=False)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    clips, sounds, start = [], [], 0
    for number, (text, voice, seconds) in enumerate(CLIPS):
        count = round(seconds * RATE)
        sounds.append(np.sin(np.arange(count) * 0.02 * (number + 1)) * 16000)
        clips.append({"text": text, "voice": voice, "start": start, "stop": start + count})
        start += count
    np.save(corpus / "sound.npy", np.concatenate(sounds).astype(np.int16))
    (corpus / "index.json").write_text(json.dumps({"wanted": {}, "clips": clips}))
    (corpus / TEXTS).write_text(json.dumps({2: "He was here.", 3: "And there it is."}))
    return tmp_path


def test_spoken_words_are_written_as_whisper_writes_them():
    assert as_written("two cats on the beach") == "Two cats on the beach."
    assert as_written("no a cat") == "No, a cat." and as_written("i want to see a dog") == "I want to see a dog."


def test_what_was_written_is_corrected_by_the_transcript_and_keeps_its_marks():
    assert corrected("Well, Mister Quilter!", "well mister quilter") == "Well, Mister Quilter!"
    assert corrected("Well, Mr. Quilter, I see.", "well mister quilter i see") == "Well, mister Quilter, I see."
    assert corrected("", "all of it") == "all of it"


def test_commands_can_be_spoken_and_are_a_function_of_the_seed():
    phrases = command_phrases(200, 3)
    assert phrases == command_phrases(200, 3) != command_phrases(200, 4)
    assert {"undo", "start over"} & set(phrases) and any(phrase.startswith("make it ") for phrase in phrases)
    assert all(SPEAKABLE.fullmatch(phrase.replace("3d", "three d")) for phrase in phrases)


def test_a_batch_is_a_function_of_its_number_and_holds_what_the_window_is_given(folder: Path):
    batches = TunedBatches(str(folder / "corpus"), (1.0, 2.0), 80, 99, 6, silent=0.3)
    tokenizer = get_tokenizer(False, num_languages=99)
    said = {1.0: set(), 2.0: set()}
    for index in range(12):
        batch, again = batches(index), batches(index)
        assert all(torch.equal(batch[name], again[name]) for name in batch)
        window = batch["mel"].shape[-1] / 100
        for tokens, target in zip(batch["tokens"].tolist(), batch["target"].tolist(), strict=True):
            assert tokens[:2] == [tokenizer.sot, tokenizer.no_timestamps]
            ids = [token for token in target if token not in (IGNORED, tokenizer.eot)]
            assert target[len(ids)] == tokenizer.eot and tokens[2 : len(ids) + 1] == ids[1:]
            assert ids[0] == (tokenizer.no_timestamps if ids[1:] else tokenizer.no_speech)
            said[window].add(tokenizer.decode(ids[1:]).strip())
    assert said == {1.0: {"", "Two cats.", "He was here."}, 2.0: {"", "Make it blue.", "And there it is."}}


def test_clips_of_few_are_not_drawn_more_often_than_those_of_many(folder: Path):
    """A long window holds one spoken sentence and nine recordings of people: it is drawn one time in ten."""
    index, texts = folder / "corpus" / "index.json", {str(n): f"Number {n}." for n in range(1, 10)}
    clips = [{"text": "two cats" if n == 0 else "", "voice": "flite:slt" if n == 0 else "real:7", "start": 0,
              "stop": RATE // 2} for n in range(10)]  # fmt: skip
    index.write_text(json.dumps({"wanted": {}, "clips": clips}))
    (folder / "corpus" / TEXTS).write_text(json.dumps(texts))
    batches = TunedBatches(str(folder / "corpus"), (1.0,), 80, 99, 100, silent=0.0)
    tokenizer = get_tokenizer(False, num_languages=99)
    said = [
        tokenizer.decode([t for t in row if 0 <= t < tokenizer.eot]).strip() for row in batches(0)["target"].tolist()
    ]
    assert 2 <= said.count("Two cats.") <= 20 and len(set(said)) == 10


def test_the_loss_falls_and_the_token_embedding_stays(folder: Path):
    student = TunedWhisper(tiny_whisper())
    before = student.decoder.token_embedding.weight.clone()
    batch = TunedBatches(str(folder / "corpus"), (1.0,), 80, 99, 4)(0)
    optimizer = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for step in range(8):
        loss, logged = WordsLoss()([student], batch, torch.Generator(), step)
        optimizer.zero_grad()
        loss.mean.backward()
        optimizer.step()
        losses.append(float(loss.mean.detach()))
    assert losses[-1] < losses[0] and logged["frames"] == 100
    assert torch.equal(student.decoder.token_embedding.weight, before)


def test_a_run_writes_a_recognizer_with_more_windows(folder: Path):
    recipe = whisper_tuned(str(folder / "corpus"), str(folder / "model"), (2.0, 1.0), steps=2, batch=2)
    train(recipe, folder / "run")
    tuned, windows = load_whisper(folder / "run" / "export")
    assert windows == (1.0, 2.0, SECONDS) and tuned.dims == tiny_whisper().dims
    before = load_whisper(folder / "model")[0]
    assert not torch.equal(tuned.encoder.conv1.weight, before.encoder.conv1.weight)


def test_what_cannot_be_tuned_is_refused(folder: Path):
    for windows in ((), (0.5,), (8.0,)):
        with pytest.raises(ValueError, match="give seconds from 1 to 4"):
            whisper_tuned(str(folder / "corpus"), str(folder / "model"), windows)
    with pytest.raises(ValueError, match="no spoken corpus"):
        whisper_tuned(str(folder), str(folder / "model"), (1.0,))
    save_whisper(folder / "other", tiny_whisper(51865), windows=(SECONDS,), int8=False)
    with pytest.raises(ValueError, match="multilingual"):
        whisper_tuned(str(folder / "corpus"), str(folder / "other"), (1.0,))
    with pytest.raises(ValueError, match="no sound of 2.4 to 4 s"):
        TunedBatches(str(folder / "corpus"), (3.0, 4.0), 80, 99, 1)(next(i for i in range(99) if _window(i) == 1))


def _window(index: int) -> int:
    return int(np.random.default_rng((0, index)).integers(2))


def test_a_corpus_is_written_down_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "corpus" / TEXTS).unlink()
    whisper_tuned(str(folder / "corpus"), str(folder / "model"), (1.0,), steps=1)
    texts = json.loads((folder / "corpus" / TEXTS).read_text())
    assert set(texts) == {"2", "3"}
    plain = [" ".join(text.lower().split()) for text in texts.values()]
    assert [Corpus(folder / "corpus").clips[int(n)].text for n in texts] == plain
