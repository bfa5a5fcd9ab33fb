"""Fetching from the page and the command line: once, with the reason where it fails, and a table of what there is."""

from pathlib import Path

import pytest
from hub_stand_in import HubStandIn
from released_folders import amused_folder

import text_encoder
from app.cli import main
from app.core import registry, released_models
from app.serving.model_fetcher import FetchState, ModelFetcher
from maskgil.pipeline import TextToImage
from maskgil.released import catalog, download

NAME = "amused/amused-256"
NOBODY = "http://127.0.0.1:9"  # the discard port: refused at once
SECONDS = 120


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv(download.FOLDER, str(tmp_path / "models"))
    hub = HubStandIn({NAME: amused_folder(tmp_path / "repository")})
    yield hub
    hub.close()


def test_a_fetch_runs_once_and_the_model_is_there(hub):
    fetcher = ModelFetcher(hub.endpoint)
    assert fetcher.state(NAME) == FetchState()
    fetcher.start(NAME)
    fetcher.start(NAME)  # while the first is on its way
    assert fetcher.wait(NAME, SECONDS) == FetchState()
    assert sum(path.endswith("model.safetensors") for method, path, _ in hub.requests if method == "GET") == 3
    assert [model.name for model in registry.fetched()] == [NAME]
    assert TextToImage.load(NAME, text_encoder.load, encoder_memory="offload").images(["a cat"], [1])[0].size == (
        32,
        32,
    )


def test_a_failure_is_told_and_can_be_tried_again(hub):
    fetcher = ModelFetcher(NOBODY)
    fetcher.start(NAME)
    assert "could not be fetched from Hugging Face" in fetcher.wait(NAME, SECONDS).error
    again = ModelFetcher(hub.endpoint)
    again.start(NAME)
    assert again.wait(NAME, SECONDS) == FetchState()


def test_the_table_says_what_each_takes_and_whether_it_is_here(hub):
    head, *lines = released_models.released_table().splitlines()
    assert head.split()[:3] == ["NAME", "IMAGE", "PARAMETERS"] and all(len(line) < 140 for line in lines)
    assert len(lines) == len(catalog.MODELS) and all(line.endswith("not here") for line in lines)
    assert lines[0].split("  ")[0] == NAME and "873 M" in lines[0] and "OpenRAIL++" in lines[0]


def test_the_command_lists_fetches_and_removes(hub, monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    assert main(["models", "get", NAME]) == 0 and "amused-256" in capsys.readouterr().out
    assert main(["models"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert any(line.startswith(NAME) and line.endswith("  here") for line in listed)
    assert any(line.startswith(NAME) and "32x32" in line for line in listed)  # among those that are here
    assert main(["models", NAME]) == 0 and "free text" in capsys.readouterr().out
    assert main(["models", "rm", NAME]) == 0 and "are free again" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["get", NAME], "could not be fetched from Hugging Face"),
        (["get", "amused/amused-265"], "did you mean amused/amused-256?"),
        (["get"], "which one?"),
        (["rm", NAME], "is not on this machine"),
        ([NAME], "`maskgil models get amused/amused-256` fetches it"),
        (["scenes", NAME], "get or rm and the name of a released model"),
    ],
)
def test_the_command_refuses_in_one_line(hub, monkeypatch, capsys, arguments, message):
    monkeypatch.setenv("HF_ENDPOINT", NOBODY)
    assert main(["models", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said and len(said.strip().splitlines()) == 1, said


def test_the_guide_is_that_of_the_documentation():
    """The page shows the same table: what a model is good for, how fast it is, what is untested."""
    page = Path(__file__).parents[2] / "docs" / "released-models.md"
    assert released_models.guide_table() in page.read_text(encoding="utf-8")
    assert catalog.CPU_SECONDS.keys() <= {model.name for model in catalog.MODELS}


def test_a_name_may_be_written_in_any_letters(hub):
    download.fetch(NAME, hub.endpoint)
    assert registry.find("AMUSED/Amused-256").name == NAME
