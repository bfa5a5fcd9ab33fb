"""Prompts -> pictures: a text encoder, a generator and a tokenizer put together.

    draws = TextToImage.load("scenes")
    draws.images(["two cats on the beach"], seeds=[7])[0].save("cats.png")
    for progress in draws.draw(["a red apple"], seeds=[1], size=(320, 192)):
        show(draws.images_of(progress.canvas))     # every step, holes grey

A class-driven model is drawn from in the same way, with class numbers or names as prompts (maskgil/class_labels.py):

    TextToImage.load("weights/imagenet-b").images(["207"], seeds=[0], settings=SAMPLERS["reference"])

So is eMIGM, whose tokens are vectors, with a continuous tokenizer in the VQ's place (maskgil/tokenizers/autoencoder.py,
absorbed.py).

Sizes are (width, height) in pixels, grids (rows, columns) in tokens. What a person may get wrong is refused here with a
ValueError of one line that says what to do; nothing is drawn until all of it was checked.

B pictures, N tokens, C channels of a continuous token, L text tokens, E width of a text state, H W pixels.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor, nn

from maskgil import checkpoint
from maskgil.aspect_buckets import bucket_classes, nearest_bucket, rounded, sizes_of
from maskgil.class_labels import ClassLabels
from maskgil.condition import Condition
from maskgil.generator import Generator, Sampler
from maskgil.lora_adapters import AdaptedGenerator, LoraAdapter
from maskgil.models.ar import ARSampler, ARTransformer
from maskgil.models.diffusion_head import DDPM, DPMSolver
from maskgil.models.transformer import set_attention_backend
from maskgil.params import SAMPLERS, SamplingParams
from maskgil.released.layout import TEXT_ENCODER, ReleasedFolder, is_released
from maskgil.released.loader import load_generator, load_vq, set_null_condition
from maskgil.sampling import best_of_n
from maskgil.sampling.ar_prefix import (
    ARPrefix,
    SamplingStage,
    beside,
    load_ar_model,
    prefix_plan,
    unmask_prefix_only,
    validate_ar_model,
)
from maskgil.sampling.cuda_graphs import CUDAGraphRunner
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.loop import StepParams, TokenGrid, masked_plan, sample
from maskgil.tokenizers import vq_latents

AR_KINDS = ("llamagen", "autoregressive")  # generators that draw alone
MAX_PROMPT = 1000  # characters
MAX_SEED = 2**63 - 1

Size = tuple[int, int]


@runtime_checkable
class Encoder(Protocol):
    """What is asked of a text encoder: see text_encoder/__init__.py."""

    width: int

    def encode(self, prompts: Sequence[str]) -> Condition: ...

    def identity(self) -> dict[str, Tensor]: ...


@runtime_checkable
class Tokenizer(Protocol):
    """What is asked of a tokenizer: see maskgil/tokenizers/vq.py. `config` has downsample and codebook_size; that of a
    continuous one, whose tokens are (B, N, C), has channels instead (maskgil/tokenizers/autoencoder.py,
    absorbed.py)."""

    config: Any

    def encode(self, pixels: Float[Tensor, "B 3 H W"]) -> Int[Tensor, "B N"] | Float[Tensor, "B N C"]: ...

    def decode(
        self, tokens: Int[Tensor, "B N"] | Float[Tensor, "B N C"], grid: tuple[int, int]
    ) -> Float[Tensor, "B 3 H W"]: ...

    def identity(self) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class SamplingProgress:
    """One step done, `step` of `of`. nfe: evaluations that each picture has cost so far, the twin's and those of all
    its candidates included, of which the first is on the canvas until the best is known, at the end."""

    step: int
    of: int
    nfe: int
    canvas: TokenGrid

    @property
    def done(self) -> bool:
        return self.step == self.of


class TextToImage:
    """Draws the given sizes only: those that the generator was trained for, the first as the default.

    `bucket_classes`: the classes (maskgil/aspect_buckets.py) whose buckets the sizes are; none for a fixed list of
    sizes.

    `head`: how the diffusion head of a continuous model draws its tokens; what it may cost is set on the object.

    Raises ValueError when the three models do not fit together.
    """

    head: DPMSolver | DDPM = DPMSolver(8)

    def __init__(
        self,
        generator: Generator,
        text_encoder: Encoder,
        tokenizer: Tokenizer,
        sizes: Sequence[Size],
        vocabulary: dict[str, Any] | None = None,
        twin: ARTransformer | Path | None = None,
        preset: str = "default",
    ):
        """`twin`: the autoregressive twin, or the folder that it is loaded from when it is first needed. `preset`: the
        name of the sampling options that are used where none are given (maskgil/params.py)."""
        width = generator.config.text_dim or ClassLabels.width
        if width != text_encoder.width:
            raise ValueError(
                f"the generator reads text states of width {width}, this text encoder gives {text_encoder.width}"
            )
        generator.token_space.validate_tokenizer(tokenizer.config)
        side = tokenizer.config.downsample
        if not sizes or any(width < side or height < side or width % side or height % side for width, height in sizes):
            raise ValueError(f"sizes {_listed(sizes)}: give widths and heights in multiples of {side} px")
        self.generator, self.text_encoder, self.tokenizer = generator, text_encoder, tokenizer
        self.sizes = [tuple(size) for size in sizes]
        self.vocabulary = vocabulary or {}
        self.bucket_classes = bucket_classes(self.vocabulary)
        self.preset = preset
        # An autoregressive generator draws alone: it is its own twin.
        self.autoregressive = generator.token_space.autoregressive
        self._twin = generator if self.autoregressive else twin
        generator.token_space.validate_grids([self.grid(size) for size in self.sizes])
        if isinstance(twin, ARTransformer):
            validate_ar_model(twin, generator.config)

    @staticmethod
    def load(
        name: str | Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        attention: str = "sdpa",
        twin: str | Path | None = None,
        encoder_memory: str = "full",
    ) -> "TextToImage":
        """A bundled name, a folder or a Hugging Face id, with generator/, text_encoder/, tokenizer/, vocabulary.json.

        A class-driven one has no text_encoder/, and may have class_names.json. twin names the autoregressive twin; left
        out, it is the folder beside this one whose name ends in -ar, if there is one. encoder_memory is full, 8bit,
        4bit or offload (text_encoder/encoder_memory.py). Released models are loaded from their own layout.

        Raises ValueError for a part that is missing or broken, and for a tokenizer or text encoder other than those
        that the generator was trained with (its config.json keeps their fingerprints).
        """
        # Only here: the models themselves do not depend on any one text encoder.
        import text_encoder

        folder, load_encoder = checkpoint.resolve(name), partial(text_encoder.load, memory=encoder_memory)
        if is_released(folder):
            return _load_released(folder, device, dtype, attention, encoder_memory)
        notes = checkpoint.describe(folder / "generator")
        continuous, alone = notes["kind"] == "emigm", notes["kind"] in AR_KINDS
        kind = notes["kind"] if continuous or alone else "maskgil"
        generator = checkpoint.load(folder / "generator", kind, dtype)
        place = folder / "tokenizer"
        tokenizer = vq_latents.load(place) if continuous else checkpoint.load(place, "vq")
        classes = generator.config.classes
        encoder = ClassLabels.open(folder, classes) if classes else load_encoder(folder / "text_encoder")
        for part, model in (("tokenizer", tokenizer), *([] if classes else [("text_encoder", encoder)])):
            wanted = notes.get(f"{part}_hash")
            if wanted is None and notes["kind"] == "llamagen":
                continue  # weights that others released carry no fingerprints
            if wanted != (found := checkpoint.fingerprint(model.identity())):
                raise ValueError(
                    f"{folder / part} is not what {folder / 'generator'} was trained with: its fingerprint is {found}, "
                    f"the generator wants {wanted}; put the right one there"
                )
        vocabulary = _vocabulary(folder / "vocabulary.json")
        set_attention_backend(generator, attention)
        for module in (generator, tokenizer, encoder):
            if isinstance(module, nn.Module):
                module.to(device).requires_grad_(False)
        other = checkpoint.resolve(twin) if twin is not None else beside(folder)
        preset = "llamagen" if notes["kind"] == "llamagen" and not classes else "default"
        return TextToImage(generator, encoder, tokenizer, sizes_of(vocabulary), vocabulary, other, preset)

    @property
    def device(self) -> torch.device:
        return next(self.generator.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.generator.parameters()).dtype

    @property
    def has_ar_model(self) -> bool:
        return self._twin is not None

    @property
    def ar_model(self) -> ARTransformer:
        """The autoregressive twin. ValueError when there is none, or it belongs to another tokenizer or encoder."""
        if self._twin is None:
            raise ValueError(
                "this model has no autoregressive twin, which modes ar and hybrid need: draw in mode mar, or put the "
                "twin's folder beside the model's, with -ar after its name"
            )
        if isinstance(self._twin, Path):
            parts = {"tokenizer": self.tokenizer}
            if self.generator.config.classes is None:
                parts["text_encoder"] = self.text_encoder
            fingerprints = {name: checkpoint.fingerprint(part.identity()) for name, part in parts.items()}
            twin = load_ar_model(self._twin, fingerprints, self.dtype)
            validate_ar_model(twin, self.generator.config)
            set_attention_backend(twin, self.generator.layers[0].attention.how)
            self._twin = twin.to(self.device).requires_grad_(False)
        return self._twin

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        size: Size | None = None,
        settings: SamplingParams | None = None,
        negative: str = "",
        canvas: TokenGrid | None = None,
    ) -> Iterator[SamplingProgress]:
        """The pictures of the prompts after each step. Stop asking and the drawing stops.

        seeds     one for each prompt: the same prompt, seed and settings draw the same picture
        settings  None: those of the model's preset
        negative  what guidance should lead away from, for all pictures
        canvas    given tokens and holes to fill (one row for each prompt, or one for all) instead of a blank

        Everything is checked before the first step: ValueError in one line.
        """
        prompts = _checked_prompts(prompts, "prompt")
        if len(seeds) != len(prompts):
            raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts: give one for each")
        settings = self.fit_params(SAMPLERS[self.preset] if settings is None else settings)
        each = self.validate_candidates(settings.candidates)
        canvas = self._checked_canvas(canvas, self.validate_size(size), len(prompts)).repeat(each)
        condition, instead = self.condition(prompts).repeat(each), self.negative(negative, len(canvas))
        phases = self.stages(
            canvas, best_of_n.candidate_seeds(_checked_seeds(seeds), each), settings, condition, instead
        )
        return _progress(phases, canvas, each, self.sampler(condition) if each > 1 else None)

    def images(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        size: Size | None = None,
        settings: SamplingParams | None = None,
        negative: str = "",
        canvas: TokenGrid | None = None,
    ) -> list[Image.Image]:
        """The finished pictures; arguments as for `draw`."""
        *_, last = self.draw(prompts, seeds, size, settings, negative, canvas)
        return self.images_of(last.canvas)

    def validate_size(self, size: Size | None) -> Size:
        """The size itself, or the default for None. Raises ValueError, naming the nearest, for one not in `sizes`."""
        if size is None:
            return self.sizes[0]
        if tuple(size) in self.sizes:
            return tuple(size)
        width, height = size
        if width < 1 or height < 1:
            can = _listed(self.sizes[:8]) + (", ..." if len(self.sizes) > 8 else "")
            raise ValueError(f"size {width}x{height}: give a width and a height in pixels, one of {can}")
        if self.bucket_classes:
            nearest = self.rounded((width, height))
            can = f"the {len(self.sizes)} buckets of {', '.join(map(str, self.bucket_classes))}"
        else:
            nearest = min(self.sizes, key=lambda other: _distance((width, height), other))
            can = _listed(self.sizes)
        raise ValueError(
            f"this model cannot draw {width}x{height}: the nearest size is {nearest[0]}x{nearest[1]}; it draws {can}"
        )

    def validate_candidates(self, candidates: int) -> int:
        """The number itself. ValueError for an impossible one."""
        best_of_n.validate_candidates(candidates)
        return candidates

    def rounded(self, size: Size) -> Size:
        """The nearest size to draw, for a model of buckets. One with a fixed list has the nearest of the very shape, so
        that what asked for 128x128 is drawn by a model of 256x256; a shape that it lacks stays as it is.

        `draw` does not round: who asked should be told. Raises ValueError for no size at all.
        """
        width, height = size
        if self.bucket_classes:
            return rounded((width, height), self.bucket_classes)
        alike = [own for own in self.sizes if own[0] * height == own[1] * width and min(width, height) > 0]
        return nearest_bucket((width, height), alike) if alike else (width, height)

    def grid(self, size: Size) -> tuple[int, int]:
        """(rows, columns) of the tokens of a picture of (width, height)."""
        side = self.tokenizer.config.downsample
        return size[1] // side, size[0] // side

    def blank(self, batch: int, size: Size | None = None) -> TokenGrid:
        """An empty canvas of a size that the model draws."""
        return self.generator.token_space.blank(batch, self.grid(self.validate_size(size)), self.device)

    def condition(self, prompts: Sequence[str]) -> Condition:
        """What the generator reads of the prompts."""
        return self.text_encoder.encode(list(prompts)).trim().to(self.device, self.dtype)

    def negative(self, text: str, batch: int) -> Condition | None:
        """The text that takes the place of the null condition, once for each picture; None when there is none."""
        if not text.strip():
            return None
        return self.condition(_checked_prompts([text], "negative prompt")).repeat(batch)

    def fit_params(self, params: SamplingParams) -> SamplingParams:
        """The options as this model draws."""
        return self.generator.token_space.fit_params(params)

    def with_adapters(self, adapters: Sequence[tuple[LoraAdapter, float]]) -> "TextToImage":
        """This model with LoRA adapters, each with a weight. The parts are the same, and this one stays as it is.

        ValueError for a model whose generator takes no adapters.
        """
        if not self.generator.token_space.takes_adapters:
            raise ValueError("LoRA adapters are for masked generators of codes; this model is none")
        adapted = AdaptedGenerator(self.generator, adapters)
        return TextToImage(
            adapted, self.text_encoder, self.tokenizer, self.sizes, self.vocabulary, self._twin, self.preset
        )

    def sampler(self, condition: Condition, negative: Condition | None = None) -> Sampler:
        """What samples the tokens of a step."""
        space = self.generator.token_space
        model = self.cuda_graphs if self.device.type == "cuda" and space.fixed_shapes else self.generator
        return space.sampler(model, condition, negative, self.head)

    @cached_property
    def cuda_graphs(self) -> CUDAGraphRunner:
        """The generator, for a GPU: its evaluations are replayed. Once drawn with, it must not be moved."""
        return CUDAGraphRunner(self.generator)

    def stages(
        self,
        canvas: TokenGrid,
        seeds: Sequence[int],
        settings: SamplingParams,
        condition: Condition,
        negative: Condition | None = None,
    ) -> list[SamplingStage]:
        """Who draws what: the twin its prefix, if settings ask for one, then MaskGIL the holes that are left.

        Raises ValueError for an impossible seed or setting, and for a prefix without a twin.
        """
        settings = self.fit_params(settings)
        prefix = ARPrefix.of(settings, canvas.mask.shape[1])
        if prefix is None or prefix.tokens == 0:
            return [SamplingStage(self.sampler(condition, negative), self.plan(canvas, seeds, settings))]
        _check_holes(canvas.num_masked())
        written = prefix_plan(canvas, _checked_seeds(seeds), prefix)
        phases = [SamplingStage(ARSampler(self.ar_model, condition, negative), written)]
        left = TokenGrid(canvas.tokens, unmask_prefix_only(canvas.mask, len(written)), canvas.grid)
        if any(left.num_masked()):
            plan = self.plan(left, seeds, settings, first=len(written), since=0)  # the twin's tokens can be doubted
            phases.append(SamplingStage(self.sampler(condition, negative), plan))
        return phases

    def plan(
        self,
        canvas: TokenGrid,
        seeds: Sequence[int],
        settings: SamplingParams,
        first: int = 0,
        since: int | None = None,
        end: bool = False,
    ) -> list[StepParams]:
        """Steps that fill the canvas's holes; a seed for each of its rows.

        A part of a picture with fewer holes than steps takes fewer steps, and all pictures of one plan as few. first
        numbers the first step, where others came before; since is the step from which on a revision may doubt what was
        decided (left out: first). end: the plan is the end of one for whole pictures, from where as much is decided.
        Raises ValueError for an impossible seed or setting.
        """
        seeds, (order, schedule) = _checked_seeds(seeds), self.generator.token_space.order_and_schedule(settings)
        schedule.counts(settings.steps, canvas.mask.shape[1])  # refuses more steps than a picture has tokens
        holes = canvas.num_masked()
        if not end:
            _check_holes(holes)
        return masked_plan(
            holes,
            steps=settings.steps if end else min(settings.steps, min(holes)),
            total=canvas.mask.shape[1] if end else None,
            curve=schedule,
            order=order,
            temperature=settings.temperature,
            choice_temperature=settings.choice_temperature,
            guidance=Guidance.of(settings),
            seeds=seeds,
            top_k=settings.top_k,
            top_p=settings.top_p,
            refinement_passes=settings.refinement_passes,
            remask_fraction=settings.remask_fraction,
            remask_since=since,
            first_step=first,
            device=canvas.mask.device,
        )

    @torch.no_grad()
    def pixels(self, canvas: TokenGrid) -> Float[Tensor, "B 3 H W"]:
        """Pictures in [-1, 1]; cells that are not decided yet are flat grey.

        Under the grey each hole takes the nearest decided token, so that the tokenizer, which looks across cells, draws
        the edges of the decided ones as if the picture went on.
        """
        tokens = fill_nearest(self.generator.token_space.without_masked(canvas), canvas.mask, canvas.grid)
        pixels = self.tokenizer.decode(tokens, canvas.grid).float().clamp(-1, 1)
        side = self.tokenizer.config.downsample
        grey = canvas.mask.unflatten(1, canvas.grid)[:, None]
        return pixels.masked_fill(grey.repeat_interleave(side, 2).repeat_interleave(side, 3), 0.0)

    def images_of(self, canvas: TokenGrid) -> list[Image.Image]:
        """`pixels` as RGB images."""
        array = ((self.pixels(canvas) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(picture, "RGB") for picture in array]

    def _checked_canvas(self, canvas: TokenGrid | None, size: Size, batch: int) -> TokenGrid:
        if canvas is None:
            return self.blank(batch, size)
        if canvas.grid != self.grid(size):
            raise ValueError(
                f"the canvas has {canvas.grid[0]} rows and {canvas.grid[1]} columns of tokens; "
                f"{size[0]}x{size[1]} needs {self.grid(size)[0]} and {self.grid(size)[1]}: give the size of the picture"
            )
        if len(canvas) not in (1, batch):
            raise ValueError(f"the canvas holds {len(canvas)} pictures for {batch} prompts: give 1 or {batch}")
        self.generator.token_space.validate_given(canvas, self.tokenizer.config)
        if len(canvas) < batch:
            canvas = canvas.rows(torch.zeros(batch, dtype=torch.long, device=canvas.mask.device))
        return TokenGrid(canvas.tokens.to(self.device), canvas.mask.to(self.device), canvas.grid)


def _load_released(
    folder: Path, device: torch.device | str, dtype: torch.dtype, attention: str, encoder_memory: str
) -> TextToImage:
    """A model in the layout of its release (maskgil/released/layout.py): its parts are not trained together anew, so
    there are no fingerprints to compare."""
    import text_encoder

    released = ReleasedFolder.open(folder)
    encoder = text_encoder.load(folder / TEXT_ENCODER, encoder_memory)
    generator, tokenizer = load_generator(released, dtype), load_vq(released)
    set_attention_backend(generator, attention)
    set_null_condition(generator, encoder.encode([""]).states[0])
    for module in (generator, tokenizer, encoder):
        module.to(device).requires_grad_(False)
    return TextToImage(generator, encoder, tokenizer, released.sizes, preset=released.sampler)


def _progress(
    phases: Sequence[SamplingStage],
    canvas: TokenGrid,
    candidates: int = 1,
    critic: Sampler | None = None,
) -> Iterator[SamplingProgress]:
    done, nfe, of = 0, 0, sum(len(phase.plan) for phase in phases)
    for phase in phases:
        filled = sample(phase.predict, canvas, phase.plan)
        for step, canvas in zip(phase.plan, filled, strict=True):
            done, nfe = done + 1, nfe + step.nfe_per_row
            if done < of or candidates == 1:
                yield SamplingProgress(done, of, nfe * candidates, best_of_n.first_candidates(canvas, candidates))
            else:
                chosen = canvas.rows(best_of_n.best_candidates(critic, canvas, candidates))
                yield SamplingProgress(done, of, best_of_n.candidates_nfe(nfe, candidates), chosen)


def fill_nearest(
    tokens: Int[Tensor, "B N"] | Float[Tensor, "B N C"], hole: Bool[Tensor, "B N"], grid: tuple[int, int]
) -> Int[Tensor, "B N"] | Float[Tensor, "B N C"]:
    """Every hole takes the decided token nearest to it; where nothing is decided, tokens stay."""
    if not bool(hole.any()):
        return tokens
    rows, columns = grid
    place = torch.arange(rows * columns, device=tokens.device)
    y, x = place // columns, place % columns
    distance = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
    nearest = distance.masked_fill(hole[:, None, :], rows**2 + columns**2).argmin(-1)
    return tokens[torch.arange(len(tokens), device=tokens.device)[:, None], nearest]


def _checked_prompts(prompts: Sequence[str], name: str) -> list[str]:
    if isinstance(prompts, str) or not prompts:
        raise ValueError(f"give a list of {name}s, at least one")
    for prompt in prompts:
        if not prompt.strip():
            raise ValueError(f"the {name} is empty: say what to draw, for example 'two cats on the beach'")
        if len(prompt) > MAX_PROMPT:
            raise ValueError(f"the {name} has {len(prompt):,} characters, at most {MAX_PROMPT:,} are read: shorten it")
    return list(prompts)


def _check_holes(holes: Sequence[int]) -> None:
    if not min(holes):
        raise ValueError("the canvas has a picture without holes, so nothing is left to draw: mark some cells")


def _checked_seeds(seeds: Sequence[int]) -> list[int]:
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed {seed!r}: give a whole number from 0 to {MAX_SEED}")
    return list(seeds)


def _vocabulary(path: Path) -> dict[str, Any]:
    try:
        vocabulary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: it lists the sizes and words of the model") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    try:
        sizes_of(vocabulary if isinstance(vocabulary, dict) else {})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return vocabulary


def _distance(one: Size, other: Size) -> float:
    """How different two sizes look: their shapes first, then their areas."""
    shape = abs(math.log(one[0] / one[1] / (other[0] / other[1])))
    return 4 * shape + abs(math.log(one[0] * one[1] / (other[0] * other[1])))


def _listed(sizes: Sequence[Size]) -> str:
    return ", ".join(f"{width}x{height}" for width, height in sizes) or "none"
