"""The token player and the mask painter in a real browser, without a server."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from app.core import png
from app.studio.component import HERE

CHROMIUM = "/usr/bin/chromium"
SECONDS = 400

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(2000),
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="needs Debian's chromium"),
]

# What Streamlit does: the HTML in an element of its own, and the script called with it, once for each run of the page.
MOUNT = """async ([source, data]) => {
  window.told = [];
  window.component = (await import(URL.createObjectURL(new Blob([source], {type: "text/javascript"})))).default;
  window.give = (data) => window.component({
    parentElement: document.querySelector("#root"), data, setStateValue: (name, value) => window.told.push(value),
  });
  window.give(data);
  await document.querySelector("#root img").decode();
}"""
ALPHA = """cell => {
  const canvas = document.querySelector("canvas"), width = canvas.width / %d, height = canvas.height / %d;
  return canvas.getContext("2d").getImageData(
    (cell %% %d + 0.5) * width, (Math.floor(cell / %d) + 0.5) * height, 1, 1).data[3];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def mount(browser) -> Iterator[Callable]:
    context = browser.new_context(viewport={"width": 600, "height": 700})

    def mount(name: str, data: dict):
        html, css, js = ((HERE / f"{name}.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
        if "export default" not in js:  # a part of other components
            js += "export default showTokenPlayer;"
        page = context.new_page()
        page.set_default_timeout(SECONDS * 1000)
        page.set_content(f"<style>{css}</style><div id=root>{html}</div>")
        page.evaluate(MOUNT, [js, data])
        return page

    yield mount
    context.close()


def sheet(shade: int) -> str:
    return png.data_uri(Image.new("RGB", (64, 64), (shade, 90, 90)))


# 2 rows of 4: the first was given, the others were decided in steps 1 to 3, ever more surely.
DRAWN = {
    "frames": [sheet(shade) for shade in (10, 20, 30)],
    "steps": [1, 2, 3],
    "rows": 2,
    "columns": 4,
    "revealed": [-1, 0, 0, 1, 1, 2, 2, 2],
    "confidence": [0.0, -3.0, -2.5, -2.0, -1.5, -1.0, -0.5, -0.01],
}


def scrub(page, step: int) -> None:
    page.get_by_label("Step").evaluate(
        "(slider, step) => { slider.value = step; slider.dispatchEvent(new Event('input')); }", step
    )


def painted(page, rows: int = 2, columns: int = 4) -> list[int]:
    alpha = ALPHA % (columns, rows, columns, columns)
    return [cell for cell in range(rows * columns) if page.evaluate(alpha, cell)]


def test_one_scrubs_through_the_steps_and_sees_when_and_how_surely(mount: Callable):
    page = mount("token_player", DRAWN)
    image = page.locator("img")
    assert page.locator(".count").inner_text() == "3 of 3" and image.get_attribute("src") == DRAWN["frames"][2]
    scrub(page, 1)
    assert page.locator(".count").inner_text() == "1 of 3" and image.get_attribute("src") == DRAWN["frames"][0]
    assert painted(page) == [] and not page.locator(".legend").is_visible()
    page.get_by_text("when decided").click()
    assert painted(page) == [1, 2], "what was decided by then, and not what was given"
    assert page.locator(".legend").inner_text().split() == ["last", "first"]
    scrub(page, 3)
    assert painted(page) == [1, 2, 3, 4, 5, 6, 7]
    page.get_by_text("how sure").click()
    assert page.locator(".legend").inner_text().split() == ["unsure", "sure"]
    shade = (
        "cell => [...document.querySelector('canvas').getContext('2d').getImageData(cell % 4, cell >> 2, 1, 1).data]"
    )
    light = [sum(page.evaluate(shade, cell)[:3]) for cell in (1, 4, 7)]
    assert light == sorted(light) and light[0] < light[2], "the surer, the lighter"
    page.get_by_text("picture", exact=True).click()
    assert painted(page) == []


def test_of_vectors_it_says_when_and_does_not_pretend_to_know_how_surely(mount: Callable):
    page = mount("token_player", DRAWN | {"confidence": None})
    assert page.get_by_text("when decided").is_visible() and not page.get_by_text("how sure").is_visible()
    box = page.locator("img").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 1.5 / 4, box["y"] + box["height"] / 4)
    assert page.locator(".cell").inner_text() == "step 1"


def test_the_player_plays_to_the_end(mount: Callable):
    page = mount("token_player", DRAWN)
    page.get_by_role("button", name="Play").click()
    page.get_by_text("1 of 3").wait_for()
    page.get_by_text("3 of 3").wait_for()


def test_a_cell_says_what_is_known_of_it(mount: Callable):
    page = mount("token_player", DRAWN)
    box = page.locator("img").bounding_box()
    for cell, words in ((0, "given"), (1, "step 1, 5% sure"), (7, "step 3, 99% sure")):
        page.mouse.move(
            box["x"] + box["width"] * (cell % 4 + 0.5) / 4, box["y"] + box["height"] * (cell // 4 + 0.5) / 2
        )
        assert page.locator(".cell").inner_text() == words


PAINT = """async ([source, style]) => {
  const stage = `<div class="stage" tabindex="0" style="width: 400px; height: 400px"></div>`;
  document.querySelector("#root").innerHTML = `<style>${style}</style>${stage}`;
  window.painter = (await import(URL.createObjectURL(new Blob([source], {type: "text/javascript"})))).default;
  window.painter.reset(400, 400);
}"""
ALPHAS = """([x, y]) => painter.pen.getImageData(x, y, 1, 1).data[3]"""


@pytest.fixture
def painter(browser) -> Iterator:
    """A mask of 400 x 400 pixels on a stage of that size."""
    context = browser.new_context(viewport={"width": 600, "height": 700})
    page = context.new_page()
    page.set_default_timeout(SECONDS * 1000)
    page.set_content("<div id=root></div>")
    source = "".join((HERE / f"{part}.js").read_text(encoding="utf-8") for part in ("studio_client", "mask_painter"))
    source += "export default new MaskPainter(document.querySelector('.stage'), { onChange() {} });"
    page.evaluate(PAINT, [source, (HERE / "editor.css").read_text(encoding="utf-8")])
    yield page
    context.close()


def stroke(page, *points: tuple[int, int]) -> None:
    box = page.locator(".stage").bounding_box()
    for i, (x, y) in enumerate(points):
        page.mouse.move(box["x"] + x, box["y"] + y)
        if i == 0:
            page.mouse.down()
    page.mouse.up()


def alpha(page, x: int, y: int) -> int:
    return page.evaluate(ALPHAS, [x, y])


def test_a_fast_stroke_leaves_no_gap_and_is_soft_at_its_border(painter):
    stroke(painter, (50, 100), (350, 100))  # seen at its two ends alone
    assert all(alpha(painter, x, 100) == 255 for x in range(50, 351, 10))
    assert 0 < alpha(painter, 200, 121) < 255 and alpha(painter, 200, 130) == 0


def test_erase_invert_clear_undo_and_redo(painter):
    stroke(painter, (50, 100), (350, 100))
    painter.evaluate("painter.tool = 'erase'")
    stroke(painter, (200, 50), (200, 150))
    assert alpha(painter, 200, 100) == 0 and alpha(painter, 100, 100) == 255
    painter.evaluate("painter.undo()")
    assert alpha(painter, 200, 100) == 255
    painter.evaluate("painter.redo()")
    assert alpha(painter, 200, 100) == 0
    painter.evaluate("painter.invert()")
    assert alpha(painter, 200, 100) == 255 and alpha(painter, 100, 100) == 0
    painter.evaluate("painter.clear()")
    assert painter.evaluate("painter.share") == 0


def test_the_lasso_fills_what_it_encloses(painter):
    painter.evaluate("painter.tool = 'lasso'")
    stroke(painter, (100, 100), (300, 100), (300, 300), (100, 300))
    assert alpha(painter, 200, 200) == 255 and alpha(painter, 50, 200) == 0


def test_the_keyboard_moves_the_brush_and_paints(painter):
    painter.locator(".stage").focus()
    for key in ("ArrowRight", "ArrowRight", "Space"):
        painter.keyboard.press(key)
    assert alpha(painter, 240, 200) == 255 and alpha(painter, 100, 200) == 0


def test_a_second_finger_does_not_paint(painter):
    painter.evaluate("""() => {
        const stage = document.querySelector(".stage"), box = stage.getBoundingClientRect();
        stage.setPointerCapture = () => {};
        const send = (type, pointerId, x) => {
            const place = {clientX: box.x + x, clientY: box.y + 200, button: 0};
            stage.dispatchEvent(new PointerEvent(type, {pointerId, ...place}));
        };
        send("pointerdown", 1, 50);
        send("pointerdown", 2, 350);
        send("pointermove", 2, 350);
        send("pointerup", 1, 50);
    }""")
    assert alpha(painter, 50, 200) == 255 and alpha(painter, 350, 200) == 0
