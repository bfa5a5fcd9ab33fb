"""A canvas for backdrops: shapes, hills, trees, houses and skies, with colors that depend on time of day and
weather."""

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
SMOOTH = 2  # backdrops are painted at so many times the size of the picture
SKIES: dict[str, tuple[Colour, Colour]] = {
    "day": ((112, 182, 242), (214, 236, 252)),
    "night": ((20, 26, 66), (62, 74, 132)),
    "sunset": ((96, 68, 140), (254, 172, 96)),
    "sunrise": ((140, 178, 232), (255, 216, 186)),
}
GRADES: dict[str, Colour] = {
    "day": (255, 255, 255),
    "night": (98, 112, 168),
    "sunset": (236, 176, 158),
    "sunrise": (252, 226, 206),
}
GREY_SKIES: dict[str, Colour] = {
    "day": (196, 204, 214),
    "night": (52, 58, 88),
    "sunset": (196, 150, 150),
    "sunrise": (222, 206, 204),
}


class BackdropCanvas:
    """An unfinished picture. Coordinates are shares of its sides in [0, 1]; colors are graded by time and weather."""

    def __init__(self, width: int, height: int, time: str, weather: str, rng: np.random.Generator):
        self.width, self.height = width * SMOOTH, height * SMOOTH
        self.time, self.weather, self.rng = time, weather, rng
        self.image = Image.new("RGB", (self.width, self.height))
        self.draw = ImageDraw.Draw(self.image)

    def graded(self, colour: Colour) -> Colour:
        """The colour at this time of day and in this weather."""
        shade = np.array(colour, float) * np.array(GRADES[self.time]) / 255
        if self.weather in ("rain", "storm", "clouds"):
            shade = shade * 0.82 + 0.06 * shade.mean()
        if self.weather == "fog":
            shade = 0.72 * shade + 0.28 * np.array(GREY_SKIES[self.time])
        return tuple(int(c) for c in shade)

    def ramp(self, top: float, bottom: float, upper: Colour, lower: Colour) -> None:
        """A vertical gradient over the whole width, in colours that are not graded."""
        first, last = round(top * self.height), round(bottom * self.height)
        share = np.linspace(0, 1, max(last - first, 1))[:, None, None]
        rows = np.array(upper) * (1 - share) + np.array(lower) * share
        block = np.broadcast_to(rows, (len(rows), self.width, 3)).astype(np.uint8)
        self.image.paste(Image.fromarray(np.ascontiguousarray(block)), (0, first))

    def points(self, *shares: tuple[float, float]) -> list[tuple[float, float]]:
        return [(x * self.width, y * self.height) for x, y in shares]

    def polygon(self, colour: Colour, *shares: tuple[float, float]) -> None:
        self.draw.polygon(self.points(*shares), self.graded(colour))

    def box(self, colour: Colour, left: float, top: float, right: float, bottom: float, round_: float = 0) -> None:
        corners = [left * self.width, top * self.height, right * self.width, bottom * self.height]
        self.draw.rounded_rectangle(corners, round_ * self.height, self.graded(colour))

    def disc(self, colour: Colour, x: float, y: float, radius: float, flat: float = 1.0, graded: bool = True) -> None:
        """An ellipse. `radius`: half its width, as a share of the picture's height; `flat`: its height over its
        width."""
        cx, cy, r = x * self.width, y * self.height, radius * self.height
        shown = self.graded(colour) if graded else colour
        self.draw.ellipse([cx - r, cy - r * flat, cx + r, cy + r * flat], shown)

    def land(self, level: float, upper: Colour, lower: Colour, swing: float = 0.0, waves: float = 1.0) -> None:
        """Ground below `level`, shaded from upper to lower. Its edge is a sine wave of amplitude `swing`."""
        x = np.arange(self.width) / self.height
        edge = (level + swing * np.sin(2 * np.pi * (x * waves + self.rng.random()))) * self.height
        y = np.arange(self.height)[:, None]
        share = np.clip((y - edge) / (0.5 * self.height), 0, 1)[..., None]
        shades = np.array(self.graded(upper)) * (1 - share) + np.array(self.graded(lower)) * share
        below = (y >= edge)[..., None]
        self.image.paste(Image.fromarray(np.where(below, shades, np.array(self.image)).astype(np.uint8)), (0, 0))

    def hills(self, level: float, colour: Colour, swing: float = 0.05, waves: float = 1.3) -> None:
        self.land(level, colour, colour, swing, waves)

    def peaks(self, base: float, height: float, colour: Colour, cap: Colour | None = None, count: int = 4) -> None:
        """Mountains that stand on `base`."""
        for i in range(count):
            x = (i + 0.5 + 0.5 * (self.rng.random() - 0.5)) / count
            top, half = base - height * (0.65 + 0.35 * self.rng.random()), 0.75 / count
            self.polygon(colour, (x - half, base), (x, top), (x + half, base))
            darker = tuple(int(0.86 * c) for c in colour)
            self.polygon(darker, (x, top), (x + half, base), (x + 0.1 * half, base))
            if cap:
                share = 0.3
                drop = share * (base - top)
                self.polygon(cap, (x - share * half, top + drop), (x, top), (x + share * half, top + drop),
                             (x + 0.12 * half, top + 0.75 * drop), (x - 0.1 * half, top + 1.1 * drop))  # fmt: skip

    def trees(self, base: float, size: float, count: int, crown: Colour, trunk: Colour = (104, 78, 56),
              pointed: bool = False) -> None:  # fmt: skip
        for i in range(count):
            x, s = (i + 0.5 + 0.5 * (self.rng.random() - 0.5)) / count, size * (0.8 + 0.4 * self.rng.random())
            w = s * self.height / self.width
            self.box(trunk, x - 0.06 * w, base - 0.5 * s, x + 0.06 * w, base)
            if pointed:
                for k in (0.25, 0.5, 0.75):
                    self.polygon(crown, (x - 0.36 * w * (1.2 - k), base - k * s), (x, base - (k + 0.36) * s),
                                 (x + 0.36 * w * (1.2 - k), base - k * s))  # fmt: skip
            else:
                self.disc(crown, x, base - 0.68 * s, 0.34 * s)

    def houses(self, base: float, size: float, count: int, walls: tuple[Colour, ...], roof: Colour) -> None:
        for i in range(count):
            x, s = (i + 0.5 + 0.3 * (self.rng.random() - 0.5)) / count, size * (0.85 + 0.3 * self.rng.random())
            w = s * self.height / self.width
            wall = walls[int(self.rng.integers(len(walls)))]
            self.box(wall, x - 0.5 * w, base - 0.6 * s, x + 0.5 * w, base)
            self.polygon(roof, (x - 0.6 * w, base - 0.6 * s), (x, base - s), (x + 0.6 * w, base - 0.6 * s))
            light = (255, 226, 130) if self.time == "night" else (120, 150, 180)
            self.disc(light, x, base - 0.34 * s, 0.09 * s, graded=self.time != "night")

    def towers(self, base: float, height: float, count: int, colour: Colour) -> None:
        """A row of towers with windows."""
        for i in range(count):
            left, right = (i + 0.06) / count, (i + 0.94) / count
            top = base - height * (0.45 + 0.55 * self.rng.random())
            shade = tuple(int(c * (0.85 + 0.3 * self.rng.random())) for c in colour)
            self.box(tuple(min(255, c) for c in shade), left, top, right, base)
            light = (255, 226, 130) if self.time == "night" else (216, 230, 240)
            step = 0.045
            for row in np.arange(top + 0.03, base - 0.04, step):
                for k in range(3):
                    x = left + (right - left) * (0.2 + 0.25 * k)
                    corners = [x * self.width, row * self.height, (x + 0.1 / count) * self.width,
                               (row + 0.018) * self.height]  # fmt: skip
                    self.draw.rectangle(corners, light if self.time == "night" else self.graded(light))

    def cloud(self, x: float, y: float, size: float, colour: Colour) -> None:
        for dx, dy, r in ((-0.9, 0.12, 0.55), (0, -0.1, 0.85), (0.9, 0.1, 0.6)):
            self.disc(colour, x + dx * size * self.height / self.width, y + dy * size, r * size, 0.75, graded=False)


def paint_sky(canvas: BackdropCanvas, bottom: float) -> None:
    """Paint the sky down to `bottom`, with sun, stars or clouds by time and weather."""
    time, weather, rng = canvas.time, canvas.weather, canvas.rng
    upper, lower = SKIES[time]
    grey = GREY_SKIES[time]
    if weather in ("rain", "storm", "clouds", "fog", "snow"):
        share = {"clouds": 0.55, "snow": 0.75, "fog": 0.85}.get(weather, 0.9)
        dark = 0.62 if weather == "storm" else 1.0
        upper, lower = (tuple(int(dark * ((1 - share) * a + share * b)) for a, b in zip(c, grey, strict=True))
                        for c in (upper, lower))  # fmt: skip
    canvas.ramp(0, min(1.0, bottom + 0.14), upper, lower)
    if weather in ("clear", "snow") and time == "night":
        for _ in range(16):
            canvas.disc((252, 248, 220), rng.random(), rng.random() * bottom * 0.85, 0.006, graded=False)
    if weather == "clear" and time == "day":
        for k in range(2):
            canvas.cloud(
                0.1 + 0.5 * k + 0.3 * rng.random(), bottom * (0.2 + 0.35 * rng.random()), 0.05, (250, 252, 255)
            )
    if weather == "clear" and time in ("sunset", "sunrise"):
        x = 0.25 + 0.5 * rng.random()
        glow, sun = ((255, 196, 120), (255, 228, 140)) if time == "sunset" else ((255, 226, 190), (255, 246, 214))
        canvas.disc(glow, x, bottom, 0.15, graded=False)
        canvas.disc(sun, x, bottom, 0.1, graded=False)
    if weather in ("rain", "storm", "clouds"):
        shade = 0.8 if weather != "clouds" else 1.12
        colour = tuple(min(255, int(c * shade * (0.62 if weather == "storm" else 1))) for c in grey)
        for k in range(4):
            canvas.cloud((k + 0.5) / 4 + 0.1 * (rng.random() - 0.5), 0.09 + 0.06 * rng.random(), 0.1, colour)
    if weather == "storm":
        x = 0.2 + 0.6 * rng.random()
        canvas.draw.line(canvas.points((x, 0.14), (x - 0.03, 0.26), (x + 0.02, 0.27), (x - 0.03, bottom)),
                        (255, 246, 190), max(2, canvas.height // 90))  # fmt: skip


def paint_white_ground(canvas: BackdropCanvas, level: float) -> None:
    """Paint snow over the ground."""
    canvas.land(level, (242, 247, 252), (218, 230, 243), 0.012)


def paint_falling(canvas: BackdropCanvas) -> None:
    """Paint rain, snow or fog over everything."""
    rng, weather = canvas.rng, canvas.weather
    if weather in ("rain", "storm"):
        colour = tuple(min(255, c + 60) for c in GREY_SKIES[canvas.time])
        for _ in range(60):
            x, y = rng.random(), rng.random()
            canvas.draw.line(canvas.points((x, y), (x - 0.012, y + 0.05)), colour, max(1, canvas.height // 220))
    elif weather == "snow":
        for _ in range(46):
            canvas.disc((255, 255, 255), rng.random(), rng.random(), 0.005 + 0.005 * rng.random(), graded=False)
    elif weather == "fog":
        mist = Image.new("RGB", canvas.image.size, tuple(min(255, c + 16) for c in GREY_SKIES[canvas.time]))
        alpha = np.zeros((canvas.height, canvas.width), np.uint8)
        alpha[:] = np.interp(np.arange(canvas.height) / canvas.height, [0, 0.5, 1], [60, 170, 60])[:, None]
        canvas.image.paste(mist, (0, 0), Image.fromarray(alpha))
