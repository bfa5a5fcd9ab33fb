"""What a visitor's page remembers: the settings as they stand and the presets that were saved, one JSON file each.

gallery/settings/<owner>.json    {"current": {...}, "presets": {name: {...}}}
"""

import json
from pathlib import Path
from typing import Any

from app.core.gallery_store import OWNER
from maskgil.fileio import atomic_write

MAX_BYTES = 2**18
MAX_PRESETS = 50
MAX_NAME = 40  # characters of a preset's name


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

    def save_preset(self, name: str, values: dict[str, Any]) -> None:
        """Save a preset, or replace the one of this name. Raises ValueError for a long name and too many presets."""
        name = " ".join(name.split())
        if not 0 < len(name) <= MAX_NAME:
            raise ValueError(f"the name of a preset has 1 to {MAX_NAME} characters")
        presets = self.presets()
        if len({*presets, name}) > MAX_PRESETS:
            raise ValueError(f"{MAX_PRESETS} presets are saved already: delete one first")
        self._write(self._read() | {"presets": presets | {name: values}})

    def delete_preset(self, name: str) -> None:
        """Delete a preset; one that is gone already is no error."""
        self._write(self._read() | {"presets": {k: v for k, v in self.presets().items() if k != name}})

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
