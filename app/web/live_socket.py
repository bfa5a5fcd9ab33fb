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
(maskgil/sampling/remasking.py), so that the picture grows with the words: once it is done and more words are stable,
or at the
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

from app.core import paths, png, registry
from app.core.request import LEGACY, MAX_LIVE_CANDIDATES, SAMPLERS, GenerationRequest, parse_size, random_seed
from app.serving.engine import Job, Status
from app.serving.services import AppServices, get_services
from app.web.visitors import same_origin
from speech.audio import RATE
from speech.streaming import (
    EndpointingConfig,
    Event,
    FinalTranscript,
    PartialTranscript,
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    StreamingTranscriber,
    TranscribeRequest,
)
from speech.vad import CHUNK

log = logging.getLogger(__name__)

MAX_FRAME = 2**16  # bytes of one message
MAX_SECONDS = 600.0  # of one socket
MAX_AHEAD = 10.0  # seconds that sound may be ahead of the clock: what a network held back comes at once
MAX_IDLE = 60.0  # seconds without a message: a page that listens sends one every 32 ms
MAX_SOCKETS = 8
MAX_ENDING = 8  # more, whose visitors have said all: what they said is still written down and drawn
MAX_SOCKETS_PER_ADDRESS = 2  # sockets of one visitor
MAX_PENDING_TRANSCRIPTIONS = 4  # utterances of one socket that wait to be written down
STABLE_WORDS = 3
# Those that go to the request as such; None leaves a setting as it usually is, and a seed to chance.
SETTINGS = ("model", "steps", "guidance", "interval", "temperature", "negative", "seed", "order", "sampler")
SETTINGS += ("mode", "ar_tokens", "refinement_passes", "candidates")

_open: set["LiveSession"] = set()
_activity = ThreadPoolExecutor(1, thread_name_prefix="activity")
_decoder = ThreadPoolExecutor(1, thread_name_prefix="ear")
_keeper = ThreadPoolExecutor(1, thread_name_prefix="keeper")


@runtime_checkable
class SocketLike(Protocol):
    """What is used of starlette's."""

    scope: Any
    headers: Any

    async def accept(self) -> None: ...
    async def receive(self) -> Any: ...
    async def send_text(self, data: str) -> None: ...
    async def send_bytes(self, data: bytes) -> None: ...
    async def close(self, code: int = 1000, reason: str | None = None) -> None: ...


async def serve(socket: SocketLike, owner: str | None) -> None:
    """One visitor's microphone until it is closed."""
    if not same_origin(socket.headers) or owner is None:
        await socket.close(4403, "open the studio's own page first")
        return
    await socket.accept()
    rooms = await asyncio.to_thread(get_services)
    speaking = [session for session in _open if not session.ending]
    if sum(session.owner == owner for session in speaking) >= MAX_SOCKETS_PER_ADDRESS:
        await _refuse(socket, f"{MAX_SOCKETS_PER_ADDRESS} of your pages are listening already: stop one of them first")
        return
    if len(speaking) >= MAX_SOCKETS or len(_open) >= MAX_SOCKETS + MAX_ENDING:
        await _refuse(socket, f"{MAX_SOCKETS} people are speaking already: try again in a minute")
        return
    session = LiveSession(socket, owner, rooms)
    _open.add(session)
    try:
        await session.run()
    except ProtocolError as refusal:
        await _refuse(socket, str(refusal))
    finally:
        _open.discard(session)
        session.stop()


class ProtocolError(Exception):
    """The socket did what it must not; the message says what."""


class LiveSession:
    """One socket: its listener, and the drawing that its latest words asked for."""

    def __init__(self, socket: SocketLike, owner: str, house: AppServices):
        self.socket, self.owner, self.house = socket, owner, house
        self.settings = _settings({})
        self.listener = StreamingTranscriber()
        self.began = monotonic()
        self.sound = bytearray()  # less than a chunk
        self.heard = 0  # bytes
        self.orders: deque[TranscribeRequest] = deque()
        self.writing = False
        self.job: Job | None = None
        self.seed = random_seed()
        self.final: set[str] = set()  # jobs whose words are known to be all
        self.sent: set[str] = set()  # jobs whose picture the page has
        self.turn, self.sending = asyncio.Lock(), asyncio.Lock()
        self.tasks: set[asyncio.Task] = set()
        self.ending = self.gone = self.stopped = False  # no more is heard; nobody is there; nothing more is done

    async def run(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(_decoder, self.house.recognizer.load)
        except ValueError as error:
            raise ProtocolError(str(error)) from None
        await self.send(type="ready", rate=RATE)
        while (message := await self.next())["type"] != "websocket.disconnect":
            if (data := message.get("bytes")) is not None:
                await self.on_audio(data)
            elif (text := message.get("text")) is not None and self.on_control(text):
                await self.finish()
                return

    async def next(self) -> Any:
        """The next message. Raises Refused when none comes, or time is up."""
        if monotonic() > self.began + MAX_SECONDS + MAX_AHEAD:  # it only trickles
            raise ProtocolError(_over())
        try:
            async with asyncio.timeout(MAX_IDLE):
                return await self.socket.receive()
        except TimeoutError:
            raise ProtocolError(f"no sound came for {MAX_IDLE:.0f} s: press the microphone again to go on") from None

    async def finish(self) -> None:
        """Nothing more will be said: what was is heard, drawn and kept before the socket is closed."""
        self.ending = True
        await self.handle_events(list(self.listener.flush()))
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

    async def on_audio(self, data: bytes) -> None:
        if len(data) > MAX_FRAME or len(data) % 2:
            raise ProtocolError(
                f"a frame of {len(data)} bytes: send 16-bit samples, at most {MAX_FRAME} bytes at a time"
            )
        self.heard += len(data)
        seconds = self.heard / (2 * RATE)
        if seconds > MAX_SECONDS:
            raise ProtocolError(_over())
        if seconds > monotonic() - self.began + MAX_AHEAD:
            raise ProtocolError("sound comes faster than anybody speaks: send it as it is recorded")
        self.sound += data
        whole = len(self.sound) // (2 * CHUNK) * 2 * CHUNK
        chunks = np.frombuffer(bytes(self.sound[:whole]), "<i2").astype(np.float32).reshape(-1, CHUNK) / 32768
        del self.sound[:whole]
        try:
            loop = asyncio.get_running_loop()
            chances = await loop.run_in_executor(_activity, lambda: [self.listener.chance(chunk) for chunk in chunks])
        except ValueError as error:  # its network is missing
            raise ProtocolError(str(error)) from None
        for chunk, chance in zip(chunks, chances, strict=True):
            if events := list(self.listener.feed(chunk, chance)):
                await self.handle_events(events)

    def on_control(self, text: str) -> bool:
        """Take the settings of the drawings to come, or hear (True) that no more is to come. Raises Refused for what no
        page of ours sends."""
        try:
            wish = {LEGACY.get(name, name): value for name, value in json.loads(text[:MAX_FRAME]).items()}
            if wish["type"] == "end":
                return True
            if wish["type"] != "settings":
                raise ValueError("what is not of type settings or end")
            known = {key: wish[key] for key in SETTINGS if wish.get(key) is not None}
            if wish.get("size"):
                known["size"] = parse_size(wish["size"])
            settings = _settings(known)
            asked = GenerationRequest.from_dict({"prompt": "a try", "seed": 0, **settings})
            if asked.candidates > MAX_LIVE_CANDIDATES:
                raise ValueError(f"{asked.candidates} candidates, and at most {MAX_LIVE_CANDIDATES} while one speaks")
            end = min(2.0, max(0.2, float(wish.get("pause", 0.3))))
        except (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ProtocolError(f"settings that cannot be read ({reason}): reload the page") from None
        self.settings = settings
        self.listener.timing = EndpointingConfig(end=end)
        return False

    async def handle_events(self, events: Iterable[Event]) -> None:
        """What the listener says has its effect in the order in which it was said: whoever asks first has the turn."""
        async with self.turn:
            for event in events:
                await self.handle_event(event)

    async def handle_event(self, event: Event) -> None:
        """What one event means for the page and for the drawing."""
        match event:
            case SpeechStarted():
                await self.send(type="start", at=event.at)
            case TranscribeRequest():
                self.enqueue(event)
            case PartialTranscript():
                await self.send(type="words", committed=event.committed, pending=event.pending)
                # A picture of fewer words is drawn to its end meanwhile: one that every word interrupts gets nowhere.
                busy = self.draw_partial and not self.job.is_done
                if not busy and len(event.committed) >= max(STABLE_WORDS, len(self.draw_partial) + 1):
                    await self.draw(event.committed)
            case SpeechPaused():
                await self.send(type="words", committed=event.words, pending=())
                await self.draw(event.words)
            case SpeechResumed():
                pass  # the guess may yet be right, and what is drawn of it is where the next one begins
            case FinalTranscript() if event.words:
                await self.send(type="final", text=" ".join(event.words))
                await self.draw(event.words, final=True)
            case FinalTranscript():
                self.drop()
                await self.send(type="nothing", reason="no words could be made out: say it again")

    def enqueue(self, order: TranscribeRequest) -> None:
        """Have an order obeyed when the recogniser is free; those that it has overtaken no longer wait."""
        self.orders = deque(order for order in self.orders if self.listener.is_wanted(order))
        self.orders.append(order)
        if len(self.orders) > MAX_PENDING_TRANSCRIPTIONS:
            list(self.listener.on_transcript(self.orders.popleft(), ()))  # so that nobody waits for its words
            missed = "more is said here than can be written down: a sentence was left out"
            self.spawn(self.send(type="error", message=missed))
        if not self.writing:
            self.writing = True
            self.spawn(self.transcribe_loop())

    async def transcribe_loop(self) -> None:
        """Have what waits written down, one order after the other: nobody's take more than every second turn."""
        try:
            while self.orders:
                order = self.orders.popleft()
                if not self.listener.is_wanted(order):
                    continue
                try:
                    decoder = asyncio.get_running_loop().run_in_executor(
                        _decoder, self.house.recognizer.transcribe_words, order.audio
                    )
                    words = await decoder
                except Exception as error:
                    log.exception("an utterance cannot be written down")
                    words, reason = (), " ".join(str(error).split())[:200] or type(error).__name__
                    await self.send(type="error", message=f"a sentence was not written down ({reason}): say it again")
                await self.handle_events(list(self.listener.on_transcript(order, words)))
        finally:
            self.writing = False

    @property
    def draw_partial(self) -> tuple[str, ...]:
        """The words of the utterance that is being spoken, as far as they are drawn."""
        return () if self.job is None or self.job.id in self.final else tuple(self.job.request.prompt.split())

    async def draw(self, words: Sequence[str], final: bool = False) -> None:
        """See that these words, and no others, are being drawn; those that are final are kept once they are, by
        whatever thread, and whether or not this socket is still open then."""
        prompt = " ".join(words)
        if not prompt:
            return
        if tuple(words) != self.draw_partial:
            before = self.job if self.draw_partial else None
            self.drop()
            try:
                request = GenerationRequest.from_dict({"seed": self.seed, **self.settings, "prompt": prompt})
                # On a thread: the model may have to be loaded.
                job = await _surely(self._submit, request, before, final)
            except ValueError as error:
                await self.send(type="error", message=str(error))
                return
            self.spawn(self.send_preview(job))
        elif final:
            job, seen = self.job, self.job.id in self.sent
            self.final.add(job.id)
            await _surely(self._keep_when_done, job)
            if seen:
                self.spawn(self.finalize(job))
        if final:
            self.seed = random_seed()

    def _submit(self, request: GenerationRequest, before: Job | None, final: bool) -> Job:
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

    async def send_preview(self, job: Job) -> None:
        """Send a drawing's steps and its picture as they come; a step that nobody could see in time is left out."""
        shown = 0
        async for _ in job.changes():
            last = (job.preview_steps or [-1])[-1]
            if last >= shown and not job.is_done:
                shown, frame = last + 1, job.frames[last]
                image = (await asyncio.to_thread(job.preview, last))[0]
                if self.job is job and not job.is_done:
                    await self.send(image, type="step", job=job.id, step=frame.step, of=frame.total)
        if job.status is Status.FAILED:
            await self.send(type="error", message=job.error)
        elif job.status is Status.DONE and (self.job is job or job.id in self.final):
            request = job.request
            unknown = await asyncio.to_thread(_unknown, request)
            told = {"job": job.id, "seed": request.seed, "prompt": request.prompt, "unknown": unknown}
            await self.send(job.pictures()[0], request, type="picture", **told)
            self.sent.add(job.id)
            if job.id in self.final:
                await self.finalize(job)

    async def finalize(self, job: Job) -> None:
        """Its words are all and its picture is there: say that it is kept, or why it is not."""
        await asyncio.to_thread(self.house.keep, job)
        if job.note:
            await self.send(type="error", message=f"not kept in the gallery: {job.note}")
        else:
            await self.send(type="kept", job=job.id)

    async def send(self, image: Any = None, request: GenerationRequest | None = None, **message: Any) -> None:
        """Send a message, and an image after it with the request in its notes. Once the visitor has left, nothing."""
        data = None if image is None else await asyncio.to_thread(png.encode_png, image, request)
        async with self.sending:
            if self.gone:
                return
            try:
                await self.socket.send_text(json.dumps(message))
                if data is not None:
                    await self.socket.send_bytes(data)
            except (RuntimeError, OSError, WebSocketDisconnect):
                self.gone = True

    def spawn(self, work: Coroutine) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the microphone failed", exc_info=error)


def _settings(asked: dict[str, Any]) -> dict[str, Any]:
    """Those of a drawing: what is left out is as it usually is, for its sampler."""
    return (
        {"model": paths.default_model()}
        | SAMPLERS.get(str(asked.get("sampler", GenerationRequest.sampler)), {})
        | asked
    )


async def _surely(work: Callable[..., Any], *given: Any) -> Any:
    """On a thread, also if this task is cancelled while the work still waits for one."""
    return await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, work, *given))


def _over() -> str:
    return f"{MAX_SECONDS / 60:.0f} minutes were heard: press the microphone again to go on"


def _unknown(request: GenerationRequest) -> list[str]:
    """The words that its model does not know. From the disk, or a cache of Hugging Face's: not for an event loop."""
    return registry.find(request.model).vocabulary.unknown_words(request.prompt)


async def _refuse(socket: SocketLike, reason: str) -> None:
    try:
        await socket.send_text(json.dumps({"type": "error", "message": reason}))
        await socket.close(1008, reason[:120])
    except (RuntimeError, OSError, WebSocketDisconnect):
        return  # it closed first
