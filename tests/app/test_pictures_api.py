"""A visitor's pictures over HTTP: list, formats, deletion and its undoing, stars, ZIP, import."""

import asyncio
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from app_fixtures import tiny_model
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response

from app.core import model_names, png
from app.core.gallery_store import Gallery
from app.core.request import GenerationRequest
from app.serving.local_engine import LocalEngine
from app.serving.recognizer import SpeechRecognizer
from app.serving.services import AppServices
from app.web import pictures_api, uploads
from text_encoder.prompt_reader import THINGS_PICTURE

ME, YOU = "me-1234567", "you-1234567"


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gallery:
    gallery = Gallery(tmp_path / "gallery")
    services = AppServices(LocalEngine(), SpeechRecognizer("none"), gallery)
    monkeypatch.setattr(pictures_api, "get_services", lambda: services)
    return gallery


def call(path: str, body: Any = None, owner: str = ME, origin: str = "http://here") -> Response:
    """The answer to GET, or to POST with a body."""
    place, _, query = path.partition("?")
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = [(b"host", b"here"), (b"origin", origin.encode())]
    if owner:
        headers.append((b"cookie", f"studio={owner}".encode()))
    scope = {
        "type": "http", "method": "GET" if body is None else "POST", "path": f"/pictures/{place}",
        "path_params": {"path": place}, "query_string": query.encode(), "headers": headers,
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": data, "more_body": False}

    return asyncio.run(pictures_api.respond_pictures(Request(scope, receive)))


def slow_import(owner: str) -> Request:
    """A POST of a picture whose body never ends."""
    headers = [(b"host", b"here"), (b"origin", b"http://here"), (b"cookie", f"studio={owner}".encode())]
    path = {"path": "import"}
    scope = {"type": "http", "method": "POST", "path": "/pictures/import", "path_params": path, "headers": headers}

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"P", "more_body": True}

    return Request(scope, receive)


def add(gallery: Gallery, prompt: str, owner: str = ME) -> str:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    return gallery.add(owner, image, GenerationRequest(prompt, 7, size=(60, 40))).id


def listed(path: str, owner: str = ME) -> list[str]:
    return [picture["prompt"] for picture in json.loads(call(path, owner=owner).body)["pictures"]]


def test_the_list_is_the_visitors_own_searched_sorted_and_paged(gallery: Gallery):
    for prompt in ("a Café", "a dog", "a cat"):
        add(gallery, prompt)
    add(gallery, "a secret", YOU)
    assert listed("list") == ["a cat", "a dog", "a Café"] and listed("list?search=CAFE") == ["a Café"]
    assert listed("list?sort=oldest&limit=1&offset=1") == ["a dog"] and listed("list", YOU) == ["a secret"]
    assert call("list?sort=color").status_code == 400 and call("list?limit=x").status_code == 400


def test_a_picture_comes_in_three_formats_small_and_without_settings(gallery: Gallery):
    id = add(gallery, "a cat")
    data = call(f"file/{id}.png?download=1")
    assert (
        png.read_picture(data.body)[1].prompt == "a cat"
        and 'filename="a-cat-7.png"' in data.headers["content-disposition"]
    )
    assert png.read_picture(call(f"file/{id}.png?settings=0").body)[1] is None
    for kind, format in (("jpg", "JPEG"), ("webp", "WEBP")):
        image = Image.open(io.BytesIO(call(f"file/{id}.{kind}").body))
        assert (image.format, image.size) == (format, (60, 40))
    assert call(f"file/{id}.gif").status_code == 404 and call("file/nothing.png").status_code == 404
    assert call(f"file/{id}.png", owner=YOU).status_code == 404, "it is not shared"


def test_what_is_deleted_can_be_restored(gallery: Gallery):
    id, other = add(gallery, "a cat"), add(gallery, "a dog", YOU)
    assert json.loads(call("delete", {"ids": [id, "gone"]}).body) == {"ids": [id]} and listed("list") == []
    assert call("restore", {"ids": [id]}).status_code == 200 and listed("list") == ["a cat"]
    assert call("restore", {"ids": ["nothing"]}).status_code == 400
    call("delete", {"ids": [other]})
    assert listed("list", YOU) == ["a dog"], "nobody deletes another visitor's pictures"


def test_stars_and_zip(gallery: Gallery):
    id, other = add(gallery, "a cat"), add(gallery, "a dog")
    call("star", {"ids": [id], "on": True})
    assert listed("list?starred=1") == ["a cat"]
    names = zipfile.ZipFile(io.BytesIO(call(f"zip?ids={id},{other}").body)).namelist()
    assert len(names) == 2 and all(name.endswith(".png") for name in names)


def test_a_png_is_imported_with_its_settings(gallery: Gallery):
    data = png.encode_png(Image.new("RGB", (8, 8)), GenerationRequest("a fox", 3))
    assert json.loads(call("import", data).body)["settings"]["seed"] == 3 and listed("list") == ["a fox"]
    assert call("import", b"PK\x03\x04").status_code == 400


def test_strangers_and_other_sites_change_nothing(gallery: Gallery):
    id = add(gallery, "a cat")
    assert call("list", owner="").status_code == 403
    assert call("delete", {"ids": [id]}, origin="http://elsewhere").status_code == 403
    assert call("dance").status_code == 404 and listed("list") == ["a cat"]


def test_a_picture_that_comes_too_slowly_is_given_up(gallery: Gallery, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(uploads, "MAX_WAIT", 0.2)
    answer = asyncio.run(pictures_api.respond_pictures(slow_import(ME)))
    assert answer.status_code == 408 and "did not come within" in json.loads(answer.body)["error"]


def test_few_pictures_come_at_once_and_fewer_of_one_visitor(gallery: Gallery, monkeypatch: pytest.MonkeyPatch):
    """A picture is held in memory while it comes: no more than there are places for."""
    monkeypatch.setattr(uploads, "MAX_WAIT", 0.5)

    async def statuses(owners: list[str]) -> list[int]:
        calls = [pictures_api.respond_pictures(slow_import(owner)) for owner in owners]
        return [answer.status_code for answer in await asyncio.gather(*calls)]

    most, of_one = uploads.MAX_CONCURRENT_UPLOADS, uploads.MAX_REQUESTS_PER_CALLER
    assert asyncio.run(statuses([ME] * (of_one + 1) + [YOU])) == [408] * of_one + [429, 408]
    assert asyncio.run(statuses([f"visitor-{i}" for i in range(most + 1)])) == [408] * most + [429]


def test_things_are_those_of_served_models_and_no_path_is_told(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    weights = tmp_path / "weights"
    scenes, outside = tiny_model(weights / "scenes"), tiny_model(tmp_path / "out" / "side")
    monkeypatch.setenv("MASKGIL_WEIGHTS", str(weights))
    for folder in (scenes, outside):
        (folder / THINGS_PICTURE).write_bytes(folder.name.encode())
    answer = call("things/scenes")
    assert (answer.status_code, answer.body, answer.media_type) == (200, b"scenes", "image/webp")
    for name in (str(outside), "scenes/generator", "nothing", ""):
        answer = call(f"things/{name}")
        assert answer.status_code == 404 and str(tmp_path) not in json.loads(answer.body)["error"].replace(name, "")
    monkeypatch.setattr(model_names, "_folders", {})
    monkeypatch.setenv("MASKGIL_MODEL", str(outside))
    assert call("things/side").body == b"side" and call(f"things/{outside}").status_code == 404
