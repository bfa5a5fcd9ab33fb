"""The stages of the open world: python -m train.world.world_stages codes --runs runs/world

Each stage goes on from the state in its folder `<runs>/<stage>`; the same command resumes it. README.md beside this
file lists the stages, their order and their cost.
"""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from train.precision import chosen_precision
from train.world.thing_table import first_things

Stage = Literal["codes", "judge", "reading", "cache", "generator", "decoder", "model"]
# stage: (steps, scenes a batch); of the cache: scenes in all
DEFAULTS = {
    "codes": (2000, 16), "judge": (4000, 32), "reading": (1500, 96), "cache": (60000, 32), "generator": (12000, 64),
    "decoder": (5000, 8),
}  # fmt: skip


@dataclass(frozen=True)
class StageOptions:
    """One stage of the open world's training."""

    stage: tyro.conf.Positional[Stage]
    runs: Path = Path("runs/world")  # a folder a stage
    drawings: Path = Path("cache/world/drawings.zip")
    cache: Path = Path("cache/world/tokens")
    things: int = 240  # the first so many of the table
    steps: int = 0  # 0: the stage's own number; of the cache: scenes
    batch: int = 0
    init: str = "weights/scenes/tokenizer"  # of codes: the tokenizer whose encoder to begin as; "": none
    threads: int = 2
    stop_at: int | None = None  # end early at this step, state saved
    precision: Literal["auto", "bf16", "no"] = "auto"  # auto: bf16 where processor or GPU multiplies it fast


def assemble_model(runs: Path, things: int) -> Path:
    """Put the exports together as a model folder, `<runs>/model`, and return it. ValueError when one is missing."""
    from train.world.drawing_stages import PICTURE_CELL
    from train.world.phrases import world_vocabulary

    generator = runs / "generator" / "export"
    parts = {"generator": generator / "generator", "text_encoder": generator / "text_encoder",
             "tokenizer": runs / "decoder" / "export"}  # fmt: skip
    if missing := [str(folder) for folder in parts.values() if not (folder / "config.json").is_file()]:
        raise ValueError(f"{', '.join(missing)} is not there yet: run the stages before this one")
    for name, folder in parts.items():
        shutil.copytree(folder, runs / "model" / name, dirs_exist_ok=True)
    vocabulary = json.dumps(world_vocabulary(first_things(things), PICTURE_CELL), indent=1, ensure_ascii=False)
    (runs / "model" / "vocabulary.json").write_text(vocabulary + "\n", encoding="utf-8")
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
    """Train a stage up to its last step or to `stop_at`, or fill the cache."""
    torch.set_num_threads(options.threads)
    if options.stage == "model":
        assemble_model(options.runs, options.things)
        return
    if options.stage == "cache":
        from train.world.token_cache import write_cache

        total, batch = DEFAULTS["cache"]
        codes = options.runs / "codes" / "export"
        write_cache(codes, str(options.drawings), options.things, options.cache, options.steps or total,
                    options.batch or batch)  # fmt: skip
        return
    from train.trainer import train

    train(stage_recipe(options), options.runs / options.stage, stop_at=options.stop_at)


if __name__ == "__main__":
    try:
        run_stage(tyro.cli(StageOptions))
    except ValueError as error:
        print(f"world_stages: {error}", file=sys.stderr)
        sys.exit(2)
