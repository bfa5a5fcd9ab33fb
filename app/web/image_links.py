"""Finished image files under unguessable addresses that expire: response_format url.

The files are in memory: they are gone after LINK_SECONDS, after a restart, or when newer ones need the room.
"""

import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field

LINK_SECONDS = 3600.0
MAX_LINK_BYTES = 128 * 2**20  # of all files together


@dataclass(frozen=True)
class LinkedFile:
    data: bytes = field(repr=False)
    media_type: str
    expires: float  # monotonic seconds


class ImageLinks:
    """Files by a random token of 192 bits. Safe to use from several threads."""

    def __init__(self, limit: int = MAX_LINK_BYTES):
        self._files: OrderedDict[str, LinkedFile] = OrderedDict()
        self._bytes, self._limit = 0, limit
        self._lock = threading.Lock()

    def add(self, data: bytes, media_type: str) -> str:
        """Stores a file and returns its token."""
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._drop_expired()
            while self._files and self._bytes + len(data) > self._limit:
                self._drop(next(iter(self._files)))
            self._files[token] = LinkedFile(data, media_type, time.monotonic() + LINK_SECONDS)
            self._bytes += len(data)
        return token

    def find(self, token: str) -> LinkedFile | None:
        """The file of this token; None when there is none, or it has expired."""
        with self._lock:
            self._drop_expired()
            return self._files.get(token)

    def _drop_expired(self) -> None:
        now = time.monotonic()
        while self._files and next(iter(self._files.values())).expires <= now:
            self._drop(next(iter(self._files)))

    def _drop(self, token: str) -> None:
        self._bytes -= len(self._files.pop(token).data)
