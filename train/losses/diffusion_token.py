"""The loss of a generator's hidden tokens, codes or vectors, by any method of train/losses/generation_methods.py.

Axes: B batch, N tokens, C channels of a vector, L text tokens, D width.
"""

import contextlib
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskgil.generator import Generator, HiddenTokens
from maskgil.models.maskgil import MaskGIL
from train.losses.conditioned import batch_condition, given_condition
from train.losses.generation_methods import MaskedGenerationConfig, brought_forward
from train.losses.token_targets import layout_loss
from train.recipe import SumAndCount


@runtime_checkable
class TrainableGenerator(Generator, Protocol):
    """A generator whose last blocks see every position, the image's last. `kind`: of its model folder."""

    kind: str

    @property
    def late_blocks(self) -> nn.ModuleList: ...

    @property
    def last_norm(self) -> nn.Module: ...


class LatentTrainingModule(nn.Module):
    """A generator, the text encoder in front of it, and the loss of its hidden tokens, as one module to train.

    text_encoder  None for a class-driven generator
    smoothing     of labels, for codes
    repeats       times and noises that the diffusion head sees of each hidden vector
    kinds         answers of heads that predict, halfway up the last blocks, what each cell will show (WithLayoutHeads)
    teacher       a trained generator of codes, which sees the same cells hidden. From the output at each hidden cell a
                  linear head predicts the teacher's features, which its logits are linear in
    guess         a linear head predicts each hidden vector from the trunk's output; its squared error is added. The
                  diffusion loss weighs an error of the vector by (alpha / sigma)^2, which is near 0 at the noise levels
                  where only the trunk knows anything
    """

    def __init__(
        self,
        generator: TrainableGenerator,
        text_encoder: nn.Module | None,
        smoothing: float = 0.0,
        repeats: int = 4,
        kinds: tuple[int, ...] = (),
        guess: bool = False,
        teacher: MaskGIL | None = None,
    ):
        super().__init__()
        self.generator, self.text_encoder = generator, text_encoder
        self.smoothing, self.repeats = smoothing, repeats
        width = generator.config.width
        self.watched = len(generator.late_blocks) // 2
        self.heads = nn.ModuleList(nn.Linear(width, kind) for kind in kinds)
        self.guess = nn.Linear(width, generator.config.channels) if guess else None
        self.teacher = None if teacher is None else teacher.eval().requires_grad_(False)
        self.taught = None if teacher is None else nn.Linear(width, teacher.config.dim)
        if self.taught is not None:
            nn.init.eye_(self.taught.weight)  # right at first for a trunk that began as the teacher
            nn.init.zeros_(self.taught.bias)

    def forward(
        self,
        tokens: Int[Tensor, "B N"] | Float[Tensor, "B N C"],
        grid: tuple[int, int],
        hidden: Bool[Tensor, "B N"],
        weight: Float[Tensor, " B"] | None,
        drop: Bool[Tensor, " B"],
        draws: torch.Generator,
        codes: Int[Tensor, "B N"] | None = None,
        **given: Tensor,
    ) -> tuple[Float[Tensor, ""], list[Tensor]]:
        """Mean over hidden tokens of w * -log p, or of the diffusion loss that bounds it; then the heads' logits.

        drop   rows that see the null condition
        draws  random numbers of the diffusion head
        codes  of the same cells, for the teacher
        given  the condition (batch_condition)
        """
        space, condition = self.generator.token_space, batch_condition(self.text_encoder, **given)
        middle: list[Tensor] = []
        with contextlib.ExitStack() as watching:
            if self.heads:  # an unused hook would make torch.compile compile again at each step
                watch = self.generator.late_blocks[self.watched].register_forward_hook(
                    lambda block, given, out: middle.append(out[:, -hidden.shape[1] :])
                )
                watching.callback(watch.remove)
            out = space.hidden_outputs(self.generator, tokens, grid, hidden, condition, drop)
        cells = [F.rms_norm(part, part.shape[-1:]) for part in middle]
        answers = [head(part) for part in cells for head in self.heads]
        target = HiddenTokens(tokens, hidden, weight, self.smoothing, self.repeats, draws)
        loss = space.hidden_loss(self.generator, out, target)
        if self.guess is not None and hidden.any():
            loss = loss + F.mse_loss(self.guess(out[hidden]).float(), tokens[hidden].float())
        if self.teacher is not None and hidden.any():
            with torch.no_grad():
                seen = codes.masked_fill(hidden, self.teacher.config.mask_id)
                features = self.teacher.features(seen, grid, condition, drop)[hidden].float()
            error = (self.taught(out[hidden]).float() - features).square().mean()
            loss = loss + error / features.square().mean()
        return loss, answers


@dataclass(frozen=True)
class LatentTokenLoss:
    """The loss of a framework, as the trainer calls it.

    caption_dropout  share of rows that see no text, for guidance
    layout           weight of the loss of the module's heads on the hidden cells
    things_first     hide the cells of things before those of the background, to a degree drawn for each row; the number
                     of hidden cells stays (MaskedTokenLoss)
    seed             of batches whose pictures are numbered (train/data/image_cache.py): what is drawn for a batch,
                     dropout aside, is a function of its first picture's number, however many processes share the work
    """

    framework: MaskedGenerationConfig
    caption_dropout: float = 0.1
    layout: float = 0.0
    things_first: bool = False
    seed: int = 0

    def __call__(self, modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[SumAndCount, dict]:
        tokens, device = batch["tokens"], batch["tokens"].device
        if "numbers" in batch:
            generator = torch.Generator(device).manual_seed(self.seed * 1_000_003 + int(batch["numbers"][0]))
        # Masks are drawn on the CPU by a generator of their own; `generator` draws the head's times and noise.
        own = torch.randint(2**62, (), generator=generator, device=generator.device)
        host = torch.Generator().manual_seed(int(own))
        hidden, u = self.framework.masks(len(tokens), tokens.shape[1], host)
        if self.things_first:
            early = torch.rand(len(tokens), 1, generator=host) * (batch["things"] > 0).cpu()
            hidden = brought_forward(hidden, early, host)
        weight = self.framework.weights(u)
        drop = torch.rand(len(tokens), generator=host) < self.caption_dropout
        mean, answers = modules[0](
            tokens,
            tuple(batch["grid"]),
            hidden.to(device),
            None if weight is None else weight.to(device),
            drop.to(device),
            generator,
            batch.get("codes"),
            **given_condition(batch),
        )
        count = hidden.sum().clamp_min(1).to(device)
        report = {"masked": hidden.float().mean(), "tokens": mean.detach()}
        if answers and hidden.any():
            extra, told = layout_loss(answers, batch, hidden.to(device))
            mean, report = mean + self.layout * extra, report | told
        return SumAndCount(mean * count, count), report
