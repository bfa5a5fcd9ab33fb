"""Where captioned pictures come from: webdataset shards, a folder with captions, ImageNet-style folders, Hugging Face.

    source("shards/{00000..00099}.tar")        # image + .txt, .caption or .json under one key
    source("holiday")                          # a.jpg beside a.txt, a.caption or a.json; or metadata.jsonl, .csv
    source("imagenet/train")                   # one folder a class, its name is the label
    source("pictures.csv")                     # .csv, .tsv, .jsonl or .parquet with file_name and text in each row
    source("hf:owner/name")                    # columns image and text (or label)

A source is a list of units (a shard, or a thousand files). A unit gives the same pictures in the same order each time,
so processes share the work by units, and a killed command continues at the first unfinished unit. Faults (no caption, a
broken picture, the end of a cut shard) are passed to `report` and skipped.

Of webdataset only the grouping of files to examples is used; its pipelines shuffle and resample an endless stream.
"""

import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from train.data.caption_tables import METADATA, TABLES
from train.data.folder_sources import UNIT, CaptionedFiles, ClassFolders, is_visible
from train.data.image_example import (
    CAPTION_KEYS,
    IMAGES,
    ImageExample,
    ImageSource,
    Report,
    captions_of,
    make_example,
    several,
)

BROKEN = (tarfile.TarError, EOFError, OSError, zlib.error)  # errors of reading a cut or broken tar


def source(text: str) -> ImageSource:
    """The source of a name. ValueError, in one line, for a source that is empty or missing."""
    if text.startswith("hf:"):
        return HuggingFaceSource.open(text[3:])
    if ".tar" in text:
        return WebDatasetShards.open(text)
    folder = Path(text)
    if folder.suffix.lower() in TABLES and folder.is_file():
        return CaptionedFiles.of_table(folder)
    if not folder.is_dir():
        raise ValueError(
            f"no pictures at {text}: give a folder, shards such as 'data/{{000..099}}.tar', a table of paths "
            f"({', '.join(TABLES)}), or hf:NAME"
        )
    if tars := sorted(folder.glob("*.tar")):
        return WebDatasetShards.of([str(path) for path in tars])
    own = [path for path in folder.iterdir() if is_visible(path.name)]
    if any(path.suffix.lower() in IMAGES or path.name in METADATA for path in own):
        return CaptionedFiles.open(folder)
    return ClassFolders.open(folder)


@dataclass(frozen=True)
class WebDatasetShards:
    """Tar files as webdataset writes them: the files of one example are neighbours and share the name up to the first
    dot.

    A caption is a .txt, or `key` in a .json. A unit's name is the file's name without its folder, and its size: shards
    may be moved to another folder, but not be replaced by other files of the same name and size.
    """

    paths: list[str]
    names: list[str]
    key: str = "caption"
    classes: list[str] | None = None
    origin: str = "shards"  # which may be moved

    @staticmethod
    def open(pattern: str) -> "WebDatasetShards":
        """All files of a pattern with {000..099}, * or neither. ValueError names what is missing."""
        paths = [path for part in braces(pattern) for path in _globbed(part)]
        if missing := [path for path in paths if not Path(path).is_file()]:
            raise ValueError(f"{len(missing)} of {len(paths)} shards are missing, first {missing[0]}")
        if not paths:
            raise ValueError(f"no shard is called {pattern}")
        return WebDatasetShards.of(paths)

    @staticmethod
    def of(paths: list[str]) -> "WebDatasetShards":
        return WebDatasetShards(paths, [f"{Path(path).name} of {os.path.getsize(path)} bytes" for path in paths])

    def read(self, unit: int, report: Report) -> Iterator[ImageExample]:
        # Only here: it takes a second to load, and only shards need it
        from webdataset.tariterators import group_by_keys

        path, count, faults = self.paths[unit], 0, []

        def twice(error: Exception) -> bool:
            report(f"{path}: {error.args[0]}")
            return True  # the first file of a name counts

        def files(file: BinaryIO) -> Iterator[dict[str, Any]]:
            try:
                yield from _members(file, path)
            except BROKEN as error:  # raised here, it would lose the example before it, which is whole
                faults.append(error)

        try:
            with open(path, "rb") as file:
                length = os.fstat(file.fileno()).st_size
                for group in group_by_keys(files(file), handler=twice):
                    for example in _apart(group):
                        count += 1
                        try:
                            yield self._picture(example, file.tell() / length)
                        except ValueError as error:
                            report(f"{path}: {example['__key__']}: {error}")
        except OSError as error:
            faults.append(error)
        for fault in faults:
            report(f"{path} is cut or broken after {count} pictures: the rest is skipped ({fault})")

    def _picture(self, example: dict[str, Any], along: float) -> ImageExample:
        """Of {"__key__": name, suffix: content}."""
        images = [suffix for suffix in example if suffix[:2] != "__" and _is_image(suffix)]
        if not images:
            raise ValueError("no picture")
        told = [stem for suffix in images if (stem := _stem(suffix)) in _captions(example)]
        image, stem = (next(s for s in images if _stem(s) == told[0]), told[0]) if told else (images[0], "")
        text = _captions(example).get(stem)
        if text is None:
            raise ValueError("no caption")
        captions = captions_of(f"{example['__key__']}.{text}", example[text], self.key)
        return make_example(example["__key__"], example[image], captions=captions, along=along)


def _stem(suffix: str) -> str:
    """The name before the last suffix: 5x of 5x.jpg."""
    return suffix.rpartition(".")[0]


def _captions(example: dict[str, Any]) -> dict[str, str]:
    """{stem: suffix} of the captions; of several of one stem the first of txt, caption, json."""
    endings = ("json", "caption", "txt")
    return {_stem(s): s for ending in endings for s in example if s.rpartition(".")[2] == ending}


def _apart(group: dict[str, Any]) -> list[dict[str, Any]]:
    """The examples of files whose names have dots, such as IMG_0.5x.jpg and IMG_0.7x.jpg, each with its caption.
    webdataset ends a name at the first dot, so it groups them as one example."""
    stems = [stem for stem in _captions(group) if any(_is_image(s) and _stem(s) == stem for s in group)]
    if stems in ([], [""]):
        return [group]
    key, shared = group["__key__"], {name: group[name] for name in group if name.startswith("__")}
    return [
        shared
        | {"__key__": f"{key}.{stem}" if stem else key}
        | {suffix.rpartition(".")[2]: group[suffix] for suffix in group if suffix[:2] != "__" and _stem(suffix) == stem}
        for stem in stems
    ]


def _is_image(suffix: str) -> bool:
    return f".{suffix.rpartition('.')[2]}" in IMAGES


class _Header(tarfile.TarInfo):
    """A tar header that raises an error where it is cut or broken. tarfile takes such a header for the end of the
    archive, which is a block of zeros."""

    @classmethod
    def frombuf(cls, block: bytes, encoding: str, errors: str) -> "_Header":
        try:
            return super().frombuf(block, encoding, errors)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no block of zeros at its end: {error}") from None


def _members(file: BinaryIO, path: str) -> Iterator[dict[str, Any]]:
    """The files of a tar in the form of webdataset's group_by_keys, read in one pass, so that a cut shard gives the
    files before the cut."""
    with tarfile.open(fileobj=file, mode="r|*", tarinfo=_Header) as tar:
        for member in tar:
            if member.isreg() and not re.match(r"__[^/]*__($|/)", member.name):  # metadata of webdataset
                yield {"fname": member.name, "data": tar.extractfile(member).read(), "__url__": path}
            tar.members = []  # it would keep all headers of a large shard


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
class HuggingFaceSource:
    """A dataset of the hub by name (its train split), read in runs of UNIT rows."""

    rows: Any
    names: list[str]
    classes: list[str] | None = None
    origin: str = ""

    @staticmethod
    def open(name: str) -> "HuggingFaceSource":
        try:
            from datasets import Image as Encoded  # an optional package, which is not pinned
            from datasets import load_dataset
        except ImportError:
            raise ValueError("hf: needs the package datasets (pip install datasets): or give a folder") from None
        try:
            rows = load_dataset(name, split="train")
        except Exception as error:  # the package raises many types of errors
            raise ValueError(f"no dataset {name!r}: {(str(error).strip() or repr(error)).splitlines()[0]}") from None
        return HuggingFaceSource.over(rows, name, Encoded(decode=False))

    @staticmethod
    def over(rows: Any, name: str, encoded: Any) -> "HuggingFaceSource":
        """A source of any table with `column_names`, `features`, `cast_column`, a length and items {"image", "text" |
        "label"}.

        `encoded` is the column type of undecoded pictures, {"bytes", "path"}: a broken picture then loses one row only.
        """
        text = any(key in rows.column_names for key in CAPTION_KEYS)
        if "image" not in rows.column_names or not (text or "label" in rows.column_names):
            raise ValueError(f"{name} has columns {', '.join(rows.column_names)}; image and text (or label) are needed")
        try:
            rows = rows.cast_column("image", encoded)
        except Exception as error:  # the package raises many types of errors
            raise ValueError(f"the column image of {name} holds no pictures: {str(error).splitlines()[0]}") from None
        units = [f"{name}[{start}:{min(start + UNIT, len(rows))}]" for start in range(0, len(rows), UNIT)]
        return HuggingFaceSource(rows, units, None if text else list(rows.features["label"].names), name)

    def read(self, unit: int, report: Report) -> Iterator[ImageExample]:
        numbers = range(unit * UNIT, min((unit + 1) * UNIT, len(self.rows)))
        for number in numbers:
            row, along = self.rows[number], (number + 1 - numbers.start) / len(numbers)
            try:
                data = _content(row["image"])
                if self.classes is not None:
                    yield make_example(str(number), data, label=row["label"], along=along)
                    continue
                captions = several(next((row[key] for key in CAPTION_KEYS if row.get(key)), None))
                yield make_example(str(number), data, captions=captions, along=along)
            except (ValueError, OSError) as error:
                report(f"row {number}: {error}")


def _content(entry: dict[str, Any] | None) -> bytes:
    """The file of a picture: its bytes in the table, or the file at its path."""
    if not entry:
        raise ValueError("no picture")
    return entry["bytes"] if entry.get("bytes") is not None else Path(entry["path"]).read_bytes()
