"""Settings and presets of a visitor: they come back, and a broken file is as good as none."""

from pathlib import Path

import pytest

from app.core.visitor_settings import MAX_SAVED, MAX_STYLE, VisitorSettings

ME = "me-1234567"


def test_settings_and_presets_come_back(tmp_path: Path):
    store = VisitorSettings(tmp_path, ME)
    assert store.current() == {} and store.presets() == {}
    store.remember({"steps": 4})
    store.save_preset("  my   style ", {"steps": 16})
    again = VisitorSettings(tmp_path, ME)
    assert again.current() == {"steps": 4} and again.presets() == {"my style": {"steps": 16}}
    again.delete_preset("my style")
    again.delete_preset("gone already")
    assert store.presets() == {} and store.current() == {"steps": 4}
    assert VisitorSettings(tmp_path, "you-1234567").current() == {}


def test_styles_are_words_with_a_name_of_their_own_or_by_themselves(tmp_path: Path):
    store = VisitorSettings(tmp_path, ME)
    store.save_preset("on pink", {"steps": 16})
    assert (
        store.save_style("", "  on   pink ") == "on pink" and store.save_style(" my night ", "at night") == "my night"
    )
    again = VisitorSettings(tmp_path, ME)
    assert again.styles() == {"on pink": "on pink", "my night": "at night"}
    again.delete_style("on pink")
    assert store.styles() == {"my night": "at night"} and store.presets() == {"on pink": {"steps": 16}}
    for words in (" ", "x" * (MAX_STYLE + 1)):
        with pytest.raises(ValueError, match="the words of a style have 1 to"):
            store.save_style("a name", words)
    store.path.write_text('{"styles": {"broken": 3}}')
    assert store.styles() == {}


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"current": 3, "presets": []}', "\u0000"])
def test_a_broken_file_counts_as_empty(tmp_path: Path, content: str):
    store = VisitorSettings(tmp_path, ME)
    store.path.parent.mkdir()
    store.path.write_text(content)
    assert store.current() == {} and store.presets() == {}
    store.remember({"steps": 4})
    assert store.current() == {"steps": 4}


def test_names_and_numbers_have_limits(tmp_path: Path):
    store = VisitorSettings(tmp_path, ME)
    for name in ("", "x" * 41):
        with pytest.raises(ValueError, match="1 to 40 characters"):
            store.save_preset(name, {})
    for number in range(MAX_SAVED):
        store.save_preset(f"preset {number}", {})
    store.save_preset("preset 0", {"steps": 2})
    with pytest.raises(ValueError, match="delete one first"):
        store.save_preset("one more", {})
    with pytest.raises(ValueError, match="gallery id"):
        VisitorSettings(tmp_path, "../x")
