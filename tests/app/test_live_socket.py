"""The microphone's socket: words and pictures while one speaks, and a closed door for everything else."""

import asyncio
import io
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from app_fixtures import tiny_model
from PIL import Image

import text_encoder
from app.core import registry
from app.core.gallery_store import Gallery
from app.core.png import read_picture
from app.core.registry import ModelInfo
from app.core.request import GenerationRequest
from app.serving.batching import Batch
from app.serving.jobs import Status
from app.serving.local_engine import LocalEngine
from app.serving.recognizer import SpeechRecognizer
from app.serving.services import AppServices
from app.web import live_dialogue, live_protocol, live_session, live_socket
from maskgil.params import SAMPLERS
from maskgil.pipeline import TextToImage
from speech.audio import RATE
from speech.streaming import EndpointingConfig, StreamingTranscriber
from speech.transcriber import Transcript
from text_encoder.prompt_reader import PromptReader

ME = "me-1234567"
SECONDS = 120
HEADERS = {"origin": "http://studio:8501", "host": "studio:8501"}
SAID = ("a", "red", "cat")
QUICK = EndpointingConfig(end=0.3)  # so that a test is short


class Socket:
    """A page at the other end: what it sends is queued, what it is sent is kept."""

    def __init__(self, headers: dict[str, str] = HEADERS):
        self.scope, self.headers = {}, headers
        self.up: asyncio.Queue = asyncio.Queue()
        self.down: list[dict | bytes] = []
        self.accepted, self.code, self.came = False, None, asyncio.Event()

    async def accept(self) -> None:
        self.accepted = True

    async def receive(self) -> dict:
        return await self.up.get()

    async def send_text(self, data: str) -> None:
        self.down.append(json.loads(data))
        self.came.set()

    async def send_bytes(self, data: bytes) -> None:
        self.down.append(data)
        self.came.set()

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        self.code = code

    def speak(self, loud: bool, seconds: float) -> None:
        """Sound that the listener of these tests takes for speech when it is loud."""
        for _ in range(round(seconds * RATE / 512)):
            self.up.put_nowait({"type": "websocket.receive", "bytes": np.full(512, 9000 * loud, "<i2").tobytes()})

    async def speak_until(self, *committed: str) -> None:
        """Speak on, without a pause, until these words no longer change."""
        while not self.of("words") or self.of("words")[-1]["committed"] != list(committed):
            self.speak(True, 0.4)
            await self.until("words")

    def tell(self, text: str) -> None:
        self.up.put_nowait({"type": "websocket.receive", "text": text})

    def leave(self) -> None:
        self.up.put_nowait({"type": "websocket.disconnect"})

    async def until(self, type: str) -> dict:
        """The next message of this type."""
        start = len(self.down)
        while True:
            for message in self.down[start:]:
                if isinstance(message, dict) and message["type"] == type:
                    return message
            self.came.clear()
            await asyncio.wait_for(self.came.wait(), SECONDS)

    def of(self, type: str) -> list[dict]:
        return [message for message in self.down if isinstance(message, dict) and message["type"] == type]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    return TextToImage.load(tiny_model(Path(tmp_path_factory.mktemp("weights")) / "scenes"), text_encoder.load)


def transcript(words: Sequence[str]) -> Transcript:
    return Transcript(" ".join(words), tuple(words), not words, "")


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the recognizer will write down, whatever it hears."""
    words = list(SAID)
    monkeypatch.setattr(live_protocol.EndpointingConfig, "end", QUICK.end)  # where a settings message has no pause
    monkeypatch.setattr(SpeechRecognizer, "load", lambda self: None)
    monkeypatch.setattr(SpeechRecognizer, "transcribe_live", lambda self, spoken, guess=(): transcript(words))
    monkeypatch.setattr(
        live_session,
        "StreamingTranscriber",
        lambda: StreamingTranscriber(lambda chunk: float(np.abs(chunk).max() > 0.1), QUICK),
    )
    return words


@pytest.fixture
def services(model: TextToImage, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch):
    engine = LocalEngine(lambda name: model)
    services = AppServices(engine, SpeechRecognizer("nobody"), Gallery(tmp_path / "gallery"))
    monkeypatch.setattr(live_socket, "get_services", lambda: services)
    monkeypatch.setattr(registry, "find_local", lambda name: known())
    for module in (live_session, live_dialogue):
        monkeypatch.setattr(module, "served_model", lambda engine, name: known())
    yield services
    engine.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """The engine makes one step for each release."""
    gate, together = threading.Semaphore(0), Batch._together

    def gated(batch: Batch, drawings: list) -> None:
        gate.acquire(timeout=SECONDS)
        together(batch, drawings)

    monkeypatch.setattr(Batch, "_together", gated)
    return gate


READER = PromptReader.from_dict(
    {
        "objects": ["cat", "dog", "apple"],
        "colours": ["red", "blue"],
        "counts": [1, 2],
        "words": "a an two red blue cat cats dog dogs apple and".split(),
    }
)


class Known(ModelInfo):
    """A registry entry of a model that draws red cats and apples."""

    reader = READER


def known() -> Known:
    return Known("scenes", Path(), READER.vocabulary, None, ((64, 64),))


def talk(services: AppServices, script) -> Socket:
    """Run a script of what one visitor does, with the server at the other end."""

    async def both() -> Socket:
        socket = Socket()
        server = asyncio.ensure_future(live_socket.serve_socket(socket, ME))
        await socket.until("ready") if not socket.of("ready") else None
        await script(socket)
        socket.leave()
        await asyncio.wait_for(server, SECONDS)
        return socket

    return asyncio.run(both())


def test_speech_becomes_words_and_a_picture_that_is_kept(services: AppServices):
    async def script(socket: Socket) -> None:
        socket.tell('{"type": "settings", "steps": 3, "size": "96x64", "seed": 5}')
        socket.speak(True, 0.6)
        socket.speak(False, 0.6)
        await socket.until("kept")

    socket = talk(services, script)
    assert socket.of("start") and socket.of("final") == [{"type": "final", "text": "a red cat"}]
    (shown,) = socket.of("picture")
    assert (shown["prompt"], shown["seed"], shown["unknown"]) == ("a red cat", 5, [])
    png = socket.down[socket.down.index(shown) + 1]
    assert isinstance(png, bytes) and Image.open(io.BytesIO(png)).size == (96, 64)
    (entry,) = services.gallery.entries(ME)
    assert entry.prompt == "a red cat" and entry.request is not None and entry.request.params.steps == 3


def test_the_end_of_an_utterance_can_be_told(services: AppServices):
    """Push to talk: the sentence is over when the button is let go, without any silence."""

    async def script(socket: Socket) -> None:
        socket.tell('{"type": "settings", "steps": 2, "pause": 2.0}')
        socket.speak(True, 0.6)
        socket.tell('{"type": "flush"}')
        await socket.until("kept")

    socket = talk(services, script)
    assert [final["text"] for final in socket.of("final")] == ["a red cat"]
    (kept,), (entry,) = socket.of("kept"), services.gallery.entries(ME)
    assert kept["id"] == entry.id


def test_typed_words_are_a_prompt_of_their_own_with_the_seed_that_is_given(services: AppServices):
    async def script(socket: Socket) -> None:
        socket.tell('{"type": "settings", "steps": 2}')
        socket.tell('{"type": "say", "text": "  two red cats ", "seed": 9}')
        await socket.until("kept")
        socket.tell('{"type": "say", "text": "and an apple", "seed": null}')
        while len(socket.of("kept")) < 2:
            await socket.until("kept")

    socket = talk(services, script)
    first, second = socket.of("picture")
    assert (first["prompt"], first["seed"]) == ("two red cats", 9)
    assert second["prompt"] == "and an apple", "not the prompt before with more"


@pytest.mark.parametrize("fields", [{"text": ""}, {"text": "x" * 2000}, {"text": "a cat", "seed": -1}, {}])
def test_typed_words_that_cannot_be_drawn_close_the_socket_with_a_reason(fields: dict):
    with pytest.raises(live_protocol.ProtocolError):
        live_protocol.parse_control(json.dumps({"type": "say", **fields}))


def test_a_drawing_begins_at_a_pause_and_grows_when_more_words_come(services: AppServices, words: list[str]):
    async def script(socket: Socket) -> None:
        socket.tell('{"type": "settings", "steps": 2, "pause": 1.0}')
        socket.speak(True, 0.5)
        socket.speak(False, 0.25)  # a pause, not the end
        await socket.until("picture")
        words.extend(["and", "a", "horse"])
        socket.speak(True, 0.5)
        socket.speak(False, 1.2)
        await socket.until("kept")

    socket = talk(services, script)
    assert [shown["prompt"] for shown in socket.of("picture")] == ["a red cat", "a red cat and a horse"]
    assert [entry.prompt for entry in services.gallery.entries(ME)] == ["a red cat and a horse"], "a guess is not kept"
    assert socket.of("picture")[1]["unknown"] == ["horse"]
    first, *_, last = services.engine.jobs(ME)
    assert first.previous is None and last.previous is not None, "the second goes on from the canvas of the first"
    assert services.gallery.entries(ME)[0].request.edit == f"grown out of “{last.previous.prompt}”"


def test_three_words_that_no_longer_change_are_drawn_while_one_speaks_on(services: AppServices, words: list[str]):
    async def script(socket: Socket) -> None:
        socket.tell('{"type": "settings", "steps": 2}')
        await socket.speak_until(*SAID)
        await socket.until("picture")
        words.append("apple")
        await socket.speak_until(*SAID, "apple")
        await socket.until("picture")
        assert not socket.of("final"), "there was no silence yet"
        socket.speak(False, 0.6)
        await socket.until("kept")

    socket = talk(services, script)
    assert [shown["prompt"] for shown in socket.of("picture")] == ["a red cat", "a red cat apple"]
    first, second = services.engine.jobs(ME)
    assert first.previous is None and second.previous.prompt == "a red cat", "the last words were drawn already"


def test_more_words_wait_for_the_picture_of_fewer_until_there_is_a_pause(
    services: AppServices, words: list[str], gate: threading.Semaphore
):
    async def script(socket: Socket) -> None:
        socket.tell('{"type": "settings", "steps": 3}')
        gate.release()
        await socket.speak_until(*SAID)
        while not socket.of("step"):
            await socket.until("step")
        words.append("apple")
        await socket.speak_until(*SAID, "apple")
        assert len(services.engine.jobs(ME)) == 1, "it is not interrupted by every word"
        socket.speak(False, 0.6)
        await socket.until("final")
        gate.release(1 + 3)
        await socket.until("kept")

    socket = talk(services, script)
    first, second = services.engine.jobs(ME)
    assert len(first.frames) < 3 and second.previous.prompt == "a red cat", "a pause is reason enough"
    assert [shown["prompt"] for shown in socket.of("picture")] == ["a red cat apple"]


def test_two_words_wait_for_a_pause(services: AppServices, words: list[str]):
    words[:] = ["red", "cat"]

    async def script(socket: Socket) -> None:
        await socket.speak_until("red", "cat")
        assert not services.engine.jobs(ME)
        socket.speak(False, 0.9)
        await socket.until("kept")

    assert [shown["prompt"] for shown in talk(services, script).of("picture")] == ["red cat"]


def test_a_pause_without_more_words_draws_once_and_the_next_sentence_begins_afresh(
    services: AppServices, words: list[str]
):
    async def script(socket: Socket) -> None:
        socket.tell('{"type": "settings", "steps": 2, "pause": 1.0}')
        for more in (True, False):
            socket.speak(True, 0.5)
            socket.speak(False, 0.25 if more else 1.2)
            await socket.until("words" if more else "kept")
        words[:] = ["two", "dogs"]
        socket.speak(True, 0.5)
        socket.speak(False, 1.2)
        await socket.until("kept")

    talk(services, script)
    first, second = services.engine.jobs(ME)
    assert (first.request.prompt, second.request.prompt) == ("a red cat", "two dogs")
    assert first.previous is second.previous is None and first.request.edit == second.request.edit == ""


def test_what_was_said_to_the_end_is_kept_even_if_the_page_is_closed(services: AppServices):
    async def script(socket: Socket) -> None:
        socket.speak(True, 0.6)
        socket.speak(False, 0.6)
        await socket.until("final")

    talk(services, script)
    (job,) = services.engine.jobs(ME)
    assert job.wait(SECONDS)
    for _ in range(100):
        if job.kept and services.gallery.entries(ME):
            return
        threading.Event().wait(0.05)
    raise AssertionError("it is not kept")


def test_a_sentence_is_kept_although_the_next_one_is_spoken_before_it_is_drawn(
    services: AppServices, gate: threading.Semaphore
):
    async def script(socket: Socket) -> None:
        socket.tell('{"type": "settings", "steps": 2}')
        for sentence in (1, 2):
            socket.speak(True, 0.6)
            socket.speak(False, 0.6)
            while len(socket.of("final")) < sentence:
                await socket.until("final")
        gate.release(4)
        while len(socket.of("kept")) < 2:
            await socket.until("kept")

    socket = talk(services, script)
    assert len(socket.of("picture")) == len(services.gallery.entries(ME)) == 2


def test_a_mode_that_the_model_has_not_is_said(services: AppServices):
    async def script(socket: Socket) -> None:
        socket.tell('{"type": "settings", "mode": "hybrid", "ar_tokens": 4}')
        socket.speak(True, 0.6)
        socket.speak(False, 0.6)
        await socket.until("final")
        while socket.down[-1]["type"] != "error":
            await asyncio.sleep(0.01)
        socket.tell('{"type": "settings", "mode": "mar", "ar_tokens": null}')
        socket.speak(True, 0.6)
        socket.speak(False, 0.6)
        await socket.until("kept")

    socket = talk(services, script)
    assert "no AR model" in socket.of("error")[0]["message"] and len(socket.of("picture")) == 1


def test_a_cough_draws_nothing(services: AppServices, words: list[str]):
    words.clear()

    async def script(socket: Socket) -> None:
        socket.speak(True, 0.3)
        socket.speak(False, 0.6)
        await socket.until("nothing")

    assert not talk(services, script).of("picture") and not services.gallery.entries(ME)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({"bytes": b"x" * 3}, "16-bit"),
        ({"bytes": bytes(live_protocol.MAX_FRAME + 2)}, "at most"),
        ({"text": "garbage"}, "reload"),
        ({"text": "[]"}, "reload"),
        ({"text": '{"type": "settings", "steps": 0}'}, "steps is 0"),
        ({"text": '{"type": "settings", "size": "big"}'}, "size"),
        ({"text": '{"type": "settings", "candidates": 5}'}, "5 candidates, and at most 4 while one speaks"),
        ({"text": '{"type": "settings", "pause": "x"}'}, "reload"),
        ({"text": '{"type": "other"}'}, "reload"),
        ({"text": '{"type": "settings", "steps": 1%s}' % ("0" * 400)}, "steps is far too large"),
        ({"text": '{"type": "settings", "guidance": 1%s}' % ("0" * 400)}, "reload"),
        ({"text": '{"type": "settings", "pause": 1%s}' % ("0" * 400)}, "reload"),
        ({"text": "[" * 60_000}, "reload"),
        ({"text": "x" * 2 * live_protocol.MAX_FRAME}, "reload"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_no_page_of_ours_sends_closes_the_socket(services: AppServices, message: dict, complaint: str):
    async def both() -> Socket:
        socket = Socket()
        socket.up.put_nowait({"type": "websocket.receive"} | message)
        await asyncio.wait_for(live_socket.serve_socket(socket, ME), SECONDS)
        return socket

    socket = asyncio.run(both())
    assert socket.code == 1008 and complaint in socket.of("error")[0]["message"]


class Clock:
    """Time that goes by as the test says."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(live_session, "monotonic", clock)
    return clock


class Tape(Socket):
    """A page that plays a recording in frames of 64 chunks, as fast as it is heard; the clock goes on with it."""

    def __init__(self, clock: Clock, pattern: str, chunks: int):
        super().__init__()
        self.clock, self.left = clock, chunks
        loud = np.array([letter == "x" for letter in (pattern * 64)[: 64 * len(pattern)]]) * 9000
        self.frames = [
            np.repeat(loud[i : i + 64], 512).astype("<i2").tobytes() for i in range(0, len(loud), 64)
        ]  # over and over
        self.played = 0

    async def receive(self) -> dict:
        if self.left <= 0:
            return await super().receive()
        self.left -= 64
        self.clock.now += 64 * 512 / RATE
        self.played += 1
        return {"type": "websocket.receive", "bytes": self.frames[self.played % len(self.frames)]}


def served(socket: Socket) -> Socket:
    """The socket after the server has done with it."""

    async def serve() -> None:
        await asyncio.wait_for(live_socket.serve_socket(socket, ME), SECONDS)

    asyncio.run(serve())
    return socket


MINUTES = 10 * 60 * RATE // 512  # ten, in chunks


def test_a_recording_of_ten_minutes_is_refused_when_it_is_over_the_limit(services: AppServices, clock: Clock):
    socket = served(Tape(clock, ".", MINUTES + 128))
    assert socket.code == 1008 and socket.played == MINUTES // 64 + 1
    assert socket.of("error") == [
        {"type": "error", "message": "10 minutes were heard: press the microphone again to go on"}
    ]


def test_sound_that_comes_faster_than_time_goes_by_is_refused(services: AppServices, clock: Clock):
    socket = Socket()
    socket.speak(False, live_protocol.MAX_AHEAD + 1)
    served(socket)
    assert socket.code == 1008 and "faster than anybody speaks" in socket.of("error")[0]["message"]
    assert (
        socket.up.qsize()
        == round((live_protocol.MAX_AHEAD + 1) * RATE / 512) - int(live_protocol.MAX_AHEAD * RATE / 512) - 1
    )


def test_a_page_that_sends_nothing_is_hung_up_on(services: AppServices, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live_session, "MAX_IDLE", 0.05)
    socket = served(Socket())
    assert socket.code == 1008 and "no sound came" in socket.of("error")[0]["message"] and not live_socket.sessions


def test_a_page_that_only_trickles_is_hung_up_on(services: AppServices, clock: Clock):
    class Trickle(Socket):
        async def receive(self) -> dict:
            clock.now += 29  # seconds
            await asyncio.sleep(0)
            return {"type": "websocket.receive", "bytes": bytes(2)}

    socket = served(Trickle())
    assert socket.code == 1008 and "10 minutes" in socket.of("error")[0]["message"]
    assert clock.now <= live_protocol.MAX_SECONDS + live_protocol.MAX_AHEAD + 2 * 29


@pytest.mark.parametrize(("pattern", "pause"), [("xxxxx....", 2.0), ("xxxxx" + "." * 11, 0.3)], ids=["pauses", "ends"])
def test_ten_minutes_of_choppy_sound_take_little_memory(
    services: AppServices, clock: Clock, monkeypatch: pytest.MonkeyPatch, pattern: str, pause: float
):
    """A recognizer that never gets on: orders that are overtaken go, and of utterances that are over few wait."""
    held, given, free = [], [], threading.Event()

    def words(recognizer: SpeechRecognizer, spoken: np.ndarray, guess=()) -> Transcript:
        given.append(spoken.nbytes)
        assert free.wait(SECONDS)
        return transcript(())

    class Watched(Tape):
        async def receive(self) -> dict:
            (session,) = live_socket.sessions
            chunks = sum(chunk.nbytes for chunk in session.listener._chunks)
            held.append(chunks + sum(order.audio.nbytes for order in session.pending))
            assert len(session.pending) <= live_session.MAX_PENDING_TRANSCRIPTIONS and len(session.tasks) < 20
            return await super().receive()

    monkeypatch.setattr(SpeechRecognizer, "transcribe_live", words)
    socket = Watched(clock, pattern, MINUTES - 64)
    socket.tell(json.dumps({"type": "settings", "pause": pause}))
    message, play = socket.up.get_nowait(), socket.receive  # the settings come before the tape

    async def receive() -> dict:
        socket.receive = play
        return message

    socket.receive = receive

    async def script() -> None:
        server = asyncio.ensure_future(live_socket.serve_socket(socket, ME))
        while socket.left > 0:
            await asyncio.sleep(0.01)
        free.set()
        socket.leave()
        await asyncio.wait_for(server, SECONDS)

    asyncio.run(script())
    whole = 29 * RATE * 4
    assert max(held) <= (live_session.MAX_PENDING_TRANSCRIPTIONS + 1) * whole < 10e6
    assert len(given) <= live_session.MAX_PENDING_TRANSCRIPTIONS + 1, (
        "what is said while the recognizer is busy is not all written down"
    )
    if pause < 1:
        assert any("a sentence was left out" in error["message"] for error in socket.of("error"))


def test_the_recognizer_and_voice_activity_are_not_on_the_event_loop(
    services: AppServices, monkeypatch: pytest.MonkeyPatch
):
    hearing, reading = set(), set()  # threads

    def note(chunk: np.ndarray) -> float:
        hearing.add(threading.current_thread())
        return float(np.abs(chunk).max() > 0.1)

    def words(recognizer: SpeechRecognizer, spoken: np.ndarray, guess=()) -> Transcript:
        reading.add(threading.current_thread())
        return transcript(SAID)

    monkeypatch.setattr(live_session, "StreamingTranscriber", lambda: StreamingTranscriber(note, QUICK))
    monkeypatch.setattr(SpeechRecognizer, "transcribe_live", words)

    async def script(socket: Socket) -> None:
        socket.speak(True, 0.6)
        socket.speak(False, 0.6)
        await socket.until("kept")

    talk(services, script)
    assert hearing and reading and not hearing & reading
    assert threading.main_thread() not in hearing | reading


def test_a_recognizer_that_fails_spoils_one_sentence(services: AppServices, monkeypatch: pytest.MonkeyPatch):
    answers = iter([RuntimeError("a bug"), SAID, SAID, SAID])

    def words(recognizer: SpeechRecognizer, spoken: np.ndarray, guess=()) -> Transcript:
        if isinstance(answer := next(answers), Exception):
            raise answer
        return transcript(answer)

    monkeypatch.setattr(SpeechRecognizer, "transcribe_live", words)

    async def script(socket: Socket) -> None:
        for type in ("nothing", "kept"):
            socket.speak(True, 0.2)
            socket.speak(False, 0.6)
            await socket.until(type)

    socket = talk(services, script)
    assert "was not written down (a bug)" in socket.of("error")[0]["message"] and len(socket.of("picture")) == 1


def test_a_model_that_is_loaded_for_one_visitor_holds_up_no_other(
    services: AppServices, model: TextToImage, monkeypatch: pytest.MonkeyPatch
):
    there = threading.Event()

    def find(name: str) -> TextToImage:
        assert there.wait(20)
        return model

    monkeypatch.setattr(services, "engine", LocalEngine(find))

    async def both() -> tuple[Socket, Socket]:
        one, other = Socket(), Socket()
        servers = [
            asyncio.ensure_future(live_socket.serve_socket(one, ME)),
            asyncio.ensure_future(live_socket.serve_socket(other, "you-1234567")),
        ]
        one.speak(True, 0.6)
        one.speak(False, 0.6)
        while not services.engine.models.loading:
            await asyncio.sleep(0.01)
        other.speak(True, 0.1)
        await other.until("start")
        assert not there.is_set() and not one.of("picture")
        there.set()
        while not one.of("kept"):
            await one.until("kept")
        one.leave(), other.leave()
        await asyncio.wait_for(asyncio.gather(*servers), SECONDS)
        return one, other

    asyncio.run(both())
    services.engine.close()


def test_two_at_once_do_not_see_each_others_words(services: AppServices, monkeypatch: pytest.MonkeyPatch):
    """Each has a voice of its own, and the recognizer writes down what that voice says."""

    def words(recognizer: SpeechRecognizer, spoken: np.ndarray, guess=()) -> Transcript:
        return transcript(("a", "red", "cat") if np.abs(spoken).max() < 0.5 else ("two", "blue", "dogs"))

    monkeypatch.setattr(SpeechRecognizer, "transcribe_live", words)

    async def talk(socket: Socket, owner: str, loudness: int) -> None:
        server = asyncio.ensure_future(live_socket.serve_socket(socket, owner))
        for sentence in (1, 2):
            for seconds, level in ((0.6, loudness), (1.0, 0)):
                for _ in range(round(seconds * RATE / 512)):
                    frame = np.full(512, level, "<i2").tobytes()
                    socket.up.put_nowait({"type": "websocket.receive", "bytes": frame})
                    await asyncio.sleep(0)
            while len(socket.of("kept")) < sentence:
                await socket.until("kept")
        socket.leave()
        await asyncio.wait_for(server, SECONDS)

    async def both() -> list[Socket]:
        sockets = [Socket(), Socket()]
        await asyncio.gather(talk(sockets[0], ME, 9000), talk(sockets[1], "you-1234567", 30000))
        return sockets

    one, other = asyncio.run(both())
    for socket, own, owner in ((one, "a red cat", ME), (other, "two blue dogs", "you-1234567")):
        assert [final["text"] for final in socket.of("final")] == [own, own]
        assert {picture["prompt"] for picture in socket.of("picture")} == {own}
        assert all(own.startswith(" ".join(words["committed"])) for words in socket.of("words"))
        assert [entry.prompt for entry in services.gallery.entries(owner)] == [own, own]
    jobs = [{message["job"] for message in socket.of("step") + socket.of("picture")} for socket in (one, other)]
    assert not jobs[0] & jobs[1]


def test_one_visitor_has_two_microphones_at_most(services: AppServices):
    async def three() -> list[Socket]:
        sockets = [Socket() for _ in range(4)]
        servers = []
        for i, socket in enumerate(sockets):
            servers.append(asyncio.ensure_future(live_socket.serve_socket(socket, ME if i < 3 else "you-1234567")))
            while not socket.down:
                await asyncio.sleep(0.01)
        for socket in sockets:
            socket.leave()
        await asyncio.wait_for(asyncio.gather(*servers), SECONDS)
        return sockets

    first, second, third, other = asyncio.run(three())
    assert first.of("ready") and second.of("ready") and other.of("ready")
    assert third.code == 1008 and "2 of your pages are listening already" in third.of("error")[0]["message"]


def test_a_full_disk_is_said_and_not_called_kept(services: AppServices, monkeypatch: pytest.MonkeyPatch):
    full = [True]

    def add(*picture: object):
        if full[0]:
            raise ValueError("the disk has 3 MB left and 64 MB stay free: delete something first")
        return add_to(*picture)

    add_to = services.gallery.add
    monkeypatch.setattr(services.gallery, "add", add)

    async def script(socket: Socket) -> None:
        for type in ("error", "kept"):
            socket.speak(True, 0.6)
            socket.speak(False, 0.6)
            await socket.until(type)
            full[0] = False

    socket = talk(services, script)
    (error,) = socket.of("error")
    assert error["message"].startswith("not kept in the gallery: the disk has 3 MB left")
    shown, kept = socket.of("picture"), socket.of("kept")
    assert len(shown) == 2 and [message["job"] for message in kept] == [shown[1]["job"]]
    assert len(services.gallery.entries(ME)) == 1


def test_whoever_stops_right_after_speaking_loses_nothing(services: AppServices):
    async def script(socket: Socket) -> None:
        socket.speak(True, 0.6)
        socket.tell('{"type": "end"}')
        while socket.code is None:
            await asyncio.sleep(0.01)

    socket = talk(services, script)
    assert socket.code == 1000 and [final["text"] for final in socket.of("final")] == ["a red cat"]
    assert [message["type"] for message in socket.down if isinstance(message, dict)][-1] == "kept"
    assert [entry.prompt for entry in services.gallery.entries(ME)] == ["a red cat"]


@pytest.mark.parametrize("seconds", [0.0, 0.04], ids=["silence", "click"])
def test_whoever_stops_without_a_word_is_hung_up_on_at_once(services: AppServices, seconds: float):
    async def script(socket: Socket) -> None:
        socket.speak(False, 0.6)
        socket.speak(True, seconds)
        socket.tell('{"type": "end"}')
        while socket.code is None:
            await asyncio.sleep(0.01)

    socket = talk(services, script)
    assert socket.code == 1000 and not socket.of("picture") and not services.engine.jobs(ME)


def test_a_page_that_goes_while_it_is_drawn_to_the_end_leaves_its_picture(services: AppServices):
    async def script(socket: Socket) -> None:
        async def closed(data: object) -> None:
            raise RuntimeError('Cannot call "send" once a close message has been sent.')

        socket.send_text = socket.send_bytes = closed
        socket.speak(True, 0.6)
        socket.tell('{"type": "end"}')
        while not services.gallery.entries(ME):
            await asyncio.sleep(0.01)

    assert not talk(services, script).of("final") and not live_socket.sessions


def test_sentences_that_are_still_drawn_are_all_kept_when_the_page_is_closed(
    services: AppServices, gate: threading.Semaphore
):
    async def script(socket: Socket) -> None:
        socket.tell('{"type": "settings", "steps": 2}')
        for sentence in (1, 2):
            socket.speak(True, 0.6)
            socket.speak(False, 0.6)
            while len(socket.of("final")) < sentence:
                await socket.until("final")

    talk(services, script)
    gate.release(4)
    for _ in range(SECONDS * 20):
        if len(services.gallery.entries(ME)) == 2:
            return
        threading.Event().wait(0.05)
    raise AssertionError(f"{len(services.gallery.entries(ME))} of 2 are kept")


def test_a_picture_remembers_how_it_was_made_and_all_settings_are_honoured(services: AppServices):
    told = {"negative": "a dog", "interval": [0.2, 0.8], "temperature": 0.5, "guidance": 3, "order": "halton"}
    told |= {"steps": 3, "sampler": "released", "size": "96x64", "model": "scenes", "candidates": 2}

    async def script(socket: Socket) -> None:
        for seed in (5, 5, None):
            socket.tell(json.dumps({"type": "settings", "seed": seed, **told}))
            socket.speak(True, 0.6)
            socket.speak(False, 0.6)
            await socket.until("kept")

    socket = talk(services, script)
    requests = [read_picture(socket.down[socket.down.index(shown) + 1])[1] for shown in socket.of("picture")]
    told |= {"size": (96, 64)}
    expected = GenerationRequest.read({"prompt": "a red cat", "seed": 5, **told})
    assert requests[:2] == [expected, expected] and requests[2].seed != 5, "chance has its way again"
    assert [entry.request for entry in services.gallery.entries(ME)] == requests[::-1]


@pytest.mark.parametrize(
    ("told", "usual"), [(None, "default"), ({}, "default"), ({"sampler": "released"}, "reference")]
)
def test_settings_that_are_left_out_are_as_usual_for_their_sampler(
    services: AppServices, told: dict | None, usual: str
):
    async def script(socket: Socket) -> None:
        if told is not None:
            socket.tell(json.dumps({"type": "settings", **told}))
        socket.speak(True, 0.6)
        socket.speak(False, 0.6)
        await socket.until("kept")

    talk(services, script)
    (entry,) = services.gallery.entries(ME)
    assert entry.request is not None
    assert entry.request.params == SAMPLERS[usual]


@pytest.mark.parametrize("final", [False, True])
def test_a_guess_that_is_on_its_way_when_the_page_is_closed_is_not_drawn(
    services: AppServices, monkeypatch: pytest.MonkeyPatch, gate: threading.Semaphore, final: bool
):
    """A model may take long to load. What was said to the end is drawn all the same."""
    submit, asked, there = services.engine.submit, threading.Event(), threading.Event()

    def slow(*request: object, **more: object):
        asked.set()
        assert there.wait(SECONDS)
        return submit(*request, **more)

    monkeypatch.setattr(services.engine, "submit", slow)

    async def leave() -> None:
        session = live_session.LiveSession(Socket(), ME, services)
        session.spawn(session.draw(SAID, final))
        await asyncio.to_thread(asked.wait, SECONDS)
        session.stop()
        there.set()

    asyncio.run(leave())
    gate.release(100)
    (job,) = services.engine.jobs(ME)
    assert job.wait(SECONDS) and job.status is (Status.DONE if final else Status.CANCELLED)


@pytest.mark.parametrize("guessed", [False, True])
def test_what_was_said_to_the_end_is_kept_although_all_threads_are_busy_when_the_page_is_closed(
    services: AppServices, gate: threading.Semaphore, guessed: bool
):
    free = threading.Event()

    async def leave() -> None:
        session = live_session.LiveSession(Socket(), ME, services)
        if guessed:
            await session.draw(SAID)
        busy = ThreadPoolExecutor(1)
        busy.submit(free.wait, SECONDS)
        asyncio.get_running_loop().set_default_executor(busy)
        session.spawn(session.draw(SAID, final=True))
        await asyncio.sleep(0)
        session.stop()
        await asyncio.sleep(0)
        free.set()

    asyncio.run(leave())
    gate.release(100)
    (job,) = services.engine.jobs(ME)
    assert job.wait(SECONDS)
    for _ in range(SECONDS * 20):
        if job.kept and services.gallery.entries(ME):
            return
        threading.Event().wait(0.05)
    raise AssertionError("it is not kept")


@pytest.mark.parametrize(
    ("headers", "owner"),
    [
        ({"origin": "http://elsewhere", "host": "studio:8501"}, ME),
        ({"origin": "http://studio:8501.evil.example", "host": "studio:8501"}, ME),
        ({"host": "studio:8501"}, ME),
        (HEADERS, None),
    ],
)
def test_another_sites_page_is_not_let_in(services: AppServices, headers: dict, owner: str | None):
    async def both() -> Socket:
        socket = Socket(headers)
        await live_socket.serve_socket(socket, owner)
        return socket

    socket = asyncio.run(both())
    assert socket.code == 4403 and not socket.accepted


def test_a_crowd_is_told_to_wait(services: AppServices, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live_socket, "MAX_SOCKETS", 0)

    async def both() -> Socket:
        socket = Socket()
        await live_socket.serve_socket(socket, ME)
        return socket

    socket = asyncio.run(both())
    assert socket.code == 1008 and "try again" in socket.of("error")[0]["message"]


def test_who_has_said_all_takes_a_place_until_all_is_written_down(
    services: AppServices, monkeypatch: pytest.MonkeyPatch
):
    """Or one could speak for ten seconds, end, and come again, without end."""
    monkeypatch.setattr(live_socket, "MAX_SOCKETS", 1)
    monkeypatch.setattr(live_socket, "MAX_ENDING", 1)

    async def come(ending: int) -> Socket:
        sessions = [live_session.LiveSession(Socket(), f"somebody-{i}", services) for i in range(ending)]
        for session in sessions:
            session.ending = True
        monkeypatch.setattr(live_socket, "sessions", set(sessions))
        socket = Socket()
        socket.leave()
        await live_socket.serve_socket(socket, ME)
        return socket

    assert asyncio.run(come(1)).of("ready")
    assert "try again" in asyncio.run(come(2)).of("error")[0]["message"]


def test_a_recognizer_that_is_missing_says_so(services: AppServices, monkeypatch: pytest.MonkeyPatch):
    def missing(self) -> None:
        raise ValueError("no recognizer 'nobody': take another")

    monkeypatch.setattr(SpeechRecognizer, "load", missing)

    async def both() -> Socket:
        socket = Socket()
        await live_socket.serve_socket(socket, ME)
        return socket

    socket = asyncio.run(both())
    assert socket.code == 1008 and "no recognizer" in socket.of("error")[0]["message"]


def test_a_spoken_change_draws_the_last_prompt_changed(services: AppServices, words: list[str]):
    """With the seed of the last picture; "undo" shows that one again, "start over" forgets it."""

    async def script(socket: Socket) -> None:
        socket.tell('{"type": "settings", "steps": 2}')
        for said, answer in (
            ("a cat", "kept"),
            ("make it red", "kept"),
            ("and an apple", "kept"),
            ("undo", "undone"),
            ("another one", "kept"),
            ("start over", "cleared"),
            ("an apple", "kept"),
        ):
            words[:] = said.split()
            waiting = asyncio.ensure_future(socket.until(answer))
            await asyncio.sleep(0)
            socket.speak(True, 0.4)
            socket.speak(False, 0.6)
            await waiting
        socket.leave()

    socket = talk(services, script)
    kept = {message["job"] for message in socket.of("kept")}
    images = [message for message in socket.of("picture") if message["job"] in kept]
    prompts = ["a cat", "a red cat", "a red cat and an apple", "a red cat", "an apple"]
    assert [image["prompt"] for image in images] == prompts
    assert [image["reading"]["prompt"] for image in images] == prompts
    first, second, third, again, fresh = (image["seed"] for image in images)
    assert first == second == third and len({third, again, fresh}) == 3
    (undone,) = socket.of("undone")
    assert undone["job"] == images[1]["job"] and undone["prompt"] == "a red cat"
    assert socket.of("final")[1] == {"type": "final", "text": "make it red", "prompt": "a red cat"}


def test_what_was_not_understood_is_not_drawn(services: AppServices, words: list[str], monkeypatch: pytest.MonkeyPatch):
    guess = Transcript("knot a dock", ("knot", "a", "dock"), False, "a guess", understood=False)
    monkeypatch.setattr(SpeechRecognizer, "transcribe_live", lambda self, spoken, guess_=(): guess)

    async def script(socket: Socket) -> None:
        socket.speak(True, 0.2)
        socket.speak(False, 0.6)
        await socket.until("unsure")
        socket.leave()

    socket = talk(services, script)
    assert socket.of("unsure") == [{"type": "unsure", "text": "knot a dock", "reason": "I did not understand that."}]
    assert not services.engine.jobs(ME) and not socket.of("final")


def test_words_that_are_guesses_are_not_drawn_while_one_speaks(
    services: AppServices, words: list[str], monkeypatch: pytest.MonkeyPatch
):
    guess = Transcript("knot a red dock", ("knot", "a", "red", "dock"), False, "a guess", understood=False)
    monkeypatch.setattr(SpeechRecognizer, "transcribe_live", lambda self, spoken, guess_=(): guess)

    async def script(socket: Socket) -> None:
        for _ in range(5):
            socket.speak(True, 0.4)
            await socket.until("words")
        assert socket.of("words")[-1]["committed"] == list(guess.words)
        socket.leave()

    socket = talk(services, script)
    assert not services.engine.jobs(ME) and not socket.of("picture")
