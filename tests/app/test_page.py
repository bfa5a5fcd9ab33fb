"""The pages, driven without a browser: what one types, presses, records and reads."""

import io
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile
import streamlit as st
import torch
from app_fixtures import tiny_ar_model, tiny_model
from PIL import Image
from released_folders import amused_folder, keep_as_fetched
from streamlit.testing.v1 import AppTest

from app.core import registry, released_models
from app.core.gallery_store import Gallery
from app.core.request import GenerationRequest
from app.serving import services as app_services
from app.serving.batching import Batch
from app.serving.recognizer import SpeechRecognizer
from app.studio import session
from app.studio.views import draw
from app.web.access import AccessPolicy
from maskgil.params import SamplingParams
from speech.transcriber import Transcript
from text_encoder.prompt_reader import THINGS_PICTURE

SECONDS = 120
MAIN = Path(__file__).resolve().parents[2] / "app" / "studio" / "main.py"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(tmp_path_factory.mktemp("weights"))
    tiny_model(folder / "scenes")
    tiny_ar_model(tiny_model(folder / "paired"))
    return folder


@pytest.fixture(autouse=True)
def services(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[app_services.AppServices]:
    """A process of its own for each test: nothing in memory, nothing in the gallery."""
    monkeypatch.setenv("MASKGIL_WEIGHTS", str(weights))
    monkeypatch.setenv("MASKGIL_GALLERY", str(tmp_path / "gallery"))
    monkeypatch.setattr(type(st.context), "cookies", {})  # AppTest has no browser to ask
    app_services.forget_services()
    st.cache_resource.clear()
    yield app_services.get_services()
    app_services.get_services().engine.close()
    app_services.forget_services()
    st.cache_resource.clear()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Drawings make a step for each release."""
    gate, together = threading.Semaphore(0), Batch._together

    def gated(batch, drawings) -> None:
        gate.acquire(timeout=SECONDS)
        together(batch, drawings)

    monkeypatch.setattr(Batch, "_together", gated)
    return gate


def room(name: str) -> AppTest:
    """One room, without the menu."""
    return AppTest.from_string(
        f"from app.studio import generation_form\nfrom app.studio.views import {name}\n"
        f"generation_form.keep_defaults()\n{name}.{name}_page()\n",
        default_timeout=SECONDS,
    )


def drawn(page: AppTest, services: app_services.AppServices) -> AppTest:
    """The page once its job is over."""
    for job in services.engine.jobs(page.session_state["owner"]):
        assert job.wait(SECONDS)
    return page.run()


def shown(page: AppTest) -> int:
    """Pictures on the canvas or on the wall."""
    return len(page.image) + sum(html.proto.body.count("<img ") for html in page.get("html"))


def button(page: AppTest, label: str):
    return next(button for button in page.button if button.label == label)


@pytest.fixture
def canvas(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What the pages hand to the canvas, run by run."""
    given = []
    for view in ("draw", "speak"):
        fake = lambda name: lambda data, **rest: given.append(data) if name == "canvas" else None  # noqa: E731
        monkeypatch.setattr(f"app.studio.views.{view}.component", fake)
    return given


def test_the_whole_page_opens_on_draw_with_its_menu():
    page = AppTest.from_file(str(MAIN), default_timeout=SECONDS).run()
    assert not page.exception and button(page, "two cats on the beach")
    assert [link.proto.label for link in page.get("page_link")] == ["Draw", "Speak", "Edit", "Gallery", "Models"]


def test_the_canvas_is_given_the_settings_and_an_example_that_is_pressed(canvas: list[dict]):
    page = room("draw").run()
    assert canvas[-1]["settings"]["seed"] is None and canvas[-1]["prompt"] is None
    page.selectbox(key="form n").set_value(4)
    page.selectbox(key="form size").set_value((96, 64))
    page.toggle(key="form all settings").set_value(True).run()
    page.number_input(key="form seed").set_value(11)
    page.toggle(key="form new seed").set_value(False).run()
    settings = canvas[-1]["settings"]
    assert (settings["n"], settings["size"], settings["seed"], canvas[-1]["number"]) == (4, [96, 64], 11, 4)
    button(page, "a red apple").click().run()
    assert not page.exception
    assert (canvas[-1]["prompt"]["text"], canvas[-1]["prompt"]["draw"]) == ("a red apple", True)


def test_guidance_is_on_while_a_negative_prompt_needs_it_and_a_scale_that_was_chosen_stays(canvas: list[dict]):
    page = room("draw").run()
    page.toggle(key="form all settings").set_value(True).run()
    scales = []
    for words, chosen in (("", None), ("a dog", None), ("", None), ("", 3.0), ("a dog", None)):
        if chosen is not None:
            page.slider(key="form guidance_scale").set_value(chosen)
        page.text_input(key="form negative_prompt").set_value(words)
        page.run()
        scales.append((canvas[-1]["settings"]["guidance_scale"], page.selectbox(key="form sampler").value))
    assert not page.exception
    assert scales == [(1.0, "default"), (2.0, "guided"), (1.0, "default"), (3.0, "default"), (3.0, "default")]


def test_words_of_one_s_own_are_a_style_beside_those_of_the_model(canvas: list[dict]):
    """They are chosen when they are saved, end each prompt, and are there in the visitor's next session."""
    page = room("draw").run()
    page.text_input(key="words of a new style").set_value("on the beach at night")
    page.text_input(key="name of a new style").set_value("my night")
    button(page, "Save").click().run()  # the first of the page: its style
    assert not page.exception and canvas[-1]["style"] == "on the beach at night"
    assert page.selectbox(key="form style").options == ["any", "flat", "my night"]
    assert page.text_input(key="words of a new style").value == ""
    page.selectbox(key="form style").set_value("flat").run()
    assert canvas[-1]["style"] == "in flat style"
    owner = page.session_state["owner"]
    page = room("draw")
    page.session_state["owner"] = owner
    page.run()
    page.selectbox(key="form style").set_value("my night").run()
    assert canvas[-1]["style"] == "on the beach at night"
    button(page, "Delete my night").click().run()
    assert not page.exception and canvas[-1]["style"] == ""
    assert page.selectbox(key="form style").options == ["any", "flat"]
    button(page, "Save").click().run()
    assert "the words of a style" in page.error[0].value.lower()


def test_pictures_of_things_are_asked_for_by_the_quoted_name_of_their_model(weights: Path, tmp_path: Path):
    assert draw.things_address(registry.find_local("scenes")) == ""
    folder = tmp_path / "my? #1"
    shutil.copytree(weights / "scenes", folder)
    (folder / THINGS_PICTURE).write_bytes(b"any")
    path, _, version = draw.things_address(registry.find_local(str(folder))).partition("?v=")
    assert path.count("/") == 1 and version.isdecimal()
    assert unquote(path) == f"things/{folder.name}", "its name, no path of this machine"


def test_adapters_are_offered_where_there_are_some(canvas: list[dict], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("MASKGIL_MODELS", str(tmp_path))
    page = room("draw").run()
    page.toggle(key="form all settings").set_value(True).run()
    assert "LoRA adapters" not in [field.label for field in page.text_input]
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "ink.safetensors").write_bytes(b"any")
    page = room("draw").run()
    page.toggle(key="form all settings").set_value(True).run()
    field = next(field for field in page.text_input if field.label == "LoRA adapters")
    assert field.placeholder == "ink"
    field.set_value("ink:0.5").run()
    assert not page.exception and canvas[-1]["settings"]["adapters"] == "ink:0.5"


def test_the_autoregressive_model_is_offered_where_there_is_one(canvas: list[dict], monkeypatch: pytest.MonkeyPatch):
    page = room("draw").run()
    page.toggle(key="form all settings").set_value(True).run()
    assert not page.get("button_group") and any("no autoregressive" in caption.value for caption in page.caption)
    monkeypatch.setenv("MASKGIL_MODEL", "paired")
    page = room("draw").run()
    page.toggle(key="form all settings").set_value(True).run()
    page.get("button_group")[0].set_value("hybrid").run()
    page.slider(key="form ar_tokens").set_value(20).run()
    assert page.expander[0].label == "64 × 64, 20 tokens, then 8 steps, 1 picture"
    assert (canvas[-1]["settings"]["mode"], canvas[-1]["settings"]["ar_tokens"]) == ("hybrid", 20)
    page.get("button_group")[0].set_value("ar").run()
    assert page.select_slider(key="form steps").disabled
    assert (canvas[-1]["settings"]["mode"], canvas[-1]["settings"]["ar_tokens"]) == ("ar", None)


def test_a_model_that_is_missing_is_said_on_the_page(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MASKGIL_WEIGHTS", "/nowhere")
    page = room("draw").run()
    assert not page.exception and "maskgil train" in page.error[0].value


@pytest.fixture
def hears(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf:
        limit, is_multilingual = 30.0, False

        def transcribe(self, samples: np.ndarray, context: object = None) -> Transcript:
            loud = float(np.abs(samples).max()) > 0.01
            return Transcript("a red apple" if loud else "", (), not loud, "" if loud else "only silence was recorded")

    monkeypatch.setattr(SpeechRecognizer, "load", lambda self: Deaf())


def recording(loudness: float) -> tuple[str, bytes, str]:
    out = io.BytesIO()
    soundfile.write(out, (loudness * np.sin(np.arange(16000) / 10)).astype(np.float32), 16000, format="WAV")
    return "speech.wav", out.getvalue(), "audio/wav"


def test_what_is_heard_goes_to_a_canvas_that_draws_it(canvas: list[dict], hears: None):
    page = room("speak").run()
    page.get("audio_input")[0].set_value(recording(0.3)).run()
    assert not page.exception and canvas[-1]["name"] == "speak"
    assert (canvas[-1]["prompt"]["text"], canvas[-1]["prompt"]["draw"]) == ("a red apple", True)


def test_a_guess_waits_to_be_mended(canvas: list[dict], hears: None, monkeypatch: pytest.MonkeyPatch):
    guess = Transcript("knot a dock", ("knot", "a", "dock"), False, "I did not understand that", understood=False)
    monkeypatch.setattr(SpeechRecognizer, "transcribe", lambda self, recording, context=None: guess)
    page = room("speak").run()
    page.get("audio_input")[0].set_value(recording(0.3)).run()
    assert not page.exception and "did not understand" in page.warning[0].value
    assert (canvas[-1]["prompt"]["text"], canvas[-1]["prompt"]["draw"]) == ("knot a dock", False)


@pytest.mark.parametrize(
    ("sound", "complaint"), [(recording(0.0), "silence"), (("a.wav", b"no sound", "audio/wav"), "not audio")]
)
def test_what_cannot_be_heard_is_said(canvas: list[dict], hears: None, sound: tuple, complaint: str):
    page = room("speak").run()
    page.get("audio_input")[0].set_value(sound).run()
    assert not page.exception and complaint in page.warning[0].value and canvas[-1]["prompt"] is None


def test_the_gallery_takes_settings_to_the_draw_page_and_shares(services: app_services.AppServices, monkeypatch):
    callbacks = {}
    monkeypatch.setattr("app.studio.views.gallery.component", lambda name: lambda **given: callbacks.update(given))
    monkeypatch.setattr("app.studio.session.enter", lambda room: st.session_state.update(entered=room))
    entry = services.gallery.add("me-1234567", Image.new("RGB", (64, 64)), GenerationRequest("a dog", 3, size=(64, 64)))
    page = AppTest.from_string(
        "import streamlit as st\nfrom app.studio import generation_form\nfrom app.studio.views import gallery\n"
        "if st.button('use'):\n"
        f"    st.session_state['wall'] = {{'settings': '{entry.id}', 'share': True}}\n"
        "    gallery._use_settings()\n    gallery._share()\n"
        "generation_form.keep_defaults()\ngallery.gallery_page()\n",
        default_timeout=SECONDS,
    )
    page.session_state["owner"] = "me-1234567"
    assert page.run().exception == [] and callbacks["data"] == {"shares": False}
    button(page, "use").click().run()
    assert not page.exception and page.session_state["entered"] == "draw" and callbacks["data"] == {"shares": True}
    assert page.session_state["prompt for the canvas"]["text"] == "a dog"


def test_a_gallery_that_cannot_be_opened_is_said(
    services: app_services.AppServices, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "taken").write_bytes(b"")
    monkeypatch.setattr("app.studio.session.get_services", lambda: Gallery(tmp_path / "taken"))
    page = AppTest.from_file(str(MAIN), default_timeout=SECONDS).run()
    assert not page.exception and "cannot be used" in page.error[0].value


def restore(request: GenerationRequest) -> AppTest:
    """The Draw page after this request was taken out of a picture."""
    page = AppTest.from_string(
        "import streamlit as st\n"
        "from app.core.request import GenerationRequest\n"
        "from app.studio import generation_form\nfrom app.studio.views import draw\n"
        "from maskgil.params import SamplingParams\n"
        "if st.button('fill'):\n"
        f"    generation_form.fill({request!r})\n"
        "generation_form.keep_defaults()\n"
        "draw.draw_page()\n",
        default_timeout=SECONDS,
    ).run()
    return button(page, "fill").click().run()


def test_a_picture_brings_its_model_back_or_says_that_it_is_not_here(canvas: list[dict]):
    page = restore(GenerationRequest("a dog", 1, "paired", (64, 64)))
    assert not page.exception and canvas[-1]["model"] == canvas[-1]["settings"]["model"] == "paired"
    page = restore(GenerationRequest("a dog", 1, "<b>gone</b>", (64, 64), edit="7 of 64 cells of x"))
    assert not page.exception and canvas[-1]["model"] == "scenes"
    (said,) = [html.proto.body for html in page.get("html") if "notice" in html.proto.body]
    assert "&lt;b&gt;gone&lt;/b&gt;, which drew it, is not here: scenes draws now." in said
    assert "drawn again, it is a plain picture" in said


def test_a_picture_brings_its_settings_back(canvas: list[dict], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MASKGIL_MODEL", "paired")
    request = GenerationRequest(
        "a dog",
        42,
        "paired",
        (96, 64),
        n=3,
        params=SamplingParams(
            steps=5, guidance_scale=12.0, guidance_interval=(0.1, 0.3), order="halton", mode="hybrid", ar_tokens=7
        ),
    )
    page = restore(request)
    assert not page.exception and canvas[-1]["prompt"]["text"] == "a dog"
    assert GenerationRequest.read({"prompt": "a dog", **canvas[-1]["settings"]}) == request


def test_models_shows_what_there_is():
    page = room("models").run()
    assert not page.exception and page.subheader[0].value == "scenes"
    assert any("Random weights" in text.value for text in page.markdown)


def test_a_model_is_loaded_unloaded_and_drawn_with(services: app_services.AppServices):
    page = room("models").run()
    page.button(key="load paired").click().run()
    assert not page.exception and services.engine.loaded() == ["paired"]
    assert any("in memory, float32" in html.proto.body for html in page.get("html"))
    page.button(key="unload paired").click().run()
    assert not page.exception and services.engine.loaded() == []
    page.button(key="choose paired").click().run()
    assert page.session_state["board"]["model"] == "paired" and page.button(key="choose paired").disabled


def test_only_an_operator_changes_what_everybody_uses(
    services: app_services.AppServices, monkeypatch: pytest.MonkeyPatch
):
    """AppTest has no headers, so that it is not on this machine; the key gives the rights, another text does not."""
    monkeypatch.setattr(session, "get_policy", lambda: AccessPolicy(operator_key="the key"))
    services.engine.load("paired")
    page = room("models").run()
    keys = {button.key for button in page.button}
    assert not page.exception and "choose paired" in keys
    assert not any(key and key.startswith(("unload", "listen")) for key in keys), keys
    assert [field.label for field in page.text_input] == ["Operator key"]
    page.text_input[0].set_value("another").run()
    assert [field.label for field in page.text_input] == ["Operator key"]
    page.text_input[0].set_value("the key").run()
    labels = [field.label for field in page.text_input]
    assert "Another model" in labels and "unload paired" in {button.key for button in page.button}


def test_a_model_is_loaded_in_the_precision_that_one_chooses(services: app_services.AppServices):
    page = room("models").run()
    page.button(key="load paired").click().run()
    assert services.engine.load("paired").model.dtype == torch.float32
    precision(page, "paired").set_value(torch.bfloat16).run()
    assert not page.exception and services.engine.load("paired").model.dtype == torch.bfloat16
    assert any("in memory, bfloat16" in html.proto.body for html in page.get("html"))
    page.button(key="unload paired").click().run()
    page.button(key="choose paired").click().run()
    assert services.engine.load("paired").model.dtype == torch.bfloat16, "as it was chosen"
    job = services.draw(GenerationRequest("a cat", 1, "paired", (64, 64)), "me-1234567")
    assert job.wait(SECONDS) and job.pictures()
    again = room("models").run()
    assert precision(again, "paired").value == torch.bfloat16, "to every visitor"


def precision(page: AppTest, name: str):
    return next(group for group in page.get("button_group") if group.key == f"precision {name}")


def test_a_large_text_encoder_is_held_as_one_chooses(
    services: app_services.AppServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The control is on the card of a model that has one, says what fits before it loads, and counts for everybody."""
    monkeypatch.setenv("MASKGIL_MODELS", str(tmp_path))
    name = "amused/amused-256"
    keep_as_fetched(name, amused_folder)
    page = room("models").run()
    controls = {group.key for group in page.get("button_group")}
    assert not page.exception and f"text encoder {name}" in controls and "text encoder paired" not in controls
    assert sum("It fits: 0.0 GB of the" in caption.value for caption in page.caption) == 1
    encoder(page, name).set_value("bf16").run()
    assert services.engine.loaded() == [], "a choice alone loads nothing"
    page.button(key=f"load {name}").click().run()
    assert not page.exception and services.engine.load(name).encoder_memory == "bf16"
    encoder(page, name).set_value("offload").run()
    assert not page.exception and services.engine.load(name).encoder_memory == "offload"
    assert any("MB in memory between prompts" in html.proto.body for html in page.get("html"))
    assert encoder(room("models").run(), name).value == "offload", "to every visitor"
    monkeypatch.setattr("text_encoder.encoder_memory.find_spec", lambda module: None)
    page = room("models").run()
    assert encoder(page, name).options == ["exact", "bf16", "offloaded"]
    assert any("maskgil[low-memory]" in caption.value for caption in page.caption)


def encoder(page: AppTest, name: str):
    return next(group for group in page.get("button_group") if group.key == f"text encoder {name}")


def test_released_models_say_what_fits_before_they_are_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("MASKGIL_MODELS", str(tmp_path))
    for free, said in ((64e9, "It fits in fp32: 3.5 GB"), (2.5e9, "It fits in bf16"), (1e9, "It does not fit")):
        monkeypatch.setattr("app.serving.model_pool.free_memory", lambda free=free: free)
        page = room("models").run()
        assert not page.exception and any(said in caption.value for caption in page.caption)
        assert any(text.value == released_models.guide_table() for text in page.markdown)
    monkeypatch.setattr("maskgil.released.download.free_disk", lambda model: 2 * 10**9)
    page = room("models").run()
    assert sum("too little to fetch it" in caption.value for caption in page.caption) == 6


def test_a_recognizer_is_chosen_or_refused_with_the_reason(
    services: app_services.AppServices, weights: Path, monkeypatch: pytest.MonkeyPatch
):
    def load(recognizer: SpeechRecognizer) -> object:
        if recognizer.name == "nothing":
            raise ValueError("no recognizer 'nothing': take a folder")
        return object()

    monkeypatch.setattr(SpeechRecognizer, "load", load)
    monkeypatch.setattr("app.core.registry.recognizers", lambda: ["whisper-scenes", "other"])
    page = room("models").run()
    assert any(services.recognizer.name in html.proto.body for html in page.get("html"))
    button(page, "Listen with other").click().run()
    assert not page.exception and services.recognizer.name == "other"
    page.text_input(key="another recognizer").set_value("nothing")
    button(page, "Listen with it").click().run()
    assert "No recognizer 'nothing'" in page.error[0].value and services.recognizer.name == "other"
    page.text_input(key="another recognizer").set_value("base.en")
    button(page, "Listen with it").click().run()
    assert not page.exception and not page.error and services.recognizer.name == "base.en"


def test_a_recognizer_is_opened_where_the_process_transcribes(
    services: app_services.AppServices, monkeypatch: pytest.MonkeyPatch
):
    """In the replicas of a cluster, where there is one."""

    class ReplicaRecognizer(SpeechRecognizer):
        def load(self) -> object:
            return object()

    monkeypatch.setattr(services, "open_recognizer", ReplicaRecognizer)
    page = room("models").run()
    page.text_input(key="another recognizer").set_value("base.en")
    button(page, "Listen with it").click().run()
    assert not page.exception and isinstance(services.recognizer, ReplicaRecognizer)


def test_a_model_from_elsewhere_is_opened_or_refused_with_the_reason(
    services: app_services.AppServices, tmp_path: Path
):
    folder = str(tiny_model(tmp_path / "elsewhere"))
    page = room("models").run()
    page.text_input(key="another model").set_value(folder)
    button(page, "Open").click().run()
    assert (
        not page.exception
        and services.engine.loaded() == ["elsewhere"]
        and page.session_state["board"]["model"] == "elsewhere"
    )
    (tmp_path / "elsewhere" / "tokenizer" / "config.json").unlink()
    services.engine.unload("elsewhere")
    page = room("models").run()
    page.text_input(key="another model").set_value(folder)
    button(page, "Open").click().run()
    assert "tokenizer/config.json missing" in page.error[0].value and page.session_state["board"]["model"] == "scenes"


def test_what_cannot_run_here_says_why(
    weights: Path, services: app_services.AppServices, monkeypatch: pytest.MonkeyPatch
):
    half = weights / "half" / "generator"
    half.mkdir(parents=True)
    monkeypatch.setattr("app.serving.model_pool.free_memory", lambda: 1000)
    page = room("models").run()
    half.rmdir()
    half.parent.rmdir()
    assert not page.exception and page.button(key="choose paired").disabled
    said = [caption.value for caption in page.caption if "Cannot run" in caption.value]
    assert len(said) == 3 and any("0.0 GB are free here" in text for text in said)
    assert any("vocabulary.json" in text for text in said)
    with pytest.raises(ValueError, match="takes .* of memory in float32"):
        services.engine.load("paired")
