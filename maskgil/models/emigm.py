"""eMIGM: image tokens that are continuous vectors, some of them unknown, and a condition -> a vector z for every token.

A masked autoencoder (2503.07197): the encoder sees only the known tokens, behind a buffer of slots that carry the
condition; the decoder sees every slot, mask tokens where nothing is known. The diffusion head turns a position's z into
the token itself. The trunk has no time input. Parameters carry the names of the released files.

Axes: B batch, N image tokens, C channels of a token, S slots of the buffer, D width, L condition tokens.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from maskgil.condition import Condition
from maskgil.models.config import ModelConfig
from maskgil.models.diffusion_head import TIMES, DiffusionHead
from maskgil.models.transformer import Block as LlamaBlock
from maskgil.models.transformer import RMSNorm, identity_rotation, rotation_2d, sdpa
from maskgil.sampling.latent_space import LatentSpace

Null = Literal["mask", "token"]
Blocks = Literal["vit", "llama"]


@dataclass(frozen=True)
class EMIGMConfig:
    """What to build.

    depth     blocks of the encoder;  decoder_depth: of the decoder, None: as many
    channels  of a token: 16 for KL-16, 32 for DC-AE
    grid      (rows, columns); positions are learned, so a model draws one shape
    buffer    slots in front of the image: a class fills them all, a text's words one each
    classes   number of labels, or None for a text-driven model;  text_dim: width of the text states, or None
    null      what the slots hold without a condition: the mask token (CFG with mask), or a token of their own
    mae       False: a single encoder of the same depth, which sees mask tokens too
    dropout   on attention weights, projections and the MLP
    blocks    vit: the released model's;  llama: MaskGIL's (rotary positions, RMS and QK-norm, SwiGLU of width `ffn`,
              nothing between encoder and decoder), so that a trained MaskGIL may be what it begins as
    """

    width: int
    heads: int
    depth: int
    head_depth: int
    head_width: int
    channels: int = 16
    grid: tuple[int, int] = (16, 16)
    buffer: int = 64
    classes: int | None = 1000
    text_dim: int | None = None
    null: Null = "mask"
    mae: bool = True
    dropout: float = 0.1
    blocks: Blocks = "vit"
    ffn: int | None = None
    decoder_depth: int | None = None

    def __post_init__(self) -> None:
        for name in ("width", "heads", "depth", "head_depth", "head_width", "channels", "buffer", "decoder_depth"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if len(self.grid) != 2 or min(self.grid) < 1:
            raise ValueError(f"a grid is (rows, columns), both at least 1; {self.grid} was given")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        if self.null not in get_args(Null):
            raise ValueError(f"null is {self.null!r}; choose one of {', '.join(get_args(Null))}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must lie in [0, 1)")
        if self.blocks not in get_args(Blocks):
            raise ValueError(f"blocks is {self.blocks!r}; choose one of {', '.join(get_args(Blocks))}")
        if self.ffn is not None and self.blocks == "vit":
            raise ValueError("ffn is the width of a llama block's SwiGLU; a vit block has an MLP of 4 times its width")
        if (self.classes is None) == (self.text_dim is None):
            raise ValueError(
                f"a model is driven by classes or by text: give exactly one of classes ({self.classes}) "
                f"and text_dim ({self.text_dim})"
            )

    @property
    def tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def llama(self) -> ModelConfig:
        """Of one llama block. ValueError when the width is not one of such a block."""
        return ModelConfig(
            codebook_size=1, dim=self.width, layers=1, heads=self.heads, ffn=self.ffn, text_dim=1, qk_norm="rms",
            dropout=self.dropout,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "EMIGMConfig":
        """The config that `to_dict` wrote. Raises ValueError for unknown or missing keys."""
        if unknown := sorted(set(values) - set(cls.__dataclass_fields__)):
            raise ValueError(f"unknown keys in the eMIGM config: {', '.join(unknown)}")
        if missing := sorted({"width", "heads", "depth", "head_depth", "head_width"} - set(values)):
            raise ValueError(f"the eMIGM config lacks: {', '.join(missing)}")
        return cls(**values | {"grid": tuple(values.get("grid", cls.grid))})  # JSON gives a list


def _imagenet(width: int, heads: int, depth: int, head: tuple[int, int], channels: int) -> EMIGMConfig:
    return EMIGMConfig(width, heads, depth, *head, channels=channels)


# Released sizes, parameters beside each. A score is added only when our own evaluation printed it; none has been yet.
EMIGM_PRESETS: dict[str, EMIGMConfig] = {
    "emigm-xs-256": _imagenet(448, 8, 10, (3, 1024), 16),  # 69,018,848
    "emigm-s-256": _imagenet(512, 8, 12, (3, 1024), 16),  # 96,640,544
    "emigm-b-256": _imagenet(768, 12, 12, (6, 1024), 16),  # 207,924,000
    "emigm-l-256": _imagenet(1024, 16, 16, (8, 1280), 16),  # 478,325,280
    "emigm-h-256": _imagenet(1280, 16, 20, (12, 1536), 16),  # 942,401,824
    "emigm-xs-512": _imagenet(448, 8, 10, (6, 1280), 32),  # 104,506,624
    "emigm-s-512": _imagenet(512, 8, 12, (6, 1280), 32),  # 132,145,728
    "emigm-b-512": _imagenet(768, 12, 12, (8, 1280), 32),  # 244,150,592
    "emigm-l-512": _imagenet(1024, 16, 16, (8, 1280), 32),  # 478,403,136
}


class ViTAttention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B T D"], keys: Bool[Tensor, "B 1 1 T"] | None) -> Float[Tensor, "B T D"]:
        """`keys`: the slots that may be looked at; None: all."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)  # (B, T, H, C) each
        if self.training and self.dropout:
            q, k, v = (part.transpose(1, 2) for part in (q, k, v))
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=keys, dropout_p=self.dropout).transpose(1, 2)
        else:
            x = sdpa(q, k, v, keys)
        return self.drop(self.proj(x.flatten(2)))


class ViTMLP(nn.Module):
    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class ViTBlock(nn.Module):
    """ViT, norm first (the released model uses timm's)."""

    def __init__(self, config: EMIGMConfig):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(config.width, eps=1e-6), nn.LayerNorm(config.width, eps=1e-6)
        self.attn = ViTAttention(config.width, config.heads, config.dropout)
        self.mlp = ViTMLP(config.width, config.dropout)

    def forward(self, x: Float[Tensor, "B T D"], keys: Bool[Tensor, "B 1 1 T"] | None) -> Float[Tensor, "B T D"]:
        x = x + self.attn(self.norm1(x), keys)
        return x + self.mlp(self.norm2(x))


def _blocks(config: EMIGMConfig, depth: int) -> nn.ModuleList:
    return nn.ModuleList(ViTBlock(config) if config.blocks == "vit" else LlamaBlock(config.llama) for _ in range(depth))


def _perceptron(inputs: int, hidden: int, outputs: int, bias: bool) -> nn.Sequential:
    """As MaskGIL reads text states (CaptionEmbedding); and tokens, where it has a table of codes."""
    return nn.Sequential(nn.Linear(inputs, hidden, bias=bias), nn.GELU("tanh"), nn.Linear(hidden, outputs, bias=False))


def _placed(x: Float[Tensor, "B T D"], places: Float[Tensor, "1 T D"] | None) -> Float[Tensor, "B T D"]:
    return x if places is None else x + places


class EMIGM(nn.Module):
    """The trunk, and the diffusion head as `diffloss`. `kind` is what config.json of a model folder calls it."""

    kind: ClassVar[str] = "emigm"

    def __init__(self, config: EMIGMConfig):
        super().__init__()
        self.config = config
        width, slots = config.width, config.buffer + config.tokens
        vit = config.blocks == "vit"
        if config.classes is not None:
            self.class_emb = nn.Embedding(config.classes, width)
        else:
            states = config.text_dim
            assert states is not None, "a config has classes or text"
            self.text_proj = nn.Linear(states, width) if vit else _perceptron(states, width, width, False)
        # The mask token is also what an empty slot of the buffer holds, unless a null token of its own is asked for.
        self.mask_token = nn.Parameter(torch.empty(1, width))
        if config.null == "token":
            self.fake_latent = nn.Parameter(torch.empty(1, width))
        self.z_proj = nn.Linear(config.channels, width) if vit else _perceptron(config.channels, 2 * width, width, True)
        self.z_proj_ln = nn.LayerNorm(width, eps=1e-6) if vit else nn.Identity()
        # Blocks that turn queries and keys by their places need no learned ones.
        self.encoder_pos_embed_learned = nn.Parameter(torch.empty(1, slots, width)) if vit else None
        self.encoder_blocks = _blocks(config, config.depth)
        self.encoder_norm = nn.LayerNorm(width, eps=1e-6) if vit else nn.Identity()
        self.decoder_embed = nn.Linear(width, width) if vit else nn.Identity()
        self.decoder_pos_embed_learned = nn.Parameter(torch.empty(1, slots, width)) if vit else None
        self.decoder_blocks = _blocks(config, config.decoder_depth or config.depth)
        self.decoder_norm = nn.LayerNorm(width, eps=1e-6) if vit else RMSNorm(width, config.llama.norm_eps)
        self.diffusion_pos_embed_learned = nn.Parameter(torch.empty(1, config.tokens, width)) if vit else None
        self._initialize()
        self.diffloss = DiffusionHead(config.channels, config.head_width, config.head_depth, width)

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        for parameter in self.parameters(recurse=False):
            nn.init.normal_(parameter, std=0.02)

    @property
    def null_token(self) -> Float[Tensor, "1 D"]:
        """What every slot of the buffer holds when there is no condition."""
        return self.mask_token if self.config.null == "mask" else self.fake_latent

    def slots(self, condition: Condition, drop: Bool[Tensor, " B"] | None = None) -> Float[Tensor, "B S D"]:
        """The buffer: a class in every slot, or a text's real words in the first ones, the null token in the others.

        Rows with `drop` hold only the null token. Raises ValueError for a condition of the wrong kind, or for a text
        of more words than there are slots (the device is asked only when there are more columns than slots).
        """
        config = self.config
        expected = 1 if config.text_dim is None else config.text_dim
        if condition.states.shape[2] != expected:
            wants = f"text states of width {expected}" if config.text_dim else "class labels"
            raise ValueError(f"the condition is {condition.states.shape[2]} wide; this model reads {wants}")
        if config.classes is not None:
            slots = self.class_emb(condition.states[:, :1, 0].long()).expand(-1, config.buffer, -1)
        else:
            if condition.length > config.buffer and (words := int(condition.mask.sum(1).max())) > config.buffer:
                raise ValueError(f"a text of {words} tokens; this model reads at most {config.buffer}")
            condition = condition.pad(max(condition.length, config.buffer))
            # Real words first, so that a row's slots do not depend on which side its batch was padded, or how far.
            order = (~condition.mask).to(torch.uint8).argsort(dim=1, stable=True)[:, : config.buffer]
            states = condition.states.gather(1, order[..., None].expand(-1, -1, expected))
            words = self.text_proj(states.to(self.mask_token.dtype))
            slots = torch.where(condition.mask.gather(1, order)[..., None], words, self.null_token)
        return slots if drop is None else torch.where(drop[:, None, None], self.null_token, slots)

    @property
    def token_space(self) -> LatentSpace:
        """Vectors: see maskgil/generator.py."""
        return LatentSpace(self.config.channels, self.config.grid)

    @property
    def late_blocks(self) -> nn.ModuleList:
        """The blocks that see every position, the image's last."""
        return self.decoder_blocks

    @property
    def last_norm(self) -> nn.Module:
        """The norm after the last block."""
        return self.decoder_norm

    def forward(
        self,
        tokens: Float[Tensor, "B N C"],
        masked: Bool[Tensor, "B N"],
        condition: Condition,
        drop: Bool[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B N D"]:
        """z at every position; `masked` is True where the token is unknown, and what lies there cannot matter."""
        return self.trunk(tokens, masked, self.slots(condition, drop))

    def trunk(
        self,
        tokens: Float[Tensor, "B N C"],
        masked: Bool[Tensor, "B N"],
        slots: Float[Tensor, "B S D"],
        visible: int | None = None,
    ) -> Float[Tensor, "B N D"]:
        """`forward` with the buffer already filled, as a sampler does once for all its steps.

        visible: at least as many as any row has known tokens; the encoder's length is then fixed on the host (a bucket)
        and the device is not asked. None: the largest count of the rows, which the device is asked for.
        """
        config = self.config
        if tokens.shape[1:] != (config.tokens, config.channels):
            rows, columns = config.grid
            raise ValueError(
                f"tokens of shape {tuple(tokens.shape[1:])}; this model draws {rows} x {columns} = {config.tokens} "
                f"tokens of {config.channels} channels"
            )
        tokens = tokens.masked_fill(masked[..., None], 0).to(slots.dtype)
        x = torch.cat([slots, self.z_proj(tokens)], dim=1)
        x = self.z_proj_ln(_placed(x, self.encoder_pos_embed_learned))
        masked = torch.cat([masked.new_zeros(len(masked), config.buffer), masked], dim=1)[..., None]
        rotation = self._rotation(x.device)
        if not config.mae:
            x = torch.where(masked, self.mask_token.to(x.dtype), x)
            x = self._through(self.encoder_blocks, x, rotation, None)
            x = self.decoder_embed(self.encoder_norm(x))
        else:
            x = self._known(x, masked, rotation, visible)
        x = self._through(self.decoder_blocks, _placed(x, self.decoder_pos_embed_learned), rotation, None)
        return _placed(self.decoder_norm(x)[:, config.buffer :], self.diffusion_pos_embed_learned)

    def _rotation(self, device: torch.device) -> Float[Tensor, "T R 2"] | None:
        """Of every slot: the buffer has no place in the picture. None for blocks that do not turn anything."""
        config = self.config
        if config.blocks == "vit":
            return None
        of_one = config.llama
        image = rotation_2d(*config.grid, of_one.head_dim, of_one.rope_base, device)
        return torch.cat([identity_rotation(config.buffer, of_one.head_dim, device), image])

    def _known(
        self,
        x: Float[Tensor, "B T D"],
        masked: Bool[Tensor, "B T 1"],
        rotation: Float[Tensor, "T R 2"] | None,
        visible: int | None,
    ) -> Float[Tensor, "B T D"]:
        """The encoder over each row's known slots, spread again over all slots, with mask tokens in the masked ones."""
        count = (~masked).sum(1)  # (B, 1)
        if visible is None:
            low, high = torch.stack(count.aminmax()).tolist()
            length, ragged = high, low != high
        else:
            length, ragged = min(self.config.buffer + visible, x.shape[1]), True
        # Known slots in raster order, then masked tokens: rows with fewer known slots end in some, which nobody looks
        # at.
        order = masked.to(torch.uint8).argsort(dim=1, stable=True)[:, :length]
        known = x.gather(1, order.expand(-1, -1, x.shape[2]))
        keys = (torch.arange(length, device=x.device) < count)[:, None, None] if ragged else None
        turned = None if rotation is None else rotation[order[..., 0]]
        known = self.decoder_embed(self.encoder_norm(self._through(self.encoder_blocks, known, turned, keys)))
        rank = ((~masked).cumsum(1) - 1).clamp(0, length - 1)
        back = known.gather(1, rank.expand(-1, -1, known.shape[2]))
        return torch.where(masked, self.mask_token.to(back.dtype), back)

    @staticmethod
    def _through(
        blocks: nn.ModuleList,
        x: Float[Tensor, "B T D"],
        rotation: Float[Tensor, "*_ T R 2"] | None,
        keys: Bool[Tensor, "B 1 1 T"] | None,
    ) -> Float[Tensor, "B T D"]:
        for block in blocks:
            x = block(x, keys) if rotation is None else block(x, rotation, keys)
        return x

    def loss(
        self,
        z: Float[Tensor, "B N D"],
        tokens: Float[Tensor, "B N C"],
        masked: Bool[Tensor, "B N"],
        generator: torch.Generator,
        repeats: int = 4,
        weight: Float[Tensor, " B"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over the unknown tokens of weight * (MSE + bound), each at `repeats` times and noises of its own.

        weight: w(t) of each row; None is 1, the papers' choice. `generator` lives on the tokens' device.
        """
        z, target = (part[masked].repeat(repeats, 1) for part in (z, tokens))
        time = torch.randint(TIMES, (len(target),), generator=generator, device=target.device)
        noise = torch.randn(target.shape, generator=generator, device=target.device)
        loss = self.diffloss.loss(z, target, time, noise)
        if weight is not None:
            loss = loss * weight[:, None].expand_as(masked)[masked].repeat(repeats)
        return loss.sum() / max(len(loss), 1)  # nothing may be hidden by an independent mask
