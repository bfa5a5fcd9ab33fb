"""The same request and seed gives the same tokens as the code of commit 4506643 gave, whatever is renamed or moved.

fixtures/golden holds tiny models with random weights of a fixed seed (a generator over codes, its autoregressive model,
an eMIGM that borrows tokenizer and text encoder), a picture, `cases.json` and `golden.safetensors`. Every case states
every option, so that no later default touches it. Jobs of the engine are written as that commit's PNG metadata was.
Codes and the step that decided each must be equal, latents within 1e-4.

    python -m tests.test_golden --write      adds the values of cases that have none

It refuses a case whose choices depend on the last bits: the values must stay the same while every weight is changed by
up to 1e-5 of itself. Give such a case another seed.
"""

import functools
import json
import sys
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import text_encoder
from app.core.edit_request import EditRequest
from app.core.request import GenerationRequest
from app.serving.jobs import Job, Status
from app.serving.local_engine import LocalEngine
from maskgil import inpainting
from maskgil.models.diffusion_samplers import DDPM, DPMSolver
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.sampling.token_grid import TokenGrid

FOLDER = Path(__file__).resolve().parent / "fixtures" / "golden"
VALUES = FOLDER / "golden.safetensors"
CASES = {case["name"]: case for case in json.loads((FOLDER / "cases.json").read_text())}
PICTURE = Image.open(FOLDER / "picture.png").convert("RGB")
SECONDS = 60.0

# Between the names in the data and those in the code: the one place that a renaming touches.


def settings_of(values: dict) -> SamplingParams:
    guidance, prefix = values["guidance"], values["prefix"]
    written = {}
    if prefix is not None:
        assert prefix["guidance"]["power"] == guidance["power"]
        written = {
            "mode": "hybrid",
            "ar_tokens": prefix["tokens"],
            "ar_guidance_scale": prefix["guidance"]["scale"],
            "ar_guidance_shape": prefix["guidance"]["shape"],
            "ar_guidance_interval": tuple(prefix["guidance"]["interval"]),
            "ar_temperature": prefix["temperature"],
            "ar_top_k": prefix["top_k"],
            "ar_top_p": prefix["top_p"],
        }
    return SamplingParams(
        steps=values["steps"],
        guidance_scale=guidance["scale"],
        guidance_shape=guidance["shape"],
        guidance_interval=tuple(guidance["interval"]),
        guidance_power=guidance["power"],
        temperature=values["temperature"],
        choice_temperature=values["choice"],
        order=values["order"],
        schedule=values["curve"],
        top_k=values["top_k"],
        top_p=values["top_p"],
        refinement_passes=values["revisions"],
        remask_fraction=values["doubt"],
        candidates=values["candidates"],
        **written,
    )


def head_of(kind: str, steps: int) -> DPMSolver | DDPM:
    return {"dpm": DPMSolver, "ddpm": DDPM}[kind](steps)


def request_of(metadata: dict) -> GenerationRequest:
    return GenerationRequest.from_metadata(metadata)


def values_of(canvas: TokenGrid, nfe: int) -> dict[str, Tensor]:
    tokens = canvas.tokens if canvas.tokens.is_floating_point() else canvas.tokens.to(torch.int16)
    return {"tokens": tokens, "revealed": canvas.unmasked_at.to(torch.int16), "nfe": torch.tensor(nfe)}


def job_values(job: Job) -> dict[str, Tensor]:
    assert job.status is Status.DONE, job.error
    return values_of(job.frames[-1].grid, job.frames[-1].nfe)


def drawn(model: TextToImage, case: dict) -> dict[str, Tensor]:
    canvas = None
    if case["holes"] is not None:
        start = inpainting.inpainting_input(model, PICTURE, case["holes"])
        canvas = start.token_grid(1)
    settings = settings_of(case["settings"])
    *_, last = model.draw(case["prompts"], case["seeds"], tuple(case["size"]), settings, case["negative"], canvas)
    return values_of(last.canvas, last.nfe)


def begun(
    engine: LocalEngine, request: GenerationRequest, start: dict | None
) -> tuple[inpainting.InpaintingInput | None, GenerationRequest]:
    """What an engine's job draws on."""
    if start is None:
        return None, request
    loaded = engine.load(request.model)
    model, how = loaded.model, start["how"]
    if how == "brush":
        return inpainting.inpainting_input(model, PICTURE, start["cells"]), request
    if how == "scattered":
        rows, columns = model.grid(PICTURE.size)
        cells = inpainting.pick_share(range(rows * columns), start["share"], start["seed"], rows * columns)
        return inpainting.inpainting_input(model, PICTURE, cells), request
    if how == "extend":
        ways = inpainting.outpaintings(PICTURE.size, [request.size], model.tokenizer.config.downsample)
        return inpainting.outpaint(model, PICTURE, next(way for way in ways if way.side == start["side"])), request
    mask = None
    if how == "mask":
        mask = Image.new("L", PICTURE.size)
        ImageDraw.Draw(mask).rectangle(start["box"], fill=255)
    return EditRequest(PICTURE, mask, start.get("was", "")).begin(model, loaded.encode, request)


# The drawing and its check.


@functools.cache
def opened(name: str, head: tuple[str, int], seed: int | None = None) -> TextToImage:
    """A model with a sampler of its diffusion head; with a seed, each weight is changed by about 1e-5 of itself."""
    model = TextToImage.load(FOLDER / name, text_encoder.load)
    model.head = head_of(*head)
    if seed is not None:
        parts = [
            model.generator,
            model.text_encoder,
            model.tokenizer,
            *([model.ar_model] if model.has_ar_model else []),
        ]
        generator = torch.Generator().manual_seed(seed)
        for parameter in dict.fromkeys(p for part in parts if isinstance(part, nn.Module) for p in part.parameters()):
            parameter.data.mul_(1 + 1e-5 * torch.randn(parameter.shape, generator=generator))
    return model


def run_engine(engine: LocalEngine, case: dict) -> list[Job]:
    jobs: list[Job] = []
    free = threading.Event()
    requests = [request_of(job["request"]) for job in case["jobs"]]
    if case["together"]:  # the engine's thread waits until all are in the queue
        engine.submit(requests[0], finished=lambda job: free.wait(SECONDS))
    for job, request in zip(case["jobs"], requests, strict=True):
        start, request = begun(engine, request, job["start"])
        jobs.append(engine.submit(request, start=start, after=None if job["after"] is None else jobs[job["after"]]))
        if not case["together"]:
            assert jobs[-1].wait(SECONDS)
    free.set()
    assert all(job.wait(SECONDS) for job in jobs)
    if case["together"]:
        assert max(job.began for job in jobs) < min(job.ended for job in jobs), "they did not run at the same time"
    return jobs


def found(case: dict, seed: int | None = None) -> dict[str, Tensor]:
    """Every value of a case, by name."""
    if case["by"] == "pipeline":
        values = drawn(opened(case["model"], tuple(case["head"]), seed), case)
        return {f"{case['name']}/{key}": value for key, value in values.items()}
    engine = LocalEngine(lambda name: opened(name, tuple(case["head"]), seed))
    try:
        jobs = run_engine(engine, case)
    finally:
        engine.close()
    of_jobs = [job_values(job) for job in jobs]
    return {f"{case['name']}/{i}/{key}": value for i, one in enumerate(of_jobs) for key, value in one.items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor], key: str) -> bool:
    if one[key].is_floating_point():
        return torch.allclose(one[key], other[key], rtol=1e-2, atol=1e-2)
    return torch.equal(one[key], other[key])


@pytest.mark.parametrize("name", CASES)
def test_the_tokens_are_those_of_before(name: str):
    values = {key: value for key, value in load_file(VALUES).items() if key.startswith(f"{name}/")}
    assert values, f"{name} has no values: write them"
    now = found(CASES[name])
    assert now.keys() == values.keys()
    for key, value in values.items():
        away = 1e-4 if value.is_floating_point() else 0
        named = f"{key}: {{}}".format
        torch.testing.assert_close(now[key], value, rtol=away, atol=away, msg=named)


def write() -> None:
    values = load_file(VALUES) if VALUES.exists() else {}
    known = {key.split("/")[0] for key in values}
    for name in CASES.keys() - known:
        now = found(CASES[name])
        others = [found(CASES[name], seed) for seed in range(6)]
        if wrong := [key for key in now for other in others if not same(now, other, key)]:
            print(f"{', '.join(dict.fromkeys(wrong))}: the last bits matter, give another seed", file=sys.stderr)
            continue
        values |= now
    save_file({key: value.clone() for key, value in values.items()}, VALUES)


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    torch.set_num_threads(1)
    write()
