"""Perceptual loss: the distance of two pictures in the features of a network that was trained on the corpus.

It is LPIPS (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features") with all weights 1. VGG's weights
need a download, so the features are those of a plain convolutional network that the recipe `scenes-perceptual-net`
trains on the corpus: it predicts what covers each cell, the background and the style. It is not the judge that scores
pictures: the architecture and the pictures differ, and it sees no held-out combination.

Axes: B batch, H W pixels.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from maskgil import checkpoint
from train.scenes.judge import augment
from train.scenes.scene import BACKGROUNDS, STYLES


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.GroupNorm(8, outputs), nn.ReLU(inplace=True)
    )


class PerceptualNet(nn.Module):
    """Features at 1/4, 1/8 and 1/16 of the resolution; pixels in [-1, 1] with sides divisible by 16."""

    def __init__(self, things: int, widths: tuple[int, int, int] = (64, 96, 192)):
        super().__init__()
        fine, middle, coarse = widths
        self.things, self.widths = things, widths
        self.stages = nn.ModuleList([
            nn.Sequential(nn.PixelUnshuffle(4), _conv(48, fine), _conv(fine, fine)),
            nn.Sequential(_conv(fine, middle, 2), _conv(middle, middle), _conv(middle, middle)),
            nn.Sequential(_conv(middle, coarse, 2), _conv(coarse, coarse), _conv(coarse, coarse)),
        ])  # fmt: skip
        self.thing_head = nn.Conv2d(coarse, things + 1, 1)
        self.background_head = nn.Linear(coarse, len(BACKGROUNDS))
        self.style_head = nn.Linear(coarse, len(STYLES))

    def features(self, pixels: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Of each stage, finest first: (B, C, h, w)."""
        found = [pixels]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return found[1:]

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits: thing (B, T+1, H/16, W/16), background (B, K), style (B, S)."""
        x = self.features(pixels)[-1]
        pooled = x.mean((2, 3))
        return self.thing_head(x), self.background_head(pooled), self.style_head(pooled)

    def distance(self, ours: Float[Tensor, "B 3 H W"], theirs: Float[Tensor, "B 3 H W"]) -> Float[Tensor, ""]:
        """Squared differences of unit feature vectors, mean over positions, summed over stages; 0 for equal
        pictures."""
        with torch.no_grad():
            aims = self.features(theirs)
        total = ours.new_zeros(())
        for found, aim in zip(self.features(ours), aims, strict=True):
            difference = F.normalize(found.float(), dim=1) - F.normalize(aim.float(), dim=1)
            total = total + difference.square().sum(1).mean()
        return total


def perceptual_net_loss(modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[Tensor, dict]:
    """Cross-entropy of every answer, on pictures as blurred and noisy as those that the loss will compare."""
    pixels = augment(batch["pixels"], generator).contiguous(memory_format=torch.channels_last)
    things, background, style = (logits.float() for logits in modules[0](pixels))
    things_loss = F.cross_entropy(things, batch["covers"])
    places = F.cross_entropy(background, batch["background"])
    styles = F.cross_entropy(style, batch["style"])
    there = batch["covers"] > 0
    right = (things.argmax(1) == batch["covers"])[there].float().mean()
    return things_loss + 0.2 * places + 0.3 * styles, {
        "things": things_loss.item(), "accuracy": right.item(), "background": places.item(), "style": styles.item(),
    }  # fmt: skip


class Lpips(nn.Module):
    """LPIPS with the released VGG-16 and calibration. It needs torchvision and its weights."""

    def __init__(self) -> None:
        super().__init__()
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        try:
            self.metric = LearnedPerceptualImagePatchSimilarity(net_type="vgg").requires_grad_(False)
        except ModuleNotFoundError:
            raise ValueError(
                "LPIPS needs torchvision (`pip install torchvision`, of torch's version); without it train an "
                "network of your own: maskgil train scenes-perceptual-net"
            ) from None
        except OSError as error:  # no network
            raise ValueError(f"torchvision cannot fetch VGG-16's weights ({error}): connect to the net once") from None

    def distance(self, ours: Float[Tensor, "B 3 H W"], theirs: Float[Tensor, "B 3 H W"]) -> Float[Tensor, ""]:
        """As PerceptualNet.distance; the metric takes pixels within [-1, 1] only."""
        return self.metric(ours.clamp(-1, 1), theirs.clamp(-1, 1))


KIND = "observer"  # in config.json of saved networks; the name is kept so that they open
checkpoint.KINDS[KIND] = lambda config: PerceptualNet(config["things"], tuple(config["widths"]))


def save_perceptual_net(network: PerceptualNet, folder: Path) -> None:
    checkpoint.save(folder, network, KIND, {"things": network.things, "widths": list(network.widths)})


def load_perceptual_net(name: str | Path) -> PerceptualNet | Lpips:
    """A frozen network from its folder; or `lpips`. ValueError where it cannot be loaded."""
    if name == "lpips":
        return Lpips().eval()
    network = checkpoint.load(name, KIND).eval().requires_grad_(False)
    return network.to(memory_format=torch.channels_last)
