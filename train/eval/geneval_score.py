"""GenEval with the judge of scenes: `maskgil eval geneval [--limit N] [--samples N]`.

The 553 prompts of GenEval (Ghosh et al. 2023, arXiv 2310.11513) lie in prompts/geneval.tsv: the task, the things with
their number and color, and the relation of the first thing to the second. GenEval looks at photographs with an object
detector; here the judge that reads drawn scenes looks (train/scenes/judge.py), by GenEval's rules: every thing that is
asked for is found in its color, a number is exact, and the offset of the centers decides where a thing stands.

A prompt that the model's reader refuses, or of which it replaces or leaves out a word, counts as wrong.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated

import torch
from tyro.conf import arg

import text_encoder
from maskgil import checkpoint
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from text_encoder.prompt_reader.fitted_scene import NUMBER_WORDS
from train.eval.caption_reading import encoded_caption, reader_of, reading_shares
from train.eval.paired_scores import share_right
from train.eval.reading import PROMPTS
from train.eval.sample_images import SamplerOptions
from train.eval.scene_score import BATCH, SIDE, scene_size
from train.scenes.judge import DetectedThing, SceneDetection, SceneJudge, in_scene_size
from train.scenes.scene import COLOURS, PLAIN, paints
from train.scenes.sprites import things
from train.world.world_scores import position_holds

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")


@dataclass(frozen=True)
class AskedThing:
    """A thing of a prompt; `color` is empty where none is asked for."""

    name: str
    count: int = 1
    color: str = ""

    @property
    def phrase(self) -> str:
        """The thing as the prompt says it."""
        if self.count > 1:
            ending = "es" if self.name.endswith("s") else "s"  # "sheeps", as GenEval writes
            return f"{NUMBER_WORDS[self.count]} {self.name}{ending}"
        words = f"{self.color} {self.name}".strip()
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


@dataclass(frozen=True)
class GenevalPrompt:
    """A prompt of GenEval. `relation`: where the first thing stands beside the second, or empty."""

    task: str
    things: tuple[AskedThing, ...]
    relation: str = ""

    @property
    def prompt(self) -> str:
        """The prompt's text, as GenEval writes it."""
        joined = f" {self.relation or 'and'} ".join(thing.phrase for thing in self.things)
        return f"a photo of {joined}"


def load_geneval() -> list[GenevalPrompt]:
    """The 553 prompts in GenEval's order."""
    with (PROMPTS / "geneval.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [
        GenevalPrompt(row["task"], tuple(map(_thing, filter(None, (row["first"], row["second"])))), row["relation"])
        for row in rows
    ]


def _thing(text: str) -> AskedThing:
    first, _, rest = text.partition(" ")
    if first.isdigit():
        return AskedThing(rest, count=int(first))
    return AskedThing(rest, color=first) if first in COLOURS and rest else AskedThing(text)


@cache
def _indices() -> dict[str, int]:
    """Names and synonyms of things -> their place in the table."""
    found = {synonym: thing.index for thing in reversed(things()) for synonym in thing.synonyms}
    return found | {thing.name: thing.index for thing in things()}


def is_right(asked: GenevalPrompt, seen: SceneDetection) -> bool:
    """GenEval's verdict on what the judge sees."""
    matched = [[item for item in seen.items if _matches(thing, item)] for thing in asked.things]
    if any(len(found) < thing.count for thing, found in zip(asked.things, matched, strict=True)):
        return False
    if asked.task == "counting" and len(matched[0]) != asked.things[0].count:
        return False
    return not asked.relation or any(_stands(asked.relation, a, b) for a in matched[0] for b in matched[1])


def _matches(asked: AskedThing, item: DetectedThing) -> bool:
    if item.thing != _indices().get(asked.name):
        return False
    own = asked.color and asked.color not in paints(things()[item.thing], PLAIN)  # "a red apple" keeps its own color
    return not asked.color or item.colour == asked.color or bool(own and not item.colour)


def _stands(relation: str, a: DetectedThing, b: DetectedThing) -> bool:
    """Whether a stands there beside b."""
    return position_holds(relation, a.x - b.x, a.y - b.y, a.size + b.size)


@torch.no_grad()
def geneval(
    model: str = "scenes",
    reader: str = "scenes-reader",
    limit: int = 0,
    samples: int = 4,
    steps: int | None = None,
    sampler: Annotated[SamplerOptions, arg(name="")] = SamplerOptions(),  # noqa: B008
) -> None:
    """Print GenEval's scores of a model of scenes, task by task, by the judge of scenes.

    Args:
        model: A model of scenes: a bundled name or a folder.
        reader: The judge's folder.
        limit: So many prompts, spread evenly over all 553. 0: all.
        samples: Pictures of each prompt. GenEval draws 4.
        steps: Steps of each drawing. Left out: the model's default.
    """
    prompts = load_geneval()
    if not 0 <= limit <= len(prompts):
        raise ValueError(f"--limit is {limit}: give 1 to {len(prompts)} prompts, or 0 for all")
    if samples < 1:
        raise ValueError(f"--samples is {samples}: give the number of pictures for each prompt, GenEval draws 4")
    chosen = [prompts[i * len(prompts) // limit] for i in range(limit)] if limit else prompts
    prompt_reader = reader_of(model)
    readings = [prompt_reader.read(asked.prompt) for asked in chosen]
    print(reading_shares(readings))
    drawable = [asked for asked, reading in zip(chosen, readings, strict=True) if reading.is_as_said]
    others = [asked for asked, reading in zip(chosen, readings, strict=True) if not reading.is_as_said]
    captions = [encoded_caption(prompt_reader, asked.prompt) for asked in drawable]
    judge = checkpoint.load(checkpoint.resolve(reader), "reader").eval()
    settings = sampler.params(steps, model)
    painter = TextToImage.load(model, text_encoder.load)
    verdicts = [(asked.task, False) for asked in others for _ in range(samples)]
    print(f"{model}, {settings.steps} steps{sampler}, {samples} pictures a prompt")
    for asked, seen in _judged(painter, judge, drawable, captions, samples, settings):
        verdicts.append((asked.task, is_right(asked, seen)))
    _print_table(verdicts)


def _judged(
    painter: TextToImage, judge: SceneJudge, drawable: list[GenevalPrompt], captions: list[str], samples: int,
    settings: SamplingParams,
) -> Iterator[tuple[GenevalPrompt, SceneDetection]]:  # fmt: skip
    """(prompt, what the judge sees) of every picture; the seeds of a prompt's pictures are its own."""
    jobs = [(number, copy) for number in range(len(drawable)) for copy in range(samples)]
    together = max(1, BATCH // settings.candidates)
    for start in range(0, len(jobs), together):
        part = jobs[start : start + together]
        seeds = [(copy << 32) + number for number, copy in part]
        *_, last = painter.draw([captions[number] for number, _ in part], seeds, scene_size(painter), settings)
        detections = judge.read(in_scene_size(painter.pixels(last.canvas), SIDE))
        for (number, _), seen in zip(part, detections, strict=True):
            yield drawable[number], seen


def _print_table(verdicts: list[tuple[str, bool]]) -> None:
    """The share of right pictures of each task with its 95% interval, and the mean of the tasks."""
    print("| task | pictures | right, % (95% interval) |")
    print("|---|---|---|")
    scores = []
    for task in TASKS:
        if right := [is_right for of, is_right in verdicts if of == task]:
            scores.append(share_right(right))
            print(f"| {task} | {len(right):,} | {scores[-1]} |")
    print(f"| **overall** | {len(verdicts):,} | **{sum(score.value for score in scores) / len(scores):.1f}** |")
