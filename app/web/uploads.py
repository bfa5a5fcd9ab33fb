"""Bodies of API calls: read within limits of bytes, time and number, then parsed as JSON or as a form."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from app.web.api_errors import ApiError

MAX_JSON = 2**16  # bytes
MAX_FORM = 40 * 2**20  # bytes of a form with recordings or pictures
MAX_WAIT = 60.0  # seconds for a caller to send all of it
MAX_FILES = 17  # OpenAI's clients send up to 16 pictures and a mask
MAX_FIELDS = 64
MAX_DIGITS = 400  # of a whole number; the largest float has 309
MAX_CONCURRENT_UPLOADS = 16  # calls with files at once ...
MAX_REQUESTS_PER_CALLER = 4  # ... and of one caller
# Files of forms stay in memory, of the API and of the page: the folder for temporary files may be full or read-only.
MultiPartParser.spool_max_size = MAX_FORM


@dataclass(frozen=True)
class UploadedFile:
    """A file of a form. Its name decides nothing: the content does."""

    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Form:
    """A parsed form. A field that was sent as `name[]` is a list under its bare name."""

    texts: dict[str, str]
    lists: dict[str, list[str]]
    files: dict[str, list[UploadedFile]]

    def file(self, name: str) -> UploadedFile | None:
        """The first file of this name; None if there is none. Raises ValueError when a text has the name."""
        if name in self.texts or name in self.lists:
            raise ValueError(f"{name} is no file: send it as a file of the form")
        files = self.files.get(name)
        return files[0] if files else None


class UploadPlaces:
    """Places for calls that bring files: few at once, and fewer of one caller."""

    def __init__(self) -> None:
        self._callers: Counter[str] = Counter()

    @contextmanager
    def place(self, caller: str) -> Iterator[None]:
        """Holds a place. Raises ApiError 429 when there is none."""
        if self._callers[caller] >= MAX_REQUESTS_PER_CALLER or self._callers.total() >= MAX_CONCURRENT_UPLOADS:
            raise ApiError(429, f"{self._callers.total()} calls with files are here: try again soon", "busy")
        self._callers[caller] += 1
        try:
            yield
        finally:
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]


def media_type(call: Request) -> str:
    return call.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_json_body(call: Request) -> dict[str, Any]:
    """The fields of a JSON body. Raises ApiError or ValueError."""
    if media_type(call) != "application/json":  # a form of another site cannot send this type
        raise ApiError(415, "send JSON, with Content-Type: application/json", "wrong_type")
    return parse_json_object(await read_body(call, MAX_JSON))


def parse_json_object(body: bytes) -> dict[str, Any]:
    """The fields of a JSON object. Raises ValueError for any other body, and for a repeated field."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = Counter(name for name, _ in pairs)
        if repeated := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"{repeated[0][:40]!r} is given {names[repeated[0]]} times: give it once")
        return dict(pairs)

    def whole_number(digits: str) -> int:
        if len(digits) > MAX_DIGITS:
            raise ValueError(f"a number has {len(digits):,} digits: at most {MAX_DIGITS} are read")
        return int(digits)

    try:
        text = body.decode("utf-8-sig")
        fields = json.loads(text, object_pairs_hook=unique, parse_int=whole_number)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError('the body is no JSON: send an object such as {"prompt": "two cats"}') from None
    if not isinstance(fields, dict):
        raise ValueError(f'the body is a {type(fields).__name__}: send an object such as {{"prompt": "two cats"}}')
    return fields


async def read_form(call: Request) -> Form:
    """The fields and files of a multipart form in UTF-8. Raises ApiError or ValueError, also for repeated fields."""
    if media_type(call) != "multipart/form-data":
        raise ApiError(415, "send a form, with Content-Type: multipart/form-data (curl -F)", "wrong_type")
    texts: dict[str, list[str]] = {}
    files: dict[str, list[UploadedFile]] = {}
    try:
        async with aclosing(_chunks(call, MAX_FORM)) as chunks:
            parser = MultiPartParser(call.headers, chunks, max_files=MAX_FILES, max_fields=MAX_FIELDS)
            form = await parser.parse()
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                files.setdefault(name, []).append(UploadedFile(value.filename or "", await value.read()))
            else:
                texts.setdefault(name, []).append(value)
        await form.close()
    except MultiPartException as error:
        raise ValueError(f"the form cannot be read: {error.message}") from None
    return _form(texts, files)


def _form(texts: dict[str, list[str]], files: dict[str, list[UploadedFile]]) -> Form:
    """Raises ValueError for a name that occurs twice, unless it ends in []."""
    for name, values in [*texts.items(), *files.items()]:
        if len(values) > 1 and not name.endswith("[]"):
            raise ValueError(f"{name[:40]!r} is given {len(values)} times: give it once")
    bare = Counter(name.removesuffix("[]") for name in [*texts, *files])
    if repeated := [name for name, count in bare.items() if count > 1]:
        raise ValueError(f"{repeated[0][:40]!r} is given {bare[repeated[0]]} times: give it once")
    return Form(
        {name: values[0] for name, values in texts.items() if not name.endswith("[]")},
        {name.removesuffix("[]"): values for name, values in texts.items() if name.endswith("[]")},
        {name.removesuffix("[]"): values for name, values in files.items()},
    )


async def read_body(call: Request, limit: int) -> bytes:
    """All bytes of a body. Raises ApiError for more than `limit`, and for one that takes longer than MAX_WAIT."""
    body = bytearray()
    async with aclosing(_chunks(call, limit)) as chunks:
        async for chunk in chunks:
            body += chunk
    return bytes(body)


async def _chunks(call: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """A body as it comes. Raises ApiError as read_body does."""
    length = call.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > limit:
        raise ApiError(
            413, f"the body has {int(length):,} bytes and at most {limit:,} are read: send less", "too_large"
        )
    end, received, more = time.monotonic() + MAX_WAIT, 0, True
    while more:
        try:
            async with asyncio.timeout(max(0.0, end - time.monotonic())):
                message = await call.receive()
        except TimeoutError:
            raise ApiError(408, f"the body did not come within {MAX_WAIT:.0f} s", "too_slow") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
        received += len(chunk)
        if received > limit:
            raise ApiError(413, f"the body has more than {limit:,} bytes: send less", "too_large")
        yield chunk
