"""The small KL tokenizer of drawn scenes: `maskgil train scenes-kl --sprites FOLDER`.

A head that classifies what covers a cell, or a VQ tokenizer as a teacher, gives the latents meaning (KLLoss).

Axes: B batch, C channels, T things, H W pixels, h w cells.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskgil import checkpoint
from maskgil.tokenizers.autoencoder import AutoencoderConfig, AutoencoderTokenizer
from maskgil.tokenizers.vq import VQModel
from train.data.scene_datasets import ScenePixels
from train.losses.reconstruction import ReconstructionLoss
from train.optim import OptimConfig
from train.recipe import OptimizedModule, Recipe
from train.scenes.sprites import things
from train.training_step import unwrapped

# 16 px a token like the VQ tokenizer, so that both generators draw 64 tokens. The decoder too works at the resolution
# of the tokens, where its weights cost least.
SCENES_KL = AutoencoderConfig(
    channels=8, widths=(64, 128), layers=1, groups=16, patch=8, decoder_widths=(192,), decoder_patch=16, scale=1.0
)


class LatentsWithCellHead(nn.Module):
    """A KL tokenizer in training, with a head that classifies from a cell's latent what covers it (as
    TokenizerWithCellHead).

    `things`: number of things; 0: no head.
    """

    def __init__(self, model: AutoencoderTokenizer, things: int):
        super().__init__()
        self.model = model
        self.head = nn.Conv2d(model.config.channels, things + 1, 1) if things else None

    def forward(
        self, pixels: Float[Tensor, "B 3 H W"], noise: Float[Tensor, "B C h w"]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """(reconstruction from a sample, mean and deviation of the posterior, logits of things (B, T+1, h, w))."""
        mean, deviation = (part.float() for part in self.model.posterior(pixels))
        z = mean + deviation * noise
        return self.model.reconstruct(z), mean, deviation, None if self.head is None else self.head(z)


@dataclass(frozen=True)
class KLLoss:
    """Reconstruction loss of a sample of the posterior, KL divergence from N(0, 1) in nats a number, cross-entropy of
    the things of cells, and squared distance of the means to a teacher's latents.

    divergence   weight; it decides the information in the latents. At 1e-3 each of 16 numbers keeps 15 nats, with a
                 posterior of 1/200 of the latents' spread. A small diffusion head could not learn that: its pictures
                 were mottled. At 5e-2 each of 8 numbers keeps 1.6 nats
    cell_weight  weight of the classification of what covers a cell. Without it or a teacher the latents do not show
                 that. With a divergence above 1e-2 from the beginning it is not learned
    teacher      a VQ tokenizer whose latents before quantization, at a deviation of 1, the means should resemble. Its
                 12 bits a token hold more about a drawing than the 27 nats that an untaught encoder learns. It takes
                 hundreds of steps where cell_weight takes thousands
    anchor       weight of the squared distance to the teacher's latents
    """

    likeness: ReconstructionLoss = field(default_factory=ReconstructionLoss)
    divergence: float = 1e-3
    cell_weight: float = 0.1
    teacher: VQModel | None = None
    anchor: float = 0.5

    def __call__(self, modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[Tensor, dict]:
        model = unwrapped(modules[0]).model
        pixels = batch["pixels"].float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
        shape = (len(pixels), model.config.channels, *model.grid(*pixels.shape[2:]))
        noise = torch.randn(shape, generator=generator, device=pixels.device)
        result, mean, deviation, names = modules[0](pixels, noise)
        result = result.float()
        kl = (0.5 * (mean.square() + deviation.square() - 1) - deviation.log()).mean()
        loss, report = self.likeness(result, batch, pixels, modules, model.net.decoder.conv_out.weight, step)
        loss = loss + self.divergence * kl
        if self.cell_weight:
            names, there = names.float(), batch["covers"] > 0
            loss = loss + self.cell_weight * F.cross_entropy(names, batch["covers"])
            report["cell_accuracy"] = (names.argmax(1) == batch["covers"])[there].float().mean().item()
        if self.teacher is not None:
            far = F.mse_loss(mean, unit_latents(self.teacher.to(pixels.device), pixels))
            loss, report["loss/distill"] = loss + self.anchor * far, far.item()
        with torch.no_grad():
            l1 = (result - pixels).abs().mean()
        return loss, report | {"l1": l1, "kl": kl.detach()}


@torch.no_grad()
def unit_latents(teacher: VQModel, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
    """Latents before quantization of a VQ tokenizer with codes on the unit sphere, scaled to a deviation of 1."""
    latents = teacher.latents(pixels)
    return latents.permute(0, 3, 1, 2) * latents.shape[-1] ** 0.5


@torch.no_grad()
def measured_scale(model: AutoencoderTokenizer, batch_at: Callable[[int], dict], batches: int = 16) -> float:
    """1 / the deviation of unscaled latents over many pictures, the spread of the posterior included."""
    parts, device = [], next(model.parameters()).device
    for index in range(batches):
        mean, deviation = model.posterior(batch_at(index)["pixels"].to(device).float().div(127.5).sub(1))
        parts += [torch.stack([mean.float(), deviation.float()]).flatten(1)]
    mean, deviation = torch.cat(parts, 1)
    return round(float((mean.var() + deviation.square().mean()).rsqrt()), 4)


@torch.no_grad()
def folded(model: AutoencoderTokenizer) -> AutoencoderTokenizer:
    """The same model with its scale multiplied into the weights, so that its latents start at a deviation of 1."""
    scale, channels = model.config.scale, model.config.channels
    for part in model.net.quant_conv.parameters():
        part[:channels] *= scale
    model.net.quant_conv.bias[channels:] += 2 * math.log(scale)  # of the log variances
    model.net.post_quant_conv.weight /= scale
    model.config = replace(model.config, scale=1.0)
    return model


def kl_recipe(
    sprites: str | None,
    steps: int,
    batch: int,
    lr: float,
    picture: Callable,
    config: AutoencoderConfig = SCENES_KL,
    loss: KLLoss | None = None,
    judge: tuple[OptimizedModule, ...] = (),
    init: str | None = None,
    frozen: bool = False,
) -> Recipe:
    """See `scenes_kl` in train/recipes/scenes_latents.py. judge: the optimized PatchGAN, if the loss is adversarial."""
    torch.manual_seed(0)
    if frozen and not init:
        raise ValueError("--frozen keeps the encoder of another tokenizer: give its folder by --init")
    model = checkpoint.load(init, "latent").train() if init else AutoencoderTokenizer(config)
    config = model.config
    if init and not frozen:
        config = folded(model).config
    if frozen:
        for part in (model.net.encoder, model.net.quant_conv):
            part.requires_grad_(False)
    loss = loss or KLLoss()
    named = LatentsWithCellHead(model, len(things()) if loss.cell_weight else 0).to(memory_format=torch.channels_last)
    data = ScenePixels(sprites, batch, seed=1000 * bool(init))
    shown = replace(data, seed=99, batch=8)

    def sample(average: LatentsWithCellHead, path: Path) -> None:
        model = average.model
        pixels = shown(0)["pixels"].to(next(model.parameters()).device).float().div(127.5).sub(1)
        picture([pixels, model.decode(model.encode(pixels), model.grid(*pixels.shape[2:]))], path)

    def export(average: LatentsWithCellHead, folder: Path) -> None:
        shown = replace(data, seed=98, crowd=0.0)
        scaled = config if frozen else replace(config, scale=measured_scale(average.model, shown))
        checkpoint.save(folder, average.model, "latent", scaled.to_dict())

    return Recipe(
        name="scenes-kl",
        steps=steps,
        modules=(OptimizedModule(named, loss, OptimConfig(lr=lr, muon_lr=0.02, warmup=50, decay=0.6)), *judge),
        batch_at=data,
        ema=0.995,
        save_every=250,
        sample_every=500,
        sample=sample,
        export=export,
    )
