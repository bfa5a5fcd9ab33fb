"""Programs ask a real server for pictures and transcripts; what they may not ask is said, and costs nobody else."""

import asyncio
import base64
import http.client
import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import soundfile
import starlette.requests
from app_fixtures import tiny_ar_model, tiny_classes, tiny_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from PIL import Image
from test_browser import SECONDS, Studio, bundled, until

import text_encoder
from app.core import paths, png
from app.core.gallery_store import Gallery
from app.core.request import GenerationRequest
from app.serving.jobs import Status
from app.serving.local_engine import LocalEngine
from app.serving.recognizer import SpeechRecognizer
from app.serving.services import AppServices
from app.web import image_fields, openai_api, uploads
from app.web.openapi import STATUSES
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    weights = Path(tmp_path_factory.mktemp("weights"))
    tiny_ar_model(tiny_model(weights / "scenes"))
    tiny_classes(weights / "classes")
    if (ROOT / "weights" / "whisper-scenes").is_dir():
        (weights / "whisper-scenes").symlink_to(ROOT / "weights" / "whisper-scenes")
    studio = Studio(weights, Path(tmp_path_factory.mktemp("gallery")))
    yield studio
    studio.stop()


def ask(studio: Studio, body: Any, **headers: str) -> requests.Response:
    return requests.post(f"{studio.url}/v1/images/generations", json=body, headers=headers, timeout=SECONDS)


def opened(text: str) -> tuple[Image.Image, GenerationRequest | None]:
    return png.read_picture(base64.b64decode(text))


def test_pictures_and_what_they_remember(studio: Studio):
    query = {"prompt": "two cats", "n": 2, "seed": 7, "size": "96x64", "num_inference_steps": 3}
    answer = ask(studio, query)
    assert answer.status_code == 200
    told = answer.json()
    assert (told["model"], told["size"], told["output_format"]) == ("scenes", "96x64", "png")
    assert [one["seed"] for one in told["data"]] == [7, 8] and "notes" not in told
    image, request = opened(told["data"][1]["b64_json"])
    assert image.size == (96, 64)
    assert (request.prompt, request.seed, request.params.steps, request.n) == ("two cats", 8, 3, 1)
    assert (
        request.params.guidance_scale == SamplingParams.guidance_scale
        and request.params.refinement_passes == SamplingParams.refinement_passes
    )
    again = ask(studio, query | {"seed": 8, "n": 1, "metadata": False}).json()["data"][0]["b64_json"]
    alone, none = opened(again)
    difference = np.abs(np.asarray(alone, np.int16) - np.asarray(image, np.int16))
    assert difference.max() <= 1 and none is None, "decoded together, pixels are rounded otherwise"


def test_all_settings_reach_the_drawing(studio: Studio):
    query = {
        "prompt": "a dog", "negative_prompt": "grass", "num_inference_steps": 4, "guidance_scale": 3.5, "seed": 1,
        "guidance_interval": [0.2, 0.8], "temperature": 0.9, "order": "halton", "mode": "hybrid", "ar_tokens": 16,
        "sampler": "released", "refinement_passes": 2, "candidates": 3,
    }  # fmt: skip
    _, request = opened(ask(studio, query).json()["data"][0]["b64_json"])
    assert request == GenerationRequest(
        prompt="a dog",
        negative_prompt="grass",
        seed=1,
        size=(64, 64),
        params=SamplingParams(
            steps=4,
            guidance_scale=3.5,
            guidance_interval=(0.2, 0.8),
            temperature=0.9,
            order="halton",
            mode="hybrid",
            ar_tokens=16,
            refinement_passes=2,
            candidates=3,
            guidance_shape="ramp",
            choice_temperature=4.5,
        ),
        drawn=request.drawn,
    )
    assert request.text == "a dog"


def events(studio: Studio, body: Any) -> list[dict]:
    with requests.post(
        f"{studio.url}/v1/images/generations", json=body | {"stream": True}, stream=True, timeout=SECONDS
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        found = []
        for block in answer.content.decode().strip().split("\n\n"):
            name, data = block.split("\n")
            found.append(json.loads(data.removeprefix("data: ")))
            assert found[-1]["type"] == name.removeprefix("event: ")
        return found


def test_a_stream_shows_the_picture_grow(studio: Studio):
    query = {"prompt": "a red apple", "seed": 5, "num_inference_steps": 32, "refinement_passes": 0, "partial_images": 2}
    *partial, last = events(studio, query)
    assert last["type"] == "image_generation.completed" and last["nfe"] > 0
    assert {one["type"] for one in partial} == {"image_generation.partial_image"} and 1 <= len(partial) <= 2
    assert [one["step"] for one in partial] == sorted({one["step"] for one in partial}) and partial[0]["of"] == 32
    # what is not decided yet is nearly transparent, and less of it later
    clear = [opened(one["b64_json"])[0].getchannel("A").histogram()[26] for one in partial]
    assert clear == sorted(clear, reverse=True) and clear[0] > 0
    whole = ask(studio, {k: v for k, v in query.items() if k != "partial_images"}).json()["data"][0]["b64_json"]
    assert opened(last["b64_json"])[0].tobytes() == opened(whole)[0].tobytes()


def test_a_stream_without_partial_pictures_has_only_the_finished_ones(studio: Studio):
    found = events(studio, {"prompt": "a cat", "n": 3, "seed": 1})
    assert [(one["type"], one["index"], one["seed"]) for one in found] == [
        ("image_generation.completed", i, 1 + i) for i in range(3)
    ]


@pytest.mark.parametrize(("body", "status", "code", "says"), [
    ({}, 400, "invalid_request", "prompt is missing"),
    ({"prompt": None}, 400, "invalid_request", "prompt is missing"),
    ([1], 400, "invalid_request", "the body is a list"),
    ({"prompt": "   "}, 400, "invalid_request", "the prompt is empty"),
    ({"prompt": 5}, 400, "invalid_request", "prompt is 5: give a text"),
    ({"prompt": "a zebra"}, 400, "unknown_words", "none of 'zebra' can be drawn"),
    ({"prompt": "a cat and a zebra", "strict": True}, 400, "unknown_words", "zebra"),
    ({"prompt": "a cat", "quality": "best"}, 400, "invalid_request", "quality is \"best\": give auto, low"),
    ({"prompt": "a cat", "background": "transparent"}, 400, "invalid_request", "images have no transparency"),
    ({"prompt": "a cat", "output_compression": 50}, 400, "invalid_request", "is for jpeg and webp"),
    ({"prompt": "a cat", "edit": "mine"}, 400, "invalid_request", "unknown option 'edit'"),
    ({"prompt": "a cat", "n": 17}, 400, "invalid_request", "from 1 to 16"),
    ({"prompt": "a cat", "n": True}, 400, "invalid_request", "n is True: give a whole number"),
    ({"prompt": "a cat", "n": 1.5}, 400, "invalid_request", "n is 1.5: give a whole number"),
    ({"prompt": "a cat", "guidance_scale": "much"}, 400, "invalid_request", "guidance_scale is 'much': give a number"),
    ({"prompt": "a cat", "size": "large"}, 400, "invalid_request", "cannot read the size"),
    ({"prompt": "a cat", "response_format": "file"}, 400, "invalid_request", "give b64_json or url"),
    ({"prompt": "a cat", "stream": 1}, 400, "invalid_request", "stream is 1: give true or false"),
    ({"prompt": "a cat", "partial_images": 2}, 400, "invalid_request", "come in a stream"),
    ({"prompt": "a cat", "stream": True, "partial_images": 9}, 400, "invalid_request", "give 0 to 8"),
    ({"prompt": "a cat", "model": "nobody"}, 404, "model_not_found", "there is classes, scenes"),
    ({"prompt": "a cat", "model": "/"}, 404, "model_not_found", "there is classes, scenes"),
    ({"prompt": "a cat", "model": "owner/name"}, 404, "model_not_found", "there is classes, scenes"),
    ({"prompt": "a cat", "model": "classes"}, 400, "invalid_request", "class"),
])  # fmt: skip
def test_what_cannot_be_done_is_said(studio: Studio, body, status: int, code: str, says: str):
    answer = ask(studio, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code) and says in error["message"]
    assert error["type"] == "invalid_request_error" and "\n" not in error["message"]


def test_classes_and_words_that_cannot_be_drawn(studio: Studio):
    drawn = ask(studio, {"prompt": "golden retriever", "model": "classes", "seed": 1})
    assert drawn.status_code == 200 and opened(drawn.json()["data"][0]["b64_json"])[0].size == (32, 32)
    for more in ({}, {"anyway": True}):
        drawn = ask(studio, {"prompt": "a cat and a zebra", **more})
        assert drawn.status_code == 200 and any("zebra" in note for note in drawn.json()["notes"])


def test_calls_that_are_none(studio: Studio):
    where = f"{studio.url}/v1/images/generations"
    text = requests.post(where, data='{"prompt": "a cat"}', headers={"Content-Type": "text/plain"}, timeout=SECONDS)
    assert text.status_code == 415  # what a form of another site could send
    broken = requests.post(where, data=b"\xff{", headers={"Content-Type": "application/json"}, timeout=SECONDS)
    assert broken.status_code == 400 and "no JSON" in broken.text
    deep = requests.post(where, data="[" * 60000, headers={"Content-Type": "application/json"}, timeout=SECONDS)
    assert deep.status_code == 400 and "no JSON" in deep.text
    long = requests.post(where, json={"prompt": "a" * 70000}, timeout=SECONDS)
    assert long.status_code == 413
    assert requests.get(where, timeout=SECONDS).status_code == 405
    assert requests.get(f"{studio.url}/v1/nothing", timeout=SECONDS).status_code == 404
    assert ask(studio, {"prompt": "a cat"}, Origin="http://elsewhere.example").status_code == 403
    assert ask(studio, {"prompt": "a cat"}, Origin=studio.url).status_code == 200
    assert requests.get(studio.url, timeout=SECONDS).headers["content-type"].startswith("text/html")  # the page


def test_models(studio: Studio):
    listed = requests.get(f"{studio.url}/v1/models", timeout=SECONDS).json()["data"]
    assert [(one["id"], one["sizes"]) for one in listed if one["created"] > 0] == [
        ("classes", ["32x32"]),
        ("scenes", ["64x64", "96x64"]),
    ]
    assert "kitten" in listed[1]["words"]


@pytest.mark.parametrize(("stream", "at_head"), [(False, False), (True, False), (True, True)])
def test_who_hangs_up_takes_the_drawing_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool, at_head: bool
):
    """`at_head`: before the head of the answer is sent, and so before the first event is asked for."""
    folder = tiny_ar_model(tiny_model(tmp_path / "scenes")).with_name("scenes")
    monkeypatch.setenv(paths.WEIGHTS, str(tmp_path))
    engine = LocalEngine(lambda name: TextToImage.load(folder, text_encoder.load))
    services = AppServices(engine, SpeechRecognizer("none"), Gallery(tmp_path / "gallery"))
    monkeypatch.setattr(openai_api, "existing_services", lambda: services)
    body = json.dumps({"prompt": "a cat", "mode": "ar", "size": "96x64", "n": 16, "stream": stream}).encode()
    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/images/generations", "headers": headers}
    scope |= {"query_string": b"", "server": ("localhost", 80), "client": ("caller", 1), "asgi": {}, "scheme": "http"}
    told = iter([{"type": "http.request", "body": body}])

    async def receive() -> dict:
        if (message := next(told, None)) is not None:
            return message
        while not engine.jobs("program at caller"):
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        if at_head:
            await asyncio.Event().wait()

    async def call() -> None:
        await (await openai_api.answer(starlette.requests.Request(scope, receive)))(scope, receive, send)

    asyncio.run(call())
    (job,) = engine.jobs("program at caller")
    assert job.wait(SECONDS) and job.status is Status.CANCELLED
    engine.close()


def test_nobody_fills_the_queue_alone(studio: Studio):
    """Of one caller a few wait; the next one is told to try again, and when the others are drawn it may."""
    calls = []
    for _ in range(14):  # of 16 pictures each: one is drawn while the others wait
        caller = http.client.HTTPConnection("localhost", studio.port, timeout=SECONDS)
        body = json.dumps({"prompt": "a cat", "mode": "ar", "n": 16, "size": "96x64", "seed": 1})
        caller.request("POST", "/v1/images/generations", body, {"Content-Type": "application/json"})
        calls.append(caller)
    answers = [caller.getresponse() for caller in calls]
    said = [(answer.status, answer.getheader("retry-after"), answer.read()) for answer in answers]
    busy = [one for one in said if one[0] == 429]
    assert busy and all(after and b"let one of them be drawn first" in text for _, after, text in busy)
    assert {status for status, _, _ in said} == {200, 429} and sum(status == 200 for status, _, _ in said) >= 8
    assert ask(studio, {"prompt": "a cat"}).status_code == 200


def hear(studio: Studio, sound: bytes | None, **fields: str) -> requests.Response:
    files = None if sound is None else {"file": ("spoken.wav", sound)}
    form = {"files": files, "data": fields} if files else {"files": {k: (None, v) for k, v in fields.items()}}
    return requests.post(f"{studio.url}/v1/audio/transcriptions", timeout=SECONDS, **form)


@bundled
def test_a_recording_is_written_down_and_drawn(studio: Studio):
    spoken = subprocess.run(
        ["espeak-ng", "-v", "en-us", "-s", "140", "--stdout", "two dogs on the beach"], capture_output=True
    ).stdout
    assert hear(studio, spoken).json() == {"text": "two dogs on the beach"}
    said = hear(studio, spoken, model="whisper-scenes", response_format="text")
    assert said.text == "two dogs on the beach\n" and said.headers["content-type"].startswith("text/plain")
    assert ask(studio, {"prompt": said.text.strip()}).status_code == 200


@bundled
def test_silence_is_no_text_and_says_why(studio: Studio):
    silence = io.BytesIO()
    soundfile.write(silence, np.zeros(16000, np.float32), 16000, format="WAV")
    told = hear(studio, silence.getvalue()).json()
    assert told["text"] == "" and told["reason"]


@bundled
@pytest.mark.parametrize(("sound", "fields", "status", "says"), [
    (b"not a sound", {}, 400, "is not audio"),
    (b"", {}, 400, "is empty"),
    (None, {"model": "whisper-scenes"}, 400, "file is missing"),
    (b"x", {"language": "de"}, 400, "understands English only"),
    (b"x", {"response_format": "vtx"}, 400, "give json, text, verbose_json, srt or vtt"),
    (b"x", {"model": "whisper-9"}, 404, "no recognizer 'whisper-9'"),
    (b"x", {"speed": "2"}, 400, "unknown field 'speed'"),
    (b"\0" * (41 * 2**20), {}, 413, "send less"),
])  # fmt: skip
def test_recordings_that_are_none(studio: Studio, sound, fields: dict, status: int, says: str):
    answer = hear(studio, sound, **fields)
    assert answer.status_code == status and says in answer.json()["error"]["message"]


def test_a_form_is_needed_for_sound(studio: Studio):
    where = f"{studio.url}/v1/audio/transcriptions"
    assert requests.post(where, data=b"RIFF", timeout=SECONDS).status_code == 415
    torn = {"Content-Type": "multipart/form-data; boundary=x"}
    assert requests.post(where, data=b"--y", headers=torn, timeout=SECONDS).status_code == 400


def draw_on(studio: Studio, image: bytes | None, mask: bytes | None = None, **fields: str) -> requests.Response:
    files = {name: (f"{name}.png", data) for name, data in (("image", image), ("mask", mask)) if data is not None}
    files |= {name: (None, value) for name, value in fields.items()}
    return requests.post(f"{studio.url}/v1/images/edits", files=files, timeout=SECONDS)


def as_png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), "RGB")


def test_what_a_mask_leaves_is_drawn_anew_and_nothing_else(studio: Studio, photo: Image.Image):
    clear = Image.new("RGBA", photo.size, (0, 0, 0, 255))
    clear.paste((0, 0, 0, 0), (16, 8, 40, 33))  # of the last row of cells one line of pixels
    told = draw_on(studio, as_png(photo), as_png(clear), prompt="a cat", seed="3", num_inference_steps="4", n="2")
    assert told.status_code == 200 and told.json()["size"] == "64x64"
    drawn, request = opened(told.json()["data"][1]["b64_json"])
    changed = (np.asarray(drawn) != np.asarray(photo)).any(2)
    assert not changed[:8].any() and not changed[40:].any() and not changed[:, :16].any() and not changed[:, 40:].any()
    assert changed[8:40, 16:40].mean() > 0.9
    assert (request.seed, request.params.steps) == (4, 4) and request.edit.startswith("12 of 64 cells of ")
    white = Image.new("L", photo.size)
    white.paste(255, (16, 8, 40, 33))
    again = draw_on(studio, as_png(photo), as_png(white), prompt="a cat", seed="4", num_inference_steps="4")
    assert opened(again.json()["data"][0]["b64_json"])[0].tobytes() == drawn.tobytes() and "notes" not in again.json()
    large = [as_png(image.resize((256, 256))) for image in (photo, white)]
    told = draw_on(studio, *large, prompt="a cat", seed="4", stream="true", partial_images="1", num_inference_steps="4")
    found = [json.loads(line[6:]) for line in told.text.splitlines() if line.startswith("data: ")]
    assert [one["type"] for one in found] == ["image_edit.partial_image", "image_edit.completed"]
    assert found[-1]["notes"] == ["the picture was scaled from 256x256 to 64x64, which the model draws"]


def test_without_a_mask_the_words_decide(studio: Studio, photo: Image.Image):
    """A picture remembers its words, and one that does not may be told them. (No words move this random model; what
    they change with the bundled one is in test_app_cli.py.)"""
    before = base64.b64decode(ask(studio, {"prompt": "a cat", "seed": 1}).json()["data"][0]["b64_json"])
    for image, fields in ((before, {}), (as_png(photo), {"was": "a cat"})):
        told = draw_on(studio, image, prompt="a dog at night", seed="1", **fields)
        assert told.status_code == 400 and "the new words contradict nothing" in told.text


def test_a_strength_is_image_to_image(studio: Studio, photo: Image.Image):
    """The share of the tokens that is drawn anew; words of before are not needed."""
    for strength, cells in (("0.25", "16 of 64"), ("1", "64 of 64")):
        told = draw_on(studio, as_png(photo), prompt="a cat", seed="3", strength=strength)
        request = opened(told.json()["data"][0]["b64_json"])[1]
        assert request.edit.startswith(f"{cells} cells of ") and request.edit.endswith(f"a share of {strength}")


@pytest.mark.parametrize(("fields", "says"), [
    ({"prompt": "a cat"}, "not known after which words"),
    ({"prompt": "a cat", "strength": "0"}, "strength is 0: give a share above 0 and at most 1"),
    ({"prompt": "a cat", "strength": "true"}, "strength is true: give a share above 0"),
    ({}, "prompt is missing"),
    ({"prompt": "a cat", "n": "many"}, "write it as in JSON"),
    ({"prompt": "a cat", "n": "99"}, "from 1 to 16"),
    ({"prompt": "a cat", "stream": "yes"}, "write it as in JSON"),
    ({"prompt": "a cat", "edit": "1"}, "unknown option 'edit'"),
])  # fmt: skip
def test_edits_that_cannot_be(studio: Studio, photo: Image.Image, fields: dict, says: str):
    answer = draw_on(studio, as_png(photo), **fields)
    assert answer.status_code == 400 and says in answer.json()["error"]["message"]


def test_pictures_that_cannot_be_drawn_on(studio: Studio, photo: Image.Image):
    def refusal(image: bytes | None, mask: bytes | None) -> str:
        answer = draw_on(studio, image, mask, prompt="a cat")
        assert answer.status_code == 400
        return answer.json()["error"]["message"]

    assert "image is missing" in refusal(None, as_png(photo))
    files = {"image": ("image.png", as_png(photo)), "mask": (None, "none"), "prompt": (None, "a cat")}
    text = requests.post(f"{studio.url}/v1/images/edits", files=files, timeout=SECONDS)
    assert text.status_code == 400 and "mask is no file" in text.text
    assert "not a picture" in refusal(b"PK a zip", None)
    assert "make them alike" in refusal(as_png(photo), as_png(Image.new("L", (32, 32), 255)))
    assert "the mask marks nothing" in refusal(as_png(photo), as_png(Image.new("L", (64, 64))))


def test_few_bring_files_at_once(studio: Studio, photo: Image.Image):
    """Places of one address are few, and free again when a call is over, however it ended."""
    for _ in range(6):
        assert draw_on(studio, b"broken", prompt="a cat").status_code == 400
    waiting = []
    for _ in range(5):  # who sends only a part of what it says
        caller = http.client.HTTPConnection("localhost", studio.port, timeout=SECONDS)
        caller.putrequest("POST", "/v1/images/edits")
        caller.putheader("Content-Type", "multipart/form-data; boundary=x")
        caller.putheader("Content-Length", "1000")
        caller.endheaders(b"--x")
        waiting.append(caller)
    until(lambda: draw_on(studio, as_png(photo), prompt="a cat").status_code == 429)
    for caller in waiting:
        caller.close()
    until(lambda: draw_on(studio, as_png(photo), prompt="a cat").status_code == 400)  # heard again


VALUES = some.none() | some.booleans() | some.integers() | some.floats() | some.text() | some.lists(some.integers())


@given(some.dictionaries(some.sampled_from([*image_fields.known_fields(), "other"]), VALUES))
def test_any_json_is_a_request_or_a_complaint_of_one_line(fields: dict):
    try:
        body = json.dumps({"prompt": "a cat"} | fields).encode()
        request, options = image_fields.read_image_fields(uploads.parse_json_object(body))
    except ValueError as error:
        assert "\n" not in str(error) or "\n" in str(fields.values())
    else:
        assert isinstance(request, GenerationRequest) and isinstance(options, image_fields.AnswerOptions)


def test_the_description_lists_every_field_and_its_bounds(studio: Studio):
    described = requests.get(f"{studio.url}/openapi.json", timeout=SECONDS).json()
    schema = described["paths"]["/v1/images/generations"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    assert sorted(schema["properties"]) == image_fields.known_fields() and not schema["additionalProperties"]
    for name, field in schema["properties"].items():
        if "minimum" in field and "integer" in field["type"] and name != "partial_images":
            answer = ask(studio, {"prompt": "a cat", name: field["minimum"] - 1})
            assert answer.status_code == 400 and name in answer.json()["error"]["message"], name
    known = {path.removesuffix("/{name}") for path in described["paths"]}
    monitors = {"/healthz", "/readyz", "/metrics"}
    assert known - monitors == {*openai_api.ENDPOINTS, "/v1/images/files"}, "every path of the API is described"


@given(some.dictionaries(some.sampled_from([*image_fields.known_fields(), "other"]), VALUES, max_size=4))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_sent_the_status_and_the_type_are_described(studio: Studio, fields: dict):
    body = {"prompt": "a cat", "steps": 1, "refinement_passes": 0} | fields | {"n": 17 if fields.get("n") else 1}
    answer = ask(studio, json.loads(json.dumps(body).replace("NaN", "0").replace("Infinity", "0")))
    assert str(answer.status_code) in {"200", *STATUSES} and answer.status_code < 500
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in ("application/json", "text/event-stream") and answer.headers["x-request-id"].startswith("req_")
    if answer.status_code != 200:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("digits", [401, 5000, 60000])
def test_a_number_of_many_digits_is_refused_in_words(digits: int):
    with pytest.raises(ValueError, match="a number has .* digits: at most 400 are read"):
        uploads.parse_json_object(b'{"prompt": "a cat", "seed": ' + b"9" * digits + b"}")
