"""The studio in a real browser, offline: type to picture, speak to picture, stop, paint over, two visitors, a reload, a
kill."""

import json
import os
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
from app_fixtures import tiny_model, tiny_twin

from app.picture import read

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = "/usr/bin/chromium"
SECONDS = 400
SENTENCE = "two dogs on the beach"  # the bundled recogniser, young as it is, hears carrots for cats

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(2000),
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="needs Debian's chromium"),
]
bundled = pytest.mark.skipif(
    not (ROOT / "weights" / "whisper-scenes" / "model.pt").exists() or shutil.which("espeak-ng") is None,
    reason="needs the bundled recogniser and espeak-ng",
)


class Studio:
    """A server of its own, on a free port."""

    def __init__(self, weights: Path, gallery: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://localhost:{self.port}"
        self.arguments = ["--port", str(self.port), "--weights", str(weights), "--gallery", str(gallery)]
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "app", "ui", *self.arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
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
    """A tiny model with a twin and one large size, beside the bundled recogniser where there is one."""
    folder = Path(tmp_path_factory.mktemp("weights"))
    tiny_twin(tiny_model(folder / "scenes"))
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
    """A sentence between silences, as a microphone would hear it."""
    folder = Path(tmp_path_factory.mktemp("speech"))
    subprocess.run(["espeak-ng", "-v", "en-us", "-s", "140", "-w", folder / "said.wav", SENTENCE], check=True)
    said, rate = soundfile.read(folder / "said.wav", dtype="float32")
    said = soxr.resample(said, rate, 16000)
    silence = np.zeros(16000, np.float32)
    soundfile.write(folder / "microphone.wav", np.concatenate([silence, said, silence, silence]), 16000)
    return folder / "microphone.wav"


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator:
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--use-fake-device-for-media-stream"]
    flags.append("--use-fake-ui-for-media-stream")
    if shutil.which("espeak-ng"):
        flags.append(f"--use-file-for-fake-audio-capture={request.getfixturevalue('speech')}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, studio: Studio) -> Iterator[Callable]:
    """Open a room as a visitor of one's own; every request that leaves this machine is a failure."""
    contexts, abroad = [], []

    def visit(room: str = ""):
        context = browser.new_context(permissions=["microphone"], viewport={"width": 1280, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SECONDS * 1000)
        page.on("request", lambda request: abroad.append(request.url) if is_abroad(request.url) else None)
        page.goto(f"{studio.url}/{room}")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not abroad


def is_abroad(url: str) -> bool:
    return url.startswith("http") and not url.startswith(("http://localhost", "http://127.0.0.1"))


def draw(page, prompt: str) -> None:
    box = page.get_by_label("Prompt")
    box.fill(prompt)
    box.press("Enter")


def picture(page, prompt: str):
    """The finished picture of this prompt."""
    page.get_by_text(f"“{prompt}”").wait_for()
    page.locator("[data-test-script-state=notRunning]").wait_for()  # until then what was on the easel before lingers
    page.get_by_role("button", name="Download").wait_for()
    return page.locator(".st-key-easel img").first


def download(page) -> tuple:
    """The finished picture and what it remembers."""
    with page.expect_download() as file:
        page.get_by_role("button", name="Download").click()
    return read(file.value.path().read_bytes())


def draw_long(page, prompt: str, pictures: int) -> None:
    """Draw what takes seconds on any machine, and wait until its first step is seen."""
    page.get_by_text("64 × 64, 8 steps, 1 picture").click()
    for label, option in (("Size", "192 × 192 square"), ("Pictures", str(pictures))):
        page.get_by_label(label).click()
        page.get_by_role("option", name=option, exact=True).click()
    page.get_by_role("slider", name="Steps").focus()
    page.keyboard.press("End")
    page.get_by_text(f"192 × 192, 64 steps, {pictures} pictures").wait_for()  # the page has heard of it
    draw(page, prompt)
    page.get_by_text(f"“{prompt}”").wait_for()
    page.locator(".st-key-easel img").first.wait_for()


def test_type_to_picture_and_download_what_remembers(visit: Callable):
    page = visit()
    draw(page, SENTENCE)
    assert picture(page, SENTENCE).evaluate("image => image.naturalWidth") == 64
    image, request = download(page)
    assert image.size == (64, 64) and request is not None and request.prompt == SENTENCE


def test_the_twin_begins_a_picture(visit: Callable):
    page = visit()
    page.get_by_text("64 × 64, 8 steps, 1 picture").click()
    page.get_by_role("radio", name="twin, then MaskGIL").click()
    page.get_by_text("64 × 64, 32 tokens, then 8 steps, 1 picture").wait_for()
    draw(page, "a blue dog")
    picture(page, "a blue dog")
    request = download(page)[1]
    assert request is not None and (request.mode, request.ar_tokens) == ("hybrid", 32)


def test_stop_in_the_middle(visit: Callable):
    page = visit()
    draw_long(page, "a big dog", 9)
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped. Nothing was kept.").wait_for()
    page.get_by_role("link", name="Gallery").click()
    page.get_by_text("Nothing is kept yet").wait_for()


def test_brush_over_a_part_and_the_rest_stays(visit: Callable):
    page = visit()
    draw(page, "a red apple")
    picture(page, "a red apple")
    before = np.asarray(download(page)[0].convert("RGB"))
    page.get_by_role("link", name="Gallery").click()
    page.get_by_role("button", name="Edit").click()
    page.get_by_text("nothing is brushed").wait_for()
    stage = page.get_by_alt_text("The picture to paint over")
    stage.evaluate("image => image.decode()")  # it has its size from now on
    box = stage.bounding_box()

    def brush(row: int, columns: range) -> None:
        for column in columns:
            page.mouse.move(box["x"] + box["width"] * (column + 0.5) / 8, box["y"] + box["height"] * (row + 0.5) / 8)
            page.mouse.down()
        page.mouse.up()

    brush(1, range(2, 7))
    brush(4, range(3, 5))
    page.get_by_text("7 of 64 cells").wait_for()
    page.get_by_label("What should be there").fill("a blue cat")
    page.get_by_role("button", name="Paint").click()
    picture(page, "a blue cat")
    image, request = download(page)
    cells = (np.asarray(image.convert("RGB")) != before).any(-1).reshape(8, 8, 8, 8).any((1, 3))
    brushed = [(1, column) for column in range(2, 7)] + [(4, 3), (4, 4)]
    assert [tuple(cell) for cell in np.argwhere(cells).tolist()] == brushed
    assert request is not None and request.edit.startswith("7 of 64 cells of ")
    page.get_by_role("button", name="Go on from this").click()
    page.get_by_text("nothing is brushed").wait_for()
    page.get_by_role("button", name="Paint").click()
    page.get_by_text("Nothing is brushed: paint over what should change.").wait_for()


def test_two_visitors_do_not_see_each_other(visit: Callable):
    one, other = visit(), visit()
    draw(one, "a red apple")
    draw(other, "a dog at night")
    picture(one, "a red apple")
    picture(other, "a dog at night")
    for page, own, foreign in ((one, "a red apple", "a dog at night"), (other, "a dog at night", "a red apple")):
        page.get_by_role("link", name="Gallery").click()
        page.locator(".st-key-wall img").first.wait_for()
        assert page.get_by_text(own).count() == 1 and page.get_by_text(foreign).count() == 0


def test_a_picture_is_drawn_again_from_the_gallery(visit: Callable):
    page = visit()
    draw(page, "two dogs on grass")
    picture(page, "two dogs on grass")
    image, request = download(page)
    draw(page, "a red cat")
    picture(page, "a red cat")
    page.get_by_role("link", name="Gallery").click()
    page.get_by_role("button", name="Draw again").nth(1).click()
    page.wait_for_function("document.querySelector('input[aria-label=Prompt]')?.value === 'two dogs on grass'")
    page.get_by_role("button", name="Draw", exact=True).click()
    picture(page, "two dogs on grass")
    again, remembered = download(page)
    assert remembered == request and again.tobytes() == image.tobytes()


def test_a_reload_in_the_middle_and_a_kill_lose_nothing(visit: Callable, studio: Studio):
    page = visit()
    draw_long(page, "a big cat", 4)
    page.reload()
    page.get_by_text("“a big cat”").wait_for()
    page.get_by_role("button", name="Stop").wait_for()  # the same drawing, still on its way
    page.get_by_role("button", name="Download all").wait_for()
    page.goto(f"{studio.url}/gallery")
    page.get_by_text("a big cat").first.wait_for()
    studio.stop(signal.SIGKILL)
    studio.start()
    page.reload()
    page.get_by_text("a big cat").first.wait_for()
    page.locator(".st-key-wall img").nth(3).wait_for()  # the wall comes a moment after the words
    assert page.locator(".st-key-wall img").count() == 4


@bundled
def test_speak_live_to_words_and_picture(visit: Callable):
    page = visit("speak")
    page.get_by_role("button", name="Start listening").click()
    page.locator(".past a").first.wait_for()
    page.get_by_role("button", name="Stop listening").click()
    said = page.locator(".past a").last.inner_text().lower()
    assert {"dogs", "beach"} <= set(said.split()), said


@bundled
def test_record_see_the_transcript_and_the_picture(visit: Callable):
    page = visit("speak")
    page.get_by_role("tab", name="Record or upload").click()
    page.get_by_role("button", name="Record").click()
    page.wait_for_timeout(5200)
    page.get_by_role("button", name="Stop recording").click()
    heard = page.get_by_label("I heard")
    heard.wait_for()
    assert {"dogs", "beach"} <= set(heard.input_value().lower().split())
    page.locator(".st-key-easel img").first.wait_for()
