"""The reconstruction loss of a tokenizer and its decoder.

It is L1 on pixels and on their differences, a perceptual distance (train/losses/perceptual.py), and from a step on an
adversarial loss with a PatchGAN (VQGAN, Esser et al. 2021, with its adaptive weight, eq. 7; hinge loss). The perceptual
distance of finer pictures is taken at the size that the network was trained on.

Axes: B batch, H W pixels.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from train.losses.perceptual import Lpips, PerceptualNet


def edges(pixels: Float[Tensor, "B 3 H W"]) -> tuple[Tensor, Tensor]:
    """Differences between neighbours, down and across."""
    return pixels[..., 1:, :] - pixels[..., :-1, :], pixels[..., :, 1:] - pixels[..., :, :-1]


def reconstruction(
    result: Float[Tensor, "B 3 H W"],
    pixels: Float[Tensor, "B 3 H W"],
    weight: Float[Tensor, "B 1 H W"] | None = None,
) -> Tensor:
    """L1 on pixels and on their differences, because L1 on pixels blurs. `weight`: of each pixel."""
    error = result - pixels if weight is None else (result - pixels) * weight
    loss = error.abs().mean()
    for part in edges(error):
        loss = loss + 0.5 * part.abs().mean()
    return loss


class PatchGAN(nn.Module):
    """Real or not, patch by patch (Isola et al. 2017): one logit for each 8 x 8 pixels, seeing 36 x 36 of them.

    The stem folds 4 x 4 pixels into channels, for speed on a CPU.
    """

    def __init__(self, width: int = 64):
        super().__init__()
        self.conv_in = nn.Conv2d(48, width, 3, padding=1)
        self.conv = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(8, 2 * width)
        self.again = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.conv_out = nn.Conv2d(2 * width, 1, 3, padding=1)

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 h w"]:
        x = F.leaky_relu(self.conv_in(F.pixel_unshuffle(pixels, 4)), 0.2)
        x = F.leaky_relu(self.norm(self.conv(x)), 0.2)
        return self.conv_out(F.leaky_relu(self.again(x), 0.2))


def shifted(pixels: Float[Tensor, "B 3 H W"], step: int) -> Float[Tensor, "B 3 _ _"]:
    """Pixels cropped to start at another pixel of 4 x 4 in each step. The discriminator folds 4 x 4 pixels; with a
    fixed lattice it accepts a pattern with a period of 4 pixels on smooth areas, which a decoder of the same lattice
    makes."""
    y, x = step % 4, step // 4 % 4
    return pixels[..., y : pixels.shape[2] - 4 + y, x : pixels.shape[3] - 4 + x]


def patchgan_loss(modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[Tensor, dict]:
    """The hinge loss of the discriminator, on the (reconstructions, originals) that ReconstructionLoss puts into the
    batch; 0 before the adversarial training begins.
    """
    judge = modules[1]
    if "painted" not in batch:
        return sum(p.sum() * 0 for p in judge.parameters()), {}
    painted, pixels = batch["painted"]
    real, fake = judge(shifted(pixels, step)).float(), judge(shifted(painted, step)).float()
    loss = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    told = 0.5 * ((real > 0).float().mean() + (fake < 0).float().mean())
    return loss, {"d/loss": loss.item(), "d/accuracy": told.item()}


class ReconstructionLoss:
    """The loss of a tokenizer or decoder.

    network           whose features are compared; None: pixels only
    perceptual        weight of the perceptual distance
    adversarial_from  step at which adversarial training with modules[1], a PatchGAN, begins; None: never
    adversarial       weight of the adversarial loss, times the ratio of both losses' gradients at the last layer
    finer             pixels a side for each pixel of the pictures that the network was trained on
    """

    def __init__(
        self,
        network: PerceptualNet | Lpips | None = None,
        perceptual: float = 1.0,
        adversarial_from: int | None = None,
        adversarial: float = 0.5,
        finer: int = 1,
    ):
        self.network, self.perceptual, self.finer = network, perceptual, finer
        self.adversarial_from, self.adversarial = adversarial_from, adversarial

    def __call__(
        self,
        result: Float[Tensor, "B 3 H W"],
        batch: dict,
        pixels: Float[Tensor, "B 3 H W"],
        modules: list,
        last_layer: nn.Parameter,
        step: int,
        weight: Float[Tensor, "B 1 H W"] | None = None,
    ) -> tuple[Tensor, dict]:
        """(loss, values to log). Puts the input of the PatchGAN into the batch, as "painted"."""
        loss, report = reconstruction(result, pixels, weight), {}
        if self.network is not None:
            seen = (F.avg_pool2d(p, self.finer) for p in (result, pixels))
            distance = self.network.to(result.device).distance(*seen)
            loss, report["loss/perceptual"] = loss + self.perceptual * distance, distance.item()
        if self.adversarial_from is not None and step >= self.adversarial_from:
            fooling = -modules[1](shifted(result, step)).float().mean()
            ours, theirs = (
                torch.autograd.grad(part, last_layer, retain_graph=True)[0].norm() for part in (loss, fooling)
            )
            share = (ours / (theirs + 1e-4)).clamp(0, 1e4).detach()
            loss, report["g/adversarial"] = loss + self.adversarial * share * fooling, fooling.item()
            batch["painted"] = result.detach(), pixels
        return loss, report
