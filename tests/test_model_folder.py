"""Where models and pictures lie: in a checkout, in an installed package, and where the environment says."""

from pathlib import Path

import pytest

from app.core import paths
from maskgil import model_folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in (paths.WEIGHTS, paths.GALLERY, paths.MODEL, paths.RECOGNIZER, "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_checkout_keeps_its_models_and_pictures():
    root = model_folder.checkout()
    assert root is not None and (root / "pyproject.toml").is_file() and (root / "maskgil").is_dir()
    assert model_folder.weights_folder() == root / "weights" and paths.gallery_folder() == root / "gallery"


def test_an_installed_package_brings_its_models_and_keeps_pictures_with_the_user(home, monkeypatch):
    site = home / "site-packages" / "maskgil"
    monkeypatch.setattr(model_folder, "PACKAGE", site)
    assert model_folder.checkout() is None
    assert model_folder.weights_folder() == site / "weights"
    assert paths.gallery_folder() == home / ".local" / "share" / "maskgil" / "gallery"
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    assert paths.gallery_folder() == home / "data" / "maskgil" / "gallery"


@pytest.mark.parametrize(
    ("variable", "place"),
    [
        ("WEIGHTS", model_folder.weights_folder),
        ("GALLERY", paths.gallery_folder),
        ("MODEL", paths.default_model),
        ("RECOGNIZER", paths.default_recognizer),
    ],
)
def test_the_environment_moves_each_place_and_home_is_expanded(home, monkeypatch, variable, place):
    usual = place()
    monkeypatch.setenv(f"MASKGIL_{variable}", "~/mine")
    assert place() == type(usual)(home / "mine")
    monkeypatch.setenv(f"MASKGIL_{variable}", "")
    assert place() == usual, "empty is unset"
