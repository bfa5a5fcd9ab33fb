"""speech.word_alignment: when each word was spoken."""

import numpy as np
import pytest
from spoken_sentences import needs_voices, speak
from whisper.tokenizer import get_tokenizer
from whisper_stand_ins import random_whisper

from maskgil.model_folder import weights_folder
from speech.audio import RATE
from speech.backends import RawTranscript, TranscribedPiece
from speech.transcriber import BUNDLED, SMALLEST, Transcriber, Transcript
from speech.word_alignment import TimedWord, align_words, estimate_word_times, within_speech

SAID = ("two cats", "on the beach")


def test_words_keep_out_of_pauses():
    words = [TimedWord("cats", 0.5, 1.3), TimedWord("on", 1.3, 2.5), TimedWord("it", 2.5, 2.6), TimedWord("far", 9, 10)]
    cut = within_speech(words, [(0, RATE), (2 * RATE, 3 * RATE)])
    assert [(word.start, word.end) for word in cut] == [(0.5, 1.0), (2.0, 2.5), (2.5, 2.6), (9, 10)]


def test_times_follow_the_words_and_stay_inside_the_sound():
    tokenizer = get_tokenizer(False)
    sound = np.random.default_rng(0).normal(0, 0.1, 3 * RATE).astype(np.float32)
    words = align_words(random_whisper(), tokenizer, sound, tokenizer.encode(" Two cats, on the beach."), start=5.0)
    assert [word.word for word in words] == ["Two", "cats,", "on", "the", "beach."]
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times) and times[0] >= 5 and times[-1] <= 8
    assert all(0 <= word.probability <= 1 for word in words)
    assert align_words(random_whisper(), tokenizer, sound, []) == []


@needs_voices
def test_words_around_a_pause_are_timed_before_and_after_it():
    before, after = speak("two cats"), speak("on the beach")
    sound = np.concatenate([before, np.zeros(RATE, np.float32), after])
    transcriber = Transcriber.load(weights_folder() / BUNDLED)
    transcript = transcriber.transcribe(sound)
    words, is_aligned = transcriber.word_times(sound, transcript)
    assert is_aligned and " ".join(word.word for word in words) == transcript.text
    assert transcript.words == ("two", "cats", "on", "the", "beach")
    gap = len(before) / RATE
    assert words[1].end < gap + 0.5 and words[2].start > gap + 0.4, words
    assert words[-1].end <= len(sound) / RATE


@pytest.mark.parametrize("words", [[], ["two"], ["two", "cats"]])
def test_estimates_share_the_sound(words: list[str]):
    times = estimate_word_times(np.zeros(2 * RATE, np.float32), words)
    assert [time.word for time in times] == words
    assert all(0 <= time.start <= time.end <= 2 for time in times)


def test_a_recognizer_without_an_alignment_gives_estimates():
    """The small Whisper, over both pieces of a recording together."""
    sound = np.zeros(2 * RATE, np.float32)
    pieces = tuple(TranscribedPiece(i * RATE, (i + 1) * RATE, RawTranscript(text, 0.0)) for i, text in enumerate(SAID))
    transcriber = Transcriber.load(weights_folder() / SMALLEST)
    words, is_aligned = transcriber.word_times(sound, Transcript(" ".join(SAID), (), False, "", pieces=pieces))
    assert not is_aligned and words == estimate_word_times(sound, " ".join(SAID).split())
