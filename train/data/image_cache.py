"""Tokens and text states of pictures, computed once: `maskgil data images --source ... --tokenizer ... --out ...`.

Many processes share the work: torchrun --nproc_per_node 8 -m app data images ...

Axes: n pictures, N tokens, C channels, T text tokens of all n one after the other, E width of a text state.
A cache is `cache.json` (what made it) and a file for each unit of the source, written whole: for each bucket
`WxH/tokens` (n, N) uint16, then `WxH/states` (T, E) bfloat16 with `WxH/ends` (n,), or `WxH/labels` (n,). Latents are
(n, N, C) float16, scaled to a deviation of about 1: the posterior's means as `tokens`, with its deviations as `std`
where there is one (KL, not DC-AE). Batches are drawn from the posterior anew each time.

A file that is there is done: started again, the same command makes only what is missing or has changed, and encodes no
picture again whose bytes and caption are as they were. Training reads the files where they lie.
"""

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

import text_encoder as encoders
from maskgil import checkpoint
from maskgil.aspect_buckets import Size, aspect_buckets, fit_to_bucket, nearest_bucket
from maskgil.generator import Tokenizer
from maskgil.tokenizers.autoencoder import SURE, AutoencoderTokenizer, validate_scale
from train.data.cache_files import write_note, write_shard
from train.data.cache_progress import CacheProgress
from train.data.cached_batches import NOTE, index_of
from train.data.image_example import ImageExample, ImageSource
from train.data.image_sources import source as image_source

ORIGIN = "origin"  # of a cache's note: where its pictures lie
UNIT_NOTE, CONTENTS = "unit", "contents"  # of a file's metadata: what was left out, and a hash of each picture
CUT = ("crop", "flip", ORIGIN)  # of a cache's note: in what caches of one model may differ
SHOWN = 5  # faults of a unit that are named one by one


Row = dict[str, Tensor]  # of one picture: "tokens", perhaps "std", and "states" or "label"


@dataclass
class _Bucket:
    """Rows of one bucket, those that are still to be encoded None, and what waits for a full batch."""

    rows: list[Row | None] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    waiting: list[tuple[int, Tensor, ImageExample]] = field(default_factory=list)


@dataclass
class UnitReport:
    """What became of a unit's pictures: lines for what was left out, and counts."""

    skipped: list[str] = field(default_factory=list)
    encoded: int = 0
    reused: int = 0
    cut_captions: int = 0
    buckets: Counter = field(default_factory=Counter)

    @property
    def pictures(self) -> int:
        return self.encoded + self.reused


@dataclass(frozen=True)
class _StoredRow:
    """A row of a file that another state of the source left."""

    path: Path
    bucket: str
    row: int


@dataclass(frozen=True)
class CacheWriter:
    """Turns units of a source into files of a cache. Without a text encoder the pictures' classes are kept.

    batch          pictures encoded at once
    centre         whether pictures are cut in the middle;  flip: whether each is there a second time, mirrored
    long_captions  what becomes of those that the text encoder cannot read whole: cut at a word, or dropped
    min_side       pictures with a shorter side, in pixels, are left out
    max_aspect     and those whose sides differ by more than this factor
    """

    source: ImageSource
    tokenizer: Tokenizer
    encoder: encoders.TextEncoder | None
    out: Path
    shapes: list[Size]
    batch: int = 32
    centre: bool = False
    flip: bool = False
    long_captions: Literal["cut", "drop"] = "cut"
    min_side: int = 16
    max_aspect: float = 10.0

    def note(self) -> dict[str, Any]:
        """What a cache must have in common with what is added to it."""
        config = self.tokenizer.config
        side, continuous = config.downsample, isinstance(self.tokenizer, AutoencoderTokenizer)
        if any(width % side or height % side for width, height in self.shapes):
            raise ValueError(f"this tokenizer has tokens of {side} px, which do not divide all buckets: {self.shapes}")
        note = {
            "tokenizer": checkpoint.fingerprint(self.tokenizer.identity()),
            **({"latent": config.to_dict()} if continuous else {"codes": config.codebook_size}),
            "downsample": side,
            "shapes": [list(shape) for shape in self.shapes],
        }
        note |= {"crop": "centre"} if self.centre else {}
        note |= {"flip": True} if self.flip else {}
        if self.encoder is None:
            return note | {"classes": self.source.classes}
        return note | {"text_encoder": checkpoint.fingerprint(self.encoder.identity()), "width": self.encoder.width}

    def path(self, unit: int) -> Path:
        name = hashlib.sha256(self.source.names[unit].encode()).hexdigest()[:8]
        return self.out / f"{unit:06d}-{name}.safetensors"

    def begin(self) -> None:
        """Write cache.json, or see that the one there agrees. ValueError when it was made by something else."""
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
        """Files of pictures that the source no longer has as they were."""
        known = {self.path(unit).name for unit in range(len(self.source.names))}
        return sorted(path for path in self.out.glob("*.safetensors") if path.name not in known)

    def make(self, unit: int, report: UnitReport, known: dict[str, _StoredRow]) -> Iterator[float]:
        """Encode a unit and write its file; yields after each picture the share of the unit that is read. Rows of
        pictures in `known`, by their content, are copied.

        Raises ValueError when the disk is full, and for latents of the wrong scale: what was written before stays.
        """
        filled: dict[Size, _Bucket] = {}
        for picture in self.source.read(unit, report.skipped.append):
            try:
                picture = self._taken(picture, report)
            except ValueError as error:
                report.skipped.append(f"{self.source.names[unit]}: {picture.key}: {error}")
                continue
            self._add(picture, filled, known, report)
            yield picture.along
        tensors, contents = {}, {}
        for size, bucket in sorted(filled.items()):
            self._encode(bucket, report)
            made, name = self._tensors(bucket), f"{size[0]}x{size[1]}"
            if isinstance(self.tokenizer, AutoencoderTokenizer) and len(made["tokens"]) >= SURE:
                validate_scale(made["tokens"], self.tokenizer.config.scale, made.get("std"))
            tensors |= {f"{name}/{part}": tensor for part, tensor in made.items()}
            contents[name] = bucket.contents
            report.buckets[name] += len(bucket.rows)
        told = json.dumps({CONTENTS: contents, "skipped": report.skipped})  # one entry: files do not keep their order
        write_shard(tensors, self.path(unit), {UNIT_NOTE: told})

    def _taken(self, picture: ImageExample, report: UnitReport) -> ImageExample:
        """The picture as it is kept, its caption cut to what the encoder reads. ValueError says why it is left out."""
        width, height = picture.image.size
        if min(width, height) < self.min_side:
            raise ValueError(f"{width}x{height} is less than {self.min_side} pixels a side")
        if max(width, height) > self.max_aspect * min(width, height):
            raise ValueError(f"{width}x{height} is longer than {self.max_aspect:g} times its width or height")
        if self.encoder is None:
            return picture
        try:
            self.encoder.tokenize([picture.caption])
        except ValueError:
            if self.long_captions == "drop":
                raise
            short = cut_caption(self.encoder, picture.caption)
            report.cut_captions += 1
            return replace(picture, caption=short)
        return picture

    def _add(
        self, picture: ImageExample, filled: dict[Size, _Bucket], known: dict[str, _StoredRow], report: UnitReport
    ) -> None:
        """Put a picture into its bucket, as it is stored or to be encoded."""
        shape = nearest_bucket(picture.image.size, self.shapes)
        bucket, pixels = filled.setdefault(shape, _Bucket()), None
        for mirrored in (False, True) if self.flip else (False,):
            content = picture.content + ("-mirrored" if mirrored else "")
            bucket.contents.append(content)
            if content in known:
                bucket.rows.append(self._stored(known[content]))
                report.reused += 1
                continue
            if pixels is None:
                # where a picture is cut depends on its name alone: made again, the cache is the same
                x, y = np.random.default_rng(list(hashlib.sha256(picture.key.encode()).digest())).random(2)
                pixels = np.asarray(fit_to_bucket(picture.image, shape, *((0.5, 0.5) if self.centre else (x, y))))
            seen = pixels[:, ::-1] if mirrored else pixels
            bucket.rows.append(None)
            bucket.waiting.append((len(bucket.rows) - 1, torch.from_numpy(seen.copy()), picture))
            if len(bucket.waiting) == self.batch:
                self._encode(bucket, report)

    def stored_rows(self) -> dict[str, _StoredRow]:
        """Rows of stale files by the content of their pictures. Files that do not say what they hold give none."""
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
            first = int(part["ends"][at.row - 1]) if at.row else 0
            return row | {"states": part["states"][first : int(part["ends"][at.row])]}

    @torch.no_grad()
    def _encode(self, bucket: _Bucket, report: UnitReport) -> None:
        if not bucket.waiting:
            return
        pixels = torch.stack([pixels for _, pixels, _ in bucket.waiting]).permute(0, 3, 1, 2)
        pictures = [picture for _, _, picture in bucket.waiting]
        device = next(iter(self.tokenizer.identity().values())).device
        parts = self._encoded(pixels.to(device).float().div(127.5).sub(1))
        rows: list[Row] = [{name: part[i] for name, part in parts.items()} for i in range(len(pictures))]
        if self.encoder is None:
            for row, picture in zip(rows, pictures, strict=True):
                row["label"] = torch.tensor(picture.label)
        else:
            condition = self.encoder.encode([picture.caption for picture in pictures])
            for row, states, mask in zip(rows, condition.states, condition.mask, strict=True):
                row["states"] = states[mask].to("cpu", torch.bfloat16)
        for (number, _, _), row in zip(bucket.waiting, rows, strict=True):
            bucket.rows[number] = row
        report.encoded += len(rows)
        bucket.waiting.clear()

    def _encoded(self, pixels: Float[Tensor, "B 3 H W"]) -> dict[str, Tensor]:
        """What a cache keeps of pixels in [-1, 1]."""
        if not isinstance(self.tokenizer, AutoencoderTokenizer):
            return {"tokens": self.tokenizer.encode(pixels).to("cpu", torch.uint16)}
        mean, deviation = (part.to("cpu", torch.float16) for part in self.tokenizer.moments(pixels))
        return {"tokens": mean, "std": deviation} if self.tokenizer.config.family == "kl" else {"tokens": mean}

    def _tensors(self, bucket: _Bucket) -> dict[str, Tensor]:
        rows = bucket.rows
        tensors = {name: torch.stack([row[name] for row in rows]) for name in ("tokens", "std") if name in rows[0]}
        if self.encoder is None:
            return tensors | {"labels": torch.stack([row["label"] for row in rows])}
        ends = torch.tensor([len(row["states"]) for row in rows]).cumsum(0)
        return tensors | {"states": torch.cat([row["states"] for row in rows]), "ends": ends}


def cut_caption(encoder: encoders.TextEncoder, caption: str) -> str:
    """As many words from its beginning as the encoder reads. ValueError when it does not even read the first."""
    words = caption.split()
    least, most = 0, len(words) - 1  # words that it reads, and may read
    while least < most:
        middle = (least + most + 1) // 2
        try:
            encoder.tokenize([" ".join(words[:middle])])
            least = middle
        except ValueError:
            most = middle - 1
    if not least:
        raise ValueError(f"the caption begins with a word that the text encoder cannot read whole: {words[0][:40]!r}")
    return " ".join(words[:least])


def write(maker: CacheWriter, rank: int = 0, world: int = 1) -> None:
    """Make every file of the cache that is missing, this process its share of them; the first shows the progress.

    What the source no longer has goes when all files are there; pictures that are as they were are not encoded again.
    """
    maker.begin()
    units, known = len(maker.source.names), maker.stored_rows()
    mine = [unit for unit in range(rank, units, world) if not maker.path(unit).is_file()]
    progress = CacheProgress(maker.out, {maker.path(unit).name for unit in range(units)}, rank, world)
    total = UnitReport()
    for unit in mine:
        report = UnitReport()
        for along in maker.make(unit, report, known):
            progress.show(along, total.pictures + report.pictures)
        total.encoded += report.encoded
        total.reused += report.reused
        total.cut_captions += report.cut_captions
        total.buckets.update(report.buckets)
        total.skipped += report.skipped
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
    if total.buckets:
        print(f"sizes: {', '.join(f'{size} {count:,}' for size, count in total.buckets.most_common())}")
    if progress.finished(fresh=True) == units:  # who is last sees the whole cache
        _finish(maker)


def _finish(maker: CacheWriter) -> None:
    """Drop files of pictures that have gone, and keep an index of the others. ValueError when there is no picture."""
    for path in maker.stale():
        path.unlink(missing_ok=True)
    index = index_of(maker.out, write=True)
    if not any(count for entry in index.values() for count in entry["rows"].values()):
        raise ValueError(f"no picture of the source could be used: {maker.out} stays empty")


def cache_images(
    source: str,
    tokenizer: str,
    out: str,
    text_encoder: str = "",
    size: int = 256,
    shape: Literal["any", "square"] = "any",
    crop: Literal["any", "centre"] = "any",
    flip: bool = False,
    long_captions: Literal["cut", "drop"] = "cut",
    min_side: int = 16,
    max_aspect: float = 10.0,
    device: str = "",
    batch: int = 32,
) -> None:
    """Encode pictures into tokens, and their captions into states, for the large recipes. Under torchrun the processes
    share the work.

    Args:
        source: WebDataset shards (part-{00..09}.tar); a folder of pictures with .txt, .caption or .json captions,
            metadata.jsonl or metadata.csv; a folder of class folders; or hf:NAME, a Hugging Face data set.
        tokenizer: A VQ or latent tokenizer's folder.
        out: The folder of the cache. The same command again continues there.
        text_encoder: A Hugging Face name or a folder, for captions. Left out: class folders.
        size: The size class in pixels: 256, 512, 768 or 1024.
        shape: any: all aspect-ratio buckets of the size; square: only SIZE x SIZE.
        crop: Where a picture is cut to its bucket. centre: the same on both sides, as ADM does; any: at a place that
            depends on the picture's name.
        flip: Encode every picture twice, the second time mirrored.
        long_captions: Captions longer than the text encoder reads are cut at a word, or dropped with their pictures.
        min_side: Pictures with a side of fewer pixels are left out.
        max_aspect: Pictures longer than this many times their other side are left out.
        device: cuda or cpu. Left out: cuda where there is one.
        batch: Pictures encoded at once.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    pictures = image_source(source)
    shapes = [(size, size)] if shape == "square" else aspect_buckets(size)
    folder = checkpoint.resolve(tokenizer)
    kind = "latent" if checkpoint.describe(folder)["kind"] == "latent" else "vq"
    model = checkpoint.load(folder, kind).requires_grad_(False).to(device)
    encoder = encoders.load(text_encoder).to(device) if text_encoder else None
    cut = {"centre": crop == "centre", "flip": flip, "long_captions": long_captions}
    cut |= {"min_side": min_side, "max_aspect": max_aspect}
    write(CacheWriter(pictures, model, encoder, Path(out), shapes, batch, **cut), rank, world)
