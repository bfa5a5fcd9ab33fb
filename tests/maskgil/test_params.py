"""Every sampling option is written once: bounds, presets, names of before, and a new field found at every entrance."""

import io
import json
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace

import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from app.core import png
from app.core.request import GenerationRequest
from maskgil import params
from maskgil.params import SAMPLERS, SamplingParams, option, options, read_params, unknown_option
from maskgil.sampling import guidance, orders, schedules
from maskgil.sampling_flags import given_options, sampling_flags


@dataclass(frozen=True)
class WithGrain(SamplingParams):
    """The parameters with one more option, as a developer would add it."""

    grain: float = option(0.25, "How much film grain.", "Film grain", low=0.0, high=1.0)


WRONG = [
    ({"steps": 0}, "steps is 0: give a number from 1 to 256"),
    ({"steps": 2.5}, "steps is 2.5: give a whole number from 1 to 256"),
    ({"steps": True}, "steps is True: give a whole number"),
    ({"guidance_scale": float("nan")}, "guidance_scale is nan: give a number from 0 to 30"),
    ({"guidance_scale": 10**400}, "guidance_scale is inf"),
    ({"guidance_interval": (0.5, 0.1)}, "guidance_interval is 0.5 to 0.1"),
    ({"guidance_interval": 0.5}, "guidance_interval is 0.5: give two numbers"),
    ({"order": "spiral"}, "order is 'spiral': choose one of confidence, random, halton, raster"),
    ({"order": "listed"}, "order is 'listed'"),
    ({"schedule": "poly-0"}, "exponent above 0"),
    ({"top_p": 0}, "top_p is 0"),
    ({"sampler": "theirs"}, "sampler is 'theirs': choose one of default, reference"),
    ({"ar_tokens": 3}, "ar_tokens needs mode hybrid"),
    ({"guidance": 2, "guidance_scale": 3}, "guidance_scale is given twice"),
    ({"guidanse_scale": 2}, "unknown option 'guidanse_scale': did you mean 'guidance_scale'?"),
]


@pytest.mark.parametrize(("values", "complaint"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_refused_is_said_with_its_bounds(values: dict, complaint: str):
    with pytest.raises(ValueError, match=complaint.replace("(", r"\(").replace("?", r"\?")):
        read_params(values)


JSON = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.floats(), max_size=3)


@given(st.dictionaries(st.sampled_from([*options(), "sampler", "guidance"]), JSON, max_size=4))
def test_whatever_is_given_is_parameters_or_one_line(values: dict):
    try:
        found = read_params(values)
    except ValueError as refusal:
        assert str(refusal) and "\n" not in str(refusal)
    else:
        assert read_params(json.loads(json.dumps(found.to_dict()))) == found


def test_the_names_and_values_of_before_mean_the_same():
    before = {"sampler": "released", "mode": "mar", "guidance": 3, "interval": [0.2, 0.8], "revisions": 2}
    now = {
        "sampler": "reference",
        "mode": "masked",
        "guidance_scale": 3,
        "guidance_interval": [0.2, 0.8],
        "refinement_passes": 2,
    }
    assert read_params(before) == read_params(now)
    assert read_params({"sampler": "reference"}) == SAMPLERS["reference"] != SAMPLERS["default"] == SamplingParams()


def test_choices_are_those_of_the_sampler():
    assert set(params.SCHEDULE_NAMES) == set(schedules.SCHEDULES)
    assert set(params.ORDERS) | {"listed"} == {order.value for order in orders.DecodingOrder}
    for shape in params.SHAPES:
        guidance.Guidance(2.0, shape).scales([0.5, 1.0])


def test_every_option_says_what_it_does():
    for name, about in options().items():
        assert about.help.endswith(".") and about.label, name


# A new field is found at every entrance.


def test_a_new_option_is_a_flag():
    said = io.StringIO()
    with redirect_stdout(said), suppress(SystemExit):
        tyro.cli(sampling_flags(WithGrain), args=["--help"])
    assert "--grain FLOAT" in said.getvalue() and "How much film grain." in said.getvalue()
    command = tyro.cli(sampling_flags(WithGrain), args=["--grain", "0.5", "--revisions", "2"])
    assert read_params(given_options(command, WithGrain), WithGrain) == WithGrain(grain=0.5, refinement_passes=2)


def test_a_new_option_is_read_from_a_program_and_kept_in_a_picture():
    request = GenerationRequest.read({"prompt": "a cat", "seed": 1, "grain": 0.75}, WithGrain)
    assert request.params == WithGrain(grain=0.75)
    with pytest.raises(ValueError, match="unknown option 'grain'"):
        GenerationRequest.read({"prompt": "a cat", "seed": 1, "grain": 0.75})
    image = Image.open(io.BytesIO(png.encode_png(Image.new("RGB", (8, 8)), request)))
    assert GenerationRequest.from_metadata(json.loads(image.info[png.METADATA_KEY]), WithGrain) == request
    assert "Film grain: 0.75" in image.info["parameters"]


def test_a_new_option_is_a_widget():
    page = AppTest.from_string(
        "from app.studio import widget_state\nfrom app.studio.option_widgets import option_widget\n"
        "from maskgil.params import defaults, option_types, options\n"
        "from tests.maskgil.test_params import WithGrain as kind\n"
        "for name, about in options(kind).items():\n"
        "    widget_state.keep(name, defaults(kind)[name])\n"
        "    option_widget(name, name, about, option_types(kind)[name])\n",
        default_timeout=60,
    )
    page.run()
    assert not page.exception and page.slider(key="grain").value == 0.25
    shown = {each.key for kind in ("slider", "selectbox", "number_input") for each in page.get(kind)}
    assert shown == set(options(WithGrain)), "every option has its widget"


def test_an_unknown_option_is_refused_in_the_same_words():
    words = unknown_option("stepz", options())
    assert words == "unknown option 'stepz': did you mean 'steps'?"
    with pytest.raises(ValueError, match="stepz") as refusal:
        read_params({"stepz": 3})
    assert str(refusal.value) == words


def test_a_picture_keeps_every_option(tmp_path):
    request = GenerationRequest("a cat", 1, params=replace(SamplingParams(), top_k=5, schedule="poly-0.7"))
    assert png.read_picture(png.encode_png(Image.new("RGB", (8, 8)), request))[1] == request
