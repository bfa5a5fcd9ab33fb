"""Bodies of API calls: forms are parsed as they come and stay in memory."""

import asyncio
import tempfile
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.requests import Request

from app.web import page_uploads
from app.web.api_errors import ApiError
from app.web.uploads import MAX_FIELDS, MAX_FORM, Form, read_form

FIELD = b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\nv\r\n'
FILE = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'


def form_of(chunks: Iterable[bytes]) -> Form:
    """What is read of a form that comes in these pieces; the last one ends it."""
    waiting = list(chunks)

    async def receive() -> dict[str, Any]:
        assert waiting, "more was asked for than came"
        chunk = waiting.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"multipart/form-data; boundary=x")]}
    return asyncio.run(read_form(Request(scope, receive)))


def test_a_form_is_read_whatever_pieces_it_comes_in():
    whole = FIELD % b"prompt" + FILE + b"\r\n--" * 3 + b"\r\n--x--\r\n"
    for size in (1, 2, 7, len(whole)):
        form = form_of(whole[i : i + size] for i in range(0, len(whole), size))
        assert form.texts == {"prompt": "v"} and form.file("image").data == b"\r\n--" * 3


def test_a_form_is_refused_before_its_end_has_come():
    """It is parsed as it comes, so that no call of the parser holds the event loop for a whole body."""

    fields = [FIELD % b"a%d" % i for i in range(MAX_FIELDS + 1)]
    with pytest.raises(ValueError, match="Too many fields"):
        form_of([*fields, *[b"v" * 2**20] * (MAX_FORM // 2**20 + 1)])


def test_a_form_that_is_too_large_is_refused_while_it_comes():
    with pytest.raises(ApiError) as refused:
        form_of([FILE, *[b"v" * 2**20] * (MAX_FORM // 2**20 + 1), b"never reached"])
    assert refused.value.status == 413


def test_no_file_of_a_form_is_written_to_the_disk(monkeypatch: pytest.MonkeyPatch):
    """The folder for temporary files may be full or read-only."""

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    data = b"v" * page_uploads.MAX_FILE
    assert form_of([FILE, data, b"\r\n--x--\r\n"]).file("image").data == data
