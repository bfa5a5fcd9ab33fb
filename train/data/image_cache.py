"""Tokens and text states of pictures, computed once: `maskgil data images --source ... --tokenizer ... --out ...`.

Many processes share the work: torchrun --nproc_per_node 8 -m app data images ...

Axes: n pictures, N tokens, C channels, T text tokens of all n one after the other, E width of a text state.
A cache is `cache.json` (what made it) and a file for each unit of the source, written whole: for each bucket
`WxH/tokens` (n, N) uint16, then `WxH/states` (T, E) bfloat16 with `WxH/ends` (n,), or `WxH/labels` (n,). Latents are
(n, N, C) float16, scaled to a deviation of about 1: the posterior's means as `tokens`, with its deviations as `std`
where there is one (KL, not DC-AE). Batches are drawn from the posterior anew each time.

A file that is there is done: started again, the same command makes only what is missing. Training reads the files where
they lie.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

import text_encoder as encoders
from maskgil import checkpoint
from maskgil.aspect_buckets import Size, aspect_buckets, fit_to_bucket, nearest_bucket
from maskgil.generator import Tokenizer
from maskgil.tokenizers.autoencoder import SURE, AutoencoderTokenizer, validate_scale
from train.data.cache_files import write_note, write_shard
from train.data.image_sources import ImageExample, ImageSource
from train.data.image_sources import source as image_source

NOTE = "cache.json"
CUT = ("crop", "flip")  # of a cache's note: how its pictures were cut, which caches of one model may differ in
SHOWN = 5  # faults of a unit that are named one by one


@dataclass
class _Bucket:
    """What was encoded of one bucket, and what waits for a full batch."""

    waiting: list[tuple[Tensor, ImageExample]] = field(default_factory=list)
    encoded: list[dict[str, Tensor]] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class CacheWriter:
    """Turns units of a source into files of a cache. Without a text encoder the pictures' classes are kept.

    batch   pictures encoded at once
    centre  whether pictures are cut in the middle;  flip: whether each is there a second time, mirrored
    """

    source: ImageSource
    tokenizer: Tokenizer
    encoder: encoders.TextEncoder | None
    out: Path
    shapes: list[Size]
    batch: int = 32
    centre: bool = False
    flip: bool = False

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
        note, path = json.loads(json.dumps(self.note())), self.out / NOTE
        if path.is_file():
            held = json.loads(path.read_text())
            if other := [key.replace("_", " ") for key in note | held if held.get(key) != note.get(key)]:
                raise ValueError(
                    f"{self.out} was made with another {' and '.join(other)}: give another folder, or delete it"
                )
        known = {self.path(unit).name for unit in range(len(self.source.names))}
        if strange := sorted(f.name for f in self.out.glob("*.safetensors") if f.name not in known):
            raise ValueError(
                f"{self.out} holds {len(strange)} files of pictures that the source no longer has in that place, first "
                f"{strange[0]}: delete them, or give another folder"
            )
        write_note(path, note)

    def make(self, unit: int, said: list[str]) -> Iterator[float]:
        """Encode a unit and write its file; yields after each picture the share of the unit that is read. What was
        skipped is appended to `said`.

        Raises ValueError when the disk is full, and for latents of the wrong scale: what was written before stays.
        """
        filled: dict[Size, _Bucket] = {}
        for picture in self.source.read(unit, said.append):
            if self.encoder is not None:
                try:
                    self.encoder.tokenize([picture.caption])
                except ValueError as error:  # a caption longer than the encoder reads
                    said.append(f"{self.source.names[unit]}: {picture.key}: {error}")
                    continue
            shape = nearest_bucket(picture.image.size, self.shapes)
            # where a picture is cut depends on its name alone: made again, the cache is the same
            x, y = np.random.default_rng(list(hashlib.sha256(picture.key.encode()).digest())).random(2)
            cut = np.asarray(fit_to_bucket(picture.image, shape, *((0.5, 0.5) if self.centre else (x, y))))
            bucket = filled.setdefault(shape, _Bucket())
            for seen in (cut, cut[:, ::-1]) if self.flip else (cut,):
                bucket.waiting.append((torch.from_numpy(seen.copy()), picture))
                if len(bucket.waiting) == self.batch:
                    self._encode(bucket)
            yield picture.along
        tensors = {}
        for (width, height), bucket in sorted(filled.items()):
            self._encode(bucket)
            made = self._tensors(bucket)
            if isinstance(self.tokenizer, AutoencoderTokenizer) and len(made["tokens"]) >= SURE:
                validate_scale(made["tokens"], self.tokenizer.config.scale, made.get("std"))
            tensors |= {f"{width}x{height}/{name}": tensor for name, tensor in made.items()}
        write_shard(tensors, self.path(unit), {"skipped": json.dumps(said)})

    @torch.no_grad()
    def _encode(self, bucket: _Bucket) -> None:
        if not bucket.waiting:
            return
        pixels = torch.stack([pixels for pixels, _ in bucket.waiting]).permute(0, 3, 1, 2)
        pictures = [picture for _, picture in bucket.waiting]
        device = next(iter(self.tokenizer.identity().values())).device
        bucket.encoded.append(self._encoded(pixels.to(device).float().div(127.5).sub(1)))
        if self.encoder is None:
            bucket.labels += [picture.label for picture in pictures]
        else:
            condition = self.encoder.encode([picture.caption for picture in pictures])
            bucket.states.append(condition.states[condition.mask].to("cpu", torch.bfloat16))
            bucket.lengths += condition.mask.sum(1).tolist()
        bucket.waiting.clear()

    def _encoded(self, pixels: Float[Tensor, "B 3 H W"]) -> dict[str, Tensor]:
        """What a cache keeps of pixels in [-1, 1]."""
        if not isinstance(self.tokenizer, AutoencoderTokenizer):
            return {"tokens": self.tokenizer.encode(pixels).to("cpu", torch.uint16)}
        mean, deviation = (part.to("cpu", torch.float16) for part in self.tokenizer.moments(pixels))
        return {"tokens": mean, "std": deviation} if self.tokenizer.config.family == "kl" else {"tokens": mean}

    def _tensors(self, bucket: _Bucket) -> dict[str, Tensor]:
        tensors = {name: torch.cat([part[name] for part in bucket.encoded]) for name in bucket.encoded[0]}
        if self.encoder is None:
            return tensors | {"labels": torch.tensor(bucket.labels)}
        ends = torch.tensor(bucket.lengths).cumsum(0)
        return tensors | {"states": torch.cat(bucket.states), "ends": ends}


def write(maker: CacheWriter, rank: int = 0, world: int = 1) -> None:
    """Make every file of the cache that is missing, this process its share of them; the first shows the progress."""
    maker.begin()
    units = len(maker.source.names)
    mine = [unit for unit in range(rank, units, world) if not maker.path(unit).is_file()]
    pictures, skipped, since = 0, 0, time.monotonic()

    def finished() -> int:
        return sum(maker.path(unit).is_file() for unit in range(units))

    # miniters: left out, tqdm waits after the first unit for another whole one
    bar = tqdm(
        total=units,
        initial=finished(),
        desc="encoding",
        disable=rank > 0,
        mininterval=2,
        miniters=0,
        bar_format="{l_bar}{bar}| {n:.2f} of {total} units [{elapsed}<{remaining}{postfix}]",
    )
    for unit in mine:
        said: list[str] = []
        done = finished()
        for along in maker.make(unit, said):
            pictures += 1
            rate = pictures / (time.monotonic() - since)
            bar.set_postfix_str(f"{pictures * world:,} pictures, about {rate * world:.1f}/s", refresh=False)
            # the other processes are taken to be as far in theirs
            bar.update(done + along * min(world, units - done) - bar.n)
        skipped += len(said)
        for line in said[:SHOWN]:
            tqdm.write(line)
        if len(said) > SHOWN:
            tqdm.write(f"... and {len(said) - SHOWN} more of this unit")
        if said:
            tqdm.write(f"{len(said)} skipped; to read this unit again, mend it and delete {maker.path(unit)}")
        bar.update(finished() - bar.n)
    bar.close()
    print(f"{maker.out}: process {rank + 1} of {world} encoded {pictures:,} pictures, skipped {skipped:,}")
    # Who is last sees the whole cache
    if finished() == units and not any(table.rows for table in ImageCache.open(maker.out).tables.values()):
        raise ValueError(f"no picture of the source could be used: {maker.out} stays empty")


@dataclass(frozen=True)
class BucketTable:
    """One bucket: in which file each of its rows lies. `starts[i]` is the first row of `files[i]`."""

    files: tuple[Path, ...]
    starts: np.ndarray
    rows: int


@cache
def _mapped(path: Path) -> Any:
    return safe_open(path, "pt")


@dataclass(frozen=True)
class ImageCache:
    """A cache folder, open for reading: only what a batch needs is read from the disk."""

    folder: Path
    note: dict[str, Any]
    tables: dict[Size, BucketTable]

    @staticmethod
    def open(folder: str | Path) -> "ImageCache":
        """Raises ValueError for a folder that is no cache, and for a file that is cut."""
        folder = Path(folder)
        if not (folder / NOTE).is_file():
            raise ValueError(f"{folder} is no cache of pictures: make it with maskgil data images")
        found: dict[Size, list[tuple[Path, int]]] = {}
        for path in sorted(folder.glob("*.safetensors")):
            try:
                with safe_open(path, "pt") as file:
                    for name in file.keys():  # noqa: SIM118
                        if name.endswith("/tokens"):
                            width, height = map(int, name.split("/")[0].split("x"))
                            found.setdefault((width, height), []).append((path, file.get_slice(name).get_shape()[0]))
            except SafetensorError as error:
                raise ValueError(f"{path} is cut ({error}): delete it and make the cache again") from None
        tables = {}
        for size, parts in sorted(found.items()):
            ends = np.cumsum([rows for _, rows in parts])
            tables[size] = BucketTable(tuple(p for p, _ in parts), ends - [rows for _, rows in parts], int(ends[-1]))
        return ImageCache(folder, json.loads((folder / NOTE).read_text()), tables)

    def read(self, size: Size, rows: Int[np.ndarray, " B"]) -> dict[str, Any]:
        """{"tokens" (B, N) int64, "grid", and "states" (B, L, E) with "mask" (B, L), or "labels" (B,)}.

        Latents: "tokens" (B, N, C) float32, their means where there is a "std" of the same shape.
        """
        table, side = self.tables[size], self.note["downsample"]
        parts = np.searchsorted(table.starts, rows, side="right") - 1
        prefix = f"{size[0]}x{size[1]}"
        kept = ["tokens", "std"] if self.note.get("latent", {}).get("family") == "kl" else ["tokens"]
        encoded: dict[str, list[Tensor]] = {name: [] for name in kept}
        states, labels = [], []
        for part, row in zip(parts.tolist(), rows.tolist(), strict=True):
            file, row = _mapped(table.files[part]), row - int(table.starts[part])
            for name, rows_of in encoded.items():
                rows_of.append(file.get_slice(f"{prefix}/{name}")[row : row + 1])
            if "width" in self.note:
                first = int(file.get_slice(f"{prefix}/ends")[row - 1 : row]) if row else 0
                last = int(file.get_slice(f"{prefix}/ends")[row : row + 1])
                states.append(file.get_slice(f"{prefix}/states")[first:last].float())
            else:
                labels.append(file.get_slice(f"{prefix}/labels")[row : row + 1])
        kind = torch.float32 if "latent" in self.note else torch.int64
        batch: dict[str, Any] = {name: torch.cat(rows_of).to(kind) for name, rows_of in encoded.items()}
        batch["grid"] = (size[1] // side, size[0] // side)
        if labels:
            return batch | {"labels": torch.cat(labels)}
        lengths = torch.tensor([len(state) for state in states])
        padded = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)
        return batch | {"states": padded, "mask": torch.arange(padded.shape[1]) < lengths[:, None]}


def shuffled(place: Int[np.ndarray, " B"], n: int, key: int) -> Int[np.ndarray, " B"]:
    """Where `place` in 0 .. n - 1 goes in a permutation of n that the key draws: a Feistel network on just enough bits,
    walked on while it leads outside. It needs no table, so that a billion pictures are shuffled at once."""
    half = max(1, (int(n - 1).bit_length() + 1) // 2)
    low = np.uint64((1 << half) - 1)

    def once(x: np.ndarray) -> np.ndarray:
        left, right = x >> np.uint64(half), x & low
        for turn in range(4):
            mixed = (right + np.uint64((key * 4 + turn) % 2**32)) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
            mixed *= np.uint64(0xBF58476D1CE4E5B9)
            left, right = right, left ^ ((mixed >> np.uint64(32)) & low)
        return (left << np.uint64(half)) | right

    with np.errstate(over="ignore"):
        x = once(place.astype(np.uint64))
        while (outside := x >= n).any():
            x[outside] = once(x[outside])
    return x.astype(np.int64)


@dataclass(frozen=True)
class CachedBatches:
    """Batches from caches, each of one bucket; `numbers` (B,) counts the pictures of the whole stream.

    An epoch is every picture once, in an order drawn by (seed, epoch); the last batch of a bucket is filled up with
    pictures from its beginning. Batch i is a function of (seed, i), so a run that is resumed reads on where it stopped.
    Latents are samples of the posterior, another one each time a picture comes.
    """

    folder: str
    batch: int
    seed: int = 0

    def __call__(self, index: int) -> dict[str, Any]:
        features = _opened(self.folder)
        sizes = list(features.tables)
        batches = np.array([-(-features.tables[size].rows // self.batch) for size in sizes])
        epoch, place = divmod(index, int(batches.sum()))
        key = (self.seed * 1_000_003 + epoch) * 1009
        place = int(shuffled(np.array([place]), int(batches.sum()), key)[0])
        which = int(np.searchsorted(np.cumsum(batches), place, side="right"))
        start = (place - int(batches[:which].sum())) * self.batch
        total = features.tables[sizes[which]].rows
        rows = shuffled((start + np.arange(self.batch)) % total, total, key + 1 + which)
        numbers = torch.arange(index * self.batch, (index + 1) * self.batch)
        batch = features.read(sizes[which], rows) | {"numbers": numbers}
        if "std" in batch:
            noise = np.random.default_rng([self.seed, index]).standard_normal(batch["tokens"].shape, np.float32)
            batch["tokens"] += batch.pop("std") * torch.from_numpy(noise)
        return batch


def filled(folder: str) -> ImageCache:
    """A cache, open for reading. ValueError when there is no picture in it, and as ImageCache.open."""
    opened = ImageCache.open(folder)
    if not opened.tables:
        raise ValueError(f"{folder} holds no pictures yet: run maskgil data images --out {folder} ... first")
    return opened


_opened = cache(filled)


def cache_images(
    source: str,
    tokenizer: str,
    out: str,
    text_encoder: str = "",
    size: int = 256,
    shape: Literal["any", "square"] = "any",
    crop: Literal["any", "centre"] = "any",
    flip: bool = False,
    device: str = "",
    batch: int = 32,
) -> None:
    """Encode pictures into tokens, and their captions into states, for the large recipes. Under torchrun the processes
    share the work.

    Args:
        source: WebDataset shards (part-{00..09}.tar), a folder of pictures with .txt captions, a folder of class
            folders, or a Hugging Face data set.
        tokenizer: A VQ or latent tokenizer's folder.
        out: The folder of the cache. The same command again continues there.
        text_encoder: A Hugging Face name or a folder, for captions. Left out: class folders.
        size: The size class in pixels: 256, 512, 768 or 1024.
        shape: any: all aspect-ratio buckets of the size; square: only SIZE x SIZE.
        crop: Where a picture is cut to its bucket. centre: the same on both sides, as ADM does; any: at a place that
            depends on the picture's name.
        flip: Encode every picture twice, the second time mirrored.
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
    cut = {"centre": crop == "centre", "flip": flip}
    write(CacheWriter(pictures, model, encoder, Path(out), shapes, batch, **cut), rank, world)
