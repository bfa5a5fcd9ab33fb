"""Seconds and memory of drawing, stage by stage, beside what the machine could do at best:

    maskgil bench generation --model scenes --batches 1 8 --steps 8
    maskgil bench generation --preset t2i-xl --dtype bf16      # full size, random weights

Stages: the recognizer (a spoken sentence for each picture, written down one after the other; espeak-ng says it, unless
a recording is given; it stays in float32 on the CPU, as in the app; --recognizer "" leaves it out), the text encoder,
MaskGIL in `steps` steps, the AR model with its KV cache for the same picture (the shipped one, or a random
one of the generator's size), and the tokenizer. On a GPU MaskGIL is timed twice: as CUDA graphs, which is how it draws
there, and without. Medians of `repeats` runs after a warm-up.

The floor of a stage is the longer of two times: its weights (and the AR model's cache) read once for each call at the
bandwidth, and its multiplications at the rate, that this machine reached in this very run, at the precision of the
stage: with --dtype bf16 the text encoder and the tokenizer of a folder stay in float32. Tables of embeddings are not
read as a whole and do not count.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

import text_encoder
from benchmarks.machine import (
    DTYPES,
    Machine,
    Precision,
    Stage,
    Timed,
    default_dtype,
    measure_machine,
    operations_of,
    precision_of,
    timed,
    weight_bytes,
)
from benchmarks.speech_to_image_latency import synthesize
from maskgil.condition import Condition
from maskgil.model_folder import bundled_or_given
from maskgil.models.ar import ARSampler, ARTransformer
from maskgil.models.config import PRESETS, ModelConfig
from maskgil.models.maskgil import MaskGIL
from maskgil.params import SAMPLERS
from maskgil.picture_sizes import Size, parse_size
from maskgil.pipeline import TextToImage
from maskgil.sampling.ar_prefix import ARPrefix
from maskgil.sampling.code_sampler import CodeSampler
from maskgil.sampling.loop import sample
from maskgil.sampling.plans import raster_plan
from maskgil.tokenizers.vq import VQ_PRESETS, VQModel
from speech import audio
from speech.transcriber import BUNDLED, Transcriber

PROMPTS = ("two cats on the beach", "a red car at night")


@dataclass(frozen=True)
class RecognizerBench:
    """A recognizer and what it hears: T samples at 16 kHz."""

    recognizer: Transcriber
    samples: Float[np.ndarray, " T"]

    def stage(self, batch: int, machine: Machine | None = None) -> Stage:
        """`batch` sentences, one after the other. Their floor reads the encoder once and the decoder for each word,
        at the fewest: words may be several tokens."""
        model = self.recognizer.scribe.model
        words = self.recognizer.transcribe(self.samples, spoken=True).words

        def listen() -> object:
            return [self.recognizer.transcribe(self.samples, spoken=True) for _ in range(batch)]

        read = weight_bytes(model.encoder) + (len(words) + 1) * weight_bytes(model.decoder)
        return Stage("listen", listen, batch * read, operations_of(listen), machine)


def bench_recognizer(recognizer: str, wav: str) -> RecognizerBench:
    """Raises ValueError for a recognizer or a recording that is not there, and without espeak-ng."""
    with tempfile.TemporaryDirectory() as folder:
        return RecognizerBench(
            Transcriber.load(bundled_or_given(recognizer)),
            audio.load_audio(Path(wav) if wav else synthesize(PROMPTS[0], Path(folder))),
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
    generator, ar_model = MaskGIL(config), ARTransformer(replace(config, causal=True))
    for model in (generator, ar_model):
        nn.init.normal_(model.output.weight, std=0.02)
    parts = [part.to(device, dtype).eval().requires_grad_(False) for part in (generator, encoder, tokenizer, ar_model)]
    return TextToImage(parts[0], parts[1], parts[2], [size], ar_model=parts[3])


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


def with_ar_model(model: TextToImage) -> tuple[TextToImage, str]:
    """The model, given a random AR model of the generator's size if it has none, and what to call the AR model."""
    if model.has_ar_model:
        return model, "AR model"
    ar_model = ARTransformer(replace(model.generator.config, causal=True, rope="2d", null="caption"))
    nn.init.normal_(ar_model.output.weight, std=0.02)
    ar_model.to(model.device, model.generator.norm.weight.dtype).eval().requires_grad_(False)
    parts = (model.generator, model.text_encoder, model.tokenizer, model.sizes, model.vocabulary)
    return TextToImage(*parts, ar_model=ar_model), "random AR model"


def decoding_bytes(tokenizer: object) -> float:
    """Parameters that every decoding reads, of what stands around a VQ or diffusers' model too."""
    tokenizer = getattr(tokenizer, "vq", getattr(tokenizer, "net", tokenizer))
    return sum(weight_bytes(getattr(tokenizer, part, None)) for part in ("decoder", "naming"))


def cache_bytes(ar_model: ARTransformer, condition_length: int, tokens: int, rows: int) -> float:
    """Keys and values that the AR model reads while it writes `tokens` tokens."""
    read = sum(condition_length + written for written in range(tokens))
    return 2.0 * ar_model.config.layers * ar_model.config.dim * rows * read * ar_model.norm.weight.element_size()


def writing_operations(ar_model: ARTransformer, condition_length: int, tokens: int, rows: int) -> float:
    """Floating-point operations of the AR model writing `tokens` tokens. Known without running it: the counter would
    take far longer over its many small products than they do themselves."""
    blocks, caption = (
        sum(layer.weight.numel() for layer in part.modules() if isinstance(layer, nn.Linear))
        for part in (ar_model.layers, ar_model.cls_embedding)
    )
    head = ar_model.config.codebook_size * ar_model.config.dim
    seen = condition_length**2 + sum(condition_length + written for written in range(1, tokens))
    products = blocks * (condition_length + tokens - 1) + caption * condition_length + head * tokens
    return rows * (2.0 * products + 4.0 * ar_model.config.layers * ar_model.config.dim * seen)


def stages(
    model: TextToImage, batch: int, steps: int, size: Size, ar_model_name: str,
    machines: Mapping[torch.dtype | None, Machine] = MappingProxyType({}),
) -> list[Stage]:  # fmt: skip
    """Everything between prompts and pixels, at one batch size. Each stage works on the true input of its place.

    `machines`: what the device does at precisions other than the generator's.
    """
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(batch)]
    if isinstance(classes := model.generator.config.classes, int):
        prompts = [str(i % classes) for i in range(batch)]
    seeds, blank = list(range(batch)), model.blank(batch, size)
    settings = replace(SAMPLERS["guided"], steps=steps, refinement_passes=0)
    tokens = blank.mask.shape[1]
    condition = model.condition(prompts)
    plan = model.plan(blank, seeds, settings)
    one_by_one = raster_plan(tokens, guidance=ARPrefix(tokens).guidance, seeds=seeds, device=model.device)

    def eager() -> object:
        return list(sample(CodeSampler(model.generator, condition), blank, plan))[-1]

    def graphs() -> object:
        return list(sample(model.sampler(condition), blank, plan))[-1]

    def ar_model() -> object:
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
            f"{ar_model_name} with KV cache, {tokens} tokens",
            ar_model,
            written,
            writing_operations(model.ar_model, condition.length, tokens, 2 * batch),
            model.ar_model,
        ),
        stage("decode", decode, decoding_bytes(model.tokenizer), operations_of(decode), model.tokenizer),
    ]


def stage_table(batch: int, found: Sequence[Timed], machine: Machine) -> str:
    """Markdown. `x floor`: how far a stage is from the floor; `against AR`: how much quicker than the AR model it
    is."""
    ar_model = next(t.seconds for t in found if "KV cache" in t.stage.name)
    lines = [
        f"| batch {batch} | s (median) | s a picture | against AR | peak memory | floor, s | x floor | runs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for t in found:
        ratio = f"{ar_model / t.seconds:.1f}x" if "MaskGIL" in t.stage.name else ""
        floor = t.floor(machine)
        cells = [
            t.stage.name, f"{t.seconds:.4f}", f"{t.seconds / batch:.4f}", ratio, f"{t.peak / 2**20:,.0f} MiB",
            f"{floor:.4f}", f"{t.seconds / floor:.1f}" if floor else "", str(t.runs),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


@torch.no_grad()
def report_generation(
    model: TextToImage,
    said: RecognizerBench | None,
    batches: Sequence[int],
    steps: int,
    repeats: int,
    size: Size,
    ar_model_name: str,
) -> None:
    """Print what was measured, as it comes."""
    device, dtype = model.device, model.generator.norm.weight.dtype
    machine = measure_machine(device, dtype)
    print(f"{machine.name}; torch {torch.__version__}, {str(dtype).removeprefix('torch.')}, {size[0]}x{size[1]}")
    print(f"measured here: {machine.bandwidth / 1e9:.1f} GB/s copied, {machine.rate / 1e12:.2f} TFLOP/s multiplied")
    count = sum(p.numel() for p in model.generator.parameters())
    print(f"generator {count:,} parameters, AR model {sum(p.numel() for p in model.ar_model.parameters()):,}\n")
    others = {precision_of(part) for part in (model.text_encoder, model.tokenizer)} - {dtype, None}
    machines = {other: measure_machine(device, other) for other in others}
    for other, found in machines.items():
        print(f"and {found.rate / 1e12:.2f} TFLOP/s for what stays in {str(other).removeprefix('torch.')}\n")
    recognizer_machine, cpu = None, torch.device("cpu")
    if (device.type, dtype) != ("cpu", torch.float32):
        recognizer_machine = measure_machine(cpu, torch.float32)
    for batch in batches:
        found = [timed(said.stage(batch, recognizer_machine), repeats, cpu)] if said else []
        found += [timed(stage, repeats, device) for stage in stages(model, batch, steps, size, ar_model_name, machines)]
        print(stage_table(batch, found, machine) + "\n", flush=True)


def bench_generation(
    model: str = "scenes",
    preset: str = "",
    batches: tuple[int, ...] = (1, 8),
    steps: int = 8,
    repeats: int = 5,
    size: str = "",
    dtype: Precision | None = None,
    recognizer: str = BUNDLED,
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
        recognizer: The speech recognizer; an empty name leaves it out.
        wav: A recording for the recognizer. Left out: espeak-ng says a sentence.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, side = DTYPES[dtype or default_dtype(device)], parse_size(size) if size else None
    said = bench_recognizer(recognizer, wav) if recognizer else None
    if preset:
        side = side or (256, 256)
        drawn, ar_model_name = preset_model(preset, side, device, kind), "random AR model"
    else:
        drawn = TextToImage.load(model, text_encoder.load, device, kind)
        if drawn.generator.token_space.codebook_size is None:
            raise ValueError(f"{model} draws vectors: there is no AR model of codes to measure it against")
        drawn, ar_model_name = with_ar_model(drawn)
        side = drawn.validate_size(side)
    report_generation(drawn, said, batches, steps, repeats, side, ar_model_name)


if __name__ == "__main__":
    raise SystemExit("error: this command is `maskgil bench generation` now")
