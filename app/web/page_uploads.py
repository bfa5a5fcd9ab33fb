"""Limits for the page's own upload route (/_stcore/upload_file/SESSION/FILE), whose files stay in memory.

A visitor may hold MAX_VISITOR_BYTES and all visitors together MAX_TOTAL_BYTES. The files of a session are removed
GRACE_SECONDS after its page was closed.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit import runtime
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager

from app.web.api_errors import ApiError
from app.web.visitors import known_cookie

ROUTE = "/_stcore/upload_file/"
MAX_FILE = 32 * 2**20  # bytes of one file
MAX_BODY = MAX_FILE + 2**16  # with the form around it
MAX_VISITOR_BYTES = 64 * 2**20
MAX_TOTAL_BYTES = 256 * 2**20
MAX_CONCURRENT = 16  # uploads on their way, of all visitors ...
MAX_OF_VISITOR = 4  # ... and of one
MAX_WAIT = 60.0  # seconds for a browser to send all of a file
GRACE_SECONDS = 15.0


class UploadLimits:
    """ASGI middleware that refuses uploads beyond the limits before it reads them."""

    def __init__(self, app: ASGIApp):
        self.app = app
        self._owner_of: dict[str, str] = {}  # session id -> visitor
        self._incoming: Counter[str] = Counter()  # bytes on their way, by visitor
        self._uploads: Counter[str] = Counter()  # on their way, by visitor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "PUT" or not scope["path"].startswith(ROUTE):
            await self.app(scope, receive, send)
            return
        try:
            with self._place(scope):
                await self.app(scope, _within_time(receive), send)
        except ApiError as error:
            await error.response()(scope, receive, send)

    @contextmanager
    def _place(self, scope: Scope) -> Iterator[None]:
        """Counts an upload while it comes. Raises ApiError when a limit is reached."""
        owner = known_cookie(scope)
        if owner is None:
            raise ApiError(403, "open the studio's own page first", "no_visitor")
        length = Headers(scope=scope).get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            raise ApiError(411, "the upload has no Content-Length: send it in one piece", "no_length")
        if int(length) > MAX_BODY:
            raise ApiError(413, f"the file has more than {MAX_FILE // 2**20} MB: send a smaller one", "too_large")
        session = scope["path"][len(ROUTE) :].partition("/")[0]
        held = stored_bytes()
        own = sum(size for id, size in held.items() if id == session or self._owner_of.get(id) == owner)
        if own + self._incoming[owner] + int(length) > MAX_VISITOR_BYTES:
            limit = MAX_VISITOR_BYTES // 2**20
            raise ApiError(
                413, f"your pages hold the {limit} MB that one visitor may: remove a file first", "too_large"
            )
        total = sum(held.values()) + self._incoming.total()
        is_full = self._uploads[owner] >= MAX_OF_VISITOR or self._uploads.total() >= MAX_CONCURRENT
        if is_full or total + int(length) > MAX_TOTAL_BYTES:
            raise ApiError(429, "the server holds as many files as it may: try again in a minute", "busy")
        self._owner_of = {id: who for id, who in self._owner_of.items() if id in held} | {session: owner}
        self._incoming[owner] += int(length)
        self._uploads[owner] += 1
        try:
            yield
        finally:
            self._uploads[owner] -= 1
            self._incoming[owner] -= int(length)
            if not self._uploads[owner]:
                del self._uploads[owner], self._incoming[owner]


def _within_time(receive: Receive) -> Receive:
    """`receive`, until MAX_WAIT seconds from now. Then it raises ApiError 408."""
    end = time.monotonic() + MAX_WAIT

    async def receive_in_time() -> Message:
        try:
            async with asyncio.timeout(max(0.0, end - time.monotonic())):
                return await receive()
        except TimeoutError:
            raise ApiError(408, f"the file did not come within {MAX_WAIT:.0f} s", "too_slow") from None

    return receive_in_time


def stored_bytes() -> dict[str, int]:
    """Bytes of the uploaded files in memory, by session id."""
    manager = _manager()
    if manager is None:
        return {}
    return {
        id: sum(len(file.data) for file in list(files.values())) for id, files in list(manager.file_storage.items())
    }


@asynccontextmanager
async def free_closed_sessions() -> AsyncIterator[None]:
    """While this is open, files of sessions whose page is closed are removed after GRACE_SECONDS."""
    task = asyncio.create_task(_free_forever())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _free_forever() -> None:
    closed_since: dict[str, float] = {}
    while True:
        await asyncio.sleep(GRACE_SECONDS / 5)
        manager = _manager()
        if manager is None:
            continue
        server, now = runtime.get_instance(), time.monotonic()
        closed = {id for id in list(manager.file_storage) if not server.is_active_session(id)}
        closed_since = {id: closed_since.get(id, now) for id in closed}
        for id, since in closed_since.items():
            if now - since >= GRACE_SECONDS:
                manager.remove_session_files(id)


def _manager() -> MemoryUploadedFileManager | None:
    manager = runtime.get_instance().uploaded_file_mgr if runtime.exists() else None
    return manager if isinstance(manager, MemoryUploadedFileManager) else None
