"""Continuous tokenizers: pixels <-> latents. MAR's KL-16 is diffusers' AutoencoderKL, DC-AE its AutoencoderDC.

Axes: B batch, H W pixels, h w latent cells (H / downsample), N = h w tokens in raster order, C latent channels.

Tokens are always scaled to a standard deviation of about 1: `AutoencoderConfig.scale` is the one place for scales.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Family = Literal["kl", "dc"]


@dataclass(frozen=True)
class AutoencoderConfig:
    """What to build.

    family    kl: a posterior over latents, convolutions and one attention; dc: deterministic, deep compression
    channels  of a latent;  widths: of the levels, from the finest resolution to the coarsest
    layers    blocks in a level of a KL encoder (its decoder has one more); DC-AE's are in `encoder` and `decoder`
    groups    of the group norms (KL)
    patch     pixels a side that enter and leave as one cell of channels (KL): the finest levels cost the most
    decoder_widths, decoder_patch  of a KL decoder that is not its encoder's mirror; left out: those of the encoder
    scale     latents times scale = tokens
    """

    family: Family = "kl"
    channels: int = 16
    widths: tuple[int, ...] = (128, 128, 256, 256, 512)
    layers: int = 2
    groups: int = 32
    patch: int = 1
    decoder_widths: tuple[int, ...] = ()
    decoder_patch: int = 0
    encoder: tuple[int, ...] = ()
    decoder: tuple[int, ...] = ()
    scale: float = 0.2325

    def __post_init__(self) -> None:
        if self.family not in ("kl", "dc"):
            raise ValueError(f"a latent tokenizer's family is kl or dc, not {self.family!r}")
        if not self.scale > 0:
            raise ValueError(f"a latent scale is positive; {self.scale} was given")
        if self.patch < 1 or (self.family == "dc" and self.patch > 1):
            raise ValueError(f"patch is {self.patch}; it is 1 or more, and 1 for DC-AE")
        widths = self.widths + self.decoder_widths
        if self.family == "kl" and any(width % self.groups for width in widths):
            raise ValueError(f"widths {widths} must be multiples of the {self.groups} norm groups")
        if bool(self.decoder_widths) != bool(self.decoder_patch) or (self.family == "dc" and self.decoder_patch):
            raise ValueError("decoder_widths and decoder_patch come together, and only for KL")
        if self.decoder_patch and self.decoder_patch * 2 ** (len(self.decoder_widths) - 1) != self.downsample:
            raise ValueError(
                f"the encoder makes tokens of {self.downsample} px; a decoder of {len(self.decoder_widths)} levels and "
                f"patches of {self.decoder_patch} px reads others"
            )
        if self.family == "dc" and not len(self.encoder) == len(self.decoder) == len(self.widths) == 6:
            raise ValueError(
                f"DC-AE has 6 levels, three of them with attention; got {len(self.widths)} widths, "
                f"{len(self.encoder)} encoder and {len(self.decoder)} decoder depths"
            )

    @property
    def downsample(self) -> int:
        """Pixels a token side."""
        return self.patch * 2 ** (len(self.widths) - 1)

    @property
    def upscale(self) -> int:
        """Pixels a side of a picture for each that the encoder reads."""
        return 1

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "AutoencoderConfig":
        """The config that `to_dict` wrote. Raises ValueError for unknown keys."""
        if unknown := sorted(set(values) - set(cls.__dataclass_fields__)):
            raise ValueError(f"unknown keys in the latent tokenizer's config: {', '.join(unknown)}")
        # JSON gives lists
        known: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in values.items()}
        return cls(**known)


AUTOENCODER_PRESETS: dict[str, AutoencoderConfig] = {
    "kl16": AutoencoderConfig(),  # 66,456,019 parameters
    "dc-ae-f32c32": AutoencoderConfig(  # 323,356,460
        family="dc",
        channels=32,
        widths=(128, 256, 512, 512, 1024, 1024),
        encoder=(0, 4, 8, 2, 2, 2),
        decoder=(0, 5, 10, 2, 2, 2),
        scale=0.3189,
    ),
}


def _build(config: AutoencoderConfig) -> Any:
    """The diffusers model. diffusers is imported here: discrete models run without it."""
    try:
        from diffusers import AutoencoderDC, AutoencoderKL
        from diffusers.models.autoencoders.vae import Decoder
    except ImportError as missing:
        raise ValueError("continuous tokenizers need the package diffusers: pip install diffusers") from missing
    levels = len(config.widths)
    if config.family == "kl":
        model: Any = AutoencoderKL(
            in_channels=3 * config.patch**2,
            out_channels=3 * config.patch**2,
            down_block_types=("DownEncoderBlock2D",) * (levels - 1) + ("AttnDownEncoderBlock2D",),
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=config.widths,
            layers_per_block=config.layers,
            latent_channels=config.channels,
            norm_num_groups=config.groups,
        )
        if config.decoder_widths:
            levels = len(config.decoder_widths)
            model.decoder = Decoder(
                in_channels=config.channels,
                out_channels=3 * config.decoder_patch**2,
                up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * (levels - 1),
                block_out_channels=config.decoder_widths,
                layers_per_block=config.layers,
                norm_num_groups=config.groups,
            )
        return model
    blocks = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
    return AutoencoderDC(
        latent_channels=config.channels,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=config.widths,
        decoder_block_out_channels=config.widths,
        encoder_layers_per_block=config.encoder,
        decoder_layers_per_block=config.decoder,
        encoder_qkv_multiscales=((),) * levels,
        decoder_qkv_multiscales=((),) * levels,
        decoder_norm_types=("batch_norm",) * 3 + ("rms_norm",) * 3,
        decoder_act_fns=("relu",) * 3 + ("silu",) * 3,
        upsample_block_type="pixel_shuffle",
        downsample_block_type="pixel_unshuffle",
    )


class AutoencoderTokenizer(nn.Module):
    """Tokens from pixels and back. Training needs `posterior` and `reconstruct`; use needs `encode` and `decode`.

    kind            what config.json of a model folder calls it
    bytewise        layers that an export stores in a byte a number
    code_tokenizer  the tokenizer of `codes`: latents have none
    """

    kind: ClassVar[str] = "latent"
    bytewise: ClassVar[tuple[str, ...]] = ()
    code_tokenizer: ClassVar[None] = None

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        self.net: Any = _build(config)  # diffusers types its models by a dummy too

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of tokens of a picture. ValueError unless both sides are multiples of `downsample`."""
        f = self.config.downsample
        if height % f or width % f or not height or not width:
            raise ValueError(f"a picture of {width}x{height} px does not divide into tokens of {f}x{f} px")
        return height // f, width // f

    @property
    def stored(self) -> "AutoencoderTokenizer":
        """What a folder of it holds."""
        return self

    def codes(self, tokens: Float[Tensor, "B N C"]) -> None:
        """Latents have no codes."""

    @property
    def cache_note(self) -> dict[str, Any]:
        """What the note of a cache says of its tokens."""
        return {"latent": self.config.to_dict()}

    def cache_tokens(self, pixels: Float[Tensor, "B 3 H W"]) -> dict[str, Tensor]:
        """What a cache keeps of pixels in [-1, 1], on the CPU: float16 "tokens", the means, and for KL their "std"."""
        mean, deviation = (part.to("cpu", torch.float16) for part in self.moments(pixels))
        return {"tokens": mean, "std": deviation} if self.config.family == "kl" else {"tokens": mean}

    def validate_cached(self, rows: dict[str, Tensor]) -> None:
        """Raises ValueError for the latents of at least SURE pictures that are not scaled to about 1."""
        if len(rows["tokens"]) >= SURE:
            validate_scale(rows["tokens"], self.config.scale, rows.get("std"))

    def identity(self) -> dict[str, Tensor]:
        """What decides which tokens a picture has, the scale with it: not the decoder, which may be improved later."""
        parts = ("net.encoder.", "net.quant_conv.")
        tensors = {name: tensor for name, tensor in self.state_dict().items() if name.startswith(parts)}
        return tensors | {"scale": torch.tensor(round(1e6 * self.config.scale))}

    def posterior(self, pixels: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
        """Mean and standard deviation of the unscaled latents; DC-AE's deviation is 0."""
        self.grid(*pixels.shape[2:])
        if self.config.family == "dc":
            latent = self.net.encode(pixels).latent
            return latent, torch.zeros_like(latent)
        distribution = self.net.encode(F.pixel_unshuffle(pixels, self.config.patch)).latent_dist
        return distribution.mean, distribution.std

    def reconstruct(self, latent: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Pixels from unscaled latents, with gradient; not clamped."""
        return F.pixel_shuffle(self.net.decode(latent).sample, self.config.decoder_patch or self.config.patch)

    @torch.no_grad()
    def moments(self, pixels: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B N C"], Float[Tensor, "B N C"]]:
        """Mean and standard deviation of the tokens of pixels in [-1, 1], which is what a cache keeps; float32."""
        mean, deviation = (self.config.scale * to_tokens(part).float() for part in self.posterior(pixels))
        return mean, deviation

    def encode(
        self, pixels: Float[Tensor, "B 3 H W"], noise: Float[Tensor, "B N C"] | None = None
    ) -> Float[Tensor, "B N C"]:
        """Tokens of pixels in [-1, 1]: the posterior's mean, or with N(0, 1) `noise` a sample, as the papers train."""
        mean, deviation = self.moments(pixels)
        return mean if noise is None else mean + deviation * noise

    @torch.no_grad()
    def decode(self, tokens: Float[Tensor, "B N C"], grid: tuple[int, int]) -> Float[Tensor, "B 3 H W"]:
        """Pixels in [-1, 1] of a grid (rows, columns) of scaled tokens."""
        rows, columns = grid
        if tokens.shape[1] != rows * columns:
            raise ValueError(f"{tokens.shape[1]} tokens do not fill a grid of {rows} rows and {columns} columns")
        if tokens.shape[2] != self.config.channels:
            raise ValueError(f"tokens of {tokens.shape[2]} channels; this tokenizer has {self.config.channels}")
        latent = tokens.transpose(1, 2).unflatten(2, grid) / self.config.scale
        return self.reconstruct(latent.to(next(self.net.parameters()).dtype)).float().clamp(-1, 1)


def to_tokens(latent: Float[Tensor, "B C h w"]) -> Float[Tensor, "B N C"]:
    """Cells in raster order."""
    return latent.flatten(2).transpose(1, 2)


SURE = 16  # different pictures whose spread says how their latents were scaled; a single one may be flat


def validate_scale(tokens: Float[Tensor, "B N C"], scale: float, spread: Float[Tensor, "B N C"] | None = None) -> None:
    """Refuses tokens that were not scaled, or scaled twice: their standard deviation is then 1/scale or scale, not 1.

    For the first batches of a cache: at least SURE different pictures. `spread`: the posterior's deviation, where
    `tokens` are its means. Raises ValueError with the number and the likely remedy.
    """
    variance = tokens.float().var()
    deviation = (variance if spread is None else variance + spread.float().square().mean()).sqrt().item()
    if not math.isfinite(deviation):
        raise ValueError(f"latents with a standard deviation of {deviation}: the pictures or the file are broken")
    expected = {"scaled": 1.0, "not scaled": 1 / scale, "scaled twice": scale}
    nearest = min(expected, key=lambda name: abs(math.log(max(deviation, 1e-9) / expected[name])))
    # A scale near 1 leaves little to tell: a corpus may differ by as much from the one that it was measured on.
    if nearest != "scaled" and abs(math.log(max(deviation, 1e-9))) > math.log(1.5):
        raise ValueError(
            f"latents with a standard deviation of {deviation:.3f} seem {nearest}: tokens of this tokenizer "
            f"(latents times {scale:g}) have about 1"
        )


def validate_given_tokens(tokens: Float[Tensor, "n C"], scale: float) -> None:
    """Refuses given tokens that no picture has, as unscaled latents are; a part of one picture tells only so much.

    Tokens have a deviation of about 1 over many pictures; one flat picture may stay well under it, none goes far above.
    Scaling twice, or by less than a third too little, is only seen over many pictures: `check_scale`.
    """
    if not tokens.numel():
        return
    size = tokens.float().square().mean().sqrt().item()
    if not size < 3:  # not-a-number too
        raise ValueError(
            f"the given latents are {size:.3g} large where tokens are about 1: multiply latents by the tokenizer's "
            f"scale ({scale:g}), as its `encode` does"
        )
