"""Which models visitors may name, and what finding one costs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from app_fixtures import tiny_model

import text_encoder
from app.core import registry
from app.serving.admission import UnknownModelError, served_model, served_models
from app.serving.local_engine import LocalEngine
from app.web.live_dialogue import scene_words
from maskgil.pipeline import TextToImage


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(Path(tmp_path_factory.mktemp("weights")) / "scenes")


@pytest.fixture
def engine(model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalEngine]:
    monkeypatch.setenv("MASKGIL_WEIGHTS", str(model.parent))
    engine = LocalEngine(lambda name: TextToImage.load(name, text_encoder.load))
    yield engine
    engine.close()


def test_a_loaded_folder_is_served_by_its_path_and_no_other_folder_is(engine: LocalEngine, tmp_path: Path):
    inside, outside = tiny_model(tmp_path / "inside"), tiny_model(tmp_path / "outside")
    engine.load(str(inside))
    assert served_model(engine, str(inside)).folder == inside
    assert [model.name for model in served_models(engine)] == ["scenes", str(inside)]
    with pytest.raises(UnknownModelError, match="there is scenes"):
        served_model(engine, str(outside))


def test_the_default_and_the_loaded_models_are_found_without_opening_the_others(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    engine.load(str(folder := tiny_model(tmp_path / "mine")))
    monkeypatch.setattr(registry, "bundled_models", lambda: pytest.fail("every model is opened"))
    assert served_model(engine, "scenes").name == "scenes" and served_model(engine, str(folder)).folder == folder


def test_a_loaded_model_whose_folder_is_gone_is_unknown(engine: LocalEngine, tmp_path: Path):
    folder = tiny_model(tmp_path / "mine")
    engine.load(str(folder))
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(UnknownModelError):
        served_model(engine, str(folder))


def test_a_talk_takes_words_of_served_models_and_opens_no_other_folder(engine: LocalEngine, tmp_path: Path):
    folder = str(tiny_model(tmp_path / "mine"))
    path = Path(folder) / "vocabulary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colours": ["zaffre"]}))
    assert "zaffre" not in scene_words(engine, folder)[1]
    engine.load(folder)
    assert "zaffre" in scene_words(engine, folder)[1]
