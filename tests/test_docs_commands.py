"""The commands of README.md and docs/ are ones that `maskgil` understands, and those of the first pages are run."""

import re
import shlex
from pathlib import Path

import pytest
import soundfile
from app_fixtures import tiny_ar_model, tiny_model
from commands import maskgil

from app.cli import EXAMPLES
from app.cli import ROOT as COMMANDS
from app.core import png
from maskgil.command_line import parse
from speech.transcriber import Transcript

ROOT = Path(__file__).resolve().parent
while not (ROOT / "pyproject.toml").is_file():
    ROOT = ROOT.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "weights").glob("*/README.md"))]
RUN = (ROOT / "README.md", ROOT / "docs" / "cli.md")  # their commands that draw are run, with fewer steps
PLACEHOLDER = re.compile(r"\b(COMMAND|RECIPE|NAME|FORMAT|FILE|PART|SHELL)\b")


def commands_of(page: Path) -> list[list[str]]:
    """The words of every line that starts with `maskgil`, in blocks of code; a line may go on after a backslash."""
    blocks = re.findall(r"^```\w*\n(.*?)^```|((?:^    [^\n]*\n)+)", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    text = "\n".join(fenced or indented for fenced, indented in blocks).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("maskgil ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


ALL = [(page, words) for page in PAGES for words in commands_of(page)]


def test_the_pages_hold_commands():
    assert len(ALL) > 50 and {page.name for page, _ in ALL} >= {"README.md", "cli.md", "training-scenes.md"}


@pytest.mark.parametrize("page, words", ALL, ids=[f"{page.name}: {' '.join(words)[:60]}" for page, words in ALL])
def test_every_command_is_understood(page: Path, words: list[str]):
    """Parsed, not run: its commands, options and values exist."""
    if PLACEHOLDER.search(" ".join(words[:2])):
        pytest.skip("stands for many commands")
    call = parse(COMMANDS, "maskgil", words[: words.index(">")] if ">" in words else words)
    assert callable(call)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models under the names of the bundled ones."""
    folder = Path(tmp_path_factory.mktemp("weights"))
    tiny_ar_model(tiny_model(folder / "scenes"))
    tiny_model(folder / "scenes-emigm")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all commands, in the order of the page: later ones read what earlier ones wrote."""
    folder = tmp_path_factory.mktemp("commands")
    soundfile.write(folder / "speech.wav", [0.0] * 16000, 16000)
    return folder


DRAWN = ("generate", "edit", "listen", "models", "read")
DRAWING = [(page, words) for page, words in ALL if page in RUN and words[0] in DRAWN]
IDS = [f"{page.name}: {' '.join(words)[:60]}" for page, words in DRAWING]


@pytest.mark.parametrize(
    "page, words", DRAWING, ids=[f"{page.name}: {' '.join(words)[:60]}" for page, words in DRAWING]
)
def test_the_first_commands_work(
    page: Path, words: list[str], weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    """On tiny models, which draw noise: as many steps as are given, at most two."""
    if "FOLDER" in words:
        pytest.skip("stands for a model of one's own")
    monkeypatch.setenv("MASKGIL_WEIGHTS", str(weights))
    monkeypatch.chdir(folder)

    class Recognizer:
        limit, is_multilingual = 120.0, False

        def transcribe(self, samples: object, context: object = None) -> Transcript:
            return Transcript("two cats on the beach", (), False, "")

    monkeypatch.setattr("app.serving.recognizer.SpeechRecognizer.load", lambda self: Recognizer())
    given = list(words)
    for option, value in (("--size", "96x64"), ("--steps", "2"), ("--ar-tokens", "5")):
        if option in given:
            given[given.index(option) + 1] = value
    if words[0] in ("generate", "edit", "listen") and "--steps" not in given:
        given += ["--steps", "2"]
    if words[0] in ("generate", "edit"):
        given.append("--anyway")  # the tiny models know few words
    if words[0] == "edit":  # tiny models draw noise: new words need not contradict it
        picture = png.read_picture(Path(given[1]).read_bytes())[0]
        picture.convert("L").point(lambda value: 255).save("mask.png")
        given += ["--mask", "mask.png"]
    maskgil(*given)
    if "--out" in given:
        assert Path(given[given.index("--out") + 1]).read_bytes().startswith(b"\x89PNG")
    else:
        assert capsys.readouterr().out


@pytest.mark.parametrize("words", [shlex.split(line)[1:] for line in EXAMPLES.splitlines()[1:]], ids=" ".join)
def test_the_examples_of_the_help_page_name_models_of_a_clean_clone(words: list[str]):
    """Parsed, not run."""
    assert callable(parse(COMMANDS, "maskgil", words))
    if "--model" in words:
        folder = ROOT / "weights" / words[words.index("--model") + 1]
        assert (folder / "generator" / "config.json").is_file(), f"{folder.name} is not among the bundled models"


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 150 and len(text.encode()) <= 12 * 1024
