"""Commands from typed functions: what is parsed, and what a wrong word is answered with."""

import io
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from tyro.conf import Positional, UseAppendAction, arg

from maskgil.command_line import Command, CommandFailed, CommandGroup, completion_script, extra_of, parse, run


@dataclass(frozen=True)
class Options:
    """Options of their own."""

    batch: int = 3
    """Pictures a step."""
    compile: bool = False


def draw(
    prompt: Positional[str] = "",
    *,
    sizes: tuple[int, ...] = (64,),
    mode: Literal["masked", "hybrid"] = "masked",
    host: UseAppendAction[tuple[str, ...]] = (),
    options: Annotated[Options, arg(name="")] = Options(),  # noqa: B008
) -> tuple:
    """Draw a prompt.

    As a picture.

    Raises ValueError for a prompt
    without words.
    """
    return prompt, sizes, mode, host, options


def fail() -> None:
    raise CommandFailed("the disk\nis gone")


def refuse() -> None:
    raise ValueError("a bad\nvalue")


def never() -> None:
    raise AssertionError("a command that is not chosen is not loaded")


TREE = CommandGroup(
    "Everything.",
    lambda: {
        "draw": Command("Draw.", lambda: draw),
        "other": Command("Not loaded.", never),
        "work": CommandGroup(
            "Work.", lambda: {"fail": Command("", lambda: fail), "refuse": Command("", lambda: refuse)}
        ),
    },
)


def parsed(line: str) -> tuple:
    call = parse(TREE, "tool", line.split())
    assert call is not None
    return call()


def test_parameters_are_options():
    assert parsed("draw") == ("", (64,), "masked", (), Options())
    found = parsed("draw cat --sizes 64 96 --mode=hybrid --batch 4 --compile --host a --host b")
    assert found == ("cat", (64, 96), "hybrid", ("a", "b"), Options(4, True))


@pytest.mark.parametrize(
    "line, says",
    [
        ("drwa", "tool has no command 'drwa': did you mean draw?"),
        ("xyz", "choose one of draw, other, work"),
        ("work fial", "tool work has no command 'fial': did you mean fail?"),
        ("draw --btach 3", "--btach: did you mean --batch?"),
        ("draw --mode hybird", "--mode hybird: did you mean hybrid?"),
        ("draw --batch many", "--batch"),
        ("draw --batch 3 --batch 4", "--batch is given 2 times"),
        ("draw cat sizes=64,96 compile=yes batch=2", "tool draw cat --sizes 64 96 --compile --batch 2"),
        ("draw compile=no", "tool draw --no-compile"),
    ],
)
def test_a_wrong_word_is_answered_with_the_nearest_known_one(line: str, says: str):
    with pytest.raises(ValueError) as refusal:
        parsed(line)
    assert says in str(refusal.value) and "\n" not in str(refusal.value)


def test_text_that_looks_like_an_assignment_stays_text():
    assert parsed("draw a=b")[0] == "a=b"


def test_errors_are_one_line_and_a_status(capsys):
    assert run(TREE, "tool", ["work", "fail"]) == 1
    assert capsys.readouterr().err == "error: the disk is gone\n"
    assert run(TREE, "tool", ["work", "refuse"]) == 2
    assert capsys.readouterr().err == "error: a bad value\n"


def test_lists_of_commands_load_none_of_them(capsys):
    assert run(TREE, "tool", []) == 0
    told = capsys.readouterr().out
    assert "Everything." in told and "other  Not loaded." in told
    assert run(TREE, "tool", ["work", "--help"]) == 0 and "refuse" in capsys.readouterr().out


def test_help_shows_every_option(capsys):
    with pytest.raises(SystemExit) as leaving:
        run(TREE, "tool", ["draw", "--help"])
    told = capsys.readouterr().out
    assert (
        not leaving.value.code and "Pictures a step." in told and "--no-compile" in told and "{masked,hybrid}" in told
    )
    assert "As a picture." in told and "Raises" not in told and "without words" not in told


def test_completion_knows_commands_and_options():
    work = CommandGroup("Work.", lambda: {"fail": Command("", lambda: fail), "refuse": Command("", lambda: refuse)})
    tree = CommandGroup("All.", lambda: {"draw": Command("Draw.", lambda: draw), "work": work})
    script = completion_script(tree, "tool", "bash")
    assert all(word in script for word in ("complete -F", "draw", "--batch", "refuse"))


@pytest.mark.parametrize("code_page", ["ascii", "cp1251", "cp932"])
def test_characters_that_a_terminal_lacks_are_spelled_out(code_page: str, monkeypatch: pytest.MonkeyPatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=code_page))
    assert run(Command("Print.", lambda: lambda: print("café 🐱", flush=True)), "maskgil", []) == 0
    assert written.getvalue() == rb"caf\xe9 \U0001f431" + b"\n"


def test_a_missing_package_is_named_with_its_extra(capsys: pytest.CaptureFixture):
    """As where `pip install .` left out what training needs."""

    def train() -> None:
        raise ModuleNotFoundError("No module named 'tensorboard'", name="tensorboard.summary")

    def broken() -> None:
        raise ModuleNotFoundError("No module named 'maskgil.nothing'", name="maskgil.nothing")

    assert run(Command("", lambda: train), "maskgil train", []) == 2
    assert capsys.readouterr().err == "error: this needs tensorboard.summary: pip install 'maskgil[train]'\n"
    with pytest.raises(ModuleNotFoundError, match="nothing"):  # a fault of the project is no missing extra
        run(Command("", lambda: broken), "maskgil train", [])
    assert [extra_of(module) for module in ("ray.serve", "resvg_py", "torch", "nobody")] == ["serve", "train", "", ""]
