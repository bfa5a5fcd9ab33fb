"""The canvas's socket: what a page asks for, what it is shown, and what is kept."""

import asyncio
import io
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import torch
from app_fixtures import tiny_model
from PIL import Image
from starlette.datastructures import QueryParams
from starlette.websockets import WebSocketDisconnect

import text_encoder
from app.core import registry
from app.core.gallery_store import Gallery
from app.core.request import GenerationRequest
from app.serving.batching import Batch
from app.serving.job_table import QueueFullError
from app.serving.jobs import Job, Status
from app.serving.local_engine import LocalEngine
from app.serving.recognizer import SpeechRecognizer
from app.serving.services import AppServices
from app.web import canvas_previews, canvas_socket
from maskgil.pipeline import TextToImage

ME = "me-1234567"
SECONDS = 120
SETTINGS = {"model": "scenes", "size": [64, 64], "steps": 8, "refinement_passes": 1, "seed": 5}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(Path(tmp_path_factory.mktemp("weights")) / "scenes")


@pytest.fixture
def services(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppServices]:
    monkeypatch.setenv("MASKGIL_WEIGHTS", str(model.parent))
    engine = LocalEngine(lambda name, dtype=None: TextToImage.load(model, text_encoder.load))
    services = AppServices(engine, SpeechRecognizer("none"), Gallery(tmp_path / "gallery"))
    monkeypatch.setattr(canvas_socket, "get_services", lambda: services)
    yield services
    engine.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Drawings make a step for each release."""
    gate, together = threading.Semaphore(0), Batch._together

    def gated(batch, drawings) -> None:
        gate.acquire(timeout=SECONDS)
        together(batch, drawings)

    monkeypatch.setattr(Batch, "_together", gated)
    return gate


class Page:
    """The other end of a socket."""

    def __init__(self, name: str = "draw", origin: str = "http://here"):
        self.headers, self.query_params = {"origin": origin, "host": "here"}, QueryParams(name=name)
        self.up: asyncio.Queue = asyncio.Queue()
        self.down: list[tuple[dict, list[bytes]]] = []
        self.closed: int | None = None
        self.news = asyncio.Event()

    async def accept(self) -> None: ...

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        self.closed = code

    async def receive_text(self) -> str:
        if (text := await self.up.get()) is None:
            raise WebSocketDisconnect
        return text

    async def send_text(self, data: str) -> None:
        self.down.append((json.loads(data), []))
        self.news.set()

    async def send_bytes(self, data: bytes) -> None:
        self.down[-1][1].append(data)
        self.news.set()

    def say(self, type: str, **message) -> None:
        self.up.put_nowait(json.dumps({"type": type, **message}))

    async def hear(self, type: str) -> tuple[dict, list[bytes]]:
        """The next message of this type, with its frames."""
        async with asyncio.timeout(SECONDS):
            while True:
                for i, (message, frames) in enumerate(self.down):
                    wanted = len(message["pictures"]) if type == "done" and message["type"] == "done" else 0
                    if message["type"] == type and len(frames) >= wanted:
                        del self.down[: i + 1]
                        return message, frames
                self.news.clear()
                await self.news.wait()


def visit(*scripts: Callable[[Page], Awaitable[None]], owner: str | None = ME, **page) -> Page:
    """Pages that follow these scripts, one after the other; the last of them."""

    async def run() -> Page:
        for script in scripts:
            end = Page(**page)
            serving = asyncio.create_task(canvas_socket.serve_canvas(end, owner))
            await script(end)
            end.up.put_nowait(None)
            await asyncio.wait_for(serving, SECONDS)
        return end

    return asyncio.run(run())


def test_a_drawing_shows_its_steps_and_is_kept(services: AppServices):
    async def script(page: Page) -> None:
        page.say("draw", prompt=" two cats ", settings={**SETTINGS, "n": 2})
        message, frames = await page.hear("done")
        assert [picture["seed"] for picture in message["pictures"]] == [5, 6] and message["prompt"] == "two cats"
        assert [Image.open(io.BytesIO(frame)).size for frame in frames] == [(64, 64)] * 2
        assert message["facts"].startswith("seeds 5 to 6 · 8 steps and 1 refinement · ")
        ids = {entry.id for entry in services.gallery.entries(ME)}
        assert {picture["id"] for picture in message["pictures"]} == ids and len(ids) == 2

    visit(script)


def test_each_step_says_which_tokens_are_open(services: AppServices, gate: threading.Semaphore):
    async def script(page: Page) -> None:
        page.say("draw", prompt="a cat", settings=SETTINGS)
        gate.release()
        first, frames = await page.hear("step")
        assert (first["step"], first["of"], first["grid"]) == (1, 9, [8, 8]) and len(first["masks"][0]) == 64
        assert len(frames) == len(first["rows"])
        gate.release(20)
        await page.hear("done")

    visit(script)


def test_stop_answers_at_once_and_keeps_nothing(services: AppServices, gate: threading.Semaphore):
    """Even while a step is being computed."""

    async def script(page: Page) -> None:
        page.say("draw", prompt="a cat", settings=SETTINGS)
        gate.release()
        await page.hear("step")
        page.say("stop")
        await page.hear("stopped")
        gate.release(20)

    visit(script)
    (job,) = services.engine.jobs(ME)
    assert job.wait(SECONDS) and job.status is Status.CANCELLED and not services.gallery.entries(ME)


class SlowGallery:
    """Adds a picture to a gallery once it is let: a slow disk."""

    def __init__(self, gallery: Gallery, monkeypatch: pytest.MonkeyPatch):
        self.begun, self.go_on, self.plain = threading.Event(), threading.Event(), gallery.add
        monkeypatch.setattr(gallery, "add", self.add)

    def add(self, *arguments):
        self.begun.set()
        assert self.go_on.wait(SECONDS)
        return self.plain(*arguments)


@pytest.mark.parametrize("kind", ["draw", "sheet"])
def test_stop_while_the_picture_is_being_kept_shows_it(
    services: AppServices, kind: str, monkeypatch: pytest.MonkeyPatch
):
    """The page is not told that it was stopped: the picture is in the gallery a moment later."""
    slow = SlowGallery(services.gallery, monkeypatch)
    axes = {"x": {"name": "steps", "values": ["2"]}, "y": {"name": "temperature", "values": ["1"]}}

    async def script(page: Page) -> None:
        page.say(kind, prompt="a cat", settings=SETTINGS, **(axes if kind == "sheet" else {}))
        assert await asyncio.to_thread(slow.begun.wait, SECONDS)
        page.say("stop")
        page.say("read", prompt="a cat", model="scenes")
        async with asyncio.timeout(SECONDS):  # messages are answered in their order
            while "reading" not in (heard := [message["type"] for message, _ in page.down]):
                await asyncio.sleep(0.01)
        slow.go_on.set()
        assert "stopped" not in heard
        message, _ = await page.hear("done")
        assert message["pictures"][0]["id"] == services.gallery.entries(ME)[0].id

    visit(script)


def test_stop_in_the_last_step_keeps_nothing(services: AppServices, gate: threading.Semaphore):
    async def script(page: Page) -> None:
        page.say("draw", prompt="a cat", settings=SETTINGS)
        gate.release(8)  # of 9
        while (await page.hear("step"))[0]["step"] < 8:
            pass
        await asyncio.sleep(0.2)  # the last one has begun
        page.say("stop")
        await page.hear("stopped")
        gate.release()

    visit(script)
    (job,) = services.engine.jobs(ME)
    assert job.wait(SECONDS) and job.status is Status.CANCELLED and not services.gallery.entries(ME)


def test_a_kept_picture_stays_while_the_same_would_be_drawn(services: AppServices):
    """Of words that are read the same, with the same options and, where it was chosen, the same seed."""

    async def script(page: Page) -> None:
        page.say("draw", prompt="a cat", settings={**SETTINGS, "n": 2})
        shown = (await page.hear("done"))[0]["job"]

        async def drafts(prompt: str, fixed: bool = False, **settings) -> bool:
            """Whether typing leads to a draft."""
            before = len(services.engine.jobs(ME))
            page.say("draft", prompt=prompt, settings={**SETTINGS, "seed": 9, **settings}, shown=shown, fixed=fixed)
            page.say("read", prompt=prompt, model="scenes")
            await page.hear("reading")
            return len(services.engine.jobs(ME)) > before

        assert not await drafts("a cat ") and not await drafts("A cat, please")
        assert not await drafts("a cat", fixed=True, seed=5)
        assert await drafts("a cat", fixed=True)
        page.say("draw", prompt="a cat", settings=SETTINGS)
        while (message := (await page.hear("done"))[0])["draft"]:
            pass
        shown = message["job"]
        assert await drafts("a cat", temperature=0.5)
        assert await drafts("a cat"), "the picture gave way to a draft"

    visit(script)


def test_drafts_take_four_evaluations_replace_each_other_and_are_not_kept(services: AppServices):
    async def script(page: Page) -> None:
        page.say("draft", prompt="a cat", settings={**SETTINGS, "n": 4})
        message, frames = await page.hear("done")
        assert message["draft"] and len(frames) == 1 and "· 4 passes per picture" in message["facts"]
        page.say("draft", prompt="a cat on the beach", settings=SETTINGS)
        await page.hear("done")
        second = services.engine.jobs(ME)[-1]
        assert second.previous is not None and second.previous.prompt == "a cat", "it goes on from the tokens before"
        page.say("refine", prompt="a cat on the beach", settings=SETTINGS)
        message, frames = await page.hear("done")
        assert not services.gallery.entries(ME)
        page.say("keep")
        kept, _ = await page.hear("kept")
        (entry,) = services.gallery.entries(ME)
        assert kept["pictures"] == [{"id": entry.id, "seed": 5}] and entry.prompt == "a cat on the beach"
        assert services.gallery.png(entry, False) and Image.open(io.BytesIO(frames[0])).size == (64, 64)

    visit(script)


def test_typing_never_has_more_than_one_job_and_leaving_ends_it(services: AppServices, gate: threading.Semaphore):
    async def script(page: Page) -> None:
        for words in ("a cat", "a dog", "a red dog", "a cat on the beach"):
            page.say("draft", prompt=words, settings=SETTINGS)
        while len(services.engine.jobs(ME)) < 4:
            await asyncio.sleep(0.01)
        running = [job for job in services.engine.jobs(ME) if not job.is_done and not job.cancelled]
        assert [job.request.prompt for job in running] == ["a cat on the beach"]

    visit(script)
    gate.release(100)
    assert all(job.wait(SECONDS) and job.status is Status.CANCELLED for job in services.engine.jobs(ME))


def test_a_reload_shows_the_drawing_that_is_under_way(services: AppServices, gate: threading.Semaphore):
    async def begin(page: Page) -> None:
        page.say("draw", prompt="a cat", settings=SETTINGS)
        gate.release()
        await page.hear("step")

    async def again(page: Page) -> None:
        page.say("watch")
        told, _ = await page.hear("queued")
        assert told["position"] == 0, "the page offers Stop before another step comes"
        gate.release(20)
        message, _ = await page.hear("done")
        assert message["prompt"] == "a cat" and message["pictures"][0]["id"]

    visit(begin, again)


def test_a_variation_keeps_most_tokens_and_the_pictures_own_words(services: AppServices):
    async def script(page: Page) -> None:
        page.say("draw", prompt="a cat", settings=SETTINGS)
        first, _ = await page.hear("done")
        page.say("edit", kind="vary", id=first["pictures"][0]["id"], settings={**SETTINGS, "seed": 9})
        varied, _ = await page.hear("done")
        entry = services.gallery.get(ME, varied["pictures"][0]["id"])
        assert entry.prompt == "a cat" and entry.request.edit.endswith("a share of 0.4")
        assert entry.request.edit.startswith("26 of 64 cells of ")

    visit(script)


def test_a_drawing_starts_from_a_kept_picture(services: AppServices):
    """Of any size: it is scaled and cut to that of the drawing. The tokens that stay are the picture's own."""
    entry = services.gallery.add(ME, Image.effect_noise((200, 100), 90).convert("RGB"), None)

    async def script(page: Page) -> None:
        asked = {"kind": "start", "id": entry.id, "prompt": "a cat"}
        page.say("edit", **asked, strength=0.25, settings={**SETTINGS, "n": 2, "size": [96, 64]})
        message, frames = await page.hear("done")
        assert [picture["seed"] for picture in message["pictures"]] == [5, 6]
        drawn = [services.gallery.get(ME, picture["id"]) for picture in message["pictures"]]
        assert all(each.prompt == "a cat" and "a share of 0.25" in each.request.edit for each in drawn)
        assert [Image.open(io.BytesIO(frame)).size for frame in frames] == [(96, 64)] * 2
        job = services.engine.jobs(ME)[-1]
        tokens, stays = job.frames[-1].grid.tokens, ~job.start.mask
        assert stays.sum() == 72 and all(torch.equal(row[stays], job.start.tokens[stays]) for row in tokens)
        assert not torch.equal(tokens[0], tokens[1]), "two seeds draw the rest otherwise"
        page.say("edit", **asked, strength=2, settings=SETTINGS)
        assert "above 0 and at most 1" in (await page.hear("error"))[0]["message"]

    visit(script)


def test_a_doubtful_edit_is_told_before_it_is_asked_for_and_before_its_steps(services: AppServices):
    async def script(page: Page) -> None:
        page.say("draw", prompt="a cat", settings=SETTINGS)
        first, _ = await page.hear("done")
        about = {"id": first["pictures"][0]["id"], "kind": "extend", "side": "left", "settings": SETTINGS}
        jobs = len(services.engine.jobs(ME))
        page.say("check", **about, amount=32, size=[64, 64], prompt="")
        told, _ = await page.hear("caution")
        assert told["kind"] == "extend" and "it may show another cat" in told["text"]
        page.say("check", **about, amount=96, size=[64, 64], prompt="")
        assert "more than the picture's own 64" in (await page.hear("caution"))[0]["text"]
        assert len(services.engine.jobs(ME)) == jobs, "nothing is drawn for it"
        page.say("edit", **about, amount=32)
        async with asyncio.timeout(SECONDS):
            while not any(message["type"] == "done" for message, _ in page.down):
                await asyncio.sleep(0.01)
        kinds = [message["type"] for message, _ in page.down]
        assert kinds[0] == "caution" and "caution" not in kinds[1:]
        page.say("check", id="nothing", kind="vary", settings=SETTINGS)
        assert "no picture" in (await page.hear("error"))[0]["message"]

    visit(script)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({"type": "draw", "prompt": "", "settings": SETTINGS}, "prompt is empty"),
        ({"type": "draw", "prompt": "zebras", "settings": SETTINGS}, "can be drawn"),
        ({"type": "draw", "prompt": "a cat", "settings": {**SETTINGS, "model": "/etc"}}, "no model"),
        ({"type": "draw", "prompt": "a cat", "settings": {**SETTINGS, "steps": 10**6}}, "steps"),
        ({"type": "edit", "kind": "vary", "id": "nothing", "settings": SETTINGS}, "no picture"),
        ({"type": "keep"}, "nothing is drawn"),
        ({"type": "dance"}, "reload"),
    ],
)
def test_what_cannot_be_done_is_said_and_the_socket_lives(services: AppServices, message: dict, complaint: str):
    async def script(page: Page) -> None:
        page.say(**message)
        error, _ = await page.hear("error")
        assert complaint in error["message"]
        page.say("read", prompt="a zebra and a cat", model="scenes")
        reading, _ = await page.hear("reading")
        status = {span["text"].strip(): span["status"] for span in reading["spans"]}
        assert status["a zebra"] == "left_out" and status["cat"] == "drawn" and reading["chips"] == ["cat"]

    visit(script)


def test_strangers_and_other_sites_are_refused(services: AppServices):
    async def nothing(page: Page) -> None: ...

    assert visit(nothing, owner=None).closed == 4403
    assert visit(nothing, origin="http://elsewhere").closed == 4403


def test_previews_take_at_most_their_share_of_the_time(services: AppServices):
    job = services.engine.submit(GenerationRequest("a cat", 1, "scenes", (64, 64), n=4))
    assert job.wait(SECONDS)
    previews = canvas_previews.Previews(job)
    assert previews.take() == ([], []), "a finished job needs none"


def test_a_sheet_of_two_settings_is_kept_as_one_picture(services: AppServices):
    async def script(page: Page) -> None:
        axes = {"x": {"name": "steps", "values": ["2", "4"]}, "y": {"name": "temperature", "values": ["0.5", "1"]}}
        page.say("sheet", prompt="a cat", settings=SETTINGS, **axes)
        message, frames = await page.hear("done")
        (entry,) = services.gallery.entries(ME)
        assert message["pictures"] == [{"id": entry.id, "seed": 5}] and message["facts"] == "4 pictures"
        assert (
            Image.open(io.BytesIO(frames[0])).width > 2 * 64 and entry.request.edit == "sheet of steps by temperature"
        )
        page.say("sheet", prompt="a cat", settings=SETTINGS, x=axes["x"], y=axes["x"])
        assert "choose two settings" in (await page.hear("error"))[0]["message"]

    visit(script)


def test_no_model_folder_is_read_on_the_event_loop(services: AppServices, monkeypatch: pytest.MonkeyPatch):
    opened, on_loop = registry._open, []

    def counted(name: str, folder: Path) -> registry.ModelInfo:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            on_loop.append(False)
        else:
            on_loop.append(True)
        return opened(name, folder)

    monkeypatch.setattr(registry, "_open", counted)

    async def script(page: Page) -> None:
        page.say("read", prompt="a zebra and a cat", model="scenes")
        await page.hear("reading")
        page.say("draft", prompt="a zebra and a cat", settings=SETTINGS)
        done, _ = await page.hear("done")
        assert any("zebra" in note for note in done["reading"])
        page.say("keep")
        await page.hear("kept")
        axis = {"name": "steps", "values": ["2"]}
        page.say("sheet", prompt="a cat", settings=SETTINGS, x=axis, y={"name": "temperature", "values": ["1"]})
        await page.hear("done")

    visit(script)
    assert on_loop and not any(on_loop)


def test_a_canvas_that_cannot_be_opened_does_not_count(services: AppServices, monkeypatch: pytest.MonkeyPatch):
    def broken() -> AppServices:
        raise ValueError("no disk")

    monkeypatch.setattr(canvas_socket, "get_services", broken)
    with pytest.raises(ValueError, match="no disk"):
        asyncio.run(canvas_socket.serve_canvas(Page(), ME))
    assert ME not in canvas_socket._open


def test_a_sheet_is_stopped_while_a_cell_is_being_begun(
    services: AppServices, gate: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
):
    submit, begun, go = services.engine.submit, threading.Event(), threading.Event()

    def slow(*arguments, **options):
        begun.set()
        assert go.wait(SECONDS)
        return submit(*arguments, **options)

    monkeypatch.setattr(services.engine, "submit", slow)

    async def script(page: Page) -> None:
        axes = {"x": {"name": "steps", "values": ["2", "4"]}, "y": {"name": "temperature", "values": ["1"]}}
        page.say("sheet", prompt="a cat", settings=SETTINGS, **axes)
        assert await asyncio.to_thread(begun.wait, SECONDS)
        page.say("stop")
        await page.hear("stopped")
        go.set()

    visit(script)  # its loop ends when its threads have: the cell is submitted
    gate.release(100)
    (job,) = services.engine.jobs(ME)
    assert job.wait(SECONDS) and job.status is Status.CANCELLED


def test_a_message_whose_sender_is_cancelled_still_has_its_frames(
    services: AppServices, gate: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
):
    send_bytes = Page.send_bytes

    class AllPreviews:
        def __init__(self, job: Job): ...

        def take(self) -> tuple[list[int], list[bytes]]:
            return [0], [b"preview"]

    monkeypatch.setattr(canvas_socket, "Previews", AllPreviews)

    async def script(page: Page) -> None:
        sending, go = asyncio.Event(), asyncio.Event()

        async def slow(page: Page, data: bytes) -> None:
            sending.set()
            await go.wait()
            await send_bytes(page, data)

        monkeypatch.setattr(Page, "send_bytes", slow)
        page.say("draw", prompt="a cat", settings=SETTINGS)
        async with asyncio.timeout(SECONDS):
            gate.release()
            await sending.wait()
            page.say("stop")
            while not services.engine.jobs(ME)[0].cancelled:
                await asyncio.sleep(0.01)
            go.set()
            while page.down[-1][0]["type"] != "stopped":
                await asyncio.sleep(0.01)
        steps = [(message, frames) for message, frames in page.down if message["type"] == "step"]
        assert steps and all(len(frames) == len(message["rows"]) for message, frames in steps)

    visit(script)
    gate.release(100)


def test_a_refused_draft_tells_that_it_ended_the_drawing_before_it(
    services: AppServices, gate: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
):
    """Without it the page waits for a drawing that is cancelled."""

    def full(*arguments, **named) -> Job:
        raise QueueFullError("no place")

    async def script(page: Page) -> None:
        page.say("draw", prompt="a red cat", settings=SETTINGS)
        gate.release()
        job = (await page.hear("step"))[0]["job"]
        monkeypatch.setattr(services.engine, "submit", full)
        page.say("draft", prompt="a red cat and", settings=SETTINGS)
        gate.release(20)
        assert (await page.hear("stopped"))[0]["job"] == job
        assert (await page.hear("error"))[0]["draft"]

    visit(script)


def test_a_refused_draft_does_not_swallow_the_picture_that_is_being_sent(
    services: AppServices, monkeypatch: pytest.MonkeyPatch
):
    """The drawing is over, but its image is still being encoded when the draft is refused."""
    plain, begun, go_on = canvas_socket.encode_fast, threading.Event(), threading.Event()

    def encode(image) -> bytes:
        begun.set()
        go_on.wait(30)
        return plain(image)

    def full(*arguments, **named) -> Job:
        go_on.set()
        raise QueueFullError("no place")

    async def script(page: Page) -> None:
        page.say("draw", prompt="a red cat", settings=SETTINGS)
        await page.hear("step")
        monkeypatch.setattr(canvas_socket, "encode_fast", encode)
        await asyncio.to_thread(begun.wait, 30)
        monkeypatch.setattr(services.engine, "submit", full)
        page.say("draft", prompt="a red cat and", settings=SETTINGS)
        assert not (await page.hear("done"))[0]["draft"]
        assert (await page.hear("error"))[0]["draft"]

    visit(script)
