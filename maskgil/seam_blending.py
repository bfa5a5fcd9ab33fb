"""Seams between a picture and what is drawn into it: the colors of the new part are led into those of the old one.

A tokenizer does not reproduce a picture exactly, so a decoded part that is pasted into the original shows an edge. The
error of the decoded picture is known where the original stays. It is spread from there over the border of the new part
and added, and fades with the distance (a cheap form of gradient-domain blending: Perez et al. 2003, "Poisson image
editing").

B batch, H W pixels; values are in [-1, 1].
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

SIGMA = 10.0  # pixels over which the error is spread


def image_to_tensor(image: Image.Image) -> Float[Tensor, "1 3 H W"]:
    """A picture as numbers in [-1, 1]."""
    array = torch.from_numpy(np.asarray(image.convert("RGB"), np.float32).copy())
    return array.permute(2, 0, 1)[None] / 127.5 - 1


def to_image(pixels: Float[Tensor, "1 3 H W"]) -> Image.Image:
    """The picture of numbers in [-1, 1]."""
    levels = ((pixels[0].permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(levels.cpu().numpy())


def blend_seam(drawn: Image.Image, original: Image.Image, new: Image.Image) -> Image.Image:
    """The drawn picture with its error at the border of the new part corrected.

    original  the picture that stays where `new` is 0, of the same size
    new       mode L: 255 where the drawn picture is used
    """
    if new.getextrema() == (255, 255) or new.getextrema() == (0, 0):
        return drawn.convert("RGB")
    known = torch.from_numpy((np.asarray(new) == 0).astype(np.float32))[None, None]
    error = (image_to_tensor(original) - image_to_tensor(drawn)) * known
    reach = _blur(known)
    correction = _blur(error) / reach.clamp_min(1e-4) * (2 * reach).clamp(0, 1)  # at a straight border reach is 0.5
    return to_image(image_to_tensor(drawn) + correction * (1 - known))


def _blur(pixels: Float[Tensor, "1 C H W"]) -> Float[Tensor, "1 C H W"]:
    """A Gaussian blur of SIGMA pixels; beyond the edges is nothing."""
    radius = int(3 * SIGMA)
    at = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-at.square() / (2 * SIGMA**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1).repeat(pixels.shape[1], 1, 1, 1)
    across = F.conv2d(pixels, kernel, padding=(0, radius), groups=pixels.shape[1])
    return F.conv2d(across, kernel.transpose(2, 3), padding=(radius, 0), groups=pixels.shape[1])
