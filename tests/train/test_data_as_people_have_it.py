"""Data sets as people have them: tables, dotted names, several captions, duplicates, crops, mixtures, the report."""

import json
import multiprocessing
import resource
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_image_cache import add, maker, png, said

from train.data import image_sources
from train.data.cache_files import write_note, write_shard
from train.data.cache_report import REPORT, SHEET, histogram, reason
from train.data.cached_batches import NOTE, CachedBatches, ImageCache
from train.data.image_cache import fill_cache
from train.data.long_captions import with_shuffled_tags
from train.data.mixed_batches import CYCLE, MixedBatches, common_note, data_batches, parts_of


def captions(folder: Path, size: tuple[int, int] = (64, 64), picks: float = 0.0) -> list[str]:
    """The caption of each row of a bucket that `picks` chooses."""
    cache = ImageCache.open(folder)
    rows = range(cache.tables[size].rows)
    return sorted(said(cache.read(size, np.array([row]), np.array([picks]))) for row in rows)


def pictures(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(png(64, 64, (number * 40, 10, 10)))


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_tables_name_pictures_wherever_they_lie(tmp_path, kind):
    pictures(tmp_path / "in", "a.png", "sub/b.png")
    pictures(tmp_path / "other", "c.png")
    rows = [
        {"path": "in/a.png", "text": "a cat, red"},
        {"path": "in/sub/b.png", "text": "a dog"},
        {"path": str(tmp_path / "other" / "c.png"), "text": "a cow"},
        {"path": "in/gone.png", "text": "nothing"},
        {"path": "in/a.png", "text": "one more cat"},
    ]
    table = tmp_path / f"pictures.{kind}"
    if kind == "parquet":
        pandas = pytest.importorskip("pandas")
        pandas.DataFrame(rows).to_parquet(table)
    elif kind == "jsonl":
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = "\t" if kind == "tsv" else ","
        quoted = [[f'"{value}"' for value in row.values()] for row in rows]
        table.write_text("\n".join(mark.join(row) for row in [["path", "text"], *quoted]))
    fill_cache(maker(image_sources.source(str(table)), tmp_path / "out"))
    assert captions(tmp_path / "out") == ["a cat, red", "a cow", "a dog"]
    assert captions(tmp_path / "out", picks=0.99) == ["a cow", "a dog", "one more cat"]
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    assert report["pictures"] == 3 and report["captions"] == 4 and report["left out"] == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "a,b\n1,2\n", "needs a file_name and a text in each row"),
        ("t.jsonl", '{"path": "a.png"}\n', "needs a file_name and a text"),
        ("t.jsonl", "{", "needs a file_name and a text"),
        ("t.parquet", "no parquet", "no whole parquet file"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        image_sources.source(str(tmp_path / name))


def test_several_captions_of_a_picture_are_all_kept_and_taken_in_turn(tmp_path):
    pictures(tmp_path / "in", "a.png", "b.png")
    (tmp_path / "in" / "a.json").write_text(json.dumps({"captions": ["a cat", "one cat", "a cat", "a pet"]}))
    (tmp_path / "in" / "b.json").write_text(json.dumps(["a dog", "one dog"]))
    fill_cache(maker(image_sources.source(str(tmp_path / "in")), tmp_path / "out"))
    assert captions(tmp_path / "out") == ["a cat", "a dog"]
    assert captions(tmp_path / "out", picks=0.6) == ["one cat", "one dog"]
    seen = {said({k: v[i : i + 1] for k, v in batch.items() if k in ("states", "mask")})
            for batch in map(CachedBatches(str(tmp_path / "out"), 2), range(40)) for i in range(2)}  # fmt: skip
    assert seen == {"a cat", "one cat", "a pet", "a dog", "one dog"}
    # what is stored is taken over with all its captions
    pictures(tmp_path / "in", "c.png")
    (tmp_path / "in" / "c.txt").write_text("a cow")
    fill_cache(maker(image_sources.source(str(tmp_path / "in")), tmp_path / "out"))
    assert captions(tmp_path / "out", picks=0.99) == ["a cow", "a pet", "one dog"]


def test_tags_are_shuffled_into_further_captions():
    given = ("cat, red, night", "a red cat at night")
    made = with_shuffled_tags(given, 6, "a")
    assert made[:2] == given and 3 <= len(made) <= 8 and len(set(made)) == len(made)
    assert all(sorted(text.split(", ")) == ["cat", "night", "red"] for text in made[2:])
    assert with_shuffled_tags(given, 6, "a") == made and with_shuffled_tags(given, 0, "a") == given
    assert with_shuffled_tags(("a red cat",), 6, "a") == ("a red cat",)


def test_names_with_dots_in_shards(tmp_path, capsys):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, words in (("IMG_0.5x", "half"), ("IMG_0.7x", "more"), ("plain", "plain")):
            add(tar, f"{name}.png", png(64, 64, len(words) * 20))
            add(tar, f"{name}.txt", words.encode())
        add(tar, "seg.png", png(64, 64))
        add(tar, "seg.mask.png", png(64, 64, "blue"))
        add(tar, "seg.txt", b"segmented")
    fill_cache(maker(image_sources.source(str(tmp_path / "a.tar")), tmp_path / "out"))
    assert captions(tmp_path / "out") == ["half", "more", "plain", "segmented"]
    assert "skipped 0" in capsys.readouterr().out


def test_duplicates_are_dropped_by_their_file(tmp_path, capsys):
    pictures(tmp_path / "in", "a.png", "b.png")
    (tmp_path / "in" / "c.png").write_bytes((tmp_path / "in" / "a.png").read_bytes())
    for name in "abc":
        (tmp_path / "in" / f"{name}.txt").write_text(name)
    fill_cache(maker(image_sources.source(str(tmp_path / "in")), tmp_path / "kept"))
    fill_cache(maker(image_sources.source(str(tmp_path / "in")), tmp_path / "out", drop_duplicates=True))
    assert captions(tmp_path / "kept") == ["a", "b", "c"] and captions(tmp_path / "out") == ["a", "b"]
    assert "the same picture was there before" in capsys.readouterr().out


def test_several_crops_are_rows_of_their_own(tmp_path):
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (64, 400, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "a.txt").write_text("noise")
    fill_cache(maker(image_sources.source(str(tmp_path / "in")), tmp_path / "out", crops=4, flip=True))
    ((size, table),) = ImageCache.open(tmp_path / "out").tables.items()
    tokens = ImageCache.open(tmp_path / "out").read(size, np.arange(8))["tokens"]
    assert table.rows == 8 and len({tuple(row.tolist()) for row in tokens}) > 4


def test_the_report_says_what_was_taken_and_why_the_rest_was_not(tmp_path, capsys):
    pictures(tmp_path / "in", "a.png", "b.png", "mute.png", "small.png")
    (tmp_path / "in" / "small.png").write_bytes(png(8, 64))
    for name, words in (("a", "a cat"), ("b", "a longer one"), ("small", "small")):
        (tmp_path / "in" / f"{name}.txt").write_text(words)
    fill_cache(maker(image_sources.source(str(tmp_path / "in")), tmp_path / "out"))
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    assert report["pictures"] == 2 and report["sizes"] == {"64x64": 2} and sum(report["caption tokens"].values()) == 2
    assert report["left out by reason"] == {"mute.txt is missing": 1, "NxN is less than N pixels a side": 1}
    shown = capsys.readouterr().out
    assert "the cache holds 2 pictures; left out 2" in shown and "tokens of 2 captions" in shown
    with Image.open(tmp_path / "out" / SHEET) as sheet:
        assert sheet.width == 2 * 168


def test_histograms_and_reasons():
    assert histogram([]) == {} and histogram([3, 3, 4]) == {"3": 2, "4": 1}
    assert sum(histogram(range(100)).values()) == 100 and len(histogram(range(100))) <= 8
    assert reason("in/7 (2).png: the picture is damaged (chunk: cut at 12)") == "the picture is damaged"


def made_up_cache(folder: Path, sizes: list[int], first: int = 0, note: str = "x") -> int:
    """A cache of made-up tokens, each a number of its own; returns how many."""
    write_note(
        folder / NOTE, {"tokenizer": note, "codes": 64, "downsample": 16, "shapes": [[32, 32]], "classes": ["a"]}
    )
    for shard, rows in enumerate(sizes):
        numbers = torch.arange(first, first + rows)
        digits = torch.stack([numbers // 64**k % 64 for k in range(4)], 1).to(torch.uint16)
        tensors = {"32x32/tokens": digits, "32x32/labels": torch.zeros(rows, dtype=torch.long)}
        write_shard(tensors, folder / f"{shard:06d}-{first}.safetensors")
        first += rows
    return first


def numbers_of(batch: dict) -> list[int]:
    return (batch["tokens"] * 64 ** torch.arange(4)).sum(1).tolist()


def test_caches_are_mixed_by_their_weights(tmp_path):
    made_up_cache(tmp_path / "a", [40, 10])
    made_up_cache(tmp_path / "b", [7], first=1000)
    data = f"{tmp_path / 'a'}:3, {tmp_path / 'b'}:1"
    mixed = data_batches(data, 2, seed=5)
    assert isinstance(mixed, MixedBatches)
    read = [numbers_of(mixed(i)) for i in range(CYCLE)]
    of_b = [batch for batch in read if batch[0] >= 1000]
    assert len(of_b) == 250 and len(read[0]) == 2
    alone = [numbers_of(CachedBatches(str(tmp_path / "b"), 2, 5)(i)) for i in range(250)]
    assert of_b == alone, "each cache is read as if it were alone"
    assert mixed(12)["numbers"].tolist() == [24, 25] and numbers_of(mixed(CYCLE + 3)) == numbers_of(
        data_batches(data, 2, seed=5)(CYCLE + 3)
    )
    assert parts_of(f"{tmp_path / 'a'}") == [(str(tmp_path / "a"), 0.0)]
    by_size = data_batches(f"{tmp_path / 'a'},{tmp_path / 'b'}", 2)
    assert np.bincount(by_size.pattern).tolist() == [877, 123]
    for wrong, message in (("a:0,b:1", "positive"), ("a:x,b:1", "positive"), ("a:1,a:2", "twice"), ("a,b:1", "none")):
        with pytest.raises(ValueError, match=message):
            parts_of(wrong)
    made_up_cache(tmp_path / "c", [3], note="y")
    with pytest.raises(ValueError, match="differ in tokenizer"):
        common_note([str(tmp_path / "a"), str(tmp_path / "c")], ())


def _read_epoch(folder: str, rank: int, world: int, batches: int, batch: int, results) -> None:
    stream, seen, peaks = CachedBatches(folder, batch), [], []
    for index in range(rank, batches, world):
        seen += numbers_of(stream(index))
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    results.put((seen, peaks[len(peaks) // 2], peaks[-1]))


@pytest.mark.parametrize("data", ["", ",", "cache,", "a:2,,b:1"])
def test_a_cache_that_is_not_named_is_said(data):
    with pytest.raises(ValueError, match="names no cache at one place"):
        parts_of(data)


@pytest.mark.slow
def test_ten_thousand_pictures_and_four_processes(tmp_path):
    """40 uneven shards: each picture comes once an epoch, whoever reads it, and memory stays flat."""
    sizes = (np.random.default_rng(0).dirichlet(np.full(40, 3.0)) * 10_000).astype(int)
    sizes[0] += 10_000 - sizes.sum()
    assert made_up_cache(tmp_path, sizes.tolist()) == 10_000 and sizes.max() > 3 * sizes.min()
    batch, world = 64, 4
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    batches = -(-10_000 // batch)
    workers = [
        context.Process(target=_read_epoch, args=(str(tmp_path), rank, world, batches, batch, results))
        for rank in range(world)
    ]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=280) for _ in workers]
    for worker in workers:
        worker.join()
    seen = sorted(number for part, _, _ in found for number in part)
    assert seen == list(range(10_000))
    assert all(last < 1.1 * middle for _, middle, last in found), "memory grows while an epoch is read"
