"""Stage 1: the encoder and the codebook of the open world, trained with a small decoder that is discarded.

The encoder reads 12 px a cell and gives one of 4,096 codes for each cell: 12 x 12 codes for a picture of 288 px. Heads
beside the decoder predict thing, part and colour from the codes, so that the codes tell what a cell shows. The final
decoder is trained later, on frozen codes, and the training of a generator need not wait for it.

The encoder may be initialized from another tokenizer. It is then frozen until the new decoder has adapted to it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from maskgil import checkpoint
from maskgil.tokenizers.vq import VQConfig, VQModel
from train.image_rows import write_image_rows
from train.losses.codebook import CodebookRevival, quantize_with_gradient
from train.losses.reconstruction import reconstruction
from train.optim import OptimConfig
from train.recipe import OptimizedModule, Recipe
from train.training_step import unwrapped
from train.world.answers import CELL_ANSWERS, answer_counts
from train.world.world_data import CodeBatches, WorldScenes

CELL = 12  # pixels of a cell as the encoder reads it
CODES = VQConfig(
    codebook_size=4096,
    channels=(128, 256),
    res_blocks=1,
    z_channels=128,
    patch=CELL // 2,
    decoder_channels=(192,),
    decoder_patch=CELL,
)
HEADS = ("things", "parts", "colours")


def to_pixels(batch: dict) -> Float[Tensor, "B 3 H W"]:
    """A batch's pictures in [-1, 1]."""
    return batch["pixels"].float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)


class CodesInTraining(nn.Module):
    """A tokenizer with heads that predict from the codes what each cell shows."""

    def __init__(self, model: VQModel, things: int):
        super().__init__()
        self.model = model
        self.encoder_frozen = False
        width = (model.config.decoder_channels or model.config.channels)[-1]
        counts = [answer_counts(things)[CELL_ANSWERS.index(name)] for name in HEADS]
        self.heads = nn.ModuleList(nn.Conv2d(width, count, 1) for count in counts)

    def forward(
        self, pixels: Float[Tensor, "B 3 H W"], noise: Float[Tensor, "B h w C"] | None
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """(reconstructed pixels, logits of each head (B, K, h, w), codebook loss). With `noise`, the latents are not
        quantized: the noise is added instead."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.encoder_frozen):
            z = self.model.latents(pixels)
        if noise is None:
            z, _, extra = quantize_with_gradient(self.model, z)
        else:
            z, extra = F.normalize(z + noise, dim=-1), z.new_zeros(())
        decoder = self.model.decoder
        cells = decoder.encode_latents(self.model.post_quant_conv(z.permute(0, 3, 1, 2)))
        return decoder.to_pixels(cells), [head(cells) for head in self.heads], extra


@dataclass(frozen=True)
class CodeLoss:
    """Reconstruction loss and cell labels. Before step `quantize_from` latents are not quantized, so that the codebook
    is initialized from trained latents."""

    quantize_from: int
    cell_weight: float = 0.06  # of the cell labels
    frozen: int = 0  # steps in which the encoder is frozen

    def __call__(self, modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[Tensor, dict]:
        training, pixels, noise = unwrapped(modules[0]), to_pixels(batch), None
        model, training.encoder_frozen = training.model, step < self.frozen
        if step < self.quantize_from:
            shape = (len(pixels), *model.grid(*pixels.shape[2:]), model.config.codebook_dim)
            noise = 0.05 * torch.randn(shape, generator=generator, device=pixels.device)
        result, answers, extra = modules[0](pixels, noise)
        there = batch["things"] > 0
        weight = 1 + F.interpolate(there[:, None].float(), size=pixels.shape[2:], mode="nearest")
        fit = reconstruction(result.float(), pixels, weight / weight.mean())
        named = [F.cross_entropy(a.float(), batch[name]) for a, name in zip(answers, HEADS, strict=True)]
        with torch.no_grad():
            right = [(a.argmax(1) == batch[name])[there].float().mean() for a, name in zip(answers, HEADS, strict=True)]
            l1 = (result - pixels).abs().mean()
        report = {"loss": fit.item(), "l1": l1.item(), "vq": extra.item()}
        report |= {f"accuracy/{name}": share.item() for name, share in zip(HEADS, right, strict=True)}
        return fit + extra + self.cell_weight * sum(named), report


def resized_stem(weight: Float[Tensor, "O I k k"], old: int, new: int) -> Float[Tensor, "O J k k"]:
    """The weights of a first convolution over folded patches of `old` px, resized for patches of `new` px: its output
    for a picture is close to that for the same picture in the old size."""
    kernels = weight.unflatten(1, (3, old, old)).permute(0, 1, 4, 5, 2, 3)
    small = F.interpolate(kernels.flatten(0, 2), size=(new, new), mode="bilinear", antialias=True)
    return (small * (old / new) ** 2).view(*kernels.shape[:4], new, new).permute(0, 1, 4, 5, 2, 3).flatten(1, 3)


@torch.no_grad()
def begin_as(model: VQModel, other: VQModel) -> None:
    """Initialize a tokenizer's encoder, codebook and latents from another one with the same widths. ValueError where
    the two differ in more than the patch size."""
    own, known = model.state_dict(), dict(other.identity())
    stem = "encoder.conv_in.weight"
    known[stem] = resized_stem(known[stem].float(), other.config.patch, model.config.patch)
    if wrong := [name for name, tensor in known.items() if name not in own or own[name].shape != tensor.shape]:
        raise ValueError(f"the tokenizer to initialize from has other shapes: {', '.join(wrong[:3])}")
    model.load_state_dict(known, strict=False)


def code_recipe(
    drawings: str, things: int, steps: int, batch: int, precision: str, init: str = "", lr: float = 1e-3
) -> Recipe:
    """The recipe of the encoder and codebook, on scenes of which 60% are crowded. `init`: a tokenizer to initialize the
    encoder from; the codebook is initialized from latents of these scenes."""
    torch.manual_seed(0)
    model = VQModel(CODES)
    if init:
        begin_as(model, checkpoint.load(init, "vq"))
    model = model.to(memory_format=torch.channels_last)
    scenes = WorldScenes(drawings, things, batch, seed=11, crowds=0.6)
    quantize_from, frozen = (1, min(150, steps // 8)) if init else (min(500, steps // 8), 0)
    spare = CodeBatches(WorldScenes(drawings, things, batch, seed=7, crowds=0.6), CELL)
    shown = CodeBatches(WorldScenes(drawings, things, 10, seed=99, square=True), CELL)

    def sample(training: CodesInTraining, path: Path) -> None:
        device = next(training.parameters()).device
        pixels = to_pixels(shown(0)).to(device)
        with torch.no_grad():
            result = training.model.decode(training.model.encode(pixels), training.model.grid(*pixels.shape[2:]))
        write_image_rows([pixels, result], path)

    return Recipe(
        name="world-codes",
        steps=steps,
        modules=(
            OptimizedModule(
                CodesInTraining(model, things),
                CodeLoss(quantize_from, frozen=frozen),
                OptimConfig(lr=lr, muon_lr=0.02, warmup=50, decay=0.6),
            ),
        ),
        batch_at=CodeBatches(scenes, CELL),
        precision=precision,
        ema=0.995,
        save_every=20,
        sample_every=200,
        after_step=CodebookRevival(quantize_from, spare, until=int(steps * 0.8), start=24, more=8),
        sample=sample,
        export=lambda training, folder: checkpoint.save(folder, training.model, "vq", training.model.config.to_dict()),
    )
