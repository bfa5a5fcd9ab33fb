"""Seconds and memory of drawing, stage by stage, beside what the machine could do at best:

    maskgil bench generation --model scenes --batches 1 8 --steps 8
    maskgil bench generation --preset t2i-xl --dtype bf16      # full size, random weights

Stages: the recogniser (a spoken sentence for each picture, written down one after the other; espeak-ng says it, unless
a recording is given; it stays in float32 on the CPU, as in the app; --recogniser "" leaves it out), the text encoder,
MaskGIL in `steps` steps, the autoregressive twin with its KV cache for the same picture (the shipped one, or a random
one of the generator's size), and the tokenizer. On a GPU MaskGIL is timed twice: as CUDA graphs, which is how it draws
there, and without. Medians of `repeats` runs after a warm-up.

The floor of a stage is the longer of two times: its weights (and the twin's cache) read once for each call at the
bandwidth, and its multiplications at the rate, that this machine reached in this very run, at the precision of the
stage: with --dtype bf16 the text encoder and the tokenizer of a folder stay in float32. Tables of embeddings are not
read as a whole and do not count.
"""

import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from app.core.request import parse_size
from maskgil.condition import Condition
from maskgil.models.ar import ARSampler, ARTransformer
from maskgil.models.config import PRESETS, ModelConfig
from maskgil.models.maskgil import MaskGIL
from maskgil.params import SamplingParams
from maskgil.picture_sizes import Size
from maskgil.pipeline import TextToImage
from maskgil.sampling.ar_prefix import ARPrefix
from maskgil.sampling.code_sampler import CodeSampler
from maskgil.sampling.loop import sample
from maskgil.sampling.plans import raster_plan
from maskgil.tokenizers.vq import VQ_PRESETS, VQModel
from speech import audio
from speech.transcriber import BUNDLED, Transcriber

Precision = Literal["fp32", "bf16"]
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
PROMPTS = ("two cats on the beach", "a red car at night")
PATIENCE = 120.0  # seconds after which a stage is not repeated any more


@dataclass(frozen=True)
class Machine:
    """What was measured of it: `bandwidth` in bytes/s, `rate` in floating-point operations/s of large matrices."""

    name: str
    bandwidth: float
    rate: float


@dataclass(frozen=True)
class Stage:
    """Something to time. `bytes` and `operations` are what it cannot do without."""

    name: str
    run: Callable[[], object]
    bytes: float
    operations: float
    machine: Machine | None = None  # what it runs on, if not what the generator does; a precision has a rate of its own


@dataclass(frozen=True)
class Timed:
    stage: Stage
    seconds: float  # median
    runs: int
    peak: float  # bytes

    def floor(self, machine: Machine) -> float:
        """Seconds."""
        machine = self.stage.machine or machine
        return max(self.stage.bytes / machine.bandwidth, self.stage.operations / machine.rate)


@dataclass(frozen=True)
class RecognizerBench:
    """A recogniser and what it hears: T samples at 16 kHz."""

    recogniser: Transcriber
    samples: Float[np.ndarray, " T"]

    def stage(self, batch: int, machine: Machine | None = None) -> Stage:
        """`batch` sentences, one after the other. Their floor reads the encoder once and the decoder for each word,
        at the fewest: words may be several tokens."""
        model = self.recogniser.scribe.model
        words = self.recogniser.transcribe(self.samples, spoken=True).words

        def listen() -> object:
            return [self.recogniser.transcribe(self.samples, spoken=True) for _ in range(batch)]

        read = weight_bytes(model.encoder) + (len(words) + 1) * weight_bytes(model.decoder)
        return Stage("listen", listen, batch * read, operations_of(listen), machine)


def heard(recogniser: str, wav: str) -> RecognizerBench:
    """Raises ValueError for a recogniser or a recording that is not there, and without espeak-ng."""
    from benchmarks.speech_to_image_latency import spoken  # which takes its clock from here

    with tempfile.TemporaryDirectory() as folder:
        return RecognizerBench(
            Transcriber.load(recogniser), audio.load(Path(wav) if wav else spoken(PROMPTS[0], Path(folder)))
        )


class RandomText(nn.Module):
    """flan-t5-xl's encoder with random weights, reading random words: it has a speed, not a language."""

    def __init__(self, length: int = 120, **sizes: int):
        from transformers import T5Config, T5EncoderModel

        super().__init__()
        named = {"d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_layers": 24, "num_heads": 32, "vocab_size": 32128}
        config = T5Config(**(named | sizes), feed_forward_proj="gated-gelu")
        self.length, self.width, self.t5 = length, config.d_model, T5EncoderModel(config)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Condition:
        device = self.t5.device
        ids = torch.arange(self.length, device=device).expand(len(prompts), -1) % self.t5.config.vocab_size
        mask = torch.ones_like(ids, dtype=torch.bool)
        return Condition(self.t5(input_ids=ids, attention_mask=mask.long()).last_hidden_state, mask)

    def identity(self) -> dict[str, Tensor]:
        return {}


def random_model(
    config: ModelConfig, tokenizer: VQModel, encoder: nn.Module, size: Size, device: torch.device, dtype: torch.dtype
) -> TextToImage:
    """A whole pipeline with random weights; heads too, which start at zero, so that there is something to sample."""
    generator, twin = MaskGIL(config), ARTransformer(replace(config, causal=True))
    for model in (generator, twin):
        nn.init.normal_(model.output.weight, std=0.02)
    parts = [part.to(device, dtype).eval().requires_grad_(False) for part in (generator, encoder, tokenizer, twin)]
    return TextToImage(parts[0], parts[1], parts[2], [size], twin=parts[3])


def preset_model(name: str, size: Size, device: torch.device, dtype: torch.dtype) -> TextToImage:
    """A text-driven preset in full size. ValueError for one that there is not."""
    config = PRESETS.get(name)
    if config is None or config.text_dim != 2048:
        texts = ", ".join(key for key, other in PRESETS.items() if other.text_dim == 2048)
        raise ValueError(f"no preset {name!r} reads flan-t5-xl's texts; there is {texts}")
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # built in its type, and where it is to be: twice the memory otherwise
    try:
        with torch.device(device):
            tokenizer, encoder = VQModel(VQ_PRESETS["llamagen-vq16"]), RandomText(config.text_length)
            return random_model(config, tokenizer, encoder, size, device, dtype)
    finally:
        torch.set_default_dtype(before)


def with_twin(model: TextToImage) -> tuple[TextToImage, str]:
    """The model, given a random twin of the generator's size if it has none, and what to call the twin."""
    if model.has_ar_model:
        return model, "twin"
    twin = ARTransformer(replace(model.generator.config, causal=True, rope="2d", null="caption"))
    nn.init.normal_(twin.output.weight, std=0.02)
    twin.to(model.device, model.generator.norm.weight.dtype).eval().requires_grad_(False)
    parts = (model.generator, model.text_encoder, model.tokenizer, model.sizes, model.vocabulary)
    return TextToImage(*parts, twin=twin), "random twin"


def measure_machine(device: torch.device, dtype: torch.dtype, side: int | None = None, megabytes: int = 256) -> Machine:
    """Bandwidth by copying, rate by multiplying square matrices of `side`: the best of five. A GPU reaches its rate
    only in large ones."""
    side = side or (8192 if device.type == "cuda" else 2048)
    source = torch.ones(megabytes * 2**20 // 4, device=device)
    target = torch.empty_like(source)
    a = torch.randn(side, side, device=device).to(dtype)
    copying = min(seconds_of(lambda: target.copy_(source), device) for _ in range(6))
    multiplying = min(seconds_of(lambda: a @ a, device) for _ in range(6))
    return Machine(machine_name(device), 2 * source.nbytes / copying, 2 * side**3 / multiplying)


def machine_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return f"{cpu}, {torch.get_num_threads()} of {os.cpu_count()} cores"


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    _finish(device)
    since = time.perf_counter()
    run()
    _finish(device)
    return time.perf_counter() - since


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget_peak(device: torch.device) -> None:
    """Start to measure peak memory anew, where the system lets us."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: sets VmHWM back to what is used now
    except OSError:
        pass  # the peak is then that of the whole run, which is said too high rather than too low


def peak_memory(device: torch.device) -> float:
    """Bytes: of the device, or of the process (weights and libraries included)."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    if status.is_file():
        found = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        if found:
            return float(found[0]) * 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


def timed(stage: Stage, repeats: int, device: torch.device) -> Timed:
    """Warm up once, then run `repeats` times, or until PATIENCE is over."""
    forget_peak(device)
    stage.run()
    seconds: list[float] = []
    while not seconds or (len(seconds) < repeats and sum(seconds) < PATIENCE):
        seconds.append(seconds_of(stage.run, device))
    return Timed(stage, statistics.median(seconds), len(seconds), peak_memory(device))


def operations_of(run: Callable[[], object]) -> float:
    """Floating-point operations of matrix products, convolutions and attention in one run."""

    def attention(query, key, value, *rest, out_shape=None, **options) -> int:
        return 4 * query[0] * query[1] * query[2] * key[2] * query[3]

    on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        run()
    return float(counter.get_total_flops())


def painting_bytes(tokenizer: object) -> float:
    """Parameters that every decoding reads, of what stands around a VQ or diffusers' model too."""
    tokenizer = getattr(tokenizer, "vq", getattr(tokenizer, "net", tokenizer))
    return sum(weight_bytes(getattr(tokenizer, part, None)) for part in ("decoder", "naming"))


def weight_bytes(module: object) -> float:
    """Parameters that every call reads: all but tables of embeddings."""
    if not isinstance(module, nn.Module):
        return 0.0
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    return float(sum(p.numel() * p.element_size() for p in module.parameters() if id(p) not in tables))


def precision_of(module: object) -> torch.dtype | None:
    """Of its weights; None for what has none."""
    return next((p.dtype for p in module.parameters()), None) if isinstance(module, nn.Module) else None


def cache_bytes(twin: ARTransformer, condition_length: int, tokens: int, rows: int) -> float:
    """Keys and values that the twin reads while it writes `tokens` tokens."""
    read = sum(condition_length + written for written in range(tokens))
    return 2.0 * twin.config.layers * twin.config.dim * rows * read * twin.norm.weight.element_size()


def writing_operations(twin: ARTransformer, condition_length: int, tokens: int, rows: int) -> float:
    """Floating-point operations of the twin writing `tokens` tokens. Known without running it: the counter would take
    far longer over its many small products than they do themselves."""
    blocks, caption = (
        sum(layer.weight.numel() for layer in part.modules() if isinstance(layer, nn.Linear))
        for part in (twin.layers, twin.cls_embedding)
    )
    head = twin.config.codebook_size * twin.config.dim
    seen = condition_length**2 + sum(condition_length + written for written in range(1, tokens))
    products = blocks * (condition_length + tokens - 1) + caption * condition_length + head * tokens
    return rows * (2.0 * products + 4.0 * twin.config.layers * twin.config.dim * seen)


def stages(
    model: TextToImage, batch: int, steps: int, size: Size, twin_name: str,
    machines: Mapping[torch.dtype | None, Machine] = MappingProxyType({}),
) -> list[Stage]:  # fmt: skip
    """Everything between prompts and pixels, at one batch size. Each stage works on the true input of its place.

    `machines`: what the device does at precisions other than the generator's.
    """
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(batch)]
    if isinstance(classes := model.generator.config.classes, int):
        prompts = [str(i % classes) for i in range(batch)]
    seeds, blank = list(range(batch)), model.blank(batch, size)
    settings, tokens = SamplingParams(steps=steps, refinement_passes=0), blank.mask.shape[1]
    condition = model.condition(prompts)
    plan = model.plan(blank, seeds, settings)
    one_by_one = raster_plan(tokens, guidance=ARPrefix(tokens).guidance, seeds=seeds, device=model.device)

    def eager() -> object:
        return list(sample(CodeSampler(model.generator, condition), blank, plan))[-1]

    def graphs() -> object:
        return list(sample(model.sampler(condition), blank, plan))[-1]

    def twin() -> object:
        return list(sample(ARSampler(model.ar_model, condition), blank, one_by_one))[-1]

    def stage(name: str, run: Callable[[], object], read: float, operations: float, part: object) -> Stage:
        return Stage(name, run, read, operations, machines.get(precision_of(part)))

    finished, named = eager(), f"MaskGIL, {len(plan)} steps"
    drawing = len(plan) * weight_bytes(model.generator), operations_of(eager), model.generator
    written = tokens * weight_bytes(model.ar_model) + cache_bytes(model.ar_model, condition.length, tokens, 2 * batch)

    def encode() -> object:
        return model.condition(prompts)

    def decode() -> object:
        return model.pixels(finished)

    return [
        stage("encode text", encode, weight_bytes(model.text_encoder), operations_of(encode), model.text_encoder),
        *([stage(f"{named}, CUDA graphs", graphs, *drawing)] if model.device.type == "cuda" else []),
        stage(named, eager, *drawing),
        stage(
            f"{twin_name} with KV cache, {tokens} tokens",
            twin,
            written,
            writing_operations(model.ar_model, condition.length, tokens, 2 * batch),
            model.ar_model,
        ),
        stage("decode", decode, painting_bytes(model.tokenizer), operations_of(decode), model.tokenizer),
    ]


def table(batch: int, found: Sequence[Timed], machine: Machine) -> str:
    """Markdown. `x floor`: how far a stage is from the floor; `against AR`: how much quicker than the twin it is."""
    twin = next(t.seconds for t in found if "KV cache" in t.stage.name)
    lines = [
        f"| batch {batch} | s (median) | s a picture | against AR | peak memory | floor, s | x floor | runs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for t in found:
        ratio = f"{twin / t.seconds:.1f}x" if "MaskGIL" in t.stage.name else ""
        floor = t.floor(machine)
        cells = [
            t.stage.name, f"{t.seconds:.4f}", f"{t.seconds / batch:.4f}", ratio, f"{t.peak / 2**20:,.0f} MiB",
            f"{floor:.4f}", f"{t.seconds / floor:.1f}" if floor else "", str(t.runs),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


@torch.no_grad()
def report(
    model: TextToImage,
    said: RecognizerBench | None,
    batches: Sequence[int],
    steps: int,
    repeats: int,
    size: Size,
    twin_name: str,
) -> None:
    """Print what was measured, as it comes."""
    device, dtype = model.device, model.generator.norm.weight.dtype
    machine = measure_machine(device, dtype)
    print(f"{machine.name}; torch {torch.__version__}, {str(dtype).removeprefix('torch.')}, {size[0]}x{size[1]}")
    print(f"measured here: {machine.bandwidth / 1e9:.1f} GB/s copied, {machine.rate / 1e12:.2f} TFLOP/s multiplied")
    count = sum(p.numel() for p in model.generator.parameters())
    print(f"generator {count:,} parameters, twin {sum(p.numel() for p in model.ar_model.parameters()):,}\n")
    others = {precision_of(part) for part in (model.text_encoder, model.tokenizer)} - {dtype, None}
    machines = {other: measure_machine(device, other) for other in others}
    for other, found in machines.items():
        print(f"and {found.rate / 1e12:.2f} TFLOP/s for what stays in {str(other).removeprefix('torch.')}\n")
    ears, cpu = None, torch.device("cpu")
    if (device.type, dtype) != ("cpu", torch.float32):
        ears = measure_machine(cpu, torch.float32)
    for batch in batches:
        found = [timed(said.stage(batch, ears), repeats, cpu)] if said else []
        found += [timed(stage, repeats, device) for stage in stages(model, batch, steps, size, twin_name, machines)]
        print(table(batch, found, machine) + "\n", flush=True)


def default_dtype(device: torch.device) -> Precision:
    return "bf16" if device.type == "cuda" else "fp32"


def bench_generation(
    model: str = "scenes",
    preset: str = "",
    batches: tuple[int, ...] = (1, 8),
    steps: int = 8,
    repeats: int = 5,
    size: str = "",
    dtype: Precision | None = None,
    recogniser: str = BUNDLED,
    wav: str = "",
) -> None:
    """Seconds and memory of each stage from speech and prompt to pixels, beside the machine's floor.

    Args:
        model: A model folder of codes.
        preset: A full-size preset with random weights instead, such as t2i-xl.
        batches: Batch sizes, a table each.
        steps: Steps of MaskGIL.
        repeats: Runs of a stage after a warm-up; the median is printed.
        size: Width x height in pixels. Left out: the model's first size.
        dtype: Precision of the generator. Left out: bf16 on a GPU, fp32 on a CPU.
        recogniser: The speech recognizer; an empty name leaves it out.
        wav: A recording for the recognizer. Left out: espeak-ng says a sentence.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, side = DTYPES[dtype or default_dtype(device)], parse_size(size) if size else None
    said = heard(recogniser, wav) if recogniser else None
    if preset:
        side = side or (256, 256)
        drawn, twin_name = preset_model(preset, side, device, kind), "random twin"
    else:
        drawn = TextToImage.load(model, device, kind)
        if drawn.generator.token_space.codebook_size is None:
            raise ValueError(f"{model} draws vectors: there is no twin of codes to measure it against")
        drawn, twin_name = with_twin(drawn)
        side = drawn.validate_size(side)
    report(drawn, said, batches, steps, repeats, side, twin_name)


if __name__ == "__main__":
    raise SystemExit("error: this command is `maskgil bench generation` now")
