"""LlamaGen's text-driven release: fetched as torch files, converted once, and drawing alone, without a MaskGIL."""

from dataclasses import replace

import pytest
import torch
from released_folders import TINY_LLAMAGEN_VQ, fetch_llamagen, llamagen_repositories

import text_encoder
from app.core import registry
from app.core.request import GenerationRequest
from app.serving.jobs import Status
from app.serving.local_engine import LocalEngine
from maskgil import converters, inpainting
from maskgil.params import SAMPLERS
from maskgil.pipeline import TextToImage
from maskgil.released import download
from maskgil.sampling.guidance import apply_guidance

NAME = "LlamaGen/t2i-XL-256"


@pytest.fixture(scope="module")
def fetched(tmp_path_factory):
    """The released files with random weights, in a stand-in of the hub, fetched by the product."""
    root = tmp_path_factory.mktemp("llamagen")
    gpt = llamagen_repositories(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(download.FOLDER, str(root / "models"))
        patch.setitem(converters.VQ_PRESETS, "llamagen-vq16", TINY_LLAMAGEN_VQ)
        folder = fetch_llamagen(root, NAME)
        yield folder, gpt


@pytest.fixture(scope="module")
def model(fetched) -> TextToImage:
    return TextToImage.load(NAME, text_encoder.load)


def test_the_folder_is_converted_and_the_pickles_are_gone(fetched):
    folder, _ = fetched
    assert not list(folder.rglob("*.pt"))
    info = registry.find(NAME)
    assert (info.sampler, info.reads, info.classes) == ("llamagen", "free text", None)


def test_it_draws_alone_what_the_released_loop_draws(model, fetched):
    """Each token from the text and the tokens before it; the most probable one, guided, at temperature 0."""
    params = replace(SAMPLERS["llamagen"], temperature=0.0)
    *_, last = model.draw(["a red cat"], [3], settings=params)
    _, gpt = fetched
    condition, tokens = model.condition(["a red cat"]), torch.zeros(1, 16, dtype=torch.long)
    with torch.no_grad():
        for i in range(16):
            own = gpt.eval()(tokens, (4, 4), condition)[:, i : i + 1]
            null = gpt(tokens, (4, 4), condition, torch.tensor([True]))[:, i : i + 1]
            tokens[:, i] = apply_guidance(null, own, torch.tensor([7.5])).argmax(-1)[:, 0]
    assert torch.equal(last.canvas.tokens, tokens)
    assert (last.step, last.of, last.nfe) == (16, 16, 32)


def test_options_left_out_are_those_of_the_release(model):
    assert SAMPLERS[model.preset].guidance_scale == 7.5 and SAMPLERS[model.preset].ar_top_k == 1000
    request = GenerationRequest.read({"prompt": "a cat", "seed": 1, "model": NAME, "temperature": 0.5})
    assert request.params == replace(SAMPLERS["llamagen"], temperature=0.5)


def test_candidates_inpainting_and_the_engine(model):
    *_, last = model.draw(["a dog"], [1], settings=replace(SAMPLERS["llamagen"], candidates=3))
    assert len(last.canvas) == 1 and not last.canvas.mask.any()
    image = model.images_of(last.canvas)[0]
    start = inpainting.inpainting_input(model, image, [5, 6])
    *_, changed = model.draw(["a cat"], [2], canvas=start.token_grid(1))
    kept = ~start.mask
    assert torch.equal(changed.canvas.tokens[0, kept], start.tokens[kept]) and changed.of == 2
    with pytest.raises(ValueError, match="brush over it"):
        inpainting.reword(model, image, model.condition(["a"]), model.condition(["a cat"]), 0, 0.1)
    engine = LocalEngine()
    try:
        job = engine.submit(GenerationRequest.read({"prompt": "a cat", "seed": 1, "model": NAME, "mode": "masked"}))
        assert job.wait(60) and job.status is Status.DONE and job.request.params.mode == "ar"
        assert job.pictures()[0].size == (64, 64)
    finally:
        engine.close()
