"""The Draw page's room in a real browser: styles of one's own, undo across pages, start pictures, the buttons under a
picture, the X/Y sheet, Tab, and Draw in reach on a phone."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_browser import (  # noqa: F401
    CHROMIUM,
    all_settings,
    browser,
    choose,
    download,
    draw,
    picture,
    settle,
    speech,
    studio,
    unfold,
    until,
    visit,
    weights,
)

from app.core.png import read_picture

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(2000),
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="needs Debian's chromium"),
]
SETTINGS = "64 × 64, 8 steps, 1 picture"
PHONE = (390, 844)
FOCUSED = """() => {
  let node = document.activeElement;
  while (node?.shadowRoot?.activeElement) node = node.shadowRoot.activeElement;
  const label = node?.getAttribute("aria-label") || node?.title || node?.innerText || node?.placeholder || "";
  return [node?.tagName ?? "", node?.className ?? "", label.trim()];
}"""


def drawn(page, prompt: str) -> np.ndarray:
    """The pixels of a new picture of this prompt, once it is kept."""
    draw(page, prompt)
    picture(page, prompt)
    return pixels(download(page))


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(read_picture(png)[0].convert("RGB"))


def press(page, name: str):
    """A button under the picture on the canvas."""
    page.locator(".sheet .actions").get_by_role("button", name=name, exact=True).click()


def test_a_style_of_one_s_own_is_saved_drawn_with_and_outlives_a_reload(visit: Callable):  # noqa: F811
    page = visit()
    page.get_by_text("Draw while typing").click()
    unfold(page, SETTINGS)
    page.get_by_role("button", name="Save a style").click()
    page.get_by_role("textbox", name="Words that end each prompt").fill("on the beach at night")
    page.get_by_role("textbox", name="Name").fill("my night")
    page.get_by_role("button", name="Save", exact=True).click()
    settle(page)
    page.keyboard.press("Escape")
    settle(page)
    draw(page, "a red apple")
    picture(page, "a red apple on the beach at night")
    page.reload()
    settle(page)
    unfold(page, SETTINGS)
    choose(page, "Style", "any")
    choose(page, "Style", "my night")
    settle(page)
    draw(page, "a blue cat")
    picture(page, "a blue cat on the beach at night")


@pytest.mark.journey
def test_undo_and_redo_of_a_drawing_work_from_any_page_and_after_a_reload(visit: Callable):  # noqa: F811
    page = visit()
    for prompt in ("a red apple", "a blue dog", "two cats"):
        draw(page, prompt)
        picture(page, prompt)
    page.get_by_role("link", name="Gallery").click()
    page.locator(".card").nth(2).wait_for()
    page.locator(".gallery").get_by_role("button", name="Undo").click()
    picture(page, "a blue dog")  # on Draw, which the press has opened
    page.get_by_role("link", name="Models").click()
    page.get_by_role("textbox", name="Prompt", exact=True).wait_for(state="detached")
    page.locator("body").press("Control+z")
    picture(page, "a red apple")
    page.reload()
    picture(page, "a red apple")  # not the last one that the server has drawn
    page.locator(".canvas-view .tools").get_by_role("button", name="Redo").click()
    picture(page, "a blue dog")
    page.locator("body").press("Control+Shift+z")
    picture(page, "two cats")
    assert page.locator(".canvas-view .tools").get_by_role("button", name="Redo").is_disabled()


@pytest.mark.journey
def test_an_edit_and_a_deletion_are_undone_from_other_pages(visit: Callable):  # noqa: F811
    page = visit()
    before = drawn(page, "a red apple")
    press(page, "Edit")
    page.get_by_text("64 × 64 · nothing is brushed").wait_for()
    settle(page)
    page.get_by_role("button", name="Extend to the right").click()
    page.get_by_text(re.compile("128 × 64 · nothing is brushed")).wait_for()
    page.get_by_role("link", name="Gallery").click()
    page.locator(".card").nth(1).wait_for()
    page.locator(".gallery").get_by_role("button", name="Select all on this page").click()
    page.get_by_role("button", name="Delete 2").click()
    page.get_by_text("Nothing is kept yet").wait_for()
    page.get_by_role("link", name="Draw").click()
    page.get_by_text("Deleted", exact=True).wait_for()
    undo = page.locator(".canvas-view .tools").get_by_role("button", name="Undo")
    undo.click()
    picture(page, "a red apple")
    undo.click()  # of the edit, on its own page
    page.get_by_text("64 × 64 · nothing is brushed").wait_for()
    page.locator(".edits .save summary").click()
    with page.expect_download() as file:
        page.locator(".edits .save").get_by_role("link", name="PNG", exact=True).click()
    assert np.array_equal(pixels(file.value.path().read_bytes()), before)


@pytest.mark.journey
def test_a_drawing_starts_from_a_file_and_from_a_picture_of_the_strip(visit: Callable, tmp_path: Path):  # noqa: F811
    photo = Image.effect_noise((150, 90), 90).convert("RGB")
    photo.save(tmp_path / "photo.png")
    page = visit()
    page.get_by_label("Start from a picture").set_input_files(tmp_path / "photo.png")
    start = page.get_by_role("group", name="Start picture")
    start.get_by_role("img").wait_for()
    start.get_by_role("slider").fill("0.3")
    start.get_by_text("30 %").wait_for()
    draw(page, "a red apple")
    picture(page, "a red apple")
    image, request = read_picture(download(page))
    assert image.size == (64, 64) and request.prompt == "a red apple" and request.edit.endswith("a share of 0.3")
    page.get_by_role("link", name="Gallery").click()
    page.get_by_role("link", name="Draw").click()
    start.get_by_role("button", name="Start from nothing").click()  # it was kept until now
    page.get_by_label("Start from a picture").wait_for()
    draw(page, "a blue dog")
    picture(page, "a blue dog")
    assert not read_picture(download(page))[1].edit
    page.locator(".strip [role=listitem] button").nth(1).click()
    page.get_by_role("dialog").get_by_role("button", name="Use as start").click()
    start.get_by_role("img", name="Start: a red apple").wait_for()
    draw(page, "two cats")
    picture(page, "two cats")
    assert "a share of 0.8" in read_picture(download(page))[1].edit


@pytest.mark.journey
def test_a_doubtful_extension_and_a_large_brush_say_so_before_they_are_drawn(visit: Callable):  # noqa: F811
    page = visit()
    drawn(page, "a red apple")
    press(page, "Edit")
    page.get_by_text("64 × 64 · nothing is brushed").wait_for()
    settle(page)
    caution = page.locator(".editor .caution")
    button = page.get_by_role("button", name="Extend to the right")
    button.scroll_into_view_if_needed()
    place = button.bounding_box()["y"]
    button.hover()
    caution.get_by_text("it may show another apple").wait_for()
    assert button.bounding_box()["y"] == pytest.approx(place, abs=0.5), "the button stays under the pointer"
    page.locator(".amount").select_option("128")
    page.get_by_role("button", name="Extend upwards").focus()
    caution.get_by_text("128 pixels are more than the picture's own 64").wait_for()
    page.get_by_role("button", name="Invert").click()
    caution.get_by_text("Most of the picture is brushed").wait_for()
    page.get_by_role("button", name="Clear").click()
    until(lambda: not caution.inner_text())
    assert page.locator(".strip [role=listitem]").count() == 1, "nothing is drawn for it"


def test_vary_draws_a_share_of_the_picture_anew_and_is_undone(visit: Callable):  # noqa: F811
    page = visit()
    before = drawn(page, "a red apple")
    first = page.locator(".sheet img").get_attribute("src")
    press(page, "Vary")
    until(lambda: page.locator(".sheet figure:has(.save) img").get_attribute("src") not in (None, first))
    page.locator(".canvas-view:not([aria-busy]) .sheet .save").wait_for()
    varied = pixels(download(page))
    cells = (varied == before).reshape(8, 8, 8, 8, 3).all((1, 3, 4))
    assert varied.shape == before.shape and 0 < cells.sum() < 64
    page.locator(".canvas-view .tools").get_by_role("button", name="Undo").click()
    page.locator(".sheet .save").wait_for()
    until(lambda: np.array_equal(pixels(download(page)), before))


def test_same_seed_keeps_the_seed_until_new_ones_are_wanted(visit: Callable):  # noqa: F811
    page = visit()
    page.get_by_text("Draw while typing").click()
    before = drawn(page, "a red apple")
    seed = read_picture(download(page))[1].seed
    press(page, "Same seed")
    kept = page.get_by_role("button", name=f"Seed {seed} for every picture")
    kept.wait_for()
    settle(page)
    page.get_by_role("button", name="Draw", exact=True).click()
    page.locator(".canvas-view[aria-busy]").wait_for(state="detached")
    assert np.array_equal(drawn(page, "a red apple"), before)
    kept.click()
    kept.wait_for(state="hidden")
    settle(page)
    assert not np.array_equal(drawn(page, "a red apple"), before)


def test_the_drawing_is_replayed_step_by_step(visit: Callable):  # noqa: F811
    page = visit()
    drawn(page, "a red apple")
    press(page, "Replay the drawing")
    player = page.locator(".player")
    player.get_by_text(re.compile("^9 of 9$")).wait_for()  # 8 steps and a refinement; it plays by itself
    player.get_by_text("when decided").click()
    player.get_by_role("button", name="Close the replay").click()
    player.wait_for(state="detached")
    assert page.get_by_role("button", name="Enlarge the picture").is_visible()


def test_a_sheet_of_two_settings_is_drawn_and_kept(visit: Callable):  # noqa: F811
    page = visit()
    page.get_by_text("Draw while typing").click()
    page.get_by_role("textbox", name="Prompt", exact=True).fill("a red apple")
    page.get_by_text("X/Y sheet").click()
    page.get_by_role("textbox", name="Values across").fill("2, 4")
    page.get_by_role("textbox", name="Values down").fill("0.5, 1")
    page.get_by_role("button", name="Draw the sheet").click()
    picture(page, "a red apple")
    page.get_by_text("4 pictures").wait_for()
    image, request = read_picture(download(page))
    assert min(image.size) > 2 * 64 and request.edit == "sheet of steps by temperature"
    page.get_by_role("link", name="Gallery").click()
    page.locator(".card").wait_for()


@pytest.mark.journey
def test_tab_reaches_everything_on_draw_in_the_order_of_the_page(visit: Callable):  # noqa: F811
    """Whatever can be pressed, typed into or chosen, from the menu to the last box."""
    page = visit()
    draw(page, "a red apple")
    picture(page, "a red apple")
    unfold(page, SETTINGS)
    all_settings(page)
    settle(page)
    page.get_by_role("link", name="Draw", exact=True).focus()
    seen = [page.evaluate(FOCUSED)]
    for _ in range(250):
        page.keyboard.press("Tab")
        tag, _, label = now = page.evaluate(FOCUSED)
        if tag in ("", "BODY") or now == seen[0]:
            break
        seen.append(now)
    labels = [label for _, _, label in seen]
    names = [label.split("\n")[-1] for label in labels]  # without the icon in front
    wanted = [
        *("Draw", "Speak", "Edit", "Gallery", "Models"),
        *("Open: a red apple", "Prompt", "Draw", "Enlarge the picture"),
        *("Edit", "Vary", "Upscale", "Same seed", "Download", "Replay the drawing", "Delete"),
        *("Start from a picture", "Surprise me"),
    ]
    rest = iter(names)
    for label in wanted:
        assert label in rest, f"Tab does not reach {label!r} in its turn: {names}"
    for label in ("X/Y sheet", "Steps", "Seed", "Avoid", "Sampler", "Save as preset", "two cats on the beach"):
        assert any(label in each for each in labels), f"Tab does not reach {label!r}: {labels}"


def test_draw_is_in_reach_on_a_phone_while_the_settings_are_open(visit: Callable):  # noqa: F811
    page = visit(size=PHONE)
    page.get_by_role("textbox", name="Prompt", exact=True).fill("a red apple")
    unfold(page, SETTINGS)
    all_settings(page)
    page.get_by_text("Save as preset").scroll_into_view_if_needed()
    settle(page)
    button = page.get_by_role("button", name="Draw", exact=True)
    menu = page.locator(".st-key-menu").bounding_box()
    until(lambda: button.bounding_box()["y"] > PHONE[1] / 2)
    box = button.bounding_box()
    assert box["y"] + box["height"] <= menu["y"] and box["x"] + box["width"] <= PHONE[0]
    button.click()
    picture(page, "a red apple")
    box = page.get_by_role("textbox", name="Prompt", exact=True).bounding_box()
    assert 0 <= box["y"] < PHONE[1] / 2, "the press brings the canvas back"
    assert button.bounding_box()["y"] < PHONE[1] / 2
