"""Drawings of single objects: glyphs of a colour-emoji font, a folder of sprites, or SVG files of this project.

A drawing is an (s, s, 4) uint8 array, straight alpha, the object fitted into the square. `Sprites` draws each object
once a size and remembers it.

The font is `NotoColorEmoji.ttf` (Debian: fonts-noto-color-emoji). The folder (made by train/scenes/sprite_folder.py)
has style "3d" of every emoji: `3d/<slug>.webp`, and `3d/<slug>-<i>.webp` of drawing i. Style "flat" is the font's
glyph. Without a folder both styles are. Things that no emoji shows are drawn from train/world/svg in both styles.
"""

import csv
import hashlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from train.scenes.drawing_sources import DrawingSource, drawing_sources
from train.world.svg_drawings import draw_own

FONT_PLACES = (
    "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf",
    "/usr/share/fonts/noto/NotoColorEmoji.ttf",
    "/usr/share/fonts/google-noto-emoji/NotoColorEmoji.ttf",
)
GLYPH_SIZE = 109  # the one bitmap size that the font holds, in pixels an em
WORKING_SIZE = 192  # sprites are kept at this size and scaled down from it
Paint = tuple[int, int, int]  # red, green, blue: 0 to 255
LIGHT = np.float32([0.299, 0.587, 0.114])  # of red, green, blue: how light one sees them


# Rows of the table that the corpus uses. The shipped weights know these; the rows after them wait for the next weights.
CORPUS_THINGS = 175


@dataclass(frozen=True)
class Thing:
    """An object that scenes are made of."""

    index: int
    name: str
    plural: str
    synonyms: tuple[str, ...]
    slug: str
    glyph: str  # of its first drawing; "": that is a drawing of this project
    drawings: int  # how many it has, of equal right
    # not in the text of a scene, by which caches know their corpus (train/data/scene_cache.py)
    sources: tuple[DrawingSource, ...] = field(repr=False, compare=False)

    @property
    def is_person(self) -> bool:
        """Whether it is drawn with skin tones."""
        return any(source.toned for source in self.sources)


@cache
def table_of_things() -> tuple[Thing, ...]:
    """Every row of the table of objects, in a fixed order: an index means the same thing to every model."""
    with (Path(__file__).with_name("objects.tsv")).open(encoding="utf-8") as file:
        return tuple(_thing(index, row) for index, row in enumerate(csv.DictReader(file, delimiter="\t")))


@cache
def things() -> tuple[Thing, ...]:
    """The things of the corpus: the first CORPUS_THINGS rows."""
    return table_of_things()[:CORPUS_THINGS]


def _thing(index: int, row: dict[str, str]) -> Thing:
    synonyms, sources = tuple(s for s in row["synonyms"].split(",") if s), drawing_sources(row["drawings"])
    return Thing(index, row["name"], row["plural"], synonyms, row["slug"], sources[0].glyph, len(sources), sources)


def sprite_file(thing: Thing, number: int) -> str:
    """Name of the file of drawing `number` in a folder of sprites."""
    return f"{thing.slug}{f'-{number}' if number else ''}.webp"


def _fit(drawing: Image.Image, size: int) -> Image.Image:
    """Crop to what is drawn and centre it in a transparent square of `size` pixels, keeping the aspect ratio."""
    drawing = drawing.crop(drawing.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
    scale = size / max(drawing.size)
    # premultiplied, or the colour of transparent pixels would bleed into the edge
    drawing = drawing.convert("RGBa").resize(
        tuple(max(1, round(side * scale)) for side in drawing.size), Image.Resampling.LANCZOS
    )
    square = Image.new("RGBA", (size, size))
    square.paste(drawing.convert("RGBA"), tuple((size - side) // 2 for side in drawing.size))
    return square


class Sprites:
    """Draws things. `folder`: the Fluent drawings, or None for the font alone."""

    def __init__(self, folder: str | Path | None = None, font: str | Path | None = None):
        self.folder = Path(folder) if folder else None
        if self.folder and not (self.folder / "3d").is_dir():
            raise ValueError(f"{self.folder} holds no sprites: expected {self.folder / '3d'}/<name>.webp")
        self.font_path = next((p for p in ([font] if font else FONT_PLACES) if p and Path(p).is_file()), None)
        if not self.font_path:
            raise ValueError(
                "no colour-emoji font found; install it (Debian: apt-get install fonts-noto-color-emoji) "
                f"or name one; looked in {', '.join(map(str, [font] if font else FONT_PLACES))}"
            )
        self._drawn: dict[tuple, np.ndarray] = {}
        self._font: ImageFont.FreeTypeFont | None = None

    def identity(self) -> str:
        """Stands for these drawings: the names and lengths of the folder's files, or the font."""
        if self.folder is None:
            return "font"
        files = sorted((path.name, path.stat().st_size) for path in (self.folder / "3d").glob("*.webp"))
        return hashlib.sha256(repr(files).encode()).hexdigest()[:12]

    def _glyph(self, glyph: str) -> Image.Image:
        if len(glyph.rstrip("\ufe0f")) > 1 and not features.check("raqm"):
            raise ValueError(
                f"the emoji {glyph!r} has several characters: install libfribidi (Debian: apt-get install libfribidi0)"
            )
        if self._font is None:
            self._font = ImageFont.truetype(str(self.font_path), GLYPH_SIZE)
        page = Image.new("RGBA", (2 * GLYPH_SIZE, 2 * GLYPH_SIZE))
        ImageDraw.Draw(page).text((20, 20), glyph, font=self._font, embedded_color=True)
        if page.getchannel("A").getbbox() is None:
            raise ValueError(f"{self.font_path} has no glyph {glyph!r}: install a newer version of the font")
        return page

    def original(self, thing: Thing, drawing: str, number: int = 0) -> Image.Image:
        """Drawing `number` ("3d" or "flat") at working size. ValueError where its file or glyph is missing."""
        source = thing.sources[number]
        if source.svg:
            return _fit(draw_own(source.svg), WORKING_SIZE)
        if self.folder and drawing == "3d":
            path = self.folder / "3d" / sprite_file(thing, number)
            if not path.is_file():
                raise ValueError(
                    f"no drawing of {thing.name}: {path} is missing; make the folder with `maskgil data sprites`"
                )
            with Image.open(path) as image:
                return _fit(image.convert("RGBA"), WORKING_SIZE)
        return _fit(self._glyph(source.glyph), WORKING_SIZE)

    def draw(
        self, thing: Thing, drawing: str, size: int, paint: Paint | None = None, scale: int = 1, number: int = 0
    ) -> np.ndarray:
        """(S, S, 4) uint8, S = scale * size, with `scale` transparent pixels around it; `drawing` is "3d", "flat",
        "sketch" or "silhouette". `paint` (red, green, blue): all of it in shades of that, in place of its own colours.
        Pencil lines are as thick as the scale. `number`: which of the thing's drawings."""
        key = (thing.index, drawing, size, paint, scale, number)
        if key not in self._drawn:
            source = "3d" if drawing in ("sketch", "silhouette") else drawing
            base = (thing.index, source, number)
            if base not in self._drawn:
                self._drawn[base] = np.asarray(self.original(thing, source, number))
            inner = _fit(Image.fromarray(self._drawn[base]), (size - 2) * scale)
            pixels = np.zeros((size * scale, size * scale, 4), np.uint8)
            pixels[scale:-scale, scale:-scale] = np.asarray(inner)
            if paint is not None:
                plain = pixels if scale == 1 else self.draw(thing, source, size, number=number)
                pixels = _painted(pixels, paint, plain)
            if drawing == "sketch":
                pixels = _sketch(pixels, reach=2 * scale)
            elif drawing == "silhouette":
                pixels = _silhouette(pixels)
            self._drawn[key] = pixels
        return self._drawn[key]


def _painted(pixels: np.ndarray, paint: Paint, plain: np.ndarray) -> np.ndarray:
    """In one colour: what was as light as half of the drawing is becomes the paint itself, darker and lighter parts
    its shades, so that eyes, stripes and gloss stay. The drawing's full range of light is used, or a black cat painted
    white would stay grey. `plain`: the same in the size of the scene, whose lights are measured at every scale."""
    light = pixels[..., :3].astype(np.float32) @ LIGHT
    darkest, middle, lightest = np.quantile((plain[..., :3] @ LIGHT)[plain[..., 3] > 127], [0.02, 0.5, 0.98])
    span = max(lightest - darkest, 20)
    turn = np.clip((middle - darkest) / span, 0.25, 0.75)
    position = np.clip((light - darkest) / span, 0, 1)
    colour = np.float32(paint)
    stops = np.stack([0.28 * colour, colour, colour + 0.78 * (255 - colour)])
    out = pixels.copy()
    for channel in range(3):
        out[..., channel] = np.interp(position, [0, turn, 1], stops[:, channel]) + 0.5
    return out


def _sketch(pixels: np.ndarray, reach: int) -> np.ndarray:
    """Pencil: grey from a "colour dodge" of the picture by its negative, blurred over `reach` pixels to each side, plus
    the outline."""
    alpha = pixels[..., 3:].astype(np.float32) / 255
    grey = (pixels[..., :3] @ LIGHT)[..., None] * alpha + 255 * (1 - alpha)
    padded = np.pad(grey, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    h, w = grey.shape[:2]
    window = range(2 * reach + 1)
    blurred = sum(padded[y : y + h, x : x + w] for y in window for x in window) / len(window) ** 2
    lines = np.clip(grey / np.maximum(blurred, 1) * 255, 0, 255)
    shade = 0.78 * lines + 0.22 * grey
    ink = np.clip(255 - shade, 0, 255) / 255
    out = np.empty_like(pixels)
    out[..., :3] = 52
    out[..., 3] = (np.clip(1.7 * ink[..., 0] + 0.04 * alpha[..., 0], 0, 1) * 255).astype(np.uint8)
    return out


def _silhouette(pixels: np.ndarray) -> np.ndarray:
    out = pixels.copy()
    out[..., :3] = (22, 20, 30)
    return out
