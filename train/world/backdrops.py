"""Places, times of day and weathers, and the functions that paint them.

A backdrop is a function of its place, time, weather, shape and variant. The variant changes the positions of hills,
clouds and houses. Time and weather apply to every place that is outdoors. Heights are shares of the picture from its
top.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image

from train.world.backdrop_canvas import BackdropCanvas, Colour, paint_falling, paint_sky, paint_white_ground

Kind = Literal["land", "water", "free", "indoors"]
COLOURS: dict[str, Colour] = {
    "red": (222, 60, 56),
    "orange": (245, 150, 50),
    "yellow": (250, 218, 80),
    "green": (92, 180, 92),
    "blue": (72, 132, 226),
    "purple": (150, 94, 200),
    "pink": (247, 160, 196),
    "brown": (146, 102, 70),
    "black": (40, 40, 46),
    "white": (252, 252, 252),
    "gray": (150, 154, 162),
    "gold": (222, 176, 56),
}
TIMES = ("day", "night", "sunset", "sunrise")
WEATHERS = ("clear", "rain", "snow", "fog", "storm", "clouds")
PLAIN = "plain"  # a light wall: no place was asked for
COUNTRY = "open country"  # the place of requests that name a time or a weather, but no place
VARIANTS = 6


@dataclass(frozen=True)
class Place:
    """A place. `horizon`: where the ground begins; `water`: (top, bottom) of open water, or None; `kind`: "free" has
    neither ground nor weather, "indoors" has a floor and no weather."""

    name: str
    kind: Kind
    horizon: float
    water: tuple[float, float] | None = None


GRASS, GRASS_LOW = (126, 192, 92), (84, 158, 66)
SAND, SAND_LOW = (244, 221, 164), (230, 198, 132)
SEA, SEA_LOW = (66, 160, 208), (40, 118, 178)


def _beach(e: BackdropCanvas) -> None:
    e.land(0.44, SEA, (104, 198, 214))
    e.land(0.6, SAND, SAND_LOW, 0.012)


def _meadow(e: BackdropCanvas) -> None:
    e.hills(0.47, (142, 204, 112), 0.03)
    e.land(0.56, GRASS, GRASS_LOW, 0.015)


def _country(e: BackdropCanvas) -> None:
    e.hills(0.5, (150, 190, 130), 0.04)
    e.land(0.6, (134, 184, 102), (102, 156, 80), 0.02)


def _forest(e: BackdropCanvas) -> None:
    e.trees(0.6, 0.42, 8, (74, 138, 84))
    e.trees(0.63, 0.5, 6, (56, 116, 68))
    e.land(0.6, (100, 152, 78), (70, 118, 56), 0.01)


def _jungle(e: BackdropCanvas) -> None:
    e.land(0.1, (38, 104, 64), (30, 84, 52))
    e.trees(0.62, 0.55, 6, (44, 136, 70), (84, 66, 46))
    e.trees(0.64, 0.4, 9, (70, 164, 78), (84, 66, 46))
    e.land(0.62, (86, 140, 60), (56, 102, 44), 0.012)


def _pines(e: BackdropCanvas) -> None:
    e.peaks(0.56, 0.3, (128, 146, 168), (246, 250, 255), 3)
    e.trees(0.6, 0.2, 10, (48, 104, 78), pointed=True)
    e.land(0.58, (122, 176, 104), (86, 140, 76), 0.01)


def _mountains(e: BackdropCanvas) -> None:
    e.peaks(0.58, 0.44, (126, 140, 160), (248, 250, 255), 3)
    e.hills(0.56, (128, 172, 108), 0.02)
    e.land(0.62, (118, 172, 96), (84, 140, 70), 0.015)


def _desert(e: BackdropCanvas) -> None:
    e.hills(0.5, (232, 182, 116), 0.04)
    e.land(0.6, (226, 168, 98), (204, 140, 74), 0.03)


def _savanna(e: BackdropCanvas) -> None:
    e.hills(0.54, (206, 186, 112), 0.01)
    for x in (0.15, 0.8):
        shift = 0.06 * e.rng.random()
        e.box((110, 84, 58), x + shift - 0.008, 0.42, x + shift + 0.008, 0.58)
        e.disc((104, 140, 70), x + shift, 0.41, 0.13, 0.35)
    e.land(0.57, (222, 196, 112), (192, 158, 80), 0.008)


def _farm(e: BackdropCanvas) -> None:
    e.hills(0.5, (156, 202, 108), 0.02)
    e.box((190, 62, 54), 0.08, 0.36, 0.3, 0.54)
    e.polygon((120, 52, 48), (0.06, 0.37), (0.19, 0.25), (0.32, 0.37))
    e.box((240, 236, 226), 0.15, 0.44, 0.23, 0.54)
    e.land(0.54, (168, 196, 90), (130, 164, 66))
    for x in np.arange(0.36, 1.02, 0.08):
        e.box((236, 230, 216), x, 0.5, x + 0.02, 0.6)
    e.box((236, 230, 216), 0.36, 0.52, 1, 0.535)
    e.box((236, 230, 216), 0.36, 0.56, 1, 0.575)


def _garden(e: BackdropCanvas) -> None:
    e.land(0.46, (82, 140, 74), (70, 124, 62))
    e.land(0.58, GRASS, GRASS_LOW)
    for x in np.arange(0.03, 1, 0.07):
        colour = ((236, 92, 110), (250, 206, 80), (190, 120, 220), (250, 250, 250))[int(e.rng.integers(4))]
        e.disc(colour, float(x), 0.555 + 0.02 * e.rng.random(), 0.018)


def _flowers(e: BackdropCanvas) -> None:
    _meadow(e)
    for _ in range(46):
        colour = ((236, 92, 110), (250, 206, 80), (196, 130, 224), (250, 250, 250))[int(e.rng.integers(4))]
        y = 0.6 + 0.38 * e.rng.random()
        e.disc(colour, e.rng.random(), y, 0.006 + 0.014 * (y - 0.5))


def _park(e: BackdropCanvas) -> None:
    e.trees(0.56, 0.28, 6, (96, 168, 88))
    e.land(0.56, GRASS, GRASS_LOW)
    e.polygon((222, 206, 172), (0.44, 0.56), (0.5, 0.56), (0.86, 1.0), (0.36, 1.0))


def _village(e: BackdropCanvas) -> None:
    e.hills(0.5, (140, 196, 110), 0.03)
    e.houses(0.6, 0.22, 5, ((238, 222, 196), (226, 196, 160), (204, 220, 226)), (182, 88, 66))
    e.land(0.6, (142, 186, 98), (112, 160, 78))
    e.land(0.72, (206, 190, 158), (190, 172, 140))


def _street(e: BackdropCanvas) -> None:
    e.towers(0.62, 0.5, 6, (150, 158, 174))
    e.land(0.62, (196, 198, 202), (176, 178, 184))
    e.land(0.7, (104, 108, 116), (84, 88, 96))
    for x in (0.06, 0.4, 0.74):
        e.box((244, 240, 220), x, 0.845, x + 0.2, 0.865)


def _city(e: BackdropCanvas) -> None:
    e.towers(0.6, 0.3, 9, (164, 176, 196))
    e.towers(0.64, 0.42, 6, (126, 138, 160))
    e.land(0.64, (172, 176, 182), (150, 154, 162))


def _road(e: BackdropCanvas) -> None:
    e.hills(0.5, (148, 196, 116), 0.03)
    e.land(0.56, (130, 186, 96), (96, 154, 72))
    e.polygon((98, 102, 110), (0.47, 0.56), (0.53, 0.56), (0.98, 1.0), (0.02, 1.0))
    for top, low in ((0.6, 0.65), (0.71, 0.79), (0.87, 0.99)):
        e.polygon((246, 240, 214), (0.497, top), (0.503, top), (0.5 + 0.02 * low, low), (0.5 - 0.02 * low, low))


def _lake(e: BackdropCanvas) -> None:
    e.peaks(0.5, 0.26, (134, 156, 176), (246, 250, 255), 4)
    e.trees(0.53, 0.12, 14, (70, 126, 84), pointed=True)
    e.land(0.52, (112, 184, 214), (64, 140, 190))
    e.land(0.84, GRASS, GRASS_LOW, 0.012)


def _river(e: BackdropCanvas) -> None:
    e.hills(0.5, (142, 198, 112), 0.03)
    e.land(0.56, GRASS, (104, 172, 80))
    e.land(0.62, (98, 176, 214), (66, 146, 196), 0.01)
    e.land(0.86, (108, 176, 82), GRASS_LOW, 0.01)


def _sea(e: BackdropCanvas) -> None:
    e.land(0.5, SEA, SEA_LOW)
    for y in np.linspace(0.56, 0.95, 5):
        for k in range(3):
            x = (k + e.rng.random()) / 3
            e.box((150, 208, 234), x, float(y), x + 0.09, float(y) + 0.008, 0.004)


def _harbor(e: BackdropCanvas) -> None:
    e.houses(0.5, 0.2, 6, ((236, 120, 96), (244, 204, 110), (120, 176, 204), (240, 232, 214)), (140, 84, 70))
    e.land(0.5, (92, 160, 196), (56, 122, 170))
    e.land(0.82, (172, 134, 96), (146, 110, 76))
    for x in np.arange(0, 1, 0.125):
        e.box((126, 94, 64), float(x), 0.82, float(x) + 0.008, 1)


def _swamp(e: BackdropCanvas) -> None:
    e.trees(0.58, 0.4, 7, (92, 116, 74), (74, 66, 52))
    e.land(0.56, (110, 126, 76), (92, 108, 64))
    e.land(0.64, (92, 118, 88), (66, 92, 70), 0.01)
    e.land(0.86, (104, 116, 66), (82, 94, 52), 0.015)


def _arctic(e: BackdropCanvas) -> None:
    e.peaks(0.5, 0.18, (186, 214, 236), (255, 255, 255), 4)
    e.land(0.5, (120, 186, 220), (92, 160, 204))
    e.land(0.6, (238, 246, 252), (206, 226, 242), 0.01)


def _volcano(e: BackdropCanvas) -> None:
    e.polygon((96, 74, 74), (0.2, 0.6), (0.42, 0.2), (0.58, 0.2), (0.8, 0.6))
    e.polygon((255, 120, 48), (0.42, 0.2), (0.58, 0.2), (0.53, 0.34), (0.5, 0.3), (0.47, 0.42))
    e.land(0.58, (112, 92, 88), (84, 68, 66), 0.012)


def _canyon(e: BackdropCanvas) -> None:
    for x, w, top in ((0.0, 0.3, 0.24), (0.36, 0.2, 0.36), (0.66, 0.36, 0.2)):
        e.box((204, 112, 72), x, top, x + w, 0.62)
        e.box((224, 140, 92), x, top + 0.08, x + w, top + 0.12)
        e.box((180, 94, 62), x, top + 0.2, x + w, top + 0.24)
    e.land(0.6, (222, 148, 98), (196, 118, 74), 0.01)


def _graveyard(e: BackdropCanvas) -> None:
    e.hills(0.52, (110, 132, 100), 0.03)
    e.land(0.58, (116, 142, 98), (86, 110, 74))
    for x in (0.06, 0.26, 0.5, 0.7, 0.9):
        e.box((166, 170, 176), x - 0.04, 0.5, x + 0.04, 0.64, 0.03)


def _stadium(e: BackdropCanvas) -> None:
    e.box((150, 160, 180), 0, 0.28, 1, 0.56)
    for _ in range(150):
        colour = ((230, 90, 90), (90, 140, 230), (250, 220, 110), (245, 245, 245))[int(e.rng.integers(4))]
        e.disc(colour, e.rng.random(), 0.3 + 0.22 * e.rng.random(), 0.008)
    e.land(0.56, (96, 180, 84), (74, 156, 66))
    for y in (0.66, 0.86):
        e.box((120, 198, 104), 0, y, 1, y + 0.08)
    e.box((245, 248, 245), 0, 0.58, 1, 0.59)


def _playground(e: BackdropCanvas) -> None:
    e.trees(0.56, 0.2, 7, (110, 178, 96))
    e.land(0.56, GRASS, GRASS_LOW)
    e.land(0.66, (238, 208, 150), (226, 190, 126), 0.01)
    for x0 in (0.1,):
        e.polygon((226, 76, 70), (x0, 0.34), (x0 + 0.03, 0.34), (x0 + 0.03, 0.68), (x0, 0.68))
        e.polygon((250, 200, 70), (x0 + 0.03, 0.36), (x0 + 0.07, 0.36), (x0 + 0.26, 0.68), (x0 + 0.21, 0.68))


def _moon(e: BackdropCanvas) -> None:
    _stars(e)
    e.disc((86, 140, 214), 0.8, 0.16, 0.08, graded=False)
    e.land(0.58, (190, 192, 198), (148, 150, 158), 0.012)
    for x, y in ((0.16, 0.68), (0.62, 0.64), (0.86, 0.8), (0.4, 0.88)):
        e.disc((162, 164, 172), x, y, 0.06, 0.35)


def _mars(e: BackdropCanvas) -> None:
    e.ramp(0, 0.6, (214, 150, 112), (244, 200, 162))
    e.peaks(0.58, 0.2, (184, 98, 66), None, 4)
    e.land(0.56, (206, 110, 70), (170, 82, 52), 0.012)


def _stars(e: BackdropCanvas) -> None:
    e.ramp(0, 1, (14, 12, 38), (42, 24, 78))
    for _ in range(40):
        e.disc((240, 236, 255), e.rng.random(), e.rng.random(), 0.003 + 0.004 * e.rng.random(), graded=False)


def _space(e: BackdropCanvas) -> None:
    _stars(e)
    x = 0.12 if e.rng.random() < 0.5 else 0.88
    e.disc((204, 132, 96), x, 0.14, 0.08, graded=False)


def _heaven(e: BackdropCanvas) -> None:
    e.ramp(0, 1, (92, 168, 240), (198, 230, 253))
    for _ in range(5):
        e.cloud(e.rng.random(), 0.08 + 0.86 * e.rng.random(), 0.06 + 0.03 * e.rng.random(), (250, 252, 255))


def _underwater(e: BackdropCanvas) -> None:
    e.ramp(0, 1, (78, 194, 224), (18, 82, 148))
    e.land(0.88, (206, 192, 136), (172, 158, 108), 0.012)
    for x in (0.08, 0.9):
        for k in range(3):
            top = 0.62 + 0.06 * k
            e.polygon((44, 138, 92), (x + 0.03 * k, 0.9), (x + 0.03 * k + 0.012, top), (x + 0.03 * k + 0.024, 0.9))
    for _ in range(12):
        e.disc((176, 228, 244), e.rng.random(), 0.8 * e.rng.random(), 0.006 + 0.006 * e.rng.random(), graded=False)


def _cave(e: BackdropCanvas) -> None:
    e.ramp(0, 1, (74, 66, 76), (98, 86, 92))
    e.disc((142, 126, 124), 0.5, 0.5, 0.42, 0.8)
    e.land(0.66, (120, 104, 100), (92, 78, 78), 0.012)
    for x in np.arange(0.04, 1, 0.11):
        drop = 0.1 + 0.14 * e.rng.random()
        e.polygon((66, 58, 68), (float(x) - 0.04, 0), (float(x) + 0.04, 0), (float(x), drop))


def _room(e: BackdropCanvas, wall: Colour, floor: Colour, level: float = 0.62) -> None:
    shade = tuple(int(0.93 * c) for c in wall)
    e.ramp(0, level, shade, wall)
    e.land(level, floor, tuple(int(0.86 * c) for c in floor))
    e.box((250, 250, 248), 0, level - 0.018, 1, level)


def _window(e: BackdropCanvas, left: float, top: float, right: float, bottom: float) -> None:
    e.box((250, 250, 250), left, top, right, bottom)
    e.box((160, 210, 244), left + 0.012, top + 0.012, right - 0.012, bottom - 0.012)
    e.box((250, 250, 250), (left + right) / 2 - 0.006, top, (left + right) / 2 + 0.006, bottom)


def _frame(e: BackdropCanvas, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
    e.box((150, 112, 70), left, top, right, bottom)
    e.box(colour, left + 0.015, top + 0.015, right - 0.015, bottom - 0.015)


def _living_room(e: BackdropCanvas) -> None:
    _room(e, (240, 222, 194), (190, 142, 98))
    _window(e, 0.08, 0.12, 0.34, 0.44)
    _frame(e, 0.6, 0.14, 0.84, 0.34, (120, 170, 150))
    e.disc((206, 112, 104), 0.5, 0.84, 0.34, 0.3)


def _kitchen(e: BackdropCanvas) -> None:
    _room(e, (214, 234, 226), (206, 200, 190))
    for x in np.arange(0, 1, 0.1):
        e.box((196, 220, 212), float(x), 0, float(x) + 0.004, 0.6)
    e.box((120, 168, 172), 0, 0.08, 1, 0.24)
    for x in (0.02, 0.22, 0.42, 0.62, 0.82):
        e.box((146, 192, 194), x, 0.1, x + 0.17, 0.22)


def _bedroom(e: BackdropCanvas) -> None:
    _room(e, (206, 212, 238), (178, 150, 128))
    _window(e, 0.62, 0.1, 0.9, 0.44)
    e.box((150, 130, 196), 0.58, 0.08, 0.64, 0.56)
    e.box((150, 130, 196), 0.88, 0.08, 0.94, 0.56)


def _bathroom(e: BackdropCanvas) -> None:
    _room(e, (204, 232, 242), (226, 232, 236))
    for x in np.arange(0, 1.01, 0.0833):
        e.box((236, 248, 252), float(x), 0, float(x) + 0.006, 0.6)
    for y in np.arange(0, 0.6, 0.0833):
        e.box((236, 248, 252), 0, float(y), 1, float(y) + 0.006)


def _classroom(e: BackdropCanvas) -> None:
    _room(e, (236, 228, 204), (186, 156, 116))
    _frame(e, 0.16, 0.1, 0.84, 0.44, (52, 104, 78))
    e.draw.line(e.points((0.22, 0.2), (0.46, 0.2)), (230, 240, 232), 3)
    e.draw.line(e.points((0.22, 0.28), (0.58, 0.28)), (230, 240, 232), 3)


def _office(e: BackdropCanvas) -> None:
    _room(e, (222, 226, 232), (150, 158, 172))
    for x in (0.06, 0.38, 0.7):
        _window(e, x, 0.1, x + 0.24, 0.46)


def _library(e: BackdropCanvas) -> None:
    _room(e, (150, 112, 78), (158, 112, 76))
    spines = ((188, 70, 64), (66, 110, 170), (86, 140, 96), (222, 184, 90), (130, 86, 150))
    for y in (0.04, 0.23, 0.42):
        e.box((96, 66, 44), 0, y, 1, y + 0.165)
        for x in np.arange(0.01, 0.99, 0.033):
            top = y + 0.02 + 0.05 * e.rng.random()
            e.box(spines[int(e.rng.integers(5))], float(x), top, float(x) + 0.026, y + 0.16)


def _museum(e: BackdropCanvas) -> None:
    _room(e, (232, 232, 234), (196, 178, 156))
    for x, colour in ((0.07, (206, 120, 90)), (0.39, (96, 140, 190)), (0.71, (150, 170, 100))):
        _frame(e, x, 0.14, x + 0.22, 0.42, colour)


def _stage(e: BackdropCanvas) -> None:
    e.ramp(0, 0.66, (96, 26, 40), (150, 38, 54))
    for x in np.arange(0, 1, 0.125):
        e.box((118, 30, 46), float(x), 0, float(x) + 0.05, 0.66)
    e.land(0.66, (196, 150, 100), (160, 116, 74))
    e.disc((232, 200, 150), 0.5, 0.84, 0.3, 0.32)


def _restaurant(e: BackdropCanvas) -> None:
    _room(e, (232, 196, 166), (150, 98, 76))
    for x in (0.2, 0.5, 0.8):
        e.box((70, 58, 54), x - 0.003, 0, x + 0.003, 0.12)
        e.disc((255, 214, 130), x, 0.14, 0.045)
    _frame(e, 0.3, 0.26, 0.7, 0.48, (110, 140, 120))


def _supermarket(e: BackdropCanvas) -> None:
    _room(e, (232, 236, 240), (206, 210, 214))
    goods = ((226, 90, 80), (250, 200, 80), (90, 160, 220), (110, 180, 110), (240, 240, 240))
    for y in (0.1, 0.26, 0.42):
        for x in np.arange(0.02, 0.98, 0.06):
            e.box(goods[int(e.rng.integers(5))], float(x), y + 0.02, float(x) + 0.045, y + 0.13)
        e.box((160, 166, 176), 0, y + 0.13, 1, y + 0.15)


def _garage(e: BackdropCanvas) -> None:
    _room(e, (198, 202, 206), (150, 152, 156))
    e.box((226, 230, 234), 0.14, 0.12, 0.86, 0.6)
    for y in np.arange(0.2, 0.6, 0.1):
        e.box((196, 200, 206), 0.14, float(y), 0.86, float(y) + 0.01)


PLACES: dict[str, tuple[Place, Callable[[BackdropCanvas], None]]] = {
    place.name: (place, painter)
    for place, painter in (
        (Place(COUNTRY, "land", 0.6), _country),
        (Place("beach", "land", 0.6, (0.44, 0.6)), _beach),
        (Place("meadow", "land", 0.56), _meadow),
        (Place("forest", "land", 0.6), _forest),
        (Place("jungle", "land", 0.62), _jungle),
        (Place("pine forest", "land", 0.58), _pines),
        (Place("mountains", "land", 0.62), _mountains),
        (Place("desert", "land", 0.6), _desert),
        (Place("savanna", "land", 0.57), _savanna),
        (Place("farm", "land", 0.6), _farm),
        (Place("garden", "land", 0.58), _garden),
        (Place("field of flowers", "land", 0.56), _flowers),
        (Place("park", "land", 0.56), _park),
        (Place("village", "land", 0.62), _village),
        (Place("street", "land", 0.64), _street),
        (Place("city", "land", 0.64), _city),
        (Place("road", "land", 0.58), _road),
        (Place("lake", "water", 0.84, (0.52, 0.84)), _lake),
        (Place("river", "water", 0.86, (0.62, 0.86)), _river),
        (Place("sea", "water", 0.5, (0.5, 1.0)), _sea),
        (Place("harbor", "water", 0.82, (0.5, 0.82)), _harbor),
        (Place("swamp", "water", 0.86, (0.64, 0.86)), _swamp),
        (Place("arctic", "land", 0.6, (0.5, 0.6)), _arctic),
        (Place("volcano", "land", 0.6), _volcano),
        (Place("canyon", "land", 0.62), _canyon),
        (Place("graveyard", "land", 0.6), _graveyard),
        (Place("stadium", "land", 0.58), _stadium),
        (Place("playground", "land", 0.62), _playground),
        (Place("moon", "indoors", 0.6), _moon),
        (Place("mars", "indoors", 0.58), _mars),
        (Place("space", "free", 1.0), _space),
        (Place("sky", "free", 1.0), _heaven),
        (Place("underwater", "free", 1.0), _underwater),
        (Place("cave", "indoors", 0.68), _cave),
        (Place("living room", "indoors", 0.64), _living_room),
        (Place("kitchen", "indoors", 0.64), _kitchen),
        (Place("bedroom", "indoors", 0.64), _bedroom),
        (Place("bathroom", "indoors", 0.64), _bathroom),
        (Place("classroom", "indoors", 0.64), _classroom),
        (Place("office", "indoors", 0.64), _office),
        (Place("library", "indoors", 0.64), _library),
        (Place("museum", "indoors", 0.64), _museum),
        (Place("stage", "indoors", 0.68), _stage),
        (Place("restaurant", "indoors", 0.64), _restaurant),
        (Place("supermarket", "indoors", 0.64), _supermarket),
        (Place("garage", "indoors", 0.64), _garage),
    )
}
PLACE_NAMES = tuple(PLACES)
BACKDROPS = (PLAIN, *COLOURS, *PLACE_NAMES)  # all backdrops: walls and places


def place_of(backdrop: str) -> Place | None:
    """The place of a backdrop; None for a wall."""
    return PLACES[backdrop][0] if backdrop in PLACES else None


def has_weather(backdrop: str) -> bool:
    """Whether time and weather apply to a backdrop: only outdoors on Earth."""
    place = place_of(backdrop)
    return place is not None and place.kind in ("land", "water")


@lru_cache(maxsize=768)
def paint_backdrop(backdrop: str, time: str, weather: str, width: int, height: int, variant: int) -> np.ndarray:
    """(height, width, 3) uint8, read-only. ValueError for a backdrop that does not exist."""
    if backdrop not in BACKDROPS:
        raise ValueError(f"no backdrop is called {backdrop!r}")
    rng = np.random.default_rng([variant, width, height])
    canvas = BackdropCanvas(width, height, time, weather, rng)
    if backdrop == PLAIN:
        canvas.ramp(0, 1, (247, 247, 249), (228, 229, 234))
    elif backdrop in COLOURS:
        base = COLOURS[backdrop]
        canvas.ramp(0, 1, tuple(int(c * 0.985 + 4) for c in base), tuple(int(c * 0.93) for c in base))
    else:
        place, paint_place = PLACES[backdrop]
        if has_weather(backdrop):
            paint_sky(canvas, place.water[0] if place.water else place.horizon - 0.06)
        paint_place(canvas)
        if has_weather(backdrop):
            if weather == "snow" and place.kind == "land":
                paint_white_ground(canvas, place.horizon)
            paint_falling(canvas)
    picture = np.array(canvas.image.resize((width, height), Image.Resampling.BOX))
    picture.setflags(write=False)
    return picture
