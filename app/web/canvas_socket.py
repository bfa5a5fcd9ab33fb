"""The canvas of a page: one WebSocket carries requests up, and steps and pictures down.

Up, JSON texts by "type":
    draw {prompt, settings}      draw and keep; the drawing before it on this canvas is cancelled
    draft {prompt, settings, shown, fixed}
                                 draw with few steps from the tokens of the drawing before, and keep nothing; nothing at
                                 all where the kept picture of the job `shown` is on the canvas and would be drawn of
                                 the same request; `fixed`: the seed was chosen, and must be the same, too
    refine {prompt, settings}    draw with all steps from the tokens of the draft, and keep nothing yet
    keep                         keep the pictures of the drawing that is shown
    stop                         cancel the drawing; one whose picture is being kept comes to its end
    watch                        show the visitor's last drawing on this canvas again, as after a reload
    edit {id, kind, prompt, settings, mask, strength, side, amount}
                                 draw on a kept picture and keep the result: see app/core/picture_edit.py; of the kind
                                 `start`: draw the prompt from the picture (image-to-image)
    check {id, kind, prompt, settings, size, side, amount, brushed, extent}
                                 say what such an edit does not do well
    upscale {id, factor}         keep a kept picture at 2 or 4 times its size
    sheet {prompt, settings, x, y}
                                 draw all combinations of two settings' values, and keep them as one picture with axes
    read {prompt, model}         say how the model reads a prompt
Down, JSON texts by "type":
    queued {job, position}, step {job, step, of, remaining, masks, rows},
    done {job, pictures, facts, notes, reading}, kept {job, pictures, notes, reading}, stopped {job},
    error {message}, reading {prompt, spans, drawn, refused}, caution {kind, text}.
    The `reading` of a drawing: notes on the words that are drawn otherwise than said.
After a step come as many binary frames as it names rows (WebP); after a done, one for each picture (PNG).

Previews are decoded for at most PREVIEW_SHARE of the time that the drawing has taken: they may not hold it up.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from starlette.websockets import WebSocketDisconnect

from app.core.request import GenerationRequest, random_seed
from app.core.setting_sheet import SettingAxis, combinations, compose
from app.serving.jobs import Job, Status, summarize
from app.serving.services import AppServices, get_services
from app.serving.shielded import run_or_undo, run_to_end
from app.web import canvas_edits
from app.web.canvas_edits import ONE_PICTURE, describe_reading, given_settings, parse_request
from app.web.canvas_messages import describe_pictures, describe_step, drawn_size, job_notes, reading_notes
from app.web.canvas_previews import Previews, encode_fast
from app.web.public_message import message_text
from app.web.visitors import same_origin
from maskgil.inpainting import InpaintingInput

log = logging.getLogger(__name__)

MAX_TEXT = 2**20  # characters of one message, of which a mask takes most
SHEET = "sheet"  # name of the task that draws one
MAX_CANVASES = 32  # sockets of one visitor: pages and tabs
DRAFT = ONE_PICTURE | {"steps": 4, "guidance_scale": 1.0, "refinement_passes": 0, "mode": "masked", "ar_tokens": None}


@runtime_checkable
class CanvasPage(Protocol):
    """What is used of starlette's WebSocket."""

    headers: Any
    query_params: Any

    async def accept(self) -> None: ...
    async def receive_text(self) -> str: ...
    async def send_text(self, data: str) -> None: ...
    async def send_bytes(self, data: bytes) -> None: ...
    async def close(self, code: int = 1000, reason: str | None = None) -> None: ...


_open: dict[str, int] = {}  # sockets by owner


async def serve_canvas(socket: CanvasPage, owner: str | None) -> None:
    """One canvas until its page is closed. What it draws and keeps goes on without it."""
    if not same_origin(socket.headers) or owner is None:
        await socket.close(4403, "open the studio's own page first")
        return
    if _open.get(owner, 0) >= MAX_CANVASES:
        await socket.close(4429, f"{MAX_CANVASES} of your pages are open already: close some")
        return
    _open[owner] = _open.get(owner, 0) + 1
    session: CanvasSession | None = None
    try:
        await socket.accept()
        session = CanvasSession(socket, owner, await asyncio.to_thread(get_services))
        await session.run()
    except WebSocketDisconnect:
        pass
    finally:
        if session is not None:
            session.close()
        _open[owner] -= 1
        if not _open[owner]:
            del _open[owner]


class CanvasSession:
    """One socket, and the drawing that it shows."""

    def __init__(self, socket: CanvasPage, owner: str, services: AppServices):
        self.socket, self.owner, self.services = socket, owner, services
        self.name = socket.query_params.get("name", "draw")[:40]
        self.job: Job | None = None
        self.is_draft = False
        self.follower: asyncio.Task | None = None
        self.sending = asyncio.Lock()
        self.is_keeping_sheet = False

    async def run(self) -> None:
        """Answer messages, in their order, until the page is gone."""
        while True:
            text = await self.socket.receive_text()
            try:
                message = json.loads(text[:MAX_TEXT])
                handle = HANDLERS[message["type"]]
            except (TypeError, ValueError, KeyError, RecursionError):
                await self.send(type="error", message="this page is older than the server: reload it")
                continue
            try:
                await handle(self, message)
            except ValueError as error:
                draft = message["type"] in ("draft", "refine")
                await self.send(type="error", message=" ".join(str(error).split()), draft=draft)

    def close(self) -> None:
        """The page is gone. What is to be kept is drawn to its end; a draft is not."""
        if self.follower is not None:
            self.follower.cancel()
        if self.is_draft and self.job is not None:
            self.job.cancel()

    async def send(self, frames: tuple[bytes, ...] = (), **message: Any) -> None:
        """A message and the frames that belong to it, with nothing in between."""
        await self.sending.acquire()
        # A task of its own: whoever sends may be cancelled after the message, and the page waits for its frames.
        whole = asyncio.ensure_future(self._send_frames(message_text(message), frames))
        whole.add_done_callback(lambda _: self.sending.release())
        await asyncio.shield(whole)

    async def _send_frames(self, text: str, frames: tuple[bytes, ...]) -> None:
        await self.socket.send_text(text)
        for frame in frames:
            await self.socket.send_bytes(frame)

    async def draw(self, message: dict[str, Any]) -> None:
        await self.submit(message, keep=True)

    async def draft(self, message: dict[str, Any]) -> None:
        if await asyncio.to_thread(self.shows_already, message):
            return
        settings = {**given_settings(message), **DRAFT}
        await self.submit({**message, "settings": settings}, keep=False)

    def shows_already(self, message: dict[str, Any]) -> bool:
        """Whether the kept picture on the canvas is what a draft would be of; the page says which one it shows. On a
        thread. Raises ValueError for an impossible draft."""
        job = self.job
        if job is None or self.is_draft or job.status is not Status.DONE or message.get("shown") != job.id:
            return False
        asked = parse_request(message, self.services)
        return canvas_edits.draws_the_same(job, asked, seed_counts=message.get("fixed") is True)

    async def refine(self, message: dict[str, Any]) -> None:
        await self.submit({**message, "settings": given_settings(message) | ONE_PICTURE}, keep=False)

    async def submit(self, message: dict[str, Any], keep: bool) -> None:
        """Begin a drawing in the place of the one that is there."""
        request = await asyncio.to_thread(parse_request, message, self.services)
        previous = self.job if not keep and self.is_draft else None
        start = canvas_edits.refined_draft(previous, request) if message["type"] == "refine" else None
        if start is not None:
            request, previous = replace(request, edit="refined from a draft"), None
        if self.is_keeping_sheet and self.follower is not None:
            await asyncio.wait({self.follower})  # it is kept: its picture is told first
        shown = self.job if self.follower is not None and not self.follower.done() else None
        was_sheet, was_draft = self.is_sheet, self.is_draft
        self.give_up()
        work = (self.begin, request, keep, previous, start)
        try:
            job = await (run_to_end(*work) if keep else run_or_undo(Job.cancel, *work))
        except ValueError:  # no drawing comes in the place of the one before: the page waits for its end
            if was_sheet:
                await self.tell_stopped()
            elif shown is not None:
                await asyncio.wait({self.follow(shown, was_draft)})
            raise
        self.follow(job, draft=not keep)

    def give_up(self) -> None:
        """Cancel the drawing that is shown, also a sheet between two of its cells, and say nothing more of it: what
        comes in its place is the news."""
        if self.job is not None:
            self.job.cancel()
        self.unfollow()

    @property
    def is_drawing(self) -> bool:
        """Whether a job is under way, or a sheet, perhaps between two of its cells."""
        return self.is_sheet or (self.job is not None and not self.job.is_done)

    @property
    def is_sheet(self) -> bool:
        """Whether the cells of a sheet are being drawn."""
        follower = self.follower
        return follower is not None and not follower.done() and follower.get_name() == SHEET

    async def tell_stopped(self) -> None:
        """Tell the page that what it shows came to nothing."""
        await self.send(type="stopped", job="" if self.job is None else self.job.id)

    def begin(self, request: GenerationRequest, keep: bool, previous: Job | None, start: InpaintingInput | None) -> Job:
        """On a thread: the model may have to be loaded. A draft goes on from the tokens of the one before, where what
        it drew is known."""
        after = previous if previous is not None and previous.status is not Status.FAILED else None
        finished = self.services.keep if keep else None
        job = self.services.engine.submit(request, self.owner, start, finished=finished, after=after)
        job.view = self.name
        return job

    async def edit(self, message: dict[str, Any]) -> None:
        """Draw on a kept picture (app/web/canvas_edits.py), and keep what comes of it."""
        job, notes = await asyncio.to_thread(canvas_edits.begin_edit, self.services, self.owner, message)
        job.view = self.name
        if notes:
            await self.send(type="caution", kind=str(message.get("kind"))[:40], text=" ".join(notes))
        self.replace(job)

    async def check(self, message: dict[str, Any]) -> None:
        """Say what an edit does not do well, before it is asked for."""
        text = await asyncio.to_thread(canvas_edits.describe_caution, self.services, self.owner, message)
        await self.send(type="caution", kind=str(message.get("kind"))[:40], text=text)

    async def upscale(self, message: dict[str, Any]) -> None:
        """Keep a kept picture at 2 or 4 times its size."""
        entry, image, note = await asyncio.to_thread(canvas_edits.upscaled, self.services, self.owner, message)
        picture = {"id": entry.id, "seed": entry.request.seed if entry.request else None}
        frame = await asyncio.to_thread(encode_fast, image)
        about = {"prompt": entry.prompt, "size": list(image.size), "draft": False, "job": ""}
        facts = f"{image.width} × {image.height} pixels"
        await self.send((frame,), type="done", pictures=[picture], notes=[note] if note else [], facts=facts, **about)

    def replace(self, job: Job) -> None:
        """Show a drawing that is to be kept in the place of the one that is there."""
        self.give_up()
        self.follow(job, draft=False)

    async def sheet(self, message: dict[str, Any]) -> None:
        """Draw the cells of a sheet one after the other; `stop` ends it."""
        x, y = SettingAxis.read(message.get("x")), SettingAxis.read(message.get("y"))
        cells = list(combinations(x, y))
        seed = given_settings(message).get("seed")
        shared = {**given_settings(message), "n": 1, "seed": random_seed() if seed is None else seed}
        asked = [{**message, "settings": shared | cell} for cell in cells]
        requests = await asyncio.to_thread(lambda: [parse_request(each, self.services) for each in asked])
        self.give_up()
        self.follower = asyncio.create_task(self.draw_sheet(requests, x, y), name=SHEET)

    async def draw_sheet(self, requests: list[GenerationRequest], x: SettingAxis, y: SettingAxis) -> None:
        images = []
        try:
            for number, request in enumerate(requests, 1):
                self.job = job = await run_or_undo(Job.cancel, self.begin, request, False, None, None)
                self.is_draft = True  # a page that is left does not finish its sheet
                await self.send(type="sheet", number=number, of=len(requests))
                async for _ in job.changes():
                    pass
                if job.status is not Status.DONE:
                    raise ValueError(job.error or "the sheet was stopped")
                images.append(job.pictures()[0])
            first = requests[0]
            image = await asyncio.to_thread(compose, images, x, y, f"{first.prompt} · seed {first.seed}")
            request = replace(first, edit=f"sheet of {x.name} by {y.name}")
            self.is_keeping_sheet = True  # a thread saves it, also where this task were cancelled
            entry = await asyncio.to_thread(self.services.gallery.add, self.owner, image, request)
            frame = await asyncio.to_thread(encode_fast, image)
            about = {"prompt": first.prompt, "size": list(image.size), "draft": False, "job": "", "notes": []}
            pictures = [{"id": entry.id, "seed": first.seed}]
            self.job = None
            await self.send((frame,), type="done", pictures=pictures, facts=f"{len(images)} pictures", **about)
        except ValueError as error:
            await self.send(type="error", message=" ".join(str(error).split()))
        except (WebSocketDisconnect, RuntimeError):  # starlette raises the latter once the socket is closed
            pass
        finally:
            self.is_keeping_sheet = False

    async def keep(self, message: dict[str, Any]) -> None:
        if self.job is None or self.job.status is not Status.DONE:
            raise ValueError("nothing is drawn yet that could be kept")
        self.is_draft = False
        job = self.job
        await run_to_end(self.services.keep, job)
        reading = await asyncio.to_thread(reading_notes, job)
        about = {"prompt": job.request.prompt, "reading": reading, "notes": job_notes(job)}
        await self.send(type="kept", job=job.id, pictures=describe_pictures(job), **about)

    async def stop(self, message: dict[str, Any]) -> None:
        """Cancel the drawing. One whose picture is being kept is over: its picture arrives."""
        if not self.is_drawing or self.is_keeping_sheet:
            return
        if self.is_sheet or self.job is None or self.job.cancel():
            self.give_up()
            await self.tell_stopped()

    async def watch(self, message: dict[str, Any]) -> None:
        """Take up the visitor's last drawing here, if it was to be kept."""
        jobs = [job for job in self.services.engine.jobs(self.owner) if job.view == self.name]
        jobs = [job for job in jobs if job.kept or not job.is_done and job.finished is not None]
        if jobs and self.job is None:
            job = jobs[-1]
            if not job.is_done:  # the page shows the steps of a drawing that it was told of
                await self.send(type="queued", job=job.id, position=job.position)
            self.follow(job, draft=False)

    async def read(self, message: dict[str, Any]) -> None:
        prompt, model = str(message.get("prompt", "")), str(message.get("model", ""))
        reading = await asyncio.to_thread(describe_reading, self.services.engine, model, prompt)
        await self.send(type="reading", **reading)

    def follow(self, job: Job, draft: bool) -> asyncio.Task:
        """Show a drawing from now on, and no other. The task ends when its end is told."""
        self.unfollow()
        self.job, self.is_draft = job, draft
        self.follower = asyncio.create_task(self.show(job))
        return self.follower

    def unfollow(self) -> None:
        if self.follower is not None:
            self.follower.cancel()
            self.follower = None

    async def show(self, job: Job) -> None:
        """Send what becomes of a drawing."""
        try:
            previews = Previews(job)
            async for _ in job.changes():
                if job.is_done:
                    break
                if job.status is Status.QUEUED:
                    await self.send(type="queued", job=job.id, position=job.position)
                elif job.frames:
                    rows, images = await asyncio.to_thread(previews.take)
                    await self.send(tuple(images), **describe_step(job), rows=rows)
            await self.end(job)
        except (WebSocketDisconnect, RuntimeError):  # starlette raises the latter once the socket is closed
            pass
        except Exception:
            log.exception("job %s cannot be shown", job.id)
            await self.send(type="error", message="the drawing cannot be shown: the server's log says why")

    async def end(self, job: Job) -> None:
        """Send how a drawing ended."""
        if job.status is Status.FAILED:
            await self.send(type="error", job=job.id, message=job.error)
        elif job.status is Status.CANCELLED:
            await self.send(type="stopped", job=job.id)
        else:
            frames = await asyncio.to_thread(lambda: tuple(encode_fast(image) for image in (job.images or [])))
            size = list(job.images[0].size) if job.images else drawn_size(job)
            reading = await asyncio.to_thread(reading_notes, job)
            facts = {"draft": self.is_draft, "prompt": job.request.prompt, "facts": summarize(job)}
            await self.send(
                frames,
                type="done",
                job=job.id,
                pictures=describe_pictures(job),
                notes=job_notes(job),
                reading=reading,
                size=size,
                **facts,
            )


Handler = Callable[[CanvasSession, dict[str, Any]], Any]
HANDLERS: dict[str, Handler] = {
    "draw": CanvasSession.draw,
    "draft": CanvasSession.draft,
    "refine": CanvasSession.refine,
    "edit": CanvasSession.edit,
    "check": CanvasSession.check,
    "upscale": CanvasSession.upscale,
    "sheet": CanvasSession.sheet,
    "keep": CanvasSession.keep,
    "stop": CanvasSession.stop,
    "watch": CanvasSession.watch,
    "read": CanvasSession.read,
}
