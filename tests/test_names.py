"""The vocabulary of the code: unique module names, few public names defined twice, no retired words."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("app", "maskgil", "text_encoder", "speech", "train", "benchmarks", "experiments", "tools")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

# A recipe, a converter and a model of one thing share its name (docs/architecture.md).
SHARED_MODULE_NAMES = {"__init__", "__main__", "emigm"}
MAX_SHARED_NAMES = 10

# Names that gave way to the field's terms: no definition, argument or attribute may bring them back.
RETIRED = frozenset(
    """
    AbsorbedConfig AbsorbedVQ Activity Autoregressive BundledEncoder Busy Canvas Captioned Change ClassNames
    Classes CodebookCare Continuation Correction Cosine Critic Curve Draft Drawn Driven Ear Earlier
    EncoderConfig Entry Extension FactReader FeatureCache Features Final Frame Framework Graphs Grown Head
    HeadNorm Hear Heard House HuggingFace LaidOut Lane LatentConfig LatentModel LatentPainter Level Likeness
    Line Listener Loaded Lumina Maker MaskedFeatures MaskedTokens Measured Method MethodLoss Mode Model
    NamedLatents NamedTokenizer Namer Naming NamingLoss NextFeatures NextToken Node Observer Options Order
    OwnScribe Painter PainterLoss Part Partial Pause Phase Picture Piece Plan Player Prefix Problem Progress
    RasterPainter Reader ReaderConfig Reading Recall Recogniser RecogniserLoss Refused ReleasedScribe Repaint
    Request Resume SceneTruth Score Scribe Seen Session Settings Shards Sketch Source SpokenBatches Start Step
    Stream Synthesiser Table Tables TextDriven Timing TokenPainter TokensAndPixels Trunk Unwritten Vocabulary
    WebSocket Why any_seed attend_with begun_as by_halves check_given check_scale check_twin
    discretised_log_likelihood doubted facts_loss fit_to_encoder goes_on large_recipe load_observer load_twin
    muddled near_codes next_hole observer_loss of_form of_json quantise_with_gradient reader_features
    reader_loss reconsider refuse_long same_makers save_observer save_reader seeds_of understand
    """.split()
)


def defined(path: Path) -> set[str]:
    """Public names of classes and functions at the top level of a file."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.name for node in nodes if isinstance(node, kinds) and not node.name.startswith("_")}


def bound(path: Path) -> dict[str, int]:
    """Every name that a file binds, with a line where it does."""
    names: dict[str, int] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                names[node.name] = node.lineno
            case ast.arg():
                names[node.arg] = node.lineno
            case ast.Name(ctx=ast.Store()):
                names[node.id] = node.lineno
            case ast.Attribute(ctx=ast.Store()):
                names[node.attr] = node.lineno
    return names


def test_module_names_are_unique():
    places = defaultdict(list)
    for path in FILES:
        places[path.stem].append(str(path.relative_to(ROOT)))
    shared = {name: at for name, at in places.items() if len(at) > 1 and name not in SHARED_MODULE_NAMES}
    assert not shared, shared


def test_few_public_names_are_defined_twice():
    places = defaultdict(list)
    for path in FILES:
        for name in defined(path):
            places[name].append(str(path.relative_to(ROOT)))
    shared = {name: at for name, at in sorted(places.items()) if len(at) > 1 and name != "main"}
    for name, at in shared.items():
        print(f"{name}: {', '.join(at)}")
    assert len(shared) <= MAX_SHARED_NAMES, shared


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_retired_names_stay_retired(path: Path):
    back = {name: line for name, line in bound(path).items() if name in RETIRED}
    assert not back, f"{path.relative_to(ROOT)}: {back}"
