"""The AR model: image tokens in raster order, each from the condition and the tokens before it.

The sequence is [condition tokens | image tokens]; the logits of an image token are read one place before it, those of
the first one at the last condition token. Condition tokens are therefore moved to the right end of their columns (left
padding), whichever side they came padded on. Blocks are MaskGIL's, names are LlamaGen's (Sun et al. 2024,
arXiv 2406.06525), and with `zero_prefix` so is every number.

B batch, N image tokens, L condition tokens, S = L + N, D width, K codes, E width of a text state.
"""

from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskgil.condition import Condition
from maskgil.models.config import ModelConfig
from maskgil.models.transformer import (
    Block,
    CaptionEmbedding,
    KVCache,
    LMHead,
    RMSNorm,
    identity_rotation,
    initialize,
    rotation_1d,
    rotation_2d,
    zero_rotation,
)
from maskgil.params import SamplingParams
from maskgil.sampling.code_sampler import sample_tokens
from maskgil.sampling.code_space import CodeSpace
from maskgil.sampling.guidance import apply_guidance
from maskgil.sampling.loop import StepParams
from maskgil.sampling.scoring import log_probability
from maskgil.sampling.token_grid import TokenGrid


class ClassEmbedding(nn.Module):
    """One row a class; with a null condition one more, the last."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        assert config.classes is not None
        self.embedding_table = nn.Embedding(config.classes + (config.null == "caption"), config.dim)


class ARTransformer(nn.Module):
    """`forward` has MaskGIL's signature, so that one training loop and one objective serve both.

    zero_prefix: condition tokens as LlamaGen has them. Their rotation is zero, so that nothing chooses among them
    (query and key vanish, only the value speaks), and the null caption is masked like the caption it stands for.
    Without it condition tokens are not rotated, and the null caption is as long as it is.
    """

    def __init__(self, config: ModelConfig, zero_prefix: bool = False):
        super().__init__()
        if not config.causal:
            raise ValueError("the AR model needs a causal config; a bidirectional one belongs to MaskGIL")
        if config.rope == "released" or config.null == "mask":
            raise ValueError(
                f"rope {config.rope!r} with null {config.null!r}: 'released' rotation and the mask as null condition "
                "belong to MaskGIL; the AR model has rope 2d or 1d and null caption or none"
            )
        if zero_prefix and config.text_dim is not None and config.null_length != config.text_length:
            raise ValueError(
                f"LlamaGen's null caption is as long as its text: null_length {config.null_length}, "
                f"text_length {config.text_length}"
            )
        self.config, self.zero_prefix = config, zero_prefix
        self.tok_embeddings = nn.Embedding(config.codebook_size, config.dim)
        self.cls_embedding = ClassEmbedding(config) if config.text_dim is None else CaptionEmbedding(config)
        self.tok_dropout = nn.Dropout(config.token_dropout)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.output = LMHead(config.dim, config.codebook_size, config.codebook_size)
        self.apply(initialize)

    @property
    def kind(self) -> str:
        """What config.json of a model folder calls it."""
        return "llamagen" if self.zero_prefix else "autoregressive"

    @property
    def late_blocks(self) -> nn.ModuleList:
        """The blocks that see every position, the image's last."""
        return self.layers

    @property
    def token_space(self) -> "ARCodeSpace":
        """Codes in raster order: see maskgil/generator.py."""
        return ARCodeSpace(self.config.codebook_size, self.config.mask_id)

    def forward(
        self,
        tokens: Int[Tensor, "B N"],
        grid: tuple[int, int],
        condition: Condition,
        drop: Bool[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B N K"]:
        """Logits of every token given those before it (the last one is not read).

        Rows with `drop` see the null condition; grid is (rows, columns) with rows * columns = N.
        Raises ValueError for a condition of the wrong kind or length.
        """
        check_grid(tokens.shape[1], grid)
        prefix, valid = self.prefix(condition, drop)
        length = prefix.shape[1]
        x = self.tok_dropout(torch.cat([prefix, self.tok_embeddings(tokens[:, :-1])], dim=1))
        rotation = self.rotation(grid, length, x.device)[: x.shape[1]]
        mask = causal_mask(valid, 0, x.shape[1])
        for layer in self.layers:
            x = layer(x, rotation, mask)
        return self.output(self.norm(x[:, length - 1 :]))

    def prefix(
        self, condition: Condition, drop: Bool[Tensor, " B"] | None
    ) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
        """Embedded condition tokens, the real ones at the right end, and which those are."""
        config = self.config
        if drop is not None and config.null == "none":
            raise ValueError("this model has no null condition: it cannot drop its text, so guidance must be off (1)")
        expected = 1 if config.text_dim is None else config.text_dim
        if condition.states.shape[2] != expected:
            wants = f"text states of width {expected}" if config.text_dim else "class labels"
            raise ValueError(f"the condition is {condition.states.shape[2]} wide; this model reads {wants}")
        if isinstance(self.cls_embedding, ClassEmbedding):
            labels = condition.states[:, :, 0].long()
            if drop is not None:
                labels = labels.masked_fill(drop[:, None], config.classes or 0)
            return self.cls_embedding.embedding_table(labels), condition.mask
        if condition.length > config.text_length:
            raise ValueError(f"a condition of {condition.length} tokens; this model reads at most {config.text_length}")
        states, valid = right_aligned(condition)
        if drop is not None:
            null = self.cls_embedding.uncond_embedding
            assert null is not None
            null = null.to(states.dtype)
            if self.zero_prefix:
                states = torch.where(drop[:, None, None], null[-states.shape[1] :], states)
            else:
                length = max(len(null), states.shape[1])
                real = torch.arange(length, device=drop.device) >= length - len(null)
                states = torch.where(drop[:, None, None], _pad_left(null[None], length), _pad_left(states, length))
                valid = torch.where(drop[:, None], real, F.pad(valid, (length - valid.shape[1], 0)))
        return self.cls_embedding(states), valid

    def rotation(self, grid: tuple[int, int], length: int, device: torch.device) -> Float[Tensor, "S R 2"]:
        """Of `length` condition tokens and the image tokens of a grid."""
        config, (rows, columns) = self.config, grid
        before = zero_rotation if self.zero_prefix else identity_rotation
        if config.rope == "1d":
            image = rotation_1d(rows * columns, config.head_dim, config.rope_base, device)
        else:
            image = rotation_2d(rows, columns, config.head_dim, config.rope_base, device)
        return torch.cat([before(length, config.head_dim, device), image])


class ARDecodingState:
    """Pictures being written: the keys and values of all that was read, and the logits of the next token.

    `logits` (B K) belong to token number `written`; `read` takes that token (or several) and moves on.
    """

    def __init__(
        self, model: ARTransformer, grid: tuple[int, int], condition: Condition, drop: Bool[Tensor, " B"] | None = None
    ):
        prefix, self.valid = model.prefix(condition, drop)
        batch, length, _ = prefix.shape
        self.model, self.grid, self.length, self.room = model, grid, length, length + grid[0] * grid[1]
        self.rotation = model.rotation(grid, length, prefix.device)
        first: Any = model.layers[0]
        dtype, config = first.attention.wqkv.weight.dtype, model.config
        if torch.is_autocast_enabled(prefix.device.type):
            dtype = torch.get_autocast_dtype(prefix.device.type)
        self.caches = [
            KVCache(batch, self.room, config.heads, config.head_dim, dtype, prefix.device) for _ in model.layers
        ]
        self.logits = self._read(prefix)

    @property
    def written(self) -> int:
        """Image tokens read so far."""
        return self.caches[0].used - self.length

    def read(self, tokens: Int[Tensor, "B M"]) -> Float[Tensor, "B K"]:
        """Logits of the token after these, which follow the ones read before."""
        self.logits = self._read(self.model.tok_embeddings(tokens))
        return self.logits

    def _read(self, x: Float[Tensor, "B M D"]) -> Float[Tensor, "B K"]:
        start, end = self.caches[0].used, self.caches[0].used + x.shape[1]
        assert end < self.room, f"the picture has {self.room - self.length} tokens, and {end - self.length} were read"
        rotation, mask = self.rotation[start:end], causal_mask(self.valid, start, end)
        for layer, cache in zip(self.model.layers, self.caches, strict=True):
            x = layer(x, rotation, mask, cache)
        return self.model.output(self.model.norm(x[:, -1:]))[:, 0]


def validate_ar_condition(condition: Condition) -> None:
    """ValueError for texts of an expert (maskgil/experts.py): the AR model has learned the first generator's things."""
    if bool(condition.experts.any()):
        raise ValueError(
            "the autoregressive model has not learned all things of this prompt: draw it in mode masked, or name others"
        )


class ARSampler:
    """What `fill` calls to continue pictures in reading order, one token a step: see maskgil.sampling.loop.raster.

    It owns the caches of one canvas; given tokens on the way are read, never changed. `condition` holds one text a row,
    `negative` takes the place of the null condition. `nfe` counts the evaluations that each row has cost.

    Raises ValueError for texts that the AR model has not learned.
    """

    def __init__(self, model: ARTransformer, condition: Condition, negative: Condition | None = None):
        validate_ar_condition(condition)
        self.model, self.condition, self.negative = model, condition, negative
        self.nfe = torch.zeros(len(condition), dtype=torch.long, device=condition.mask.device)
        self.state: ARDecodingState | None = None
        self.guided = torch.zeros(0, dtype=torch.long)

    def __call__(
        self, canvas: TokenGrid, step: StepParams, where: Bool[Tensor, "B N"]
    ) -> tuple[Int[Tensor, "B N"], Float[Tensor, "B N"]]:
        """Raises ValueError unless the step decides the first masked token of its rows, the same place in each."""
        place = next_masked_position(canvas, where)
        if self._starts_anew(canvas, step, place):
            self.state, self.guided = self._start(canvas, step), step.guided
        assert self.state is not None
        if place > self.state.written:
            tokens = canvas.tokens[:, self.state.written : place]
            self.state.read(torch.cat([tokens, tokens[self.guided]]))
        logits, rows = self.state.logits.float()[:, None], len(step)
        conditional, null = logits[:rows], logits[rows:]
        if len(self.guided):
            led = apply_guidance(null, conditional[self.guided], step.scale[self.guided])
            conditional = conditional.index_copy(0, self.guided, led)
        self.nfe = self.nfe + step.nfe
        tokens, confidence = sample_tokens(conditional, step)
        return tokens.expand(where.shape), confidence.expand(where.shape)

    def likelihood(self, canvas: TokenGrid, rows: Int[Tensor, " D"]) -> Float[Tensor, "D N"]:
        """Log-probability of each token of these rows given the text and the tokens before it: one evaluation."""
        drawn = canvas.rows(rows)
        logits = self.model(drawn.tokens, drawn.grid, self.condition.rows(rows)).float()
        return log_probability(logits, drawn.tokens)

    def _starts_anew(self, canvas: TokenGrid, step: StepParams, place: int) -> bool:
        """Nothing is read yet, the canvas is another, or other rows are guided: read again, in one evaluation."""
        writing = self.state
        if writing is None or writing.grid != canvas.grid or place < writing.written:
            return True
        return len(self.guided) != len(step.guided) or not torch.equal(self.guided, step.guided)

    def _start(self, canvas: TokenGrid, step: StepParams) -> ARDecodingState:
        if len(step.guided) == 0:
            return ARDecodingState(self.model, canvas.grid, self.condition)
        other = self.condition if self.negative is None else self.negative
        both = Condition.cat([self.condition, other.rows(step.guided)])
        drop = None
        if self.negative is None:
            drop = torch.arange(len(both), device=step.guided.device) >= len(self.condition)
        return ARDecodingState(self.model, canvas.grid, both, drop)


class ARCodeSpace(CodeSpace):
    """Codes that are written one after the other, in raster order (maskgil/generator.py)."""

    fixed_shapes: ClassVar[bool] = False  # the cache grows with the tokens
    autoregressive: ClassVar[bool] = True
    takes_adapters: ClassVar[bool] = False

    def fit_params(self, params: SamplingParams) -> SamplingParams:
        """Mode ar: the model knows no other, and refines nothing."""
        return replace(params, mode="ar", ar_tokens=None, refinement_passes=0)

    def sampler(self, model: Any, condition: Condition, negative: Condition | None, head: Any = None) -> ARSampler:
        """Continues pictures token by token."""
        return ARSampler(model, condition, negative)


def next_masked_position(canvas: TokenGrid, where: Bool[Tensor, "B N"]) -> int:
    """The one place that a step decides: the first masked token of every row that it decides anything in."""
    places = where.any(0).nonzero()[:, 0].tolist()
    if len(places) != 1 or bool(canvas.mask[where.any(1), : places[0]].any()):
        raise ValueError(
            "an autoregressive model decides one token a step, the first masked one, the same place in all pictures; "
            f"this step asks for places {places[:4]}: plan it with raster(), pictures with other masked tokens apart"
        )
    return places[0]


def causal_mask(valid: Bool[Tensor, "B L"], start: int, end: int) -> Bool[Tensor, "#B 1 Q T"] | None:
    """Which of the first T = `end` tokens each token of start .. end - 1 looks at: real ones up to itself, and itself.

    Padding attends only to itself, which keeps its softmax finite. None when a single token looks at everything.
    """
    place = torch.arange(end, device=valid.device)
    query = place[start:, None]
    if valid.is_cpu and bool(valid.all()):
        return None if end - start == 1 else (place <= query)[None, None]
    real = F.pad(valid, (0, max(end - valid.shape[1], 0)), value=True)[:, None, :end]
    return ((place <= query) & real | (place == query))[:, None]


def right_aligned(condition: Condition) -> tuple[Float[Tensor, "B L E"], Bool[Tensor, "B L"]]:
    """States and mask with each row's real tokens moved to the end, in their order."""
    order = condition.mask.long().argsort(dim=1, stable=True)
    return condition.states.take_along_dim(order[..., None], 1), condition.mask.take_along_dim(order, 1)


def check_grid(tokens: int, grid: tuple[int, int]) -> None:
    if grid[0] * grid[1] != tokens:
        raise ValueError(f"{tokens} tokens do not fill a grid of {grid[0]} rows and {grid[1]} columns")


def _pad_left(states: Float[Tensor, "B L E"], length: int) -> Float[Tensor, "B S E"]:
    return F.pad(states, (0, 0, length - states.shape[1], 0))
