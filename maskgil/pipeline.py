"""Prompts -> pictures: a text encoder, a generator and a tokenizer put together.

    import text_encoder

    draws = TextToImage.load("scenes", text_encoder.load)
    draws.images(["two cats on the beach"], seeds=[7])[0].save("cats.png")
    for progress in draws.draw(["a red apple"], seeds=[1], size=(320, 192)):
        show(draws.images_of(progress.canvas))     # every step, masked cells grey

A class-driven model is drawn from in the same way, with class numbers or names as prompts (maskgil/class_labels.py):

    TextToImage.load("weights/imagenet-b").images(["207"], seeds=[0], settings=SAMPLERS["reference"])

eMIGM is drawn from in the same way too. Its tokens are vectors, with a continuous tokenizer in the VQ tokenizer's place
(maskgil/tokenizers/autoencoder.py, vq_latents.py).

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
from maskgil.experts import EXPERTS_KEY, ExpertRouter
from maskgil.generator import Generator, Sampler, Tokenizer
from maskgil.lora_adapters import AdaptedGenerator, LoraAdapter
from maskgil.model_parts import EncoderLoader, load_parts
from maskgil.models.ar import ARSampler, ARTransformer
from maskgil.models.diffusion_samplers import DDPM, DPMSolver
from maskgil.params import SAMPLERS, SamplingParams
from maskgil.picture_sizes import PictureSizes, Size
from maskgil.prompt_checks import validate_prompts, validate_seeds
from maskgil.sampler_presets import preset_for
from maskgil.sampling import best_of_n
from maskgil.sampling.ar_prefix import (
    ARPrefix,
    SamplingStage,
    open_ar_model,
    prefix_plan,
    unmask_prefix_only,
    validate_ar_model,
)
from maskgil.sampling.cuda_graphs import CUDAGraphRunner
from maskgil.sampling.loop import StepParams
from maskgil.sampling.params_plan import plan_for, validate_masked
from maskgil.sampling.progress import SamplingProgress, run_stages
from maskgil.sampling.token_grid import TokenGrid, fill_nearest


class TextToImage:
    """Draws the given sizes only: those that the generator was trained for, the first as the default.

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
        ar_model: ARTransformer | Path | None = None,
        preset: str = "default",
    ):
        """`ar_model`: a model, or a folder that is loaded at the first use. `preset`: name of the default options."""
        width = generator.config.text_dim or ClassLabels.width
        if width != text_encoder.width:
            raise ValueError(
                f"the generator reads text states of width {width}, this text encoder gives {text_encoder.width}"
            )
        generator.token_space.validate_tokenizer(tokenizer.config)
        self.generator, self.text_encoder, self.tokenizer = generator, text_encoder, tokenizer
        self.vocabulary, self.preset = vocabulary or {}, preset
        self.router = ExpertRouter(self.vocabulary.get(EXPERTS_KEY, ()))
        self.picture_sizes = PictureSizes(
            tuple((width, height) for width, height in sizes),
            tokenizer.config.downsample,
            tuple(bucket_classes(self.vocabulary)),
        )
        # An autoregressive generator draws alone: it is its own AR model.
        self.autoregressive = generator.token_space.autoregressive
        self._ar_model: Any = generator if self.autoregressive else ar_model
        generator.token_space.validate_grids([self.grid(size) for size in self.sizes], tokenizer.config.downsample)
        if ar_model is not None and not isinstance(ar_model, Path):
            validate_ar_model(ar_model, generator.config)

    @staticmethod
    def load(
        name: str | Path,
        open_encoder: EncoderLoader | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        attention: str = "sdpa",
        ar_model: str | Path | None = None,
        encoder_memory: str = "full",
    ) -> "TextToImage":
        """A bundled name, a folder or a Hugging Face id, with generator/, text_encoder/, tokenizer/, vocabulary.json.

        open_encoder    opens a text encoder's folder: `text_encoder.load`. A class-driven model needs none
        ar_model        the AR model's folder; None: the folder beside this one whose name ends in -ar, if there is one
        encoder_memory  full, bf16, 8bit, 4bit or offload (text_encoder/encoder_memory.py)

        A class-driven model has no text_encoder/, and may have class_names.json. Released models are loaded from their
        own layout.

        Raises ValueError for a part that is missing or broken, and for a tokenizer or text encoder other than those
        that the generator was trained with (its config.json keeps their fingerprints).
        """
        return TextToImage(*load_parts(name, open_encoder, device, dtype, attention, ar_model, encoder_memory))

    @property
    def device(self) -> torch.device:
        return next(self.generator.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.generator.parameters()).dtype

    @property
    def has_ar_model(self) -> bool:
        return self._ar_model is not None

    @property
    def ar_model(self) -> ARTransformer:
        """The AR model. ValueError when there is none, or it belongs to another tokenizer or encoder."""
        if self._ar_model is None:
            raise ValueError(
                "this model has no AR model, which modes ar and hybrid need: draw in mode masked, or put the "
                "AR model's folder beside the model's, with -ar after its name"
            )
        if isinstance(self._ar_model, Path):
            parts: dict[str, Any] = {"tokenizer": self.tokenizer}
            if self.generator.config.classes is None:
                parts["text_encoder"] = self.text_encoder
            fingerprints = {name: checkpoint.fingerprint(part.identity()) for name, part in parts.items()}
            self._ar_model = open_ar_model(self._ar_model, self.generator, fingerprints)
        assert isinstance(self._ar_model, ARTransformer)
        return self._ar_model

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
        canvas    given and masked tokens (one row for each prompt, or one for all); None: all are masked

        Everything is checked before the first step: ValueError in one line.
        """
        prompts = validate_prompts(prompts, "prompt")
        if len(seeds) != len(prompts):
            raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts: give one for each")
        settings = self.fit_params(settings or SAMPLERS[preset_for(self.preset, negative=negative)])
        each = settings.candidates
        size = self.validate_size(size)
        grid = self.blank(len(prompts), size) if canvas is None else _given_grid(self, canvas, size, len(prompts))
        canvas = grid.repeat(each)
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

    def grid(self, size: Size) -> tuple[int, int]:
        """(rows, columns) of the tokens of a picture of (width, height)."""
        return self.picture_sizes.grid(size)

    def blank(self, batch: int, size: Size | None = None) -> TokenGrid:
        """An empty canvas of a size that the model draws."""
        return self.generator.token_space.blank(batch, self.grid(self.validate_size(size)), self.device)

    def condition(self, prompts: Sequence[str]) -> Condition:
        """What the generator reads of the prompts."""
        return self.router.condition(self.text_encoder, prompts).trim().to(self.device, self.dtype)

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
            adapted, self.text_encoder, self.tokenizer, self.sizes, self.vocabulary, self._ar_model, self.preset
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
        """The AR model's stage, if the settings ask for one, then MaskGIL's, which samples the tokens that are left.

        Raises ValueError for an impossible seed or setting, and for a prefix without an AR model.
        """
        settings = self.fit_params(settings)
        prefix = ARPrefix.of(settings, canvas.mask.shape[1])
        if prefix is None or prefix.tokens == 0:
            return [SamplingStage(self.sampler(condition, negative), self.plan(canvas, seeds, settings))]
        validate_masked(canvas.num_masked())
        written = prefix_plan(canvas, validate_seeds(seeds), prefix)
        phases = [SamplingStage(ARSampler(self.ar_model, condition, negative), written, autoregressive=True)]
        left = TokenGrid(canvas.tokens, unmask_prefix_only(canvas.mask, len(written)), canvas.grid)
        if any(left.num_masked()):
            plan = self.plan(left, seeds, settings, first=len(written), since=0)  # may remask the AR model's tokens
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
        """Steps that fill the masked tokens: see `plan_for`. ValueError for an impossible seed or setting."""
        return plan_for(self.generator.token_space, canvas, seeds, settings, first, since, end)

    @torch.no_grad()
    def pixels(self, canvas: TokenGrid) -> Float[Tensor, "B 3 H W"]:
        """Pictures in [-1, 1]; masked cells are flat grey.

        Each masked cell is decoded as its nearest decided token, so that the tokenizer, which looks across cells, does
        not darken the edges of the decided ones.
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


def _given_grid(model: TextToImage, grid: TokenGrid, size: Size, batch: int) -> TokenGrid:
    """A given grid with one row for each of `batch` pictures, on the model's device. ValueError when it does not
    fit."""
    rows, columns = model.grid(size)
    if grid.grid != (rows, columns):
        raise ValueError(
            f"the canvas has {grid.grid[0]} rows and {grid.grid[1]} columns of tokens; "
            f"{size[0]}x{size[1]} needs {rows} and {columns}: give the size of the picture"
        )
    if len(grid) not in (1, batch):
        raise ValueError(f"the canvas holds {len(grid)} pictures for {batch} prompts: give 1 or {batch}")
    model.generator.token_space.validate_given(grid, model.tokenizer.config)
    if len(grid) < batch:
        grid = grid.rows(torch.zeros(batch, dtype=torch.long, device=grid.mask.device))
    return TokenGrid(grid.tokens.to(model.device), grid.mask.to(model.device), grid.grid)
