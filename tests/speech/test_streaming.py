"""speech.streaming: events in their order, for any pattern of speech; words once committed stay."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.streaming import (
    EndpointingConfig,
    FinalTranscript,
    LocalAgreement,
    PartialTranscript,
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    StreamingTranscriber,
    TranscribeReason,
    TranscribeRequest,
    transcribe_stream,
)
from speech.vad import CHUNK

QUICK = EndpointingConfig(end=0.3)


def run(pattern: str, write=lambda audio: ("two", "cats"), timing: EndpointingConfig = QUICK) -> list:
    """ "." is 32 ms of silence, "x" of speech. Chunks hold their own number, so that what is heard can be checked."""
    chances = iter([1.0 if letter == "x" else 0.0 for letter in pattern])
    listener = StreamingTranscriber(lambda chunk: next(chances), timing)
    chunks = (np.full(CHUNK, i, np.float32) for i in range(len(pattern)))
    return list(transcribe_stream(chunks, listener, write))


def kinds(events: list) -> str:
    return " ".join(type(event).__name__ for event in events)


def test_one_utterance():
    events = run("." * 20 + "x" * 30 + "." * 20)
    assert (
        kinds(events)
        == "SpeechStarted PartialTranscript PartialTranscript PartialTranscript SpeechPaused FinalTranscript"
    )
    assert events[-1].words == ("two", "cats")
    assert abs(events[0].at - 20 * 0.032) < 0.3  # a little before the first voiced chunk
    assert abs(events[-1].at - 50 * 0.032 - 0.3) < 0.05


def test_nothing_said_nothing_happens():
    assert run("." * 200) == []
    assert kinds(run("." * 20 + "xx" + "." * 20)) == "SpeechStarted FinalTranscript"  # a click: over, without words
    assert run("." * 20 + "xx" + "." * 20)[-1].words == ()


def test_a_pause_that_was_none():
    events = run("x" * 20 + "." * 5 + "x" * 20 + "." * 20)
    assert kinds(events).split().count("SpeechStarted") == 1
    assert [e for e in kinds(events).split() if e != "PartialTranscript"] == [
        "SpeechStarted",
        "SpeechPaused",
        "SpeechResumed",
        "SpeechPaused",
        "FinalTranscript",
    ]


def test_what_is_heard_is_the_whole_utterance_with_what_came_before():
    heard = []
    run("." * 20 + "x" * 12 + "." * 20, write=lambda audio: heard.append(audio[::CHUNK].astype(int).tolist()) or ())
    assert heard[-1] == list(range(13, 36))  # 8 chunks with the first voiced one, 11 voiced, 4 of the pause


def test_two_utterances_are_two():
    events = run(("x" * 15 + "." * 15) * 2)
    assert [e.utterance for e in events if isinstance(e, FinalTranscript)] == [0, 1]
    assert [e.utterance for e in events if isinstance(e, SpeechStarted)] == [0, 1]


def test_endless_speech_is_cut():
    events = run("x" * 200, timing=EndpointingConfig(end=0.3, longest=2.0))
    finals = [e for e in events if isinstance(e, FinalTranscript)]
    assert len(finals) == 3 and all(e.words for e in finals)


def test_slow_answers_are_not_lost_and_stale_ones_are_dropped():
    pattern = "x" * 20 + "." * 5 + "x" * 20 + "." * 12 + "x" * 20
    chances = iter([1.0 if letter == "x" else 0.0 for letter in pattern])
    listener = StreamingTranscriber(lambda chunk: next(chances), QUICK)
    orders, events = [], []
    for _ in pattern:
        for event in listener.feed(np.zeros(CHUNK, np.float32)):
            (orders if isinstance(event, TranscribeRequest) else events).append(event)
    partials = [o for o in orders if o.reason is TranscribeReason.PARTIAL]
    pauses = [o for o in orders if o.reason is TranscribeReason.PAUSE]
    assert kinds(events) == "SpeechStarted SpeechStarted"
    assert len(partials) == 2 and [p.utterance for p in partials] == [0, 1]  # one at a time
    assert list(listener.on_transcript(partials[0], ["a"])) == []  # its utterance is over
    assert list(listener.on_transcript(pauses[0], ["a"])) == []  # it was no pause
    (final,) = listener.on_transcript(pauses[1], ["a", "fox"])
    assert isinstance(final, FinalTranscript) and final.words == ("a", "fox") and final.utterance == 0
    assert list(listener.on_transcript(pauses[1], ["a", "fox"])) == []  # once


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.sampled_from("abc"), max_size=6), max_size=12))
def test_committed_words_only_grow(hypotheses: list[list[str]]):
    agreement, before = LocalAgreement(), ()
    for i, words in enumerate(hypotheses):
        committed, pending = agreement.update(words)
        assert committed[: len(before)] == before
        if len(committed) > len(before):  # newly committed: both hypotheses began with it
            assert tuple(words[: len(committed)]) == committed == tuple(hypotheses[i - 1][: len(committed)])
        assert pending == tuple(words[len(committed) :])
        before = committed


@settings(deadline=None, max_examples=50)
@given(st.text(alphabet="x.", max_size=150))
def test_events_come_in_order(pattern: str):
    state, utterance = "idle", -1
    for event in run(pattern + "." * 15):
        if isinstance(event, SpeechStarted):
            assert state == "idle" and event.utterance == utterance + 1
            state, utterance = "speaking", event.utterance
        else:
            assert event.utterance == utterance
            if isinstance(event, PartialTranscript):
                assert state == "speaking"
            elif isinstance(event, SpeechPaused):
                assert state == "speaking"
                state = "paused"
            elif isinstance(event, SpeechResumed):
                assert state == "paused"
                state = "speaking"
            elif isinstance(event, FinalTranscript):
                assert state in ("speaking", "paused")
                state = "idle"
    assert state == "idle"


def feed(listener: StreamingTranscriber, pattern: str) -> list:
    return [event for letter in pattern for event in listener.feed(np.zeros(CHUNK, np.float32), float(letter == "x"))]


def test_what_is_said_when_the_microphone_is_switched_off_is_an_utterance():
    listener = StreamingTranscriber(lambda chunk: 0.0, QUICK)
    assert kinds(feed(listener, "x" * 7)) == "SpeechStarted"
    (order,) = listener.flush()
    assert order.reason is TranscribeReason.PAUSE and len(order.audio) == (7 + 3) * CHUNK, (
        "with a little silence after it"
    )
    (final,) = listener.on_transcript(order, ["a", "fox"])
    assert isinstance(final, FinalTranscript) and final.words == ("a", "fox")
    assert list(listener.flush()) == [], "nobody speaks"


def test_switched_off_in_a_pause_it_is_not_written_down_again():
    listener = StreamingTranscriber(lambda chunk: 0.0, QUICK)
    order = feed(listener, "x" * 7 + "." * 5)[-1]
    assert isinstance(order, TranscribeRequest) and list(listener.flush()) == []
    assert [type(event) for event in listener.on_transcript(order, ["a", "fox"])] == [FinalTranscript]
    order = feed(listener, "x" * 7 + "." * 5)[-1]
    assert [type(event) for event in listener.on_transcript(order, ["a", "fox"])] == [SpeechPaused]
    assert [(type(event), event.words) for event in listener.flush()] == [(FinalTranscript, ("a", "fox"))]
    assert kinds(feed(listener, "xx") + list(listener.flush())) == "SpeechStarted FinalTranscript", "a click"


def test_an_order_that_is_overtaken_is_no_longer_wanted():
    listener = StreamingTranscriber(lambda chunk: 0.0, QUICK)
    first = feed(listener, "x" * 7 + "." * 5)[-1]
    assert listener.is_wanted(first)
    feed(listener, "x")  # speech goes on
    assert not listener.is_wanted(first)
    second = feed(listener, "x" * 3 + "." * 5)[-1]
    feed(listener, "." * 8)  # the utterance is over, its words are still to come
    assert listener.is_wanted(second) and not listener.is_wanted(first)
    list(listener.on_transcript(second, ["a"]))
    assert not listener.is_wanted(second)


def test_timing_is_checked():
    with pytest.raises(ValueError, match="pause of 0.5 s"):
        EndpointingConfig(pause=0.5, end=0.3)


def test_a_pause_inside_a_sentence_neither_splits_nor_loses_it():
    """Half a second of silence is within the default of 0.7 s; the words before it are there at once."""
    heard = []
    events = run("x" * 20 + "." * 16 + "x" * 20 + "." * 30, lambda audio: heard.append(len(audio)) or ("two", "cats"),
                 EndpointingConfig())  # fmt: skip
    assert kinds(events).split().count("FinalTranscript") == 1 and "SpeechResumed" in kinds(events)
    assert heard[-1] > 56 * CHUNK, "the whole sentence is transcribed at its end"


@pytest.mark.parametrize(("words", "finals"), [(("two", "cats"), 1), (("two", "cats", "on", "the"), 0)])
def test_a_sentence_that_cannot_be_over_is_waited_for(words: tuple[str, ...], finals: int):
    events = run("x" * 20 + "." * 30, lambda audio: words, EndpointingConfig())
    assert sum(isinstance(event, FinalTranscript) for event in events) == finals
    events = run("x" * 20 + "." * 60, lambda audio: words, EndpointingConfig())
    assert events[-1].words == words


def test_a_long_utterance_is_settled_at_its_pauses():
    """So that the sound of one transcription, and its time, stay bounded."""
    heard, answers = [], iter([("one",), ("two",), ("three",)])
    timing = EndpointingConfig(end=1.0, settle=2.0, partial=99.0)
    part = "x" * 70 + "." * 16
    events = run(part * 3 + "." * 30, lambda audio: heard.append(len(audio)) or next(answers), timing)
    assert events[-1].words == ("one", "two", "three")
    assert max(heard) < 90 * CHUNK, "none holds two parts"
    assert [e.words for e in events if isinstance(e, SpeechPaused)] == [
        ("one",),
        ("one", "two"),
        ("one", "two", "three"),
    ]
