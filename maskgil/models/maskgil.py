"""MaskGIL: image tokens, some of them masked, and a condition -> logits of every token at once.

A text stands before the image tokens as a prefix without rotation; a class is one token there. Image tokens are rotated
by their place in the grid, so that one model draws every shape. Everything looks at everything, except at padding.

B batch, N image tokens, L condition tokens, D width, K codes.
"""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskgil.condition import Condition
from maskgil.models.config import ModelConfig
from maskgil.models.transformer import (
    Block,
    CaptionEmbedding,
    LMHead,
    RMSNorm,
    identity_rotation,
    initialize,
    rotation_1d,
    rotation_2d,
    zero_rotation,
)
from maskgil.sampling.code_space import CodeSpace


class MaskGIL(nn.Module):
    """The mask id is config.mask_id = codebook_size: an input only, never among the logits.

    Rows of `tok_embeddings`: codes, mask; for class-driven models then the classes and the null class, as released.
    `kind` is what config.json of a model folder calls it.
    """

    kind: ClassVar[str] = "maskgil"

    def __init__(self, config: ModelConfig):
        super().__init__()
        if config.causal:
            raise ValueError("MaskGIL looks both ways; a causal config belongs to the AR model")
        self.config = config
        class_rows = 0 if config.classes is None else config.classes + (config.null == "caption")
        self.tok_embeddings = nn.Embedding(config.codebook_size + 1 + class_rows, config.dim)
        self.cls_embedding = None if config.text_dim is None else CaptionEmbedding(config)
        self.tok_dropout = nn.Dropout(config.token_dropout)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.output = LMHead(config.dim, config.codebook_size + 1, config.codebook_size)
        self.apply(initialize)

    @property
    def token_space(self) -> CodeSpace:
        """Codes: see maskgil/generator.py."""
        return CodeSpace(self.config.codebook_size, self.config.mask_id)

    @property
    def late_blocks(self) -> nn.ModuleList:
        """The blocks that see every position, the image's last."""
        return self.layers

    @property
    def last_norm(self) -> nn.Module:
        """The norm after the last block."""
        return self.norm

    def forward(
        self,
        tokens: Int[Tensor, "B N"],
        grid: tuple[int, int],
        condition: Condition,
        drop: Bool[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B N K"]:
        """Logits over the codes at every image position. Rows with `drop` see the null condition instead of their own.

        grid is (rows, columns) with rows * columns = N. Raises ValueError for a condition of the wrong kind or length.
        """
        return self.output(self.features(tokens, grid, condition, drop))

    def features(
        self,
        tokens: Int[Tensor, "B N"],
        grid: tuple[int, int],
        condition: Condition,
        drop: Bool[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B N D"]:
        """What the logits are linear in: all that the model believes of every position. Arguments as `forward`."""
        rows, columns = grid
        if rows * columns != tokens.shape[1]:
            raise ValueError(f"{tokens.shape[1]} tokens do not fill a grid of {rows} rows and {columns} columns")
        prefix, valid = self._prefix(condition, drop)
        image = self.tok_embeddings(tokens)
        # The released models put the class last.
        last = self.config.rope == "released"
        x = self.tok_dropout(torch.cat([image, prefix] if last else [prefix, image], dim=1))
        rotation = self._rotation(grid, prefix.shape[1], x.device)
        mask = _key_mask(valid, tokens.shape[1])
        for layer in self.layers:
            x = layer(x, rotation, mask)
        image = x[:, : tokens.shape[1]] if last else x[:, prefix.shape[1] :]
        return self.norm(image)

    def _prefix(
        self, condition: Condition, drop: Bool[Tensor, " B"] | None
    ) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B L"] | None]:
        """Embedded condition tokens, and which of them are real (None: all)."""
        config = self.config
        if drop is not None and config.null == "none":
            raise ValueError("this model has no null condition: it cannot drop its text, so guidance must be off (1)")
        expected = 1 if config.text_dim is None else config.text_dim
        if condition.states.shape[2] != expected:
            wants = f"text states of width {expected}" if config.text_dim else "class labels"
            raise ValueError(f"the condition is {condition.states.shape[2]} wide; this model reads {wants}")
        if self.cls_embedding is None:
            return self._classes(condition, drop), None
        if condition.length > config.text_length:
            raise ValueError(f"a condition of {condition.length} tokens; this model reads at most {config.text_length}")
        states, valid = condition.states, condition.mask
        if drop is None:
            return self.cls_embedding(states), valid
        if config.null == "caption":
            null = self.cls_embedding.uncond_embedding
            assert null is not None, "a model with null='caption' has an embedding for the empty caption"
            condition = condition.pad(max(condition.length, len(null)))
            real = torch.arange(condition.length, device=drop.device) < len(null)
            null = torch.nn.functional.pad(null, (0, 0, 0, condition.length - len(null)))
            states = torch.where(drop[:, None, None], null.to(condition.states.dtype), condition.states)
            return self.cls_embedding(states), torch.where(drop[:, None], real, condition.mask)
        # null == "mask": one mask token stands for the whole text.
        first = torch.arange(condition.length, device=drop.device) == 0
        prefix = self.cls_embedding(states)
        null = self.tok_embeddings.weight[config.mask_id].to(prefix.dtype)
        return torch.where(drop[:, None, None], null, prefix), torch.where(drop[:, None], first, valid)

    def _classes(self, condition: Condition, drop: Bool[Tensor, " B"] | None) -> Float[Tensor, "B 1 D"]:
        first = self.config.codebook_size + 1
        rows = condition.states[:, :, 0].long() + first
        if drop is not None:
            assert self.config.classes is not None, "a model without a text encoder is driven by classes"
            null = first + self.config.classes if self.config.null == "caption" else self.config.mask_id
            rows = torch.where(drop[:, None], null, rows)
        return self.tok_embeddings(rows)

    def _rotation(self, grid: tuple[int, int], length: int, device: torch.device) -> Float[Tensor, "S R 2"]:
        config, (rows, columns) = self.config, grid
        if config.rope == "released":
            # The published table [0, position 0, position 1, ...] was made for the class first, yet the class is last.
            image = rotation_1d(rows * columns, config.head_dim, config.rope_base, device)
            return torch.cat([zero_rotation(1, config.head_dim, device), image])
        if config.rope == "1d":
            image = rotation_1d(rows * columns, config.head_dim, config.rope_base, device)
        else:
            image = rotation_2d(rows, columns, config.head_dim, config.rope_base, device)
        return torch.cat([identity_rotation(length, config.head_dim, device), image])


def _key_mask(valid: Bool[Tensor, "B L"] | None, tokens: int) -> Bool[Tensor, "B 1 1 S"] | None:
    """Every token looks at the real text and the whole image. None, the fastest, when nothing is padded; a GPU is not
    asked, since that would stall it."""
    if valid is None or (valid.is_cpu and bool(valid.all())):
        return None
    image = torch.ones(valid.shape[0], tokens, dtype=torch.bool, device=valid.device)
    return torch.cat([valid, image], dim=1)[:, None, None]
