"""The report of making a cache: counts, reasons, histograms, and a sheet of some pictures with their captions."""

import json
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from safetensors import safe_open

from maskgil.fileio import atomic_write
from train.data.cache_files import write_note

REPORT, SHEET = "report.json", "contact-sheet.png"
UNIT_NOTE, CONTENTS, DIGESTS = "unit", "contents", "digests"  # of a file's metadata
SHEET_PICTURES, SHEET_COLUMNS, THUMBNAIL = 24, 6, 160


@dataclass
class UnitReport:
    """Counts of the pictures of a unit, and a line for each one that was left out."""

    skipped: list[str] = field(default_factory=list)
    encoded: int = 0
    reused: int = 0
    cut_captions: int = 0
    duplicates: int = 0
    buckets: Counter = field(default_factory=Counter)

    @property
    def pictures(self) -> int:
        return self.encoded + self.reused

    def add(self, other: "UnitReport") -> None:
        """Add the counts of another report."""
        self.skipped += other.skipped
        self.encoded += other.encoded
        self.reused += other.reused
        self.cut_captions += other.cut_captions
        self.duplicates += other.duplicates
        self.buckets.update(other.buckets)


def reason(line: str) -> str:
    """Why a picture was left out, without its name and numbers, so that equal reasons can be counted."""
    plain = re.sub(r"\([^()]*\)", "", line)
    return re.sub(r"\d+(\.\d+)?", "N", plain.rpartition(": ")[2]).strip()[:80]


def histogram(values: Sequence[int], bins: int = 8) -> dict[str, int]:
    """{"low-high": count} of whole numbers, in bins of one width."""
    if not len(values):
        return {}
    low, high = int(min(values)), int(max(values))
    width = max(1, -(-(high - low + 1) // bins))
    counts = Counter((int(value) - low) // width for value in values)
    return {
        f"{low + i * width}-{low + (i + 1) * width - 1}" if width > 1 else str(low + i): counts[i]
        for i in range((high - low) // width + 1)
    }


def cache_summary(folder: Path, index: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The contents of a finished cache and the pictures that were left out, from its files."""
    reasons: Counter = Counter()
    sizes: Counter = Counter()
    lengths: list[int] = []
    captions = 0
    for name, entry in index.items():
        sizes.update(entry["rows"])
        with safe_open(folder / name, "pt") as file:
            told = json.loads((file.metadata() or {}).get(UNIT_NOTE, "{}"))
            told = told if isinstance(told, dict) else {"skipped": told}
            reasons.update(map(reason, told.get("skipped", [])))
            for bucket in entry["rows"]:
                if f"{bucket}/ends" in file.keys():  # noqa: SIM118
                    ends = file.get_tensor(f"{bucket}/ends").numpy()
                    lengths += np.diff(ends, prepend=0).tolist()
                    captions += len(ends)
    return {
        "pictures": sum(sizes.values()),
        "captions": captions,
        "left out": sum(reasons.values()),
        "left out by reason": dict(reasons.most_common()),
        "sizes": dict(sizes.most_common()),
        "caption tokens": histogram(lengths),
    }


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """The summary as lines to print."""
    lines = [f"the cache holds {summary['pictures']:,} pictures; left out {summary['left out']:,}"]
    lines += [f"  {count:8,}  {why}" for why, count in list(summary["left out by reason"].items())[:8]]
    if summary["caption tokens"]:
        parts = [f"{span}: {count:,}" for span, count in summary["caption tokens"].items()]
        lines.append(f"tokens of {summary['captions']:,} captions: {', '.join(parts)}")
    return lines


def write_summary(folder: Path, index: dict[str, dict[str, Any]]) -> list[str]:
    """Write report.json; returns its lines. ValueError on a full disk."""
    summary = cache_summary(folder, index)
    write_note(folder / REPORT, summary)
    return summary_lines(summary)


class ContactSheet:
    """A uniform sample of the pictures that a process encodes (reservoir sampling)."""

    def __init__(self, seed: int = 0):
        self.random, self.seen = np.random.default_rng(seed), 0
        self.kept: list[tuple[Image.Image, str]] = []

    def add(self, picture: Image.Image, words: str) -> None:
        self.seen += 1
        place = len(self.kept) if len(self.kept) < SHEET_PICTURES else int(self.random.integers(self.seen))
        if place >= SHEET_PICTURES:
            return
        small = picture.copy()
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        self.kept[place : place + 1] = [(small, words)]

    def draw(self, path: Path) -> None:
        """Write the sheet, if there is a picture."""
        if not self.kept:
            return
        font, text = ImageFont.load_default(), 36
        columns = min(SHEET_COLUMNS, len(self.kept))
        rows = -(-len(self.kept) // columns)
        sheet = Image.new("RGB", (columns * (THUMBNAIL + 8), rows * (THUMBNAIL + text + 8)), "white")
        draw = ImageDraw.Draw(sheet)
        for number, (picture, words) in enumerate(self.kept):
            x, y = number % columns * (THUMBNAIL + 8), number // columns * (THUMBNAIL + text + 8)
            sheet.paste(picture, (x + (THUMBNAIL - picture.width) // 2, y + (THUMBNAIL - picture.height) // 2))
            lines = textwrap.wrap(words.encode("latin-1", "replace").decode("latin-1"), 26)[:3]
            draw.multiline_text((x + 2, y + THUMBNAIL + 2), "\n".join(lines), fill="black", font=font, spacing=1)
        with atomic_write(path) as partial:
            sheet.save(partial, format="PNG")
