"""The rooms of the project and which way imports point: app -> speech, text_encoder, maskgil; train -> the same."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("maskgil", "text_encoder", "speech", "train", "app")
MAY_IMPORT = {
    "maskgil": set(),
    "text_encoder": {"maskgil"},
    "speech": set(),
    "train": {"maskgil", "text_encoder", "speech"},
    "app": {"maskgil", "text_encoder", "speech"},
}
# The subcommands of `maskgil` run the training, the benchmarks and the experiments; nothing else of app/ knows them.
COMMANDS = {"train", "benchmarks", "experiments"}
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever in the file, with `from a import b` as a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively: say where from"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path):
    place = path.relative_to(ROOT)
    room = place.parts[0]
    allowed = MAY_IMPORT[room] | {room}
    if place.match("app/commands/*_commands.py"):
        allowed |= COMMANDS
    ours = {name.partition(".")[0] for name in imports(path)} & {*ROOMS, *COMMANDS, "tests", "tools"}
    assert ours <= allowed, f"{room} must not import {sorted(ours - allowed)}"


@pytest.mark.parametrize("path", sorted((ROOT / "text_encoder").rglob("*.py")), ids=lambda path: path.name)
def test_text_encoders_know_the_condition_and_nothing_else_of_the_models(path: Path):
    """And how folders share their parts and files are written, which is nothing of the models."""
    ours = {name for name in imports(path) if name.startswith("maskgil")}
    assert all(name.startswith(("maskgil.condition", "maskgil.shared_parts", "maskgil.fileio")) for name in ours), ours


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_opens_with_its_idea(path: Path):
    source = path.read_text(encoding="utf-8")
    assert not source.strip() or ast.get_docstring(ast.parse(source)), f"{path} has no docstring at its top"


def test_a_helper_without_a_home_is_a_concept_without_a_file():
    assert not [path for path in FILES if path.stem in ("utils", "util", "helpers", "misc", "common")]


def test_nothing_is_pickled_without_care():
    """torch.load reads weights only; pickle is not loaded from anywhere."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load":
                owner = ast.unparse(node.func.value)
                if owner == "torch":
                    safe = [k for k in node.keywords if k.arg == "weights_only" and ast.unparse(k.value) == "True"]
                    assert safe, f"{path}:{node.lineno} torch.load without weights_only=True"
                assert owner != "pickle", f"{path}:{node.lineno} unpickles"
