"""Where captioned pictures come from: webdataset shards, a folder with captions, ImageNet-style folders, Hugging Face.

    pictures.source("shards/{00000..00099}.tar")        # image + .txt or .json under one key
    pictures.source("holiday")                          # a.jpg beside a.txt
    pictures.source("imagenet/train")                   # one folder a class, its name is the label
    pictures.source("hf:owner/name")                    # columns image and text (or label)

A source is a list of units (a shard, or a thousand files), and a unit read twice gives the same pictures in the same
order. So work is shared among processes by units, and what was killed goes on at the unit that was not finished.
What cannot be read (no caption, a broken picture, the end of a cut shard) is passed to `report` and skipped.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from PIL import Image, UnidentifiedImageError

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
UNIT = 1000  # files that make a unit of a folder
CAPTION_KEYS = ("caption", "text", "prompt", "TEXT")

Report = Callable[[str], None]


@dataclass(frozen=True)
class Picture:
    """One example: an RGB image with what it shows in words, or the number of its class."""

    key: str
    image: Image.Image
    caption: str | None = None
    label: int | None = None


@runtime_checkable
class Source(Protocol):
    """`names` are the units; equal names mean equal pictures. `classes` are the names of the labels, if there are."""

    names: list[str]
    classes: list[str] | None

    def read(self, unit: int, report: Report) -> Iterator[Picture]: ...


def source(text: str) -> Source:
    """The source that a person names. Raises ValueError, in one line, for one that is empty or not there."""
    if text.startswith("hf:"):
        return HuggingFace.open(text[3:])
    if ".tar" in text:
        return Shards.open(text)
    folder = Path(text)
    if not folder.is_dir():
        raise ValueError(f"no pictures at {text}: give a folder, shards such as 'data/{{000..099}}.tar', or hf:NAME")
    if tars := sorted(folder.glob("*.tar")):
        return Shards([str(path) for path in tars])
    if any(path.suffix.lower() in IMAGES for path in folder.iterdir()):
        return Captioned.open(folder)
    return Classes.open(folder)


def opened(data: bytes) -> Image.Image:
    """RGB pixels of an encoded picture, transparent ones over white. ValueError when it is broken or cut."""
    try:
        image = Image.open(io.BytesIO(data))
        if image.mode in ("RGBA", "LA", "P"):
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        return image.convert("RGB")
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a whole picture ({error})") from None


def caption_of(name: str, data: bytes, key: str) -> str:
    """The caption in a .txt, or under `key` (else a usual name) in a .json. ValueError when there is none."""
    try:
        text = data.decode("utf-8")
        if name.endswith(".json"):
            entries = json.loads(text)
            text = next((entries[k] for k in (key, *CAPTION_KEYS) if isinstance(entries.get(k), str)), "")
    except (ValueError, AttributeError):
        raise ValueError(f"{name} cannot be read") from None
    if not text.strip():
        raise ValueError("no caption")
    return " ".join(text.split())


@dataclass(frozen=True)
class Shards:
    """Tar files as webdataset writes them: files of one example are neighbours and share the name up to the first dot.

    A caption is a .txt, or `key` in a .json.
    """

    names: list[str]
    key: str = "caption"
    classes: list[str] | None = None

    @staticmethod
    def open(pattern: str) -> "Shards":
        """All files of a pattern with {000..099}, * or neither. ValueError names what is missing."""
        paths = [path for part in braces(pattern) for path in _globbed(part)]
        if missing := [path for path in paths if not Path(path).is_file()]:
            raise ValueError(f"{len(missing)} of {len(paths)} shards are missing, first {missing[0]}")
        if not paths:
            raise ValueError(f"no shard is called {pattern}")
        return Shards(paths)

    def read(self, unit: int, report: Report) -> Iterator[Picture]:
        path, count = self.names[unit], 0
        try:
            # "r|": one pass over the file, as from a stream, so that a cut shard gives what it holds
            with tarfile.open(path, "r|*") as tar:
                for stem, files in _grouped(tar):
                    count += 1
                    try:
                        yield self._picture(stem, files)
                    except ValueError as error:
                        report(f"{path}: {stem}: {error}")
        except (tarfile.TarError, EOFError, OSError) as error:
            report(f"{path} is cut or broken after {count} pictures: the rest is skipped ({error})")

    def _picture(self, stem: str, files: dict[str, bytes]) -> Picture:
        images = [suffix for suffix in files if f".{suffix.rpartition('.')[2].lower()}" in IMAGES]
        if not images:
            raise ValueError("no picture")
        text = next((suffix for suffix in ("txt", "json") if suffix in files), None)
        if text is None:
            raise ValueError("no caption")
        caption = caption_of(f"{stem}.{text}", files[text], self.key)
        return Picture(stem, opened(files[images[0]]), caption)


def _grouped(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(stem, {suffix: content}) of each example."""
    stem, files = None, {}
    for member in tar:
        if not member.isfile():
            continue
        folder, _, name = member.name.rpartition("/")
        first, _, suffix = name.partition(".")
        here = f"{folder}/{first}" if folder else first
        if here != stem and files:
            yield stem, files
            files = {}
        content = tar.extractfile(member).read()
        if len(content) < member.size:
            raise tarfile.ReadError(f"{member.name} has {len(content)} of {member.size} bytes")
        stem, files[suffix.lower()] = here, content
    if files:
        yield stem, files


def braces(pattern: str) -> list[str]:
    """a{08..10}.tar -> a08.tar a09.tar a10.tar; several braces multiply."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not found:
        return [pattern]
    first, last = found.groups()
    return [
        whole
        for number in range(int(first), int(last) + 1)
        for whole in braces(pattern[: found.start()] + str(number).zfill(len(first)) + pattern[found.end() :])
    ]


def _globbed(pattern: str) -> list[str]:
    path = Path(pattern)
    return sorted(map(str, path.parent.glob(path.name))) if "*" in path.name else [pattern]


@dataclass(frozen=True)
class Files:
    """Units of UNIT files of a folder; a unit's name is a hash of its files' names."""

    units: list[list[Path]]
    names: list[str]

    @staticmethod
    def of(paths: list[Path], folder: Path) -> "Files":
        units = [paths[i : i + UNIT] for i in range(0, len(paths), UNIT)]
        listed = ["\n".join(str(path.relative_to(folder)) for path in unit) for unit in units]
        return Files(units, [hashlib.sha256(text.encode()).hexdigest()[:12] for text in listed])


@dataclass(frozen=True)
class Captioned:
    """A folder of pictures, each with a .txt (or .json) of its name beside it."""

    files: Files
    names: list[str]
    alone: list[Path]  # captions without a picture
    classes: list[str] | None = None

    @staticmethod
    def open(folder: Path) -> "Captioned":
        held = sorted(folder.rglob("*"))
        paths = [path for path in held if path.suffix.lower() in IMAGES]
        pictured = {path.with_suffix("") for path in paths}
        alone = [path for path in held if path.suffix == ".txt" and path.with_suffix("") not in pictured]
        files = Files.of(paths, folder)
        return Captioned(files, files.names, alone)

    def read(self, unit: int, report: Report) -> Iterator[Picture]:
        if unit == 0:  # they belong to no unit, and are said once
            for path in self.alone:
                report(f"{path}: no picture beside this caption")
        for path in self.files.units[unit]:
            text = next((p for p in (path.with_suffix(".txt"), path.with_suffix(".json")) if p.is_file()), None)
            try:
                if text is None:
                    raise ValueError(f"no caption: {path.with_suffix('.txt').name} is missing")
                yield Picture(path.stem, opened(path.read_bytes()), caption_of(text.name, text.read_bytes(), "caption"))
            except (ValueError, OSError) as error:
                report(f"{path}: {error}")


@dataclass(frozen=True)
class Classes:
    """ImageNet-style: folder/<class>/*.jpg. Classes are numbered in the order of their folders' names."""

    files: Files
    names: list[str]
    classes: list[str] = field(default_factory=list)

    @staticmethod
    def open(folder: Path) -> "Classes":
        kinds = sorted(path.name for path in folder.iterdir() if path.is_dir())
        paths = [p for kind in kinds for p in sorted((folder / kind).rglob("*")) if p.suffix.lower() in IMAGES]
        if not paths:
            raise ValueError(
                f"{folder} holds no pictures: it needs shards (*.tar), pictures with .txt captions, or a folder a class"
            )
        # Interleaved, so that the first units already hold every class.
        stride = max(1, len(paths) // UNIT)
        files = Files.of([p for start in range(stride) for p in paths[start::stride]], folder)
        return Classes(files, files.names, kinds)

    def read(self, unit: int, report: Report) -> Iterator[Picture]:
        numbers = {name: number for number, name in enumerate(self.classes)}
        for path in self.files.units[unit]:
            kind = next(parent.name for parent in path.parents if parent.name in numbers)
            try:
                yield Picture(f"{kind}/{path.stem}", opened(path.read_bytes()), label=numbers[kind])
            except (ValueError, OSError) as error:
                report(f"{path}: {error}")


@dataclass(frozen=True)
class HuggingFace:
    """A dataset of the hub by name (its train split), read in runs of UNIT rows."""

    rows: Any
    names: list[str]
    classes: list[str] | None = None

    @staticmethod
    def open(name: str) -> "HuggingFace":
        try:
            from datasets import load_dataset  # only here: nothing else needs it, and it is not pinned
        except ImportError:
            raise ValueError("hf: needs the package datasets (pip install datasets): or give a folder") from None
        try:
            rows = load_dataset(name, split="train")
        except Exception as error:  # the package raises many kinds of its own
            raise ValueError(f"no dataset {name!r}: {(str(error).strip() or repr(error)).splitlines()[0]}") from None
        return HuggingFace.over(rows, name)

    @staticmethod
    def over(rows: Any, name: str) -> "HuggingFace":
        """Over anything with `column_names`, `features`, a length and items {"image", "text" | "label"}."""
        text = any(key in rows.column_names for key in CAPTION_KEYS)
        if "image" not in rows.column_names or not (text or "label" in rows.column_names):
            raise ValueError(f"{name} has columns {', '.join(rows.column_names)}; image and text (or label) are needed")
        units = [f"{name}[{start}:{min(start + UNIT, len(rows))}]" for start in range(0, len(rows), UNIT)]
        return HuggingFace(rows, units, None if text else list(rows.features["label"].names))

    def read(self, unit: int, report: Report) -> Iterator[Picture]:
        for number in range(unit * UNIT, min((unit + 1) * UNIT, len(self.rows))):
            row = self.rows[number]
            text = next((row[key] for key in CAPTION_KEYS if isinstance(row.get(key), str)), "")
            if self.classes is not None:
                yield Picture(str(number), row["image"].convert("RGB"), label=row["label"])
            elif text.strip():
                yield Picture(str(number), row["image"].convert("RGB"), " ".join(text.split()))
            else:
                report(f"row {number}: no caption")
