"""Renders scenes: the background, then the sprites on it, then the style.

A picture is (H, W, 3) uint8, of the scene's size or `scale` times that, with the same things at the same positions. All
randomness comes from the scene and the given generator. Backgrounds are cached for each size and variant, so that a
scene takes less than a millisecond.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from train.scenes.scene import COLOURS, PAINTS, PLAIN, Scene
from train.scenes.sprites import Sprites

VARIANTS = 4  # of each background
PIXEL = 4  # side of a block in pixel art


def _ramp(height: int, *stops: tuple) -> np.ndarray:
    """(H, 1, 3): colours interpolated down the picture between (share of the height, colour) stops."""
    y = np.linspace(0, 1, height)
    positions = [s for s, _ in stops]
    return np.stack([np.interp(y, positions, [c[i] for _, c in stops]) for i in range(3)], -1)[:, None]


def _blob(canvas: np.ndarray, x: float, y: float, rx: float, ry: float, colour: tuple, strength: float = 1.0) -> None:
    """Draw a soft-edged ellipse. The centre is in shares of the picture's sides, the radii in shares of its height."""
    h, w = canvas.shape[:2]
    yy, xx = np.mgrid[0:h, 0:w]
    d = np.hypot((xx - x * w) / (rx * h), (yy - y * h) / (ry * h))
    alpha = np.clip((1.08 - d) / 0.08, 0, 1)[..., None] * strength
    canvas += alpha * (np.array(colour, float) - canvas)


def _ground(canvas: np.ndarray, level: np.ndarray, top: tuple, bottom: tuple) -> None:
    """Fill the picture below a line. `level` (W,): the line's height in each column, as a share from the top."""
    h, w = canvas.shape[:2]
    yy = np.arange(h)[:, None] - level[None] * h
    shade = np.clip(yy / (h * 0.5), 0, 1)[..., None]
    colour = np.array(top, float) * (1 - shade) + np.array(bottom, float) * shade
    canvas += np.clip(yy + 0.5, 0, 1)[..., None] * (colour - canvas)


@dataclass(frozen=True)
class _Backdrop:
    """An unfinished picture of a place. `width` and `height` are those of the scene, in pixels."""

    canvas: np.ndarray
    width: int
    height: int
    rng: np.random.Generator

    @property
    def x(self) -> np.ndarray:
        """(W,): each column as a share of the width."""
        return np.linspace(0, 1, self.canvas.shape[1])

    def ramp(self, *stops: tuple) -> None:
        """Fill the picture with a vertical gradient through (share of the height, colour) stops."""
        self.canvas[:] = _ramp(self.canvas.shape[0], *stops)

    def hills(self, base: float, swing: float) -> np.ndarray:
        """(W,): the height of a wavy horizon."""
        return base + swing * np.sin(2 * np.pi * (self.x * self.width / 128 * 0.8 + self.rng.random()))

    def level(self, height: float) -> np.ndarray:
        """(W,): the height of a straight horizon."""
        return np.full_like(self.x, height)

    def times(self, number: float) -> range:
        """A range in proportion to the area: `number` for 128 x 128 pixels."""
        return range(int(number * self.width * self.height / 128**2))


def _beach(place: _Backdrop) -> None:
    place.ramp((0, (120, 200, 245)), (0.4, (196, 232, 250)), (1, (196, 232, 250)))
    _ground(place.canvas, place.level(0.42), (62, 160, 205), (96, 196, 214))
    _ground(place.canvas, place.hills(0.6, 0.015), (244, 220, 160), (232, 200, 132))
    _blob(place.canvas, 0.12 + 0.1 * place.rng.random(), 0.14, 0.08, 0.08, (255, 236, 130))


def _meadow(place: _Backdrop) -> None:
    place.ramp((0, (142, 206, 246)), (0.5, (214, 238, 252)), (1, (214, 238, 252)))
    _ground(place.canvas, place.hills(0.45, 0.03), (128, 196, 96), (110, 184, 84))
    _ground(place.canvas, place.hills(0.6, 0.025), (104, 180, 76), (76, 152, 60))


def _snow(place: _Backdrop) -> None:
    place.ramp((0, (176, 200, 226)), (0.5, (220, 230, 242)), (1, (220, 230, 242)))
    _ground(place.canvas, place.hills(0.52, 0.03), (240, 246, 252), (222, 234, 246))
    for _ in place.times(14):
        _blob(place.canvas, place.rng.random(), place.rng.random() * 0.5, 0.012, 0.012, (255, 255, 255))


def _night(place: _Backdrop) -> None:
    place.ramp((0, (14, 18, 52)), (0.7, (40, 50, 104)), (1, (52, 62, 116)))
    for _ in place.times(16):
        _blob(place.canvas, place.rng.random(), place.rng.random() * 0.6, 0.009, 0.009, (250, 246, 214))
    _ground(place.canvas, place.hills(0.76, 0.02), (26, 34, 58), (16, 22, 40))


def _sunset(place: _Backdrop) -> None:
    place.ramp((0, (88, 60, 128)), (0.35, (226, 98, 104)), (0.62, (252, 178, 92)), (1, (252, 178, 92)))
    _blob(place.canvas, 0.3 + 0.4 * place.rng.random(), 0.6, 0.13, 0.13, (255, 226, 120))
    _ground(place.canvas, place.level(0.64), (150, 82, 106), (82, 46, 84))


def _underwater(place: _Backdrop) -> None:
    place.ramp((0, (72, 190, 222)), (1, (14, 74, 140)))
    _ground(place.canvas, place.hills(0.86, 0.02), (196, 186, 130), (160, 150, 108))
    for _ in place.times(7):
        _blob(place.canvas, place.rng.random(), place.rng.random() * 0.8, 0.018, 0.018, (170, 226, 242), 0.6)


def _desert(place: _Backdrop) -> None:
    place.ramp((0, (250, 200, 140)), (0.5, (254, 232, 190)), (1, (254, 232, 190)))
    _ground(place.canvas, place.hills(0.5, 0.04), (222, 164, 96), (214, 152, 84))
    _ground(place.canvas, place.hills(0.64, 0.03), (206, 140, 74), (188, 122, 62))


def _sky(place: _Backdrop) -> None:
    place.ramp((0, (96, 172, 240)), (1, (190, 226, 252)))
    for _ in range(3):
        cx, cy = place.rng.random(), 0.12 + 0.7 * place.rng.random()
        for dx, r in ((-0.1, 0.05), (0, 0.075), (0.1, 0.055)):
            _blob(place.canvas, cx + dx, cy, r * 1.5, r, (252, 253, 255))


def _space(place: _Backdrop) -> None:
    place.ramp((0, (12, 8, 30)), (1, (34, 16, 62)))
    for _ in place.times(26):
        _blob(place.canvas, place.rng.random(), place.rng.random(), 0.008, 0.008, (236, 232, 255))
    _blob(place.canvas, 0.86, 0.14, 0.09, 0.09, (204, 132, 96))


def _forest(place: _Backdrop) -> None:
    place.ramp((0, (176, 214, 190)), (0.6, (206, 230, 206)), (1, (206, 230, 206)))
    for i in range(7):
        cx = (i + 0.5 + 0.3 * (place.rng.random() - 0.5)) / 7
        _blob(place.canvas, cx, 0.5, 0.018, 0.3, (98, 74, 54))
        _blob(place.canvas, cx, 0.26, 0.11, 0.2, (62, 124, 76))
    _ground(place.canvas, place.hills(0.62, 0.012), (96, 146, 74), (66, 112, 54))


PLACE_PAINTERS = {
    "beach": _beach,
    "meadow": _meadow,
    "snow": _snow,
    "night": _night,
    "sunset": _sunset,
    "underwater": _underwater,
    "desert": _desert,
    "sky": _sky,
    "space": _space,
    "forest": _forest,
}


def _paint_place(name: str, width: int, height: int, rng: np.random.Generator, scale: int) -> np.ndarray:
    if name not in PLACE_PAINTERS:
        raise ValueError(f"no background is called {name!r}")
    place = _Backdrop(np.full((height * scale, width * scale, 3), 255.0), width, height, rng)
    PLACE_PAINTERS[name](place)
    return place.canvas


@lru_cache(maxsize=1024)
def background(name: str, width: int, height: int, variant: int, scale: int = 1) -> np.ndarray:
    """(H, W, 3) uint8 of a named background. The variant changes the positions of hills, clouds and stars."""
    rng = np.random.default_rng([variant, width, height])
    if name in (PLAIN, *COLOURS):
        base = np.array(COLOURS.get(name, (0, 0, 0)), float)
        top, bottom = base * 0.985 + 4, base * 0.94
        if name == PLAIN:
            top, bottom = (246, 246, 248), (228, 229, 234)
        ramp = _ramp(height * scale, (0, tuple(top)), (1, tuple(bottom)))
        canvas = np.zeros((height * scale, width * scale, 3)) + ramp
    else:
        canvas = _paint_place(name, width, height, rng, scale)
    canvas = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
    canvas.setflags(write=False)
    return canvas


PAPER = (247, 244, 236)


def render(scene: Scene, sprites: Sprites, rng: np.random.Generator, scale: int = 1) -> np.ndarray:
    """(scale * H, scale * W, 3) uint8."""
    if scene.style == "sketch":
        picture = np.empty((scene.height * scale, scene.width * scale, 3), np.uint8)
        picture[:] = PAPER
    else:
        picture = background(scene.background, scene.width, scene.height, int(rng.integers(VARIANTS)), scale).copy()
    drawing = {"pixel art": "3d"}.get(scene.style, scene.style)
    for item in scene.items:
        sprite = sprites.draw(item.thing, drawing, item.size, PAINTS.get(item.colour), scale, item.drawing)
        x, y, side = item.x * scale, item.y * scale, item.size * scale
        area = picture[y : y + side, x : x + side]
        alpha = sprite[..., 3:].astype(np.uint16)
        area[:] = ((area * (255 - alpha) + sprite[..., :3] * alpha + 127) // 255).astype(np.uint8)
    if scene.style == "pixel art":
        h, w, pixel = scene.height // PIXEL, scene.width // PIXEL, PIXEL * scale
        blocks = picture.reshape(h, pixel, w, pixel, 3).astype(np.float32).mean((1, 3))
        blocks = np.clip(np.round(blocks / 24) * 24, 0, 255).astype(np.uint8)  # the style has few colours
        picture = blocks.repeat(pixel, 0).repeat(pixel, 1)
    return picture
