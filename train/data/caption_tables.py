"""Tables of pictures and their captions: .csv, .tsv, .jsonl and .parquet files."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from train.data.image_example import CAPTION_KEYS

METADATA = ("metadata.jsonl", "metadata.csv")  # as Hugging Face's imagefolder reads them
TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
PATH_KEYS = ("file_name", "path", "filepath", "image_path", "filename", "file", "image")


def read_captions(path: Path) -> dict[Path, list[Any]]:
    """{picture: its captions} of a table; a picture in several rows has the captions of all of them.

    Paths are relative to the table's folder, or absolute. ValueError for a table that cannot be read, or without a
    column of paths or of captions.
    """
    found: dict[Path, list[Any]] = {}
    try:
        for row in _rows(path):
            name = next((row[key] for key in PATH_KEYS if row.get(key)), None)
            if not isinstance(name, str):
                raise KeyError(f"no {', '.join(PATH_KEYS[:3])}")
            if not any(key in row for key in CAPTION_KEYS):
                raise KeyError(f"no {', '.join(CAPTION_KEYS[:3])}")
            said = next((row[key] for key in CAPTION_KEYS if row.get(key)), None)
            found.setdefault(path.parent / name, []).extend(said if isinstance(said, list) else [said])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} needs a file_name and a text in each row ({error!r})") from None
    return found


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    kind = path.suffix.lower()
    if kind == ".parquet":
        yield from _parquet_rows(path)
        return
    with path.open(encoding="utf-8-sig", newline="") as file:
        if kind == ".jsonl":
            yield from (json.loads(line) for line in file if line.strip())
            return
        table = csv.DictReader(file, delimiter="\t" if kind == ".tsv" else ",")
        empty = True
        for row in table:
            empty = False
            yield row
        if empty:
            yield dict.fromkeys(table.fieldnames or ())


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ValueError("needs the package pyarrow: pip install pyarrow, or write the table as .jsonl") from None
    try:
        file = parquet.ParquetFile(path)
        kept = [name for name in (*PATH_KEYS, *CAPTION_KEYS) if name in file.schema_arrow.names]
        for batch in file.iter_batches(columns=kept):
            yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(f"no whole parquet file: {str(error).splitlines()[0]}") from None
