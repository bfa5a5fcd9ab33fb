"""Quality and cost of remasking: `maskgil eval remasking --model scenes --n 20 --steps 8`.

Sentences that grow as they would while one speaks: "a cat", "a cat on the beach", "two cats on the beach", "two cats on
the beach in pixel art". Each picture is drawn afresh, and remasked from the remasked picture of the sentence before.
For every growth: the share of tokens that the new words leave, the share of tokens that look as before (of a picture
drawn afresh with the same seed too), the reader's verdict, evaluations of the model and seconds a picture.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

import text_encoder
from maskgil import checkpoint
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.sampling.loop import sample
from maskgil.sampling.remasking import MARGIN, NUM_MASKINGS, remask_changed, remask_plan
from maskgil.sampling.token_grid import TokenGrid
from train.eval.scene_score import SIDE, scene_size
from train.scenes.captions import PLACE_PHRASES, STYLE_AFTER, article
from train.scenes.judge import SceneJudge, in_scene_size, verdict
from train.scenes.scene import PLACES, PLAIN, Scene, arrange, is_held_out
from train.scenes.sprites import things

# The change of each sentence, and what the judge must find.
GROWTHS = {
    "a thing": ("objects",),
    "+ a place": ("objects", "background"),
    "two of it": ("objects", "background"),
    "+ a style": ("objects", "background", "style"),
}


@dataclass(frozen=True)
class DrawResult:
    """A picture: what it cost in evaluations and seconds, and the share of the tokens before it that were kept."""

    canvas: TokenGrid
    nfe: int
    seconds: float
    kept: float = 0.0


@dataclass(frozen=True)
class GrowthResult:
    """One way to draw one sentence, over all chains; shares in percent. `same`: tokens as in the picture before."""

    right: float
    same: float
    kept: float
    nfe: float
    seconds: float


def chains(n: int) -> list[list[tuple[Scene, str]]]:
    """n chains of (scene, caption), one for each of GROWTHS; combinations that training shows, the same each time."""
    rng, table, out = np.random.default_rng(778), things(), []
    while len(out) < n:
        thing, place = table[rng.integers(len(table))], str(rng.choice(PLACES))
        style = str(rng.choice(["flat", "pixel art"]))
        where, after = PLACE_PHRASES[place][0], STYLE_AFTER[style][0]
        asked = [
            (1, PLAIN, "3d", article(thing.name)),
            (1, place, "3d", f"{article(thing.name)} {where}"),
            (2, place, "3d", f"two {thing.plural} {where}"),
            (2, place, style, f"two {thing.plural} {where} {after}"),
        ]
        chain = [
            (arrange([(thing, count, "")], SIDE, SIDE, background, how, "", rng), text)
            for count, background, how, text in asked
        ]
        if not any(is_held_out(scene) for scene, _ in chain):
            out.append(chain)
    return out


def afresh(model: TextToImage, text: str, seed: int, settings: SamplingParams) -> DrawResult:
    since = time.perf_counter()
    *_, last = model.draw([text], [seed], scene_size(model), settings)
    return DrawResult(last.canvas, last.nfe, time.perf_counter() - since)


@torch.no_grad()
def remasked(
    model: TextToImage,
    before: TokenGrid,
    old: str,
    new: str,
    seed: int,
    settings: SamplingParams,
    masks: int,
    margin: float,
) -> DrawResult:
    since = time.perf_counter()
    text = model.condition([new])
    changed = remask_changed(model.generator, before, model.condition([old]), text, [seed], masks, margin)
    steps = remask_plan(model, changed, [seed], settings)
    *_, canvas = [changed.canvas, *sample(model.sampler(text), changed.canvas, steps)]
    nfe = changed.nfe + sum(int(step.nfe[0]) for step in steps)
    return DrawResult(canvas, nfe, time.perf_counter() - since, float(changed.kept))


def measure_remasking(
    model: TextToImage,
    reader: SceneJudge,
    asked: Sequence[list[tuple[Scene, str]]],
    settings: SamplingParams,
    masks: int = NUM_MASKINGS,
    margin: float = MARGIN,
) -> Iterator[tuple[str, GrowthResult, GrowthResult]]:
    """(growth, remasked, afresh) for each of GROWTHS. The first sentence has nothing to start from."""
    before: list[tuple[DrawResult, DrawResult]] = []
    for number, (growth, checks) in enumerate(GROWTHS.items()):
        pairs = []
        for seed, chain in enumerate(asked):
            fresh = afresh(model, chain[number][1], seed, settings)
            ours = fresh
            if number:
                old, new = chain[number - 1][1], chain[number][1]
                ours = remasked(model, before[seed][0].canvas, old, new, seed, settings, masks, margin)
            pairs.append((ours, fresh))
        scenes = [chain[number][0] for chain in asked]
        ways = [_grown(model, reader, [p[i] for p in pairs], [p[i] for p in before], scenes, checks) for i in (0, 1)]
        yield growth, *ways
        before = pairs


def _grown(
    model: TextToImage,
    reader: SceneJudge,
    now: Sequence[DrawResult],
    before: Sequence[DrawResult],
    scenes: Sequence[Scene],
    checks: Sequence[str],
) -> GrowthResult:
    seen = reader.read(in_scene_size(torch.cat([model.pixels(drawn.canvas) for drawn in now]), SIDE))
    right = [all(verdict(scene, found)[check] for check in checks) for scene, found in zip(scenes, seen, strict=True)]
    same = [
        float((_codes(model, a.canvas) == _codes(model, b.canvas)).float().mean())
        for a, b in zip(now, before, strict=False)
    ]
    return GrowthResult(
        right=100 * float(np.mean(right)),
        same=100 * float(np.mean(same)) if same else 0.0,
        kept=100 * float(np.mean([drawn.kept for drawn in now])),
        nfe=float(np.mean([drawn.nfe for drawn in now])),
        seconds=float(np.median([drawn.seconds for drawn in now])),
    )


def _codes(model: TextToImage, canvas: TokenGrid) -> Int[Tensor, "B N"] | Float[Tensor, "B N C"]:
    """The codes that the decoder draws, of vectors the nearest ones; the vectors themselves where it knows no codes."""
    codes = model.tokenizer.codes(canvas.tokens)
    return canvas.tokens if codes is None else codes


HEAD = "| growth | kept | as before, remasked | afresh | right, remasked | afresh | NFE, remasked | afresh "
HEAD += "| s (median), remasked | afresh |"


def growth_row(growth: str, ours: GrowthResult, fresh: GrowthResult) -> str:
    if ours == fresh:  # the first sentence
        return f"| {growth} |  |  |  |  | {fresh.right:.0f}% |  | {fresh.nfe:.1f} |  | {fresh.seconds:.2f} |"
    return (
        f"| {growth} | {ours.kept:.0f}% | {ours.same:.0f}% | {fresh.same:.0f}% | {ours.right:.0f}% | {fresh.right:.0f}%"
        f" | {ours.nfe:.1f} | {fresh.nfe:.1f} | {ours.seconds:.2f} | {fresh.seconds:.2f} |"
    )


def score_remasking(
    model: str = "scenes",
    n: int = 20,
    steps: int = 8,
    masks: int = NUM_MASKINGS,
    margin: float = MARGIN,
    reader: str = "scenes-reader",
) -> None:
    """What remasking a growing sentence keeps and costs, against drawing afresh.

    Args:
        model: A model folder.
        n: Sentences that grow.
        steps: Steps of each drawing.
        masks: Maskings over which the likelihood of a token is averaged.
        margin: How much less likely a token must become to be decided anew.
        reader: The judge's folder.
    """
    draws = TextToImage.load(model, text_encoder.load)
    if n < 1:
        raise ValueError(f"n is {n}: give the number of sentences, 20 is usual")
    judging = checkpoint.load(checkpoint.resolve(reader), "reader").eval()
    asked = chains(n)
    afresh(draws, asked[0][0][1], 0, SamplingParams(steps=1))  # warms up
    width, height = scene_size(draws)
    print(f"{model}: {n} sentences that grow, {width}x{height}, {steps} steps, {masks} masks, ", end="")
    print(f"margin {margin}, {torch.get_num_threads()} threads\n{HEAD}\n|" + "---|" * (HEAD.count("|") - 1))
    for found in measure_remasking(draws, judging, asked, SamplingParams(steps=steps), masks, margin):
        print(growth_row(*found), flush=True)
