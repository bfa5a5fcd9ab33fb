"""What the pipeline asks of a generator, and of the tokens that it draws.

MaskGIL, aMUSEd and Meissonic draw codes (maskgil/sampling/code_space.py), eMIGM draws vectors
(maskgil/sampling/latent_space.py). A generator names its token space; no other code asks which of the two it is.

B pictures, N tokens, C channels of a continuous token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskgil.condition import Condition
from maskgil.params import SamplingParams
from maskgil.sampling.loop import StepParams
from maskgil.sampling.schedules import MaskSchedule
from maskgil.sampling.token_grid import TokenGrid


@runtime_checkable
class Sampler(Protocol):
    """Samples the tokens of a step, and scores the tokens of a grid; for one condition a row."""

    def __call__(
        self, canvas: TokenGrid, step: StepParams, where: Bool[Tensor, "B N"]
    ) -> tuple[Tensor, Float[Tensor, "B N"]]: ...

    def likelihood(self, canvas: TokenGrid, rows: Int[Tensor, " D"]) -> Float[Tensor, "D N"]: ...


@dataclass(frozen=True)
class HiddenTokens:
    """What a generator has to predict in training.

    tokens     of whole pictures
    hidden     which of them it does not see
    weight     w(t) of each row's tokens; None: 1
    smoothing  of labels, for codes
    repeats    times and noises that a diffusion head sees of each hidden vector
    draws      random numbers of a diffusion head, on the tokens' device
    """

    tokens: Int[Tensor, "B N"] | Float[Tensor, "B N C"]
    hidden: Bool[Tensor, "B N"]
    weight: Float[Tensor, " B"] | None
    smoothing: float
    repeats: int
    draws: torch.Generator


@runtime_checkable
class TokenSpace(Protocol):
    """The tokens that a generator draws: codes of a codebook, or vectors.

    fixed_shapes    whether every evaluation of a batch has the same shapes, so that CUDA graphs can replay it
    autoregressive  whether tokens are drawn one after the other, in raster order
    takes_adapters  whether LoRA adapters can be applied to the generator (maskgil/lora_adapters.py)
    tokenizer_kind  the kind of its tokenizer's folder (maskgil/checkpoint.py)
    """

    fixed_shapes: ClassVar[bool]
    autoregressive: ClassVar[bool]
    takes_adapters: ClassVar[bool]
    tokenizer_kind: ClassVar[str]

    @property
    def codebook_size(self) -> int | None:
        """The number of codes; None for vectors."""
        ...

    def validate_tokenizer(self, config: Any) -> None:
        """Raises ValueError when the tokenizer of this config has other tokens."""
        ...

    def validate_grids(self, grids: Sequence[tuple[int, int]], downsample: int) -> None:
        """Raises ValueError for a grid of (rows, columns), each token `downsample` pixels wide, that the generator
        cannot draw."""
        ...

    def validate_given(self, grid: TokenGrid, tokenizer_config: Any) -> None:
        """Raises ValueError for a grid whose given tokens are none of this space."""
        ...

    def blank(self, batch: int, grid: tuple[int, int], device: torch.device | str) -> TokenGrid:
        """A grid of only masked tokens."""
        ...

    def without_masked(self, grid: TokenGrid) -> Int[Tensor, "B N"] | Float[Tensor, "B N C"]:
        """The tokens with 0 where they are masked."""
        ...

    def fit_params(self, params: SamplingParams) -> SamplingParams:
        """The parameters as these tokens are drawn."""
        ...

    def order_and_schedule(self, params: SamplingParams) -> tuple[str, MaskSchedule]:
        """Decoding order and mask schedule of the parameters, as they are read for these tokens."""
        ...

    def finish_plan(
        self, plan: list[StepParams], canvas: TokenGrid, seeds: Sequence[int], params: SamplingParams
    ) -> list[StepParams]:
        """The plan with what the parameters ask only of these tokens."""
        ...

    def sampler(self, model: Any, condition: Condition, negative: Condition | None, head: Any) -> Sampler:
        """A sampler of `model`. `head`: how a diffusion head samples; codes need none."""
        ...

    def open_tokenizer(self, folder: str | Path) -> Any:
        """The tokenizer of these tokens, from its folder. ValueError as checkpoint.load."""
        ...

    def hidden_outputs(
        self,
        model: Any,
        tokens: Tensor,
        grid: tuple[int, int],
        hidden: Bool[Tensor, "B N"],
        condition: Condition,
        drop: Bool[Tensor, " B"] | None,
    ) -> Float[Tensor, "B N _"]:
        """What the model gives for tokens of which some are hidden: what `hidden_loss` reads."""
        ...

    def hidden_loss(self, model: Any, outputs: Float[Tensor, "B N _"], target: HiddenTokens) -> Float[Tensor, ""]:
        """Mean over the hidden tokens of w * -log p, or of a bound of it; 0 where none is hidden."""
        ...

    def log_likelihood(
        self, model: Any, grid: TokenGrid, hidden: Bool[Tensor, "B N"], condition: Condition
    ) -> Float[Tensor, "B N"]:
        """Log-probability in nats of the token at each place of `hidden`, given the condition and the tokens that are
        neither hidden nor masked: one evaluation of the model, without guidance. Elsewhere the value has no meaning."""
        ...


@runtime_checkable
class Generator(Protocol):
    """A module that predicts masked tokens. `config` has text_dim and classes."""

    config: Any

    @property
    def token_space(self) -> TokenSpace: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


@runtime_checkable
class Tokenizer(Protocol):
    """What is asked of a tokenizer: see maskgil/tokenizers/vq.py. `config` has downsample and codebook_size; that of a
    continuous one, whose tokens are (B, N, C), has channels instead (maskgil/tokenizers/autoencoder.py,
    maskgil/tokenizers/vq_latents.py)."""

    config: Any

    def encode(self, pixels: Float[Tensor, "B 3 H W"]) -> Int[Tensor, "B N"] | Float[Tensor, "B N C"]: ...

    def decode(
        self, tokens: Int[Tensor, "B N"] | Float[Tensor, "B N C"], grid: tuple[int, int]
    ) -> Float[Tensor, "B 3 H W"]: ...

    def identity(self) -> dict[str, Tensor]: ...
