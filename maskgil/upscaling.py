"""Pictures of two and four times the size, with the detail that a tokenizer's decoder adds.

A tokenizer with an upscaler encodes pictures at half of the size that it decodes. Encoding a picture as if it were
already at that half size gives a picture of twice the size. Its low frequencies are replaced by those of the picture
itself, so that nothing moves or changes its color; what is left of the decoder's work is the detail of edges.

B batch, H W pixels; values are in [-1, 1].
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from maskgil.seam_blending import image_to_tensor, to_image
from maskgil.tokenizers.vq import VQModel

FACTORS = (2, 4)
MAX_PIXELS = 2048 * 2048  # of the result


def upscale(tokenizer: Any, image: Image.Image, factor: int) -> Image.Image:
    """The picture at `factor` times its size, 2 or 4.

    Without an upscaler in the tokenizer (`has_upscaler`) it is interpolated. Raises ValueError for another factor, and
    for a result of more than MAX_PIXELS.
    """
    if factor not in FACTORS:
        raise ValueError(f"a factor of {factor}: pictures are upscaled 2 or 4 times")
    width, height = image.width * factor, image.height * factor
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{width} × {height} is too large: upscaled pictures have at most {MAX_PIXELS / 1e6:.1f} million pixels"
        )
    if not has_upscaler(tokenizer):
        return image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    pixels = image_to_tensor(image)
    while factor > 1:
        pixels, factor = double(tokenizer, pixels), factor // 2
    return to_image(pixels)


def has_upscaler(tokenizer: Any) -> bool:
    """Whether the decoder draws twice the size that the encoder reads."""
    return tokenizer.config.upscale == 2


@torch.no_grad()
def double(tokenizer: VQModel, pixels: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 3 _ _"]:
    """Pixels at twice the size: the picture's own low frequencies and the decoder's high ones."""
    height, width = pixels.shape[2:]
    cell = tokenizer.config.downsample // 2  # pixels that the encoder reads for a token
    device = next(tokenizer.parameters()).device
    padded = F.pad(pixels.to(device), (0, -width % cell, 0, -height % cell), mode="replicate")
    decoded = tokenizer.reconstruct(tokenizer.latents(padded)).clamp(-1, 1)
    detail = decoded - _interpolate(F.avg_pool2d(decoded, 2))
    return (_interpolate(padded) + detail)[..., : 2 * height, : 2 * width].clamp(-1, 1).cpu()


def _interpolate(pixels: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 3 _ _"]:
    return F.interpolate(pixels, scale_factor=2, mode="bicubic", align_corners=False)
