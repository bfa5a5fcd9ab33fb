"""What an image of a released model costs, part by part, with random weights, beside what the machine could do at best.

    maskgil bench released --models amused/amused-256 Collov-Labs/Monetico --repeats 3

Time does not depend on the weights, so that nothing needs to be fetched. The parts are built at their released sizes:
the text encoder reads one prompt, the generator makes one guided step (LlamaGen: reads the text, then writes single
tokens), the tokenizer decodes one image. An image is the sum of all its steps. Medians of `repeats` runs after a
warm-up.

The floor is the longer of two times: the weights read once for each call at the bandwidth, and the multiplications at
the rate, that this machine reached in this very run.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from benchmarks.generation import (
    DTYPES,
    Machine,
    Precision,
    RandomText,
    Stage,
    Timed,
    decoding_bytes,
    measure_machine,
    operations_of,
    timed,
    weight_bytes,
)
from maskgil.condition import Condition
from maskgil.models.amused import AMUSED_PRESETS, Amused
from maskgil.models.ar import ARSampler, ARTransformer
from maskgil.models.config import PRESETS
from maskgil.models.meissonic import MEISSONIC_PRESETS, Meissonic
from maskgil.params import SAMPLERS
from maskgil.released.catalog import MODELS, ReleasedModel, released_model
from maskgil.sampling.code_sampler import CodeSampler
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.loop import sample
from maskgil.sampling.plans import masked_plan, raster_plan
from maskgil.sampling.schedules import schedule_by_name
from maskgil.sampling.token_grid import TokenGrid
from maskgil.tokenizers.vq import VQ_PRESETS, VQModel

AR_TOKENS = 8  # that are timed of a model that writes token by token, after the first
CLIP_TEXTS = {  # hidden size, inner size, layers, heads
    768: (3072, 12, 12),
    1024: (4096, 24, 16),
}


class RepeatedNumbers(TorchFunctionMode):
    """Fills what is initialized with a million random numbers over and over: billions of them take a minute to draw."""

    FILLED = ("kaiming_uniform_", "normal_", "trunc_normal_", "uniform_", "xavier_uniform_")

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0.02 * torch.randn(2**20)

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        tensor = args[0] if args else (kwargs or {}).get("tensor")
        if getattr(func, "__name__", "") in self.FILLED and isinstance(tensor, Tensor) and tensor.device.type == "cpu":
            with torch.no_grad():
                for part in tensor.detach().view(-1).split(len(self.numbers)):
                    part.copy_(self.numbers[: len(part)])
            return tensor
        return func(*args, **(kwargs or {}))


class RandomClip(nn.Module):
    """CLIP's text encoder with random weights."""

    def __init__(self, width: int):
        from transformers import CLIPTextConfig, CLIPTextModelWithProjection

        super().__init__()
        inner, layers, heads = CLIP_TEXTS[width]
        config = CLIPTextConfig(
            hidden_size=width,
            projection_dim=width,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
        )
        self.clip = CLIPTextModelWithProjection(config)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> object:
        """The states of as many texts of 77 tokens."""
        ids = torch.arange(77, device=self.clip.device).expand(len(prompts), -1)
        return self.clip(input_ids=ids).text_embeds


@dataclass(frozen=True)
class ReleasedParts:
    """A released model with random weights."""

    generator: Any
    text_encoder: RandomClip | RandomText
    tokenizer: VQModel


def released_parts(model: ReleasedModel) -> ReleasedParts:
    """All parts at their released sizes."""
    with RepeatedNumbers():
        return _parts(model)


def _parts(model: ReleasedModel) -> ReleasedParts:
    generator: Amused | Meissonic | ARTransformer
    tokenizer = VQModel(VQ_PRESETS["llamagen-vq16" if model.converted else "amused-vq"])
    if model.converted:
        generator = ARTransformer(replace(PRESETS["t2i-xl-llamagen"], causal=True), zero_prefix=True)
        return ReleasedParts(generator, RandomText(generator.config.text_length), tokenizer)
    name = model.name.partition("/")[2].lower()
    if name in AMUSED_PRESETS:
        generator = Amused(AMUSED_PRESETS[name])
    else:
        generator = Meissonic(MEISSONIC_PRESETS[name])
    return ReleasedParts(generator, RandomClip(generator.config.text_dim), tokenizer)


@dataclass(frozen=True)
class ReleasedTimes:
    """What was measured of a model: reading a prompt, `first` and each later step, decoding."""

    model: ReleasedModel
    encode: Timed
    first: Timed
    step: float
    decode: Timed
    operations: float
    read: float

    @property
    def image(self) -> float:
        """Seconds of a whole image."""
        return self.encode.seconds + self.first.seconds + (self.model.steps - 1) * self.step + self.decode.seconds

    def floor(self, machine: Machine) -> float:
        """Seconds of a step at best."""
        return max(self.read / machine.bandwidth, self.operations / machine.rate)

    def row(self, machine: Machine) -> str:
        """A line of the table."""
        floor, peak = self.floor(machine), max(part.peak for part in (self.encode, self.first, self.decode))
        cells = [
            f"`{self.model.name}`", f"{self.encode.seconds:.2f}", f"{self.step:.3f}", f"{floor:.3f}",
            f"{self.step / floor:.1f}", str(self.model.steps), f"{self.decode.seconds:.2f}", f"{self.image:.1f}",
            f"{peak / 1e9:.1f}", str(self.first.runs),
        ]  # fmt: skip
        return "| " + " | ".join(cells) + " |"


HEAD = "| model | text, s | a step, s | floor, s | x floor | steps | decode, s | an image, s | peak, GB | runs |"


@torch.no_grad()
def released_times(
    model: ReleasedModel, parts: ReleasedParts, device: torch.device, dtype: torch.dtype, repeats: int
) -> ReleasedTimes:
    """Measure one model. Its parts are moved to the device, the generator in `dtype`, the others in float32."""
    generator, encoder, tokenizer = parts.generator, parts.text_encoder, parts.tokenizer
    for part, kind in ((generator, dtype), (encoder, torch.float32), (tokenizer, torch.float32)):
        part.to(device, kind).eval().requires_grad_(False)
    pixels, config = tokenizer.config.downsample, generator.config
    grid = (model.size[1] // pixels, model.size[0] // pixels)
    codes = torch.zeros(1, grid[0] * grid[1], dtype=torch.long, device=device)

    def encode() -> object:
        return encoder.encode(["a text"])

    def decode() -> object:
        return tokenizer.decode(codes, grid)

    if generator.token_space.autoregressive:
        condition, blank = random_condition(generator), TokenGrid.blank(1, grid, config.mask_id, device)
        plan = raster_plan(AR_TOKENS + 1, guidance=Guidance(7.5), device=device)

        def first() -> object:
            return list(sample(ARSampler(generator, condition), blank, plan[:1]))

        def several() -> object:
            return list(sample(ARSampler(generator, condition), blank, plan))

        began = timed(_stage("read the text", first, generator), repeats, device)
        step = (timed(_stage("tokens", several, generator), repeats, device).seconds - began.seconds) / AR_TOKENS
        operations = (operations_of(several) - operations_of(first)) / AR_TOKENS
    else:
        first = guided_step(generator, model, grid, device)
        with torch.device("meta"):  # where operations are counted without being done
            like = type(generator)(generator.config).to(dtype).eval()
        operations = operations_of(guided_step(like, model, grid, torch.device("meta")))
        began = timed(_stage("a guided step", first, generator), repeats, device)
        step = began.seconds
    return ReleasedTimes(
        model,
        timed(_stage("text", encode, encoder), repeats, device),
        began,
        step,
        timed(Stage("decode", decode, decoding_bytes(tokenizer), 0.0), repeats, device),
        operations,
        weight_bytes(generator),
    )


def random_condition(generator: Any) -> Condition:
    """The states of one text, in the type and on the device of the generator's weights."""
    weights, config = next(generator.parameters()), generator.config
    states = torch.randn(1, config.text_length, config.text_dim, device=weights.device, dtype=weights.dtype)
    return Condition(states, torch.ones_like(states[..., 0], dtype=torch.bool))


def guided_step(
    generator: Amused | Meissonic, model: ReleasedModel, grid: tuple[int, int], device: torch.device
) -> Callable[[], object]:
    """The first of a model's steps over (rows, columns) masked tokens, as its preset has it."""
    preset = SAMPLERS["amused" if model.name.partition("/")[2].lower() in AMUSED_PRESETS else "meissonic"]
    condition, blank = random_condition(generator), TokenGrid.blank(1, grid, generator.config.mask_id, device)
    schedule, guided = schedule_by_name(preset.schedule), Guidance.of(preset)
    plan = masked_plan(grid[0] * grid[1], model.steps, schedule, guidance=guided, device=device)
    return lambda: list(sample(CodeSampler(generator, condition), blank, plan[:1]))


def _stage(name: str, run: Callable[[], object], part: nn.Module) -> Stage:
    return Stage(name, run, weight_bytes(part), 0.0)


def bench_released_models(
    models: tuple[str, ...] = tuple(model.name for model in MODELS), precision: Precision = "fp32", repeats: int = 3
) -> None:
    """Print the cost of an image of released models, with random weights, as a Markdown table.

    Args:
        models: Names as `maskgil models` lists them. Left out: all of them, which takes 9 GB, and with --repeats 1 some
            minutes on two cores.
        precision: Of the generator: fp32 or bf16.
        repeats: Measurements of each part, fewer where one takes minutes; the median is printed.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}: give at least 1")
    chosen = [released_model(name) for name in models]
    device, dtype = torch.device("cuda" if torch.cuda.is_available() else "cpu"), DTYPES[precision]
    machine = measure_machine(device, dtype)
    print(f"{machine.name}; torch {torch.__version__}, {precision}, {time.strftime('%Y-%m-%d')}")
    print(f"measured here: {machine.bandwidth / 1e9:.1f} GB/s copied, {machine.rate / 1e12:.2f} TFLOP/s multiplied\n")
    print(f"{HEAD}\n|" + "---|" * (HEAD.count("|") - 1), flush=True)
    for model in chosen:
        print(released_times(model, released_parts(model), device, dtype, repeats).row(machine), flush=True)
