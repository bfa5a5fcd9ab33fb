"""X/Y sheets: axes are checked, cells come line by line, and the picture has the right size."""

import pytest
from PIL import Image

from app.core.setting_sheet import GAP, SettingAxis, combinations, compose


def test_values_are_read_by_the_type_of_their_setting():
    assert SettingAxis.read({"name": "steps", "values": ["4", " 8", 8]}).values == (4, 8)
    assert SettingAxis.read({"name": "guidance_scale", "values": ["1", "2.5"]}).values == (1.0, 2.5)
    assert SettingAxis.read({"name": "order", "values": ["halton"]}).values == ("halton",)
    assert SettingAxis.read({"name": "seed", "values": ["7"]}).values == (7,)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"name": "steps", "values": []}, "at least one value"),
        ({"name": "step", "values": ["4"]}, "did you mean 'steps'"),
        ({"name": "steps", "values": ["many"]}, "whole number"),
        ({"name": "steps", "values": ["0"]}, "from 1 to 256"),
        ({"name": "seed", "values": ["-1"]}, "whole number from 0"),
        ("steps", "needs a setting"),
    ],
)
def test_an_impossible_axis_is_refused(given: object, reason: str):
    with pytest.raises(ValueError, match=reason):
        SettingAxis.read(given)


def test_cells_come_line_by_line_and_are_limited():
    x, y = SettingAxis("steps", (4, 8)), SettingAxis("temperature", (0.5, 1.0))
    assert list(combinations(x, y)) == [
        {"steps": 4, "temperature": 0.5},
        {"steps": 8, "temperature": 0.5},
        {"steps": 4, "temperature": 1.0},
        {"steps": 8, "temperature": 1.0},
    ]
    with pytest.raises(ValueError, match="choose two settings"):
        combinations(x, x)
    with pytest.raises(ValueError, match="at most 16"):
        combinations(SettingAxis("steps", tuple(range(1, 18))), y)


def test_the_sheet_holds_all_pictures_at_their_places():
    x, y = SettingAxis("steps", (4, 8)), SettingAxis("temperature", (0.5,))
    sheet = compose([Image.new("RGB", (40, 30), color) for color in ("red", "blue")], x, y, "a cat")
    pixels = [sheet.getpixel((sheet.width - GAP - 20 - i * (40 + GAP), sheet.height - GAP - 15)) for i in (1, 0)]
    assert pixels == [(255, 0, 0), (0, 0, 255)]
