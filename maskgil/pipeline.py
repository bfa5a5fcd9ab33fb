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

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from maskgil import checkpoint
from maskgil.aspect_buckets import bucket_classes
from maskgil.class_labels import ClassLabels
from maskgil.condition import Condition, ConditionEncoder
from maskgil.generator import Generator, Sampler, Tokenizer
from maskgil.lora_adapters import AdaptedGenerator, LoraAdapter
from maskgil.model_parts import load_parts
from maskgil.models.ar import ARSampler, ARTransformer
from maskgil.models.diffusion_head import DDPM, DPMSolver
from maskgil.models.transformer import set_attention_backend
from maskgil.params import SAMPLERS, SamplingParams
from maskgil.picture_sizes import PictureSizes, Size
from maskgil.prompt_checks import validate_prompts, validate_seeds
from maskgil.sampling import best_of_n
from maskgil.sampling.ar_prefix import (
    ARPrefix,
    SamplingStage,
    load_ar_model,
    prefix_plan,
    unmask_prefix_only,
    validate_ar_model,
)
from maskgil.sampling.cuda_graphs import CUDAGraphRunner
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.loop import StepParams
from maskgil.sampling.plans import masked_plan
from maskgil.sampling.progress import SamplingProgress, run_stages
from maskgil.sampling.token_grid import TokenGrid, fill_nearest


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
        text_encoder: ConditionEncoder,
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
        self.generator, self.text_encoder, self.tokenizer = generator, text_encoder, tokenizer
        self.vocabulary = vocabulary or {}
        self.picture_sizes = PictureSizes(
            tuple((width, height) for width, height in sizes),
            tokenizer.config.downsample,
            tuple(bucket_classes(self.vocabulary)),
        )
        self.preset = preset
        # An autoregressive generator draws alone: it is its own twin.
        self.autoregressive = generator.token_space.autoregressive
        self._twin: Any = generator if self.autoregressive else twin
        generator.token_space.validate_grids([self.grid(size) for size in self.sizes], tokenizer.config.downsample)
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
        return TextToImage(*load_parts(name, device, dtype, attention, twin, encoder_memory))

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
            parts: dict[str, Any] = {"tokenizer": self.tokenizer}
            if self.generator.config.classes is None:
                parts["text_encoder"] = self.text_encoder
            fingerprints = {name: checkpoint.fingerprint(part.identity()) for name, part in parts.items()}
            twin = load_ar_model(self._twin, fingerprints, self.dtype)
            validate_ar_model(twin, self.generator.config)
            generator: Any = self.generator
            set_attention_backend(twin, generator.layers[0].attention.how)
            self._twin = twin.to(self.device).requires_grad_(False)
        assert isinstance(self._twin, ARTransformer)
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
        prompts = validate_prompts(prompts, "prompt")
        if len(seeds) != len(prompts):
            raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts: give one for each")
        settings = self.fit_params(SAMPLERS[self.preset] if settings is None else settings)
        each = settings.candidates
        canvas = self._checked_canvas(canvas, self.validate_size(size), len(prompts)).repeat(each)
        condition, instead = self.condition(prompts).repeat(each), self.negative(negative, len(canvas))
        phases = self.stages(
            canvas, best_of_n.candidate_seeds(validate_seeds(seeds), each), settings, condition, instead
        )
        return run_stages(phases, canvas, each, self.sampler(condition) if each > 1 else None)

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

    @property
    def sizes(self) -> list[Size]:
        """The sizes that are drawn, (width, height) in pixels; the first is the default."""
        return list(self.picture_sizes.sizes)

    def validate_size(self, size: Size | None) -> Size:
        """The size itself, or the default for None. Raises ValueError, naming the nearest, for another."""
        return self.picture_sizes.validate(size)

    def rounded(self, size: Size) -> Size:
        """The nearest size to draw: see `PictureSizes.rounded`. Raises ValueError for no size at all."""
        return self.picture_sizes.rounded(size)

    def grid(self, size: Size) -> tuple[int, int]:
        """(rows, columns) of the tokens of a picture of (width, height)."""
        return self.picture_sizes.grid(size)

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
        return self.condition(validate_prompts([text], "negative prompt")).repeat(batch)

    def fit_params(self, params: SamplingParams) -> SamplingParams:
        """The options as this model draws."""
        return self.generator.token_space.fit_params(params)

    def with_adapters(self, adapters: Sequence[tuple[LoraAdapter, float]]) -> "TextToImage":
        """This model with LoRA adapters, each with a weight. The parts are the same, and this one stays as it is.

        ValueError for a model whose generator takes no adapters.
        """
        if not self.generator.token_space.takes_adapters:
            raise ValueError("LoRA adapters are for masked generators of codes; this model is none")
        assert isinstance(self.generator, nn.Module)
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
        generator: Any = self.generator
        return CUDAGraphRunner(generator)

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
        written = prefix_plan(canvas, validate_seeds(seeds), prefix)
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
        seeds, (order, schedule) = validate_seeds(seeds), self.generator.token_space.order_and_schedule(settings)
        schedule.counts(settings.steps, canvas.mask.shape[1])  # refuses more steps than a picture has tokens
        holes = canvas.num_masked()
        if not end:
            _check_holes(holes)
        plan = masked_plan(
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
        return self.generator.token_space.finish_plan(plan, canvas, seeds, settings)

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


def _check_holes(holes: Sequence[int]) -> None:
    if not min(holes):
        raise ValueError("the canvas has a picture without holes, so nothing is left to draw: mark some cells")
