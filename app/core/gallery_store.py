"""The gallery: one PNG file per picture, and an SQLite index of them.

    gallery/index.db              one row per picture
    gallery/pictures/<owner>/<id>.png
    gallery/trash/<owner>/<id>.png    deleted pictures, for a day, in which they can be restored

The PNG files are authoritative. A picture's file is complete before its row is written. Pictures without a row (after a
crash, or when the index was deleted) are indexed again at startup. An owner is the random id of one browser. A picture
is visible to its owner, and to everyone while the owner shares. Only the index records who shares and which pictures
are starred: if it is lost, nobody shares and nothing is starred.
"""

import io
import json
import logging
import os
import re
import secrets
import shutil
import sqlite3
import stat
import threading
import time
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from app.core import png
from app.core.request import GenerationRequest

log = logging.getLogger(__name__)

OWNER = re.compile(r"[A-Za-z0-9_-]{8,64}")
PICTURE_ID = re.compile(r"[0-9]{13}-[0-9a-f]{8}")
LIKE = re.compile(r"([%_\\])")  # the special characters of SQL's like
SPARE_BYTES = 64 * 2**20
LOCK_TIMEOUT = 30.0  # seconds to wait for another process that writes to the index
TRASH_SECONDS = 24 * 3600.0  # for which a deleted picture can be restored
SORTS = {
    "newest": "made desc, id desc",
    "oldest": "made, id",
    "prompt": "fold(prompt), made desc, id desc",
    "seed": "request is null, json_extract(request, '$.seed'), made desc, id desc",
    "starred": "starred desc, made desc, id desc",
}

SCHEMA = """
create table if not exists pictures (
    id text primary key,
    owner text not null,
    made real not null,
    prompt text not null,
    request text
);
create index if not exists by_owner on pictures (owner, made desc);
create table if not exists sharing (owner text primary key);
create table if not exists stars (owner text, id text, primary key (owner, id));
"""
STARRED = "exists (select 1 from stars where stars.owner = ? and stars.id = pictures.id)"
COLUMNS = f"id, owner, made, prompt, request, {STARRED} as starred"
SHARED = "owner in (select owner from sharing)"


@dataclass(frozen=True)
class GalleryEntry:
    """One saved picture. `created` is in seconds since 1970; `request` is None if the PNG has no metadata; `starred` is
    the viewer's."""

    id: str
    owner: str
    created: float
    prompt: str
    request: GenerationRequest | None
    starred: bool = False


class Gallery:
    """A folder of pictures. Safe to use from several threads and from several processes.

    Every method raises ValueError if the index is locked, or if the disk is full or read-only. `check`: read the folder
    now, and raise here if it cannot be used.
    """

    def __init__(self, folder: Path, check: bool = True):
        self.folder = Path(folder)
        self.pictures = self.folder / "pictures"
        self._lock = threading.Lock()
        if not check:
            return
        try:
            self._check()
        except sqlite3.DatabaseError as error:
            # Rename the damaged index and its journals; _recover builds a new one from the pictures.
            log.warning("the index of the gallery is set aside and built again: %s", error)
            for path in self.folder.glob("index.db*"):
                path.replace(path.with_name(path.name.replace("index.db", "index.damaged")))
            self._check()
        self._recover()

    def add(self, owner: str, image: Image.Image, request: GenerationRequest | None) -> GalleryEntry:
        """Save a picture. Raises ValueError, and saves nothing, if the disk is full."""
        folder = self._home(owner)
        now = time.time()
        entry = GalleryEntry(f"{int(now * 1000):013d}-{secrets.token_hex(4)}", owner, now, _prompt(request), request)
        try:
            folder.mkdir(parents=True, exist_ok=True)  # also if the whole gallery was deleted
            free = shutil.disk_usage(folder).free
            if free < SPARE_BYTES:
                left, least = free // 2**20, SPARE_BYTES // 2**20
                raise ValueError(f"the disk has {left} MB left and {least} MB stay free: delete something first")
            png.write_files({self.path(entry): png.encode_png(image, request)})
            self._record([entry])
        except OSError as error:
            raise ValueError(f"the picture cannot be kept ({error}): free some space on the disk") from error
        except ValueError:
            self.path(entry).unlink(missing_ok=True)
            raise
        return entry

    def entries(
        self,
        viewer: str,
        search: str = "",
        limit: int = 60,
        offset: int = 0,
        everyones: bool = False,
        starred: bool = False,
        sort: str = "newest",
    ) -> list[GalleryEntry]:
        """Returns the viewer's pictures, or all shared ones, whose prompt contains every search word, in an order of
        SORTS. Case and accents do not matter. `starred`: only those that the viewer has starred.

        Raises ValueError for an unknown order.
        """
        if sort not in SORTS:
            raise ValueError(f"unknown order {sort[:40]!r}: choose one of {', '.join(SORTS)}")
        where, values = _matching(viewer, search, everyones, starred)
        with self._index() as index:
            query = f"select {COLUMNS} from pictures where {where} order by {SORTS[sort]} limit ? offset ?"
            return [_entry(row) for row in index.execute(query, (viewer, *values, limit, offset))]

    def count(self, viewer: str, search: str = "", everyones: bool = False, starred: bool = False) -> int:
        where, values = _matching(viewer, search, everyones, starred)
        with self._index() as index:
            return index.execute(f"select count(*) from pictures where {where}", values).fetchone()[0]

    def star(self, viewer: str, ids: Iterable[str], starred: bool) -> None:
        """Star pictures for this viewer, or take their stars away."""
        self._home(viewer)
        change = "insert or ignore into stars values (?, ?)" if starred else "delete from stars where owner=? and id=?"
        with self._lock, self._index() as index:
            index.executemany(change, [(viewer, id) for id in ids])

    def discard(self, owner: str, entries: Iterable[GalleryEntry]) -> None:
        """Move pictures of the owner's to the trash, from which `restore` brings them back for a day.

        Raises ValueError, and moves nothing, if one belongs to another owner.
        """
        entries = self._owned(owner, entries)
        trash = self.folder / "trash" / owner
        try:
            trash.mkdir(parents=True, exist_ok=True)
            for entry in entries:
                with suppress(FileNotFoundError):
                    os.utime(self.path(entry))  # the time of its deletion
                    self.path(entry).replace(trash / f"{entry.id}.png")
        except OSError as error:
            raise ValueError(f"the pictures cannot be deleted ({error}): see to the gallery's disk") from error
        self._forget(entries)
        self._empty_trash()

    def restore(self, owner: str, ids: Iterable[str]) -> list[GalleryEntry]:
        """Bring pictures back from the trash. Raises ValueError if one is not there any more."""
        self._home(owner)
        restored = []
        for id in ids:
            path = self.folder / "trash" / owner / f"{id}.png"
            if not PICTURE_ID.fullmatch(id) or not path.is_file():
                raise ValueError(f"picture {id[:40]!r} cannot be restored: it was deleted for good after a day")
            request = png.read_picture(path.read_bytes())[1]
            entry = GalleryEntry(id, owner, int(id[:13]) / 1000, _prompt(request), request)
            self._home(owner).mkdir(parents=True, exist_ok=True)
            path.replace(self.path(entry))
            restored.append(entry)
        self._record(restored)
        return restored

    def get(self, viewer: str, id: str) -> GalleryEntry:
        """Returns a picture of the viewer's or a shared one. Raises ValueError if there is none with this id."""
        with self._index() as index:
            query = f"select {COLUMNS} from pictures where id = ? and (owner = ? or {SHARED})"
            row = index.execute(query, (viewer, id, viewer)).fetchone()
        if row is None:
            raise ValueError(f"there is no picture {id!r} in this gallery: it may have been deleted")
        return _entry(row)

    def share(self, owner: str, shared: bool) -> None:
        """Set whether everyone sees the owner's pictures, including future ones. The default is that nobody does."""
        self._home(owner)
        change = "insert or ignore into sharing values (?)" if shared else "delete from sharing where owner = ?"
        with self._lock, self._index() as index:
            index.execute(change, (owner,))

    def shares(self, owner: str) -> bool:
        with self._index() as index:
            return index.execute("select 1 from sharing where owner = ?", (owner,)).fetchone() is not None

    def png(self, entry: GalleryEntry, notes: bool = True) -> bytes:
        """Returns the PNG file, without its metadata if `notes` is False."""
        try:
            data = self.path(entry).read_bytes()
        except FileNotFoundError:
            raise ValueError(f"picture {entry.id} is gone from the disk: delete it from the gallery") from None
        return data if notes else png.encode_png(png.read_picture(data)[0])

    def delete(self, owner: str, entries: Iterable[GalleryEntry]) -> None:
        """Delete pictures of the owner's. Files go first, so that _recover cannot restore a deleted picture.

        Raises ValueError, and deletes nothing, if one belongs to another owner.
        """
        entries = self._owned(owner, entries)
        for entry in entries:
            self.path(entry).unlink(missing_ok=True)
        self._forget(entries)

    def zip(self, entries: Iterable[GalleryEntry], notes: bool = True) -> bytes:
        """Returns the pictures as one ZIP file; file names come from the prompts."""
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as bundle:
            for entry in entries:
                if self.path(entry).exists():
                    bundle.writestr(f"{slug(entry.prompt)}-{entry.id}.png", self.png(entry, notes))
        return out.getvalue()

    def path(self, entry: GalleryEntry) -> Path:
        return self._home(entry.owner) / f"{entry.id}.png"

    def _home(self, owner: str) -> Path:
        if not OWNER.fullmatch(owner):
            raise ValueError(f"{owner!r} is no gallery id: 8 to 64 letters, digits, - and _ are")
        return self.pictures / owner

    def _owned(self, owner: str, entries: Iterable[GalleryEntry]) -> list[GalleryEntry]:
        entries = list(entries)
        if any(entry.owner != owner for entry in entries):
            raise ValueError("a picture of someone else's cannot be deleted: take it out of the selection")
        return entries

    def _forget(self, entries: list[GalleryEntry]) -> None:
        with self._lock, self._index() as index:
            index.executemany("delete from pictures where id = ? and owner = ?", [(e.id, e.owner) for e in entries])

    def _empty_trash(self) -> None:
        """Delete for good what was discarded more than a day ago, of everyone."""
        oldest = time.time() - TRASH_SECONDS
        for path in (self.folder / "trash").glob("*/*.png"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def _check(self) -> None:
        with self._index() as index:
            index.execute("pragma quick_check(1)").fetchone()
            index.execute("select id, owner, made, prompt, request from pictures limit 1").fetchone()

    def _record(self, entries: Iterable[GalleryEntry]) -> None:
        rows = [
            (e.id, e.owner, e.created, e.prompt, json.dumps(e.request.to_dict()) if e.request else None)
            for e in entries
        ]
        with self._lock, self._index() as index:
            index.executemany("insert or ignore into pictures values (?, ?, ?, ?, ?)", rows)

    def _recover(self) -> None:
        """Make the index agree with the files: add rows for unindexed pictures, delete rows without a picture."""
        with self._index() as index:
            rows = {(owner, id) for owner, id in index.execute("select owner, id from pictures")}
        files = {(p.parent.name, p.stem): p for p in self.pictures.glob("*/*.png") if not p.name.startswith(".")}
        unindexed = []
        for (owner, id), path in files.items():
            if (owner, id) in rows or not OWNER.fullmatch(owner):
                continue
            try:
                request, created = _read_picture(path)
            except (OSError, ValueError) as error:
                log.warning("%s is left out of the gallery: %s", path, error)
                continue
            unindexed.append(GalleryEntry(id, owner, created, _prompt(request), request))
        if unindexed:
            self._record(unindexed)
        missing = [(id, owner) for owner, id in rows - files.keys()]
        with self._lock, self._index() as index:
            index.executemany("delete from pictures where id = ? and owner = ?", missing)
        self._empty_trash()
        hour_ago = time.time() - 3600
        for leftover in [*self.pictures.glob("*/.*.png.*"), *self.pictures.glob("*/*.png.*.partial")]:
            with suppress(OSError):
                if leftover.lstat().st_mtime < hour_ago:
                    leftover.unlink(missing_ok=True)

    @contextmanager
    def _index(self) -> Iterator[sqlite3.Connection]:
        """Open the index, creating it if needed.

        Raises ValueError if it cannot be used now, and sqlite3.DatabaseError if it is damaged.
        """
        try:
            self.pictures.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.folder / "index.db", timeout=LOCK_TIMEOUT)
            connection.create_function("fold", 1, fold, deterministic=True)
            try:
                connection.execute("pragma journal_mode = wal")
                connection.executescript(SCHEMA)
                with connection:
                    yield connection
            finally:
                connection.close()
        except (OSError, sqlite3.OperationalError) as error:
            if "no such column" in str(error) or "has no column" in str(error):  # the index of another program
                raise sqlite3.DatabaseError(str(error)) from error
            raise ValueError(
                f"the gallery in {self.folder} cannot be used ({error}): try again, free some space, or give another "
                "folder with --gallery or $MASKGIL_GALLERY"
            ) from error


def new_owner() -> str:
    """Returns a random gallery id of 144 bits."""
    return secrets.token_urlsafe(18)


def slug(prompt: str) -> str:
    """Returns a prompt as a file name: 'Two cats!' -> 'two-cats'."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60] or "picture"


def fold(text: str) -> str:
    """Returns a text without case, accents and ligatures, to compare: 'CAFÉ' -> 'cafe', 'Straße' -> 'strasse'."""
    letters = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _matching(viewer: str, search: str, everyones: bool, starred: bool) -> tuple[str, list[str]]:
    """Returns the where clause of a query, and its values."""
    words = fold(search).split()[:16]
    whose, values = (SHARED, []) if everyones else ("owner = ?", [viewer])
    clauses = [whose] + [r"fold(prompt) like ? escape '\'"] * len(words)
    values += ["%" + LIKE.sub(r"\\\1", word) + "%" for word in words]
    if starred:
        clauses.append(STARRED)
        values.append(viewer)
    return " and ".join(clauses), values


def _prompt(request: GenerationRequest | None) -> str:
    return request.prompt if request else ""


def _entry(row: tuple) -> GalleryEntry:
    id, owner, made, prompt, request, starred = row
    try:
        settings = GenerationRequest.from_metadata(json.loads(request)) if request else None
    except (TypeError, ValueError, RecursionError):
        settings = None
    created = float(made) if isinstance(made, int | float) else 0.0
    return GalleryEntry(id, owner, created, str(prompt), settings, bool(starred))


def _read_picture(path: Path) -> tuple[GenerationRequest | None, float]:
    """(the request in a picture's file, when it was written). OSError or ValueError for what is no picture of the
    gallery: a link, a folder, a pipe, a file that is too large or cannot be read."""
    about = path.lstat()
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("it is no file")
    if about.st_size > png.MAX_BYTES:
        raise ValueError(f"it has more than {png.MAX_BYTES // 2**20} MB")
    return png.read_picture(path.read_bytes())[1], about.st_mtime
