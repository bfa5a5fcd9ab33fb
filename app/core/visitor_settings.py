"""What a visitor's page remembers: the settings as they stand, and the presets and styles that were saved. Each visitor
has one JSON file.

gallery/settings/<owner>.json    {"current": {...}, "presets": {name: {...}}, "styles": {name: words}}
"""

import json
from pathlib import Path
from typing import Any

from app.core.gallery_store import OWNER
from maskgil.fileio import atomic_write

MAX_BYTES = 2**18
MAX_SAVED = 50  # presets, and as many styles
MAX_NAME = 40  # characters of the name of a preset or a style
MAX_STYLE = 200  # characters of a style's words


class VisitorSettings:
    """The remembered settings of one visitor. A file that cannot be read counts as empty."""

    def __init__(self, gallery: Path, owner: str):
        if not OWNER.fullmatch(owner):
            raise ValueError(f"{owner!r} is no gallery id: 8 to 64 letters, digits, - and _ are")
        self.path = gallery / "settings" / f"{owner}.json"

    def current(self) -> dict[str, Any]:
        """The settings when the page was last used."""
        return self._read().get("current", {})

    def presets(self) -> dict[str, dict[str, Any]]:
        """The saved presets by name."""
        return self._read().get("presets", {})

    def remember(self, values: dict[str, Any]) -> None:
        """Write the settings as they stand."""
        self._write(self._read() | {"current": values})

    def styles(self) -> dict[str, str]:
        """The saved styles: name -> the words that end a prompt."""
        return {name: words for name, words in self._read().get("styles", {}).items() if isinstance(words, str)}

    def save_preset(self, name: str, values: dict[str, Any]) -> None:
        """Save a preset, or replace the one of this name. Raises ValueError for a long name and too many presets."""
        self._save("preset", name, values)

    def save_style(self, name: str, words: str) -> str:
        """Save a style, or replace the one of this name. Returns its name; without one its words name it. Raises
        ValueError for too few or many words, a long name and too many styles."""
        words = " ".join(words.split())
        if not 0 < len(words) <= MAX_STYLE:
            raise ValueError(f"the words of a style have 1 to {MAX_STYLE} characters, such as “on pink”")
        return self._save("style", name if name.strip() else words[:MAX_NAME], words)

    def delete_preset(self, name: str) -> None:
        """Delete a preset; one that is gone already is no error."""
        self._delete("preset", name)

    def delete_style(self, name: str) -> None:
        """Delete a style; one that is gone already is no error."""
        self._delete("style", name)

    def _save(self, kind: str, name: str, value: Any) -> str:
        name = " ".join(name.split())
        if not 0 < len(name) <= MAX_NAME:
            raise ValueError(f"the name of a {kind} has 1 to {MAX_NAME} characters")
        remembered = self._read()
        saved = remembered.get(f"{kind}s", {})
        if len({*saved, name}) > MAX_SAVED:
            raise ValueError(f"{MAX_SAVED} {kind}s are saved already: delete one first")
        self._write(remembered | {f"{kind}s": saved | {name: value}})
        return name

    def _delete(self, kind: str, name: str) -> None:
        remembered = self._read()
        saved = remembered.get(f"{kind}s", {})
        self._write(remembered | {f"{kind}s": {each: value for each, value in saved.items() if each != name}})

    def _read(self) -> dict[str, Any]:
        try:
            values = json.loads(self.path.read_text(encoding="utf-8")) if self.path.stat().st_size <= MAX_BYTES else {}
        except (OSError, ValueError):
            return {}
        tables = values if isinstance(values, dict) else {}
        return {name: table for name, table in tables.items() if isinstance(table, dict)}

    def _write(self, values: dict[str, Any]) -> None:
        try:
            with atomic_write(self.path, shared=True) as partial:
                partial.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
        except OSError as error:
            raise ValueError(f"the settings cannot be saved ({error}): see to the gallery's disk") from error
