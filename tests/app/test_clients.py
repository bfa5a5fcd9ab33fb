"""The clients that people have, against a real server: the openai package, litellm, LangChain's classes, and what Open
WebUI sends (its payloads, over HTTP)."""

import base64
import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from app_fixtures import tiny_model
from PIL import Image
from test_browser import SECONDS, Studio, bundled

from app.core import png

ROOT = Path(__file__).resolve().parents[2]
PROMPT, EDITED = "two cats on the beach", "two dogs on the beach"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    weights = Path(tmp_path_factory.mktemp("weights"))
    tiny_model(weights / "scenes")
    for recognizer in ("whisper-scenes", "whisper-tiny-en"):
        if (ROOT / "weights" / recognizer).is_dir():
            (weights / recognizer).symlink_to(ROOT / "weights" / recognizer)
    studio = Studio(weights, Path(tmp_path_factory.mktemp("gallery")))
    yield studio
    studio.stop()


@pytest.fixture(scope="module")
def client(studio: Studio) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{studio.url}/v1", api_key="any", max_retries=0, timeout=SECONDS)


@pytest.fixture(scope="module")
def picture(client: openai.OpenAI) -> bytes:
    """A PNG of the server's own, with its prompt inside."""
    return base64.b64decode(client.images.generate(prompt=PROMPT, extra_body={"seed": 7}).data[0].b64_json)


@pytest.fixture(scope="module")
def mask(picture: bytes) -> bytes:
    image = Image.new("RGBA", png.read_picture(picture)[0].size, "black")
    image.paste((0, 0, 0, 0), (0, 0, 32, 32))
    return png.encode_png(image)


@pytest.fixture(scope="module")
def speech() -> bytes:
    return subprocess.check_output(["espeak-ng", "-v", "en-us", "-s", "140", "--stdout", PROMPT])


def images(response: Any) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(one.b64_json))) for one in response.data]


GENERATIONS: list[dict[str, Any]] = [
    {},
    *({"size": size} for size in ("auto", "256x256", "512x512", "1024x1024", "1536x1024", "1024x1792", "96x64")),
    {"n": 2, "response_format": "b64_json"},
    {"model": "scenes", "moderation": "low", "user": "me"},
    *({"model": name} for name in ("dall-e-2", "dall-e-3", "gpt-image-1")),
    {"model": "dall-e-3", "quality": "hd", "style": "vivid"},
    {"quality": "low", "background": "auto"},
    {"output_format": "jpeg"},
    {"output_format": "webp", "output_compression": 80},
    {"extra_body": {"seed": 7, "num_inference_steps": 4}},
]


@pytest.mark.parametrize("fields", GENERATIONS, ids=lambda fields: json.dumps(fields)[:50])
def test_openai_generates(client: openai.OpenAI, fields: dict):
    response = client.images.generate(prompt=PROMPT, **fields)
    drawn = images(response)
    assert len(drawn) == fields.get("n", 1) and response.created > 0
    assert f"{drawn[0].width}x{drawn[0].height}" == response.size and response.size in ("64x64", "96x64")
    assert drawn[0].format == fields.get("output_format", "png").upper()


def test_openai_generates_addresses_that_can_be_fetched(client: openai.OpenAI):
    response = client.images.generate(prompt=PROMPT, response_format="url", model="dall-e-2")
    assert response.data[0].b64_json is None
    answer = requests.get(response.data[0].url, timeout=SECONDS)
    assert answer.headers["content-type"] == "image/png" and png.read_picture(answer.content)[1].prompt == PROMPT
    gone = requests.get(response.data[0].url[:-8] + "AAAA.png", timeout=SECONDS)
    assert gone.status_code == 404 and gone.json()["error"]["code"] == "not_found"


def test_what_was_mapped_is_said(studio: Studio):
    body = {"prompt": PROMPT, "model": "dall-e-3", "quality": "hd", "style": "vivid", "size": "1792x1024"}
    notes = requests.post(f"{studio.url}/v1/images/generations", json=body, timeout=SECONDS).json()["notes"]
    assert [note.split()[0] for note in notes] == ["dall-e-3", "quality", "style", "1792x1024"]


def test_jpeg_and_webp_remember_their_settings(client: openai.OpenAI):
    for kind in ("jpeg", "webp"):
        response = client.images.generate(prompt=PROMPT, output_format=kind, extra_body={"seed": 9})
        data = base64.b64decode(response.data[0].b64_json)
        assert png.read_picture(data)[1].seed == 9 and "icc_profile" in Image.open(io.BytesIO(data)).info


def test_openai_streams(client: openai.OpenAI):
    events = list(client.images.generate(prompt=PROMPT, stream=True, partial_images=2))
    assert events[-1].type == "image_generation.completed" and events[-1].b64_json
    assert {event.type for event in events[:-1]} <= {"image_generation.partial_image"}
    with pytest.raises(openai.BadRequestError) as refusal:
        list(client.images.generate(prompt="two unicorns", stream=True))
    assert refusal.value.code == "unknown_words" and refusal.value.request_id.startswith("req_")


EDITS: list[dict[str, Any]] = [{}, *({"size": size} for size in ("auto", "64x64", "256x256", "512x512")),
                               {"n": 1, "response_format": "b64_json"}, {"input_fidelity": "high"},
                               {"background": "auto", "user": "me", "quality": "low"}]  # fmt: skip


@pytest.mark.parametrize("fields", EDITS, ids=str)
def test_openai_edits(client: openai.OpenAI, picture: bytes, mask: bytes, fields: dict):
    response = client.images.edit(image=("a.png", picture), mask=("m.png", mask), prompt=EDITED, **fields)
    assert response.size == "64x64" and len(response.data) == 1


def test_openai_edits_lists_other_formats_and_odd_names(client: openai.OpenAI, picture: bytes, mask: bytes):
    for brought in ([("a.png", picture)], [("a.png", picture), ("b.png", picture)]):
        assert client.images.edit(image=brought, mask=("m.png", mask), prompt=EDITED).data
    image = png.read_picture(picture)[0]
    for kind in ("JPEG", "WEBP", "GIF", "TIFF", "BMP"):
        out = io.BytesIO()
        image.save(out, kind)
        assert client.images.edit(image=("кошка 猫.png", out.getvalue()), mask=mask, prompt=EDITED).data, kind
    events = list(client.images.edit(image=picture, mask=mask, prompt=EDITED, stream=True, partial_images=1))
    assert events[-1].type == "image_edit.completed"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_openai_varies(client: openai.OpenAI, picture: bytes):
    response = client.images.create_variation(image=("a.png", picture), model="dall-e-2", n=2, size="256x256")
    assert len(response.data) == 2 and images(response)[0].tobytes() != png.read_picture(picture)[0].tobytes()
    with pytest.raises(openai.BadRequestError, match="has no prompt inside"):
        client.images.create_variation(image=png.encode_png(png.read_picture(picture)[0]))


def test_openai_lists_models(client: openai.OpenAI):
    assert [(model.id, model.created > 0) for model in client.models.list()] == [("scenes", True)]
    assert client.models.retrieve("scenes").created > 0
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


def test_what_is_not_served_is_404_in_the_error_object(client: openai.OpenAI):
    for call in (
        lambda: client.chat.completions.create(model="scenes", messages=[{"role": "user", "content": "hi"}]),
        lambda: client.audio.speech.create(model="x", voice="alloy", input="hi"),
        lambda: client.embeddings.create(model="x", input="hi"),
    ):
        with pytest.raises(openai.NotFoundError) as refusal:
            call()
        assert refusal.value.code == "not_found"


@bundled
@pytest.mark.parametrize("fields", [{}, {"language": "en"}, {"temperature": 0}, {"prompt": "cats"},
                                    {"model": "whisper-scenes"}, {"response_format": "text"},
                                    {"response_format": "srt"}, {"response_format": "vtt"}], ids=str)  # fmt: skip
def test_openai_transcribes(client: openai.OpenAI, speech: bytes, fields: dict):
    for file in (("größe 猫.wav", speech), ("rec", speech, "audio/wav")):
        heard = client.audio.transcriptions.create(file=file, **{"model": "whisper-1", **fields})
        text = heard if isinstance(heard, str) else heard.text
        assert "cats" in text.lower()
        if fields.get("response_format") in ("srt", "vtt"):
            assert " --> 00:00:0" in text


@bundled
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_openai_transcribes_with_times_as_a_stream_and_as_a_translation(client: openai.OpenAI, speech: bytes):
    heard = client.audio.transcriptions.create(
        file=("a.wav", speech),
        model="whisper-1",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert heard.duration > 0.5 and heard.segments[0].end <= heard.duration
    assert [word.word for word in heard.words] == heard.text.split()
    times = [time for word in heard.words for time in (word.start, word.end)]
    assert times == sorted(times) and 0 <= times[0] and times[-1] <= heard.duration
    events = list(client.audio.transcriptions.create(file=("a.wav", speech), model="whisper-1", stream=True))
    assert events[-1].type == "transcript.text.done"
    assert "".join(event.delta for event in events[:-1]) == events[-1].text
    assert client.audio.translations.create(file=("a.wav", speech), model="whisper-1").text


def send(studio: Studio, path: str, fields: list[tuple[str, str]], files: list[tuple[str, bytes]]) -> requests.Response:
    brought = [(name, ("image.png", data, "image/png")) for name, data in files]
    headers = {"Authorization": "Bearer x"}
    return requests.post(f"{studio.url}/v1/{path}", data=fields, files=brought, headers=headers, timeout=SECONDS)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """litellm and LangChain ask nobody but the server."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # litellm would fetch its list of prices
    monkeypatch.setenv("LANGSMITH_TRACING", "false")


def test_litellm_draws_and_edits(studio: Studio, picture: bytes, mask: bytes, offline: None):
    import litellm

    where: dict[str, Any] = {"model": "openai/scenes", "api_base": f"{studio.url}/v1", "api_key": "x"}
    for fields in ({}, {"n": 2, "size": "256x256"}, {"size": "1024x1024", "quality": "hd"}):
        drawn = litellm.image_generation(prompt=PROMPT, **fields, **where)
        assert len(drawn.data) == fields.get("n", 1)
        assert png.read_picture(base64.b64decode(drawn.data[0].b64_json))[1].prompt == PROMPT
    for image in (io.BytesIO(picture), [io.BytesIO(picture)], [io.BytesIO(picture), io.BytesIO(picture)]):
        assert litellm.image_edit(image=image, mask=io.BytesIO(mask), prompt=EDITED, **where).data[0].b64_json
    with pytest.raises(litellm.exceptions.BadRequestError, match="unicorns"):
        litellm.image_generation(prompt="two unicorns", **where)


@bundled
def test_litellm_and_langchain_transcribe(studio: Studio, speech: bytes, offline: None):
    import litellm
    from langchain_community.document_loaders.parsers.audio import OpenAIWhisperParser
    from langchain_core.documents.base import Blob

    url = f"{studio.url}/v1"
    for fields in ({}, {"language": "en", "temperature": 0}, {"response_format": "json", "prompt": "cats"}):
        named = io.BytesIO(speech)
        named.name = "speech.wav"
        heard = litellm.transcription(model="openai/whisper-1", file=named, api_base=url, api_key="x", **fields)
        assert "cats" in heard.text.lower()
    parser = OpenAIWhisperParser(api_key="x", base_url=url, model="whisper-1", language="en")
    documents = list(parser.lazy_parse(Blob.from_data(speech, path="speech.wav", mime_type="audio/wav")))
    assert "cats" in documents[0].page_content.lower()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_langchain_draws(studio: Studio, offline: None):
    from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper

    for model in ("scenes", "dall-e-3"):
        wrapper = DallEAPIWrapper(api_key="x", base_url=f"{studio.url}/v1", model=model, size="256x256")
        address = wrapper.run(PROMPT)
        assert requests.get(address, timeout=SECONDS).headers["content-type"] == "image/png"


def test_what_open_webui_sends(studio: Studio, picture: bytes, mask: bytes):
    generation = {"prompt": PROMPT, "n": 1, "response_format": "b64_json"}
    for more in ({"model": "scenes", "size": "512x512"}, {"model": "", "size": "512x512"}, {"size": "auto"}):
        where = f"{studio.url}/v1/images/generations"
        assert requests.post(where, json=generation | more, timeout=SECONDS).status_code == 200
    fields = [("model", "scenes"), ("prompt", EDITED)]
    files = [("mask", mask)]
    for name in ("image", "image[]"):
        assert send(studio, "images/edits", fields, [(name, picture), *files]).status_code == 200
    for more in (("size", "512x512"), ("n", "1"), ("background", "auto"), ("response_format", "b64_json")):
        assert send(studio, "images/edits", [*fields, more], [("image", picture), *files]).status_code == 200


def test_a_field_or_a_file_that_is_sent_twice_is_refused(studio: Studio, picture: bytes, mask: bytes):
    """Lists are sent as image[]; one name twice is a mistake."""
    fields, files = [("prompt", EDITED)], [("image", picture), ("mask", mask)]
    for more_fields, more_files in (
        ([], [("image", picture)]), ([], [("image[]", picture)]), ([("prompt", EDITED)], []),
        ([("seed", "1"), ("seed", "2")], []),
    ):  # fmt: skip
        answer = send(studio, "images/edits", [*fields, *more_fields], [*files, *more_files])
        assert answer.status_code == 400 and "give it once" in answer.json()["error"]["message"]
    body = '{"prompt": "a cat", "seed": 1, "seed": 2}'
    answer = requests.post(
        f"{studio.url}/v1/images/generations", data=body, headers={"Content-Type": "application/json"}, timeout=SECONDS
    )
    assert answer.status_code == 400 and "'seed' is given 2 times" in answer.text


def test_paths_as_programs_write_them(studio: Studio):
    assert requests.get(f"{studio.url}/v1/models/", timeout=SECONDS).status_code == 200
    assert requests.head(f"{studio.url}/v1/models", timeout=SECONDS).status_code == 200
    assert requests.get(f"{studio.url}/v1", timeout=SECONDS).json()["error"]["code"] == "not_found"
    refused = requests.get(f"{studio.url}/v1/models", headers={"Origin": "null"}, timeout=SECONDS)
    assert refused.status_code == 403 and refused.json()["error"]["code"] == "cross_origin"
    assert requests.delete(f"{studio.url}/v1/models", timeout=SECONDS).headers["allow"] == "GET"
