"""Tokens and text states of pictures, computed once: `maskgil data images --source ... --tokenizer ... --out ...`.

Many processes share the work: torchrun --nproc_per_node 8 -m app data images ...

Axes: n pictures, N tokens, C channels, T text tokens of all n captions in a row, E width of a text state.

A cache is `cache.json` (what made it) and a file for each unit of the source, written whole. For each bucket it holds
`WxH/tokens` (n, N) uint16, and `WxH/states` (T, E) bfloat16 with `WxH/ends` (n,), or `WxH/labels` (n,). If pictures
have several captions, `ends` has an entry for each caption, and `WxH/captions` (n,) is the number of captions up to and
with each picture. Latents are (n, N, C) float16, scaled to a deviation of about 1: the posterior's means as `tokens`,
and for KL its deviations as `std`. Batches are sampled from the posterior each time.

A file that exists is finished. The same command again makes only files that are missing or whose pictures have changed,
and does not encode a picture again whose bytes and caption are the same. Training reads the files in place.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

import text_encoder as encoders
from maskgil import checkpoint
from maskgil.aspect_buckets import Size, fit_to_bucket, nearest_bucket
from train.data.cache_files import write_note, write_shard
from train.data.cache_progress import CacheProgress
from train.data.cache_report import CONTENTS, DIGESTS, SHEET, UNIT_NOTE, ContactSheet, UnitReport, write_summary
from train.data.cached_batches import NOTE, index_of
from train.data.image_example import ImageExample, ImageSource
from train.data.long_captions import cut_caption, with_shuffled_tags

ORIGIN = "origin"  # of a cache's note: the source of its pictures
# Entries of a cache's note in which caches of one model may differ.
CUT = ("crop", "crops", "flip", "shuffled_tags", ORIGIN)
SHOWN = 5  # faults of a unit that are printed


Row = dict[str, Any]  # of one picture: tensors "tokens", perhaps "std", and "label"; or "states", one for each caption


@runtime_checkable
class CachingTokenizer(Protocol):
    """What a cache asks of a tokenizer: see maskgil/tokenizers/vq.py and autoencoder.py."""

    config: Any

    def identity(self) -> dict[str, Tensor]: ...

    @property
    def cache_note(self) -> dict[str, Any]: ...

    def cache_tokens(self, pixels: Float[Tensor, "B 3 H W"]) -> dict[str, Tensor]: ...

    def validate_cached(self, rows: dict[str, Tensor]) -> None: ...


@dataclass
class _Bucket:
    """Rows of one bucket (None: not encoded yet), and the pictures that wait for a full batch."""

    rows: list[Row | None] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    waiting: list[tuple[int, Tensor, ImageExample]] = field(default_factory=list)


@dataclass(frozen=True)
class _StoredRow:
    """A row of a file that was made from an earlier state of the source."""

    path: Path
    bucket: str
    row: int


@dataclass(frozen=True)
class CacheWriter:
    """Turns units of a source into files of a cache. Without a text encoder the pictures' classes are kept.

    batch          pictures encoded at once
    centre         whether pictures are cut in the middle
    flip           whether each picture is stored a second time, mirrored
    long_captions  captions longer than the text encoder reads are cut at a word, or dropped with their pictures
    min_side       pictures with a shorter side, in pixels, are left out
    max_aspect     pictures whose sides differ by more than this factor are left out
    crops          places at which a picture is cut, each a row of its own
    drop_duplicates  leave out a picture whose file this process has read before
    shuffled_tags  further captions of each picture, with its comma-separated tags in another order
    """

    source: ImageSource
    tokenizer: CachingTokenizer
    encoder: encoders.TextEncoder | None
    out: Path
    shapes: list[Size]
    batch: int = 32
    centre: bool = False
    flip: bool = False
    long_captions: Literal["cut", "drop"] = "cut"
    min_side: int = 16
    max_aspect: float = 10.0
    crops: int = 1
    drop_duplicates: bool = False
    shuffled_tags: int = 0

    def note(self) -> dict[str, Any]:
        """The note of this cache. Files can be added to a cache only if its note is the same."""
        config = self.tokenizer.config
        side = config.downsample
        if any(width % side or height % side for width, height in self.shapes):
            raise ValueError(f"this tokenizer has tokens of {side} px, which do not divide all buckets: {self.shapes}")
        note = {
            "tokenizer": checkpoint.fingerprint(self.tokenizer.identity()),
            **self.tokenizer.cache_note,
            "downsample": side,
            "shapes": [list(shape) for shape in self.shapes],
        }
        note |= {"crop": "centre"} if self.centre else {}
        note |= {"flip": True} if self.flip else {}
        note |= {"crops": self.crops} if self.crops > 1 else {}
        note |= {"shuffled_tags": self.shuffled_tags} if self.shuffled_tags else {}
        if self.encoder is None:
            return note | {"classes": self.source.classes}
        return note | {"text_encoder": checkpoint.fingerprint(self.encoder.identity()), "width": self.encoder.width}

    def path(self, unit: int) -> Path:
        name = hashlib.sha256(self.source.names[unit].encode()).hexdigest()[:8]
        return self.out / f"{unit:06d}-{name}.safetensors"

    def begin(self) -> None:
        """Write cache.json. ValueError when the folder has a different one."""
        if (self.source.classes is None) != (self.encoder is not None):
            raise ValueError(
                "these pictures have classes, not captions: leave --text-encoder out"
                if self.encoder is not None
                else "captions need --text-encoder, a folder or a name such as google/flan-t5-xl"
            )
        note, path = json.loads(json.dumps(self.note())) | {ORIGIN: self.source.origin}, self.out / NOTE
        stale = self.stale()
        if path.is_file():
            held = json.loads(path.read_text())
            differ = [key for key in note | held if held.get(key) != note.get(key) and key != ORIGIN]
            if stale and held.get(ORIGIN, note[ORIGIN]) != note[ORIGIN]:
                differ.append("folder of pictures")
            if other := [key.replace("_", " ") for key in differ]:
                raise ValueError(
                    f"{self.out} was made with another {' and '.join(other)}: give another folder, or delete it"
                )
        write_note(path, note)

    def stale(self) -> list[Path]:
        """Files whose pictures have changed in the source, or are gone."""
        known = {self.path(unit).name for unit in range(len(self.source.names))}
        return sorted(path for path in self.out.glob("*.safetensors") if path.name not in known)

    def make(
        self, unit: int, report: UnitReport, known: dict[str, _StoredRow], seen: set[str], sheet: ContactSheet
    ) -> Iterator[float]:
        """Encode a unit and write its file; yields the share of the unit that is read after each picture.

        known  stored rows by their content, which are copied
        seen   hashes of the files that were read before

        ValueError when the disk is full, and for latents of the wrong scale; files that were written before stay.
        """
        filled: dict[Size, _Bucket] = {}
        digests: list[str] = []
        for picture in self.source.read(unit, report.skipped.append):
            try:
                if self.drop_duplicates and picture.digest in seen:
                    report.duplicates += 1
                    raise ValueError("the same picture was there before")
                picture = self._taken(picture, report)
            except ValueError as error:
                report.skipped.append(f"{picture.place or f'{self.source.names[unit]}: {picture.key}'}: {error}")
                continue
            seen.add(picture.digest)
            digests.append(picture.digest)
            sheet.add(picture.image, picture.captions[0] if picture.captions else f"class {picture.label}")
            self._add(picture, filled, known, report)
            yield picture.along
        tensors, contents = {}, {}
        for size, bucket in sorted(filled.items()):
            self._encode(bucket, report)
            made, name = self._tensors(bucket), f"{size[0]}x{size[1]}"
            self.tokenizer.validate_cached(made)
            tensors |= {f"{name}/{part}": tensor for part, tensor in made.items()}
            contents[name] = bucket.contents
            report.buckets[name] += len(bucket.rows)
        told = {CONTENTS: contents, "skipped": report.skipped} | ({DIGESTS: digests} if self.drop_duplicates else {})
        write_shard(tensors, self.path(unit), {UNIT_NOTE: json.dumps(told)})  # files do not keep the order of entries

    def _taken(self, picture: ImageExample, report: UnitReport) -> ImageExample:
        """The picture with captions that the encoder can read. ValueError with the reason where it is left out."""
        width, height = picture.image.size
        if min(width, height) < self.min_side:
            raise ValueError(f"{width}x{height} is less than {self.min_side} pixels a side")
        if max(width, height) > self.max_aspect * min(width, height):
            raise ValueError(f"{width}x{height} is longer than {self.max_aspect:g} times its width or height")
        if self.encoder is None:
            return picture
        captions = with_shuffled_tags(picture.captions, self.shuffled_tags, picture.key)
        return replace(picture, captions=tuple(self._readable(caption, report) for caption in captions))

    def _readable(self, caption: str, report: UnitReport) -> str:
        """The caption, cut if it is too long. ValueError if it has to be dropped."""
        assert self.encoder is not None
        try:
            self.encoder.tokenize([caption])
        except ValueError:
            if self.long_captions == "drop":
                raise
            short = cut_caption(self.encoder, caption)
            report.cut_captions += 1
            return short
        return caption

    def _add(
        self, picture: ImageExample, filled: dict[Size, _Bucket], known: dict[str, _StoredRow], report: UnitReport
    ) -> None:
        """Add each view of a picture to its bucket: the stored row, or its pixels to be encoded."""
        shape = nearest_bucket(picture.image.size, self.shapes)
        bucket = filled.setdefault(shape, _Bucket())
        # the place depends on the picture's name only, so the same cache can be made again
        places = np.random.default_rng(list(hashlib.sha256(picture.key.encode()).digest())).random((self.crops, 2))
        for crop, (x, y) in enumerate(places):
            pixels = None
            for mirrored in (False, True) if self.flip else (False,):
                content = picture.content + (f"-crop{crop}" if crop else "") + ("-mirrored" if mirrored else "")
                bucket.contents.append(content)
                if content in known:
                    bucket.rows.append(self._stored(known[content]))
                    report.reused += 1
                    continue
                if pixels is None:
                    at = (0.5, 0.5) if self.centre else (float(x), float(y))
                    pixels = np.asarray(fit_to_bucket(picture.image, shape, *at))
                seen = pixels[:, ::-1] if mirrored else pixels
                bucket.rows.append(None)
                bucket.waiting.append((len(bucket.rows) - 1, torch.from_numpy(seen.copy()), picture))
                if len(bucket.waiting) == self.batch:
                    self._encode(bucket, report)

    def digests(self) -> set[str]:
        """Hashes of the pictures' files that the cache holds."""
        found: set[str] = set()
        for unit in range(len(self.source.names)) if self.drop_duplicates else ():
            with contextlib.suppress(SafetensorError, OSError), safe_open(self.path(unit), "pt") as file:
                found |= set(json.loads((file.metadata() or {}).get(UNIT_NOTE, "{}")).get(DIGESTS, []))
        return found

    def stored_rows(self) -> dict[str, _StoredRow]:
        """Rows of stale files by the content of their pictures; none of files without a list of contents."""
        known = {}
        for path in self.stale():
            with contextlib.suppress(SafetensorError, OSError), safe_open(path, "pt") as file:
                contents = json.loads((file.metadata() or {}).get(UNIT_NOTE, "{}")).get(CONTENTS, {})
                for bucket, names in contents.items():
                    known |= {name: _StoredRow(path, bucket, row) for row, name in enumerate(names) if name}
        return known

    def _stored(self, at: _StoredRow) -> Row:
        with safe_open(at.path, "pt") as file:
            part = {
                name.partition("/")[2]: file.get_slice(name) for name in file.keys() if name.startswith(f"{at.bucket}/")
            }  # noqa: SIM118, E501
            row = {name: part[name][at.row] for name in ("tokens", "std") if name in part}
            if "labels" in part:
                return row | {"label": part["labels"][at.row]}
            first, last = at.row, at.row + 1
            if "captions" in part:
                first, last = int(part["captions"][at.row - 1]) if at.row else 0, int(part["captions"][at.row])
            ends = [int(part["ends"][first - 1]) if first else 0, *part["ends"][first:last].tolist()]
            return row | {"states": [part["states"][a:b] for a, b in pairwise(ends)]}

    @torch.no_grad()
    def _encode(self, bucket: _Bucket, report: UnitReport) -> None:
        if not bucket.waiting:
            return
        pixels = torch.stack([pixels for _, pixels, _ in bucket.waiting]).permute(0, 3, 1, 2)
        pictures = [picture for _, _, picture in bucket.waiting]
        device = next(iter(self.tokenizer.identity().values())).device
        parts = self.tokenizer.cache_tokens(pixels.to(device).float().div(127.5).sub(1))
        rows: list[Row] = [{name: part[i] for name, part in parts.items()} for i in range(len(pictures))]
        if self.encoder is None:
            for row, picture in zip(rows, pictures, strict=True):
                row["label"] = torch.tensor(picture.label)
        else:
            for row in rows:
                row["states"] = []
            said = [(row, caption) for row, picture in zip(rows, pictures, strict=True) for caption in picture.captions]
            for start in range(0, len(said), self.batch):
                part = said[start : start + self.batch]
                condition = self.encoder.encode([caption for _, caption in part])
                for (row, _), states, mask in zip(part, condition.states, condition.mask, strict=True):
                    row["states"].append(states[mask].to("cpu", torch.bfloat16))
        for (number, _, _), row in zip(bucket.waiting, rows, strict=True):
            bucket.rows[number] = row
        report.encoded += len(rows)
        bucket.waiting.clear()

    def _tensors(self, bucket: _Bucket) -> dict[str, Tensor]:
        rows = bucket.rows
        tensors = {name: torch.stack([row[name] for row in rows]) for name in ("tokens", "std") if name in rows[0]}
        if self.encoder is None:
            return tensors | {"labels": torch.stack([row["label"] for row in rows])}
        states = [state for row in rows for state in row["states"]]
        tensors |= {"states": torch.cat(states), "ends": torch.tensor([len(state) for state in states]).cumsum(0)}
        if len(states) > len(rows):
            tensors["captions"] = torch.tensor([len(row["states"]) for row in rows]).cumsum(0)
        return tensors


def fill_cache(maker: CacheWriter, rank: int = 0, world: int = 1) -> None:
    """Make this process's share of the missing files of the cache. The first process shows the progress.

    Stale files are deleted when all files are made. Unchanged pictures are not encoded again.
    """
    maker.begin()
    units, known = len(maker.source.names), maker.stored_rows()
    mine = [unit for unit in range(rank, units, world) if not maker.path(unit).is_file()]
    progress = CacheProgress(maker.out, {maker.path(unit).name for unit in range(units)}, rank, world)
    total, sheet, seen = UnitReport(), ContactSheet(rank), maker.digests()
    for unit in mine:
        report = UnitReport()
        for along in maker.make(unit, report, known, seen, sheet):
            progress.show(along, total.pictures + report.pictures)
        total.add(report)
        for line in report.skipped[:SHOWN]:
            tqdm.write(line)
        if len(report.skipped) > SHOWN:
            tqdm.write(f"... and {len(report.skipped) - SHOWN} more of this unit")
        progress.unit_done()
    progress.bar.close()
    again = f", took over {total.reused:,} unchanged ones" if total.reused else ""
    cut = f"; {total.cut_captions:,} captions were cut to what the text encoder reads" if total.cut_captions else ""
    print(
        f"{maker.out}: process {rank + 1} of {world} encoded {total.encoded:,} pictures{again}, "
        f"skipped {len(total.skipped):,}{cut}"
    )
    if rank == 0 and sheet.kept:
        sheet.draw(maker.out / SHEET)
    if total.buckets:
        print(f"sizes: {', '.join(f'{size} {count:,}' for size, count in total.buckets.most_common())}")
    if progress.finished(fresh=True) == units:  # the last process finds all files
        _finish(maker)


def _finish(maker: CacheWriter) -> None:
    """Delete stale files and write the index. ValueError when the cache holds no picture."""
    for path in maker.stale():
        path.unlink(missing_ok=True)
    index = index_of(maker.out, write=True)
    if not any(count for entry in index.values() for count in entry["rows"].values()):
        raise ValueError(f"no picture of the source could be used: {maker.out} stays empty")
    for line in write_summary(maker.out, index):
        print(line)
