"""Renders scenes: drawings from the packed file, recoloured and placed on a painted backdrop.

Axes: h w pixels of a drawing, H W pixels of a picture. Drawings have straight alpha.
"""

import hashlib
import io
import json
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from train.world.arrangement import PlacedThing, WorldScene
from train.world.backdrops import COLOURS, VARIANTS, paint_backdrop, place_of
from train.world.thing_table import WorldThing

PAINTS = COLOURS | {"white": (226, 229, 236), "black": (62, 62, 70)}  # of things: shading stays visible
LIGHT = np.float32([0.299, 0.587, 0.114])  # luminance of red, green and blue (ITU-R BT.601)
PAPER = (247, 244, 236)
INK = (22, 20, 30)
STYLE_HANDS = {"flat": ("fluent-flat", "twemoji")}  # all other styles are made from SHADED
SHADED = ("fluent", "noto", "own")
REMEMBERED = 3000  # scaled and coloured drawings that are kept in memory


class DrawingPack:
    """The drawings of `drawings.zip` (see fetch_drawings.py), decoded when they are first needed."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"{self.path} is missing: run maskgil data drawings")
        self.archive = zipfile.ZipFile(self.path)
        content = self.archive.read("index.json")
        self.identity = hashlib.sha256(content).hexdigest()[:12]
        self.index: dict[str, list[dict]] = json.loads(content)
        self._originals: dict[str, Image.Image] = {}
        self._drawn: OrderedDict[tuple, np.ndarray] = OrderedDict()

    def rows(self, thing: WorldThing, style: str) -> list[dict]:
        """The index rows of the drawings that a thing has in a style. ValueError where the file lacks the thing."""
        if thing.name not in self.index:
            raise ValueError(f"{self.path} has no drawing of {thing.name}: run maskgil data drawings")
        hands = STYLE_HANDS.get(style, SHADED)
        return [row for row in self.index[thing.name] if row["hand"] in hands] or self.index[thing.name]

    def sizes(self, thing: WorldThing, style: str) -> list[tuple[int, int]]:
        return [tuple(row["size"]) for row in self.rows(thing, style)]

    def original(self, name: str) -> Image.Image:
        if name not in self._originals:
            self._originals[name] = Image.open(io.BytesIO(self.archive.read(name))).convert("RGBA")
        return self._originals[name]

    def draw(self, placed: PlacedThing, style: str, cell: int) -> np.ndarray:
        """(h, w, 4) uint8 of a placed drawing at `cell` pixels a cell, in its style, colour and direction."""
        name = self.rows(placed.thing, style)[placed.drawing]["file"]
        size = max(2, round(placed.width * cell)), max(2, round(placed.height * cell))
        key = name, size, placed.mirrored, placed.colour, style
        if key not in self._drawn:
            small = self.original(name).convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
            pixels = np.array(small)
            if placed.mirrored:
                pixels = np.ascontiguousarray(pixels[:, ::-1])
            if placed.colour:
                pixels = painted(pixels, PAINTS[placed.colour])
            if style == "sketch":
                pixels = sketched(pixels)
            elif style == "silhouette":
                pixels[..., :3] = INK
            self._drawn[key] = pixels
            if len(self._drawn) > REMEMBERED:
                self._drawn.popitem(last=False)
        self._drawn.move_to_end(key)
        return self._drawn[key]


def painted(pixels: np.ndarray, paint: tuple[int, int, int]) -> np.ndarray:
    """The drawing in shades of one colour. Pixels of the median luminance become `paint`, darker and lighter ones its
    shades, so that eyes, stripes and gloss stay visible."""
    light = pixels[..., :3].astype(np.float32) @ LIGHT
    inside = light[pixels[..., 3] > 127]
    darkest, middle, lightest = np.quantile(inside if inside.size else light, [0.02, 0.5, 0.98])
    span = max(lightest - darkest, 20)
    turn = np.clip((middle - darkest) / span, 0.25, 0.75)
    position = np.clip((light - darkest) / span, 0, 1)
    colour = np.float32(paint)
    stops = np.stack([0.3 * colour, colour, colour + 0.72 * (255 - colour)])
    out = pixels.copy()
    for channel in range(3):
        out[..., channel] = np.interp(position, [0, turn, 1], stops[:, channel]) + 0.5
    return out


def sketched(pixels: np.ndarray) -> np.ndarray:
    """The drawing in pencil: greys of a colour dodge of the drawing by its blurred negative, and its outline."""
    alpha = pixels[..., 3].astype(np.float32) / 255
    grey = (pixels[..., :3].astype(np.float32) @ LIGHT) * alpha + 255 * (1 - alpha)
    padded = np.pad(grey, 3, constant_values=255)
    soft = Image.fromarray(padded.astype(np.uint8)).filter(ImageFilter.BoxBlur(2))
    blurred = np.asarray(soft, np.float32)[3:-3, 3:-3]
    lines = np.clip(grey / np.maximum(blurred, 1) * 255, 0, 255)
    ink = np.clip(255 - (0.78 * lines + 0.22 * grey), 0, 255) / 255
    out = np.empty_like(pixels)
    out[..., :3] = 52
    out[..., 3] = (np.clip(1.7 * ink + 0.04 * alpha, 0, 1) * 255).astype(np.uint8)
    return out


def _blend(picture: np.ndarray, drawing: np.ndarray, left: int, top: int) -> None:
    """Paint a drawing over the picture, cropped at its edges."""
    height, width = drawing.shape[:2]
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + height, picture.shape[0]), min(left + width, picture.shape[1])
    if y1 <= y0 or x1 <= x0:
        return
    part = drawing[y0 - top : y1 - top, x0 - left : x1 - left]
    area = picture[y0:y1, x0:x1]
    alpha = part[..., 3:].astype(np.uint16)
    area[:] = ((area * (255 - alpha) + part[..., :3] * alpha + 127) // 255).astype(np.uint8)


def _shadow(picture: np.ndarray, placed: PlacedThing, cell: int) -> None:
    """Paint a soft shadow where a thing touches the ground."""
    rx, ry = 0.46 * placed.width * cell, max(2.0, min(0.07 * placed.width, 0.4) * cell)
    cx, cy = placed.centre[0] * cell, (placed.bottom - 0.04) * cell
    y0, y1 = max(0, int(cy - ry)), min(picture.shape[0], int(cy + ry) + 1)
    x0, x1 = max(0, int(cx - rx)), min(picture.shape[1], int(cx + rx) + 1)
    if y1 <= y0 or x1 <= x0:
        return
    yy, xx = np.mgrid[y0:y1, x0:x1]
    depth = 0.36 * np.clip(1 - ((xx - cx) / rx) ** 2 - ((yy - cy) / ry) ** 2, 0, 1) ** 0.6
    picture[y0:y1, x0:x1] = (picture[y0:y1, x0:x1] * (1 - depth[..., None])).astype(np.uint8)


def casts_shadow(placed: PlacedThing, scene: WorldScene) -> bool:
    """Whether a thing stands on the ground of a place, and so has a shadow."""
    place = place_of(scene.backdrop)
    if place is None or place.kind == "free" or placed.thing.stands in ("air", "sky"):
        return False
    if place.water and placed.thing.stands in ("water", "sea"):
        return False
    return place.name != "sea" and placed.bottom >= place.horizon * scene.rows


def render_scene(scene: WorldScene, pack: DrawingPack, cell: int) -> np.ndarray:
    """The picture of a scene, (rows * cell, columns * cell, 3) uint8."""
    height, width = scene.rows * cell, scene.columns * cell
    if scene.style == "sketch":
        picture = np.empty((height, width, 3), np.uint8)
        picture[:] = PAPER
    else:
        variant = scene.variant % VARIANTS
        picture = paint_backdrop(scene.backdrop, scene.time, scene.weather, width, height, variant).copy()
    for number, placed in enumerate(scene.placed):
        drawing = pack.draw(placed, "3d" if scene.style == "pixel art" else scene.style, cell)
        carried = scene.relation in ("on", "inside") and placed.thing is scene.groups[0].thing
        if scene.style != "sketch" and not carried and casts_shadow(placed, scene):
            _shadow(picture, placed, cell)
        _blend(picture, drawing, round(placed.x * cell), round(placed.y * cell))
        if scene.relation == "inside" and number and scene.placed[number - 1].thing is scene.groups[1].thing:
            _cover(picture, scene, pack, number, cell)
    return pixelated(picture, cell) if scene.style == "pixel art" else picture


def _cover(picture: np.ndarray, scene: WorldScene, pack: DrawingPack, number: int, cell: int) -> None:
    """Paint the front of a container, its part below the opening, over the thing inside it."""
    container = scene.placed[number - 1]
    if container.thing.inside is None:
        return
    drawing = pack.draw(container, "3d" if scene.style == "pixel art" else scene.style, cell).copy()
    edge = round((container.thing.inside + 0.06) * drawing.shape[0])
    drawing[:edge, :, 3] = 0
    _blend(picture, drawing, round(container.x * cell), round(container.y * cell))


def pixelated(picture: np.ndarray, cell: int) -> np.ndarray:
    """The picture in blocks of a sixth of a cell, in few colours."""
    block = max(2, cell // 6)
    height, width = picture.shape[:2]
    blocks = picture.reshape(height // block, block, width // block, block, 3).astype(np.float32).mean((1, 3))
    blocks = np.clip(np.round(blocks / 24) * 24, 0, 255).astype(np.uint8)
    return blocks.repeat(block, 0).repeat(block, 1)
