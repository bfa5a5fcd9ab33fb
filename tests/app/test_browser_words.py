"""The Draw page's words in a real browser: chips, things to press, surprises; and the Speak page's ways to talk."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from app_fixtures import tiny_model
from PIL import Image
from test_browser import (  # noqa: F401
    CHROMIUM,
    browser,
    bundled,
    draw,
    listen,
    picture,
    speech,
    studio,
    unfold,
    until,
    visit,
)

from app.core.png import encode_png
from app.core.request import GenerationRequest
from train.thing_pictures import encode_sheet, tile_sheet

WIDTHS = [(1280, 800), (390, 844)]
STAND_INS = {
    "nouns": {"dragon": ["dog", "kin", "great beast"], "fork": ["apple", "distant", "thing of the table"]},
    "things": ["cat", "dog", "apple"],
    "near": {"castle": [1, 0], "dragon": [1, 0]},
}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(2000),
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="needs Debian's chromium"),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with stand-ins and small pictures of its things."""
    folder = Path(tmp_path_factory.mktemp("weights"))
    model = tiny_model(folder / "scenes")
    (model / "stand_ins.json").write_text(json.dumps(STAND_INS))
    tiles = [Image.new("RGB", (64, 64), color) for color in ("orange", "brown", "red")]
    (model / "things.webp").write_bytes(encode_sheet(tile_sheet(tiles, 64)))
    return folder


def prompt_box(page):
    box = page.get_by_role("textbox", name="Prompt", exact=True)
    box.wait_for()
    page.locator("[data-test-script-state=notRunning]").wait_for()
    return box


@pytest.mark.parametrize("size", WIDTHS, ids=["wide", "phone"])
def test_chips_say_what_becomes_of_each_word_and_offer_others(visit: Callable, size: tuple[int, int]):  # noqa: F811
    page = visit(size=size)
    page.get_by_text("Draw while typing").click()
    prompt_box(page).fill("a dragon and a castle on the beach ")
    chips = page.locator(".reading .chips .chip")
    page.locator(".reading .chip.left_out").wait_for()
    assert [chip.inner_text() for chip in chips.all()] == ["dragon → dog", "× a castle", "on the beach"]
    box = page.locator(".reading").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= size[0]
    chips.first.click()
    page.locator(".chip-detail", has_text="the nearest great beast").wait_for()
    page.locator(".reading .chip.left_out").click()
    page.locator(".chip.instead", has_text="a cat").click()
    assert prompt_box(page).input_value() == "a dragon and a cat on the beach"
    page.locator(".reading .chip.drawn", has_text="cat").wait_for()


@pytest.mark.parametrize("size", WIDTHS, ids=["wide", "phone"])
def test_a_long_reading_does_not_move_the_canvas(visit: Callable, size: tuple[int, int]):  # noqa: F811
    page = visit(size=size)
    page.get_by_text("Draw while typing").click()
    prompt_box(page)
    frame = page.locator(".canvas-view .frame")
    before = frame.bounding_box()
    things = "a cat, a dog, an apple, a castle, a bridge, a wizard, a kettle, a ladder and a violin"
    prompt_box(page).fill(f"{things} on the beach ")
    page.locator(".reading .chip").nth(8).wait_for()
    page.locator(".reading", has_text="Drawn:").wait_for()
    assert frame.bounding_box() == before


@pytest.mark.journey
def test_how_words_are_read_is_said_once(visit: Callable):  # noqa: F811
    page = visit()
    prompt_box(page)
    draw(page, "a dragon")
    picture(page, "a dragon")
    page.get_by_text(re.compile("Drawn: “a dog”", re.IGNORECASE)).first.wait_for()
    assert page.get_by_text(re.compile("Drawn: “a dog”", re.IGNORECASE)).count() == 1
    assert not page.locator(".status").inner_text()


def test_half_a_word_is_not_refused(visit: Callable):  # noqa: F811
    page = visit()
    page.get_by_text("Draw while typing").click()
    box = prompt_box(page)
    box.press_sequentially("xyl", delay=30)
    page.wait_for_timeout(600)
    assert not page.locator(".reading").inner_text().strip()
    page.locator(".reading", has_text="can be drawn").wait_for()  # nobody types any more


def test_a_thing_is_drawn_when_its_picture_is_pressed_and_a_place_is_added(visit: Callable):  # noqa: F811
    page = visit()
    prompt_box(page)
    unfold(page, "What this model can draw")
    tile = page.locator(".things .grid button", has_text="apple")
    tile.wait_for()
    boxes = [button.bounding_box() for button in page.locator(".things .grid button").all()]
    assert all(box["height"] > 64 for box in boxes), "a button is as high as its picture and its name"
    style = tile.locator(".tile").evaluate("tile => getComputedStyle(tile).backgroundImage")
    address = re.search(r'url\("([^"]+)"\)', style)[1]
    assert page.request.get(address).headers["content-type"] == "image/webp"
    tile.click()
    picture(page, "an apple")
    page.locator(".things button", has_text="on the beach").click()
    until(lambda: prompt_box(page).input_value() == "an apple on the beach")


def test_each_surprise_is_another_prompt_that_is_drawn_as_it_is_said(visit: Callable):  # noqa: F811
    page = visit()
    box, seen = prompt_box(page), set()
    for _ in range(3):
        page.get_by_role("button", name="Surprise me").click()
        seen.add(box.input_value())
        picture(page, box.input_value())
    assert len(seen) == 3 and not page.locator(".reading .chip.left_out, .reading .chip.replaced").count()


REFUSALS = [
    ("NotAllowedError", "Permission denied", "Allow the microphone in the browser's address bar"),
    ("NotAllowedError", "Permission denied by system", "system's privacy settings"),
    ("NotFoundError", "", "Connect a microphone"),
    ("NotReadableError", "", "another program uses it"),
]


@pytest.mark.journey
@pytest.mark.parametrize(("name", "message", "says"), REFUSALS, ids=[says[:20] for *_, says in REFUSALS])
def test_each_failure_of_the_microphone_says_what_to_do(visit: Callable, name: str, message: str, says: str):  # noqa: F811
    page = visit("speak")
    page.get_by_role("button", name="Start listening").wait_for()
    refuse = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException(message, name); }"
    page.evaluate(f"([name, message]) => {{ {refuse} }}", [name, message])
    listen(page)
    page.locator(".complaint", has_text=says).wait_for()


@pytest.mark.journey
def test_a_socket_that_something_blocks_is_told_from_a_server_that_is_gone(visit: Callable):  # noqa: F811
    page = visit("speak")
    page.get_by_role("button", name="Start listening").wait_for()
    page.evaluate("""() => {
        window.WebSocket = class {
            constructor() { setTimeout(() => { this.onerror(); this.onclose({ code: 1006 }); }); }
            close() {}
        };
    }""")
    listen(page)
    page.locator(".complaint", has_text="blocks WebSockets").wait_for()


def arrives(page, heard: list, what: object) -> None:
    """Wait until the server has heard this. The page's calls let Playwright deliver what was sent."""
    until(lambda: page.wait_for_timeout(50) is None and what in heard)


SPANS = [
    {"text": "a red ", "status": "drawn", "by": "", "why": "", "instead": []},
    {"text": "cat", "status": "left_out", "by": "", "why": "the model does not know it", "instead": ["dog"]},
]


def answering(page, heard: list) -> None:
    """A server that says what usually takes its time, for the words that are typed or pushed."""
    drawn = encode_png(Image.new("RGB", (64, 64), "red"), GenerationRequest("a red cat", 5, size=(64, 64)))

    def answer(up) -> None:
        def told(message: str | bytes) -> None:
            if isinstance(message, bytes):
                heard.append("sound")
                return
            heard.append(json.loads(message))
            words = {"say": heard[-1].get("text"), "flush": "a red cat"}.get(heard[-1]["type"])
            if words:
                up.send(json.dumps({"type": "final", "text": words}))
                read = {"prompt": words, "drawn": words, "refused": "", "spans": SPANS if "cat" in words else []}
                told = {"job": words, "seed": 5, "prompt": words, "unknown": [], "reading": read}
                up.send(json.dumps({"type": "picture"} | told))
                up.send(drawn)
                up.send(json.dumps({"type": "kept", "job": words, "id": "an-id"}))
            if heard[-1]["type"] == "end":
                up.close()

        up.on_message(told)
        up.send(json.dumps({"type": "ready"}))

    page.route_web_socket(re.compile("/live$"), answer)


@pytest.mark.journey
@bundled
def test_push_to_talk_sends_what_is_said_while_the_button_is_held(visit: Callable):  # noqa: F811
    page, heard = visit("speak"), []
    answering(page, heard)
    page.get_by_role("button", name="Push to talk").click()
    button = page.get_by_role("button", name="Hold to talk")
    button.hover()
    page.mouse.down()
    arrives(page, heard, "sound")
    page.locator(".level:not([hidden])").wait_for()
    page.mouse.up()
    arrives(page, heard, {"type": "flush"})
    page.locator(".past a").wait_for()
    count = heard.count("sound")
    page.wait_for_timeout(500)
    assert heard.count("sound") == count, "nothing is sent while it is not held"
    page.reload()
    page.get_by_role("button", name="Hold to talk").wait_for()


@pytest.mark.journey
@bundled
def test_after_a_live_picture_its_words_are_mended_and_it_goes_to_the_other_pages(visit: Callable):  # noqa: F811
    page, heard = visit("speak"), []
    answering(page, heard)
    page.get_by_role("button", name="Push to talk").click()
    page.get_by_role("button", name="Hold to talk").hover()
    page.mouse.down()
    arrives(page, heard, "sound")
    page.mouse.up()
    box = page.get_by_role("textbox", name="Words of the picture")
    box.wait_for()
    assert box.input_value() == "a red cat"
    page.get_by_role("button", name="× cat").click()
    page.get_by_role("button", name="dog", exact=True).click()
    arrives(page, heard, {"type": "say", "text": "a red dog", "seed": 5})
    page.locator(".caption", has_text="a red dog").wait_for()
    assert not page.locator(".live .chip").count()
    box.fill("a red car")
    box.press("Enter")
    arrives(page, heard, {"type": "say", "text": "a red car", "seed": 5})
    page.locator(".caption", has_text="a red car").wait_for()
    page.get_by_role("button", name="Draw again").click()
    arrives(page, heard, {"type": "say", "text": "a red car", "seed": None})
    page.get_by_role("button", name="Edit", exact=True).click()
    page.wait_for_url("**/edit")
