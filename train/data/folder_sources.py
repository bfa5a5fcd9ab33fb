"""Folders of pictures: with captions beside them, with a metadata file, or a folder for each class.

Hidden and system files and folders are left out: names that begin with a dot, __MACOSX, @eaDir and similar.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from train.data.caption_tables import METADATA, read_captions
from train.data.image_example import CAPTIONS, IMAGES, ImageExample, Report, captions_of, make_example, several

UNIT = 1000  # files of a unit, at most
SYSTEM = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "Thumbs.db", "desktop.ini"}


def is_visible(name: str) -> bool:
    """Whether a file or folder of this name is neither hidden nor a system file."""
    return not name.startswith(".") and name not in SYSTEM


def visible_files(folder: Path) -> list[Path]:
    """All files under a folder in the order of their names, without hidden and system files."""
    files = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if is_visible(name))
        files += [Path(place, name) for name in names if is_visible(name)]
    return sorted(files)


def _stamp(path: Path | None) -> str:
    """Size and time of a file, which change with its content."""
    try:
        status = path.stat() if path else None
    except OSError:  # a dead link: reading it raises an error later
        return "?"
    return f"{status.st_size} {status.st_mtime_ns}" if status else ""


@dataclass(frozen=True)
class Files:
    """Units of up to UNIT pictures; a unit's name is a hash of the names, sizes and times of its files.

    A unit ends after a picture that the hash of its name selects, so adding or removing a picture changes one unit.
    """

    units: list[list[Path]]
    names: list[str]

    @staticmethod
    def of(paths: list[Path], folder: Path, captions: dict[Path, Path] | None = None, note: str = "") -> "Files":
        units: list[list[Path]] = [[]]
        digests = [hashlib.sha256(note.encode())]
        for path in paths:
            name = os.path.relpath(path, folder)
            ends = int(hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8], 16) % (UNIT // 2) == 0
            if units[-1] and (ends or len(units[-1]) == UNIT):
                units.append([])
                digests.append(hashlib.sha256(note.encode()))
            units[-1].append(path)
            line = f"{name} {_stamp(path)} {_stamp((captions or {}).get(path))}\n"
            digests[-1].update(line.encode(errors="surrogateescape"))
        return Files(units, [digest.hexdigest()[:12] for digest in digests])


@dataclass(frozen=True)
class CaptionedFiles:
    """A folder of pictures, each with a .txt, .caption or .json of its name beside it, or all in one metadata file."""

    files: Files
    captions: dict[Path, Path]
    told: dict[Path, list[object]]  # captions of a table, by picture
    alone: list[Path]  # captions without a picture
    folder: Path
    classes: list[str] | None = None

    @property
    def names(self) -> list[str]:
        return self.files.names

    @property
    def origin(self) -> str:
        return str(self.folder.resolve())

    @staticmethod
    def open(folder: Path) -> "CaptionedFiles":
        held = visible_files(folder)
        paths = [path for path in held if path.suffix.lower() in IMAGES]
        table = next((folder / name for name in METADATA if (folder / name).is_file()), None)
        told = read_captions(table) if table else {}
        texts: dict[Path, Path] = {}
        for ending in reversed(CAPTIONS):  # the first of CAPTIONS wins
            texts |= {path.with_suffix(""): path for path in held if path.suffix.lower() == ending}
        captions = {path: texts[path.with_suffix("")] for path in paths if path.with_suffix("") in texts}
        pictured = {path.with_suffix("") for path in paths}
        alone = sorted(path for stem, path in texts.items() if stem not in pictured)
        files = Files.of(paths, folder, captions, note=_stamp(table))
        return CaptionedFiles(files, captions, told, alone, folder)

    @staticmethod
    def of_table(table: Path) -> "CaptionedFiles":
        """The pictures that a table names, in any folder. ValueError for a table that cannot be read."""
        told = read_captions(table)
        files = Files.of(sorted(told), table.parent, note=_stamp(table))
        return CaptionedFiles(files, {}, told, [], table.parent)

    def captions_of_picture(self, path: Path) -> tuple[str, ...]:
        """What is said of a picture. ValueError when nothing is, or it cannot be read."""
        if path in self.told:
            return several(self.told[path])
        text = self.captions.get(path)
        if text is None:
            raise ValueError(f"no caption: {path.with_suffix('.txt').name} is missing")
        return captions_of(text.name, text.read_bytes(), "caption")

    def read(self, unit: int, report: Report) -> Iterator[ImageExample]:
        if unit == 0:  # they belong to no unit, so the first one reports them
            for path in self.alone:
                report(f"{path}: no picture beside this caption")
        paths = self.files.units[unit]
        for number, path in enumerate(paths):
            try:
                along = (number + 1) / len(paths)
                said = self.captions_of_picture(path)
                yield make_example(path.stem, path.read_bytes(), captions=said, along=along, place=str(path))
            except (ValueError, OSError) as error:
                report(f"{path}: {error}")


@dataclass(frozen=True)
class ClassFolders:
    """ImageNet-style: folder/<class>/*.jpg. Classes are numbered in the order of their folders' names. A folder
    without a picture is no class."""

    files: Files
    folder: Path
    classes: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return self.files.names

    @property
    def origin(self) -> str:
        return str(self.folder.resolve())

    @staticmethod
    def open(folder: Path) -> "ClassFolders":
        kinds = sorted(path.name for path in folder.iterdir() if path.is_dir() and is_visible(path.name))
        held = {kind: [p for p in visible_files(folder / kind) if p.suffix.lower() in IMAGES] for kind in kinds}
        paths = [path for kind in kinds for path in held[kind]]
        if not paths:
            raise ValueError(
                f"{folder} holds no pictures: it needs shards (*.tar), pictures with .txt captions, or a folder a class"
            )
        # Interleaved, so that the first units already hold every class.
        stride = max(1, len(paths) // UNIT)
        files = Files.of([p for start in range(stride) for p in paths[start::stride]], folder)
        return ClassFolders(files, folder, [k for k in kinds if held[k]], [k for k in kinds if not held[k]])

    def read(self, unit: int, report: Report) -> Iterator[ImageExample]:
        if unit == 0:
            for kind in self.empty:
                report(f"{self.folder / kind}: no picture, so that it is no class")
        numbers = {name: number for number, name in enumerate(self.classes)}
        paths = self.files.units[unit]
        for place, path in enumerate(paths):
            kind = path.relative_to(self.folder).parts[0]
            try:
                # not turned: ImageNet's statistics and released models were made so
                yield make_example(
                    f"{kind}/{path.stem}", path.read_bytes(), label=numbers[kind], along=(place + 1) / len(paths),
                    upright=False, place=str(path),
                )  # fmt: skip
            except (ValueError, OSError) as error:
                report(f"{path}: {error}")
