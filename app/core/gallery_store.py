"""Pictures kept on disk: one PNG per picture, found again through an SQLite index.

    gallery/index.db              one row per picture
    gallery/pictures/<owner>/<id>.png

The PNG is the truth and the index a convenience: a picture is on disk whole before its row is written, and whatever the
index misses (the process was killed between the two, the index was deleted) is read back from the PNGs at the start.
An owner is the random id of one browser; a picture is only ever found through its owner, or by everyone while the owner
shares. Who shares stands in the index alone: when that is lost, nobody does.
"""

import io
import json
import re
import secrets
import shutil
import sqlite3
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from app.core import png
from app.core.request import GenerationRequest

OWNER = re.compile(r"[A-Za-z0-9_-]{8,64}")
LIKE = re.compile(r"([%_\\])")  # what means something to SQL's like
SPARE_BYTES = 64 * 2**20
PATIENCE = 30.0  # seconds to wait for another process that writes to the index

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
"""
COLUMNS = "id, owner, made, prompt, request"
SHARED = "owner in (select owner from sharing)"


@dataclass(frozen=True)
class GalleryEntry:
    """One kept picture. `made` is in seconds since 1970; `request` is None for a picture that came without notes."""

    id: str
    owner: str
    created: float
    prompt: str
    request: GenerationRequest | None


class Gallery:
    """A folder of pictures. Safe to use from several threads and from several processes.

    Every method raises ValueError while the index cannot be used, being locked, or on a disk that is full or read-only.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.pictures = self.folder / "pictures"
        self._lock = threading.Lock()
        try:
            self._check()
        except sqlite3.DatabaseError:
            # A damaged index is only an index: set it aside, with its journals, and read the pictures again.
            for path in self.folder.glob("index.db*"):
                path.replace(path.with_name(path.name.replace("index.db", "index.damaged")))
            self._check()
        self._recover()

    def add(self, owner: str, image: Image.Image, request: GenerationRequest | None) -> GalleryEntry:
        """Keep a picture. Raises ValueError when the disk is full; nothing is kept then."""
        folder = self._home(owner)
        now = time.time()
        entry = GalleryEntry(f"{int(now * 1000):013d}-{secrets.token_hex(4)}", owner, now, _prompt(request), request)
        try:
            folder.mkdir(parents=True, exist_ok=True)  # the whole gallery too, if someone has deleted it
            free = shutil.disk_usage(folder).free
            if free < SPARE_BYTES:
                left, least = free // 2**20, SPARE_BYTES // 2**20
                raise ValueError(f"the disk has {left} MB left and {least} MB stay free: delete something first")
            png.write({self.path(entry): png.encode_png(image, request)})
            self._record([entry])
        except OSError as error:
            raise ValueError(f"the picture cannot be kept ({error}): free some space on the disk") from error
        except ValueError:
            self.path(entry).unlink(missing_ok=True)
            raise
        return entry

    def entries(
        self, viewer: str, search: str = "", limit: int = 60, offset: int = 0, everyones: bool = False
    ) -> list[GalleryEntry]:
        """Pictures whose prompt holds every word of the search, the newest first: the viewer's own, or all shared."""
        where, values = _matching(viewer, search, everyones)
        with self._index() as index:
            query = f"select {COLUMNS} from pictures where {where} order by made desc, id desc limit ? offset ?"
            return [_entry(row) for row in index.execute(query, (*values, limit, offset))]

    def count(self, viewer: str, search: str = "", everyones: bool = False) -> int:
        where, values = _matching(viewer, search, everyones)
        with self._index() as index:
            return index.execute(f"select count(*) from pictures where {where}", values).fetchone()[0]

    def get(self, viewer: str, id: str) -> GalleryEntry:
        """A picture of the viewer's, or one that is shared. Raises ValueError when there is no such one to be seen."""
        with self._index() as index:
            query = f"select {COLUMNS} from pictures where id = ? and (owner = ? or {SHARED})"
            row = index.execute(query, (id, viewer)).fetchone()
        if row is None:
            raise ValueError(f"there is no picture {id!r} in this gallery: it may have been deleted")
        return _entry(row)

    def share(self, owner: str, shared: bool) -> None:
        """Whether everyone sees the owner's pictures, those to come included. At first nobody else does."""
        self._home(owner)
        change = "insert or ignore into sharing values (?)" if shared else "delete from sharing where owner = ?"
        with self._lock, self._index() as index:
            index.execute(change, (owner,))

    def shares(self, owner: str) -> bool:
        with self._index() as index:
            return index.execute("select 1 from sharing where owner = ?", (owner,)).fetchone() is not None

    def png(self, entry: GalleryEntry, notes: bool = True) -> bytes:
        """The picture's file; without its notes when `notes` is False."""
        try:
            data = self.path(entry).read_bytes()
        except FileNotFoundError:
            raise ValueError(f"picture {entry.id} is gone from the disk: delete it from the gallery") from None
        return data if notes else png.encode_png(png.read(data)[0])

    def delete(self, owner: str, entries: Iterable[GalleryEntry]) -> None:
        """Forget pictures of the owner's: the file first, so that a picture can never come back from it.

        Raises ValueError when one is another's, and deletes none then.
        """
        entries = list(entries)
        if any(entry.owner != owner for entry in entries):
            raise ValueError("a picture of someone else's cannot be deleted: take it out of those that are picked")
        for entry in entries:
            self.path(entry).unlink(missing_ok=True)
        with self._lock, self._index() as index:
            index.executemany("delete from pictures where id = ? and owner = ?", [(e.id, e.owner) for e in entries])

    def zip(self, entries: Iterable[GalleryEntry], notes: bool = True) -> bytes:
        """The pictures as one ZIP file, named by their prompts."""
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

    def _check(self) -> None:
        with self._index() as index:
            index.execute("select count(*) from pictures").fetchone()

    def _record(self, entries: Iterable[GalleryEntry]) -> None:
        rows = [
            (e.id, e.owner, e.created, e.prompt, json.dumps(e.request.to_dict()) if e.request else None)
            for e in entries
        ]
        with self._lock, self._index() as index:
            index.executemany("insert or ignore into pictures values (?, ?, ?, ?, ?)", rows)

    def _recover(self) -> None:
        """Make index and files agree again: index what is only on disk, forget what is only in the index."""
        with self._index() as index:
            known = {(owner, id) for owner, id in index.execute("select owner, id from pictures")}
        there = {(p.parent.name, p.stem): p for p in self.pictures.glob("*/*.png") if not p.name.startswith(".")}
        found = []
        for (owner, id), path in there.items():
            if (owner, id) in known or not OWNER.fullmatch(owner):
                continue
            try:
                request = png.read(path.read_bytes())[1]
            except ValueError:
                continue
            found.append(GalleryEntry(id, owner, path.stat().st_mtime, _prompt(request), request))
        if found:
            self._record(found)
        lost = [(id, owner) for owner, id in known - there.keys()]
        with self._lock, self._index() as index:
            index.executemany("delete from pictures where id = ? and owner = ?", lost)
        hour_ago = time.time() - 3600
        for leftover in self.pictures.glob("*/.*.png.*"):
            if leftover.stat().st_mtime < hour_ago:
                leftover.unlink(missing_ok=True)

    @contextmanager
    def _index(self) -> Iterator[sqlite3.Connection]:
        """The index, made where there is none. ValueError for what only holds it up; a damaged one is sqlite3's own
        DatabaseError."""
        try:
            self.pictures.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.folder / "index.db", timeout=PATIENCE)
            try:
                connection.execute("pragma journal_mode = wal")
                connection.executescript(SCHEMA)
                with connection:
                    yield connection
            finally:
                connection.close()
        except (OSError, sqlite3.OperationalError) as error:
            raise ValueError(
                f"the gallery in {self.folder} cannot be used ({error}): try again, or free some space"
            ) from error


def new_owner() -> str:
    """A gallery id that nobody can guess."""
    return secrets.token_urlsafe(18)


def slug(prompt: str) -> str:
    """A prompt as a file name: 'Two cats!' -> 'two-cats'."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60] or "picture"


def _matching(viewer: str, search: str, everyones: bool) -> tuple[str, list[str]]:
    """The condition of a query, and its values."""
    words = search.split()[:16]
    whose, values = (SHARED, []) if everyones else ("owner = ?", [viewer])
    where = " and ".join([whose] + [r"prompt like ? escape '\'"] * len(words))
    return where, values + ["%" + LIKE.sub(r"\\\1", word) + "%" for word in words]


def _prompt(request: GenerationRequest | None) -> str:
    return request.prompt if request else ""


def _entry(row: tuple) -> GalleryEntry:
    id, owner, made, prompt, request = row
    try:
        wish = GenerationRequest.from_dict(json.loads(request)) if request else None
    except (TypeError, ValueError):
        wish = None
    return GalleryEntry(id, owner, made, prompt, wish)
