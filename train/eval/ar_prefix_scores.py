"""Quality and cost of hybrid drawing: `maskgil eval hybrid --model scenes --n 20 --out hybrid.svg`.

The same scenes are drawn with 0, 1/8, 1/4, 1/2 and all of the tokens written by the AR model and the rest by
MaskGIL in `steps` steps. For each: the scene score, the Frechet distance to the corpus in the reader's features and the
seconds a picture takes, as a table, and as a chart in the SVG file `out`.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from safetensors.torch import load_file
from tyro.conf import arg

import text_encoder
from maskgil import checkpoint
from maskgil.fileio import replace_file
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from train.eval.sample_images import SamplerOptions
from train.eval.scene_score import (
    KINDS,
    asked_scenes,
    drawn,
    frechet,
    judge,
    moments,
    overall,
    scene_size,
    score_row,
)
from train.scenes.judge import SceneJudge
from train.scenes.scene import KNOWN_THINGS

SHARES = ((0, "none"), (1 / 8, "1/8"), (1 / 4, "1/4"), (1 / 2, "1/2"), (1, "all"))


@dataclass(frozen=True)
class ArPrefixResult:
    """One row of the table. `distance` is None when the reader has no reference beside it."""

    label: str
    tokens: int
    scores: dict[str, float]
    distance: float | None
    seconds: float
    nfe: float


@torch.no_grad()
def measure_ar_prefix(
    model: TextToImage,
    reader: SceneJudge,
    asked: list,
    settings: SamplingParams,
    reference: dict | None = None,
) -> list[ArPrefixResult]:
    """Every share of SHARES on the same captions and seeds."""
    rows, columns = model.grid(scene_size(model))
    drawn(model, asked[:1], SamplingParams(steps=1, mode="hybrid", ar_tokens=1))  # loads the AR model and warms up
    out = []
    for share, label in SHARES:
        tokens = round(share * rows * columns)
        pixels, seconds, nfe = drawn(model, asked, replace(settings, mode="hybrid", ar_tokens=tokens))
        scores, features = judge(reader, asked, pixels)
        distance = frechet(moments(features), (reference["mean"], reference["covariance"])) if reference else None
        out.append(ArPrefixResult(label, tokens, scores, distance, seconds, nfe))
    return out


def share_table(measured: Sequence[ArPrefixResult]) -> str:
    """Markdown, a row for each share of the AR model's tokens."""
    head = ["tokens from the AR model", *KINDS, "overall", "Fréchet", "s/picture", "NFE"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for m in measured:
        distance = "" if m.distance is None else f"{m.distance:.1f}"
        lines.append(score_row(f"{m.label} ({m.tokens})", m.scores, distance, f"{m.seconds:.2f}", str(m.nfe)))
    return "\n".join(lines)


def chart(panels: Sequence[tuple[str, Sequence[float]]], labels: Sequence[str], title: str) -> str:
    """An SVG with a panel for each (name, values), one value a label; every axis starts at 0."""
    width, height, left, top, gap = 250, 150, 45, 60, 60
    total = left + len(panels) * (width + gap)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{top + height + 60}" '
        'font-family="sans-serif" font-size="12" text-anchor="middle">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{total / 2:.0f}" y="22" font-size="15">{html.escape(title)}</text>',
    ]
    for number, (name, values) in enumerate(panels):
        x0, highest = left + number * (width + gap), max(*values, 1e-9)
        x = [x0 + width * i / max(1, len(values) - 1) for i in range(len(values))]
        y = [top + height * (1 - value / (1.15 * highest)) for value in values]
        bottom = top + height
        parts.append(f'<text x="{x0 + width / 2:.0f}" y="{top - 14}" font-weight="bold">{html.escape(name)}</text>')
        parts.append(f'<path d="M{x0 - 8} {top}V{bottom}H{x0 + width + 8}" fill="none" stroke="#888"/>')
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="#2b6cb0" stroke-width="2"/>')
        for a, b, value, label in zip(x, y, values, labels, strict=True):
            parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="#2b6cb0"/>')
            parts.append(f'<text x="{a:.1f}" y="{b - 8:.1f}">{value:.3g}</text>')
            parts.append(f'<text x="{a:.1f}" y="{bottom + 18}" fill="#444">{html.escape(label)}</text>')
    middle = total / 2
    parts.append(f'<text x="{middle:.0f}" y="{top + height + 42}" fill="#444">share of tokens from the AR model</text>')
    return "\n".join([*parts, "</svg>\n"])


def hybrid(
    model: str = "scenes",
    reader: str = "scenes-reader",
    ar_model: Annotated[str, arg(aliases=("--twin",))] = "",
    n: int = 20,
    split: Literal["training", "held out"] = "training",
    out: str = "hybrid.svg",
    sampler: Annotated[SamplerOptions, arg(name="")] = SamplerOptions(),  # noqa: B008
    steps: int = 8,
) -> None:
    """Scene score, Frechet distance and time against the share of tokens that the autoregressive model writes.

    Args:
        model: A model folder with an autoregressive model beside it.
        reader: The judge's folder.
        ar_model: The AR model's folder. Left out: the one beside the model.
        n: Pictures of each kind.
        split: Combinations of the training scenes, or held-out ones.
        out: The chart, an SVG file.
        steps: Steps of MaskGIL.
    """
    if n < 1:
        raise ValueError(f"n is {n}: give the number of pictures of each kind, 20 is usual")
    settings = sampler.params(steps, model, "hybrid")
    if settings.mode != "masked":
        raise ValueError("every share of the autoregressive model's tokens is drawn: leave --mode and --ar-tokens out")
    draws = TextToImage.load(model, text_encoder.load, ar_model=ar_model or None)
    folder = checkpoint.resolve(reader)
    judging = checkpoint.load(folder, "reader").eval()
    file = folder / "reference.safetensors"
    reference = load_file(file) if file.is_file() else None
    found = measure_ar_prefix(
        draws, judging, asked_scenes(n, split == "held out", first=KNOWN_THINGS), settings, reference
    )
    width, height = scene_size(draws)
    title = f"{model}: {n} pictures of each kind, {width}x{height}, {settings.steps} steps{sampler}"
    title += f", {torch.get_num_threads()} threads"
    print(f"{title}\n{share_table(found)}")
    panels = [("scene score (higher is better)", [overall(m.scores) for m in found])]
    if reference:
        panels.append(("Fréchet distance (lower is better)", [m.distance for m in found]))
    panels.append(("seconds a picture", [m.seconds for m in found]))
    replace_file(out, chart(panels, [m.label for m in found], title).encode())
    print(f"chart: {out}")
