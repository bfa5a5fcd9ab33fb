"""The models on this machine, and those from Hugging Face: the network is asked once, and only when a person asks."""

from pathlib import Path

import pytest
from app_fixtures import tiny_model

from app.core import registry

NAME = "somebody/drawings"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that Hugging Face was asked for; it has the one model."""
    names = []

    def resolve(name: str) -> Path:
        names.append(name)
        if name != NAME:
            raise ValueError(f"no model {name!r}")
        return tiny_model(tmp_path / "snapshot")

    monkeypatch.setenv("MASKGIL_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("maskgil.checkpoint.resolve", resolve)
    monkeypatch.setattr(registry, "_fetched", {})
    return names


def test_a_distant_model_is_fetched_once_and_only_on_demand(asked: list[str]):
    with pytest.raises(ValueError, match="not fetched from Hugging Face yet: open it on the Models page"):
        registry.find_local(NAME)
    assert asked == []
    found = registry.find(NAME)
    assert found.name == NAME and registry.find_local(NAME) == registry.find(NAME) == found
    assert asked == [NAME]


def test_what_hugging_face_does_not_have_is_no_model(asked: list[str]):
    with pytest.raises(ValueError, match="no model 'nobody/nothing'"):
        registry.find("nobody/nothing")
    assert asked == ["nobody/nothing"]


@pytest.mark.parametrize("name", ["", "nothing", "~nobody/model", "a\0b", "x" * 300, "../..", "/"])
def test_a_name_that_is_no_model_is_refused_in_one_line(asked: list[str], name: str):
    with pytest.raises(ValueError) as refused:
        registry.find(name)
    assert "\n" not in str(refused.value) and asked == []


def test_a_released_model_without_its_owner_is_named_in_full(asked: list[str]):
    with pytest.raises(ValueError, match="did you mean the released model amused/amused-256?"):
        registry.find("amused-256")


def test_a_damaged_model_takes_no_other_away(asked: list[str], tmp_path: Path):
    tiny_model(tmp_path / "weights" / "scenes")
    tiny_model(tmp_path / "weights" / "cut")
    (tmp_path / "weights" / "cut" / "vocabulary.json").write_text("{")
    (tmp_path / "weights" / "half" / "generator").mkdir(parents=True)
    assert [model.name for model in registry.bundled_models()] == ["scenes"]
    reasons = registry.broken_folders()
    assert reasons.keys() == {"cut", "half"} and "missing in its folder" in reasons["half"]
    assert "vocabulary.json" in reasons["cut"]
