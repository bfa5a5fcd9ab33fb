"""The pages, driven without a browser: what one types, presses, records and reads."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import streamlit as st
import torch
from app_fixtures import tiny_model, tiny_twin
from PIL import Image
from streamlit.testing.v1 import AppTest

from app.core import png
from app.core.gallery_store import Gallery
from app.core.request import GenerationRequest
from app.serving import services as houses
from app.serving.batching import Batch
from app.serving.recognizer import SpeechRecognizer
from app.studio.views import gallery as gallery_room
from maskgil.params import SamplingParams
from speech.transcriber import Transcript

SECONDS = 120
MAIN = Path(__file__).resolve().parents[2] / "app" / "studio" / "main.py"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(tmp_path_factory.mktemp("weights"))
    tiny_model(folder / "scenes")
    tiny_twin(tiny_model(folder / "twinned"))
    return folder


@pytest.fixture(autouse=True)
def house(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[houses.AppServices]:
    """A process of its own for each test: nothing in memory, nothing in the gallery."""
    monkeypatch.setenv("MASKGIL_WEIGHTS", str(weights))
    monkeypatch.setenv("MASKGIL_GALLERY", str(tmp_path / "gallery"))
    monkeypatch.setattr(type(st.context), "cookies", {})  # AppTest has no browser to ask
    houses.forget_services()
    st.cache_resource.clear()
    yield houses.get_services()
    houses.get_services().engine.close()
    houses.forget_services()
    st.cache_resource.clear()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Drawings make a step for each release."""
    gate, together = threading.Semaphore(0), Batch._together

    def gated(lane, sketches) -> None:
        gate.acquire(timeout=SECONDS)
        together(lane, sketches)

    monkeypatch.setattr(Batch, "_together", gated)
    return gate


def room(name: str) -> AppTest:
    """One room, without the menu."""
    return AppTest.from_string(
        f"from app.studio import generation_form\nfrom app.studio.views import {name}\n"
        f"generation_form.keep()\n{name}.page()\n",
        default_timeout=SECONDS,
    )


def drawn(page: AppTest, house: houses.AppServices) -> AppTest:
    """The page once its job is over."""
    for job in house.engine.jobs(page.session_state["owner"]):
        assert job.wait(SECONDS)
    return page.run()


def shown(page: AppTest) -> int:
    """Pictures on the easel or on the wall."""
    return len(page.image) + sum(html.proto.body.count("<img ") for html in page.get("html"))


def button(page: AppTest, label: str):
    return next(button for button in page.button if button.label == label)


@pytest.fixture
def canvas(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What the pages hand to the canvas, run by run."""
    given = []
    monkeypatch.setattr("app.studio.views.draw.component", lambda name: lambda data, **rest: given.append(data))
    return given


def test_the_whole_page_opens_on_draw_with_its_menu():
    page = AppTest.from_file(str(MAIN), default_timeout=SECONDS).run()
    assert not page.exception and page.button[0].label == "two cats on the beach"
    assert [link.proto.label for link in page.get("page_link")] == ["Draw", "Speak", "Edit", "Gallery", "Models"]


def test_the_canvas_is_given_the_settings_and_an_example_that_is_pressed(canvas: list[dict]):
    page = room("draw").run()
    assert canvas[-1]["settings"]["seed"] is None and canvas[-1]["prompt"] is None
    page.selectbox(key="wish n").set_value(4)
    page.selectbox(key="wish size").set_value((96, 64))
    page.number_input(key="wish seed").set_value(11)
    page.toggle(key="wish new seed").set_value(False).run()
    settings = canvas[-1]["settings"]
    assert (settings["n"], settings["size"], settings["seed"], canvas[-1]["number"]) == (4, [96, 64], 11, 4)
    button(page, "a red apple").click().run()
    assert not page.exception
    assert (canvas[-1]["prompt"]["text"], canvas[-1]["prompt"]["draw"]) == ("a red apple", True)


def test_the_autoregressive_model_is_offered_where_there_is_one(canvas: list[dict], monkeypatch: pytest.MonkeyPatch):
    page = room("draw").run()
    assert not page.get("button_group") and any("no autoregressive" in caption.value for caption in page.caption)
    monkeypatch.setenv("MASKGIL_MODEL", "twinned")
    page = room("draw").run()
    page.get("button_group")[0].set_value("hybrid").run()
    page.slider(key="wish ar_tokens").set_value(20).run()
    assert page.expander[0].label == "64 × 64, 20 tokens, then 8 steps, 1 picture"
    assert (canvas[-1]["settings"]["mode"], canvas[-1]["settings"]["ar_tokens"]) == ("hybrid", 20)
    page.get("button_group")[0].set_value("ar").run()
    assert page.select_slider(key="wish steps").disabled
    assert (canvas[-1]["settings"]["mode"], canvas[-1]["settings"]["ar_tokens"]) == ("ar", None)


def test_a_model_that_is_missing_is_said_on_the_page(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MASKGIL_WEIGHTS", "/nowhere")
    page = room("draw").run()
    assert not page.exception and "maskgil train" in page.error[0].value


@pytest.fixture
def hears(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf:
        limit = 30.0

        def transcribe(self, samples: np.ndarray) -> Transcript:
            loud = float(np.abs(samples).max()) > 0.01
            return Transcript("a red apple" if loud else "", (), not loud, "" if loud else "only silence was recorded")

    monkeypatch.setattr(SpeechRecognizer, "load", lambda self: Deaf())


def recording(loudness: float) -> tuple[str, bytes, str]:
    out = io.BytesIO()
    soundfile.write(out, (loudness * np.sin(np.arange(16000) / 10)).astype(np.float32), 16000, format="WAV")
    return "speech.wav", out.getvalue(), "audio/wav"


def test_speak_see_the_transcript_mend_it_and_see_the_picture(house: houses.AppServices, hears: None):
    page = room("speak").run()
    assert not page.exception
    page.get("audio_input")[0].set_value(recording(0.3)).run()
    page = drawn(page, house)
    assert not page.exception and page.text_input(key="transcript").value == "a red apple" and shown(page) == 1
    page.text_input(key="transcript").set_value("a big dog")
    button(page, "Draw again").click().run()
    page = drawn(page, house)
    prompts = [entry.prompt for entry in house.gallery.entries(page.session_state["owner"])]
    assert prompts == ["a big dog", "a red apple"]


def test_what_is_said_is_one_picture_and_the_best_of_a_few(house: houses.AppServices, hears: None):
    page = room("speak")
    page.session_state["wish n"], page.session_state["wish candidates"] = 2, 8
    page.run()
    assert page.selectbox(key="wish candidates").options == ["1", "2", "4"]
    assert page.selectbox(key="wish candidates").value == 4
    page.get("audio_input")[0].set_value(recording(0.3)).run()
    page = drawn(page, house)
    (request,) = [entry.request for entry in house.gallery.entries(page.session_state["owner"])]
    assert (request.n, request.params.candidates) == (1, 4)


@pytest.mark.parametrize(
    ("sound", "complaint"), [(recording(0.0), "silence"), (("a.wav", b"no sound", "audio/wav"), "not audio")]
)
def test_what_cannot_be_heard_is_said(house: houses.AppServices, hears: None, sound: tuple, complaint: str):
    page = room("speak").run()
    page.get("audio_input")[0].set_value(sound).run()
    assert not page.exception and complaint in page.warning[0].value and not shown(page)


def kept(house: houses.AppServices, owner: str, *prompts: str) -> list[str]:
    image = Image.new("RGB", (64, 64), (200, 100, 50))
    requests = [
        GenerationRequest(prompt, seed, size=(64, 64), params=SamplingParams(steps=5, guidance_scale=12.0))
        for seed, prompt in enumerate(prompts)
    ]
    return [house.gallery.add(owner, image, request).id for request in requests]


def test_the_gallery_shows_finds_deletes_and_restores(house: houses.AppServices):
    page = room("gallery")
    page.session_state["owner"] = owner = "me-1234567"
    assert "Nothing is kept yet" in page.run().get("html")[-1].proto.body
    cat, dog, apple = kept(house, owner, "a cat", "a dog", "an apple")
    kept(house, "someone-else", "a secret")
    page.run()
    assert not page.exception and shown(page) == 3
    page.text_input(key="search").set_value("dog").run()
    assert shown(page) == 1
    page.text_input(key="search").set_value("").run()
    page.checkbox(key=f"picked {cat}").check().run()
    page.checkbox(key=f"picked {dog}").check().run()
    assert not page.exception and [item.proto.label for item in page.get("download_button")] == ["Download 2"]
    assert shown(page) == 5, "two that are picked can be compared"
    page.button(key="delete picked").click().run()
    assert [entry.id for entry in house.gallery.entries(owner)] == [apple]


def test_what_is_gone_already_cannot_be_deleted_and_that_is_no_error(house: houses.AppServices):
    """Pressed twice, or deleted in another tab: the others go."""
    page = room("gallery")
    page.session_state["owner"] = owner = "me-1234567"
    cat, dog = kept(house, owner, "a cat", "a dog")
    page.run()
    button(page, "Select all on this page").click().run()
    house.gallery.delete(owner, [house.gallery.get(owner, cat)])
    page.button(key="delete picked").click().run()
    assert not page.exception and not page.error and not house.gallery.entries(owner)


def test_picks_stay_when_one_turns_the_page(house: houses.AppServices, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.studio.views.gallery.AT_ONCE", 2)
    page = room("gallery")
    page.session_state["owner"] = owner = "me-1234567"
    ids = kept(house, owner, "a cat", "a dog", "an apple")[::-1]
    page.run()
    button(page, "Select all on this page").click().run()
    assert not page.exception and all(page.checkbox(key=f"picked {id}").value for id in ids[:2])
    page.number_input(key="gallery page").set_value(2).run()
    page.checkbox(key=f"picked {ids[2]}").check().run()
    assert [item.proto.label for item in page.get("download_button")] == ["Download 3"]
    assert all(each.label != "Select all on this page" for each in page.button), "all of this page are"
    page.number_input(key="gallery page").set_value(1).run()
    page.checkbox(key=f"picked {ids[0]}").uncheck().run()
    assert [item.proto.label for item in page.get("download_button")] == ["Download 2"]
    page.button(key="delete picked").click().run()
    assert not page.exception and [entry.id for entry in house.gallery.entries(owner)] == [ids[0]]
    assert not page.get("download_button")


def test_one_switch_shares_all_pictures_and_nobody_can_delete_them(house: houses.AppServices):
    mine, yours = room("gallery"), room("gallery")
    mine.session_state["owner"], yours.session_state["owner"] = "me-1234567", "you-1234567"
    (cat,), (dog,) = kept(house, "me-1234567", "a cat"), kept(house, "you-1234567", "a dog")
    mine.run()
    assert not mine.toggle(key="sharing").value
    mine.toggle(key="sharing").set_value(True).run()
    yours.run().get("button_group")[0].set_value(True).run()
    assert not yours.exception and shown(yours) == 1
    yours.checkbox(key=f"picked {cat}").check().run()
    assert [item.proto.label for item in yours.get("download_button")] == ["Download"]
    assert all(each.key != "delete picked" for each in yours.button)
    yours.get("button_group")[0].set_value(False).run()
    assert all(each.key != "delete picked" for each in yours.button), "picked, but not one's own"
    yours.checkbox(key=f"picked {dog}").check().run()
    yours.button(key="delete picked").click().run()
    assert not house.gallery.entries("you-1234567") and house.gallery.count("me-1234567") == 1
    assert "me-1234567" not in str(yours._tree), "whose it is stays with them"


def test_words_of_others_are_shown_as_they_are_and_fetch_nothing(house: houses.AppServices):
    """As Markdown they would send everybody who looks to any address."""
    prompt = "a cat ![](https://example.org/spy.png) <img src=x>"
    kept(house, "me-1234567", prompt)
    page = room("gallery")
    page.session_state["owner"] = "me-1234567"
    page.run()
    assert not page.exception and all("spy" not in each.value for each in (*page.caption, *page.markdown))
    (said,) = [each.proto.body for each in page.get("html") if "spy" in each.proto.body]
    assert "&lt;img src=x&gt;" in said and "<img" not in said
    edited = editing(prompt)
    helps = button(edited, "Apply the new words only").help
    assert r"\!\[\]\(https\:" in helps and not edited.exception


def test_what_is_not_shared_cannot_be_seen_taken_or_restored(house: houses.AppServices):
    """Not even by a page that was opened while it was."""
    page = room("gallery")
    page.session_state["owner"] = "you-1234567"
    (cat,) = kept(house, "me-1234567", "a secret cat")
    page.run().get("button_group")[0].set_value(True).run()
    assert shown(page) == 0 and "Nobody shares" in page.get("html")[-1].proto.body
    for press in ("again", "edit"):
        house.gallery.share("me-1234567", True)
        page.run().checkbox(key=f"picked {cat}").check().run()
        file = gallery_room._file(house.gallery, "you-1234567", [cat], True)
        assert shown(page) == 1 and file()
        house.gallery.share("me-1234567", False)
        with pytest.raises(ValueError, match="no picture"):
            file()
        page.button(key=f"{press} {cat}").click().run()
        assert not page.exception and "no picture" in page.error[0].value and shown(page) == 0
        assert "prompt for the canvas" not in page.session_state and "picture to edit" not in page.session_state
        assert not page.get("download_button") and "secret" not in str(page._tree)


def test_a_gallery_that_cannot_be_opened_is_said(
    house: houses.AppServices, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
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
        "generation_form.keep()\n"
        "draw.page()\n",
        default_timeout=SECONDS,
    ).run()
    return button(page, "fill").click().run()


def test_a_picture_brings_its_model_back_or_says_that_it_is_not_here(canvas: list[dict]):
    page = restore(GenerationRequest("a dog", 1, "twinned", (64, 64)))
    assert not page.exception and canvas[-1]["model"] == canvas[-1]["settings"]["model"] == "twinned"
    page = restore(GenerationRequest("a dog", 1, "<b>gone</b>", (64, 64), edit="7 of 64 cells of x"))
    assert not page.exception and canvas[-1]["model"] == "scenes"
    (said,) = [html.proto.body for html in page.get("html") if "notice" in html.proto.body]
    assert "&lt;b&gt;gone&lt;/b&gt;, which drew it, is not here: scenes draws now." in said
    assert "drawn again, it is a plain picture" in said


def test_a_picture_brings_its_settings_back(canvas: list[dict], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MASKGIL_MODEL", "twinned")
    request = GenerationRequest(
        "a dog",
        42,
        "twinned",
        (96, 64),
        n=3,
        params=SamplingParams(
            steps=5, guidance_scale=12.0, guidance_interval=(0.1, 0.3), order="halton", mode="hybrid", ar_tokens=7
        ),
    )
    page = restore(request)
    assert not page.exception and canvas[-1]["prompt"]["text"] == "a dog"
    assert GenerationRequest.read({"prompt": "a dog", **canvas[-1]["settings"]}) == request


def test_a_png_from_outside_is_read(house: houses.AppServices):
    page = room("gallery").run()
    note = png.encode_png(Image.new("RGB", (64, 64)), GenerationRequest("a cat", 9))
    page.get("file_uploader")[0].set_value(("cat.png", note, "image/png")).run()
    assert not page.exception and "a cat" in page.code[0].value
    page.get("file_uploader")[0].set_value(("cat.png", b"PK\x03\x04", "image/png")).run()
    assert not page.exception and "not a picture" in page.error[0].value


def test_models_shows_what_there_is():
    page = room("models").run()
    assert not page.exception and page.subheader[0].value == "scenes"
    assert any("Random weights" in text.value for text in page.markdown)


def test_a_model_is_loaded_unloaded_and_drawn_with(house: houses.AppServices):
    page = room("models").run()
    page.button(key="load twinned").click().run()
    assert not page.exception and house.engine.loaded() == ["twinned"]
    assert any("in memory, float32" in html.proto.body for html in page.get("html"))
    page.button(key="unload twinned").click().run()
    assert not page.exception and house.engine.loaded() == []
    page.button(key="choose twinned").click().run()
    assert page.session_state["board"]["model"] == "twinned" and page.button(key="choose twinned").disabled


def test_a_model_is_loaded_in_the_precision_that_one_chooses(house: houses.AppServices):
    page = room("models").run()
    page.button(key="load twinned").click().run()
    assert house.engine.load("twinned").model.dtype == torch.float32
    precision(page, "twinned").set_value(torch.bfloat16).run()
    assert not page.exception and house.engine.load("twinned").model.dtype == torch.bfloat16
    assert any("in memory, bfloat16" in html.proto.body for html in page.get("html"))
    page.button(key="unload twinned").click().run()
    page.button(key="choose twinned").click().run()
    assert house.engine.load("twinned").model.dtype == torch.bfloat16, "as it was chosen"
    job = house.draw(GenerationRequest("a cat", 1, "twinned", (64, 64)), "me-1234567")
    assert job.wait(SECONDS) and job.pictures()
    again = room("models").run()
    assert precision(again, "twinned").value == torch.bfloat16, "to every visitor"


def precision(page: AppTest, name: str):
    return next(group for group in page.get("button_group") if group.key == f"precision {name}")


def test_a_recogniser_is_chosen_or_refused_with_the_reason(
    house: houses.AppServices, weights: Path, monkeypatch: pytest.MonkeyPatch
):
    def load(ear: SpeechRecognizer) -> object:
        if ear.name == "nothing":
            raise ValueError("no recogniser 'nothing': take a folder")
        return object()

    monkeypatch.setattr(SpeechRecognizer, "load", load)
    monkeypatch.setattr("app.core.registry.recognizers", lambda: ["whisper-scenes", "other"])
    page = room("models").run()
    assert any("whisper-scenes" in html.proto.body for html in page.get("html"))
    button(page, "Listen with other").click().run()
    assert not page.exception and house.recognizer.name == "other"
    page.text_input(key="another recogniser").set_value("nothing")
    button(page, "Listen with it").click().run()
    assert "No recogniser 'nothing'" in page.error[0].value and house.recognizer.name == "other"
    page.text_input(key="another recogniser").set_value("base.en")
    button(page, "Listen with it").click().run()
    assert not page.exception and not page.error and house.recognizer.name == "base.en"


def test_a_model_from_elsewhere_is_opened_or_refused_with_the_reason(house: houses.AppServices, tmp_path: Path):
    folder = str(tiny_model(tmp_path / "elsewhere"))
    page = room("models").run()
    page.text_input(key="another model").set_value(folder)
    button(page, "Open").click().run()
    assert not page.exception and house.engine.loaded() == [folder] and page.session_state["board"]["model"] == folder
    (tmp_path / "elsewhere" / "tokenizer" / "config.json").unlink()
    house.engine.unload(folder)
    page = room("models").run()
    page.text_input(key="another model").set_value(folder)
    button(page, "Open").click().run()
    assert "tokenizer/config.json missing" in page.error[0].value and page.session_state["board"]["model"] == "scenes"


def test_what_cannot_run_here_says_why(weights: Path, house: houses.AppServices, monkeypatch: pytest.MonkeyPatch):
    half = weights / "half" / "generator"
    half.mkdir(parents=True)
    monkeypatch.setattr("app.serving.model_pool.free_memory", lambda: 1000)
    page = room("models").run()
    half.rmdir()
    half.parent.rmdir()
    assert not page.exception and page.button(key="choose twinned").disabled
    said = [caption.value for caption in page.caption if "Cannot run" in caption.value]
    assert len(said) == 3 and any("0.0 GB are free here" in text for text in said)
    assert any("vocabulary.json" in text for text in said)
    with pytest.raises(ValueError, match="takes .* of memory in float32"):
        house.engine.load("twinned")


def editing(prompt: str, size: tuple[int, int] = (64, 64)) -> AppTest:
    """The Edit page with a picture that was drawn after this prompt."""
    page = room("edit")
    page.session_state["picture to edit"] = png.encode_png(Image.effect_noise(size, 90).convert("RGB"))
    page.session_state["words of the edit"] = prompt
    page.session_state["words that the picture to edit was drawn after"] = prompt
    return page.run()


def test_a_picture_is_extended_to_the_sides_for_which_there_is_a_size(house: houses.AppServices):
    page = editing("a dog")
    (sides,) = page.get("button_group")
    assert not page.exception and [option.split()[-1] for option in sides.options] == [
        "left",
        "right",
        "around",
    ]
    assert any("Not up or down: the model draws nothing higher that is 64" in caption.value for caption in page.caption)
    sides.set_value("left").run()
    button(page, "Extend to 96 × 64").click().run()
    page = drawn(page, house)
    assert not page.exception and not page.error and shown(page) == 1
    (entry,) = house.gallery.entries(page.session_state["owner"])
    image = png.read(house.gallery.png(entry))[0].convert("RGB")
    before = Image.open(io.BytesIO(page.session_state["picture to edit"]))
    assert image.size == entry.request.size == (96, 64)
    assert image.crop((32, 0, 96, 64)).tobytes() == before.tobytes()
    assert entry.request.edit.startswith("32 of 96 cells of ")
    assert entry.request.edit.endswith(": 0-3 12-15 24-27 36-39 48-51 60-63 72-75 84-87; extended left from 64x64")
    button(page, "Edit this result").click().run()
    assert not page.exception and not page.get("button_group"), "96x64 is the largest"
    assert any("nothing that 96 × 64 pixels fit into" in caption.value for caption in page.caption)


def test_a_picture_of_another_size_is_scaled_and_the_page_says_so(house: houses.AppServices):
    page = editing("a dog", (384, 256))
    assert any(each.value.startswith("Scaled from 384 × 256 to 96 × 64") for each in page.caption)
    assert all(each.label != "Size" for each in page.selectbox), "a picture's size is its own"
    same = editing("a dog")
    assert not any("Scaled" in each.value for each in same.caption)


def test_a_picture_that_is_too_large_to_extend_can_be_made_smaller(
    house: houses.AppServices, monkeypatch: pytest.MonkeyPatch
):
    house.engine.load("scenes").sizes.append((32, 32))
    house.engine.load("scenes").sizes.remove((96, 64))
    page = editing("a dog")
    button(page, "Shrink to 32 × 32 first").click().run()
    assert not page.exception and Image.open(io.BytesIO(page.session_state["picture to edit"])).size == (32, 32)
    (sides,) = page.get("button_group")
    assert [option.split()[-1] for option in sides.options] == ["around"]


def test_new_words_change_only_what_they_contradict(house: houses.AppServices, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("maskgil.sampling.remasking.MARGIN", 0.0)  # random weights hardly listen
    page = editing("a red cat")
    button(page, "Apply the new words only").click().run()
    assert "contradict nothing" in page.error[0].value
    page.text_input(key="words of the edit").set_value("two dogs at night")
    button(page, "Apply the new words only").click().run()
    page = drawn(page, house)
    assert not page.exception and not page.error and shown(page) == 1
    (entry,) = house.gallery.entries(page.session_state["owner"])
    assert entry.prompt == "two dogs at night"
    assert entry.request.edit.endswith("; new words for “a red cat”, margin 0")
    start = house.engine.jobs(page.session_state["owner"])[0].start
    assert (
        entry.request.edit.startswith(f"{int(start.mask.sum())} of 64 cells of ") and start.cells in entry.request.edit
    )
    assert png.read(house.gallery.png(entry))[1] == entry.request


def test_without_words_that_it_was_drawn_after_new_ones_cannot_change_a_picture():
    page = editing("")
    assert not page.exception and button(page, "Apply the new words only").disabled
    assert not button(page, "Paint").disabled


def test_a_picture_is_varied_and_gone_on_from(house: houses.AppServices):
    page = editing("a dog")
    assert not page.exception
    button(page, "Paint").click().run()
    assert "Nothing is brushed" in page.error[0].value
    button(page, "Make a variation").click().run()
    page = drawn(page, house)
    assert not page.exception and not page.error and shown(page) == 1
    (entry,) = house.gallery.entries(page.session_state["owner"])
    assert entry.request is not None and entry.request.edit.startswith("26 of 64 cells of ")
    assert entry.request.edit.endswith("; a share of 0.4")
    button(page, "Edit this result").click().run()
    assert not page.exception and not shown(page) and page.text_input(key="words of the edit").value == "a dog"
