"""Commands from typed functions: a tree of names, parsed by tyro, with every error on one line.

    BENCHES = CommandGroup("Measure speed.", lambda: {"training": Command("Cost of a training step.", load_training)})
    sys.exit(run(CommandGroup("...", lambda: {"bench": BENCHES}), "maskgil"))

A `Command` loads its function when it is chosen, so that `maskgil --help` imports no PyTorch. The function's parameters
are its options: `steps: int = 8` is `--steps 8`, `compile: bool = False` is `--compile`, a tuple takes several values,
`tyro.conf.Positional` takes one without a name. The fields of a dataclass parameter are options of their own. Help is
the docstring.

Exit status: 0 done, 1 interrupted or failed (CommandFailed), 2 for a ValueError or OSError. Errors are one line.
"""

import contextlib
import difflib
import functools
import importlib.metadata
import inspect
import io
import re
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any

import tyro

from maskgil.config_file import former_names, with_config

HELP = ("-h", "--help")
CONFIG = (tyro.conf.OmitArgPrefixes,)
RAISES = re.compile(r"\n\s*\n\s*Raises \w+Error.*?(?=\n\s*\n|\Z)", re.DOTALL)  # a paragraph of a docstring


@dataclass(frozen=True)
class Command:
    """`help`: one line for the list of commands. `load` imports and returns the function."""

    help: str
    load: Callable[[], Callable[..., object]]


@dataclass(frozen=True)
class CommandGroup:
    """`help`: one line. `load` returns the commands by name, in the order of the list; `notes` ends the help page.
    `prepare`: the arguments that follow the group's name -> a command's name and its arguments."""

    help: str
    load: Callable[[], "Mapping[str, Command | CommandGroup]"]
    notes: str = ""
    prepare: Callable[[list[str]], list[str]] = list


CommandTree = Command | CommandGroup


class CommandFailed(Exception):
    """The command was understood and could not be carried out: one line, exit status 1."""


def run(root: CommandTree, prog: str, arguments: list[str] | None = None) -> int:
    """Run the command that `arguments` (default: those of the process) name. Returns the exit status.

    SystemExit(0) after a help page, as tyro and argparse do.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that the terminal's code page lacks is no error
            stream.reconfigure(errors="backslashreplace")
    try:
        call = parse(root, prog, sys.argv[1:] if arguments is None else arguments)
        if call is not None:
            call()
    except BrokenPipeError:  # nobody reads on: `maskgil ... | head`
        sys.stdout = io.StringIO()  # the interpreter would complain when it flushes the pipe
        return 1
    except ModuleNotFoundError as error:
        if not (extra := extra_of(error.name or "")):
            raise
        print(f"error: this needs {error.name}: pip install 'maskgil[{extra}]'", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except CommandFailed as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print("interrupted" + (f": {interrupt}" if str(interrupt) else ""), file=sys.stderr)
        return 1
    return 0


def parse(root: CommandTree, prog: str, arguments: list[str]) -> Callable[[], object] | None:
    """The call that the arguments stand for; None when a list of commands or the version was asked for and is printed.

    Raises ValueError for an unknown command, option or value, with the nearest known one.
    """
    node, rest = root, list(arguments)
    while isinstance(node, CommandGroup):
        commands, rest = node.load(), node.prepare(rest)
        if node is root and rest[:1] == ["--version"]:
            print(f"{prog} {importlib.metadata.version('maskgil')}")
            return None
        if not rest or rest[0] in HELP:
            print(overview(node, commands, prog))
            return None
        name = rest.pop(0)
        if name not in commands:
            near = nearest(name, commands) or f"choose one of {', '.join(commands)}"
            raise ValueError(f"{prog} has no command {name!r}: {near} ({prog} --help lists them)")
        node, prog = commands[name], f"{prog} {name}"
    return parse_options(node.load(), prog, rest)


def parse_options(function: Callable[..., object], prog: str, arguments: list[str]) -> Callable[[], object]:
    """The function with its arguments bound. Raises ValueError as `parse` does."""
    options = options_of(function)
    _refuse_repeated(arguments, options)
    arguments = with_config(arguments, options, prog.rpartition(" ")[2])
    if renamed := _from_assignments(arguments, options):
        raise ValueError(f"options are written --name value: {prog} {renamed}")
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(deferred(function), prog=prog, args=arguments, config=CONFIG)
    except SystemExit as leaving:
        if not leaving.code:
            raise
    raise ValueError(f"{_explain(complaint.getvalue(), options)} ({prog} --help explains)")


def deferred(function: Callable[..., object]) -> Callable[..., Callable[[], object]]:
    """The function with the same signature and help that returns the bound call: tyro parses, the caller runs it, so
    that an error of the work is not reported as one of the arguments. The help lacks the paragraph on errors."""

    @functools.wraps(function)
    def bind(*args: object, **options: object) -> Callable[[], object]:
        return functools.partial(function, *args, **options)

    bind.__doc__ = RAISES.sub("", function.__doc__ or "")
    return bind


def overview(group: CommandGroup, commands: Mapping[str, CommandTree], prog: str) -> str:
    """The help page of a group."""
    width = max(len(name) for name in commands) + 2
    lines = [f"usage: {prog} COMMAND [OPTIONS]", "", group.help, "", "commands:"]
    lines += [f"  {name:{width}}{node.help}" for name, node in commands.items()]
    lines += ["", f"{prog} COMMAND --help shows the options of a command."]
    return "\n".join([*lines, *(["", group.notes.rstrip()] if group.notes else [])])


def nearest(name: str, known: Iterable[str]) -> str:
    """'did you mean X?' for the known names that are spelled alike; an empty string where none is."""
    similar = difflib.get_close_matches(name, list(known), n=2, cutoff=0.6)
    return f"did you mean {' or '.join(similar)}?" if similar else ""


def extra_of(module: str) -> str:
    """The extra of this project that installs a module's package; empty where none is known to."""
    wanted = module.partition(".")[0].replace("_", "-").lower()
    try:
        requirements = importlib.metadata.requires("maskgil") or []
    except importlib.metadata.PackageNotFoundError:
        return ""
    extras = []
    for requirement in requirements:
        package, extra = re.match(r"[\w.-]+", requirement), re.search(r"extra == ['\"]([\w-]+)", requirement)
        if package and extra and package[0].replace("_", "-").lower() == wanted:
            extras.append(extra[1])
    return min(extras, key=lambda extra: extra == "test", default="")  # `test` holds the others


def one_line(error: Exception) -> str:
    """The message on one line. A data worker's error begins with where it was raised; its last line says what it is."""
    text = str(error)
    if text.startswith("Caught "):
        text = text.splitlines()[-1].partition(": ")[2] or text.splitlines()[-1]
    return " ".join(text.split())


def completion_script(root: CommandGroup, prog: str, shell: str) -> str:
    """A script that completes commands and options. Loads every command."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        tyro.cli(_tree(root), prog=prog, args=["--tyro-print-completion", shell], config=CONFIG)
    return printed.getvalue()


def _tree(group: CommandGroup) -> Any:
    """The group as a type that tyro parses: a union of its commands."""
    kinds = []
    for name, node in group.load().items():
        kind: Any = _chooser(_tree(node)) if isinstance(node, CommandGroup) else deferred(node.load())
        named: Any = tyro.conf.subcommand(name, description=node.help, constructor=kind)
        kinds.append(Annotated[Any, named])
    union: Any = typing.Union
    return union[tuple(kinds)]


def _chooser(commands: Any) -> Callable[..., object]:
    """A function whose one parameter is any of `commands`, a union."""

    def choose(command: object) -> object:
        return command

    choose.__annotations__["command"] = commands
    return choose


def options_of(function: Callable[..., object]) -> dict[str, Any]:
    """{option: its annotation} of a function, those of dataclass parameters and constructors among them."""
    hints = typing.get_type_hints(function, include_extras=True)
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints.get(name, parameter.annotation)
        extras = getattr(kind, "__metadata__", ())
        bare = _bare(kind)
        given = next((e for e in extras if hasattr(e, "constructor_factory")), None)
        if given is not None and given.constructor_factory is not None:
            found |= options_of(given.constructor_factory())
        elif is_dataclass(bare) and isinstance(bare, type):
            found |= options_of(bare)
        else:
            found[(given.name if given is not None and given.name else name).replace("_", "-")] = kind
    return found


def _bare(kind: Any) -> Any:
    """The type inside Annotated."""
    return typing.get_args(kind)[0] if hasattr(kind, "__metadata__") else kind


def _from_assignments(arguments: list[str], options: Mapping[str, Any]) -> str:
    """The arguments with each name=value written as --name value; an empty string where there is none to rewrite."""
    words, rewritten, aliases = [], False, former_names(options)
    for word in arguments:
        name, equals, value = word.partition("=")
        name = aliases.get(name.replace("_", "-"), name)
        kind = options.get(name.replace("_", "-")) if equals else None
        if kind is None:
            words.append(word)
            continue
        rewritten, flag = True, "--" + name.replace("_", "-")
        if _bare(kind) is bool:
            words.append(flag if value in ("yes", "True", "true", "1") else "--no-" + flag[2:])
        elif typing.get_origin(_bare(kind)) is tuple:
            words += [flag, *value.split(",")]
        else:
            words += [flag, value]
    return " ".join(f'"{word}"' if " " in word or not word else word for word in words) if rewritten else ""


def _refuse_repeated(arguments: list[str], options: Mapping[str, Any]) -> None:
    """ValueError for an option that is given twice, unless it is repeatable: the first would be lost in silence."""
    appends = tyro.conf.UseAppendAction[int].__metadata__  # noqa: B009
    once = {name for name, kind in options.items() if not set(appends) & set(getattr(kind, "__metadata__", ()))}
    aliases = former_names(options)
    names = [word.partition("=")[0].replace("_", "-").lstrip("-").removeprefix("no-") for word in arguments]
    names = [aliases.get(name, name) for name in names]
    flags = [name for name, word in zip(names, arguments, strict=True) if word.startswith("--") and name in once]
    if twice := sorted({name for name in flags if flags.count(name) > 1}):
        raise ValueError(f"--{twice[0]} is given {flags.count(twice[0])} times: give it once")


def _explain(complaint: str, options: Mapping[str, Any]) -> str:
    """tyro's complaint on one line, with the nearest known option or value."""
    boxed = complaint.splitlines()[1:]  # the first line is the title of a box
    text = " ".join(re.sub(r"[│─╭╰╮╯]|--{2,}|^\s*[|+]|[|+]\s*$", " ", line) for line in boxed)
    text = re.sub(r"\s+", " ", text).strip()
    text = re.split(r" (?:Argument helptext:|For full helptext,|Perhaps you meant|Arguments similar to)", text)[0]
    if unknown := re.match(r"Unrecognized options: (.*)", text):
        words = unknown[1].split(", ")
        flags = [f"--{name}" for name in options]
        hints = [
            f"{word.partition('=')[0]}: {hint}"
            for word in words
            if word[:2] == "--" and (hint := nearest(word.partition("=")[0], flags))
        ]
        return f"unknown: {' '.join(words)}" + "".join(f"; {hint}" for hint in hints)
    if choice := re.match(r"invalid choice '(.*?)' for argument '(.*?)'. Expected one of \((.*?),?\)\.", text):
        known = sorted(word.strip("'") for word in choice[3].split(", ") if word != "'None'")
        near = nearest(choice[1], known)
        return f"{choice[2]} {choice[1]}: {f'{near} ' if near else ''}choose one of {', '.join(known)}"
    # what a dataclass says of its own fields: the parameter that holds it is no option
    return re.sub(r"^Error parsing (?!-)[\w.]+: ", "", text) or "cannot read the arguments"
