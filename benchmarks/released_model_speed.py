"""What an image of a released model costs: one guided step, the decoder, and all steps, with random weights.

    maskgil bench released --models amused/amused-256 --repeats 3

Time does not depend on the weights, so that nothing needs to be fetched. Generator and tokenizer are built at their
released sizes; the text encoder, which reads a prompt once, is left out.
"""

import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from maskgil.condition import Condition
from maskgil.models.amused import AMUSED_PRESETS, Amused
from maskgil.models.ar import ARSampler, ARTransformer
from maskgil.models.config import PRESETS
from maskgil.models.meissonic import MEISSONIC_PRESETS, Meissonic
from maskgil.params import SAMPLERS
from maskgil.released.catalog import ReleasedModel, released_model
from maskgil.sampling.code_sampler import CodeSampler
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.loop import sample
from maskgil.sampling.plans import masked_plan, raster_plan
from maskgil.sampling.schedules import schedule_by_name
from maskgil.sampling.token_grid import TokenGrid
from maskgil.tokenizers.vq import VQ_PRESETS, VQModel

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
AR_TOKENS = 16  # tokens that are timed of an autoregressive model, the reading of the text included


def _generator(model: ReleasedModel) -> nn.Module:
    """The generator with random weights."""
    match model.name:
        case "amused/amused-256" | "amused/amused-512":
            return Amused(AMUSED_PRESETS[model.name.partition("/")[2]])
        case "MeissonFlow/Meissonic":
            return Meissonic(MEISSONIC_PRESETS["meissonic"])
        case "Collov-Labs/Monetico":
            return Meissonic(MEISSONIC_PRESETS["monetico"])
        case _:
            return ARTransformer(replace(PRESETS["t2i-xl"], causal=True), zero_prefix=True)


def _seconds(run: Callable[[], object], device: str, repeats: int) -> float:
    """Median time of a call, after one that warms up."""
    times = []
    for i in range(repeats + 1):
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        if i:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


@torch.no_grad()
def bench_released_models(
    models: tuple[str, ...] = ("amused/amused-256", "amused/amused-512"), precision: str = "fp32", repeats: int = 3
) -> None:
    """Print the cost of an image of released models, with random weights.

    Args:
        models: Names as `maskgil models` lists them.
        precision: fp32 or bf16.
        repeats: Measurements; the median is printed.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}: choose one of {', '.join(PRECISIONS)}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, {device}, {precision}, torch {torch.__version__}")
    for name in models:
        print(_line(released_model(name), device, PRECISIONS[precision], repeats), flush=True)


def _line(model: ReleasedModel, device: str, dtype: torch.dtype, repeats: int) -> str:
    generator = _generator(model).eval().to(device, dtype)
    vq = VQModel(VQ_PRESETS["llamagen-vq16" if model.converted else "amused-vq"]).eval().to(device)
    grid = (model.size[1] // 16, model.size[0] // 16)
    config = generator.config
    states = torch.randn(1, config.text_length, config.text_dim, device=device, dtype=dtype)
    condition = Condition(states, torch.ones_like(states[..., 0], dtype=torch.bool))
    blank = TokenGrid.blank(1, grid, config.mask_id, device)
    if isinstance(generator, ARTransformer):
        plan = raster_plan(AR_TOKENS, guidance=Guidance(7.5), device=device)

        def step() -> None:
            list(sample(ARSampler(generator, condition), blank, plan))

        each = _seconds(step, device, repeats) / AR_TOKENS
    else:
        preset = SAMPLERS["amused" if isinstance(generator, Amused) else "meissonic"]
        schedule = schedule_by_name(preset.schedule)
        plan = masked_plan(grid[0] * grid[1], model.steps, schedule, guidance=Guidance(9.0), device=device)
        each = _seconds(lambda: list(sample(CodeSampler(generator, condition), blank, plan[:1])), device, repeats)
    codes = torch.zeros(1, grid[0] * grid[1], dtype=torch.long, device=device)
    decode = _seconds(lambda: vq.decode(codes, grid), device, repeats)
    on_cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else on_cpu
    return (
        f"{model.name}: {each:.3f} s a guided step, {decode:.2f} s to decode, {model.steps} steps: "
        f"{model.steps * each + decode:.1f} s an image; peak memory so far {peak / 1e9:.1f} GB"
    )
