"""Quality and cost of sampling settings: `maskgil eval sampling --pictures 320 --out sampling.json`.

A grid of steps, guidance scales and intervals, refinement passes and orders. Every cell draws the same scenes with the
same seeds: combinations that training shows, in other scenes than those of `maskgil eval scenes`, so that no default is
chosen on the scenes of a printed score. For each cell: the share of pictures that the judge finds right, the paired
loss against the baseline, and the cost of a picture: rows through the trunk, counted on the module, and CPU seconds.

The results are kept in a JSON file after every batch. A run that was cut off goes on there, and a larger grid or more
pictures add to it.
"""

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import nn
from tyro.conf import arg

import text_encoder
from maskgil import checkpoint
from maskgil.fileio import atomic_write, write_json
from maskgil.params import SAMPLERS, SamplingParams, nearest_choice, options, read_params
from maskgil.pipeline import TextToImage
from maskgil.sampling_flags import given_options, sampling_flags
from train.eval.paired_scores import Estimate, paired_loss, share_right
from train.eval.scatter_chart import Dot, scatter_chart
from train.eval.scene_score import KINDS, SIDE, asked_scene, scene_size
from train.scenes.captions import caption
from train.scenes.judge import SceneJudge, in_scene_size, verdict
from train.scenes.scene import Scene
from train.scenes.sprites import things

SCORED_KINDS = tuple(kind for kind in KINDS if kind != "silhouette")  # those of the scene score
SEED = 60_000  # of the first picture
AXES = ("steps", "guidance_scale", "guidance_interval", "refinement_passes", "order")


@dataclass(frozen=True)
class AskedPicture:
    """A scene of one kind, the caption that asks for it, and the seed that it is drawn with."""

    kind: str
    scene: Scene
    caption: str
    seed: int


@dataclass
class GridCell:
    """Measurements of one setting so far: whether each picture is right, trunk rows and CPU seconds of all."""

    params: SamplingParams
    right: list[bool] = field(default_factory=list)
    rows: int = 0
    cpu_seconds: float = 0.0

    @property
    def evaluations(self) -> float:
        """Rows through the trunk a picture."""
        return self.rows / max(1, len(self.right))

    @property
    def label(self) -> str:
        """The setting in words."""
        params = self.params
        low, high = params.guidance_interval
        guided = f"guidance {params.guidance_scale:g} from {low:g} to {high:g}"
        passes = f"{params.refinement_passes} passes" if params.refinement_passes != 1 else "1 pass"
        return f"{params.steps} steps, {guided if params.guidance_scale != 1 else 'no guidance'}, {passes}"


def training_pictures(n: int) -> list[AskedPicture]:
    """The first n of an endless list, in which the kinds take turns."""
    asked = []
    for i in range(n):
        rng, kind = np.random.default_rng([778_899, i]), SCORED_KINDS[i % len(SCORED_KINDS)]
        scene = asked_scene(kind, False, rng, things())
        asked.append(AskedPicture(kind, scene, caption(scene, rng), SEED + i))
    return asked


@contextmanager
def counted_rows(*models: nn.Module | None) -> Iterator[list[int]]:
    """Counts the rows that pass the first block of these models, in the only item of the list that it gives."""
    count = [0]

    def add(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        count[0] += len(inputs[0])

    handles = [first_block(model).register_forward_pre_hook(add) for model in models if model is not None]
    try:
        yield count
    finally:
        for handle in handles:
            handle.remove()


def first_block(model: nn.Module) -> nn.Module:
    """The block that every evaluation of a generator passes once. ValueError for a model without blocks in a list."""
    for name in ("layers", "decoder_blocks", "transformer_blocks"):
        blocks = getattr(model, name, None)
        if isinstance(blocks, nn.ModuleList) and len(blocks):
            return blocks[0]
    raise ValueError(f"evaluations of a {type(model).__name__} cannot be counted: it has no list of blocks")


@dataclass(frozen=True)
class GridAxes:
    """The values that are combined."""

    steps: tuple[int, ...] = (1, 2, 4, 6, 8, 12, 16)
    """Numbers of steps."""
    scales: tuple[float, ...] = (1.0, 2.0)
    """Guidance scales; 1 is off."""
    intervals: tuple[str, ...] = ("0.1-1", "0.1-0.5")
    """Guidance intervals, LOW-HIGH in plan time, which runs from 1 to 0."""
    passes: tuple[int, ...] = (0, 1, 2)
    """Numbers of refinement passes."""
    orders: tuple[str, ...] = ("confidence",)
    """Decoding orders."""

    def cells(self, base: SamplingParams) -> list[SamplingParams]:
        """Every combination once; a scale of 1 has no interval. Raises ValueError for what is out of bounds."""
        intervals = [_interval(text) for text in self.intervals]
        found: dict[str, SamplingParams] = {}
        for count, scale, interval, passes, order in itertools.product(
            self.steps, self.scales, intervals, self.passes, self.orders
        ):
            values = dict(zip(AXES, (count, scale, (0.0, 1.0) if scale == 1 else interval, passes, order), strict=True))
            params = read_params(base.to_dict() | values)
            found.setdefault(_key(params), params)
        return list(found.values())


@dataclass(frozen=True)
class Comparison:
    """How the cells are compared."""

    pictures: int = 320
    """Pictures of each cell."""
    batch: int = 16
    """Pictures that are drawn at once."""
    baseline: str = "guided"
    """The preset that losses are measured against."""
    margin: float = 2.0
    """Points that the cheapest setting may lose, by the upper end of its interval."""

    def __post_init__(self) -> None:
        if self.pictures < 1 or self.batch < 1:
            raise ValueError(f"{self.pictures} pictures in batches of {self.batch}: give at least 1 of each")
        if self.baseline not in SAMPLERS:
            raise ValueError(f"baseline is {self.baseline!r}: {nearest_choice(self.baseline, SAMPLERS)}")


def _interval(text: str) -> tuple[float, float]:
    low, dash, high = text.partition("-")
    try:
        return float(low), float(high)
    except ValueError:
        raise ValueError(f"the guidance interval {text!r} cannot be read: write LOW-HIGH, such as 0.1-0.5") from None


def _key(params: SamplingParams) -> str:
    """The setting as text: equal for equal settings."""
    return json.dumps(params.to_dict(), sort_keys=True)


class GridFile:
    """The cells of a grid and the JSON file that keeps them. `about`: what they were measured on."""

    def __init__(self, path: Path, about: dict[str, Any]):
        """Reads the file where there is one. ValueError for a file of something else, or of another model or judge."""
        self.path, self.about, self.cells = path, about, {}
        if not path.is_file():
            return
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            if held["about"] != about:
                raise ValueError(f"it was measured on {held['about']}, now it is {about}")
            known = options()
            for entry in held["cells"]:
                params = read_params({name: value for name, value in entry["params"].items() if name in known})
                right = [letter == "1" for letter in entry["right"]]
                self.cells[_key(params)] = GridCell(params, right, int(entry["rows"]), float(entry["cpu_seconds"]))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} cannot be continued: {error}; give another file, or delete it") from None

    def cell(self, params: SamplingParams) -> GridCell:
        """The measurements of a setting, perhaps none yet."""
        return self.cells.setdefault(_key(params), GridCell(params))

    def write(self) -> None:
        """Write all cells, whole or not at all."""
        cells = [
            {
                "params": cell.params.to_dict(),
                "right": "".join("01"[right] for right in cell.right),
                "rows": cell.rows,
                "cpu_seconds": round(cell.cpu_seconds, 3),
            }
            for cell in self.cells.values()
        ]
        write_json(self.path, {"about": self.about, "cells": cells})


@torch.no_grad()
def measure_cell(model: TextToImage, judge: SceneJudge, cell: GridCell, asked: Sequence[AskedPicture]) -> None:
    """Draw and judge these pictures, and add them to the cell."""
    size = scene_size(model)
    ar_model = model.ar_model if cell.params.mode != "masked" else None
    generator: Any = model.generator
    with counted_rows(generator, ar_model) as count:
        since = time.process_time()
        *_, last = model.draw([each.caption for each in asked], [each.seed for each in asked], size, cell.params)
        pixels = model.pixels(last.canvas)
        cell.cpu_seconds += time.process_time() - since
    cell.rows += count[0]
    for each, seen in zip(asked, judge.read(in_scene_size(pixels, SIDE)), strict=True):
        kept = verdict(each.scene, seen)
        cell.right.append(all(kept[check] for check in KINDS[each.kind]))


def grid_table(baseline: GridCell, cells: Sequence[GridCell], pictures: int) -> str:
    """Markdown: a row for each cell, the cheapest first."""
    lines = [
        "| steps | guidance | interval | refinement | order | evaluations | right, % | loss, points | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in sorted(cells, key=lambda cell: (cell.evaluations, cell.params.steps)):
        params = cell.params
        interval = "" if params.guidance_scale == 1 else "{:g} to {:g}".format(*params.guidance_interval)
        scale = "off" if params.guidance_scale == 1 else f"{params.guidance_scale:g}"
        loss = "baseline" if cell is baseline else str(paired_loss(baseline.right[:pictures], cell.right[:pictures]))
        lines.append(
            f"| {params.steps} | {scale} | {interval} | {params.refinement_passes} | {params.order} "
            f"| {cell.evaluations:g} | {share_right(cell.right[:pictures])} | {loss} "
            f"| {cell.cpu_seconds / len(cell.right):.3f} |"
        )
    return "\n".join(lines)


def cheapest_cell(
    baseline: GridCell, cells: Sequence[GridCell], pictures: int, margin: float
) -> tuple[GridCell, Estimate] | None:
    """The cell of the fewest evaluations whose loss is at most `margin` points by the upper end of its interval, and
    its loss; the one that loses least where several cost as little. None when there is none."""
    losses = [(cell, paired_loss(baseline.right[:pictures], cell.right[:pictures])) for cell in cells]
    fit = [(cell, loss) for cell, loss in losses if loss.high <= margin and cell is not baseline]
    return min(fit, key=lambda found: (found[0].evaluations, found[1].value), default=None)


def grid_chart(baseline: GridCell, cells: Sequence[GridCell], pictures: int, title: str) -> str:
    """An SVG: the share right against the evaluations, a colour for each way to guide and refine."""
    dots = []
    for cell in cells:
        share = share_right(cell.right[:pictures])
        series = "baseline" if cell is baseline else cell.label.partition(", ")[2]
        dots.append(Dot(series, cell.evaluations, share.value, share.low, share.high, str(cell.params.steps)))
    return scatter_chart(dots, title, "evaluations a picture", "pictures that are right, %")


FixedOptions = sampling_flags(without=(*AXES, "candidates"))


def evaluate_sampling(
    model: str = "scenes",
    reader: str = "scenes-reader",
    axes: Annotated[GridAxes, arg(name="")] = GridAxes(),  # noqa: B008
    compare: Annotated[Comparison, arg(name="")] = Comparison(),  # noqa: B008
    out: Path = Path("sampling.json"),
    plot: Path | None = None,
    sampler: Annotated[FixedOptions, arg(name="")] = FixedOptions(),  # noqa: B008
) -> None:
    """Score every combination of steps, guidance and refinement on the same scenes of training, with 95% intervals.

    An evaluation is a row through the trunk: guided steps, scoring and the autoregressive model count as they run.

    Args:
        model: A model folder, or a bundled name.
        reader: The judge's folder.
        out: The JSON file of results. One that is there is continued.
        plot: An SVG file for a chart.
    """
    wanted = axes.cells(read_params(given_options(sampler)))
    draws, judge = (
        TextToImage.load(model, text_encoder.load),
        checkpoint.load(checkpoint.resolve(reader), "reader").eval(),
    )
    generator: Any = draws.generator
    about = {
        "model": model,
        "generator": checkpoint.fingerprint(dict(generator.state_dict())),
        "reader": checkpoint.fingerprint(dict(judge.state_dict())),
        "size": list(scene_size(draws)),
    }
    file, pictures = GridFile(out, about), compare.pictures
    asked, against = training_pictures(pictures), file.cell(SAMPLERS[compare.baseline])
    cells = [against, *(cell for params in wanted if (cell := file.cell(params)) is not against)]
    for number, cell in enumerate(cells, 1):
        while (done := len(cell.right)) < pictures:
            measure_cell(draws, judge, cell, asked[done : done + compare.batch])
            file.write()
        print(f"{number} of {len(cells)}: {cell.label}, {cell.params.order}", flush=True)
    title = f"{model}: {pictures} pictures a cell, {about['size'][0]}x{about['size'][1]}, baseline {compare.baseline}"
    print(f"\n{title}, {torch.get_num_threads()} threads, batches of {compare.batch}")
    print(grid_table(against, cells, pictures))
    if (found := cheapest_cell(against, cells, pictures, compare.margin)) is None:
        print(f"\nNo cell surely loses at most {compare.margin:g} points: ask for more pictures or other settings.")
    else:
        loss = f"surely at most {compare.margin:g} points: {found[0].label}: {found[1]}"
        print(f"\nFewest evaluations with a loss of {loss}")
    if plot is not None:
        with atomic_write(plot) as partial:
            partial.write_text(grid_chart(against, cells, pictures, title), encoding="utf-8")
        print(f"chart: {plot}")
