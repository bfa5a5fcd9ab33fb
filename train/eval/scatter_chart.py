"""A chart of points with error bars as an SVG, a colour for each series."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22")
WIDTH, HEIGHT, LEFT, TOP, LEGEND = 620, 380, 60, 50, 330


@dataclass(frozen=True)
class Dot:
    """A point of a series: a value with its interval, and a few letters beside it."""

    series: str
    x: float
    y: float
    low: float
    high: float
    note: str = ""


def scatter_chart(dots: Sequence[Dot], title: str, x_name: str, y_name: str) -> str:
    """The SVG. The x axis starts at 0; the y axis shows the intervals of all points. ValueError for no points."""
    if not dots:
        raise ValueError("a chart needs at least one point")
    series = list(dict.fromkeys(dot.series for dot in dots))
    right, bottom = max(dot.x for dot in dots) * 1.06 or 1.0, min(dot.low for dot in dots)
    height = (max(dot.high for dot in dots) - bottom) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + WIDTH * x / right, TOP + HEIGHT * (1 - (y - bottom) / height)

    base, total = TOP + HEIGHT, LEFT + WIDTH + LEGEND
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{base + 60}" font-family="sans-serif" '
        'font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="15">{html.escape(title)}</text>',
        f'<path d="M{LEFT} {TOP}V{base}H{LEFT + WIDTH}" fill="none" stroke="#888"/>',
        f'<text x="{LEFT + WIDTH / 2:.0f}" y="{base + 44}" text-anchor="middle">{html.escape(x_name)}</text>',
        f'<text transform="translate(16 {TOP + HEIGHT / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y_name)}</text>",
    ]
    for i in range(6):
        x, y = right * i / 5, bottom + height * i / 5
        (px, _), (_, py) = place(x, bottom), place(0, y)
        parts.append(f'<text x="{px:.1f}" y="{base + 20}" text-anchor="middle" fill="#444">{x:.3g}</text>')
        parts.append(f'<text x="{LEFT - 8}" y="{py + 4:.1f}" text-anchor="end" fill="#444">{y:.3g}</text>')
        parts.append(f'<path d="M{LEFT} {py:.1f}H{LEFT + WIDTH}" stroke="#eee"/>')
    for number, name in enumerate(series):
        colour, own = COLOURS[number % len(COLOURS)], sorted((d for d in dots if d.series == name), key=lambda d: d.x)
        points = " ".join("{:.1f},{:.1f}".format(*place(dot.x, dot.y)) for dot in own)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-opacity="0.5"/>')
        for dot in own:
            (x, y), (_, low), (_, high) = place(dot.x, dot.y), place(dot.x, dot.low), place(dot.x, dot.high)
            parts.append(f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{colour}" stroke-opacity="0.35"/>')
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
            parts.append(f'<text x="{x + 6:.1f}" y="{y - 5:.1f}" fill="{colour}">{html.escape(dot.note)}</text>')
        at = TOP + 10 + 18 * number
        parts.append(f'<circle cx="{LEFT + WIDTH + 24}" cy="{at - 4}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + WIDTH + 34}" y="{at}">{html.escape(name)}</text>')
    return "\n".join([*parts, "</svg>\n"])
