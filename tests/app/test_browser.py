"""The studio in a real browser, offline: type to picture, speak to picture, stop, paint over, two visitors, a reload, a
kill."""

import base64
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from app_fixtures import tiny_ar_model, tiny_model
from PIL import Image
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from app.core.png import encode_png, read_picture
from app.core.request import GenerationRequest
from maskgil import checkpoint
from train.eval.scene_score import SIDE
from train.scenes.judge import in_scene_size
from train.scenes.sprites import things

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = "/usr/bin/chromium"
SECONDS = 400
SENTENCE = "two cats on the beach"
SINGLE = {"a red apple": "apple", "a pumpkin": "pumpkin", "an elephant": "elephant"}  # said -> what is to be seen

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(2000),
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="needs Debian's chromium"),
]
bundled = pytest.mark.skipif(
    not (ROOT / "weights" / "whisper-scenes" / "model.pt").exists() or shutil.which("espeak-ng") is None,
    reason="needs the bundled recognizer and espeak-ng",
)


# `python -m app`, which notes each walk of Python's collector over all objects in a file
COUNTED = """
import gc, runpy, sys
log = open(sys.argv.pop(1), "a", buffering=1)
gc.callbacks.append(lambda phase, about: phase == "stop" and about["generation"] == 2 and log.write("walk\\n"))
runpy.run_module("app", run_name="__main__", alter_sys=True)
"""


class Studio:
    """A server of its own, on a free port."""

    def __init__(self, weights: Path, gallery: Path):
        self.walks = gallery.with_suffix(".walks")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://localhost:{self.port}"
        self.arguments = ["--port", str(self.port), "--weights", str(weights), "--gallery", str(gallery)]
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-c", COUNTED, str(self.walks), "ui", *self.arguments]
        environment = {"MASKGIL_RECOGNIZER": "whisper-scenes", **os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        until(self.healthy)

    def healthy(self) -> bool:
        assert self.process.poll() is None, "the server ended"
        try:
            return urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=5).status == 200
        except OSError:
            return False

    def stop(self, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(30)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with an AR model and one large size, beside the bundled recognizer where there is one."""
    folder = Path(tmp_path_factory.mktemp("weights"))
    tiny_ar_model(tiny_model(folder / "scenes"))
    words = folder / "scenes" / "vocabulary.json"
    values = json.loads(words.read_text())
    words.write_text(json.dumps(values | {"sizes": [*values["sizes"], [192, 192]]}))
    if (ROOT / "weights" / "whisper-scenes").is_dir():
        (folder / "whisper-scenes").symlink_to(ROOT / "weights" / "whisper-scenes")
    return folder


@pytest.fixture(scope="module")
def studio(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = Studio(weights, Path(tmp_path_factory.mktemp("gallery")))
    yield studio
    if studio.process.poll() is None:
        studio.stop()


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spoken(Path(tmp_path_factory.mktemp("speech")) / "microphone.wav", SENTENCE)


def spoken(path: Path, *sentences: str, after: int = 2) -> Path:
    """Sentences, as a microphone would hear them, with so many seconds of silence after each."""
    sound = []
    for sentence in sentences:
        command = ["espeak-ng", "-v", "en-us", "-s", "140", "--stdout", sentence]
        said, rate = soundfile.read(io.BytesIO(subprocess.check_output(command)), dtype="float32")
        sound.append(np.pad(soxr.resample(said, rate, 16000), (16000, 16000 * after)))
    soundfile.write(path, np.concatenate(sound), 16000)
    return path


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator:
    from playwright.sync_api import sync_playwright

    heard = request.getfixturevalue("speech") if shutil.which("espeak-ng") else None
    with sync_playwright() as playwright:
        browser = open_browser(playwright.chromium, heard)
        yield browser
        browser.close()


def open_browser(chromium, heard: Path | None):
    """A browser that hears this file as its microphone, over and over."""
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--use-fake-device-for-media-stream"]
    flags.append("--use-fake-ui-for-media-stream")
    if heard is not None:
        flags.append(f"--use-file-for-fake-audio-capture={heard}")
    return chromium.launch(executable_path=CHROMIUM, headless=True, args=flags)


@pytest.fixture
def visit(browser, studio: Studio) -> Iterator[Callable]:
    """Open a room as a visitor of one's own; every request that leaves this machine is a failure."""
    contexts, abroad = [], []

    def visit(room: str = "", size: tuple[int, int] = (1280, 900)):
        context = browser.new_context(permissions=["microphone"], viewport={"width": size[0], "height": size[1]})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SECONDS * 1000)
        page.on("request", lambda request: abroad.append(request.url) if is_abroad(request.url) else None)
        page.goto(f"{studio.url}/{room}")
        settle(page)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not abroad


def settle(page) -> None:
    """Wait until the script has not run for half a second: what a browser remembers makes it run again at first, and a
    run closes lists and takes presses away. Pages that never run it are not waited for longer than ten seconds."""
    quiet, end = 0, time.monotonic() + 10
    while quiet < 5 and time.monotonic() < end:
        quiet = quiet + 1 if page.locator("[data-test-script-state=notRunning]").count() else 0
        page.wait_for_timeout(100)


def is_abroad(url: str) -> bool:
    return url.startswith("http") and not url.startswith(("http://localhost", "http://127.0.0.1"))


def draw(page, prompt: str) -> None:
    box = page.get_by_role("textbox", name="Prompt", exact=True)
    box.fill(prompt)
    box.press("Enter")


def picture(page, prompt: str):
    """The finished picture of this prompt, kept."""
    page.locator(f".canvas-view:not([aria-busy]) .sheet figure:has(.save) img[alt='{prompt}']").first.wait_for()
    return page.locator(".sheet img").first


def download(page, kind: str = "PNG") -> bytes:
    """The file of the first finished picture."""
    page.locator(".sheet .save summary").first.click()
    with page.expect_download() as file:
        page.locator(".sheet .save").first.get_by_role("link", name=kind, exact=True).click()
    return file.value.path().read_bytes()


def unfold(page, title: str) -> None:
    """Open a box, and wait until it stands open. It unfolds in half a second: a press on a widget in the instant at
    which the lower border uncovers it goes to the border."""
    page.get_by_text(title).click()
    page.locator("details[open]:not([style*=overflow])", has=page.get_by_text(title)).wait_for()


def all_settings(page) -> None:
    if not page.get_by_role("slider", name="Steps").count():
        page.get_by_text("All settings").click()
        assert page.get_by_label("All settings").is_checked(), "the press was lost"
        page.get_by_role("slider", name="Steps").wait_for()


def opened(page, label: str, option: str):
    """An option in the open list of a select box. A run of the script that ends meanwhile closes the list: it is then
    opened again."""
    from playwright.sync_api import TimeoutError as TooLate

    wanted = page.get_by_role("option", name=option, exact=True)
    for _ in range(5):
        page.locator("[data-test-script-state=notRunning]").wait_for()
        page.get_by_role("combobox", name=label).click()
        try:
            wanted.wait_for(timeout=5000)
            return wanted
        except TooLate:
            page.keyboard.press("Escape")
    return wanted


def choose(page, label: str, option: str) -> None:
    """Choose in a select box."""
    from playwright.sync_api import TimeoutError as TooLate

    for _ in range(5):
        try:
            return opened(page, label, option).click(timeout=5000)
        except TooLate:  # closed after all
            continue
    opened(page, label, option).click()


def listen(page) -> None:
    """Press the microphone, once the page is laid out: a press before may be lost."""
    page.locator("[data-test-script-state=notRunning]").wait_for()
    page.get_by_role("button", name="Start listening").click()


def draw_long(page, prompt: str, pictures: int) -> None:
    """Draw what takes seconds on any machine, and wait until its first step is seen."""
    page.locator("[data-test-script-state=notRunning]").wait_for()  # a click while the page is laid out may be lost
    unfold(page, "64 × 64, 8 steps, 1 picture")
    choose(page, "Size", "192 × 192 square")
    choose(page, "Pictures", str(pictures))
    all_settings(page)
    page.get_by_role("slider", name="Steps").focus()
    page.keyboard.press("End")
    page.get_by_text(f"192 × 192, 64 steps, {pictures} pictures").wait_for()  # the page has heard of it
    page.locator("[data-test-script-state=notRunning]").wait_for()
    draw(page, prompt)
    page.locator(".progress:not([hidden])").wait_for()


def test_type_to_picture_and_download_what_remembers(visit: Callable):
    page = visit()
    draw(page, SENTENCE)
    assert picture(page, SENTENCE).evaluate("image => image.naturalWidth") == 64
    image, request = read_picture(download(page))
    assert image.size == (64, 64) and request is not None and request.prompt == SENTENCE
    assert Image.open(io.BytesIO(download(page, "JPG"))).format == "JPEG"
    assert Image.open(io.BytesIO(download(page, "WEBP"))).format == "WEBP"
    assert read_picture(download(page, "PNG without settings"))[1] is None


@pytest.mark.journey
def test_the_autoregressive_model_begins_a_picture(visit: Callable):
    page = visit()
    unfold(page, "64 × 64, 8 steps, 1 picture")
    all_settings(page)
    page.get_by_role("radio", name="Autoregressive start, then MaskGIL").click()
    page.get_by_text("64 × 64, 32 tokens, then 8 steps, 1 picture").wait_for()
    page.locator("[data-test-script-state=notRunning]").wait_for()
    draw(page, "a blue dog")
    picture(page, "a blue dog")
    request = read_picture(download(page))[1]
    assert request is not None and (request.params.mode, request.params.ar_tokens) == ("hybrid", 32)


class SlowPage:
    """A page that hears what the server says when we let it."""

    def __init__(self, browser):
        self.context = browser.new_context(viewport={"width": 1280, "height": 900})
        self.page = self.context.new_page()
        self.page.set_default_timeout(SECONDS * 1000)
        self.page.route_web_socket(re.compile("/_stcore/stream"), self._connect)
        self.held: list[bytes] = []
        self.late = False
        self.late_from: Callable[[ForwardMsg], bool] = lambda message: False  # the last message that comes at once

    def _connect(self, down) -> None:
        self._down = down
        down.connect_to_server().on_message(self._hear)

    def _hear(self, message: bytes) -> None:
        if self.late:
            self.held.append(message)
        else:
            self._down.send(message)
            self.late = self.late_from(ForwardMsg.FromString(message))

    def let_through(self, number: int) -> None:
        for _ in range(number):
            self._down.send(self.held.pop(0))

    def catch_up(self) -> None:
        self.late, self.late_from = False, lambda message: False
        self.let_through(len(self.held))

    def answered(self, runs: int) -> int:
        """How many messages are held when so many runs have come to their end."""
        ends = 0
        while ends < runs:
            self.page.wait_for_timeout(100)
            ends = sum(ForwardMsg.FromString(message).WhichOneof("type") == "script_finished" for message in self.held)
        return len(self.held)


@pytest.fixture
def slow(browser) -> Iterator[SlowPage]:
    slow = SlowPage(browser)
    yield slow
    slow.context.close()


@pytest.mark.journey
def test_a_choice_outlives_an_older_answer_and_the_room(slow: SlowPage, studio: Studio):
    """The page hears late what its first choice led to, when the second is made already: it must not undo it."""
    page = slow.page
    page.goto(studio.url)
    settle(page)
    unfold(page, "64 × 64, 8 steps, 1 picture")
    wanted = opened(page, "Size", "192 × 192 square")
    slow.late = True
    wanted.click()
    first = slow.answered(1)
    page.get_by_role("combobox", name="Pictures").click()
    page.get_by_role("option", name="4", exact=True).click()
    slow.answered(2)
    slow.let_through(first)
    page.get_by_text("192 × 192, 8 steps, 1 picture").wait_for()
    slow.catch_up()
    page.get_by_text("192 × 192, 8 steps, 4 pictures").wait_for()
    page.get_by_role("link", name="Edit").click()
    page.get_by_text("192 × 192, 8 steps").wait_for()


@pytest.mark.journey
def test_the_best_of_several_candidates_is_drawn(visit: Callable):
    page = visit()
    unfold(page, "64 × 64, 8 steps, 1 picture")
    choose(page, "Best of", "8")
    page.get_by_text("64 × 64, 8 steps, 1 picture, best of 8").wait_for()
    page.locator("[data-test-script-state=notRunning]").wait_for()
    draw(page, SENTENCE)
    picture(page, SENTENCE)
    page.get_by_text(re.compile("best of 8 · [0-9]+ passes per picture")).wait_for()
    request = read_picture(download(page))[1]
    assert (request.params.candidates, request.n) == (8, 1)
    choose(page, "Pictures", "4")
    page.get_by_text("64 × 64, 8 steps, 4 pictures, best of 4").wait_for()  # 16 drawings are made together at most


def test_settings_and_prompt_outlive_rooms_and_a_reload(visit: Callable):
    page = visit("models")
    page.get_by_role("link", name="Draw").click()
    unfold(page, "64 × 64, 8 steps")
    choose(page, "Pictures", "2")
    page.get_by_text("64 × 64, 8 steps, 2 pictures").wait_for()
    page.locator("[data-test-script-state=notRunning]").wait_for()
    draw(page, "a red apple")
    picture(page, "a red apple")
    page.get_by_role("link", name="Gallery").click()
    page.locator(".card").nth(1).wait_for()
    prompt = page.get_by_role("textbox", name="Prompt", exact=True)
    for reload in (False, True):
        page.get_by_role("link", name="Draw").click()
        if reload:
            page.reload()
        page.get_by_text("64 × 64, 8 steps, 2 pictures").wait_for()
        until(lambda: prompt.input_value() == "a red apple")
        picture(page, "a red apple")  # it is on the canvas again


@pytest.mark.journey
def test_a_dropped_file_that_is_no_picture_is_refused_and_the_page_stays(visit: Callable):
    page = visit("edit")
    page.locator(".editor .drop").evaluate("""place => {
        const files = new DataTransfer();
        files.items.add(new File(["words"], "words.txt", {type: "text/plain"}));
        const event = new DragEvent("drop", {dataTransfer: files, bubbles: true, cancelable: true});
        place.dispatchEvent(event);
        window.stayed = event.defaultPrevented;
    }""")
    page.get_by_text("“words.txt” is no picture that this browser can read").wait_for()
    assert page.evaluate("stayed")


def test_a_link_brings_a_prompt(visit: Callable):
    page = visit("?prompt=a%20blue%20cat")
    prompt = page.get_by_role("textbox", name="Prompt", exact=True)
    until(lambda: prompt.input_value() == "a blue cat")


@pytest.mark.journey
def test_a_restart_of_the_server_is_said_and_mended_by_itself(visit: Callable, studio: Studio):
    page = visit()
    draw(page, "a red apple")
    picture(page, "a red apple")
    studio.stop(signal.SIGKILL)
    page.get_by_text("The connection to the server is lost. Reconnecting ...").wait_for()
    studio.start()
    page.get_by_text("The connection to the server is lost. Reconnecting ...").wait_for(state="detached")
    draw(page, "a big dog")
    picture(page, "a big dog")


def test_stop_in_the_middle(visit: Callable):
    page = visit()
    draw_long(page, "a big dog", 9)
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped. Nothing was kept.").wait_for()
    page.get_by_role("link", name="Gallery").click()
    page.get_by_text("Nothing is kept yet").wait_for()


def test_the_canvas_neither_fades_nor_jumps_while_it_is_drawn(visit: Callable):
    """Opacity and place of the canvas at every frame of the screen while four pictures are drawn."""
    page = visit()
    page.get_by_role("textbox", name="Prompt", exact=True).wait_for()
    page.evaluate("""() => {
        window.seen = {opacity: 1, top: new Set()};
        const look = () => {
            const host = document.querySelector(".st-key-pictures");
            for (let node = host; node; node = node.parentElement)
                window.seen.opacity = Math.min(window.seen.opacity, Number(getComputedStyle(node).opacity));
            const roots = [...host.querySelectorAll("*")].map((node) => node.shadowRoot).filter(Boolean);
            const sheet = roots.map((root) => root.querySelector(".sheet")).find(Boolean);
            const busy = sheet?.closest(".canvas-view").hasAttribute("aria-busy");
            if (busy && sheet.children.length === 4) seen.top.add(Math.round(sheet.getBoundingClientRect().top));
            requestAnimationFrame(look);
        };
        look();
    }""")
    draw_long(page, "a red cat", 4)
    page.get_by_role("slider", name="Steps").press("ArrowLeft")  # a run of the page in the middle
    picture(page, "a red cat")
    seen = page.evaluate("({opacity: seen.opacity, top: [...seen.top]})")
    assert seen["opacity"] == 1 and len(seen["top"]) == 1, seen


def test_the_first_picture_of_the_strip_does_not_push_the_page_of_a_phone(visit: Callable):
    page = visit(size=(390, 844))
    strip, canvas = page.locator(".strip"), page.locator(".canvas-view")

    def distance() -> float:
        """Pixels from the top of the strip to the canvas, however far the page is scrolled."""
        return canvas.bounding_box()["y"] - strip.evaluate("strip => strip.getBoundingClientRect().top")

    empty = distance()
    draw(page, "a red apple")
    picture(page, "a red apple")
    page.locator(".strip [role=listitem] img").wait_for()
    assert distance() == pytest.approx(empty, abs=1)


def between(page, from_page: Callable, from_server: Callable) -> None:
    """Let both see the messages of the canvas's socket, and what sends to the other side; from a new load on."""

    def connect(route) -> None:
        server = route.connect_to_server()
        route.on_message(lambda message: from_page(message, server.send, route.send))
        server.on_message(lambda message: from_server(message, route.send))

    page.route_web_socket(re.compile("/canvas"), connect)
    page.reload()


def test_a_draft_that_comes_late_does_not_take_the_place_of_the_picture(visit: Callable):
    """The draft is finished, but its message is on its way when Draw is pressed."""
    page, asked, held, drafts = visit(), [], [], []

    def from_page(message: str, send: Callable, back: Callable) -> None:
        asked.append(json.loads(message)["type"])
        if asked[-1] == "draw":
            for late in held:
                back(late)
        send(message)

    def from_server(message: str | bytes, send: Callable) -> None:
        if isinstance(message, str):
            drafts.append(json.loads(message)["type"] == "done" and json.loads(message)["draft"])
        held.append(message) if drafts[-1] and "draw" not in asked else send(message)

    between(page, from_page, from_server)
    box = page.get_by_role("textbox", name="Prompt", exact=True)
    box.fill("a red apple")
    while len(held) < 2:  # the message and its image
        page.wait_for_timeout(50)
    box.press("Enter")
    picture(page, "a red apple")
    page.wait_for_timeout(1500)  # longer than a draft waits for its refinement
    assert "refine" not in asked and page.locator(".sheet figure .save").count() == 1


def test_a_draft_in_the_place_of_a_refinement_is_no_refined_picture(visit: Callable):
    """The refinement of the first words is under way when others are typed: Draw must draw these with all steps."""
    page, asked = visit(), []

    def from_page(message: str, send: Callable, back: Callable) -> None:
        asked.append(json.loads(message)["type"])
        if asked[-1] != "refine":  # it takes for ever
            send(message)

    between(page, from_page, lambda message, send: send(message))
    box = page.get_by_role("textbox", name="Prompt", exact=True)
    box.fill("a red apple")
    while "refine" not in asked:
        page.wait_for_timeout(50)
    box.fill("a blue cat")
    page.locator(".sheet img[alt='a blue cat']").wait_for()
    page.get_by_text("Not kept yet").wait_for()
    box.press("Enter")
    picture(page, "a blue cat")
    assert "draw" in asked and "keep" not in asked


def test_undo_brings_back_the_picture_before_the_drafts(visit: Callable):
    page = visit()
    draw(page, "a red apple")
    picture(page, "a red apple")
    page.get_by_role("textbox", name="Prompt", exact=True).fill("a blue cat")
    page.get_by_text("Not kept yet").wait_for()
    draw(page, "a green cat")
    picture(page, "a green cat")
    page.get_by_role("button", name="Undo").click()
    picture(page, "a red apple")


def test_brush_over_a_part_and_the_rest_stays(visit: Callable):
    page = visit()
    draw(page, "a red apple")
    picture(page, "a red apple")
    before = np.asarray(read_picture(download(page))[0].convert("RGB"))
    page.locator(".sheet").get_by_role("button", name="Edit").click()
    page.get_by_text("64 × 64 · nothing is brushed").wait_for()
    page.locator("[data-test-script-state=notRunning]").wait_for()
    page.get_by_role("button", name="Paint").click()
    page.get_by_text("Nothing is brushed: paint over what should change.").wait_for()
    box = page.locator(".stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.2)
    page.mouse.up()
    page.get_by_text(re.compile("64 × 64 · [0-9]+ % brushed")).wait_for()
    assert not page.locator(".editor .status").inner_text(), "something is brushed now"
    page.get_by_label("What the picture shows").fill("a blue cat")
    page.get_by_role("button", name="Paint").click()
    page.get_by_text(re.compile("64 × 64 · nothing is brushed · seed")).wait_for()
    image, request = read_picture(file_of(page, ".edits"))
    changed = (np.asarray(image.convert("RGB")) != before).any(-1)
    assert changed.any() and not changed[32:].any() and not changed[:, 40:].any()
    assert request is not None and request.prompt == "a blue cat" and "brushed" in request.edit
    page.locator(".editor").get_by_role("button", name="Undo").click()
    page.wait_for_timeout(500)
    assert np.array_equal(np.asarray(read_picture(file_of(page, ".edits"))[0].convert("RGB")), before)


def file_of(page, place: str) -> bytes:
    """The PNG of the picture whose buttons are in this place."""
    page.locator(f"{place} .save summary").first.click()
    with page.expect_download() as file:
        page.locator(f"{place} .save").first.get_by_role("link", name="PNG", exact=True).click()
    return file.value.path().read_bytes()


def test_a_photo_is_opened_extended_and_upscaled(visit: Callable, tmp_path: Path):
    photo = Image.effect_noise((150, 90), 90).convert("RGB")
    photo.save(tmp_path / "photo.jpg", quality=95)
    page = visit("edit")
    page.get_by_label("Open a picture").set_input_files(tmp_path / "photo.jpg")
    page.get_by_text("150 × 90 · nothing is brushed").wait_for()
    page.get_by_label("What the picture shows").fill("a dog on grass")
    page.locator("[data-test-script-state=notRunning]").wait_for()
    with_words = page.get_by_role("button", name="Apply the new words only")
    assert with_words.is_disabled(), "nobody knows after which words a photo was drawn"
    page.get_by_role("button", name="Upscale 2 ×").or_(page.get_by_role("button", name="2 ×")).first.click()
    page.get_by_text(re.compile("300 × 180 · nothing is brushed")).wait_for()


def test_delete_can_be_undone_and_the_strip_follows(visit: Callable):
    page = visit()
    draw(page, "a big cat")
    picture(page, "a big cat")
    strip = page.locator(".strip [role=listitem]")
    strip.first.wait_for()
    page.locator(".sheet").get_by_role("button", name="Delete").click()
    page.get_by_text("Deleted one picture.").wait_for()
    strip.first.wait_for(state="detached")
    page.locator(".canvas-view .tools").get_by_role("button", name="Undo").click()
    strip.first.wait_for()


@pytest.mark.journey
def test_the_viewer_turns_with_the_arrow_keys(visit: Callable):
    page = visit("?prompt=a%20dog")
    unfold(page, "64 × 64, 8 steps, 1 picture")
    choose(page, "Pictures", "2")
    page.get_by_text("64 × 64, 8 steps, 2 pictures").wait_for()
    page.locator("[data-test-script-state=notRunning]").wait_for()
    draw(page, "a dog")
    picture(page, "a dog")
    page.get_by_role("button", name="Enlarge the picture").first.click()
    page.get_by_text("1 of 2").wait_for()
    page.keyboard.press("ArrowRight")
    page.get_by_text("2 of 2").wait_for()
    page.keyboard.press("ArrowRight")
    page.get_by_text("1 of 2").wait_for()
    page.keyboard.press("Escape")
    page.locator("dialog").wait_for(state="detached")


def test_the_picture_follows_the_typing_and_enter_keeps_it(visit: Callable):
    page = visit()
    box = page.get_by_role("textbox", name="Prompt", exact=True)
    box.wait_for()
    page.locator("[data-test-script-state=notRunning]").wait_for()
    box.press_sequentially("a red apple", delay=40)
    page.locator(".sheet img[alt='a red apple']").wait_for()
    page.get_by_text("Not kept yet").wait_for()
    assert not page.locator(".strip [role=listitem]").count(), "a draft is not kept"
    page.wait_for_timeout(1500)  # it is refined meanwhile
    box.press("Enter")
    picture(page, "a red apple")
    page.locator(".strip [role=listitem]").wait_for()
    page.get_by_text("Draw while typing").click()
    box.fill("a blue dog")
    page.wait_for_timeout(1000)
    assert page.locator(".sheet img[alt='a red apple']").count() == 1, "switched off"


@pytest.mark.journey
def test_stars_search_selection_and_undone_deletion_in_the_gallery(visit: Callable):
    page = visit()
    for prompt in ("a red apple", "a blue dog", "two cats"):
        draw(page, prompt)
        picture(page, prompt)
    page.get_by_role("link", name="Gallery").click()
    cards = page.locator(".card")
    cards.nth(2).wait_for()
    page.get_by_role("searchbox", name="Search").fill("APPLE")
    cards.nth(1).wait_for(state="detached")
    cards.get_by_role("button", name="Star").click()
    page.get_by_role("searchbox", name="Search").fill("")
    cards.nth(2).wait_for()
    page.get_by_role("button", name="Starred").click()
    cards.nth(1).wait_for(state="detached")
    page.get_by_role("button", name="Starred").click()
    cards.nth(2).wait_for()
    page.get_by_role("button", name="Select all on this page").click()
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    with page.expect_download() as file:
        page.get_by_text("Download 3 as ZIP").click()
    assert file.value.path().stat().st_size > 1000
    page.get_by_role("button", name="Delete 3").click()
    page.get_by_text("Nothing is kept yet").wait_for()
    page.locator(".gallery").get_by_role("button", name="Undo").click()
    cards.nth(2).wait_for()


@pytest.mark.parametrize("room", ["", "speak", "edit", "gallery", "models"])
def test_a_phone_shows_five_icons_below_and_nothing_is_wider_than_the_screen(visit: Callable, room: str):
    page = visit(room, size=(390, 844))
    links = page.locator(".st-key-menu a")
    links.nth(4).wait_for()
    page.locator("[data-test-script-state=notRunning]").wait_for()
    boxes = [links.nth(i).bounding_box() for i in range(5)]
    assert all(box["y"] > 760 and box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.journey
@pytest.mark.parametrize("room", ["", "speak", "edit", "gallery", "models"])
def test_axe_finds_nothing_serious(visit: Callable, room: str):
    from axe_playwright_python.sync_playwright import Axe

    page = visit()
    draw(page, "a red apple")
    picture(page, "a red apple")
    if room:
        page.get_by_role("link", name=room.capitalize()).click()
    page.wait_for_timeout(1500)
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    serious = [
        (each["id"], each["nodes"][0]["html"][:200]) for each in found if each["impact"] in ("serious", "critical")
    ]
    assert not serious, serious


@pytest.mark.journey
def test_two_visitors_do_not_see_each_other(visit: Callable):
    one, other = visit(), visit()
    draw(one, "a red apple")
    draw(other, "a dog at night")
    picture(one, "a red apple")
    picture(other, "a dog at night")
    for page, own, foreign in ((one, "a red apple", "a dog at night"), (other, "a dog at night", "a red apple")):
        page.get_by_role("link", name="Gallery").click()
        page.locator(".card").first.wait_for()
        words = page.locator(".card .words")
        assert words.filter(has_text=own).count() == 1 and words.filter(has_text=foreign).count() == 0


@pytest.mark.journey
def test_two_gigabytes_are_refused_by_page_and_server_and_all_goes_on(visit: Callable, studio: Studio, tmp_path: Path):
    huge, small = tmp_path / "huge.wav", tmp_path / "small.wav"
    with huge.open("wb") as file:
        file.truncate(2 * 2**30)  # takes no room on the disk
    small.write_bytes(encode_png(Image.new("RGB", (64, 64), "red")))
    page = visit("speak")
    page.get_by_role("tab", name="Record or upload").click()
    bring = page.locator("input[type=file]").first
    bring.set_input_files(huge)
    page.get_by_text(re.compile(r"must be 16(\.0)?\s?MB or smaller")).first.wait_for()
    with page.expect_request(lambda request: "upload_file" in request.url and request.method == "PUT") as upload:
        bring.set_input_files(small)
    place, sent = upload.value.url.removeprefix(studio.url), upload.value.all_headers()
    own = "".join(f"{name}: {sent[name]}\r\n" for name in ("cookie", "x-xsrftoken", "origin") if name in sent)
    with socket.create_connection(("127.0.0.1", studio.port), timeout=60) as program:
        head = f"PUT {place} HTTP/1.1\r\nHost: {studio.url[7:]}\r\n{own}Content-Length: {2 * 2**30}\r\n"
        program.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n".encode())
        assert b" 413 " in program.recv(4096).splitlines()[0]
    assert studio.healthy()


@pytest.mark.journey
def test_a_picture_is_drawn_again_from_the_gallery(visit: Callable):
    page = visit()
    draw(page, "two dogs on grass")
    picture(page, "two dogs on grass")
    image, request = read_picture(download(page))
    draw(page, "a red cat")
    picture(page, "a red cat")
    page.get_by_role("link", name="Gallery").click()
    page.get_by_role("button", name="Use these settings").nth(1).click()
    page.locator(".seed:not([hidden])").wait_for()
    assert page.get_by_role("textbox", name="Prompt", exact=True).input_value() == "two dogs on grass"
    page.get_by_role("button", name="Draw", exact=True).click()
    picture(page, "two dogs on grass")
    again, remembered = read_picture(download(page))
    assert remembered == request and again.tobytes() == image.tobytes()


@pytest.mark.slow
def test_a_reload_in_the_middle_and_a_kill_lose_nothing(visit: Callable, studio: Studio):
    page = visit()
    draw_long(page, "a big cat", 4)
    page.reload()
    page.get_by_role("button", name="Stop").wait_for()  # the same drawing, still on its way
    picture(page, "a big cat")
    page.goto(f"{studio.url}/gallery")
    page.get_by_text("a big cat").first.wait_for()
    studio.stop(signal.SIGKILL)
    studio.start()
    page.reload()
    page.locator(".card").nth(3).wait_for()
    assert page.locator(".card").count() == 4


@pytest.mark.skipif(
    not all((ROOT / "weights" / name / "README.md").exists() for name in ("scenes", "scenes-reader")),
    reason="needs the bundled model and its reader",
)
@bundled
def test_speak_live_to_words_and_a_picture_that_shows_them(browser, tmp_path: Path):
    """With everything that ships. Of three sentences, one at least is understood, and drawn so that the reader sees the
    thing: whatever the next training brings."""
    reader = checkpoint.load(ROOT / "weights" / "scenes-reader", "reader").eval()
    names, verdicts = [thing.name for thing in things()], []
    studio = Studio(ROOT / "weights", tmp_path / "gallery")
    # On a busy machine there must be time for the picture: sentences that come faster than it can draw hold it up.
    hearing = open_browser(browser.browser_type, spoken(tmp_path / "microphone.wav", *SINGLE, after=30))
    try:
        page = hearing.new_context(permissions=["microphone"]).new_page()
        page.set_default_timeout(SECONDS * 1000)
        page.goto(f"{studio.url}/speak")
        listen(page)
        while len(verdicts) < len(SINGLE) and not any(SINGLE.get(words) in seen for words, seen in verdicts):
            page.locator(".past a").nth(len(verdicts)).wait_for()
            newest = page.locator(".past a").count() - 1 - len(verdicts)  # they come in from the left
            words, data = page.locator(".past a").nth(newest).evaluate(FETCH)
            image, request = read_picture(base64.b64decode(data))
            assert request is not None and request.prompt == words and request.size == image.size, "it remembers"
            pixels = torch.from_numpy(np.asarray(image.convert("RGB"), np.float32).copy()).permute(2, 0, 1)[None]
            seen = reader.read(in_scene_size(pixels / 127.5 - 1, SIDE))[0]
            verdicts.append((words, {names[item.thing] for item in seen.items}))
        page.get_by_role("button", name="Stop listening").click()
        page.get_by_text("Press, and say what you would like to see.").wait_for()
    finally:
        hearing.close()
        studio.stop()
    assert any(SINGLE.get(words) in seen for words, seen in verdicts), verdicts


# A picture of the talk -> its words, and its file in base 64.
FETCH = """async (link) => {
  const bytes = new Uint8Array(await (await fetch(link.href)).arrayBuffer());
  return [link.innerText.trim(), btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""))];
}"""


@pytest.mark.journey
@bundled
def test_two_presses_open_one_microphone_and_one_more_closes_it(visit: Callable):
    """Pressed again while the browser still asks. Nothing may listen once the page says that it does not."""
    page = visit("speak")
    button = page.get_by_role("button", name="Start listening")
    button.wait_for()
    page.evaluate("""() => {
        window.opened = [];
        const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (constraints) => {
            const stream = await open(constraints);
            window.opened.push(stream);
            return stream;
        };
    }""")
    button.evaluate("button => { button.click(); button.click(); }")
    page.get_by_role("button", name="Stop listening").click()
    button.wait_for()
    states = page.evaluate("opened.map((stream) => stream.getTracks().map((track) => track.readyState))")
    assert states == [["ended"]]


@pytest.mark.journey
def test_a_microphone_that_comes_when_its_page_is_left_is_put_away(visit: Callable):
    page = visit("speak")
    button = page.get_by_role("button", name="Start listening")
    button.wait_for()
    page.evaluate("""() => {
        const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        const asked = new Promise((allow) => { window.allow = allow; });
        navigator.mediaDevices.getUserMedia = async (constraints) => {
            window.opened = await open(constraints);
            await asked;
            return window.opened;
        };
    }""")
    button.click()
    until(lambda: page.evaluate("!!window.opened"))  # wait_for_function polls by eval, which the page's CSP forbids
    page.get_by_role("link", name="Draw").click()
    page.get_by_role("textbox", name="Prompt", exact=True).wait_for()
    page.evaluate("allow()")
    until(lambda: page.evaluate("opened.getTracks().every((track) => track.readyState === 'ended')"))


@pytest.mark.journey
def test_the_reason_of_a_refusal_is_seen(visit: Callable):
    """It comes while the sound is being set up, which then fails, too."""
    page = visit("speak")

    def refuse(socket) -> None:
        socket.send(json.dumps({"type": "error", "message": "too many listen already"}))
        socket.close(code=1008, reason="too many listen already")

    page.route_web_socket(re.compile("/live"), refuse)
    listen(page)
    page.get_by_text("too many listen already").wait_for()
    page.wait_for_timeout(500)
    assert page.locator(".complaint").inner_text() == "too many listen already"


@pytest.mark.journey
def test_whoever_stops_in_the_middle_of_a_sentence_sees_it_drawn(visit: Callable):
    page = visit("speak")
    listen(page)
    page.locator(".words", has_text=re.compile("two")).wait_for()
    page.get_by_role("button", name="Stop listening").click()
    page.locator(".past a").wait_for()
    page.get_by_text("Press, and say what you would like to see.").wait_for()
    assert page.locator(".past a").inner_text().strip().startswith("two")


@pytest.mark.journey
@bundled
def test_a_sentence_is_among_the_pictures_although_the_next_one_is_drawn_already(visit: Callable):
    """The page alone, with a studio that says in a row what usually takes its time."""
    page, heard = visit("speak"), []
    request = GenerationRequest("a red cat", 5, size=(64, 64))
    drawn = encode_png(Image.new("RGB", (64, 64), "red"), request)

    def answer(up) -> None:
        def told(message: str | bytes) -> None:
            if isinstance(message, str):
                heard.append(json.loads(message))
                if heard[-1]["type"] == "end":
                    up.close()

        up.on_message(told)
        picture = {"type": "picture", "job": "first", "seed": 5, "prompt": "a red cat", "unknown": []}
        for message in ({"type": "ready"}, picture, drawn, {"type": "step", "job": "next", "step": 1, "of": 8}, drawn,
                        {"type": "kept", "job": "first"}, {"type": "kept", "job": "unheard of"}):  # fmt: skip
            up.send(json.dumps(message) if isinstance(message, dict) else message)

    page.route_web_socket(re.compile("/live$"), answer)
    listen(page)
    page.locator(".past a").wait_for()
    words, data = page.locator(".past a").evaluate(FETCH)
    assert words == "a red cat" and read_picture(base64.b64decode(data))[1] == request
    page.get_by_role("button", name="Stop listening").click()
    page.get_by_text("Press, and say what you would like to see.").wait_for()
    settings, end = heard[0], heard[-1]
    assert end == {"type": "end"} and page.locator(".past a").count() == 1
    assert {"negative_prompt", "guidance_interval", "temperature", "seed"} <= settings.keys() and settings[
        "seed"
    ] is None


@pytest.mark.journey
@bundled
def test_record_see_the_transcript_and_the_picture(visit: Callable):
    page = visit("speak")
    page.get_by_role("tab", name="Record or upload").click()
    page.get_by_role("button", name="Record").click()
    page.wait_for_timeout(5200)
    page.get_by_role("button", name="Stop recording").click()
    page.locator(".sheet figure:has(.save) img").wait_for()
    heard = page.get_by_role("textbox", name="Prompt", exact=True).input_value()
    assert {"cats", "beach"} <= set(heard.lower().split())
