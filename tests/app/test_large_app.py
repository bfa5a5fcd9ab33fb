"""Large models on the command line: buckets of sizes, classes, the released sampler, and t2i-xl at full size."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from app_fixtures import CLASSES, tiny_classes, tiny_model
from PIL import Image
from test_cli import refused

from app.cli import main
from app.core import png, registry
from app.core.request import GenerationRequest
from app.serving.local_engine import LocalEngine
from maskgil.aspect_buckets import aspect_buckets
from maskgil.params import SAMPLERS, SamplingParams


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scenes with a fixed list of sizes, wide with buckets of two classes, classes driven by classes."""
    folder = Path(tmp_path_factory.mktemp("weights"))
    tiny_model(folder / "scenes")
    vocabulary = json.loads((tiny_model(folder / "wide") / "vocabulary.json").read_text())
    del vocabulary["sizes"]
    (folder / "wide" / "vocabulary.json").write_text(json.dumps(vocabulary | {"bucket_classes": [128, 64]}))
    tiny_classes(folder / "classes")
    return folder


@pytest.fixture(autouse=True)
def here(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MASKGIL_WEIGHTS", str(weights))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def drawn(*arguments: str) -> tuple[Image.Image, GenerationRequest]:
    """What the command drew, and the settings that the picture remembers."""
    assert main(["generate", *arguments, "--steps", "2", "--seed", "1", "--out", "x.png"]) == 0
    image, query = png.read_picture(Path("x.png").read_bytes())
    assert query is not None
    return image, query


def test_a_bucket_is_drawn_as_it_is_and_another_size_as_the_nearest_which_is_said(capsys):
    image, query = drawn("a cat", "--model", "wide", "--size", "192x64")
    assert image.size == query.size == (192, 64) and "nearest" not in capsys.readouterr().err
    image, query = drawn("a cat", "--model", "wide", "--size", "190x60")
    said = [line for line in capsys.readouterr().err.splitlines() if "nearest" in line]
    assert said == ["190x60 is drawn as 192x64, the nearest size of this model"]
    assert image.size == query.size == (192, 64), "what was drawn, not what was asked for"
    image, _ = drawn("a cat", "--model", "wide", "--size", "60x70")
    assert image.size == (64, 64), "of the class of that area"
    assert drawn("a cat", "--model", "wide")[0].size == (128, 128)


def test_a_fixed_list_of_sizes_still_refuses_others(capsys):
    told = refused(["generate", "a cat", "--size", "190x60"], capsys)
    assert "cannot draw 190x60: choose one of 64x64, 96x64" in told
    assert "give a width" in refused(["generate", "a cat", "--model", "wide", "--size", "0x70"], capsys)


def test_buckets_are_listed_in_a_few_words(capsys):
    assert main(["models"]) == 0
    told = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    count = len({*aspect_buckets(128), *aspect_buckets(64)})
    assert f"{count} shapes, about 128x128 and 64x64" in told["wide"] and "64x64 96x64" in told["scenes"]
    wide = registry.find("wide")
    assert wide.sizes[0] == (128, 128) and set(wide.sizes) == {*aspect_buckets(128), *aspect_buckets(64)}


def test_the_engine_tells_every_caller_what_became_of_a_size():
    engine = LocalEngine()
    try:
        job = engine.submit(GenerationRequest("a cat", 1, "wide", size=(190, 60), params=SamplingParams(steps=1)))
        assert job.wait(60) and job.request.size == (192, 64) == job.pictures()[0].size
        assert job.size_note == "190x60 is drawn as 192x64, the nearest size of this model"
        assert not engine.submit(
            GenerationRequest("a cat", 1, "wide", size=(192, 64), params=SamplingParams(steps=1))
        ).size_note
        assert not engine.submit(GenerationRequest("a cat", 1, "wide", params=SamplingParams(steps=1))).size_note
    finally:
        engine.close()


def test_a_class_is_drawn_by_number_and_by_name():
    def of(name: str, *more: str) -> tuple[Image.Image, GenerationRequest]:
        return drawn("--model", "classes", "--class", name, "--guidance", "30", *more)  # a tiny model hardly listens

    by_number, query = of("1")
    assert query.prompt == "1" and query.model == "classes" and by_number.size == (32, 32)
    assert of(CLASSES[1].upper())[0].tobytes() == by_number.tobytes() != of("0")[0].tobytes()
    assert of("1", "--negative", "0")[1].negative_prompt == "0"


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--class", "1"], "scenes draws what a sentence says: give a prompt instead of --class"),
        (["a cat", "--model", "classes"], "reads no sentences: give --class with a number or a name"),
        (["a cat", "--class", "1", "--model", "classes"], "both a prompt and --class"),
        (["--model", "classes"], "Missing: what to draw"),
        (["--class", "99", "--model", "classes"], "this model has classes 0 to"),
        (["--class", "golden retreiver", "--model", "classes"], "did you mean golden retriever"),
        (["--class", "1", "--negative", "qqqq", "--model", "classes"], "no class is called 'qqqq'"),
        (["--class", " ", "--model", "classes"], "empty"),
        (["a cat", "--sampler", "theirs"], "sampler"),
    ],
)
def test_what_does_not_go_together_is_one_line(arguments, complaint, capsys):
    assert complaint in refused(["generate", *arguments], capsys)


def test_a_sampler_is_a_preset_and_a_picture_remembers_what_it_set():
    for name, query in (("default", drawn("a cat")[1]), ("reference", drawn("a cat", "--sampler", "reference")[1])):
        assert query.params == replace(SAMPLERS[name], steps=2)
    assert SamplingParams() == SAMPLERS["default"]
    query = drawn("a cat", "--sampler", "reference", "--guidance-scale", "2")[1]
    assert query.params == replace(SAMPLERS["reference"], steps=2, guidance_scale=2.0)
    assert "Guidance shape: ramp" in png.parameters(query)
    assert GenerationRequest.from_metadata(query.to_dict()) == query


def test_guidance_is_on_where_it_has_a_task():
    """A negative prompt has no effect on the tokens without it, and the autoregressive model was measured with it. A
    sampler or a scale that somebody chose stays."""
    plain, guided = (replace(SAMPLERS[name], steps=2) for name in ("default", "guided"))
    assert guided.guidance_scale > 1 == plain.guidance_scale
    for fields, params in (
        ({}, plain),
        ({"negative_prompt": "a dog"}, guided),
        ({"mode": "hybrid"}, replace(guided, mode="hybrid")),
        ({"mode": "ar"}, replace(guided, mode="ar")),
        ({"negative_prompt": "a dog", "sampler": "default"}, plain),
        ({"negative_prompt": "a dog", "guidance_scale": 1.0}, replace(guided, guidance_scale=1.0)),
    ):
        assert GenerationRequest.read({"prompt": "a cat", "seed": 1, "steps": 2} | fields).params == params, fields
    assert drawn("a cat", "--negative", "a dog")[1].params == guided
    assert drawn("a cat", "--negative", "a dog", "--sampler", "default")[1].params == plain
