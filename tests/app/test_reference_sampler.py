"""`--sampler reference` is the published sampler of the model's method: command line, API and evaluations agree."""

from pathlib import Path

import pytest
from app_fixtures import tiny_latents, tiny_model
from commands import maskgil
from PIL import Image

from app.core.model_names import name_of
from app.core.request import GenerationRequest
from maskgil.params import SAMPLERS
from maskgil.sampler_presets import sampler_for
from train.eval.sample_images import SamplerOptions


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """{name of the preset that is expected: model folder}"""
    return {
        "emigm": tiny_latents(tmp_path_factory.mktemp("latents") / "model"),
        "reference": tiny_model(tmp_path_factory.mktemp("codes") / "model"),
    }


@pytest.mark.parametrize("expected", ["emigm", "reference"])
def test_reference_means_the_released_code_of_the_models_method(folders, expected):
    folder = folders[expected]
    assert {sampler_for(folder, asked) for asked in ("reference", "released")} == {expected}
    asked = {"prompt": "a cat", "seed": 1, "model": name_of(str(folder)), "sampler": "reference"}
    assert GenerationRequest.read(asked).params == SAMPLERS[expected], "the API"
    assert SamplerOptions(sampler="reference").params(model=str(folder)) == SAMPLERS[expected], "the evaluations"
    changed = GenerationRequest.read(asked | {"guidance_shape": "exp", "head_sampler": "ddpm", "temperature": 0.95})
    assert (changed.params.guidance_shape, changed.params.head_sampler) == ("exp", "ddpm")
    assert changed.params.counts == SAMPLERS[expected].counts


def test_the_command_line_draws_an_emigm_as_published(folders, tmp_path):
    """The picture by `reference` is that by `emigm`, and another than by the defaults."""
    for number, sampler in enumerate((("--sampler", "reference"), ("--sampler", "emigm"), ())):
        out = tmp_path / f"{number}.png"
        steps = ("--steps", "2", "--head-steps", "2")
        maskgil("generate", "a cat", "--model", folders["emigm"], "--seed", "3", *steps, *sampler, "--out", out)
    drawn = [Image.open(tmp_path / f"{number}.png").tobytes() for number in range(3)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_an_unknown_sampler_is_refused_by_name():
    for sampler in ("theirs", "", 3):
        with pytest.raises(ValueError, match=f"sampler is {sampler!r}: choose one of"):
            GenerationRequest.read({"prompt": "a cat", "seed": 1, "sampler": sampler})
