"""Text-driven generators of any method of train/losses/generation_methods.py.

Axes: B batch, N tokens, K codes.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskgil.condition import Condition
from maskgil.models.config import ModelConfig
from maskgil.models.emigm import EMIGM, Blocks, EMIGMConfig
from maskgil.models.maskgil import MaskGIL
from maskgil.sampling.code_space import CodeSpace
from train.losses.generation_methods import MaskedGenerationConfig


@dataclass(frozen=True)
class CodeConfig:
    """What the pipeline and the sampler of codes read of a model's config."""

    codebook_size: int
    text_dim: int
    width: int

    @property
    def mask_id(self) -> int:
        return self.codebook_size

    @property
    def reads_remaining(self) -> bool:
        """Whether the model reads how many steps remain."""
        return False


class CodeTrunk(nn.Module):
    """eMIGM's trunk over codes: an embedding table in front, a softmax behind. It is called and sampled as MaskGIL is.

    kind  empty: it is a model of experiments, of which no folder is kept
    """

    kind: ClassVar[str] = ""

    def __init__(self, trunk: EMIGMConfig, codes: int):
        super().__init__()
        self.config = CodeConfig(codes, trunk.text_dim, trunk.width)
        self.embedding = nn.Embedding(codes, trunk.channels)
        self.trunk = EMIGM(trunk)
        del self.trunk.diffloss
        self.output = nn.Linear(trunk.width, codes)

    @property
    def token_space(self) -> CodeSpace:
        """Codes: see maskgil/generator.py."""
        return CodeSpace(self.config.codebook_size, self.config.mask_id)

    @property
    def late_blocks(self) -> nn.ModuleList:
        """The blocks that see every position, the image's last."""
        return self.trunk.late_blocks

    @property
    def last_norm(self) -> nn.Module:
        """The norm after the last block."""
        return self.trunk.last_norm

    def forward(
        self,
        tokens: Int[Tensor, "B N"],
        grid: tuple[int, int],
        condition: Condition,
        drop: Bool[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B N K"]:
        """Logits of every code at every position; the mask id marks what is unknown."""
        if grid != self.trunk.config.grid:
            raise ValueError(f"a grid of {grid}; this trunk has learned {self.trunk.config.grid} alone")
        masked = tokens == self.config.mask_id
        return self.output(self.trunk(self.embedding(tokens.masked_fill(masked, 0)), masked, condition, drop))


@dataclass(frozen=True)
class TrunkSizes:
    """Sizes of a generator.

    depth   blocks in all, half of them the decoder's where there is one; or how many (encoder, decoder) have
    head    (blocks, width) of the diffusion head
    blocks  of eMIGM's trunk
    """

    width: int
    depth: int | tuple[int, int]
    heads: int
    head: tuple[int, int] = (3, 256)
    blocks: Blocks = "vit"


def generator_for(
    framework: MaskedGenerationConfig,
    sizes: TrunkSizes,
    grid: tuple[int, int],
    text: tuple[int, int],
    codes: int | None = None,
    channels: int = 16,
    **maskgil: Any,
) -> MaskGIL | CodeTrunk | EMIGM:
    """A text-driven generator of a framework.

    text      (width of the states, most tokens)
    codes     for a categorical framework;  channels: for a diffusion one
    maskgil   more of MaskGIL's ModelConfig, where that is the trunk (qk_norm, norm)
    """
    if framework.conditional == "categorical" and framework.trunk == "single":
        assert isinstance(sizes.depth, int), "MaskGIL is a single trunk"
        assert codes is not None, "a categorical framework needs the number of codes"
        config = ModelConfig(
            codebook_size=codes,
            dim=sizes.width,
            layers=sizes.depth,
            heads=sizes.heads,
            ffn=3 * sizes.width,
            text_dim=text[0],
            text_length=text[1],
            null="mask" if framework.null == "mask" else "caption",
            **{"qk_norm": "rms", "dropout": 0.0} | maskgil,
        )
        return MaskGIL(config)
    if maskgil:
        raise ValueError(f"{', '.join(maskgil)} belong to MaskGIL's trunk, which is categorical and single")
    encoder, decoder = (max(1, sizes.depth // 2),) * 2 if isinstance(sizes.depth, int) else sizes.depth
    trunk = EMIGMConfig(
        width=sizes.width,
        heads=sizes.heads,
        depth=encoder,
        decoder_depth=decoder,
        head_depth=sizes.head[0],
        head_width=sizes.head[1],
        channels=channels,
        grid=grid,
        buffer=text[1],
        classes=None,
        text_dim=text[0],
        null=framework.null,
        mae=framework.trunk == "mae",
        dropout=0.0,
        blocks=sizes.blocks,
        ffn=3 * sizes.width if sizes.blocks == "llama" else None,
    )
    if framework.conditional == "diffusion":
        return EMIGM(trunk)
    assert codes is not None, "a categorical framework needs the number of codes"
    return CodeTrunk(trunk, codes)
