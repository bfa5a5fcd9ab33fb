"""The gallery: pictures that survive a kill, found by their owner alone; and PNGs that remember how they were made."""

import io
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from app.core import png
from app.core.gallery_store import Gallery, new_owner, slug
from app.core.request import GenerationRequest
from maskgil.params import SAMPLERS, SamplingParams

ME, YOU = "me-1234567", "you-123456"


def image(shade: int = 90) -> Image.Image:
    return Image.new("RGB", (16, 8), (shade, 20, 30))


def query(prompt: str = "two cats", **settings) -> GenerationRequest:
    return GenerationRequest.read({"prompt": prompt, "seed": 3, "size": (16, 8)} | settings)


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    return Gallery(tmp_path / "gallery")


def test_what_is_kept_comes_back_with_every_setting(gallery: Gallery):
    request = query("два кота 🐈", steps=5, guidance=2.5, interval=(0.1, 0.3), negative="a dog", order="halton")
    request = replace(request, params=SamplingParams(mode="hybrid", ar_tokens=12))
    entry = gallery.add(ME, image(), request)
    again = Gallery(gallery.folder).get(ME, entry.id)
    assert again == entry and again.request == request
    read, remembered = png.read_picture(gallery.png(again))
    assert remembered == request and read.tobytes() == image().tobytes()
    assert "Drawn by: hybrid, Autoregressive tokens: 12" in png.parameters(remembered)


def test_the_newest_comes_first_and_pages_follow(gallery: Gallery):
    ids = [gallery.add(ME, image(i), query(f"cat {i}")).id for i in range(5)]
    assert [entry.id for entry in gallery.entries(ME, limit=2)] == [ids[4], ids[3]]
    assert [entry.id for entry in gallery.entries(ME, limit=2, offset=4)] == [ids[0]]
    assert gallery.count(ME) == 5


def test_search_wants_every_word_and_takes_signs_as_signs(gallery: Gallery):
    for prompt in ("a red cat", "a red dog", "100% cotton", "under_score"):
        gallery.add(ME, image(), query(prompt))
    assert [entry.prompt for entry in gallery.entries(ME, "RED cat")] == ["a red cat"]
    assert [entry.prompt for entry in gallery.entries(ME, "%")] == ["100% cotton"]
    assert [entry.prompt for entry in gallery.entries(ME, "_")] == ["under_score"]
    assert gallery.count(ME, "'; drop table pictures; --") == 0 and gallery.count(ME) == 4


def test_nobody_sees_another_ones_pictures(gallery: Gallery):
    entry = gallery.add(ME, image(), query())
    assert gallery.entries(YOU) == []
    with pytest.raises(ValueError, match="no picture"):
        gallery.get(YOU, entry.id)
    for owner in ("../me", "", "a/b", "x" * 65, "..", "short"):
        with pytest.raises(ValueError, match="no gallery id"):
            gallery.add(owner, image(), None)
    assert new_owner() != new_owner()


def test_one_shares_all_pictures_or_none(gallery: Gallery):
    first = gallery.add(ME, image(), query("a cat"))
    hidden = gallery.add(YOU, image(), query("a cat in secret"))
    assert not gallery.shares(ME) and gallery.entries(YOU, everyones=True) == []
    gallery.share(ME, True)
    gallery.share(ME, True)
    later = gallery.add(ME, image(), query("a dog"))
    for opened in (gallery, Gallery(gallery.folder)):
        assert opened.shares(ME) and not opened.shares(YOU)
        assert opened.entries(YOU, everyones=True) == opened.entries(ME, everyones=True) == [later, first]
        assert opened.count(YOU, "cat", everyones=True) == 1 and opened.entries(YOU) == [hidden]
        assert opened.get(YOU, first.id) == first
        with pytest.raises(ValueError, match="no picture"):
            opened.get(ME, hidden.id)
    gallery.share(ME, False)
    assert gallery.entries(YOU, everyones=True) == [] and gallery.count(YOU, everyones=True) == 0
    with pytest.raises(ValueError, match="no picture"):
        gallery.get(YOU, first.id)
    assert gallery.entries(ME) == [later, first]


def test_what_others_share_cannot_be_deleted(gallery: Gallery):
    mine, yours = gallery.add(ME, image(), query()), gallery.add(YOU, image(), query())
    gallery.share(YOU, True)
    with pytest.raises(ValueError, match="someone else's"):
        gallery.delete(ME, [mine, yours])
    assert gallery.entries(ME) == [mine] and gallery.entries(YOU) == [yours] and gallery.png(yours)


def test_what_is_deleted_is_gone_for_good(gallery: Gallery):
    gone, stays = gallery.add(ME, image(), query()), gallery.add(ME, image(), query())
    gallery.delete(ME, [gone])
    for opened in (gallery, Gallery(gallery.folder)):
        assert opened.entries(ME) == [stays]
        with pytest.raises(ValueError, match="gone from the disk"):
            opened.png(gone)


def test_a_zip_holds_the_pictures_by_name(gallery: Gallery):
    entries = [gallery.add(ME, image(i), query("Two cats!")) for i in range(3)]
    with zipfile.ZipFile(io.BytesIO(gallery.zip(entries, notes=False))) as bundle:
        assert sorted(bundle.namelist()) == sorted(f"two-cats-{entry.id}.png" for entry in entries)
        assert all(png.read_picture(bundle.read(name))[1] is None for name in bundle.namelist())
    assert slug("¿?") == "picture" and slug("../../etc") == "etc"


@pytest.mark.parametrize("harm", ["lost", "damaged", "emptied"])
def test_a_broken_index_is_made_again_from_the_pictures(gallery: Gallery, harm: str):
    entry = gallery.add(ME, image(), query())
    index = gallery.folder / "index.db"
    for path in gallery.folder.glob("index.db*"):
        path.unlink()
    if harm == "damaged":
        index.write_bytes(b"this is no database" * 100)
    elif harm == "emptied":
        sqlite3.connect(index).close()
    (found,) = Gallery(gallery.folder).entries(ME)
    assert (found.id, found.request) == (entry.id, entry.request)


def test_only_damage_sets_an_index_aside_and_its_journals_go_along(gallery: Gallery):
    entry = gallery.add(ME, image(), query())
    for kind in ("", "-wal", "-shm"):
        (gallery.folder / f"index.db{kind}").write_bytes(b"this is no database" * 100)
    (found,) = Gallery(gallery.folder).entries(ME)
    assert found.id == entry.id
    assert (gallery.folder / "index.damaged").read_bytes().startswith(b"this is no database")
    for left in gallery.folder.glob("index.db-*"):
        assert not left.read_bytes().startswith(b"this is")


def test_a_locked_index_is_an_error_and_no_damage(gallery: Gallery, monkeypatch: pytest.MonkeyPatch):
    entry = gallery.add(ME, image(), query())
    gallery.share(ME, True)
    monkeypatch.setattr("app.core.gallery_store.LOCK_TIMEOUT", 0.05)
    other = sqlite3.connect(gallery.folder / "index.db")
    other.execute("pragma locking_mode = exclusive")
    other.execute("begin exclusive")
    for use in (lambda: Gallery(gallery.folder), lambda: gallery.add(ME, image(), query()), lambda: gallery.count(ME)):
        with pytest.raises(ValueError, match="cannot be used .*locked"):
            use()
    other.rollback()
    other.close()
    again = Gallery(gallery.folder)
    assert again.entries(ME) == [entry] and again.shares(ME), "what was not kept is not found either"
    assert not list(gallery.folder.glob("index.damaged*"))


def test_a_folder_that_was_deleted_is_made_again(gallery: Gallery):
    gallery.add(ME, image(), query())
    shutil.rmtree(gallery.folder)
    assert gallery.entries(ME) == []
    shutil.rmtree(gallery.folder)
    entry = gallery.add(ME, image(), query("a dog"))
    assert gallery.entries(ME) == [entry] and png.read_picture(gallery.png(entry))[1] == entry.request
    shutil.rmtree(gallery.folder)
    gallery.folder.write_bytes(b"")
    for use in (lambda: gallery.add(ME, image(), query()), lambda: gallery.entries(ME)):
        with pytest.raises(ValueError, match="cannot be (kept|used)"):
            use()


def test_a_row_without_its_picture_is_dropped_and_a_foreign_file_left_out(gallery: Gallery):
    entry = gallery.add(ME, image(), query())
    gallery.path(entry).unlink()
    (gallery.pictures / ME / "notes.png").write_bytes(b"no picture")
    assert Gallery(gallery.folder).entries(ME) == []


def test_nothing_is_lost_when_the_process_is_killed_while_writing(tmp_path: Path):
    """Every picture that was said to be kept is there, whole and indexed, and nothing half-written is shown."""
    program = (
        "import sys; from pathlib import Path; from PIL import Image; from app.core.gallery_store import Gallery\n"
        "from app.core.request import GenerationRequest\n"
        f"gallery = Gallery(Path(sys.argv[1])); image = Image.effect_noise((256, 256), 90).convert('RGB')\n"
        f"while True: print(gallery.add('{ME}', image, GenerationRequest(prompt='a cat', seed=1)).id, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [process.stdout.readline().strip() for _ in range(5)]
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    said += process.stdout.read().split("\n")[:-1]
    process.wait()
    gallery = Gallery(tmp_path)
    entries = gallery.entries(ME, limit=10_000)
    assert set(said) <= {entry.id for entry in entries}
    for entry in entries:
        assert png.read_picture(gallery.png(entry))[1] == entry.request


def test_a_full_disk_keeps_nothing_and_says_so(gallery: Gallery, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.core.gallery_store.SPARE_BYTES", 2**62)
    with pytest.raises(ValueError, match="stay free"):
        gallery.add(ME, image(), query())
    monkeypatch.undo()

    def full(*args) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("maskgil.fileio.os.fsync", full)
    with pytest.raises(ValueError, match="No space left"):
        gallery.add(ME, image(), query())
    assert gallery.entries(ME) == [] and not list(gallery.pictures.rglob("*.png*"))


def test_other_tools_can_read_the_parameters():
    info = Image.open(io.BytesIO(png.encode_png(image(), query(negative="a dog", interval=(0.1, 0.3))))).info
    assert info["parameters"].splitlines()[:2] == ["two cats", "Negative prompt: a dog"]
    assert "Steps: 8" in info["parameters"] and "Size: 16x8" in info["parameters"]
    assert "t2i" not in Image.open(io.BytesIO(png.encode_png(image()))).info


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not a picture"),
        (b"PK\x03\x04 a zip", "not a picture"),
        (png.encode_png(Image.new("RGB", (200, 200), (1, 2, 3)))[:-30], "damaged"),
        (png.encode_png(Image.new("RGB", (17000, 1))), "17000x1"),
        (b"\x89PNG\r\n\x1a\n" + bytes(png.MAX_BYTES), "at most 32 MB"),
    ],
)
def test_what_is_no_whole_png_is_refused(data: bytes, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        png.read_picture(data)


@pytest.mark.parametrize("note", ["", "{", "[]", '{"prompt": 3}', '{"prompt": "a", "seed": "x"}', '{"size": 3}'])
def test_notes_that_cannot_be_read_are_no_notes(note: str):
    assert png.settings_of({png.METADATA_KEY: note}) is None
    known = png.settings_of({png.METADATA_KEY: '{"prompt": "a cat", "seed": 1, "later": true}'})
    of_then = replace(SAMPLERS["guided"], refinement_passes=0)
    assert known == GenerationRequest("a cat", 1, params=of_then), "what notes did not speak of then"


def test_a_sheet_holds_every_picture():
    sheet = png.grid([image(i) for i in range(5)], gap=2)
    assert sheet.size == (3 * 16 + 2 * 2, 2 * 8 + 2)
    assert sheet.getpixel((18, 0))[:3] == (1, 20, 30) and sheet.getpixel((17, 0))[3] == 0


def test_search_ignores_case_and_accents_in_any_alphabet(gallery: Gallery):
    for prompt in ("Café au lait", "ΚΌΣΜΟΣ", "Straße", "КОТ"):
        gallery.add(ME, image(), query(prompt))
    for search, prompt in (("CAFE", "Café au lait"), ("κοσμος", "ΚΌΣΜΟΣ"), ("STRASSE", "Straße"), ("кот", "КОТ")):
        assert [entry.prompt for entry in gallery.entries(ME, search)] == [prompt]


def test_stars_are_the_viewers_own_and_come_first_when_asked(gallery: Gallery):
    first, second = gallery.add(ME, image(), query("b")), gallery.add(ME, image(), query("a"))
    gallery.star(ME, [first.id], True)
    assert [entry.id for entry in gallery.entries(ME, sort="starred")] == [first.id, second.id]
    assert [entry.id for entry in gallery.entries(ME, starred=True)] == [first.id]
    assert [entry.id for entry in gallery.entries(ME, sort="prompt")] == [second.id, first.id]
    assert [entry.id for entry in gallery.entries(ME, sort="oldest")] == [first.id, second.id]
    assert gallery.count(YOU, starred=True) == 0
    gallery.star(ME, [first.id], False)
    assert gallery.count(ME, starred=True) == 0
    with pytest.raises(ValueError, match="choose one of newest"):
        gallery.entries(ME, sort="size")


def test_pictures_of_one_seed_stand_together_and_those_without_one_come_last(gallery: Gallery):
    brought = gallery.add(ME, image(), None)
    seeds = (10, 9, 10)
    late, early, later = (gallery.add(ME, image(), GenerationRequest("a cat", seed)) for seed in seeds)
    found = [entry.id for entry in gallery.entries(ME, sort="seed")]
    assert found == [early.id, later.id, late.id, brought.id]


def test_what_is_discarded_can_be_restored_for_a_day(gallery: Gallery):
    kept, other = gallery.add(ME, image(), query("a cat")), gallery.add(ME, image(), query("a dog"))
    data = gallery.png(kept)
    gallery.discard(ME, [kept])
    assert gallery.entries(ME) == [other] and Gallery(gallery.folder).entries(ME) == [other]
    with pytest.raises(ValueError, match="deleted for good"):
        gallery.restore(YOU, [kept.id])
    (back,) = gallery.restore(ME, [kept.id])
    assert (back.id, back.request) == (kept.id, kept.request) and gallery.png(back) == data
    gallery.discard(ME, [kept, other])
    long_ago = time.time() - 25 * 3600
    for path in (gallery.folder / "trash").rglob("*.png"):
        os.utime(path, (long_ago, long_ago))
    Gallery(gallery.folder)
    with pytest.raises(ValueError, match="deleted for good"):
        gallery.restore(ME, [kept.id])
    with pytest.raises(ValueError, match="deleted for good"):
        gallery.restore(ME, ["../../index"])


TRAPS = {
    "a dangling link": lambda path: path.symlink_to("/nonexistent"),
    "a link in a loop": lambda path: path.symlink_to(path.name),
    "a link to a picture elsewhere": lambda path: path.symlink_to(next(path.parent.glob("*.png"))),
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "a sparse file of 6 GB": lambda path: (path.touch(), os.truncate(path, 6 * 2**30)),
    "an empty file": lambda path: path.touch(),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("trap", TRAPS)
def test_an_odd_entry_in_the_folder_closes_nothing(tmp_path: Path, trap: str, caplog: pytest.LogCaptureFixture):
    kept = Gallery(tmp_path).add("visitor-trap", image(), query())
    TRAPS[trap](tmp_path / "pictures" / "visitor-trap" / "trap.png")
    gallery = Gallery(tmp_path)
    assert [entry.id for entry in gallery.entries("visitor-trap")] == [kept.id]
    assert [record.message for record in caplog.records if "trap.png" in record.message]


def test_the_index_of_another_program_is_set_aside(tmp_path: Path):
    kept = Gallery(tmp_path).add("visitor-trap", image(), query())
    for path in tmp_path.glob("index.db*"):
        path.unlink()
    with sqlite3.connect(tmp_path / "index.db") as index:
        index.execute("create table pictures (a)")
    index.close()
    assert [entry.id for entry in Gallery(tmp_path).entries("visitor-trap")] == [kept.id]
    assert list(tmp_path.glob("index.damaged*"))


@pytest.mark.parametrize("value", ["[" * 100_000, "[[[", "{}", "7"])
def test_a_spoilt_row_is_shown_without_its_settings(tmp_path: Path, value: str):
    gallery = Gallery(tmp_path)
    gallery.add("visitor-trap", image(), query())
    with sqlite3.connect(tmp_path / "index.db") as index:
        index.execute("update pictures set request = ?, made = 'abc'", (value,))
    index.close()
    (entry,) = gallery.entries("visitor-trap")
    assert entry.request is None and entry.created == 0.0
