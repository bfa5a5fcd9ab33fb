"""A picture of every page of the studio, for the README, taken in a real browser from a server of its own:

    python -m tools.screenshots --model scenes --out docs --seed 7 --only draw speak

Every picture in them is drawn by the model there and then, with the same seed each time; on the Speak page, a sentence
said by espeak-ng comes in as the microphone. What is written is the screen as a visitor sees it, no more than 300 kB.
"""

import io
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
from PIL import Image

from app.core.request import MAX_SEED
from benchmarks.speech_to_image_latency import chromium, start_server, synthesize
from maskgil.command_line import Command, run
from speech import audio

WIDE, PHONE = (1280, 860), (390, 844)  # CSS pixels, one to each of the file's
SETTINGS = re.compile(r"^\d+ × \d+, .*, 1 picture$")  # the line that opens them
PATIENCE = 120  # seconds for anything that must come
MOST = 300_000  # bytes of a file
PROMPTS = ("a bee on pink", "a pumpkin in the forest", "a sailboat at night", "three balloons in the sky",
           "a penguin in the snow", "two cats on the beach")  # fmt: skip
SAID = "two dogs on the beach"
EDITED = "a penguin in the snow"  # what is extended, ...
WORDS = "a penguin and an owl in the snow"  # ... and what is to be there


class Visitor:
    """A browser window with a gallery of its own."""

    def __init__(self, browser: Any, url: str, size: tuple[int, int], colours: str, seed: int):
        view = {"width": size[0], "height": size[1]}
        context = browser.new_context(permissions=["microphone"], viewport=view, color_scheme=colours)
        self.page, self.url, self.seed = context.new_page(), url, seed
        self.page.set_default_timeout(PATIENCE * 1000)

    def enter(self, room: str) -> None:
        self.page.goto(f"{self.url}/{room}")
        self.page.locator(".st-key-menu a").nth(4).wait_for()
        self.rest()

    def rest(self) -> None:
        """Until the page stands still and everything in it is there."""
        self.page.locator("[data-test-script-state=notRunning]").wait_for()
        self.page.wait_for_timeout(500)  # a component appears after the script has ended
        self.page.evaluate("Promise.all([...document.images].map((image) => image.decode().catch(() => 0)))")
        self.page.evaluate("document.fonts.ready")

    def draw(self, *prompts: str) -> None:
        """Draw each prompt with our seed on the Draw page."""
        page = self.page
        self.enter("")
        page.get_by_text("Draw while typing").click()
        page.get_by_text(SETTINGS).click()
        self.rest()  # it unfolds
        page.get_by_text("All settings").click()
        page.get_by_text("New seed for each drawing").click()
        self.rest()  # the seed's box is made anew
        page.get_by_role("spinbutton", name="Seed").fill(str(self.seed))
        page.keyboard.press("Enter")
        self.rest()
        page.get_by_text("All settings").click()
        page.get_by_text(SETTINGS).click()
        self.rest()
        for prompt in prompts:
            box = page.get_by_role("textbox", name="Prompt", exact=True)
            box.fill(prompt)
            box.press("Enter")
            page.locator(f".canvas-view:not([aria-busy]) figure:has(.save) img[alt='{prompt}']").wait_for()
            self.rest()

    def shoot(self, path: Path) -> None:
        """The screen as a PNG of 256 colours, with the pointer and the focus out of the way."""
        self.page.evaluate("document.activeElement?.blur()")
        self.page.mouse.move(1, 1)
        self.page.wait_for_timeout(300)
        seen = Image.open(io.BytesIO(self.page.screenshot(animations="disabled"))).convert("RGB")
        seen.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size > MOST:
            raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {MOST}")
        print(f"{path}: {seen.width} x {seen.height}, {path.stat().st_size // 1000} kB", flush=True)


def capture_draw(visitor: Visitor) -> None:
    """A finished picture with its buttons."""
    visitor.draw("a fox to the left of a castle", "two cats on the beach")


def heat(visitor: Visitor) -> None:
    """The token player, with when each of its tokens was decided."""
    capture_draw(visitor)
    visitor.page.get_by_role("button", name="Replay the drawing").click()
    visitor.page.get_by_text("when decided").click()
    visitor.page.wait_for_timeout(3000)  # it plays once
    visitor.rest()


def capture_speak(visitor: Visitor) -> None:
    visitor.enter("speak")
    visitor.page.get_by_role("button", name="Start listening").click()
    visitor.page.locator(".past a").first.wait_for()
    visitor.rest()


def capture_edit(visitor: Visitor) -> None:
    """A stroke over a picture that was extended to the right."""
    page = visitor.page
    visitor.draw(EDITED)
    page.locator(".sheet").get_by_role("button", name="Edit").click()
    page.get_by_text("nothing is brushed").wait_for()
    visitor.rest()
    page.get_by_role("button", name="Extend to the right").click()
    page.get_by_text(re.compile("320 × 256 · nothing is brushed")).wait_for()
    box = page.locator(".stage").bounding_box()
    for i, (x, y) in enumerate([(0.75, 0.3), (0.85, 0.35), (0.9, 0.5), (0.8, 0.6), (0.75, 0.45)]):
        page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y, steps=8)
        if i == 0:
            page.mouse.down()
    page.mouse.up()
    page.get_by_label("What the picture shows").fill(WORDS)
    visitor.rest()


def capture_gallery(visitor: Visitor) -> None:
    visitor.draw(*PROMPTS)
    visitor.enter("gallery")
    cards = visitor.page.locator(".card")
    cards.nth(len(PROMPTS) - 1).wait_for()
    cards.nth(1).get_by_role("button", name="Star").click()
    visitor.page.locator(".pick").nth(0).check()
    visitor.page.locator(".pick").nth(2).check()
    visitor.rest()


def capture_models(visitor: Visitor) -> None:
    visitor.enter("models")


PAGES: dict[str, tuple[Callable[[Visitor], None], tuple[int, int], str]] = {
    "draw": (capture_draw, WIDE, "light"),
    "speak": (capture_speak, WIDE, "light"),
    "edit": (capture_edit, WIDE, "light"),
    "gallery": (capture_gallery, WIDE, "light"),
    "models": (capture_models, WIDE, "light"),
    "draw-dark": (heat, WIDE, "dark"),
    "draw-phone": (capture_draw, PHONE, "light"),
}


def write_microphone(folder: Path) -> Path:
    """The sentence between silences, the last one so long that the picture is taken before it is said again."""
    said = audio.load_audio(synthesize(SAID, folder))
    second = np.zeros(audio.RATE, np.float32)
    soundfile.write(folder / "microphone.wav", np.concatenate([second, said, *[second] * 60]), audio.RATE)
    return folder / "microphone.wav"


def take(
    model: str = "scenes",
    out: Path = Path("docs"),
    seed: int = 7,
    only: tuple[Literal["draw", "speak", "edit", "gallery", "models", "draw-dark", "draw-phone"], ...] = tuple(PAGES),
) -> None:
    """Take a picture of every page of the studio.

    Args:
        model: The model that draws.
        out: The folder to write to.
        seed: The seed of every picture.
        only: Pages to take.
    """
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed {seed}: give a whole number from 0 to {MAX_SEED}")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        wav = write_microphone(Path(folder))
        with start_server(model, Path(folder) / "gallery") as url, chromium(wav) as browser:
            for name in only:
                arrange, size, colours = PAGES[name]
                visitor = Visitor(browser, url, size, colours, seed)
                arrange(visitor)
                visitor.shoot(out / f"{name}.png")
                visitor.page.context.close()


SCREENSHOTS = Command("Take a picture of every page of the studio.", lambda: take)

if __name__ == "__main__":
    sys.exit(run(SCREENSHOTS, "python -m tools.screenshots"))
