"""The Speak page tells its microphone every setting that it shows, and shows none that it does not tell."""

from pathlib import Path

import pytest
import streamlit as st
from app_fixtures import tiny_model
from streamlit.testing.v1 import AppTest

from app.serving import services as app_services
from app.studio import generation_form, microphone
from app.web.live_protocol import SETTINGS


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """What the component was given last."""
    told = {}
    monkeypatch.setenv("MASKGIL_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("MASKGIL_GALLERY", str(tmp_path / "gallery"))
    monkeypatch.setattr(type(st.context), "cookies", {})  # AppTest has no browser to ask
    monkeypatch.setattr(microphone, "component", lambda name: lambda key, data: told.update(data))
    tiny_model(tmp_path / "weights" / "scenes")
    app_services.forget_services()
    st.cache_resource.clear()
    yield told
    app_services.get_services().engine.close()
    app_services.forget_services()
    st.cache_resource.clear()


def test_what_the_page_shows_is_what_the_microphone_tells(told: dict):
    page = AppTest.from_string(
        "from app.studio import generation_form\nfrom app.studio.views import speak\n"
        "generation_form.keep_defaults()\nspeak.speak_page()\n",
        default_timeout=120,
    )
    page.run()
    assert not page.exception and {*SETTINGS, "size", "pause"} - {"sampler"} == told.keys()
    assert told["seed"] is None, "a new one each time"
    assert not [box for box in page.selectbox if box.label == "Pictures"], "what is said is one picture"
    assert page.expander[0].label == "64 × 64, 8 steps"
    page.toggle(key=generation_form.EXPERT).set_value(True).run()
    page.toggle(key=generation_form.NEW_SEED).set_value(False)
    page.number_input(key=generation_form.key("seed")).set_value(11)
    page.text_input(key=generation_form.key("negative_prompt")).set_value(" a dog ").run()  # chooses the guided preset
    page.slider(key=generation_form.key("guidance_interval")).set_value((0.2, 0.8))
    page.slider(key=generation_form.key("temperature")).set_value(0.5)
    page.run()
    now = [told[name] for name in ("seed", "negative_prompt", "guidance_interval", "temperature")]
    assert now == [11, "a dog", [0.2, 0.8], 0.5]
