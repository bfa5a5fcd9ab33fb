"""Pictures from every source, their cache, and batches of it: what is broken is named, what is finished stays."""

import io
import json
import re
import sys
import tarfile
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import maskgil
from PIL import Image
from torch import nn

from maskgil import checkpoint
from maskgil.aspect_buckets import aspect_buckets
from maskgil.condition import Condition
from maskgil.tokenizers.vq import VQConfig, VQModel
from train.data import cache_command, cache_progress, cached_batches, image_example, image_sources
from train.data.cached_batches import CachedBatches, ImageCache, shuffled
from train.data.image_cache import CacheWriter, fill_cache

VQ = VQConfig(codebook_size=64, codebook_dim=4, channels=(32,), res_blocks=1, z_channels=32, patch=16)


class Letters(nn.Module):
    """Reads a caption letter by letter; the first number of a state is the letter."""

    width, length = 3, 20

    def tokenize(self, prompts):
        if any(len(p) > self.length for p in prompts):
            raise ValueError(f"a prompt of more than {self.length} letters")
        ids = nn.utils.rnn.pad_sequence([torch.tensor([ord(c) for c in p]) for p in prompts], batch_first=True)
        return ids, ids != 0

    def forward(self, ids, mask):
        return torch.stack([ids.float(), mask.float(), torch.ones(ids.shape)], -1) * mask[..., None]

    def encode(self, prompts):
        ids, mask = self.tokenize(prompts)
        return Condition(self(ids, mask), mask)

    def identity(self):
        return {"letters": torch.ones(1)}


def png(width: int, height: int, colour="red") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(data, "PNG")
    return data.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def shards(tmp_path) -> Path:
    """Two shards of four captioned pictures; the second lacks a caption and holds a broken picture besides."""
    for shard in range(2):
        with tarfile.open(tmp_path / f"part-{shard:02d}.tar", "w") as tar:
            for i in range(4):
                add(tar, f"{shard}{i}.png", png(64, (64, 32, 128, 64)[i]))
                if i % 2:
                    add(tar, f"{shard}{i}.txt", f"picture {i}".encode())
                else:
                    add(tar, f"{shard}{i}.json", json.dumps({"caption": f"picture {i}"}).encode())
            if shard:
                add(tar, "mute.png", png(64, 64))
                add(tar, "broken.png", png(64, 64)[:40])
                add(tar, "broken.txt", b"broken")
    return tmp_path


def maker(source: image_sources.ImageSource, out: Path, seed: int = 0, **options) -> CacheWriter:
    torch.manual_seed(seed)
    tokenizer = VQModel(VQ).eval().requires_grad_(False)
    encoder = None if source.classes else Letters()
    return CacheWriter(source, tokenizer, encoder, out, aspect_buckets(64), batch=2, **options)


def said(row: dict) -> str:
    return "".join(chr(int(c)) for c in row["states"][0, row["mask"][0], 0])


def test_shards_are_cached_once_and_read_back(shards, tmp_path, capsys):
    source = image_sources.source(str(shards / "part-{00..01}.tar"))
    fill_cache(maker(source, tmp_path / "out"))
    shown = capsys.readouterr()
    assert "mute: no caption" in shown.out and "broken: the file is not a picture that can be read" in shown.out
    cache = ImageCache.open(tmp_path / "out")
    assert {size: table.rows for size, table in cache.tables.items()} == {(64, 64): 4, (64, 32): 2, (32, 64): 2}
    assert sorted(said(cache.read((64, 64), np.array([i]))) for i in range(4)) == ["picture 0"] * 2 + ["picture 3"] * 2
    batch = cache.read((32, 64), np.array([1, 0]))
    assert batch["tokens"].shape == (2, 8) and batch["grid"] == (4, 2) and batch["mask"].all()
    picture = torch.tensor([255.0, 0, 0]).div(127.5).sub(1)[None, :, None, None].expand(1, 3, 64, 32)
    assert torch.equal(batch["tokens"][:1], maker(source, tmp_path).tokenizer.encode(picture))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.safetensors")}
    missing = sorted(before)[0]
    content = missing.read_bytes()
    missing.unlink()
    fill_cache(maker(source, tmp_path / "out"))
    assert missing.read_bytes() == content
    assert all(path == missing or path.stat().st_mtime_ns == time for path, time in before.items())


def test_processes_share_the_units(shards, tmp_path):
    source = image_sources.source(str(shards))
    fill_cache(maker(source, tmp_path / "out"), rank=0, world=2)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 1
    fill_cache(maker(source, tmp_path / "out"), rank=1, world=2)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 2


def test_shards_may_be_named_another_way_and_moved_but_not_exchanged(shards, tmp_path, monkeypatch):
    fill_cache(maker(image_sources.source(str(shards / "part-{00..01}.tar")), tmp_path / "out"), rank=0, world=2)
    monkeypatch.chdir(shards)
    fill_cache(maker(image_sources.source("part-*.tar"), tmp_path / "out"), rank=1, world=2)
    (shards / "moved").mkdir()
    for path in shards.glob("*.tar"):
        path.rename(shards / "moved" / path.name)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.safetensors")}
    fill_cache(maker(image_sources.source("moved"), tmp_path / "out"))
    assert len(before) == 2 and all(path.stat().st_mtime_ns == time for path, time in before.items())
    with tarfile.open(shards / "moved" / "part-01.tar", "w") as tar:
        add(tar, "other.png", png(512, 512) + bytes(20_000))
    fill_cache(maker(image_sources.source("moved"), tmp_path / "out"))
    files = set((tmp_path / "out").glob("*.safetensors"))
    assert len(files) == 2 and len(files & before.keys()) == 1, "the one of the exchanged shard is made anew"


def test_a_shard_that_says_a_thing_twice(tmp_path):
    """webdataset refuses it; here the first is taken and the second named."""
    with tarfile.open(tmp_path / "part.tar", "w") as tar:
        for name, data in (("a.png", png(64, 64)), ("a.txt", b"first"), ("a.TXT", b"second"), ("b.png", png(64, 64)),
                           ("b.txt", b"b")):  # fmt: skip
            add(tar, name, data)
    missed = []
    found = list(image_sources.source(str(tmp_path)).read(0, missed.append))
    assert [p.caption for p in found] == ["first", "b"] and len(missed) == 1 and "a.TXT: duplicate" in missed[0]


def test_progress_is_seen_within_units_and_after_the_first(tmp_path, monkeypatch, capsys):
    """A unit may take hours: how far it is, and when all will be done, is said meanwhile."""

    class Eager(cache_progress.tqdm):
        def __init__(self, **options):
            super().__init__(**(options | {"mininterval": 0}))

    rng = np.random.default_rng(0)
    for shard in range(2):
        with tarfile.open(tmp_path / f"part-{shard}.tar", "w") as tar:
            for i in range(4):
                noise = io.BytesIO()
                Image.fromarray(rng.integers(256, size=(64, 64, 3), dtype=np.uint8)).save(noise, "PNG")
                add(tar, f"{i}.png", noise.getvalue())
                add(tar, f"{i}.txt", b"noise")
    monkeypatch.setattr(cache_progress, "tqdm", Eager)
    fill_cache(maker(image_sources.source(str(tmp_path)), tmp_path / "out"))
    shown = re.findall(r"([\d.]+) of 2 units \[[\d:]+<([\d:?]+)", capsys.readouterr().err)
    for unit in (0, 1):
        within = [left for done, left in shown if unit < float(done) < unit + 1]
        assert len(within) >= 2 and "?" not in within[-1]
    assert float(shown[-1][0]) == 2


def test_a_source_without_a_usable_picture_is_said_whoever_is_last(tmp_path):
    for shard in range(2):
        with tarfile.open(tmp_path / f"part-{shard}.tar", "w") as tar:
            add(tar, "mute.png", png(64, 64))
    source = image_sources.source(str(tmp_path))
    fill_cache(maker(source, tmp_path / "out"), rank=0, world=2)
    with pytest.raises(ValueError, match="no picture of the source could be used"):
        fill_cache(maker(source, tmp_path / "out"), rank=1, world=2)


def test_another_tokenizer_is_refused(shards, tmp_path):
    source = image_sources.source(str(shards))
    fill_cache(maker(source, tmp_path / "out"), rank=0, world=2)
    with pytest.raises(ValueError, match="made with another tokenizer: give another folder"):
        fill_cache(maker(source, tmp_path / "out", seed=1))


def test_a_cut_shard_gives_what_it_holds(shards, tmp_path, capsys):
    path = shards / "part-00.tar"
    path.write_bytes(path.read_bytes()[:5000])
    fill_cache(maker(image_sources.source(str(path)), tmp_path / "out"))
    assert "is cut or broken after" in capsys.readouterr().out
    assert sum(table.rows for table in ImageCache.open(tmp_path / "out").tables.values()) > 0


def captioned(path: Path, *names: str) -> None:
    """A shard of whole examples, the names of which are their captions."""
    with tarfile.open(path, "w") as tar:
        for name in names:
            add(tar, f"{name}.png", png(64, 64))
            add(tar, f"{name}.txt", name.encode())


def found_and_missed(path: Path) -> tuple[list[str], list[str]]:
    missed: list[str] = []
    return [picture.key for picture in image_sources.source(str(path)).read(0, missed.append)], missed


def test_the_picture_before_the_cut_is_kept(tmp_path):
    """Each example takes four blocks of 512 bytes: two headers, picture and caption."""
    path = tmp_path / "part.tar"
    captioned(path, "a", "b", "c")
    whole = path.read_bytes()
    assert found_and_missed(path) == (["a", "b", "c"], [])
    for blocks, kept in ((9, ["a", "b"]), (9.5, ["a", "b"]), (8, ["a", "b"]), (8.5, ["a", "b"]), (5, ["a"])):
        path.write_bytes(whole[: int(blocks * 512)])
        found, missed = found_and_missed(path)
        assert found == kept and "pictures: the rest is skipped" in missed[-1], blocks


def test_a_broken_header_is_not_taken_for_the_end(tmp_path):
    path = tmp_path / "part.tar"
    captioned(path, "a", "b", "c")
    data = bytearray(path.read_bytes())
    data[4 * 512 : 5 * 512] = b"x" * 512  # the second picture's
    path.write_bytes(data)
    found, missed = found_and_missed(path)
    assert found == ["a"] and len(missed) == 1 and "after 1 pictures: the rest is skipped" in missed[0]
    assert "no block of zeros at its end" in missed[0]


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    """From its first file on: a note in the way of its folder, and a full disk."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(png(64, 64))
    (tmp_path / "in" / "a.txt").write_text("a")
    (tmp_path / "file").write_text("in the way")
    made = maker(image_sources.source(str(tmp_path / "in")), tmp_path / "out")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(ValueError, match="could not write .*cache.json: .*free space"):
            replace(made, out=out).begin()

    def full(path: Path, content: bytes) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ValueError, match="No space left on device; .*free space"):
        made.begin()
    assert not list((tmp_path / "out").iterdir())


def test_a_full_disk_keeps_what_is_finished(shards, tmp_path, monkeypatch):
    source = image_sources.source(str(shards))
    fill_cache(maker(source, tmp_path / "out"), rank=0, world=2)
    kept = list((tmp_path / "out").glob("*.safetensors"))

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("train.data.cache_files.save_file", full)
    with pytest.raises(ValueError, match="finished files are kept: free space"):
        fill_cache(maker(source, tmp_path / "out"), rank=1, world=2)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [kept[0].name, "cache.json", "contact-sheet.png"]


def folder_of(folder: Path, captions: dict[str, str]) -> Path:
    """Pictures with .txt captions; each has a colour of its own."""
    folder.mkdir(exist_ok=True)
    for number, (name, text) in enumerate(captions.items()):
        (folder / f"{name}.png").write_bytes(png(64, 64, (number, 7, 7)))
        (folder / f"{name}.txt").write_text(text)
    return folder


def captions_in(out: Path) -> list[str]:
    cache = ImageCache.open(out)
    return sorted(said(cache.read((64, 64), np.array([row]))) for row in range(cache.tables[(64, 64)].rows))


@pytest.mark.parametrize(("what", "kept", "says"), [
    ("cut", ["a caption that never", "short"], "1 captions were cut"), ("drop", ["short"], "more than 20 letters"),
])  # fmt: skip
def test_captions_that_are_too_long_are_cut_or_dropped(tmp_path, capsys, what, kept, says):
    source = folder_of(tmp_path / "in", {"a": "short", "b": "a caption that never ends", "c": "unpronounceablenesses"})
    fill_cache(maker(image_sources.source(str(source)), tmp_path / "out", long_captions=what))
    shown = capsys.readouterr().out
    assert says in shown and ("skipped 1;" in shown) == (what == "cut")
    assert captions_in(tmp_path / "out") == kept


def test_what_was_edited_is_encoded_again_and_nothing_else(tmp_path, capsys):
    source = folder_of(tmp_path / "in", {name: f"picture {name}" for name in "abcde"})

    def run() -> str:
        fill_cache(maker(image_sources.source(str(source)), tmp_path / "out"))
        return capsys.readouterr().out

    assert "encoded 5 pictures, skipped 0" in run() and "encoded 0 pictures" in run()
    (source / "b.txt").write_text("another caption")
    assert "encoded 1 pictures, took over 4 unchanged ones" in run()
    assert captions_in(tmp_path / "out") == ["another caption", *(f"picture {name}" for name in "acde")]
    (source / "c.png").write_bytes(png(64, 64, "blue"))
    (source / "f.png").write_bytes(png(64, 64, "green"))
    (source / "f.txt").write_text("picture f")
    (source / "a.png").unlink()
    assert "encoded 2 pictures, took over 3 unchanged ones" in run()
    assert captions_in(tmp_path / "out") == ["another caption", *(f"picture {name}" for name in "cdef")]
    fresh = tmp_path / "fresh"
    fill_cache(maker(image_sources.source(str(source)), fresh))
    for path in fresh.glob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), "as if made at once"


def test_a_cache_of_another_folder_is_not_overwritten(tmp_path):
    for name in ("one", "two"):
        folder_of(tmp_path / name, {name: name})
    fill_cache(maker(image_sources.source(str(tmp_path / "one")), tmp_path / "out"))
    with pytest.raises(ValueError, match="made with another folder of pictures"):
        fill_cache(maker(image_sources.source(str(tmp_path / "two")), tmp_path / "out"))
    assert captions_in(tmp_path / "out") == ["one"]


def test_hidden_and_system_folders_are_no_classes(tmp_path, capsys):
    for name in ("ant", "bee", ".ipynb_checkpoints", "__MACOSX", "@eaDir", "empty"):
        (tmp_path / "in" / name).mkdir(parents=True)
        if name != "empty":
            (tmp_path / "in" / name / "a.png").write_bytes(png(64, 64))
    (tmp_path / "in" / "ant" / "._a.png").write_bytes(b"AppleDouble")
    source = image_sources.source(str(tmp_path / "in"))
    assert source.classes == ["ant", "bee"]
    fill_cache(maker(source, tmp_path / "out"))
    shown = capsys.readouterr().out
    assert "empty: no picture, so that it is no class" in shown and "encoded 2 pictures, skipped 1" in shown


def test_captions_as_other_tools_write_them(tmp_path):
    kinds = {
        "a.caption": b"a caption", "b.TXT": b"b TXT", "c.json": b'\xef\xbb\xbf{"text": "c with a mark"}',
        "d.json": b'["d first", "d second"]', "e.txt": "e in UTF-16".encode("utf-16"), "f.json": b'{"caption": ["f"]}',
    }  # fmt: skip
    for name, data in kinds.items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / f"{name[0]}.png").write_bytes(png(64, 64))
    missed = []
    found = [picture.caption for picture in image_sources.source(str(tmp_path)).read(0, missed.append)]
    assert found == ["a caption", "b TXT", "c with a mark", "d first", "e in UTF-16", "f"] and not missed


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_captions_in_one_metadata_file(tmp_path, name):
    for picture in ("a.png", "sub/b.png", "c.png"):
        (tmp_path / picture).parent.mkdir(exist_ok=True)
        (tmp_path / picture).write_bytes(png(64, 64))
    rows = [{"file_name": "a.png", "text": "one, with a comma"}, {"file_name": "sub/b.png", "text": "two"}]
    if name.endswith("csv"):
        text = "file_name,text\n" + "".join(f'{row["file_name"]},"{row["text"]}"\n' for row in rows)
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / name).write_text(text)
    missed, source = [], image_sources.source(str(tmp_path))
    assert [p.caption for p in source.read(0, missed.append)] == ["one, with a comma", "two"]
    assert len(missed) == 1 and "no caption: c.txt is missing" in missed[0]
    (tmp_path / name).write_text("nonsense\n")
    with pytest.raises(ValueError, match="needs a file_name and a text"):
        image_sources.source(str(tmp_path))


def test_pictures_too_small_or_too_long_are_left_out(tmp_path, capsys):
    for name, size in (("a", (64, 64)), ("b", (1, 1)), ("c", (640, 32))):
        (tmp_path / f"{name}.png").write_bytes(png(*size))
        (tmp_path / f"{name}.txt").write_text(name)
    fill_cache(maker(image_sources.source(str(tmp_path)), tmp_path / "out"))
    shown = capsys.readouterr().out
    assert f"{tmp_path / 'b.png'}: 1x1 is less than 16 pixels a side" in shown, "the file is named"
    assert "640x32 is longer than 10 times" in shown
    assert captions_in(tmp_path / "out") == ["a"]


def test_sixteen_bits_and_transparent_colours():
    def encoded(image: Image.Image, **options) -> bytes:
        data = io.BytesIO()
        image.save(data, "PNG", **options)
        return data.getvalue()

    grey = Image.fromarray(np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16))
    shown = np.asarray(image_example.open_example(encoded(grey)))[..., 0].ravel()
    assert np.abs(shown.astype(int) - np.arange(256)).max() <= 1
    clear = Image.new("RGB", (4, 4), (0, 0, 0))
    clear.putpixel((1, 1), (200, 0, 0))
    pixels = image_example.open_example(encoded(clear, transparency=(0, 0, 0)))
    assert pixels.getpixel((0, 0)) == (255, 255, 255) and pixels.getpixel((1, 1)) == (200, 0, 0)


def test_batches_hold_no_picture_twice_and_an_index_answers_for_the_files(tmp_path, monkeypatch):
    source = folder_of(tmp_path / "in", {name: f"picture {name}" for name in "abcde"})
    (source / "wide.png").write_bytes(png(128, 64))
    (source / "wide.txt").write_text("wide")
    fill_cache(maker(image_sources.source(str(source)), tmp_path / "out"))
    data = CachedBatches(str(tmp_path / "out"), 4)
    sizes = sorted(len(data(index)["tokens"]) for index in range(3))
    assert sizes == [1, 1, 4], "4 and 1 of one shape, 1 of the other"
    every = torch.cat([data(index)["numbers"] for index in range(6)])
    assert len(every.unique()) == len(every) == 12
    monkeypatch.setattr(cached_batches, "_rows", lambda path: pytest.fail(f"{path} was opened"))
    assert ImageCache.open(tmp_path / "out").tables[(64, 64)].rows == 5


def test_a_caption_without_a_picture_is_named_and_the_rest_is_kept(tmp_path, capsys):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.png").write_bytes(png(64, 64))
    for name in ("a", "alone"):
        (folder / f"{name}.txt").write_text(name)
    with tarfile.open(tmp_path / "part.tar", "w") as tar:
        add(tar, "a.png", png(64, 64))
        add(tar, "a.txt", b"a")
        add(tar, "alone.txt", b"alone")
    (folder / "lonely.json").write_text('{"caption": "lonely"}')
    for source, says in ((folder, "no picture beside this caption"), (tmp_path / "part.tar", "alone: no picture")):
        out = tmp_path / f"out-{source.name}"
        fill_cache(maker(image_sources.source(str(source)), out))
        shown = capsys.readouterr().out
        assert says in shown and "alone" in shown and ("lonely.json: no picture beside" in shown) == source.is_dir()
        assert f"encoded 1 pictures, skipped {2 if source.is_dir() else 1}" in shown
        assert ImageCache.open(out).tables[(64, 64)].rows == 1


def test_a_class_beside_a_caption_in_a_shard_changes_nothing(tmp_path):
    """Shards are read for their captions; many carry a .cls too."""
    with tarfile.open(tmp_path / "part.tar", "w") as tar:
        for name, data in (("a.png", png(64, 64)), ("a.cls", b"3"), ("a.txt", b"a dog"), ("b.png", png(64, 64)),
                           ("b.cls", b"3")):  # fmt: skip
            add(tar, name, data)
    missed = []
    found = list(image_sources.source(str(tmp_path / "part.tar")).read(0, missed.append))
    assert [(p.caption, p.label) for p in found] == [("a dog", None)]
    assert len(missed) == 1 and missed[0].endswith("b: no caption")


def test_a_folder_a_class(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "in" / name / f"{i}.png").write_bytes(png(64, 64))
    source = image_sources.source(str(tmp_path / "in"))
    assert source.classes == ["cat", "dog"]
    fill_cache(maker(source, tmp_path / "out"))
    batch = CachedBatches(str(tmp_path / "out"), 6)(0)
    assert sorted(batch["labels"].tolist()) == [0, 0, 0, 1, 1, 1] and batch["numbers"].tolist() == list(range(6))
    with pytest.raises(ValueError, match="have classes, not captions"):
        fill_cache(
            CacheWriter(source, maker(source, tmp_path).tokenizer, Letters(), tmp_path / "other", aspect_buckets(64))
        )


class Rows(list):
    """A table of the hub, as far as it is read here: pictures may be had as they lie there, unopened."""

    column_names = ["image", "text"]

    def cast_column(self, name, kind):
        assert (name, kind) == ("image", "encoded")
        return self


def test_a_hub_dataset_by_name(monkeypatch, tmp_path):
    """A broken picture, a missing one and one without words cost their rows alone; transparent ones lie on white."""
    clear = io.BytesIO()
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(clear, "PNG")
    (tmp_path / "beside.png").write_bytes(png(64, 64))
    entries = [
        ({"bytes": png(64, 64), "path": None}, "one"), ({"bytes": png(64, 64)[:-30], "path": None}, "two"),
        ({"bytes": png(64, 64), "path": None}, " "), (None, "four"), ({"bytes": clear.getvalue(), "path": "x"}, "five"),
        ({"bytes": None, "path": str(tmp_path / "beside.png")}, "six"), ({"bytes": None, "path": "gone.png"}, "seven"),
    ]  # fmt: skip
    rows = Rows({"image": image, "text": text} for image, text in entries)
    hub = types.SimpleNamespace(load_dataset=lambda name, split: rows, Image=lambda decode: decode or "encoded")
    monkeypatch.setitem(sys.modules, "datasets", hub)
    missed = []
    found = {p.caption: p for p in image_sources.source("hf:owner/name").read(0, missed.append)}
    assert list(found) == ["one", "five", "six"] and found["five"].image.getpixel((0, 0)) == (255, 255, 255)
    assert [line.split(":")[0] for line in missed] == ["row 1", "row 2", "row 3", "row 6"]
    assert "the picture is damaged or cut short" in missed[0]
    assert missed[1:3] == ["row 2: no caption", "row 3: no picture"]
    monkeypatch.setattr(Rows, "cast_column", lambda self, name, kind: 1 / 0)
    with pytest.raises(ValueError, match="the column image of owner/name holds no pictures"):
        image_sources.source("hf:owner/name")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="pip install datasets"):
        image_sources.source("hf:owner/name")


@pytest.mark.parametrize("text, says", [
    ("{}", "holds no pictures"), ("{}/nowhere", "no pictures at"), ("{}/{{0..3}}.tar", "4 of 4 shards are missing"),
])  # fmt: skip
def test_nothing_there_is_one_clear_line(tmp_path, text, says):
    with pytest.raises(ValueError, match=says):
        image_sources.source(text.format(tmp_path))


def test_the_command(shards, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cache_command.encoders, "load", lambda name: Letters())
    checkpoint.save(tmp_path / "vq", VQModel(VQ), "vq", VQ.to_dict())
    out = tmp_path / "out"
    options = [f"--source={shards}", f"--tokenizer={tmp_path / 'vq'}", "--text-encoder=x", f"--out={out}", "--size=64"]
    maskgil("data", "images", *options)
    assert "encoded 8 pictures, skipped 2" in capsys.readouterr().out
    with pytest.raises(ValueError, match="unknown: --colour=red"):
        maskgil("data", "images", "--colour=red", "--source=a", "--tokenizer=b", "--out=c")


@pytest.mark.parametrize("n", [1, 2, 7, 64, 1000])
def test_shuffling_is_a_permutation(n):
    for key in (0, 5):
        assert sorted(shuffled(np.arange(n), n, key).tolist()) == list(range(n))
    assert n < 64 or shuffled(np.arange(n), n, 0).tolist() != shuffled(np.arange(n), n, 5).tolist()


def test_an_epoch_is_every_picture_and_batches_never_mix_shapes(shards, tmp_path):
    fill_cache(maker(image_sources.source(str(shards)), tmp_path / "out"))
    data = CachedBatches(str(tmp_path / "out"), 2, seed=3)
    for epoch in range(2):
        seen = [data(epoch * 4 + i) for i in range(4)]  # 4, 2 and 2 pictures
        assert sorted(batch["grid"] for batch in seen) == [(2, 4), (4, 2), (4, 4), (4, 4)]
    again = data(5)
    assert all(torch.equal(again[k], data(5)[k]) for k in ("tokens", "states", "mask", "numbers"))


def test_a_photograph_stands_as_its_camera_was_held():
    """But for ImageNet's, which everybody takes as they lie in the file."""
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # orientation: turned by a quarter
    photo = Image.new("RGB", (40, 20), "blue")
    photo.paste((255, 0, 0), (0, 0, 40, 10))
    photo.save(out, "JPEG", exif=exif, quality=95)
    turned, lying = (image_example.open_example(out.getvalue(), upright=upright) for upright in (True, False))
    assert turned.size == (20, 40) and lying.size == (40, 20)
    assert turned.getpixel((15, 20))[0] > 200 and turned.getpixel((4, 20))[2] > 200


def test_notes_that_are_cut_do_not_break_a_picture():
    """It stands as it lies."""
    for kind in ("PNG", "WEBP"):
        for note in (b"II*\0\x08\0", b"nonsense"):
            out = io.BytesIO()
            Image.new("RGB", (40, 20), "blue").save(out, kind, exif=b"Exif\0\0" + note)
            assert image_example.open_example(out.getvalue()).size == (40, 20)


def test_options_are_checked_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match="crops=65"):
        cache_command.cache_images("nowhere", "nowhere", str(tmp_path), crops=65)
