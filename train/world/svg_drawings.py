"""The drawings of this project: SVG files in `svg/`, rendered by resvg."""

import io
from pathlib import Path

from PIL import Image

SIDE = 256  # pixels of a drawing's longer side in the packed file
SVGS = Path(__file__).with_name("svg")


def draw_svg(source: str) -> Image.Image:
    """An SVG text as RGBA, twice SIDE wide. ValueError where resvg-py is not installed."""
    try:
        import resvg_py
    except ModuleNotFoundError:
        raise ValueError("SVG drawings need resvg-py: install the extra `train` (pip install '.[train]')") from None
    png = resvg_py.svg_to_bytes(svg_string=source, width=2 * SIDE)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def draw_own(name: str) -> Image.Image:
    """`svg/NAME.svg` as RGBA, twice SIDE wide. Raises ValueError where the file is missing, and as draw_svg."""
    path = SVGS / f"{name}.svg"
    if not path.is_file():
        raise ValueError(f"{path} is missing: restore it from the repository")
    return draw_svg(path.read_text(encoding="utf-8"))
