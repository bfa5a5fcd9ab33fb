"""The vector-quantised tokenizer of LlamaGen: pixels <-> a grid of codebook indices.

Axes: B batch, H W pixels, h w latent cells (H / downsample), N = h w tokens in raster order, C codebook dimension.

The module tree and the state-dict names are exactly LlamaGen's `VQ_models` (VQ-16 and VQ-8), so that the released
files load strictly; `patch` folds p x p pixels into channels before the first convolution and back after the last
(patch 1 is LlamaGen exactly), which is what makes a small tokenizer trainable on a CPU. Chameleon's tokenizer is the
same class with `level_attention=False, l2_norm=False`.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from maskgil.tokenizers.scenes_vq import REFINED, UPSCALE, CellClassifierBranch, PatchMemory, Refiner, Upscaler
from maskgil.tokenizers.vq_layers import (
    Downsample,
    ResolutionLevel,
    Upsample,
    group_norm,
    middle_blocks,
    zero_,
)


@dataclass(frozen=True)
class VQConfig:
    """What to build. `channels[i]` is the width at level i, from the finest resolution to the coarsest."""

    codebook_size: int = 16384
    codebook_dim: int = 8
    channels: tuple[int, ...] = (128, 128, 256, 256, 512)
    res_blocks: int = 2  # a level of the encoder; the decoder has one more, as LlamaGen
    z_channels: int = 256
    patch: int = 1  # pixels a side that the stem folds into channels; 1 = LlamaGen
    decoder_channels: tuple[int, ...] | None = None  # None: those of the encoder
    decoder_patch: int | None = None
    naming_channels: int = 0  # width of a cell classifier beside the decoder; 0: none, as LlamaGen
    naming_blocks: int = 0
    recall: int = 0  # width of a patch memory beside the decoder's last convolution; 0: none, as LlamaGen
    refiner_channels: int = 0  # width of a Refiner behind the decoder; 0: none, as LlamaGen
    refiner_blocks: int = 0
    upscaler_channels: int = 0  # width of an Upscaler behind the refiner; 0: none, as LlamaGen
    upscaler_blocks: int = 0
    l2_norm: bool = True  # latents and codes on the unit sphere
    level_attention: bool = True  # attention in the lowest level besides the one in the middle
    middle_attention: bool = True  # attention in the middle; aMUSEd and Meissonic have none
    unit_pixels: bool = False  # the weights read and write pixels in [0, 1], as those of aMUSEd and Meissonic

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        if self.decoder_channels is not None:
            object.__setattr__(self, "decoder_channels", tuple(self.decoder_channels))
        widths = (
            *self.channels,
            *(self.decoder_channels or ()),
            self.naming_channels,
            self.refiner_channels,
            self.upscaler_channels,
        )
        if any(c % 32 for c in widths):
            raise ValueError(f"channels must be multiples of 32 (group norm has 32 groups), got {widths}")
        other = (self.decoder_patch or self.patch) * 2 ** (len(self.decoder_channels or self.channels) - 1)
        if other != self.encoded:
            raise ValueError(f"the encoder makes tokens of {self.encoded} px, the decoder reads {other} px")
        if self.refiner_channels and (self.decoder_patch or self.patch) % REFINED:
            raise ValueError(f"a refiner works on {REFINED} px, which do not divide the decoder's patch")
        if self.recall and len(self.decoder_channels or self.channels) > 1:
            raise ValueError("a patch memory adds whole cells: give the decoder one level")
        if self.upscaler_channels and not self.refiner_channels:
            raise ValueError("an upscaler reads the features of a refiner: give the model one")

    @property
    def upscale(self) -> int:
        """Pixels a side of a picture for each that the encoder reads."""
        return UPSCALE if self.upscaler_channels else 1

    @property
    def encoded(self) -> int:
        """Pixels a token side as the encoder reads them."""
        return self.patch * 2 ** (len(self.channels) - 1)

    @property
    def downsample(self) -> int:
        """Pixels a token side of a picture."""
        return self.encoded * self.upscale

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "VQConfig":
        """The config that `to_dict` wrote, whose tuples JSON made lists."""
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**known)


VQ_PRESETS = {
    "llamagen-vq16": VQConfig(),
    "llamagen-vq8": VQConfig(channels=(128, 256, 256, 512)),
    "chameleon-vq": VQConfig(codebook_size=8192, codebook_dim=256, l2_norm=False, level_attention=False),
    "amused-vq": VQConfig(
        codebook_size=8192,
        codebook_dim=64,
        channels=(128, 256, 256, 512, 768),
        z_channels=64,
        l2_norm=False,
        level_attention=False,
        middle_attention=False,
        unit_pixels=True,
    ),
    # nearly all of the decoder works at the tokens' resolution: there its weights cost least, and it has drawings to
    # remember; what whole patches cannot do, smooth walls and clean edges, is the refiner's. Tokens are of pictures of
    # half the size: the drawings are known, and an upscaler remembers their finer half
    "scenes": VQConfig(
        codebook_size=4096,
        channels=(128, 256),
        res_blocks=1,
        z_channels=128,
        patch=8,
        decoder_channels=(320,),
        decoder_patch=16,
        refiner_channels=96,
        refiner_blocks=4,
        upscaler_channels=64,
        upscaler_blocks=2,
    ),
}


class Encoder(nn.Module):
    def __init__(self, config: VQConfig):
        super().__init__()
        self.patch = config.patch
        widths = config.channels
        self.conv_in = nn.Conv2d(3 * config.patch**2, widths[0], 3, padding=1)
        self.conv_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            level = ResolutionLevel(widths[max(i - 1, 0)], width, config.res_blocks, last and config.level_attention)
            if not last:
                level.downsample = Downsample(width)
            self.conv_blocks.append(level)
        self.mid = middle_blocks(widths[-1], config.middle_attention)
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.z_channels, 3, padding=1)

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B Z h w"]:
        x = self.conv_in(F.pixel_unshuffle(pixels, self.patch) if self.patch > 1 else pixels)
        for block in (*self.conv_blocks, *self.mid):
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Decoder(nn.Module):
    def __init__(self, config: VQConfig):
        super().__init__()
        self.patch = config.decoder_patch or config.patch
        widths = (config.decoder_channels or config.channels)[::-1]  # index 0 is the lowest resolution
        self.conv_in = nn.Conv2d(config.z_channels, widths[0], 3, padding=1)
        self.mid = middle_blocks(widths[0], config.middle_attention)
        if config.naming_channels:  # a new one is not heard yet
            self.hear = nn.Conv2d(config.naming_channels, widths[0], 1)
            zero_(self.hear)
        self.conv_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            level = ResolutionLevel(
                widths[max(i - 1, 0)], width, config.res_blocks + 1, i == 0 and config.level_attention
            )
            if i < len(widths) - 1:
                level.upsample = Upsample(width)
            self.conv_blocks.append(level)
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 3 * self.patch**2, 3, padding=1)
        if config.recall:
            self.recall = PatchMemory(widths[-1] + config.naming_channels, config.recall, 3 * self.patch**2)
        if config.refiner_channels:
            self.refiner = Refiner(widths[-1], self.patch, config.refiner_channels, config.refiner_blocks)
        if config.upscaler_channels:
            self.upscaler = Upscaler(config.refiner_channels, config.upscaler_channels, config.upscaler_blocks)

    @property
    def last_layer(self) -> nn.Parameter:
        """Where the adversarial weight of VQGAN (Esser et al. 2021, eq. 7) compares gradients."""
        last: Any = next((getattr(self, name) for name in ("upscaler", "refiner") if hasattr(self, name)), self)
        return last.conv_out.weight

    def encode_latents(self, z: Float[Tensor, "B Z h w"]) -> Float[Tensor, "B C h w"]:
        """The part at the tokens' resolution: every cell hears of all the others."""
        x = self.conv_in(z)
        for block in self.mid:
            x = block(x)
        return x

    def to_pixels(
        self, x: Float[Tensor, "B C h w"], named: Float[Tensor, "B M h w"] | None = None, corrected: bool = True
    ) -> Float[Tensor, "B 3 H W"]:
        """What `understand` and a cell classifier give, up to pixels; not `corrected`: without what refiner and
        upscaler do."""
        if named is not None:
            x = x + self.hear(named)
        for block in self.conv_blocks:
            x = block(x)
        features = F.silu(self.norm_out(x))
        x = self.conv_out(features)
        if hasattr(self, "recall"):
            x = x + self.recall(features if named is None else torch.cat([features, named], dim=1))
        pixels = F.pixel_shuffle(x, self.patch) if self.patch > 1 else x
        if not corrected:
            return pixels
        if hasattr(self, "refiner"):
            pixels, features = self.refiner(pixels, features)
        return self.upscaler(pixels, features) if hasattr(self, "upscaler") else pixels

    def forward(
        self, z: Float[Tensor, "B Z h w"], named: Float[Tensor, "B M h w"] | None = None, corrected: bool = True
    ) -> Float[Tensor, "B 3 H W"]:
        return self.to_pixels(self.encode_latents(z), named, corrected)


class Quantizer(nn.Module):
    """Nearest codebook entry; on the unit sphere when `l2_norm`, where nearest means the largest cosine."""

    codebook_used: Tensor

    def __init__(self, config: VQConfig):
        super().__init__()
        self.l2_norm = config.l2_norm
        self.embedding = nn.Embedding(config.codebook_size, config.codebook_dim)
        nn.init.uniform_(self.embedding.weight, -1 / config.codebook_size, 1 / config.codebook_size)
        if config.l2_norm:
            self.embedding.weight.data = F.normalize(self.embedding.weight.data, dim=-1)
            # LlamaGen keeps the last 65,536 indices seen, to report how much of the codebook is in use
            self.register_buffer("codebook_used", torch.zeros(65536))

    def codebook(self) -> Float[Tensor, "K C"]:
        weight = self.embedding.weight.float()
        return F.normalize(weight, dim=-1) if self.l2_norm else weight

    def latents(self, z: Float[Tensor, "B C h w"]) -> Float[Tensor, "B h w C"]:
        z = z.float().permute(0, 2, 3, 1)
        return F.normalize(z, dim=-1) if self.l2_norm else z

    def nearest(self, z: Float[Tensor, "B h w C"]) -> Int[Tensor, "B h w"]:
        """|z - e|^2 = |z|^2 - 2 z.e + |e|^2, whose first term is the same for every code.

        Autocast stays out of it: in bfloat16 the distances to neighbouring codes tie, and the first of them would win.
        """
        codes = self.codebook()
        with torch.autocast(z.device.type, enabled=False):
            return (codes.square().sum(1) - 2 * z.float().flatten(0, 2) @ codes.T).argmin(1).view(z.shape[:3])


class VQModel(nn.Module):
    """Pixels to tokens (`encode`) and back (`decode`); training goes through `latents`, `quantize`, `reconstruct`.

    kind      what config.json of a model folder calls it
    bytewise  layers that an export stores in a byte a number: they draw, and no picture shows the difference
    """

    kind: ClassVar[str] = "vq"
    bytewise: ClassVar[tuple[str, ...]] = ("decoder.", "naming.")

    def __init__(self, config: VQConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quantize = Quantizer(config)
        self.quant_conv = nn.Conv2d(config.z_channels, config.codebook_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.codebook_dim, config.z_channels, 1)
        if config.naming_channels:
            self.naming = CellClassifierBranch(config.codebook_dim, config.naming_channels, config.naming_blocks)

    def identity(self) -> dict[str, Tensor]:
        """What decides which tokens a picture has: not the decoder, which may be improved under a trained generator."""
        parts = ("encoder.", "quant_conv.", "quantize.embedding.")
        return {name: tensor for name, tensor in self.state_dict().items() if name.startswith(parts)}

    def codes(self, tokens: Int[Tensor, "B N"]) -> Int[Tensor, "B N"]:
        """The tokens are codes."""
        return tokens

    @property
    def cache_note(self) -> dict[str, Any]:
        """What the note of a cache says of its tokens."""
        return {"codes": self.config.codebook_size}

    def cache_tokens(self, pixels: Float[Tensor, "B 3 H W"]) -> dict[str, Tensor]:
        """What a cache keeps of pixels in [-1, 1], on the CPU: uint16 "tokens" (B, N)."""
        return {"tokens": self.encode(pixels).to("cpu", torch.uint16)}

    def validate_cached(self, rows: dict[str, Tensor]) -> None:
        """Any codes can be cached."""

    def cell_branch_state(self) -> dict[str, Tensor]:
        """The cell classifier, if there is one."""
        return {name: tensor for name, tensor in self.state_dict().items() if name.startswith("naming.")}

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of tokens of a picture. ValueError unless both sides are multiples of `downsample`."""
        f = self.config.downsample
        if height % f or width % f or not height or not width:
            raise ValueError(f"a picture of {width}x{height} px does not divide into tokens of {f}x{f} px")
        return height // f, width // f

    def to_encoder_resolution(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 _ _"]:
        """Pictures in the size that the encoder reads: the mean of `upscale` x `upscale` pixels."""
        return F.avg_pool2d(pixels, self.config.upscale) if self.config.upscale > 1 else pixels

    def latents(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B h w C"]:
        """Latents before quantisation, normalised when the codebook is; of what the encoder reads (`shrink`)."""
        pixels = (pixels + 1) / 2 if self.config.unit_pixels else pixels
        return self.quantize.latents(self.quant_conv(self.encoder(pixels)))

    def reconstruct(self, z: Float[Tensor, "B h w C"]) -> Float[Tensor, "B 3 H W"]:
        """Pixels from quantised latents, with gradient; not clamped."""
        z = z.permute(0, 3, 1, 2)
        if self.config.unit_pixels:
            z = z.contiguous()  # as diffusers lays it out: its convolutions then round alike
        pixels = self.decoder(self.post_quant_conv(z), self.cell_features(z))
        return 2 * pixels - 1 if self.config.unit_pixels else pixels

    def cell_features(self, z: Float[Tensor, "B C h w"]) -> Float[Tensor, "B M h w"] | None:
        """What the decoder is told of quantised latents; None without a cell classifier."""
        return self.naming(z) if hasattr(self, "naming") else None

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "B 3 H W"]) -> Int[Tensor, "B N"]:
        """Tokens of pixels in [-1, 1]; sides are multiples of `config.downsample`."""
        self.grid(*pixels.shape[2:])
        return self.tokens(self.to_encoder_resolution(pixels))

    @torch.no_grad()
    def tokens(self, pixels: Float[Tensor, "B 3 H W"]) -> Int[Tensor, "B N"]:
        """Tokens of what the encoder reads (`shrink`)."""
        return self.quantize.nearest(self.latents(pixels)).flatten(1)

    @torch.no_grad()
    def decode(self, tokens: Int[Tensor, "B N"], grid: tuple[int, int]) -> Float[Tensor, "B 3 H W"]:
        """Pixels in [-1, 1] of a grid (rows, columns) of tokens. ValueError for tokens outside the codebook."""
        if tokens.shape[1] != grid[0] * grid[1]:
            raise ValueError(f"{tokens.shape[1]} tokens do not fill a grid of {grid[0]} rows and {grid[1]} columns")
        size = self.config.codebook_size
        if int(tokens.min()) < 0 or int(tokens.max()) >= size:
            raise ValueError(f"tokens must be codes 0..{size - 1}, got {int(tokens.min())}..{int(tokens.max())}")
        z = self.quantize.codebook()[tokens].unflatten(1, grid)
        return self.reconstruct(z.to(self.post_quant_conv.weight.dtype)).float().clamp(-1, 1)
