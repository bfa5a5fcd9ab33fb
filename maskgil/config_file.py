"""Options of a command from a TOML file: `--config run.toml`; what the command line says counts before the file.

steps = 5000
lr = 1e-3
data = "cache/holiday"
compile = true
"""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

CONFIG, COMMAND = "config", "recipe"  # the option's name; the key that names the command itself

# Former name of a recipe: its name now. Commands, config.toml and run.json of before have the former ones.
LEGACY_RECIPES = {"scenes-naming": "scenes-cell-classifier", "scenes-observer": "scenes-perceptual-net"}


def read_option_file(path: Path) -> dict[str, Any]:
    """The file's options, with dashes for underscores. ValueError for a file that is missing, broken or has tables."""
    try:
        held = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"--config {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"--config {path} is no TOML: {error}") from None
    if tables := [name for name, value in held.items() if isinstance(value, dict)]:
        raise ValueError(f"--config {path} has a table [{tables[0]}]: write options as name = value, without tables")
    return {name.replace("_", "-"): value for name, value in held.items()}


def config_path(arguments: list[str]) -> Path | None:
    """The file that `--config` names among the arguments."""
    for number, word in enumerate(arguments):
        if word == f"--{CONFIG}" and number + 1 < len(arguments):
            return Path(arguments[number + 1])
        if word.startswith(f"--{CONFIG}="):
            return Path(word.partition("=")[2])
    return None


def former_names(options: Mapping[str, Any]) -> dict[str, str]:
    """{alias: option} of the options, {option: its annotation}, that tyro also takes by another name."""
    return {
        alias.lstrip("-"): name
        for name, kind in options.items()
        for extra in getattr(kind, "__metadata__", ())
        for alias in getattr(extra, "aliases", None) or ()
    }


def given(arguments: list[str]) -> set[str]:
    """Names of the options among the arguments, as they are written there."""
    flags = [word.partition("=")[0][2:].replace("_", "-") for word in arguments if word.startswith("--")]
    return {name for flag in flags for name in (flag, flag.removeprefix("no-"))}


def with_config(arguments: list[str], options: Mapping[str, Any], command: str) -> list[str]:
    """The arguments with the file's options in front of those that are given. `command`: the one that is run.

    ValueError for an option that the command does not have, and for a file of another command. The file may use former
    names of options (tyro's aliases) and of recipes (LEGACY_RECIPES).
    """
    if CONFIG not in options or (path := config_path(arguments)) is None:
        return arguments
    aliases = former_names(options)
    held = {aliases.get(name, name): value for name, value in read_option_file(path).items()}
    other = held.pop(COMMAND, command)
    if not isinstance(other, str) or LEGACY_RECIPES.get(other, other) != LEGACY_RECIPES.get(command, command):
        raise ValueError(f"--config {path} is for {other}: this is {command}")
    if strange := sorted(held.keys() - (options.keys() - {CONFIG})):
        raise ValueError(f"--config {path}: {command} has no option {strange[0]!r} ({command} --help lists them)")
    words: list[str] = []
    for name in held.keys() - {aliases.get(name, name) for name in given(arguments)}:
        words += _words(name, held[name], options[name], path)
    return words + arguments


def _words(name: str, value: Any, kind: Any, path: Path) -> list[str]:
    if isinstance(value, bool):
        choices = get_args(get_args(kind)[0]) if get_origin(kind) is Annotated else get_args(kind)
        if {"yes", "no"} <= set(choices):  # what was true or false before there was a third choice
            return [f"--{name}={'yes' if value else 'no'}"]
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, list):
        return [f"--{name}", *map(str, value)]
    if not isinstance(value, str | int | float):
        raise ValueError(f"--config {path}: {name} is {value!r}: give a text, a number, true or false, or a list")
    return [f"--{name}={value}"]


def to_toml(values: Mapping[str, Any]) -> str:
    """Texts, numbers, truth values and lists of them as TOML; what is None is left out."""
    lines = []
    for name, value in values.items():
        if value is None:
            continue
        key = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
        lines.append(f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value) if isinstance(value, int | float) else json.dumps(str(value), ensure_ascii=False)
