"""LoRA adapters from a request to its picture: by name, with weights, beside requests that have none."""

import shutil

import numpy as np
import pytest
import torch
from app_fixtures import tiny_ar_model, tiny_model
from peft import LoraConfig, inject_adapter_in_model

import text_encoder
from app.cli import main
from app.core import png
from app.core.request import GenerationRequest, parse_adapters
from app.serving.jobs import Status
from app.serving.local_engine import LocalEngine
from app.web.image_fields import parse_form_fields, read_image_fields
from maskgil import checkpoint
from maskgil.adapter_folder import adapter_names
from maskgil.lora_adapters import load_adapter
from maskgil.pipeline import TextToImage
from maskgil.released import download
from train import lora

SECONDS = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model, and two adapters for it in the folder of adapters."""
    root = tmp_path_factory.mktemp("adapters")
    folder = tiny_model(root / "scenes")
    tiny_ar_model(folder)
    for seed, name in enumerate(("ink", "holiday")):
        generator = checkpoint.load(folder / "generator", "maskgil")
        config = LoraConfig(r=2, lora_alpha=4, target_modules=lora.TARGETS)
        inject_adapter_in_model(config, generator)
        torch.manual_seed(seed)
        for parameter_name, parameter in generator.named_parameters():
            if "lora_" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.5)
        lora.save_adapters(generator, config, "scenes", root / "models" / "adapters" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(download.FOLDER, str(root / "models"))
        yield folder


@pytest.fixture(scope="module")
def engine(folder):
    model = TextToImage.load(folder, text_encoder.load)
    engine = LocalEngine(lambda name: model)
    yield engine
    engine.close()


def request(adapters: str = "", **options) -> GenerationRequest:
    values = {"prompt": "two cats on the beach", "seed": 3, "steps": 4, "adapters": adapters}
    return GenerationRequest.read(values | options)


def drawn(engine: LocalEngine, *requests: GenerationRequest) -> list[np.ndarray]:
    """The pictures of requests that are drawn at the same time."""
    jobs = [engine.submit(each) for each in requests]
    assert all(job.wait(SECONDS) and job.status is Status.DONE for job in jobs), [job.error for job in jobs]
    return [np.asarray(job.pictures()[0]) for job in jobs]


def test_requests_switch_adapters_and_share_the_model(engine):
    asked = [request(), request("ink"), request("ink:0.5, holiday:-1"), request("ink:0")]
    together = drawn(engine, *asked)
    for each, picture in zip(asked, together, strict=True):
        assert np.array_equal(drawn(engine, each)[0], picture)
    plain, ink, both, off = together
    assert not np.array_equal(plain, ink) and not np.array_equal(ink, both)
    assert np.array_equal(plain, off)


def test_a_picture_is_what_the_merged_model_draws(engine, folder, tmp_path):
    lora.merge(str(folder), str(folder.parent / "models" / "adapters" / "ink"), str(tmp_path / "merged"))
    merged = TextToImage.load(tmp_path / "merged", text_encoder.load, ar_model=None)
    settings = request("ink").params
    expected = np.asarray(merged.images(["two cats on the beach"], [3], settings=settings)[0]).astype(int)
    assert np.abs(drawn(engine, request("ink"))[0].astype(int) - expected).max() <= 1


def test_best_of_n_and_hybrid_mode_have_them_too(engine):
    for options in ({"candidates": 2}, {"mode": "hybrid"}):
        plain, ink = drawn(engine, request(**options), request("ink", **options))
        assert not np.array_equal(plain, ink)


def test_a_picture_remembers_its_adapters(engine):
    job = engine.submit(request("ink:0.5"))
    assert job.wait(SECONDS)
    data = png.encode_png(job.pictures()[0], job.request)
    assert png.read_picture(data)[1].adapters == "ink:0.5"


def test_names_are_listed_and_others_refused(engine, folder):
    assert adapter_names() == ["holiday", "ink"]
    for name in ("pencil", "../ink", str(folder)):
        with pytest.raises(ValueError, match="no LoRA adapter is named .*: there is holiday, ink") as refusal:
            engine.submit(request(name))
        assert str(folder.parent / "models") not in str(refusal.value)


def test_a_broken_adapter_is_named_without_its_folder(engine, folder):
    adapters = folder.parent / "models" / "adapters"
    shutil.copytree(adapters / "ink", adapters / "cut")
    shutil.copytree(adapters / "ink", adapters / "bare")
    try:
        (adapters / "cut" / "adapter_model.safetensors").write_bytes(b"short")
        (adapters / "bare" / "adapter_config.json").unlink()
        for name, told in (("cut", "cut/adapter_model.safetensors is cut"), ("bare", "No such file")):
            with pytest.raises(ValueError, match=told) as refusal:
                engine.submit(request(name))
            assert str(adapters) not in str(refusal.value)
    finally:
        shutil.rmtree(adapters / "cut")
        shutil.rmtree(adapters / "bare")


@pytest.mark.parametrize("text", ["ink:much", "ink:11", ":1", "ink, ink", ",".join(f"a{i}" for i in range(9))])
def test_wrong_adapters_are_refused_before_anything_is_loaded(text):
    with pytest.raises(ValueError, match="adapter"):
        request(text)


def test_adapters_are_read():
    assert parse_adapters("ink:0.8, holiday") == (("ink", 0.8), ("holiday", 1.0))
    assert parse_adapters(" ") == ()


def test_models_without_a_masked_generator_take_none(folder):
    ar_model = TextToImage.load(folder, text_encoder.load).ar_model
    model = TextToImage.load(folder, text_encoder.load)
    alone = TextToImage(ar_model, model.text_encoder, model.tokenizer, model.sizes)
    adapter = load_adapter(folder.parent / "models" / "adapters" / "ink", model.generator)
    with pytest.raises(ValueError, match="for masked generators"):
        alone.with_adapters([(adapter, 1.0)])


def test_programs_ask_for_adapters_in_the_same_words():
    asked, _ = read_image_fields({"prompt": "a cat", "adapters": "ink:0.5"})
    assert asked.adapters == "ink:0.5"
    assert parse_form_fields({"prompt": "a cat", "adapters": "ink:0.5"})["adapters"] == "ink:0.5"
    with pytest.raises(ValueError, match="adapter 'ink:much'"):
        read_image_fields({"prompt": "a cat", "adapters": "ink:much"})


def test_names_are_looked_up_before_a_model_is_loaded(folder, capsys):
    engine = LocalEngine(lambda name: pytest.fail("the model was loaded"))
    with pytest.raises(ValueError, match="no LoRA adapter is named 'pencil'"):
        engine.submit(request("pencil"))
    engine.close()
    assert main(["generate", "a cat", "--model", str(folder), "--adapters", "pencil"]) == 2
    said = capsys.readouterr().err
    assert "no LoRA adapter is named 'pencil'" in said and "loading" not in said
