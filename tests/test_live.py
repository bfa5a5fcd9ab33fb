"""The microphone's socket: words and pictures while one speaks, and a closed door for everything else."""

import asyncio
import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from app_fixtures import tiny_model
from PIL import Image

from app import live
from app.ear import Ear
from app.engine import Engine
from app.gallery import Gallery
from app.house import House
from app.lane import Lane
from maskgil.pipeline import TextToImage
from speech.audio import RATE
from speech.listener import Listener

ME = "me-1234567"
SECONDS = 120
HEADERS = {"origin": "http://studio:8501", "host": "studio:8501"}
SAID = ("a", "red", "cat")


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
    return TextToImage.load(tiny_model(Path(tmp_path_factory.mktemp("weights")) / "scenes"))


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the recogniser will write down, whatever it hears."""
    words = list(SAID)
    monkeypatch.setattr(Ear, "load", lambda self: None)
    monkeypatch.setattr(Ear, "words", lambda self, spoken: tuple(words))
    monkeypatch.setattr(live, "Listener", lambda: Listener(lambda chunk: float(np.abs(chunk).max() > 0.1)))
    return words


@pytest.fixture
def house(model: TextToImage, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch):
    engine = Engine(lambda name: model)
    house = House(engine, Ear("nobody"), Gallery(tmp_path / "gallery"))
    monkeypatch.setattr(live, "house", lambda: house)
    monkeypatch.setattr(live.catalogue, "find", lambda name: Known())
    yield house
    engine.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """The engine makes one step for each release."""
    gate, together = threading.Semaphore(0), Lane._together

    def gated(lane: Lane, sketches: list) -> None:
        gate.acquire(timeout=SECONDS)
        together(lane, sketches)

    monkeypatch.setattr(Lane, "_together", gated)
    return gate


class Known:
    """A catalogue entry that knows three words."""

    class vocabulary:
        @staticmethod
        def unknown(prompt: str) -> list[str]:
            return [word for word in prompt.split() if word not in SAID]


def talk(house: House, script) -> Socket:
    """Run a script of what one visitor does, with the server at the other end."""

    async def both() -> Socket:
        socket = Socket()
        server = asyncio.ensure_future(live.serve(socket, ME))
        await socket.until("ready") if not socket.of("ready") else None
        await script(socket)
        socket.leave()
        await asyncio.wait_for(server, SECONDS)
        return socket

    return asyncio.run(both())


def test_speech_becomes_words_and_a_picture_that_is_kept(house: House):
    async def script(socket: Socket) -> None:
        socket.tell('{"type": "settings", "steps": 3, "size": "96x64", "seed": 5}')
        socket.speak(True, 0.6)
        socket.speak(False, 0.6)
        await socket.until("kept")

    socket = talk(house, script)
    assert socket.of("start") and socket.of("final") == [{"type": "final", "text": "a red cat"}]
    (shown,) = socket.of("picture")
    assert (shown["prompt"], shown["seed"], shown["unknown"]) == ("a red cat", 5, [])
    png = socket.down[socket.down.index(shown) + 1]
    assert isinstance(png, bytes) and Image.open(io.BytesIO(png)).size == (96, 64)
    (entry,) = house.gallery.entries(ME)
    assert entry.prompt == "a red cat" and entry.request is not None and entry.request.steps == 3


def test_a_drawing_begins_at_a_pause_and_grows_when_more_words_come(house: House, words: list[str]):
    async def script(socket: Socket) -> None:
        socket.tell('{"type": "settings", "steps": 2, "pause": 1.0}')
        socket.speak(True, 0.5)
        socket.speak(False, 0.25)  # a pause, not the end
        await socket.until("picture")
        words.extend(["and", "a", "dog"])
        socket.speak(True, 0.5)
        socket.speak(False, 1.2)
        await socket.until("kept")

    socket = talk(house, script)
    assert [shown["prompt"] for shown in socket.of("picture")] == ["a red cat", "a red cat and a dog"]
    assert [entry.prompt for entry in house.gallery.entries(ME)] == ["a red cat and a dog"], "a guess is not kept"
    assert socket.of("picture")[1]["unknown"] == ["and", "dog"]
    first, *_, last = house.engine.jobs(ME)
    assert first.earlier is None and last.earlier is not None, "the second goes on from the canvas of the first"
    assert house.gallery.entries(ME)[0].request.edit == f"grown out of “{last.earlier.prompt}”"


def test_three_words_that_no_longer_change_are_drawn_while_one_speaks_on(house: House, words: list[str]):
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

    socket = talk(house, script)
    assert [shown["prompt"] for shown in socket.of("picture")] == ["a red cat", "a red cat apple"]
    first, second = house.engine.jobs(ME)
    assert first.earlier is None and second.earlier.prompt == "a red cat", "the last words were drawn already"


def test_more_words_wait_for_the_picture_of_fewer_until_there_is_a_pause(
    house: House, words: list[str], gate: threading.Semaphore
):
    async def script(socket: Socket) -> None:
        socket.tell('{"type": "settings", "steps": 3}')
        gate.release()
        await socket.speak_until(*SAID)
        while not socket.of("step"):
            await socket.until("step")
        words.append("apple")
        await socket.speak_until(*SAID, "apple")
        assert len(house.engine.jobs(ME)) == 1, "it is not interrupted by every word"
        socket.speak(False, 0.6)
        await socket.until("final")
        gate.release(1 + 3)
        await socket.until("kept")

    socket = talk(house, script)
    first, second = house.engine.jobs(ME)
    assert len(first.frames) < 3 and second.earlier.prompt == "a red cat", "a pause is reason enough"
    assert [shown["prompt"] for shown in socket.of("picture")] == ["a red cat apple"]


def test_two_words_wait_for_a_pause(house: House, words: list[str]):
    del words[2:]

    async def script(socket: Socket) -> None:
        await socket.speak_until("a", "red")
        assert not house.engine.jobs(ME)
        socket.speak(False, 0.6)
        await socket.until("kept")

    assert [shown["prompt"] for shown in talk(house, script).of("picture")] == ["a red"]


def test_a_pause_without_more_words_draws_once_and_the_next_sentence_begins_afresh(house: House, words: list[str]):
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

    talk(house, script)
    first, second = house.engine.jobs(ME)
    assert (first.request.prompt, second.request.prompt) == ("a red cat", "two dogs")
    assert first.earlier is second.earlier is None and first.request.edit == second.request.edit == ""


def test_what_was_said_to_the_end_is_kept_even_if_the_page_is_closed(house: House):
    async def script(socket: Socket) -> None:
        socket.speak(True, 0.6)
        socket.speak(False, 0.6)
        await socket.until("final")

    talk(house, script)
    (job,) = house.engine.jobs(ME)
    assert job.wait(SECONDS)
    for _ in range(100):
        if job.kept and house.gallery.entries(ME):
            return
        threading.Event().wait(0.05)
    raise AssertionError("it is not kept")


def test_a_sentence_is_kept_although_the_next_one_is_spoken_before_it_is_drawn(house: House, gate: threading.Semaphore):
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

    socket = talk(house, script)
    assert len(socket.of("picture")) == len(house.gallery.entries(ME)) == 2


def test_a_mode_that_the_model_has_not_is_said(house: House):
    async def script(socket: Socket) -> None:
        socket.tell('{"type": "settings", "mode": "hybrid", "ar_tokens": 4}')
        socket.speak(True, 0.6)
        socket.speak(False, 0.6)
        await socket.until("error")
        socket.tell('{"type": "settings", "mode": "mar", "ar_tokens": null}')
        socket.speak(True, 0.6)
        socket.speak(False, 0.6)
        await socket.until("kept")

    socket = talk(house, script)
    assert "no autoregressive twin" in socket.of("error")[0]["message"] and len(socket.of("picture")) == 1


def test_a_cough_draws_nothing(house: House, words: list[str]):
    words.clear()

    async def script(socket: Socket) -> None:
        socket.speak(True, 0.3)
        socket.speak(False, 0.6)
        await socket.until("nothing")

    assert not talk(house, script).of("picture") and not house.gallery.entries(ME)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({"bytes": b"x" * 3}, "16-bit"),
        ({"bytes": bytes(live.MAX_FRAME + 2)}, "at most"),
        ({"text": "garbage"}, "reload"),
        ({"text": "[]"}, "reload"),
        ({"text": '{"type": "settings", "steps": 0}'}, "steps is 0"),
        ({"text": '{"type": "settings", "size": "big"}'}, "size"),
        ({"text": '{"type": "settings", "pause": "x"}'}, "reload"),
        ({"text": '{"type": "other"}'}, "reload"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_no_page_of_ours_sends_closes_the_socket(house: House, message: dict, complaint: str):
    async def both() -> Socket:
        socket = Socket()
        socket.up.put_nowait({"type": "websocket.receive"} | message)
        await asyncio.wait_for(live.serve(socket, ME), SECONDS)
        return socket

    socket = asyncio.run(both())
    assert socket.code == 1008 and complaint in socket.of("error")[0]["message"]


def test_ten_minutes_and_faster_than_speech_are_refused(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "MAX_SECONDS", 1.0)

    async def both() -> Socket:
        socket = Socket()
        socket.speak(False, 1.2)
        await asyncio.wait_for(live.serve(socket, ME), SECONDS)
        return socket

    socket = asyncio.run(both())
    assert socket.code == 1008 and "press the microphone again" in socket.of("error")[0]["message"]


@pytest.mark.parametrize(
    ("headers", "owner"),
    [
        ({"origin": "http://elsewhere", "host": "studio:8501"}, ME),
        ({"origin": "http://studio:8501.evil.example", "host": "studio:8501"}, ME),
        ({"host": "studio:8501"}, ME),
        (HEADERS, None),
    ],
)
def test_another_sites_page_is_not_let_in(house: House, headers: dict, owner: str | None):
    async def both() -> Socket:
        socket = Socket(headers)
        await live.serve(socket, owner)
        return socket

    socket = asyncio.run(both())
    assert socket.code == 4403 and not socket.accepted


def test_a_crowd_is_told_to_wait(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "MAX_SOCKETS", 0)

    async def both() -> Socket:
        socket = Socket()
        await live.serve(socket, ME)
        return socket

    socket = asyncio.run(both())
    assert socket.code == 1008 and "try again" in socket.of("error")[0]["message"]


def test_a_recogniser_that_is_missing_says_so(house: House, monkeypatch: pytest.MonkeyPatch):
    def missing(self) -> None:
        raise ValueError("no recogniser 'nobody': take another")

    monkeypatch.setattr(Ear, "load", missing)

    async def both() -> Socket:
        socket = Socket()
        await live.serve(socket, ME)
        return socket

    socket = asyncio.run(both())
    assert socket.code == 1008 and "no recogniser" in socket.of("error")[0]["message"]
