"""One live socket: its transcriber, and the job that its latest words asked for.

A job begins at a pause, or once three words no longer change, before the sentence is known to be over. If no more words
come it is already running, or done. If speech goes on the job goes on too, and the next one continues from its grid
(maskgil/sampling/remasking.py): once it is done and more words are stable, or at the next pause.

Limits of one socket: ten minutes, audio at most ten seconds ahead of the clock, a minute without a message, six
utterances of 29 s (one spoken, four waiting, one in the recognizer): 11 MB. Speech, models and disk run on threads.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import numpy as np
from starlette.websockets import WebSocketDisconnect

from app.core import png
from app.core.prompt_admission import admit
from app.core.request import GenerationRequest, random_seed
from app.serving.admission import served_model
from app.serving.jobs import Job, Status
from app.serving.recognizer import live_calls
from app.serving.services import AppServices
from app.serving.shielded import run_to_end
from app.web.live_dialogue import LiveDialogue, describe_drawn
from app.web.live_protocol import (
    MAX_AHEAD,
    MAX_FRAME,
    MAX_IDLE,
    MAX_SECONDS,
    EndOfUtterance,
    LiveSettings,
    ProtocolError,
    SocketLike,
    TypedWords,
    default_settings,
    over_time_message,
    parse_control,
)
from app.web.public_message import message_text
from speech.audio import RATE
from speech.spoken_commands import Meaning, ReadUtterance
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
from speech.transcriber import Transcript
from speech.vad import CHUNK

log = logging.getLogger(__name__)

MAX_PENDING_TRANSCRIPTIONS = 4  # utterances of one socket that wait for the recognizer
STABLE_WORDS = 3

_vad_executor = ThreadPoolExecutor(1, thread_name_prefix="vad")
_saver = ThreadPoolExecutor(1, thread_name_prefix="saver")


class NothingToDrawError(ValueError):
    """Words, not all of a sentence yet, of which nothing can be drawn."""


class LiveSession:
    """One socket: its listener, and the drawing that its latest words asked for."""

    def __init__(self, socket: SocketLike, owner: str, services: AppServices):
        self.socket, self.owner, self.services = socket, owner, services
        self.settings = default_settings()
        self.listener = StreamingTranscriber()
        self.began = monotonic()
        self.sound = bytearray()  # less than one chunk
        self.received = 0  # bytes
        self.pending: deque[TranscribeRequest] = deque()
        self.transcribing = False
        self.job: Job | None = None
        self.drawn_words: tuple[str, ...] = ()  # of the utterance that self.job draws
        self.dialogue = LiveDialogue()
        self.transcript: tuple[TranscribeRequest, Transcript] | None = None  # the newest
        self.seed = random_seed()
        self.final: set[str] = set()  # ids of jobs whose words are final
        self.sent: set[str] = set()  # ids of jobs whose image was sent
        self.turn, self.sending = asyncio.Lock(), asyncio.Lock()
        self.tasks: set[asyncio.Task] = set()
        self.ending = self.gone = self.stopped = False  # no more speech follows; the client left; no new work

    async def run(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(live_calls, self.services.recognizer.load)
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
        """The next message. Raises ProtocolError when none comes, or time is up."""
        if monotonic() > self.began + MAX_SECONDS + MAX_AHEAD:  # also for a client that sends too slowly
            raise ProtocolError(over_time_message())
        try:
            async with asyncio.timeout(MAX_IDLE):
                return await self.socket.receive()
        except TimeoutError:
            raise ProtocolError(f"no sound came for {MAX_IDLE:.0f} s: press the microphone again to go on") from None

    async def finish(self) -> None:
        """No more speech follows: transcribe, draw and save what was said, then close the socket."""
        self.ending = True
        await self.handle_events(list(self.listener.flush()))
        while self.tasks:
            await asyncio.wait(self.tasks)
        if not self.gone:
            await self.socket.close(1000)

    def stop(self) -> None:
        """The client left: cancel the job of an unfinished utterance. Jobs of final words run on and are saved."""
        self.stopped = True
        for task in self.tasks:
            task.cancel()
        self.drop()

    async def on_audio(self, data: bytes) -> None:
        if len(data) > MAX_FRAME or len(data) % 2:
            raise ProtocolError(
                f"a frame of {len(data)} bytes: send 16-bit samples, at most {MAX_FRAME} bytes at a time"
            )
        self.received += len(data)
        seconds = self.received / (2 * RATE)
        if seconds > MAX_SECONDS:
            raise ProtocolError(over_time_message())
        if seconds > monotonic() - self.began + MAX_AHEAD:
            raise ProtocolError("sound comes faster than anybody speaks: send it as it is recorded")
        self.sound += data
        whole = len(self.sound) // (2 * CHUNK) * 2 * CHUNK
        chunks = np.frombuffer(bytes(self.sound[:whole]), "<i2").astype(np.float32).reshape(-1, CHUNK) / 32768
        del self.sound[:whole]
        try:
            loop = asyncio.get_running_loop()
            chances = await loop.run_in_executor(
                _vad_executor, lambda: [self.listener.chance(chunk) for chunk in chunks]
            )
        except ValueError as error:  # its network is missing
            raise ProtocolError(str(error)) from None
        for chunk, chance in zip(chunks, chances, strict=True):
            if events := list(self.listener.feed(chunk, chance)):
                await self.handle_events(events)

    def on_control(self, text: str) -> bool:
        """Take the settings of the images to come; returns True when no more speech follows. Raises ProtocolError."""
        message = parse_control(text)
        if isinstance(message, EndOfUtterance):
            self.spawn(self.handle_events(list(self.listener.flush())))
        elif isinstance(message, TypedWords):
            self.spawn(self.draw_typed(message))
        if not isinstance(message, LiveSettings):
            return message is None
        self.settings = dict(message.values)
        self.spawn(asyncio.to_thread(self.dialogue.learn, self.services.engine, self.settings["model"]))
        self.listener.timing = EndpointingConfig(end=message.pause)
        return False

    async def handle_events(self, events: Iterable[Event]) -> None:
        """Handle the transcriber's events one after the other, in the order of the calls."""
        async with self.turn:
            for event in events:
                await self.handle_event(event)

    async def handle_event(self, event: Event) -> None:
        """Tell the page about one event, and start or cancel a job."""
        match event:
            case SpeechStarted():
                await self.send(type="start", at=event.at)
            case TranscribeRequest():
                self.enqueue(event)
            case PartialTranscript():
                await self.send(type="words", committed=event.committed, pending=event.pending)
                # A running job of fewer words is not interrupted: otherwise no job would end while one speaks.
                busy = self.draw_partial and self.job is not None and not self.job.is_done
                enough = len(event.committed) >= max(STABLE_WORDS, len(self.draw_partial) + 1)
                if not busy and enough and self.is_understood(event.utterance):
                    await self.draw(event.committed)
            case SpeechPaused():
                await self.send(type="words", committed=event.words, pending=())
                if self.is_understood(event.utterance):
                    await self.draw(event.words)
            case SpeechResumed():
                pass  # the running job goes on, and the next one continues from its grid
            case FinalTranscript() if event.words and not self.is_understood(event.utterance):
                self.drop()
                await self.send(type="unsure", text=" ".join(event.words), reason="I did not understand that.")
            case FinalTranscript() if event.words:
                await self.settle(event.words)
            case FinalTranscript():
                self.drop()
                await self.send(type="nothing", reason="no words could be made out: say it again")

    def is_understood(self, utterance: int) -> bool:
        """Whether the recognizer was sure of the newest words of this utterance."""
        return self.transcript is None or self.transcript[0].utterance != utterance or self.transcript[1].understood

    async def settle(self, words: Sequence[str]) -> None:
        """The words are final: draw them, or do what they ask for."""
        utterance, text = self.dialogue.read(words), " ".join(words)
        mended: dict[str, Any] = {} if utterance.prompt == text else {"prompt": utterance.prompt}
        await self.send(type="final", text=text, **mended)
        match utterance.meaning:
            case Meaning.UNDO:
                self.drop()
                shown = self.dialogue.undo()
                await self.send(type="undone", job=shown.job if shown else "", prompt=shown.prompt if shown else "")
            case Meaning.CLEAR:
                self.drop()
                self.dialogue.clear()
                await self.send(type="cleared")
            case _:
                await self.draw(words, final=True)

    async def draw_typed(self, typed: TypedWords) -> None:
        """Draw a prompt that was typed, as if it had been said."""
        async with self.turn:
            await self.send(type="final", text=typed.text)
            await self.draw(typed.text.split(), True, typed)

    def enqueue(self, request: TranscribeRequest) -> None:
        """Queue a request for the recognizer; requests that newer ones replace are dropped."""
        self.pending = deque(waiting for waiting in self.pending if self.listener.is_wanted(waiting))
        self.pending.append(request)
        if len(self.pending) > MAX_PENDING_TRANSCRIPTIONS:
            list(self.listener.on_transcript(self.pending.popleft(), ()))  # an empty answer: nothing waits for it
            missed = "more is said here than can be written down: a sentence was left out"
            self.spawn(self.send(type="error", message=missed))
        if not self.transcribing:
            self.transcribing = True
            self.spawn(self.transcribe_loop())

    async def transcribe_loop(self) -> None:
        """Transcribe what waits, one request after the other. Sockets take turns in the recognizer."""
        try:
            while self.pending:
                request = self.pending.popleft()
                if not self.listener.is_wanted(request):
                    continue
                try:
                    words = await self.transcribe(request)
                except Exception as error:
                    log.exception("an utterance cannot be written down")
                    words, reason = (), " ".join(str(error).split())[:200] or type(error).__name__
                    await self.send(type="error", message=f"a sentence was not written down ({reason}): say it again")
                await self.handle_events(list(self.listener.on_transcript(request, words)))
        finally:
            self.transcribing = False

    async def transcribe(self, request: TranscribeRequest) -> tuple[str, ...]:
        """The words of a request. An earlier hypothesis of the same speech is checked instead of decoded again."""
        guess: tuple[int, ...] = ()
        before, earlier = self.transcript or (request, None)
        if earlier is not None and (before.utterance, before.settled) == (request.utterance, request.settled):
            guess = earlier.tokens
        transcript = await asyncio.get_running_loop().run_in_executor(
            live_calls, self.services.recognizer.transcribe_live, request.audio, guess
        )
        self.transcript = request, transcript
        return transcript.words

    @property
    def draw_partial(self) -> tuple[str, ...]:
        """The words of the current utterance that are drawn so far."""
        return () if self.job is None or self.job.id in self.final else self.drawn_words

    async def draw(self, words: Sequence[str], final: bool = False, typed: TypedWords | None = None) -> None:
        """Draw these words unless they are being drawn. The image of final words is saved when it is done, also when
        this socket is closed by then. `typed`: they are no utterance, but a prompt of their own."""
        utterance = self.dialogue.read(words) if typed is None else ReadUtterance(Meaning.NEW, typed.text)
        if not utterance.prompt or not (final or self.dialogue.is_worth_drawing(words, utterance)):
            return
        if tuple(words) != self.draw_partial:
            before = self.job if self.draw_partial or utterance.meaning is Meaning.CHANGE else None
            self.drop()
            try:
                fresh = self.dialogue.seed(utterance, self.seed)
                seed = fresh if typed is None or typed.seed is None else typed.seed
                request = GenerationRequest.read({"seed": seed, **self.settings, "prompt": utterance.prompt})
                # On a thread: the model may have to be loaded.
                job = await run_to_end(self._submit, request, before, final)
            except NothingToDrawError:
                return
            except ValueError as error:
                await self.send(type="error", message=str(error))
                return
            self.drawn_words = tuple(words)
            self.spawn(self.send_preview(job))
        elif final and (job := self.job) is not None:
            seen = job.id in self.sent
            self.final.add(job.id)
            await run_to_end(self._keep_when_done, job)
            if seen:
                self.spawn(self.finalize(job))
        if final and job is not None:
            self.dialogue.add(utterance.prompt, job.request.seed, job.id)
            self.seed = random_seed()

    def _submit(self, request: GenerationRequest, before: Job | None, final: bool) -> Job:
        model = served_model(self.services.engine, request.model)
        try:
            request = admit(request, model).request
        except ValueError:
            if final:
                raise
            raise NothingToDrawError from None  # the words that make it a picture may come yet
        job = self.services.engine.submit(request, self.owner, after=before)
        if final:
            self.final.add(job.id)
            self._keep_when_done(job)
        # `stop` sets its flag before it cancels self.job; here self.job is set first: one of the two cancels the job.
        self.job = job
        if self.stopped and not final:
            job.cancel()
        return job

    def _keep_when_done(self, job: Job) -> None:
        job.on_change(lambda: _saver.submit(self.services.keep, job) if job.status is Status.DONE else None)

    def drop(self) -> None:
        """Cancel the job of words that are not final."""
        if self.job is not None and self.job.id not in self.final:
            self.job.cancel()
            self.job = None

    async def send_preview(self, job: Job) -> None:
        """Send the steps and the image of a job; steps that come faster than they can be sent are left out."""
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
            reading = await asyncio.to_thread(describe_drawn, request)
            told = {"job": job.id, "seed": request.seed, "prompt": request.prompt, **reading}
            await self.send(job.pictures()[0], request, type="picture", **told)
            self.sent.add(job.id)
            if job.id in self.final:
                await self.finalize(job)

    async def finalize(self, job: Job) -> None:
        """The words of a sent image are final: say that it is saved, or why it is not."""
        await asyncio.to_thread(self.services.keep, job)
        if job.note:
            await self.send(type="error", message=f"not kept in the gallery: {job.note}")
        else:
            await self.send(type="kept", job=job.id, id=job.entries[0].id if job.entries else "")

    async def send(self, image: Any = None, request: GenerationRequest | None = None, **message: Any) -> None:
        """Send a message, and after it an image with the request as metadata. Does nothing once the client is gone."""
        data = None if image is None else await asyncio.to_thread(png.encode_png, image, request)
        async with self.sending:
            if self.gone:
                return
            try:
                await self.socket.send_text(message_text(message))
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


def wait_until_saved() -> None:
    """Returns when the finished images of all sockets are saved, or could not be."""
    _saver.submit(lambda: None).result()
