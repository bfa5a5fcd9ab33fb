"""The training stages of the open world: `maskgil train world codes --runs runs/world`.

A stage keeps its state in its folder `<runs>/<stage>`, and the same command resumes it. README.md beside this file
lists the stages, their order and their cost.
"""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tyro.conf import Positional

from maskgil.command_line import Command, run
from maskgil.fileio import write_json
from train.precision import chosen_precision
from train.world.thing_table import first_things

Stage = Literal["codes", "judge", "reading", "cache", "generator", "decoder", "model"]
# stage: (steps, scenes a batch); of the cache stage: (scenes, scenes a batch)
DEFAULTS = {
    "codes": (2000, 16), "judge": (4000, 32), "reading": (1500, 96), "cache": (60000, 32), "generator": (12000, 64),
    "decoder": (5000, 8),
}  # fmt: skip


@dataclass(frozen=True)
class StageOptions:
    """Options of the command."""

    stage: Positional[Stage]
    """codes, judge, reading, generator and decoder train a network; cache encodes scenes; model assembles a folder."""
    runs: Path = Path("runs/world")
    """The folder of the runs: each stage has a folder of its name in it."""
    drawings: Path = Path("cache/world/drawings.zip")
    """The packed drawings."""
    cache: Path = Path("cache/world/tokens")
    """The folder of cached tokens."""
    things: int = 240
    """Use the first so many things of the table."""
    steps: int = 0
    """Steps, or scenes of the cache stage. 0: the default of the stage."""
    batch: int = 0
    """Scenes in a batch. 0: the default of the stage."""
    init: str = "weights/scenes/tokenizer"
    """The tokenizer whose encoder the codes stage is initialized from; "": none."""
    threads: int = 2
    """Threads of PyTorch."""
    stop_at: int | None = None
    """Stop and save after this step."""
    precision: Literal["auto", "bf16", "no"] = "auto"
    """auto: bfloat16 where the device multiplies it faster than float32."""


def assemble_model(runs: Path, things: int) -> Path:
    """Assemble the exports as the model folder `<runs>/model`, and return it. ValueError where one is missing."""
    from train.world.drawing_stages import PICTURE_CELL
    from train.world.phrases import world_vocabulary

    generator = runs / "generator" / "export"
    parts = {"generator": generator / "generator", "text_encoder": generator / "text_encoder",
             "tokenizer": runs / "decoder" / "export"}  # fmt: skip
    if missing := [str(folder) for folder in parts.values() if not (folder / "config.json").is_file()]:
        raise ValueError(f"{', '.join(missing)} is not there yet: run the stages before this one")
    for name, folder in parts.items():
        shutil.copytree(folder, runs / "model" / name, dirs_exist_ok=True)
    write_json(runs / "model" / "vocabulary.json", world_vocabulary(first_things(things), PICTURE_CELL))
    return runs / "model"


def stage_recipe(options: StageOptions):
    """The recipe of a stage that trains."""
    from train.world.code_stage import code_recipe
    from train.world.drawing_stages import decoder_recipe, generator_recipe
    from train.world.reading_stage import reading_recipe
    from train.world.world_judge import judge_recipe

    steps, batch = DEFAULTS[options.stage]
    common = (str(options.drawings), options.things, options.steps or steps, options.batch or batch,
              chosen_precision(options.precision))  # fmt: skip
    runs = options.runs
    recipes: dict[str, Callable] = {
        "codes": lambda: code_recipe(*common, init=options.init),
        "judge": lambda: judge_recipe(*common),
        "reading": lambda: reading_recipe(*common, runs / "vocabulary"),
        "generator": lambda: generator_recipe(
            *common, runs / "codes" / "export", runs / "reading" / "export", options.cache
        ),
        "decoder": lambda: decoder_recipe(*common, runs / "codes" / "export", options.cache),
    }
    return recipes[options.stage]()


def run_stage(options: StageOptions) -> None:
    """Train one stage of the open world, encode its scenes, or assemble its model folder.

    Raises ValueError where the export or the cache of an earlier stage is missing.
    """
    torch.set_num_threads(options.threads)
    if options.stage == "model":
        assemble_model(options.runs, options.things)
        return
    if options.stage == "cache":
        from train.world.world_cache import write_cache

        total, batch = DEFAULTS["cache"]
        codes = options.runs / "codes" / "export"
        write_cache(codes, str(options.drawings), options.things, options.cache, options.steps or total,
                    options.batch or batch)  # fmt: skip
        return
    from train.trainer import train

    train(stage_recipe(options), options.runs / options.stage, stop_at=options.stop_at)


if __name__ == "__main__":  # the former name of the command
    sys.exit(run(Command("", lambda: run_stage), "maskgil train world"))
