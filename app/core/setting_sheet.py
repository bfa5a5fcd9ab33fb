"""An X/Y sheet: one prompt and seed drawn with all combinations of values of two settings, on one picture with axes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from maskgil.option_checks import validate_option
from maskgil.params import option_types, options, unknown_option

MAX_CELLS = 16
GAP = 8  # pixels between pictures
TEXT = 16  # pixels of a label's letters
INK, PAPER = "#2a2622", "#fbf9f4"


@dataclass(frozen=True)
class SettingAxis:
    """One setting and the values that it takes along an axis."""

    name: str
    values: tuple[Any, ...]

    @staticmethod
    def read(given: Any) -> "SettingAxis":
        """An axis of {"name", "values"}, whose values may be texts. Raises ValueError for an impossible one."""
        if not isinstance(given, dict) or not isinstance(given.get("values"), list) or not given["values"]:
            raise ValueError("an axis needs a setting and at least one value")
        name = str(given.get("name", ""))
        if name not in (*options(), "seed"):
            raise ValueError(unknown_option(name, (*options(), "seed")))
        return SettingAxis(name, tuple(dict.fromkeys(_parse(name, value) for value in given["values"])))

    def labels(self) -> list[str]:
        return [f"{self.name.replace('_', ' ')} {value}" for value in self.values]


def combinations(x: SettingAxis, y: SettingAxis) -> Iterator[dict[str, Any]]:
    """The settings of each cell, line by line. Raises ValueError for too many cells, and for two equal axes."""
    if x.name == y.name:
        raise ValueError(f"both axes are {x.name}: choose two settings")
    if len(x.values) * len(y.values) > MAX_CELLS:
        raise ValueError(f"{len(x.values)} by {len(y.values)} pictures: a sheet has at most {MAX_CELLS}")
    return ({x.name: across, y.name: down} for down in y.values for across in x.values)


def compose(images: list[Image.Image], x: SettingAxis, y: SettingAxis, title: str) -> Image.Image:
    """The pictures, line by line, under the labels of x and beside those of y."""
    font = ImageFont.load_default(TEXT)
    width, height = images[0].size
    left = max(int(font.getlength(label)) for label in y.labels()) + 2 * GAP
    top = 3 * TEXT + 2 * GAP
    sheet = Image.new("RGB", (left + len(x.values) * (width + GAP), top + len(y.values) * (height + GAP)), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, GAP // 2), title, INK, font)
    for column, label in enumerate(x.labels()):
        pen.text((left + column * (width + GAP) + width // 2, top - GAP), label, INK, font, anchor="ms")
    for row, label in enumerate(y.labels()):
        pen.text((left - GAP, top + row * (height + GAP) + height // 2), label, INK, font, anchor="rm")
    for i, image in enumerate(images):
        row, column = divmod(i, len(x.values))
        sheet.paste(image.convert("RGB"), (left + column * (width + GAP), top + row * (height + GAP)))
    return sheet


def _parse(name: str, value: Any) -> Any:
    """A value that was typed, checked against the setting's type and bounds."""
    if isinstance(value, str):
        text = value.strip()
        for kind in (int, float):
            try:
                value = kind(text)
                break
            except ValueError:
                value = text
    if name == "seed":
        if not isinstance(value, int) or not 0 <= value < 2**31:
            raise ValueError(f"seed is {str(value)[:40]!r}: give a whole number from 0 to {2**31 - 1}")
        return value
    return validate_option(name, value, option_types()[name], options()[name])
