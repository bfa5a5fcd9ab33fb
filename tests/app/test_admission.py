"""Which models visitors may name, and what finding one costs."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from app_fixtures import tiny_model

from app.core import model_names, paths, registry
from app.core.request import GenerationRequest
from app.serving.admission import UnknownModelError, served_model, served_models
from app.serving.local_engine import LocalEngine
from app.web.live_dialogue import scene_words


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(Path(tmp_path_factory.mktemp("weights")) / "scenes")


@pytest.fixture
def engine(model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalEngine]:
    monkeypatch.setenv("MASKGIL_WEIGHTS", str(model.parent))
    monkeypatch.setattr(model_names, "_folders", {})
    engine = LocalEngine()
    yield engine
    engine.close()


def test_a_loaded_folder_is_served_by_a_name_and_no_path_is_a_name(engine: LocalEngine, tmp_path: Path):
    inside, outside = tiny_model(tmp_path / "inside"), tiny_model(tmp_path / "outside")
    engine.load(str(inside))
    assert served_model(engine, "inside").folder == inside
    assert [model.name for model in served_models(engine)] == ["scenes", "inside"]
    for name in (str(inside), str(outside), "outside"):
        with pytest.raises(UnknownModelError, match="there is scenes, inside"):
            served_model(engine, name)


def test_names_of_folders_are_no_paths_and_differ(
    engine: LocalEngine, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A bundled model keeps its name, and each other folder has one of its own, however its path is written."""
    folders = [tiny_model(tmp_path / place / "scenes") for place in ("a", "b")]
    assert [model_names.name_of(str(folder)) for folder in (*folders, *folders, model)] == [
        "scenes-2", "scenes-3", "scenes-2", "scenes-3", "scenes",
    ]  # fmt: skip
    assert registry.find(str(folders[1])).name == "scenes-3" and registry.find("scenes-3").folder == folders[1]
    monkeypatch.chdir(folders[0])
    assert [model_names.name_of(path) for path in (".", "../scenes", "./", "../../b/scenes")] == [
        "scenes-2", "scenes-2", "scenes-2", "scenes-3",
    ]  # fmt: skip
    assert model_names.name_of("owner/model") == "owner/model" and model_names.name_of("/none/there") == "/none/there"
    assert [model_names.place_of(name) for name in ("scenes", "scenes-3")] == ["scenes", str(folders[1])]


def test_the_default_folder_is_served_and_drawn_under_its_name(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tiny_model(tmp_path / "mine")
    monkeypatch.setenv("MASKGIL_MODEL", str(folder))
    assert [model.name for model in served_models(engine)] == ["scenes", "mine"]
    job = engine.submit(GenerationRequest("two cats", 7, paths.default_model()))
    assert job.wait(60) and engine.loaded() == ["mine"]
    note = job.request.to_dict()
    assert note["model"] == "mine" and str(tmp_path) not in json.dumps(note)


def test_a_visitor_s_name_opens_no_folder_for_its_preset(engine: LocalEngine, tmp_path: Path):
    """What a program names is read before it is known to be served: no file of that path may be opened."""
    folder = tiny_model(tmp_path / "mine")
    assert registry.sampler_of("scenes") == "default"
    (folder / "generator" / "config.json").unlink()
    os.mkfifo(folder / "generator" / "config.json")  # reading it would never end
    assert GenerationRequest.read({"prompt": "two cats", "seed": 7, "model": str(folder)}).model == str(folder)


def test_the_default_and_the_loaded_models_are_found_without_opening_the_others(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    engine.load(str(folder := tiny_model(tmp_path / "mine")))
    monkeypatch.setattr(registry, "bundled_models", lambda: pytest.fail("every model is opened"))
    assert served_model(engine, "scenes").name == "scenes" and served_model(engine, "mine").folder == folder


def test_a_loaded_model_whose_folder_is_gone_is_unknown(engine: LocalEngine, tmp_path: Path):
    folder = tiny_model(tmp_path / "mine")
    engine.load(str(folder))
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(UnknownModelError):
        served_model(engine, "mine")


def test_a_talk_takes_words_of_served_models_and_opens_no_other_folder(engine: LocalEngine, tmp_path: Path):
    folder = str(tiny_model(tmp_path / "mine"))
    path = Path(folder) / "vocabulary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colours": ["zaffre"]}))
    assert "zaffre" not in scene_words(engine, "mine")[1]
    engine.load(folder)
    assert "zaffre" in scene_words(engine, "mine")[1] and "zaffre" not in scene_words(engine, folder)[1]


def test_a_released_model_that_is_not_here_says_how_to_fetch_it(engine: LocalEngine, tmp_path, monkeypatch):
    monkeypatch.setenv("MASKGIL_MODELS", str(tmp_path / "models"))
    with pytest.raises(UnknownModelError, match="`maskgil models get amused/amused-256` fetches it"):
        served_model(engine, "amused/amused-256")
