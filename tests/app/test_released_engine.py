"""A released model behind the engine: batches, inpainting, best of n, edits by words, its own options."""

from dataclasses import replace

import numpy as np
import pytest
from released_folders import amused_folder, meissonic_folder

import text_encoder
from app.core import model_names
from app.core.request import GenerationRequest
from app.serving.jobs import Status
from app.serving.local_engine import LocalEngine
from maskgil import inpainting
from maskgil.params import SAMPLERS
from maskgil.pipeline import TextToImage

SECONDS = 120


@pytest.fixture(scope="module", params=["amused", "meissonic"])
def folder(request, tmp_path_factory):
    make = amused_folder if request.param == "amused" else meissonic_folder
    return make(tmp_path_factory.mktemp("released") / "model", False)


@pytest.fixture(scope="module")
def model(folder) -> TextToImage:
    return TextToImage.load(folder, text_encoder.load)


@pytest.fixture(scope="module")
def engine(model):
    engine = LocalEngine(lambda name: model)
    yield engine
    engine.close()


def request(folder, **values) -> GenerationRequest:
    return GenerationRequest.read({"prompt": "a cat", "seed": 5, "model": model_names.name_of(str(folder))} | values)


def finished(engine: LocalEngine, asked: list[GenerationRequest], start=None):
    jobs = [engine.submit(each, start=start) for each in asked]
    assert all(job.wait(SECONDS) and job.status is Status.DONE for job in jobs), [job.error for job in jobs]
    return jobs


def test_options_left_out_are_those_of_the_release(folder, model):
    assert request(folder).params == SAMPLERS[model.preset] != SAMPLERS["default"]
    assert request(folder, steps=3).params == replace(SAMPLERS[model.preset], steps=3)
    assert request(folder, sampler="default").params == SAMPLERS["default"]


def test_requests_that_share_a_batch_draw_what_they_draw_alone(engine, folder):
    """Of other prompts, lengths of plan and guidance: what a model reads of the steps left is each row's own."""
    asked = [
        request(folder, steps=4),
        request(folder, prompt="two red apples", seed=2**31 - 1, steps=7, guidance_scale=3.0),
        request(folder, negative_prompt="a dog", steps=3, n=2),
    ]
    together = finished(engine, asked)
    for each, job in zip(asked, together, strict=True):
        (alone,) = finished(engine, [each])
        for one, other in zip(job.frames[-1].grid.tokens, alone.frames[-1].grid.tokens, strict=True):
            assert (one == other).float().mean() > 0.95  # rounding of another batch may tip a tie


def test_a_brushed_part_is_drawn_anew_and_the_rest_kept(engine, folder, model):
    (job,) = finished(engine, [request(folder, steps=3)])
    image = job.pictures()[0]
    start = inpainting.inpainting_input(model, image, range(8, 24))
    (changed,) = finished(engine, [request(folder, prompt="a dog", steps=3)], start)
    side = model.tokenizer.config.downsample
    kept = np.asarray(start.mask.view(start.grid).cpu()).repeat(side, 0).repeat(side, 1) == 0
    before, after = np.asarray(image.convert("RGB")), np.asarray(changed.pictures()[0].convert("RGB"))
    assert np.array_equal(before[kept], after[kept]) and not np.array_equal(before, after)


def test_best_of_n_and_refinement_work(engine, folder):
    (job,) = finished(engine, [request(folder, steps=3, candidates=3, refinement_passes=1)])
    assert len(job.pictures()) == 1 and not bool(job.frames[-1].grid.mask.any())


def test_other_words_change_a_picture_where_they_contradict_it(engine, folder, model):
    (job,) = finished(engine, [request(folder, steps=3)])
    old, new = model.condition(["a cat"]), model.condition(["a dog at night"])
    start = inpainting.reword(model, job.pictures()[0], old, new, 1, 0.0)
    assert start.mask.any()


def test_live_speech_goes_on_from_what_stands(engine, folder):
    """As a sentence grows, its picture keeps what the new words do not contradict."""
    (first,) = finished(engine, [request(folder, steps=3)])
    job = engine.submit(request(folder, prompt="a cat at night", steps=3), after=first)
    assert job.wait(SECONDS) and job.status is Status.DONE, job.error
    assert job.request.edit.startswith("grown out of")
