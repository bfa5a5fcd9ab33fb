"""The token player and the brush in a real browser, without a server: what one sees and what the page is told."""

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


def test_a_fast_stroke_leaves_no_gap(mount: Callable):
    page = mount("brush", {"image": sheet(10), "rows": 8, "columns": 8})
    box = page.locator("img").bounding_box()

    def move(x: float, y: float) -> None:
        page.mouse.move(box["x"] + box["width"] * (x + 0.5) / 8, box["y"] + box["height"] * (y + 0.5) / 8)

    move(0, 1)
    page.mouse.down()
    move(7, 1)  # seen at its two ends alone
    move(7, 6)
    page.mouse.up()
    wanted = sorted({*range(8, 16), *(8 * row + 7 for row in range(1, 7))})
    assert page.evaluate("told.at(-1)") == wanted == painted(page, 8, 8)
    page.get_by_role("button", name="Erase").click()
    move(2, 0)
    page.mouse.down()
    move(2, 7)
    page.mouse.up()
    wanted.remove(10)
    assert page.evaluate("told.at(-1)") == wanted
    page.get_by_role("button", name="Erase").click()
    move(0, 4)
    move(3, 4)
    assert page.evaluate("told.at(-1)") == wanted, "only a pressed pointer paints"
    page.get_by_role("button", name="Invert").click()
    assert page.evaluate("told.at(-1)") == [cell for cell in range(64) if cell not in wanted]
    page.get_by_role("button", name="Clear").click()
    assert page.evaluate("told.at(-1)") == [] and painted(page, 8, 8) == []


def test_the_page_may_run_in_the_middle_of_a_stroke(mount: Callable):
    data = {"image": sheet(10), "rows": 8, "columns": 8}
    page = mount("brush", data)
    box = page.locator("img").bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    page.evaluate("data => give(data)", data)
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 2)
    page.mouse.up()
    assert page.evaluate("told.at(-1)") == list(range(8))
