"""Files, names and values of before still work, whatever they are called now.

fixtures/legacy was written by the code of commit 4506643. `pictures` are by app/picture.py (`old-*` carry the metadata
of earlier versions, which had fewer fields), `gallery` by app/gallery.py. `weights` and the model folders beside it are
by maskgil/checkpoint.py and text_encoder/bundled.py, with random weights of fixed seeds. `pictures.json` and
`gallery.json` hold what those files mean and `outputs.safetensors` what the models gave. `names.json` lists the fields
of the API, the socket and the metadata, the options of every program, the recipes and the values of options. The files
stay as they are: nothing writes them again.
"""

import asyncio
import base64
import contextlib
import inspect
import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from starlette.requests import Request as Call
from torch import Tensor

import text_encoder
from app.cli import ROOT as COMMANDS
from app.cli import main
from app.core import paths, png, registry
from app.core.gallery_store import Gallery
from app.core.request import GenerationRequest
from app.serving.services import forget_services, get_services
from app.web import image_fields, openai_api
from app.web.live_socket import LiveSession
from maskgil import checkpoint, model_folder
from maskgil.command_line import options_of, parse
from maskgil.condition import Condition
from maskgil.config_file import LEGACY_RECIPES
from maskgil.params import LEGACY, SAMPLERS, SamplingParams
from maskgil.tokenizers import vq_latents
from speech.mel import encode_mel
from speech.transcriber import Transcriber
from train.commands import recipe_commands, recipes
from train.scenes import judge  # noqa: F401, its import makes the kind of its checkpoints known

FOLDER = Path(__file__).resolve().parent / "fixtures" / "legacy"
MODELS = FOLDER / "weights"
PICTURES = json.loads((FOLDER / "pictures.json").read_text())
NAMES = json.loads((FOLDER / "names.json").read_text())
VARIABLES = {
    "MASKGIL_WEIGHTS": model_folder.weights_folder,
    "MASKGIL_GALLERY": paths.gallery_folder,
    "MASKGIL_MODEL": paths.default_model,
}
VARIABLES |= {"MASKGIL_EAR": paths.default_recognizer}
OWNER = "legacy-owner"
CELLS = (6, 6)

# Between the names of before and those of the code: the one place that a renaming touches.

VALUES: dict[str, str] = {"mar": "masked", "ours": "default", "released": "reference"}  # what is another word now


def sampler_of(params: SamplingParams) -> str:
    """The preset whose guidance shape and choice temperature, which it alone set, the parameters have."""
    alike = ("guidance_shape", "choice_temperature")
    (name,) = [
        name
        for name in ("default", "reference")
        if all(getattr(SAMPLERS[name], part) == getattr(params, part) for part in alike)
    ]
    return name


def settings_of(request: GenerationRequest) -> dict[str, Any]:
    """A request's settings, by the names of before."""
    params = request.params
    return {
        "prompt": request.prompt,
        "seed": request.seed,
        "model": request.model,
        "size": request.size and list(request.size),
        "steps": params.steps,
        "guidance": params.guidance_scale,
        "interval": list(params.guidance_interval),
        "temperature": params.temperature,
        "order": params.order,
        "negative": request.negative_prompt,
        "n": request.n,
        "edit": request.edit,
        "mode": params.mode,
        "ar_tokens": params.ar_tokens,
        "sampler": sampler_of(params),
        "revisions": params.refinement_passes,
        "candidates": params.candidates,
    }


def current(settings: dict[str, Any]) -> dict[str, Any]:
    return settings | {name: VALUES.get(settings[name], settings[name]) for name in ("mode", "sampler")}


def pixels(name: str) -> Tensor:
    array = np.asarray(Image.open(FOLDER / name).convert("RGB"), np.float32)
    return torch.from_numpy(array.copy()).permute(2, 0, 1)[None] / 127.5 - 1


def codes(count: int) -> Tensor:
    return (torch.arange(36)[None] * 7) % count


def words() -> Condition:
    return text_encoder.load(MODELS / "scenes" / "text_encoder").encode(["two cats on the beach", "a red dog"])


def vq_outputs(folder: Path, image: str) -> dict[str, Tensor]:
    model = checkpoint.load(folder, "vq")
    tokens = codes(model.config.codebook_size)
    # What the decoder is told beside the latents, by the branch that names cells.
    told = model.cell_features(model.quantize.codebook()[tokens].unflatten(1, CELLS).permute(0, 3, 1, 2))
    return {"tokens": model.encode(pixels(image)), "pixels": model.decode(tokens, CELLS), "told": told}


def continuous_outputs(folder: Path) -> dict[str, Tensor]:
    model = vq_latents.load_latent_tokenizer(folder)
    tokens = model.encode(pixels("picture.png"))
    rows = int(tokens.shape[1] ** 0.5)
    return {"tokens": tokens, "pixels": model.decode(tokens, (rows, rows))}


def generator_outputs() -> dict[str, Tensor]:
    model, tokens = checkpoint.load(MODELS / "scenes" / "generator", "maskgil"), codes(65).repeat(2, 1)
    drop = torch.tensor([False, True])
    return {"logits": model(tokens, CELLS, words()), "null": model(tokens, CELLS, words(), drop)}


def ar_outputs(folder: Path) -> dict[str, Tensor]:
    model = checkpoint.load(folder)
    condition = words()
    if model.config.text_length < condition.length:
        condition = Condition(
            condition.states[:, : model.config.text_length], condition.mask[:, : model.config.text_length]
        )
    return {"logits": model(codes(64).repeat(2, 1), CELLS, condition)}


def emigm_outputs() -> dict[str, Tensor]:
    model = checkpoint.load(MODELS / "scenes-emigm" / "generator", "emigm")
    tokens = torch.linspace(-2, 2, 2 * 36 * 8).view(2, 36, 8)
    z = model(tokens, (torch.arange(36) % 3 > 0).repeat(2, 1), words())
    return {"z": z, "head": model.diffloss.net(tokens.flatten(0, 1), torch.tensor([500.0]), z.flatten(0, 1))}


def judge_outputs() -> dict[str, Tensor]:
    return checkpoint.load(MODELS / "scenes-reader", "reader")(pixels("large.png"))


def recogniser_outputs() -> dict[str, Tensor]:
    model = Transcriber.load(MODELS / "whisper-tiny").scribe.model
    mel = torch.linspace(-1, 1, model.dims.n_mels * 40).view(1, model.dims.n_mels, 40)
    heard = encode_mel(model, mel)
    return {"heard": heard, "logits": model.decoder(torch.tensor([[1, 5, 9]]), heard)}


OUTPUTS: dict[str, Callable[[], dict[str, Tensor]]] = {
    "vq": lambda: vq_outputs(MODELS / "scenes" / "tokenizer", "picture.png"),
    "vq-bytes": lambda: vq_outputs(FOLDER / "bytes", "large.png"),
    "absorbed-borrowed": lambda: continuous_outputs(MODELS / "scenes-emigm" / "tokenizer"),
    "latent": lambda: continuous_outputs(FOLDER / "latent"),
    "text-encoder": lambda: {"states": words().states},
    "text-encoder-borrowed": lambda: {
        "states": text_encoder.load(MODELS / "scenes-emigm" / "text_encoder").encode(["a dog"]).states
    },
    "generator": generator_outputs,
    "ar": lambda: ar_outputs(MODELS / "scenes-ar"),
    "llamagen": lambda: ar_outputs(FOLDER / "llamagen"),
    "emigm": emigm_outputs,
    "judge": judge_outputs,
    "recogniser": recogniser_outputs,
}


def read_api(fields: dict[str, Any]) -> GenerationRequest:
    return image_fields.read_image_fields(fields)[0]


# The tests.


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_before_brings_back_all_its_settings(name: str):
    _, request = png.read_picture((FOLDER / "pictures" / name).read_bytes())
    assert request is not None and settings_of(request) == current(PICTURES[name])
    again = png.read_picture(png.encode_png(Image.new("RGB", (8, 8)), request))[1]
    assert again == request, "what is written now is read as the same"


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER / "gallery", tmp_path / "gallery"))


@pytest.mark.parametrize("indexed", (True, False))
def test_a_gallery_of_before_opens_and_one_without_its_index_is_read_again(gallery: Path, indexed: bool):
    kept = json.loads((FOLDER / "gallery.json").read_text())
    if not indexed:
        for path in gallery.glob("index.db*"):
            path.unlink()
    opened = Gallery(gallery)
    entries = {entry.id: entry for entry in opened.entries(OWNER)}
    assert entries.keys() == kept.keys()
    for id, about in kept.items():
        request = entries[id].request
        assert (request and settings_of(request)) == (about["request"] and current(about["request"]))
        assert png.read_picture(opened.png(entries[id]))[0].size == tuple(about["size"])
        assert entries[id].prompt == about["prompt"]
    assert opened.shares(OWNER) == indexed  # who shares stands in the index alone


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_model_of_before_gives_the_same_numbers(name: str):
    wanted = {
        key: value for key, value in load_file(FOLDER / "outputs.safetensors").items() if key.startswith(f"{name}/")
    }
    with torch.no_grad():
        now = {f"{name}/{key}": value for key, value in OUTPUTS[name]().items()}
    assert now.keys() == wanted.keys() and now
    for key, value in wanted.items():
        named = f"{key}: {{}}".format  # what is said of a difference begins with its tensor
        torch.testing.assert_close(now[key].float(), value.float(), rtol=2e-3, atol=2e-3, msg=named)


def test_a_byte_checkpoint_is_one():
    names = load_file(FOLDER / "bytes" / "model.safetensors").keys()
    assert {"naming.conv_in.weight.rows", "decoder.hear.weight.rows", "decoder.recall.key.weight.rows"} <= names


@pytest.mark.parametrize("variable", VARIABLES)
def test_an_environment_variable_of_before_counts(variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    assert str(VARIABLES[variable]()) == str(tmp_path / "elsewhere")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, gallery: Path) -> Iterator[None]:
    """This process serves the models and the gallery of before, as the variables of before say."""
    values = {"WEIGHTS": MODELS, "GALLERY": gallery, "MODEL": "scenes", "EAR": "whisper-tiny"}
    for name, value in values.items():
        monkeypatch.setenv(f"MASKGIL_{name}", str(value))
    forget_services()
    yield
    get_services().engine.close()
    forget_services()


def ask(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """What the server answers to JSON."""
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if sent:
            await asyncio.Event().wait()  # the caller stays until it is answered
        sent = True
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    headers = [(b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": headers,
        "client": ("here", 1),
    }
    scope |= {"scheme": "http", "server": ("here", 80), "http_version": "1.1"}

    async def answered() -> dict[str, Any]:
        response = await openai_api.answer(Call(scope, receive))
        assert response.status_code == 200, response.body
        return json.loads(response.body)

    return asyncio.run(answered())


BODY = {
    "prompt": "two cats on the beach", "model": "scenes", "n": 2, "seed": 3, "sampler": "ours", "temperature": 0.9,
    "order": "halton", "mode": "hybrid", "ar_tokens": 9, "revisions": 2, "candidates": 2, "negative_prompt": "grass",
    "num_inference_steps": 4, "guidance_scale": 3.5, "guidance_interval": [0.2, 0.8], "size": "32x24", "stream": False,
    "partial_images": 0, "response_format": "b64_json", "output_format": "png", "metadata": True, "anyway": False,
}  # fmt: skip
READ = {
    "prompt": "two cats on the beach", "seed": 3, "model": "scenes", "size": [32, 24], "steps": 4, "guidance": 3.5,
    "interval": [0.2, 0.8], "temperature": 0.9, "order": "halton", "negative": "grass", "n": 2, "edit": "",
    "mode": "hybrid", "ar_tokens": 9, "sampler": "ours", "revisions": 2, "candidates": 2,
}  # fmt: skip


def test_the_api_takes_every_field_of_before(served: None):
    assert set(BODY) == set(NAMES["api"]["generations"])
    assert settings_of(read_api(BODY)) == current(READ)
    answer = ask("/v1/images/generations", BODY)
    assert (answer["size"], len(answer["data"])) == ("32x24", 2)
    image, request = png.read_picture(base64.b64decode(answer["data"][1]["b64_json"]))
    assert image.size == (32, 24) and settings_of(request) == current(READ | {"n": 1, "seed": 4})


@pytest.mark.parametrize("sampler", ("ours", "released"))
def test_the_api_takes_the_samplers_and_modes_of_before(served: None, sampler: str):
    for mode in ("mar", "ar", "hybrid"):
        wish = {"prompt": "a red dog", "sampler": sampler, "mode": mode, "seed": 1, "num_inference_steps": 2}
        read = settings_of(read_api(wish))
        assert (read["sampler"], read["mode"]) == (VALUES[sampler], VALUES.get(mode, mode))
        assert len(ask("/v1/images/generations", wish)["data"]) == 1


def test_a_sampler_brings_what_it_brought(served: None):
    brings = NAMES["samplers"]["released"]
    read = settings_of(read_api({"prompt": "a dog", "sampler": "released"}))
    assert {name: read[name] for name in brings} == brings


def test_the_models_of_before_are_listed(served: None):
    assert [model.name for model in registry.bundled_models()] == ["scenes", "scenes-emigm"]
    assert registry.recognizers() == ["whisper-tiny"] and not registry.broken_folders()
    answer = ask(
        "/v1/images/generations", {"prompt": "a red cat", "model": "scenes-emigm", "order": "random", "seed": 1}
    )
    assert answer["size"] == "24x24"


class SilentSocket:
    """A visitor who says nothing."""

    scope: Any = {}
    headers: Any = {}

    async def accept(self) -> None: ...
    async def receive(self) -> Any: ...
    async def send_text(self, data: str) -> None: ...
    async def send_bytes(self, data: bytes) -> None: ...
    async def close(self, code: int = 1000, reason: str | None = None) -> None: ...


SPOKEN = {
    "model": "scenes", "steps": 4, "guidance": 3.5, "interval": [0.2, 0.8], "temperature": 0.9, "negative": "grass",
    "seed": 3, "order": "halton", "sampler": "ours", "mode": "hybrid", "ar_tokens": 9, "revisions": 2, "candidates": 2,
    "size": "32x24", "pause": 0.5,
}  # fmt: skip


def test_the_socket_takes_every_setting_of_before(served: None):
    assert set(SPOKEN) == set(NAMES["socket"])
    asyncio.set_event_loop(asyncio.new_event_loop())  # other tests close theirs
    session = LiveSession(SilentSocket(), OWNER, get_services())
    assert not session.on_control(json.dumps({"type": "settings", **SPOKEN}))
    request = GenerationRequest.read({"prompt": "two cats on the beach", **session.settings})
    assert settings_of(request) == current(READ | {"n": 1})


# Options that have another name now; the former one is an alias.
ALIASES = {"muddle": "corruption", "twin": "ar_model", "ear": "recognizer", "observer": "perceptual_net"}


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("scenes-decoder", "--muddle"),
        ("scenes-ar", "--twin"),
        ("scenes-decoder", "--observer"),
        ("scenes-kl", "--observer"),
    ],
)
def test_options_of_recipes_keep_their_former_names(command: str, option: str, capsys: pytest.CaptureFixture):
    with contextlib.suppress(SystemExit):
        main(["train", command, "--help"])
    assert option in capsys.readouterr().out


@pytest.mark.parametrize(("old", "new"), LEGACY_RECIPES.items())
def test_recipes_keep_their_former_names(old: str, new: str):
    """With the folder of before, so that a run without --out continues where it is."""
    commands = recipe_commands()
    assert old not in recipes()
    assert commands[old].help == f"The former name of {new}."
    for name in (old, new):
        call = commands[name].load()
        assert inspect.signature(call).parameters["out"].default == Path("runs") / name


def test_a_config_file_of_before_chooses_the_recipe_of_now(tmp_path: Path):
    path = tmp_path / "config.toml"
    path.write_text('recipe = "scenes-observer"\nsteps = 7\n')
    for words in (
        ["--config", path],
        ["scenes-observer", "--config", path],
        ["scenes-perceptual-net", "--config", path],
    ):
        call = parse(COMMANDS, "maskgil", ["train", *map(str, words)])
        assert isinstance(call, partial) and call.keywords["recipe"].keywords["steps"] == 7
    path.write_text('recipe = "scenes-decoder"\nobserver = "old"\nmuddle = 0.1\ntokenizer = "folder"\n')
    for given, net in (([], "old"), (["--observer", "new"], "new"), (["--perceptual-net", "new"], "new")):
        call = parse(COMMANDS, "maskgil", ["train", "scenes-decoder", "--config", str(path), *given])
        assert isinstance(call, partial)
        chosen = call.keywords["recipe"].keywords
        assert (chosen["perceptual_net"], chosen["corruption"]) == (net, 0.1)


def test_the_spelling_of_before_is_answered_with_the_names_of_now():
    with pytest.raises(ValueError, match="written --name value: .* --perceptual-net lpips --corruption 0.1"):
        parse(COMMANDS, "maskgil", ["train", "scenes-decoder", "observer=lpips", "muddle=0.1"])
    with pytest.raises(ValueError, match="perceptual-net is given 2 times"):
        parse(COMMANDS, "maskgil", ["train", "scenes-decoder", "--observer", "a", "--perceptual-net", "b"])


def test_names_of_before():
    """The list itself, until aliases take its place: every name is known today."""
    current = {LEGACY.get(name, name) for name in NAMES["api"]["generations"]}
    assert current <= set(image_fields.known_fields())
    for name, parameters in NAMES["recipes"].items():
        today = {ALIASES.get(option, option).replace("_", "-") for option in parameters}
        assert today <= set(options_of(recipes()[LEGACY_RECIPES.get(name, name)])), name
    for name, options in NAMES["cli"].items():
        today = {ALIASES.get(option, LEGACY.get(option, option)).replace("_", "-") for option in options}
        assert today <= set(options_of(COMMANDS.load()[name].load())), name
