"""Speak, and watch: one WebSocket carries a microphone up, and words and pictures down.

Up:    binary frames of 16 kHz mono int16 samples, and JSON texts:
         {"type": "settings", ...}: those of the drawings to come, all of them each time. Of several candidates the
         first is seen to grow, and then the one that was chosen;
         {"type": "end"}: nothing more will be said. What was said is heard, drawn and kept; then the socket is closed.
Down:  JSON texts, by "type":
         ready, start, words {committed, pending}, final {text}, nothing {reason}, error {message},
         step {job, step, of} and picture {job, seed, prompt, unknown}: a PNG follows each of these as a binary frame,
         that of a picture with its settings inside; kept {job}: that picture's words turned out to be all, and it is
         in the gallery.

A drawing begins at a pause, or once three words no longer change, before the sentence is known to be over. If no more
words come it is already on its way, or done. If speech goes on it goes on too. The next drawing begins from its canvas
(maskgil/repaint.py), so that the picture grows with the words: once it is done and more words are stable, or at the
next pause, where it ends as it is if other words were said.

A socket is bounded in time: ten minutes, sound no more than ten seconds ahead of the clock, a minute without any.
And in memory: at most six utterances of 29 s of float32 (the one that is spoken, four that wait to be written down and
one that is), which is 11 MB, and 178 MB for eight who speak and eight who have said all. Orders to write down what has
gone on since are skipped.
Nothing here may hold up the event loop, which serves every page: voice activity, recogniser, models and disk have
threads.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, Protocol, runtime_checkable

import numpy as np
from starlette.websockets import WebSocketDisconnect

from app import catalogue, picture, places
from app.engine import Job, Status
from app.house import House, house
from app.request import MAX_SPOKEN, SAMPLERS, Request, any_seed, parse_size
from app.server import same_origin
from speech.activity import CHUNK
from speech.audio import RATE
from speech.listener import Event, Final, Hear, Listener, Partial, Pause, Resume, Start, Timing

log = logging.getLogger(__name__)

MAX_FRAME = 2**16  # bytes of one message
MAX_SECONDS = 600.0  # of one socket
MAX_AHEAD = 10.0  # seconds that sound may be ahead of the clock: what a network held back comes at once
MAX_IDLE = 60.0  # seconds without a message: a page that listens sends one every 32 ms
MAX_SOCKETS = 8
MAX_ENDING = 8  # more, whose visitors have said all: what they said is still written down and drawn
MAX_EACH = 2  # sockets of one visitor
MAX_ORDERS = 4  # utterances of one socket that wait to be written down
STABLE_WORDS = 3
# Those that go to the request as such; None leaves a setting as it usually is, and a seed to chance.
SETTINGS = ("model", "steps", "guidance", "interval", "temperature", "negative", "seed", "order", "sampler")
SETTINGS += ("mode", "ar_tokens", "revisions", "candidates")

_open: set["Session"] = set()
_activity = ThreadPoolExecutor(1, thread_name_prefix="activity")
_decoder = ThreadPoolExecutor(1, thread_name_prefix="ear")
_keeper = ThreadPoolExecutor(1, thread_name_prefix="keeper")


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


async def serve(socket: WebSocket, owner: str | None) -> None:
    """One visitor's microphone until it is closed."""
    if not same_origin(socket.headers) or owner is None:
        await socket.close(4403, "open the studio's own page first")
        return
    await socket.accept()
    rooms = await asyncio.to_thread(house)
    speaking = [session for session in _open if not session.ending]
    if sum(session.owner == owner for session in speaking) >= MAX_EACH:
        await _refuse(socket, f"{MAX_EACH} of your pages are listening already: stop one of them first")
        return
    if len(speaking) >= MAX_SOCKETS or len(_open) >= MAX_SOCKETS + MAX_ENDING:
        await _refuse(socket, f"{MAX_SOCKETS} people are speaking already: try again in a minute")
        return
    session = Session(socket, owner, rooms)
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
        self.settings = _settings({})
        self.listener = Listener()
        self.began = monotonic()
        self.sound = bytearray()  # less than a chunk
        self.heard = 0  # bytes
        self.orders: deque[Hear] = deque()
        self.writing = False
        self.job: Job | None = None
        self.seed = any_seed()
        self.final: set[str] = set()  # jobs whose words are known to be all
        self.sent: set[str] = set()  # jobs whose picture the page has
        self.turn, self.sending = asyncio.Lock(), asyncio.Lock()
        self.tasks: set[asyncio.Task] = set()
        self.ending = self.gone = self.stopped = False  # no more is heard; nobody is there; nothing more is done

    async def run(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(_decoder, self.house.ear.load)
        except ValueError as error:
            raise Refused(str(error)) from None
        await self.say(type="ready", rate=RATE)
        while (message := await self.next())["type"] != "websocket.disconnect":
            if (data := message.get("bytes")) is not None:
                await self.hear(data)
            elif (text := message.get("text")) is not None and self.told(text):
                await self.finish()
                return

    async def next(self) -> Any:
        """The next message. Raises Refused when none comes, or time is up."""
        if monotonic() > self.began + MAX_SECONDS + MAX_AHEAD:  # it only trickles
            raise Refused(_over())
        try:
            async with asyncio.timeout(MAX_IDLE):
                return await self.socket.receive()
        except TimeoutError:
            raise Refused(f"no sound came for {MAX_IDLE:.0f} s: press the microphone again to go on") from None

    async def finish(self) -> None:
        """Nothing more will be said: what was is heard, drawn and kept before the socket is closed."""
        self.ending = True
        await self.obey(list(self.listener.flush()))
        while self.tasks:
            await asyncio.wait(self.tasks)
        if not self.gone:
            await self.socket.close(1000)

    def stop(self) -> None:
        """The visitor left: a guess is not drawn to its end. What was said to the end is, and is kept (`draw`)."""
        self.stopped = True
        for task in self.tasks:
            task.cancel()
        self.drop()

    async def hear(self, data: bytes) -> None:
        if len(data) > MAX_FRAME or len(data) % 2:
            raise Refused(f"a frame of {len(data)} bytes: send 16-bit samples, at most {MAX_FRAME} bytes at a time")
        self.heard += len(data)
        seconds = self.heard / (2 * RATE)
        if seconds > MAX_SECONDS:
            raise Refused(_over())
        if seconds > monotonic() - self.began + MAX_AHEAD:
            raise Refused("sound comes faster than anybody speaks: send it as it is recorded")
        self.sound += data
        whole = len(self.sound) // (2 * CHUNK) * 2 * CHUNK
        chunks = np.frombuffer(bytes(self.sound[:whole]), "<i2").astype(np.float32).reshape(-1, CHUNK) / 32768
        del self.sound[:whole]
        try:
            loop = asyncio.get_running_loop()
            chances = await loop.run_in_executor(_activity, lambda: [self.listener.chance(chunk) for chunk in chunks])
        except ValueError as error:  # its network is missing
            raise Refused(str(error)) from None
        for chunk, chance in zip(chunks, chances, strict=True):
            if events := list(self.listener.feed(chunk, chance)):
                await self.obey(events)

    def told(self, text: str) -> bool:
        """Take the settings of the drawings to come, or hear (True) that no more is to come. Raises Refused for what no
        page of ours sends."""
        try:
            wish = json.loads(text[:MAX_FRAME])
            if wish["type"] == "end":
                return True
            if wish["type"] != "settings":
                raise ValueError("what is not of type settings or end")
            known = {key: wish[key] for key in SETTINGS if wish.get(key) is not None}
            if wish.get("size"):
                known["size"] = parse_size(wish["size"])
            settings = _settings(known)
            asked = Request.from_dict({"prompt": "a try", "seed": 0, **settings})
            if asked.candidates > MAX_SPOKEN:
                raise ValueError(f"{asked.candidates} candidates, and at most {MAX_SPOKEN} while one speaks")
            end = min(2.0, max(0.2, float(wish.get("pause", 0.3))))
        except (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise Refused(f"settings that cannot be read ({reason}): reload the page") from None
        self.settings = settings
        self.listener.timing = Timing(end=end)
        return False

    async def obey(self, events: Iterable[Event]) -> None:
        """What the listener says has its effect in the order in which it was said: whoever asks first has the turn."""
        async with self.turn:
            for event in events:
                await self.follow(event)

    async def follow(self, event: Event) -> None:
        """What one event means for the page and for the drawing."""
        match event:
            case Start():
                await self.say(type="start", at=event.at)
            case Hear():
                self.take(event)
            case Partial():
                await self.say(type="words", committed=event.committed, pending=event.pending)
                # A picture of fewer words is drawn to its end meanwhile: one that every word interrupts gets nowhere.
                busy = self.guess and not self.job.over
                if not busy and len(event.committed) >= max(STABLE_WORDS, len(self.guess) + 1):
                    await self.draw(event.committed)
            case Pause():
                await self.say(type="words", committed=event.words, pending=())
                await self.draw(event.words)
            case Resume():
                pass  # the guess may yet be right, and what is drawn of it is where the next one begins
            case Final() if event.words:
                await self.say(type="final", text=" ".join(event.words))
                await self.draw(event.words, final=True)
            case Final():
                self.drop()
                await self.say(type="nothing", reason="no words could be made out: say it again")

    def take(self, order: Hear) -> None:
        """Have an order obeyed when the recogniser is free; those that it has overtaken no longer wait."""
        self.orders = deque(order for order in self.orders if self.listener.wanted(order))
        self.orders.append(order)
        if len(self.orders) > MAX_ORDERS:
            list(self.listener.heard(self.orders.popleft(), ()))  # so that nobody waits for its words
            missed = "more is said here than can be written down: a sentence was left out"
            self.later(self.say(type="error", message=missed))
        if not self.writing:
            self.writing = True
            self.later(self.write())

    async def write(self) -> None:
        """Have what waits written down, one order after the other: nobody's take more than every second turn."""
        try:
            while self.orders:
                order = self.orders.popleft()
                if not self.listener.wanted(order):
                    continue
                try:
                    decoder = asyncio.get_running_loop().run_in_executor(_decoder, self.house.ear.words, order.audio)
                    words = await decoder
                except Exception as error:
                    log.exception("an utterance cannot be written down")
                    words, reason = (), " ".join(str(error).split())[:200] or type(error).__name__
                    await self.say(type="error", message=f"a sentence was not written down ({reason}): say it again")
                await self.obey(list(self.listener.heard(order, words)))
        finally:
            self.writing = False

    @property
    def guess(self) -> tuple[str, ...]:
        """The words of the utterance that is being spoken, as far as they are drawn."""
        return () if self.job is None or self.job.id in self.final else tuple(self.job.request.prompt.split())

    async def draw(self, words: Sequence[str], final: bool = False) -> None:
        """See that these words, and no others, are being drawn; those that are final are kept once they are, by
        whatever thread, and whether or not this socket is still open then."""
        prompt = " ".join(words)
        if not prompt:
            return
        if tuple(words) != self.guess:
            before = self.job if self.guess else None
            self.drop()
            try:
                request = Request.from_dict({"seed": self.seed, **self.settings, "prompt": prompt})
                # On a thread: the model may have to be loaded.
                job = await _surely(self._submit, request, before, final)
            except ValueError as error:
                await self.say(type="error", message=str(error))
                return
            self.later(self.show(job))
        elif final:
            job, seen = self.job, self.job.id in self.sent
            self.final.add(job.id)
            await _surely(self._keep_when_done, job)
            if seen:
                self.later(self.settle(job))
        if final:
            self.seed = any_seed()

    def _submit(self, request: Request, before: Job | None, final: bool) -> Job:
        job = self.house.engine.submit(request, self.owner, after=before)
        if final:
            self.final.add(job.id)
            self._keep_when_done(job)
        # It is there before it asks, and `stop` looks what is there after it has said so: one of them cancels a guess.
        self.job = job
        if self.stopped and not final:
            job.cancel()
        return job

    def _keep_when_done(self, job: Job) -> None:
        job.on_change(lambda: _keeper.submit(self.house.keep, job) if job.status is Status.DONE else None)

    def drop(self) -> None:
        """Cancel the drawing of words that turned out not to be all, or none."""
        if self.job is not None and self.job.id not in self.final:
            self.job.cancel()
            self.job = None

    async def show(self, job: Job) -> None:
        """Send a drawing's steps and its picture as they come; a step that nobody could see in time is left out."""
        shown = 0
        async for _ in job.changes():
            last = (job.shown or [-1])[-1]
            if last >= shown and not job.over:
                shown, frame = last + 1, job.frames[last]
                image = (await asyncio.to_thread(job.preview, last))[0]
                if self.job is job and not job.over:
                    await self.say(image, type="step", job=job.id, step=frame.step, of=frame.of)
        if job.status is Status.FAILED:
            await self.say(type="error", message=job.error)
        elif job.status is Status.DONE and (self.job is job or job.id in self.final):
            request = job.request
            unknown = await asyncio.to_thread(_unknown, request)
            told = {"job": job.id, "seed": request.seed, "prompt": request.prompt, "unknown": unknown}
            await self.say(job.pictures()[0], request, type="picture", **told)
            self.sent.add(job.id)
            if job.id in self.final:
                await self.settle(job)

    async def settle(self, job: Job) -> None:
        """Its words are all and its picture is there: say that it is kept, or why it is not."""
        await asyncio.to_thread(self.house.keep, job)
        if job.note:
            await self.say(type="error", message=f"not kept in the gallery: {job.note}")
        else:
            await self.say(type="kept", job=job.id)

    async def say(self, image: Any = None, request: Request | None = None, **message: Any) -> None:
        """Send a message, and an image after it with the request in its notes. Once the visitor has left, nothing."""
        data = None if image is None else await asyncio.to_thread(picture.png, image, request)
        async with self.sending:
            if self.gone:
                return
            try:
                await self.socket.send_text(json.dumps(message))
                if data is not None:
                    await self.socket.send_bytes(data)
            except (RuntimeError, OSError, WebSocketDisconnect):
                self.gone = True

    def later(self, work: Coroutine) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the microphone failed", exc_info=error)


def _settings(asked: dict[str, Any]) -> dict[str, Any]:
    """Those of a drawing: what is left out is as it usually is, for its sampler."""
    return {"model": places.model()} | SAMPLERS.get(str(asked.get("sampler", Request.sampler)), {}) | asked


async def _surely(work: Callable[..., Any], *given: Any) -> Any:
    """On a thread, also if this task is cancelled while the work still waits for one."""
    return await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, work, *given))


def _over() -> str:
    return f"{MAX_SECONDS / 60:.0f} minutes were heard: press the microphone again to go on"


def _unknown(request: Request) -> list[str]:
    """The words that its model does not know. From the disk, or a cache of Hugging Face's: not for an event loop."""
    return catalogue.find(request.model).vocabulary.unknown(request.prompt)


async def _refuse(socket: WebSocket, reason: str) -> None:
    try:
        await socket.send_text(json.dumps({"type": "error", "message": reason}))
        await socket.close(1008, reason[:120])
    except (RuntimeError, OSError, WebSocketDisconnect):
        return  # it closed first
