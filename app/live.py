"""Speak, and watch: one WebSocket carries a microphone up, and words and pictures down.

Up:    binary frames of 16 kHz mono int16 samples, and JSON texts {"type": "settings", ...}.
Down:  JSON texts, by "type":
         ready, start, words {committed, pending}, final {text}, nothing {reason}, error {message},
         step {job, step, of} and picture {job, seed, prompt, unknown}: a PNG follows each of these as a binary frame;
         kept {job}: that picture's words turned out to be all, and it is in the gallery.

A drawing begins at a pause, or once three words no longer change, before the sentence is known to be over. If no more
words come it is already on its way, or done. If speech goes on it goes on too. The next drawing begins from its canvas
(maskgil/repaint.py), so that the picture grows with the words: once it is done and more words are stable, or at the
next pause, where it ends as it is if other words were said.
"""

import asyncio
import json
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np

from app import catalogue, picture, places
from app.engine import Job, Status
from app.house import House, house
from app.request import Request, any_seed, parse_size
from speech.activity import CHUNK
from speech.audio import RATE
from speech.listener import Final, Hear, Listener, Partial, Pause, Resume, Start, Timing

MAX_FRAME = 2**16  # bytes of one message
MAX_SECONDS = 600.0  # of sound over one socket
MAX_SOCKETS = 8
MAX_QUEUED = 2 * RATE * 8  # bytes of sound that may wait to be heard: eight seconds
STABLE_WORDS = 3
# Those that go to the request as such.
SETTINGS = ("model", "steps", "guidance", "seed", "order", "sampler", "mode", "ar_tokens")

_open: set["Session"] = set()
_decoder = ThreadPoolExecutor(1, thread_name_prefix="ear")


@runtime_checkable
class WebSocket(Protocol):
    """What is used of starlette's."""

    scope: Any
    headers: Any

    async def accept(self) -> None: ...
    async def receive(self) -> Any: ...
    async def send_text(self, data: str) -> None: ...
    async def send_bytes(self, data: bytes) -> None: ...
    async def close(self, code: int = 1000, reason: str | None = None) -> None: ...


def same_origin(headers: Any) -> bool:
    """Whether the page that opened the socket came from this very host: another site may not use a visitor's cookie."""
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] == headers.get("host")


async def serve(socket: WebSocket, owner: str | None) -> None:
    """One visitor's microphone until it is closed."""
    if not same_origin(socket.headers) or owner is None:
        await socket.close(4403, "open the studio's own page first")
        return
    await socket.accept()
    if len(_open) >= MAX_SOCKETS:
        await _refuse(socket, f"{MAX_SOCKETS} people are speaking already: try again in a minute")
        return
    session = Session(socket, owner, house())
    _open.add(session)
    try:
        await session.run()
    except Refused as refusal:
        await _refuse(socket, str(refusal))
    finally:
        _open.discard(session)
        session.stop()


class Refused(Exception):
    """The socket did what it must not; the message says what."""


class Session:
    """One socket: its listener, and the drawing that its latest words asked for."""

    def __init__(self, socket: WebSocket, owner: str, house: House):
        self.socket, self.owner, self.house = socket, owner, house
        self.settings: dict[str, Any] = {"model": places.model()}
        self.listener = Listener()
        self.sound = bytearray()
        self.heard = 0  # bytes
        self.job: Job | None = None
        self.seed = any_seed()
        self.final: set[str] = set()  # jobs whose words are known to be all
        self.sent: set[str] = set()  # jobs whose picture the page has
        self.sending = asyncio.Lock()
        self.tasks: set[asyncio.Task] = set()

    async def run(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(_decoder, self.house.ear.load)
        except ValueError as error:
            raise Refused(str(error)) from None
        await self.say(type="ready", rate=RATE)
        while (message := await self.socket.receive())["type"] != "websocket.disconnect":
            if (data := message.get("bytes")) is not None:
                await self.hear(data)
            elif (text := message.get("text")) is not None:
                await self.configure(text)

    def stop(self) -> None:
        """The visitor left: a guess is not drawn to its end; what was said to the end is, and is kept."""
        for task in self.tasks:
            task.cancel()
        job, self.job = self.job, None
        if job is not None and job.id in self.final:
            job.on_change(lambda: self.house.keep(job) if job.status is Status.DONE else None)
        elif job is not None:
            job.cancel()

    async def hear(self, data: bytes) -> None:
        if len(data) > MAX_FRAME or len(data) % 2:
            raise Refused(f"a frame of {len(data)} bytes: send 16-bit samples, at most {MAX_FRAME} bytes at a time")
        self.heard += len(data)
        if self.heard > MAX_SECONDS * RATE * 2:
            raise Refused(f"{MAX_SECONDS / 60:.0f} minutes were heard: press the microphone again to go on")
        self.sound += data
        if len(self.sound) > MAX_QUEUED:
            raise Refused("sound comes faster than anybody speaks: send it as it is recorded")
        while len(self.sound) >= 2 * CHUNK:
            chunk = np.frombuffer(bytes(self.sound[: 2 * CHUNK]), "<i2").astype(np.float32) / 32768
            del self.sound[: 2 * CHUNK]
            for event in self.listener.feed(chunk):
                await self.obey(event)

    async def configure(self, text: str) -> None:
        """Settings of the drawings to come. Raises Refused for what no page of ours sends."""
        try:
            wish = json.loads(text[:MAX_FRAME])
            assert wish["type"] == "settings"
            known = {key: wish[key] for key in SETTINGS if key in wish}
            if wish.get("size"):
                known["size"] = parse_size(wish["size"])
            Request.from_dict({"prompt": "a try", "seed": 0, **self.settings, **known})
            end = min(2.0, max(0.2, float(wish.get("pause", 0.3))))
        except (ValueError, TypeError, KeyError, AssertionError, AttributeError) as error:
            raise Refused(f"settings that cannot be read ({error}): reload the page") from None
        self.settings |= known
        self.listener.timing = Timing(end=end)

    async def obey(self, event: Any) -> None:
        """What one event of the listener means for the page and for the drawing."""
        match event:
            case Start():
                await self.say(type="start", at=event.at)
            case Hear():
                self.later(self.write_down(event))
            case Partial():
                await self.say(type="words", committed=event.committed, pending=event.pending)
                # A picture of fewer words is drawn to its end meanwhile: one that every word interrupts gets nowhere.
                busy = self.guess and not self.job.over
                if not busy and len(event.committed) >= max(STABLE_WORDS, len(self.guess) + 1):
                    self.draw(event.committed)
            case Pause():
                await self.say(type="words", committed=event.words, pending=())
                self.draw(event.words)
            case Resume():
                pass  # the guess may yet be right, and what is drawn of it is where the next one begins
            case Final() if event.words:
                await self.say(type="final", text=" ".join(event.words))
                self.draw(event.words, final=True)
            case Final():
                self.drop()
                await self.say(type="nothing", reason="no words could be made out: say it again")

    async def write_down(self, order: Hear) -> None:
        loop = asyncio.get_running_loop()
        words = await loop.run_in_executor(_decoder, self.house.ear.words, order.audio)
        for event in self.listener.heard(order, words):
            await self.obey(event)

    @property
    def guess(self) -> tuple[str, ...]:
        """The words of the utterance that is being spoken, as far as they are drawn."""
        return () if self.job is None or self.job.id in self.final else tuple(self.job.request.prompt.split())

    def draw(self, words: Sequence[str], final: bool = False) -> None:
        """See that these words, and no others, are being drawn."""
        prompt = " ".join(words)
        if not prompt:
            return
        if tuple(words) != self.guess:
            before = self.job if self.guess else None
            self.drop()
            try:
                request = Request.from_dict({"seed": self.seed, **self.settings, "prompt": prompt})
                self.job = self.house.engine.submit(request, self.owner, after=before)
            except ValueError as error:
                self.later(self.say(type="error", message=str(error)))
                return
            self.later(self.show(self.job))
        if final:
            self.final.add(self.job.id)
            self.seed = any_seed()
            if self.job.id in self.sent:
                self.later(self.settle(self.job))

    def drop(self) -> None:
        """Cancel the drawing of words that turned out not to be all, or none."""
        if self.job is not None and self.job.id not in self.final:
            self.job.cancel()
            self.job = None

    async def show(self, job: Job) -> None:
        """Send a drawing's steps and its picture as they come; a step that nobody could see in time is left out."""
        changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        job.on_change(lambda: loop.call_soon_threadsafe(changed.set))
        shown = 0
        while not job.over:
            await changed.wait()
            changed.clear()
            last = (job.shown or [-1])[-1]
            if last >= shown and not job.over:
                shown, frame = last + 1, job.frames[last]
                image = (await asyncio.to_thread(job.preview, last))[0]
                if self.job is job and not job.over:
                    await self.say(image, type="step", job=job.id, step=frame.step, of=frame.of)
        if job.status is Status.FAILED:
            await self.say(type="error", message=job.error)
        elif job.status is Status.DONE and (self.job is job or job.id in self.final):
            unknown = catalogue.find(job.request.model).vocabulary.unknown(job.request.prompt)
            request = job.request
            await self.say(
                job.pictures()[0], type="picture", job=job.id, seed=request.seed, prompt=request.prompt, unknown=unknown
            )
            self.sent.add(job.id)
            if job.id in self.final:
                await self.settle(job)

    async def settle(self, job: Job) -> None:
        """Its words are all and its picture is there: keep it."""
        await asyncio.to_thread(self.house.keep, job)
        await self.say(type="kept", job=job.id)

    async def say(self, image: Any = None, **message: Any) -> None:
        data = None if image is None else await asyncio.to_thread(picture.png, image)
        async with self.sending:
            await self.socket.send_text(json.dumps(message))
            if data is not None:
                await self.socket.send_bytes(data)

    def later(self, work: Coroutine) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # a socket that closed while its picture was on the way is no news


async def _refuse(socket: WebSocket, reason: str) -> None:
    try:
        await socket.send_text(json.dumps({"type": "error", "message": reason}))
        await socket.close(1008, reason[:120])
    except RuntimeError:
        return  # it closed first
