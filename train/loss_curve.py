"""Draws a run's losses as a picture: loss.png in its folder."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from maskgil.fileio import atomic_write

SIZE, MARGIN = (900, 480), (70, 40, 20, 50)  # pixels; left, top, right, bottom
POINTS = 400  # of a curve, at most; each is a mean of steps
COLORS = {"loss": (31, 119, 180), "valid": (214, 39, 40)}


def thinned(values: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """Means of neighbouring steps, at most POINTS of them, without values that are not finite."""
    finite = [(step, value) for step, value in values if math.isfinite(value)]
    width = max(1, math.ceil(len(finite) / POINTS))
    parts = [finite[start : start + width] for start in range(0, len(finite), width)]
    return [(sum(s for s, _ in part) / len(part), sum(v for _, v in part) / len(part)) for part in parts]


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers between the two."""
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= about)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step) + 1)]


def draw_loss_curve(log: Mapping[int, Mapping[str, float]], title: str, path: Path) -> None:
    """Write a PNG of `loss`, and of `valid` if given, over the steps; no file while no loss is finite."""
    curves = {name: thinned([(step, row[name]) for step, row in sorted(log.items()) if name in row]) for name in COLORS}
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return
    steps, values = [s for s, _ in points], [v for _, v in points]
    left, right = min(steps), max(max(steps), min(steps) + 1)
    low, high = min(values), max(values)
    pad = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
    low, high = low - pad, high + pad
    picture = Image.new("RGB", SIZE, "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default()
    x0, y0, x1, y1 = MARGIN[0], MARGIN[1], SIZE[0] - MARGIN[2], SIZE[1] - MARGIN[3]

    def place(step: float, value: float) -> tuple[float, float]:
        return x0 + (step - left) / (right - left) * (x1 - x0), y1 - (value - low) / (high - low) * (y1 - y0)

    for value in ticks(low, high):
        y = place(left, value)[1]
        draw.line([(x0, y), (x1, y)], fill=(225, 225, 225))
        draw.text((x0 - 8, y), f"{value:.4g}", fill="black", font=font, anchor="rm")
    for step in ticks(left, right):
        x = place(step, low)[0]
        draw.line([(x, y1), (x, y1 + 4)], fill="black")
        draw.text((x, y1 + 8), f"{step:,.0f}", fill="black", font=font, anchor="ma")
    draw.rectangle([x0, y0, x1, y1], outline="black")
    draw.text((x0, y0 - 10), title, fill="black", font=font, anchor="ls")
    draw.text(((x0 + x1) / 2, SIZE[1] - 12), "step", fill="black", font=font, anchor="ms")
    for number, (name, curve) in enumerate((name, curve) for name, curve in curves.items() if curve):
        line = [place(*point) for point in curve]
        if len(line) > 1:
            draw.line(line, fill=COLORS[name], width=2)
        else:
            draw.ellipse([(line[0][0] - 3, line[0][1] - 3), (line[0][0] + 3, line[0][1] + 3)], fill=COLORS[name])
        draw.text((x1 - 10, y0 + 12 + 16 * number), name, fill=COLORS[name], font=font, anchor="ra")
    with atomic_write(path) as partial:
        picture.save(partial, format="PNG")
