"""Pictures for GenEval's own judge: `maskgil eval geneval-prompts --model FOLDER --prompts FILE.jsonl --out FOLDER`.

The prompt file is GenEval's evaluation_metadata.jsonl (Ghosh et al. 2023, arXiv 2310.11513): a JSON object with
"prompt" on each line. The folder is laid out as its object detector reads it:

    out/00000/metadata.jsonl      the line of the prompt
    out/00000/samples/0000.png    n pictures of it
"""

import json
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from maskgil.fileio import atomic_write
from maskgil.picture_sizes import parse_size
from train.eval.sample_images import Sample, SamplerOptions, WorkOptions, draw_samples, read_prompts


def geneval_samples(prompts: list[dict], n: int) -> list[Sample]:
    """n pictures of every prompt, each with a seed of its own, which a larger n does not change."""
    return [
        Sample(entry["prompt"], (copy << 32) + number, f"{number:05d}/samples/{copy:04d}.png")
        for number, entry in enumerate(prompts)
        for copy in range(n)
    ]


def write_metadata(prompts: list[dict], out: Path) -> None:
    """metadata.jsonl beside the pictures of every prompt."""
    for number, entry in enumerate(prompts):
        path = out / f"{number:05d}" / "metadata.jsonl"
        with atomic_write(path, shared=True) as partial:
            partial.write_text(json.dumps(entry) + "\n", encoding="utf-8")


def geneval_prompts(
    model: str,
    prompts: str,
    out: str,
    n: int = 4,
    steps: int | None = None,
    work: Annotated[WorkOptions, arg(name="")] = WorkOptions(),  # noqa: B008
    sampler: Annotated[SamplerOptions, arg(name="")] = SamplerOptions(),  # noqa: B008
) -> None:
    """Draw GenEval's prompts into the folders that its object detector reads.

    Args:
        model: A text-to-image model.
        prompts: GenEval's evaluation_metadata.jsonl.
        out: The folder of the samples. Those that are missing are drawn.
        n: Pictures of each prompt.
        steps: Steps of each drawing. Left out: the sampler's.
    """
    if n < 1:
        raise ValueError(f"n is {n}: give the number of pictures for each prompt, GenEval's is 4")
    entries = read_prompts(Path(prompts))
    settings, wanted, samples = (
        sampler.params(steps, model),
        parse_size(work.size) if work.size else None,
        geneval_samples(entries, n),
    )
    whole = draw_samples(model, samples, Path(out), settings, wanted, work.batch, work.processes, work.share)
    write_metadata(entries, Path(out))
    print(f"{out}: {len(entries):,} prompts, {n} pictures each{'' if whole else '; other shares are missing'}")
