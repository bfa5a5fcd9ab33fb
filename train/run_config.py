"""Writes run.json (command, options and versions of a run, and their changes when it is resumed) and config.toml (all
its options, as `--config` reads them)."""

import importlib.metadata
import json
import platform
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from maskgil.config_file import to_toml
from maskgil.fileio import atomic_write, write_json
from train.recipe import Recipe
from train.run_state import writing

FILE, CONFIG_FILE = "run.json", "config.toml"
PACKAGES = ("torch", "transformers", "safetensors", "accelerate")


def run_config(recipe: Recipe, world: int) -> dict[str, Any]:
    """The content of run.json: how a run was started."""
    options = {
        "steps": recipe.steps,
        "seed": recipe.seed,
        "batches a step": recipe.batches or recipe.accumulate * world,
        "ema": recipe.ema,
        "shard": recipe.shard,
    }
    for number, part in enumerate(recipe.modules):
        prefix = f"module {number}: " if len(recipe.modules) > 1 else ""
        options |= {f"{prefix}{name}": value for name, value in asdict(part.optim).items()}
    held = {
        "recipe": recipe.name,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "options": options | recipe.options,
        "data": recipe.provenance,
        "processes": world,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    return json.loads(json.dumps(held, default=str))


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Options and versions that differ, as `name old -> new`."""
    lines = []
    for part in ("options", "versions"):
        old, new = before.get(part, {}), now[part]
        lines += [f"{name} {old[name]} -> {new[name]}" for name in new if name in old and old[name] != new[name]]
    return lines


def note_config(recipe: Recipe, out: Path, world: int, step: int, say: Callable[[str], None]) -> None:
    """Write run.json and print what a resumed run has changed. Earlier commands are kept in `history`."""
    now, path = run_config(recipe, world), out / FILE
    history = []
    if step and path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        history = before.pop("history", [])
        if differences := changes(before, now):
            say(f"{recipe.name}: changed since the run was begun: {', '.join(differences)}")
        if before != now:
            history.append(before | {"until": step})
    with writing(out):
        write_json(path, now | {"history": history})
    if recipe.chosen:
        with writing(out), atomic_write(out / CONFIG_FILE) as partial:
            partial.write_text(to_toml(recipe.chosen), encoding="utf-8")
