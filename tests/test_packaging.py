"""What is installed: one place for versions, an entry point that exists, and a wheel that works from any folder."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent
while not (ROOT / "pyproject.toml").is_file():
    ROOT = ROOT.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
PACKAGES = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
SETTINGS = ("MASKGIL_WEIGHTS", "MASKGIL_GALLERY", "MASKGIL_MODEL", "MASKGIL_RECOGNIZER", "PYTHONPATH")
WEIGHTS = ROOT / "weights"


def requirements(lines: list[str]) -> set[str]:
    """Requirements without comments, spaces and the kind of quotes."""
    return {re.sub(r"\s+", "", line.partition("#")[0]).replace('"', "'") for line in lines} - {""}


def test_requirements_txt_agrees_with_the_project():
    listed = requirements((ROOT / "requirements.txt").read_text("utf-8").splitlines())
    assert listed == requirements(PROJECT["dependencies"]), "change versions in pyproject.toml first"


def test_every_version_is_pinned():
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    for line in requirements(PROJECT["dependencies"] + extras):
        pinned = re.match(r"[\w.-]+(\[[\w,-]+\])?==[\w.]+(;|$)", line)
        assert pinned or line.startswith("maskgil["), f"{line} is not pinned"


def test_the_command_exists():
    module, _, function = PROJECT["scripts"]["maskgil"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_every_package_and_licence_file_is_there():
    assert [name for name in PACKAGES if not (ROOT / name / "__init__.py").is_file()] == []
    assert [name for name in PROJECT["license-files"] if not (ROOT / name).stat().st_size] == []


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what `pip install .` puts into site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_the_wheel_carries_all_that_git_knows_of_the_packages(installed: Path):
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    tracked = subprocess.run(
        ["git", "ls-files", "-z", *PACKAGES, "weights"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    for name in filter(None, tracked):  # the list ends with an empty name
        place = installed / ("maskgil/" + name if name.startswith("weights/") else name)
        assert place.is_file() and place.stat().st_size == (ROOT / name).stat().st_size, f"{name} is not in the wheel"
    top = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert top == set(PACKAGES)


@pytest.mark.slow
@pytest.mark.skipif(not (WEIGHTS / "scenes").is_dir(), reason="needs the bundled weights")
def test_the_installed_command_draws_from_any_folder(installed: Path, tmp_path: Path):
    """Neither the folder nor the checkout is on the path: the bundled weights are those inside the package."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    environment |= {"PYTHONPATH": str(installed), "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    (entry,) = installed.glob("*.dist-info/entry_points.txt")
    module, _, function = re.search(r"^maskgil = (.+)$", entry.read_text(), re.MULTILINE)[1].partition(":")
    program = (
        f"import sys; sys.path[:] = [p for p in sys.path if p != {str(ROOT)!r}]; "
        f"import maskgil; assert maskgil.__file__.startswith({str(installed)!r}), maskgil.__file__; "
        f"from {module} import {function} as run; sys.exit(run())"
    )
    python = [sys.executable, "-P", "-c", program]
    for arguments in (["models"], ["generate", "two cats on the beach", "--steps", "2", "--out", "cats.png"]):
        done = subprocess.run(python + arguments, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "cats.png").read_bytes().startswith(b"\x89PNG")
