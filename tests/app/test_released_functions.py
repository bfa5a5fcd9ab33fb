"""Every function of the studio with every family of released models, on tiny folders in the released layouts.

The models are fetched ones: they lie in $MASKGIL_MODELS and are asked for by their Hugging Face ids through the canvas,
the live socket and the API, as a person or a program does.
"""

import asyncio
import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import requests
import starlette.requests
import torch
from PIL import Image
from released_folders import (
    TINY_LLAMAGEN_VQ,
    amused_folder,
    fetch_llamagen,
    keep_as_fetched,
    llamagen_repositories,
    meissonic_folder,
)
from safetensors.torch import save_file
from test_live_socket import ME, SECONDS, Socket, talk, transcript, words  # noqa: F401, words is a fixture
from torch import nn

from app.cli import main
from app.core import png
from app.core.gallery_store import Gallery, GalleryEntry
from app.core.request import GenerationRequest
from app.serving.batching import Batch
from app.serving.jobs import Job, Status
from app.serving.local_engine import LocalEngine
from app.serving.recognizer import SpeechRecognizer
from app.serving.services import AppServices
from app.web import live_socket, openai_api
from app.web.canvas_edits import begin_edit, parse_request, refined_draft, upscaled
from app.web.canvas_previews import encode_fast
from maskgil import converters
from maskgil.adapter_folder import adapters_folder
from maskgil.released import download
from speech.transcriber import Transcript

LLAMAGEN = "LlamaGen/t2i-XL-256"
FAMILIES = {
    "amused/amused-256": partial(amused_folder, downsample=False),
    "amused/amused-512": partial(amused_folder, downsample=True),
    "MeissonFlow/Meissonic": partial(meissonic_folder, downsample=True),
    "Collov-Labs/Monetico": partial(meissonic_folder, downsample=False),
}
SHORT = ("amused/amused-256", "Collov-Labs/Monetico", LLAMAGEN)


@dataclass(frozen=True)
class Studio:
    """The services of a server, and the model that is drawn with."""

    services: AppServices
    name: str

    @property
    def settings(self) -> dict:
        return {"model": self.name, "seed": 5} | ({} if self.is_autoregressive else {"steps": 3})

    @property
    def is_autoregressive(self) -> bool:
        return self.name == LLAMAGEN

    def job(self, prompt: str = "a cat", after: Job | None = None, **values: object) -> Job:
        request = GenerationRequest.read({"prompt": prompt, **self.settings, **values})
        return self.done(self.services.engine.submit(request, ME, after=after, finished=self.services.keep))

    def done(self, job: Job) -> Job:
        assert job.wait(SECONDS) and job.status is Status.DONE, job.error
        return job

    def kept(self) -> GalleryEntry:
        """A picture in the gallery."""
        return self.job().entries[0]

    def edited(self, entry: GalleryEntry, **message: object) -> Job:
        asked = {"id": entry.id, "settings": self.settings} | message
        return self.done(begin_edit(self.services, ME, asked)[0])

    def pixels(self, entry: GalleryEntry) -> np.ndarray:
        return np.asarray(png.read_picture(self.services.gallery.png(entry))[0].convert("RGB"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """All families, where `maskgil models get` keeps them."""
    root = tmp_path_factory.mktemp("released")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(download.FOLDER, str(root / "models"))
        patch.setitem(converters.VQ_PRESETS, "llamagen-vq16", TINY_LLAMAGEN_VQ)
        for name, make in FAMILIES.items():
            keep_as_fetched(name, make)
        llamagen_repositories(root)
        fetch_llamagen(root, LLAMAGEN)
        yield


# One model of each kind in `make test`; the others differ from these in sizes.
STUDIOS = [pytest.param(name, marks=() if name in SHORT else pytest.mark.journey) for name in (*FAMILIES, LLAMAGEN)]


@pytest.fixture(scope="module", params=STUDIOS)
def studio(folders: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    gallery = Gallery(Path(tmp_path_factory.mktemp("gallery")))
    services = AppServices(LocalEngine(), SpeechRecognizer("nobody"), gallery)
    yield Studio(services, request.param)
    services.engine.close()


def previews(studio: Studio) -> None:
    """After a step, what is not decided yet is transparent."""
    job = studio.job()
    first, *_, last = (job.preview(i) for i in job.preview_steps)
    assert first[0].getchannel("A").getextrema()[0] < 255
    assert last[0].mode == "RGB" and last[0].size == job.request.size


def step_player(studio: Studio) -> None:
    """Every step can be shown again, and each decides more tokens."""
    job = studio.job()
    masked = [int(frame.grid.mask.sum()) for frame in job.frames]
    assert len(masked) == job.frames[-1].total == (16 if studio.is_autoregressive else 3)
    assert masked == sorted(masked, reverse=True) and masked[-1] == 0 < masked[0]
    assert all(encode_fast(job.preview_of_row(i, 0)) for i in range(len(job.frames)))


def brush(size: tuple[int, int]) -> str:
    """A mask whose right half is brushed, as a page sends it."""
    mask = Image.new("RGBA", size, (0, 0, 0, 0))
    mask.paste((255, 255, 255, 255), (size[0] // 2, 0, *size))
    file = io.BytesIO()
    mask.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def inpainting(studio: Studio) -> None:
    """The brushed half changes, the other stays to the bit."""
    entry = studio.kept()
    before = studio.pixels(entry)
    job = studio.edited(entry, kind="paint", prompt="a dog", mask=brush(before.shape[1::-1]))
    after = np.asarray(job.pictures()[0])
    half = before.shape[1] // 2
    assert np.array_equal(before[:, :half], after[:, :half]) and not np.array_equal(before, after)


def image_to_image(studio: Studio) -> None:
    """A share of the tokens is drawn anew."""
    job = studio.edited(studio.kept(), kind="vary", strength=0.4)
    assert 0 < job.start.mask.float().mean() < 0.5 and job.pictures()[0].size == job.start.whole.size


def extending(studio: Studio) -> None:
    """The picture grows to one side, and what there was stays."""
    entry = studio.kept()
    before = studio.pixels(entry)
    job = studio.edited(entry, kind="extend", side="right", amount=32)
    after = np.asarray(job.pictures()[0])
    assert after.shape[1] == before.shape[1] + 32
    far = before.shape[1] // 4  # the seam is blended
    assert np.array_equal(before[:, :far], after[:, :far])


def other_words(studio: Studio) -> None:
    """New words mask again what they contradict. An autoregressive model cannot say, and asks for a brush."""
    entry = studio.kept()
    if studio.is_autoregressive:
        with pytest.raises(ValueError, match="brush over it"):
            studio.edited(entry, kind="words", prompt="a red dog")
    else:
        assert studio.edited(entry, kind="words", prompt="two red dogs at night").start.mask.any()


def drafts(studio: Studio) -> None:
    """A finished draft is refined: its least certain tokens are drawn anew."""
    draft = studio.job()
    start = refined_draft(draft, draft.request)
    assert start is not None and 0 < int(start.mask.sum()) < len(start.mask)
    if not studio.is_autoregressive:
        studio.done(studio.services.engine.submit(draft.request, ME, start))


def larger_copies(studio: Studio) -> None:
    """A picture is enlarged; without an upscaler that is said."""
    entry = studio.kept()
    _, image, note = upscaled(studio.services, ME, {"id": entry.id, "factor": 2, "settings": studio.settings})
    assert image.size == tuple(2 * side for side in studio.pixels(entry).shape[1::-1]) and "only interpolated" in note


def best_of_n(studio: Studio) -> None:
    """Several candidates, one picture; scoring them costs evaluations, too."""
    one, best = studio.job(), studio.job(candidates=3)
    assert len(best.pictures()) == 1 and best.frames[-1].nfe > 3 * one.frames[-1].nfe


def several_pictures(studio: Studio) -> None:
    """Picture i of n has the seed SEED + i."""
    both, second = studio.job(n=2), studio.job(seed=6)
    difference = np.abs(np.asarray(both.pictures()[1], int) - np.asarray(second.pictures()[0], int))
    assert len(both.pictures()) == 2 and np.median(difference) == 0


def requests_together(studio: Studio) -> None:
    """Requests of other prompts and settings share a batch, and draw what they draw alone. A model that writes token by
    token draws each by itself."""
    asked = [
        {"prompt": "a cat", "guidance_scale": 2.0},
        {"prompt": "a red dog", "seed": 2**31 - 1},
        {"prompt": "a cat", "seed": 9, "negative_prompt": ""},
    ]
    alone = [studio.job(**values) for values in asked]
    rows, together, submitted = [], Batch._together, threading.Event()

    def counted(batch: Batch, sketches: list) -> None:
        assert submitted.wait(SECONDS)
        rows.append(len(sketches))
        together(batch, sketches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batch, "_together", counted)
        wanted = [GenerationRequest.read(studio.settings | values) for values in asked]
        jobs = [studio.services.engine.submit(request) for request in wanted]
        submitted.set()
        for job in jobs:
            studio.done(job)
    assert max(rows) == (1 if studio.is_autoregressive else 3)
    for job, other in zip(jobs, alone, strict=True):
        same = job.frames[-1].grid.tokens == other.frames[-1].grid.tokens
        assert same.float().mean() > 0.95  # rounding in another batch may tip a tie


def live_speech(studio: Studio) -> None:
    """What is said becomes a picture, and grows with more words."""

    async def script(socket: Socket) -> None:
        socket.tell(json.dumps({"type": "settings", **studio.settings, "pause": 1.0}))
        socket.speak(True, 0.5)
        socket.speak(False, 0.25)
        await socket.until("picture")
        SAID.extend(["and", "a", "dog"])
        socket.speak(True, 0.5)
        socket.speak(False, 1.2)
        await socket.until("kept")

    SAID[:] = ["a", "red", "cat"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_socket, "get_services", lambda: studio.services)
        socket = talk(studio.services, script)
    assert [shown["prompt"] for shown in socket.of("picture")] == ["a red cat", "a red cat and a dog"]


def call(studio: Studio, path: str, **content: object) -> dict:
    """The answer of the API to a call."""
    prepared = requests.Request("POST", f"http://localhost{path}", **content).prepare()
    headers = [(name.lower().encode(), value.encode()) for name, value in prepared.headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b"", "scheme": "http"}
    scope |= {"server": ("localhost", 80), "client": ("caller", 1), "asgi": {}}
    body = prepared.body.encode() if isinstance(prepared.body, str) else prepared.body
    told, sent = iter([{"type": "http.request", "body": body}]), []

    async def receive() -> dict:
        if (message := next(told, None)) is None:
            await asyncio.Event().wait()
        return message

    async def send(message: dict) -> None:
        sent.append(message)

    async def ask() -> None:
        answer = await openai_api.answer(starlette.requests.Request(scope, receive))
        await answer(scope, receive, send)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openai_api, "existing_services", lambda: studio.services)
        asyncio.run(ask())
    text = b"".join(message.get("body", b"") for message in sent)
    assert sent[0]["status"] == 200, text
    return json.loads(text)


def api(studio: Studio) -> None:
    """Generations, edits and variations over HTTP, by the model's name, which the list of models has."""
    asked = {"prompt": "a cat", **studio.settings}
    told = call(studio, "/v1/images/generations", json=asked)
    image, request = png.read_picture(base64.b64decode(told["data"][0]["b64_json"]))
    assert told["model"] == request.model == studio.name
    file = io.BytesIO()
    mask = Image.open(io.BytesIO(base64.b64decode(brush(image.size).partition(",")[2])))
    inverted = Image.merge("RGBA", (*mask.split()[:3], mask.getchannel("A").point(lambda level: 255 - level)))
    inverted.save(file, "PNG")  # what is transparent is drawn anew
    files = {"image": ("a.png", png.encode_png(image, request)), "mask": ("mask.png", file.getvalue())}
    form = {name: str(value) for name, value in asked.items()}
    edited = call(studio, "/v1/images/edits", files=files, data=form | {"prompt": "a dog"})
    after = png.read_picture(base64.b64decode(edited["data"][0]["b64_json"]))[0].convert("RGB")
    half = image.width // 2
    before = np.asarray(image.convert("RGB"))
    assert np.array_equal(before[:, :half], np.asarray(after)[:, :half])
    varied = {name: value for name, value in form.items() if name != "prompt"} | {"seed": "8"}
    assert call(studio, "/v1/images/variations", files={"image": files["image"]}, data=varied)["data"][0]["seed"] == 8


def write_adapter(studio: Studio, name: str, in_peft: bool, seed: int) -> None:
    """An adapter for the generator, in $MASKGIL_MODELS/adapters: a folder of peft's or of diffusers'."""
    generator = studio.services.engine.load(studio.name).model.generator
    layers = [(name, part) for name, part in generator.named_modules() if isinstance(part, nn.Linear)]
    prefix, random = "base_model.model." if in_peft else "transformer.", torch.Generator().manual_seed(seed)
    tensors = {}
    for layer, part in layers[:: max(1, len(layers) // 6)]:
        tensors[f"{prefix}{layer}.lora_A.weight"] = torch.randn(2, part.in_features, generator=random)
        tensors[f"{prefix}{layer}.lora_B.weight"] = torch.randn(part.out_features, 2, generator=random)
    folder = adapters_folder() / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / ("adapter_model.safetensors" if in_peft else "pytorch_lora_weights.safetensors"))
    if in_peft:
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 4}')


def adapters(studio: Studio) -> None:
    """LoRA adapters in both formats, several with weights, switched between requests, by the canvas and the API."""
    own = studio.name.replace("/", "-").lower()
    write_adapter(studio, f"{own}-ink", True, 1)
    write_adapter(studio, f"{own}-holiday", False, 2)
    ink, both = f"{own}-ink", f"{own}-ink:0.5, {own}-holiday:-1"
    if studio.is_autoregressive:
        with pytest.raises(ValueError, match="for masked generators of codes"):
            studio.job(adapters=ink)
        return
    plain, inked, mixed, again = (studio.job(adapters=named).frames[-1].grid.tokens for named in ("", ink, both, ""))
    assert torch.equal(plain, again) and not torch.equal(plain, inked) and not torch.equal(inked, mixed)
    asked = {"prompt": "a cat", **studio.settings, "adapters": both}
    told = call(studio, "/v1/images/generations", json=asked)
    image, request = png.read_picture(base64.b64decode(told["data"][0]["b64_json"]))
    assert request.adapters == both
    assert np.array_equal(np.asarray(image), np.asarray(studio.job(adapters=both).pictures()[0]))
    drawn = parse_request({"prompt": "a cat", "settings": {**studio.settings, "adapters": ink}}, studio.services)
    job = studio.done(studio.services.draw(drawn, ME))
    assert torch.equal(job.frames[-1].grid.tokens, inked)
    edited = studio.edited(job.entries[0], kind="vary", settings={**studio.settings, "adapters": ink})
    assert edited.request.adapters == ink


FUNCTIONS: tuple[Callable[[Studio], None], ...] = (
    previews,
    step_player,
    inpainting,
    image_to_image,
    extending,
    other_words,
    drafts,
    larger_copies,
    best_of_n,
    several_pictures,
    requests_together,
    live_speech,
    api,
    adapters,
)
SAID: list[str] = []


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_function(studio: Studio, function: Callable[[Studio], None], words: list[str], monkeypatch):  # noqa: F811
    monkeypatch.setattr(SpeechRecognizer, "transcribe_live", lambda self, spoken, guess=(): heard())
    function(studio)


def heard() -> Transcript:
    return transcript(SAID)


def test_the_list_of_models_has_the_fetched_ones(studio: Studio):
    listed = {model["id"] for model in openai_api._model_list(studio.services)}
    assert {*FAMILIES, LLAMAGEN} <= listed


def test_options_left_out_are_those_of_the_release(studio: Studio):
    params = GenerationRequest.read({"prompt": "a cat", "seed": 1, "model": studio.name}).params
    expected = {"amused": (12, 10.0), "MeissonFlow": (48, 9.0), "Collov-Labs": (48, 9.0), "LlamaGen": (8, 7.5)}
    assert (params.steps, params.guidance_scale) == expected[studio.name.partition("/")[0]]
    assert replace(params, steps=1) != replace(GenerationRequest("a cat", 1).params, steps=1)


def test_the_command_line_draws_with_adapters_and_less_memory(studio: Studio, tmp_path: Path, capsys):
    """`maskgil generate` with a released model: adapters with weights, bf16, and a text encoder in fewer bits."""
    write_adapter(studio, "ink", True, 1)
    steps = [] if studio.is_autoregressive else ["--steps", "2"]
    base = ["generate", "a cat", "--model", studio.name, "--seed", "1", *steps]
    less = ["--precision", "bf16", "--text-encoder", "offload"]
    ways = {"plain": [], "less": less}
    if not studio.is_autoregressive:
        ways["ink"] = ["--adapters", "ink:0.5"]
    for name, options in ways.items():
        assert main([*base, *options, "--out", str(tmp_path / f"{name}.png")]) == 0, capsys.readouterr().err
    pictures = {name: png.read_picture((tmp_path / f"{name}.png").read_bytes()) for name in ways}
    if "ink" in pictures:
        assert pictures["ink"][1].adapters == "ink:0.5"
        assert not np.array_equal(np.asarray(pictures["ink"][0]), np.asarray(pictures["plain"][0]))
    assert pictures["less"][0].size == pictures["plain"][0].size
    assert main([*base, "--text-encoder", "2bit"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "--text-encoder 2bit: did you mean" in said and "choose one of 4bit, 8bit, bf16, full, offload" in said
