"""Where the drawings of a thing come from: the column `drawings` of objects.tsv, words that commas separate.

1f408         an emoji by its code points: Fluent in style "3d", the font's glyph in style "flat"
1f408:noto    the same emoji as Noto draws it, in both styles
1f9cd+        the emoji in each of the five skin tones, as one drawing each
svg:bench     a drawing of this project in both styles, train/world/svg/bench.svg
"""

from dataclasses import dataclass
from typing import Literal

from train.world.thing_table import in_skin_tones


@dataclass(frozen=True)
class DrawingSource:
    """One drawing of a thing: an emoji or an SVG file; the other field is ""."""

    glyph: str = ""
    svg: str = ""
    hand: Literal["fluent", "noto"] = "fluent"  # the set of the emoji in style "3d", where a folder of sprites has both
    toned: bool = False  # whether it shows one of the skin tones


def drawing_sources(cell: str) -> tuple[DrawingSource, ...]:
    """The drawings that a cell of the column names. ValueError for an empty cell and an unknown set of emoji."""
    sources = []
    for word in (word.strip() for word in cell.split(",")):
        if word.startswith("svg:"):
            sources.append(DrawingSource(svg=word.removeprefix("svg:")))
            continue
        points, _, hand = word.partition(":")
        if not points or hand not in ("", "noto"):
            raise ValueError(f"{word!r} names no drawing: give code points, code points:noto, or svg:NAME")
        forms = in_skin_tones(points[:-1].split()) if points.endswith("+") else [points.split()]
        for form in forms:
            glyph = "".join(chr(int(point, 16)) for point in form)
            sources.append(DrawingSource(glyph, hand=hand or "fluent", toned=len(forms) > 1))
    return tuple(sources)
