"""How like a picture its reconstruction is: what a tokenizer and its decoder are trained by.

L1 on pixels and on their differences; a perceptual distance (train/losses/perceptual.py), of finer pictures at the
size that
the network knows; and, from a step on, a PatchGAN that must not be able to tell the two apart (VQGAN, Esser et al.
2021, with its adaptive weight, eq. 7; hinge loss).

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
    """L1 on pixels and, because L1 alone blurs, on their differences. `weight`: how much each pixel counts."""
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
    """Cut to begin at another pixel of 4 x 4 with each step: a judge that folds 4 x 4 pixels sees each in a place of
    its own and, where the painter has the same lattice, is pleased by a screen of 4 pixels on smooth walls."""
    y, x = step % 4, step // 4 % 4
    return pixels[..., y : pixels.shape[2] - 4 + y, x : pixels.shape[3] - 4 + x]


def patchgan_loss(modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[Tensor, dict]:
    """The hinge loss of the second player, on what the first has left in the batch: (reconstructions, originals).

    Nothing is left there before the game begins; the loss is then 0.
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
    """The loss of whoever paints.

    network           whose features are compared; None: pixels only
    perceptual        weight of that distance
    adversarial_from  step at which the game with modules[1], a PatchGAN, begins; None: never
    adversarial       weight of the game, times the ratio of both losses' gradients at the last layer
    finer             pixels a side for each of a scene as the network knows it
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
        """(loss, what to log). Leaves ("painted") in the batch what the PatchGAN is to learn from."""
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
