"""The directions of imports: app and train import speech, text_encoder and maskgil, and none of these imports them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("maskgil", "text_encoder", "speech", "train", "app")
MAY_IMPORT = {
    "maskgil": set(),
    "text_encoder": {"maskgil"},
    "speech": set(),
    "train": {"maskgil", "text_encoder", "speech"},
    "app": {"maskgil", "text_encoder", "speech"},
}
# The subcommands of `maskgil` run the training, the benchmarks and the experiments; nothing else of app/ knows them.
COMMANDS = {"train", "benchmarks", "experiments"}
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


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
    package = place.parts[0]
    allowed = MAY_IMPORT[package] | {package}
    if place.match("app/commands/*_commands.py"):
        allowed |= COMMANDS
    ours = {name.partition(".")[0] for name in imports(path)} & {*PACKAGES, *COMMANDS, "tests", "tools"}
    assert ours <= allowed, f"{package} must not import {sorted(ours - allowed)}"


@pytest.mark.parametrize("path", sorted((ROOT / "text_encoder").rglob("*.py")), ids=lambda path: path.name)
def test_text_encoders_import_the_condition_and_no_models(path: Path):
    """And how folders share their parts and files are written, which is nothing of the models."""
    ours = {name for name in imports(path) if name.startswith("maskgil")}
    assert all(name.startswith(("maskgil.condition", "maskgil.shared_parts", "maskgil.fileio")) for name in ours), ours


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_has_a_docstring(path: Path):
    source = path.read_text(encoding="utf-8")
    assert not source.strip() or ast.get_docstring(ast.parse(source)), f"{path} has no docstring at its top"


MODEL_FOLDERS = ("maskgil/models", "maskgil/tokenizers", "maskgil/sampling", "text_encoder", "speech", "train/recipes")
CHECKED_TYPES = {
    "Attention",  # set_attention_backend visits the layers of a model
    "ClassEmbedding",  # pads a class, one token, as LlamaGen does
    "DiffusionHead",  # the optimizer groups parameters by their layer
    "HuggingFaceEncoder",  # an export copies the weights of a local folder
    "QKNorm",
    "TranscribeRequest",  # an event of a listener: its others are shown
}


def branched_types(path: Path) -> set[str]:
    """The types of every isinstance() of a file that is not in an assert."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    asserted = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.Assert) for inner in ast.walk(node)}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance"]
    return {
        name.attr if isinstance(name, ast.Attribute) else name.id
        for call in calls
        if id(call) not in asserted
        for name in ast.walk(call.args[1])
        if isinstance(name, ast.Name | ast.Attribute)
    }


def test_no_branch_asks_for_the_class_of_a_model_or_tokenizer():
    """Each generator, tokenizer, text encoder and speech recognizer has the methods of its protocol instead."""
    ours = {
        node.name
        for folder in MODEL_FOLDERS
        for path in (ROOT / folder).glob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    assert {"MaskGIL", "EMIGM", "VQModel", "CodeSampler", "SmallWhisperBackend"} <= ours
    paths = [*FILES, *(path for folder in ("benchmarks", "experiments") for path in (ROOT / folder).rglob("*.py"))]
    asked = {str(path.relative_to(ROOT)): branched_types(path) & ours - CHECKED_TYPES for path in paths}
    assert not {path: types for path, types in asked.items() if types}


def test_nothing_is_imported_by_a_string():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func).rpartition(".")[2] not in ("import_module", "__import__"), path


def test_no_file_is_a_collection_of_helpers():
    assert not [path for path in FILES if path.stem in ("utils", "util", "helpers", "misc", "common")]


def test_no_pickle_is_trusted():
    """torch.load reads weights only; pickle is not loaded from anywhere."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load":
                owner = ast.unparse(node.func.value)
                if owner == "torch":
                    safe = [k for k in node.keywords if k.arg == "weights_only" and ast.unparse(k.value) == "True"]
                    assert safe, f"{path}:{node.lineno} torch.load without weights_only=True"
                assert owner != "pickle", f"{path}:{node.lineno} unpickles"


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def top_level_imports(path: Path, modules: set[str]) -> set[str]:
    """The modules of the project that a file imports while it is imported itself; not those inside functions."""
    found, left = set(), list(ast.parse(path.read_text(encoding="utf-8")).body)
    while left:
        node = left.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {each if each in modules else node.module for each in full.values()}
        elif isinstance(node, ast.If | ast.Try | ast.With) and "TYPE_CHECKING" not in ast.unparse(node)[:30]:
            left += [child for child in ast.walk(node) if isinstance(child, ast.Import | ast.ImportFrom)]
    return found & modules


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle of modules that import each other, as a path that ends where it begins; empty where there is none."""
    finished: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in finished:
            return []
        for other in sorted(graph[module]):
            if found := visit(other, [*path, module]):
                return found
        finished.add(module)
        return []

    return next((found for module in graph if (found := visit(module, []))), [])


def test_no_modules_import_each_other_in_a_circle():
    paths = [
        path for folder in (*PACKAGES, "benchmarks", "experiments", "tools") for path in (ROOT / folder).rglob("*.py")
    ]
    modules = {module_name(path): path for path in paths}
    graph = {name: top_level_imports(path, set(modules)) for name, path in modules.items()}
    assert not find_circle({"a": {"b"}, "b": {"c"}, "c": set()})
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert not find_circle(graph)
