"""No answer holds a path of the server: a model or a recognizer that is broken is 503, with what to do."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from app_fixtures import tiny_model
from starlette.requests import Request
from starlette.responses import Response

import text_encoder
from app.core.gallery_store import Gallery
from app.core.registry import UnavailableError
from app.serving.admission import served_model
from app.serving.jobs import Job
from app.serving.local_engine import LocalEngine
from app.serving.recognizer import SpeechRecognizer
from app.serving.services import AppServices
from app.studio import session
from app.web import canvas_messages, health, openai_api, pictures_api
from app.web.public_message import message_text, public_message
from maskgil.pipeline import TextToImage

ME = "me-1234567"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a server whose folders of weights and pictures have a space in their names."""
    root = tmp_path / "the server"
    monkeypatch.setenv("MASKGIL_WEIGHTS", str(root / "weights"))
    monkeypatch.setenv("MASKGIL_GALLERY", str(root / "gallery"))
    (root / "weights").mkdir(parents=True)
    return root


@pytest.fixture
def services(server: Path, monkeypatch: pytest.MonkeyPatch) -> AppServices:
    engine = LocalEngine(lambda name, dtype=None: TextToImage.load(server / "weights" / name, text_encoder.load))
    services = AppServices(engine, SpeechRecognizer(str(server / "weights" / "broken.pt")), Gallery(server / "gallery"))
    for module in (pictures_api, openai_api):
        monkeypatch.setattr(module, "get_services", lambda: services)
    monkeypatch.setattr(openai_api, "existing_services", lambda: services)
    return services


def call(handler: Callable[[Request], Awaitable[Response]], path: str, body: bytes = b"", kind: str = "") -> Response:
    """The answer to GET, or to POST with a body."""
    headers = [(b"host", b"here"), (b"cookie", f"studio={ME}".encode()), (b"content-type", kind.encode())]
    scope = {
        "type": "http", "method": "POST" if body else "GET", "path": path, "query_string": b"", "headers": headers,
        "path_params": {"path": path.partition("/pictures/")[2]}, "client": ("127.0.0.1", 1), "server": ("here", 80),
        "scheme": "http", "root_path": "",
    }  # fmt: skip
    sent = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        if (message := next(sent, None)) is None:
            await asyncio.Event().wait()
        return message

    return asyncio.run(handler(Request(scope, receive)))


def generate(prompt: str = "a cat") -> Response:
    body = json.dumps({"prompt": prompt, "steps": 2}).encode()
    return call(openai_api.answer, "/v1/images/generations", body, "application/json")


def test_paths_are_shortened_and_nothing_else(server: Path):
    weights = server / "weights"
    shown = {
        f"{weights / 'scenes' / 'vocabulary.json'} is damaged": "scenes/vocabulary.json is damaged",
        f"there is none in {weights}: fetch it": "there is none in weights: fetch it",
        f"the gallery in {server / 'gallery'} cannot be used": "the gallery in gallery cannot be used",
        "[Errno 2] No such file: '/opt/models/a.bin'": "[Errno 2] No such file: 'a.bin'",
        "no model '/etc'\n and\tno more": "no model 'etc' and no more",
        "open https://here.example/a/b or docs/serving.md": "open https://here.example/a/b or docs/serving.md",
        "image/png, 16/9 and CompVis/model": "image/png, 16/9 and CompVis/model",
    }
    assert {text: public_message(text) for text in shown} == shown
    error = {"type": "error", "message": f"{weights} is gone"}
    assert json.loads(message_text(error)) == {"type": "error", "message": "weights is gone"}
    assert json.loads(message_text({"type": "step", "prompt": "/a/b"})) == {"type": "step", "prompt": "/a/b"}


@pytest.mark.parametrize("fault", ["absent", "incomplete", "damaged"])
def test_a_default_model_that_cannot_be_opened_is_503(services: AppServices, server: Path, fault: str):
    if fault != "absent":
        folder = tiny_model(server / "weights" / "scenes")
        broken = folder / ("generator/config.json" if fault == "incomplete" else "vocabulary.json")
        broken.unlink() if fault == "incomplete" else broken.write_text("{")
    told = [call(pictures_api.respond_pictures, "/pictures/things/scenes"), generate()]
    assert [answer.status_code for answer in told] == [503, 503]
    assert all(str(server) not in answer.body.decode() and b"fetch the" in answer.body for answer in told)
    assert "Retry-After" in told[1].headers and json.loads(told[1].body)["error"]["code"] == "unavailable"
    with pytest.raises(UnavailableError, match=str(server)):  # the log and the commands name the folder
        served_model(services.engine, "scenes")


def test_weights_that_are_cut_are_503_too(services: AppServices, server: Path):
    (tiny_model(server / "weights" / "scenes") / "generator" / "model.safetensors").write_bytes(b"cut")
    answer = generate()
    assert answer.status_code == 503 and str(server) not in answer.body.decode() and b"scenes" in answer.body


def test_a_broken_recognizer_is_503(services: AppServices, server: Path):
    (server / "weights" / "broken.pt").write_bytes(b"no checkpoint")
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--x--\r\n'
    answer = call(openai_api.answer, "/v1/audio/transcriptions", form, "multipart/form-data; boundary=x")
    assert answer.status_code == 503 and str(server) not in answer.body.decode() and b"broken.pt" in answer.body


def test_a_default_model_outside_of_the_weights_is_named_without_its_folder(
    services: AppServices, server: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MASKGIL_MODEL", "/srv/models/mine")
    assert json.loads(call(health.readyz, "/readyz").body)["reason"] == "the model mine is not loaded"
    assert b"/srv" not in generate().body


def test_why_a_picture_is_not_kept_names_no_folder(server: Path):
    job = Job.__new__(Job)  # no more of it is read
    job.size_note, job.note = "", f"[Errno 28] No space left on device: '{server / 'gallery' / 'a.png'}'"
    (note,) = canvas_messages.job_notes(job)
    assert str(server) not in note and "No space left" in note


@pytest.mark.parametrize("operator", [True, False])
def test_the_page_names_folders_to_an_operator_alone(server: Path, operator: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session, "is_operator", lambda: operator)
    assert (str(server) in session.explain(f"{server / 'weights' / 'scenes'} is damaged")) is operator
