"""One framework for masked image generation (eMIGM, 2503.07197, section 3): MaskGIT, MAR, MDM, MaskGIL and eMIGM differ
in seven choices, which are independent of each other.

    loss = E over t, x_t ~ q(x_t | x_0) of  w(t) * sum over masked i of -log p(x_0^i | x_t)

As in the released code the sum is divided by the number of masked tokens of the batch.

Axes: B batch, N tokens, C channels of a continuous token, K codes, L text tokens, D width.
"""

import contextlib
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskgil.condition import Condition
from maskgil.models.config import ModelConfig
from maskgil.models.emigm import EMIGM, Blocks, EMIGMConfig, training_mask
from maskgil.models.maskgil import MaskGIL
from maskgil.sampling.code_space import CodeSpace
from maskgil.sampling.schedules import (
    MaskSchedule,
    arccos,
    cosine,
    exact_mask,
    exp,
    independent_mask,
    linear,
    schedule_by_name,
)
from train.losses.token_targets import layout_loss
from train.recipe import SumAndCount

Masking = Literal["exact", "independent"]
Weighting = Literal["one", "bound"]
Conditional = Literal["categorical", "diffusion"]
TrunkKind = Literal["single", "mae"]
Null = Literal["token", "mask"]


@dataclass(frozen=True)
class MaskedGenerationConfig:
    """What makes a method.

    masking      q(x_t | x_0): exactly ceil(N gamma) tokens, or each with probability gamma
    weighting    w(t): 1, or the likelihood bound's gamma'/gamma
    conditional  p(x_0^i | x_t): softmax over codes, or the diffusion head over vectors
    curve        gamma(t)
    trunk        one network over all tokens, or an encoder of the known ones and a decoder (masked autoencoder)
    null         what stands for no text in guidance: a learned token of its own, or the mask token
    t_min        times below it are raised to it, so that training does not spend itself on nearly finished pictures
    """

    masking: Masking
    weighting: Weighting
    conditional: Conditional
    curve: MaskSchedule
    trunk: TrunkKind = "single"
    null: Null = "token"
    t_min: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.t_min < 1:
            raise ValueError(f"t_min is {self.t_min}; give a number in [0, 1)")

    def masks(
        self, rows: int, tokens: int, generator: torch.Generator
    ) -> tuple[Bool[Tensor, "B N"], Float[Tensor, " B"]]:
        """What is hidden, and the time in (0, 1] of each row; on the CPU, from a generator there.

        The rows of a masked autoencoder share time and count, so that its encoder has one length (the released rule).
        """
        hide = exact_mask if self.masking == "exact" else independent_mask
        if self.trunk == "mae":
            hidden, u = training_mask(rows, tokens, self.curve, self.t_min, generator, hide)
            return hidden, u.expand(rows)
        u = 0.999 * torch.rand(rows, generator=generator).clamp(min=self.t_min) + 0.001
        return hide(self.curve.gamma(u), torch.rand(rows, tokens, generator=generator)), u

    def weights(self, u: Float[Tensor, " B"]) -> Float[Tensor, " B"] | None:
        """w(t) of each row; None is 1."""
        return None if self.weighting == "one" else self.curve.weight(u)


def brought_forward(
    hidden: Bool[Tensor, "B N"], early: Float[Tensor, "B N"], generator: torch.Generator
) -> Bool[Tensor, "B N"]:
    """As many hidden tokens in each row, at other places: `early`, in [0, 1], draws a place forward (random_mask)."""
    order = (torch.rand(hidden.shape, generator=generator) - early).argsort(1).argsort(1)
    return order < hidden.sum(1, keepdim=True)


# The papers' own choices. MaskGIL's is the released code's but for two habits of it, label smoothing and the scoring of
# visible tokens, which are no part of the framework (train/losses/objectives.py offers them). MAR draws its ratio
# otherwise
# (a truncated normal law around 1): the paper's table counts it as cosine.
METHODS: dict[str, MaskedGenerationConfig] = {
    "maskgit": MaskedGenerationConfig("exact", "one", "categorical", cosine),
    "mar": MaskedGenerationConfig("exact", "one", "diffusion", cosine, trunk="mae"),
    "mdm": MaskedGenerationConfig("independent", "bound", "categorical", linear),
    "maskgil": MaskedGenerationConfig("independent", "one", "categorical", arccos),
    "emigm": MaskedGenerationConfig("independent", "one", "diffusion", exp, trunk="mae", null="mask", t_min=0.2),
}


def method(name: str, **choices: str | float | None) -> MaskedGenerationConfig:
    """A row of METHODS with some choices changed, in words as the command line gives them; empty ones stay.

    Raises ValueError for a name that is none of them, and for a choice that there is not.
    """
    if name not in METHODS:
        raise ValueError(f"method={name}: choose one of {', '.join(METHODS)}")
    there = {"masking": get_args(Masking), "weighting": get_args(Weighting), "conditional": get_args(Conditional)}
    there |= {"trunk": get_args(TrunkKind), "null": get_args(Null)}
    given = {choice: value for choice, value in choices.items() if value not in ("", None)}
    for choice, options in there.items():
        if choice in given and given[choice] not in options:
            raise ValueError(f"{choice}={given[choice]}: choose one of {', '.join(options)}")
    if "curve" in given:
        given["curve"] = schedule_by_name(given["curve"])
    return replace(METHODS[name], **given)


@dataclass(frozen=True)
class CodeConfig:
    """What the pipeline and its sampler of codes ask of a model."""

    codebook_size: int
    text_dim: int

    @property
    def mask_id(self) -> int:
        return self.codebook_size

    @property
    def reads_remaining(self) -> bool:
        """Whether the model reads how many tokens remain masked: this one does not."""
        return False


class CodeTrunk(nn.Module):
    """eMIGM's trunk over codes: a table in front, a softmax behind. It is called, and sampled, as MaskGIL is."""

    def __init__(self, trunk: EMIGMConfig, codes: int):
        super().__init__()
        self.config = CodeConfig(codes, trunk.text_dim)
        self.embedding = nn.Embedding(codes, trunk.channels)
        self.trunk = EMIGM(trunk)
        del self.trunk.diffloss
        self.output = nn.Linear(trunk.width, codes)

    @property
    def token_space(self) -> CodeSpace:
        """Codes: see maskgil/generator.py."""
        return CodeSpace(self.config.codebook_size, self.config.mask_id)

    def forward(
        self,
        tokens: Int[Tensor, "B N"],
        grid: tuple[int, int],
        condition: Condition,
        drop: Bool[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B N K"]:
        """Logits of every code at every position; the mask id marks what is unknown."""
        if grid != self.trunk.config.grid:
            raise ValueError(f"a grid of {grid}; this trunk has learned {self.trunk.config.grid} alone")
        masked = tokens == self.config.mask_id
        return self.output(self.trunk(self.embedding(tokens.masked_fill(masked, 0)), masked, condition, drop))


def late_blocks(generator: nn.Module) -> tuple[nn.ModuleList, int]:
    """The last blocks of a generator, which see every position, the image's last; and their width."""
    if isinstance(generator, MaskGIL):
        return generator.layers, generator.config.dim
    trunk = generator.trunk if isinstance(generator, CodeTrunk) else generator
    return trunk.decoder_blocks, trunk.config.width


class LatentTrainingModule(nn.Module):
    """A generator, the text encoder in front of it, and the loss of `conditional`, as one module to train.

    text_encoder  None for a generator that classes drive

    smoothing  of labels, for codes;  repeats: times and noises that the diffusion head sees of each hidden token
    kinds      answers of heads that must say, halfway up the last blocks, what each cell will show (WithLayoutHeads)
    teacher    a trained generator of codes, which sees the same cells hidden, in codes. From the output at each hidden
               one a linear head must tell what the teacher's logits are made of: its whole belief, of which data show
               one case
    guess      a linear head guesses each hidden vector from the trunk's output alone; its squared error is added. An
               error of the noise, which the diffusion loss counts, weighs one of the vector by (alpha / sigma)^2: next
               to nothing where only the trunk knows anything
    """

    def __init__(
        self,
        generator: MaskGIL | CodeTrunk | EMIGM,
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
        blocks, width = late_blocks(generator)
        self.watched = len(blocks) // 2
        self.heads = nn.ModuleList(nn.Linear(width, kind) for kind in kinds)
        self.guess = nn.Linear(width, generator.config.channels) if guess else None
        self.teacher = None if teacher is None else teacher.eval().requires_grad_(False)
        self.taught = None if teacher is None else nn.Linear(width, teacher.config.dim)
        if self.taught is not None:
            nn.init.eye_(self.taught.weight)  # a trunk that began as the teacher has nothing to learn here at first
            nn.init.zeros_(self.taught.bias)

    def forward(
        self,
        tokens: Int[Tensor, "B N"] | Float[Tensor, "B N C"],
        grid: tuple[int, int],
        hidden: Bool[Tensor, "B N"],
        weight: Float[Tensor, " B"] | None,
        ids: Int[Tensor, "B L"] | None,
        mask: Bool[Tensor, "B L"] | None,
        drop: Bool[Tensor, " B"],
        generator: torch.Generator,
        labels: Int[Tensor, " B"] | None = None,
        codes: Int[Tensor, "B N"] | None = None,
    ) -> tuple[Float[Tensor, ""], list[Tensor]]:
        """Mean over hidden tokens of w * -log p, or of the diffusion loss that bounds it; then the heads' logits."""
        condition = Condition(self.text_encoder(ids, mask), mask) if labels is None else Condition.classes(labels)
        continuous, seen = isinstance(self.generator, EMIGM), []
        given = (tokens, hidden) if continuous else (tokens.masked_fill(hidden, self.generator.config.mask_id), grid)
        with contextlib.ExitStack() as watching:
            if self.heads:  # a hook that nobody needs would be compiled anew at each step
                watch = late_blocks(self.generator)[0][self.watched].register_forward_hook(
                    lambda block, given, out: seen.append(out[:, -hidden.shape[1] :])
                )
                watching.callback(watch.remove)
            out = self.generator(*given, condition, drop)
        cells = [F.rms_norm(part, part.shape[-1:]) for part in seen]
        answers = [head(part) for part in cells for head in self.heads]
        if continuous:
            loss = self.generator.loss(out, tokens, hidden, generator, self.repeats, weight)
            if self.guess is not None and hidden.any():
                loss = loss + F.mse_loss(self.guess(out[hidden]).float(), tokens[hidden].float())
            if self.teacher is not None and hidden.any():
                with torch.no_grad():
                    seen = codes.masked_fill(hidden, self.teacher.config.mask_id)
                    belief = self.teacher.features(seen, grid, condition, drop)[hidden].float()
                far = (self.taught(out[hidden]).float() - belief).square().mean()
                loss = loss + far / belief.square().mean()
            return loss, answers
        wrong = F.cross_entropy(out[hidden].float(), tokens[hidden], label_smoothing=self.smoothing, reduction="none")
        if weight is not None:
            wrong = wrong * weight[:, None].expand_as(hidden)[hidden]
        return wrong.sum() / max(len(wrong), 1), answers  # nothing may be hidden by an independent mask


@dataclass(frozen=True)
class LatentTokenLoss:
    """The framework as what the loop calls.

    caption_dropout  share of rows that see no text, for guidance
    layout           weight of what the heads of the module say of the hidden cells
    things_first     hide the cells of things before those of the background, in each row to another degree, as many
                     cells as ever (MaskedTokenLoss)
    seed             of batches whose pictures are numbered (train/data/image_cache.py): what is drawn for one, dropout
    aside,
                     is then a function of its first picture's number, however many processes share the work
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
        # Masks are drawn on the CPU, from numbers of their own: the head's times and noise come from `generator`.
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
            batch.get("ids"),
            batch.get("mask"),
            drop.to(device),
            generator,
            batch.get("labels"),
            batch.get("codes"),
        )
        count = hidden.sum().clamp_min(1).to(device)
        report = {"masked": hidden.float().mean(), "tokens": mean.detach()}
        if answers and hidden.any():
            extra, told = layout_loss(answers, batch, hidden.to(device))
            mean, report = mean + self.layout * extra, report | told
        return SumAndCount(mean * count, count), report


def generator_for(
    framework: MaskedGenerationConfig,
    width: int,
    depth: int | tuple[int, int],
    heads: int,
    grid: tuple[int, int],
    text: tuple[int, int],
    codes: int | None = None,
    channels: int = 16,
    head: tuple[int, int] = (3, 256),
    blocks: Blocks = "vit",
    **maskgil: Any,
) -> MaskGIL | CodeTrunk | EMIGM:
    """A text-driven generator of a framework, sized so that all trunks have about as many blocks.

    depth  blocks in all, half of them the decoder's where there is one; or how many (encoder, decoder) have
    text   (width of the states, most tokens);  codes: for a categorical framework;  channels, head: for a diffusion one
    blocks   of eMIGM's trunk
    maskgil  more of MaskGIL's ModelConfig, where that is the trunk (qk_norm, norm)
    """
    if framework.conditional == "categorical" and framework.trunk == "single":
        assert isinstance(depth, int), "this trunk is one"
        assert codes is not None, "a categorical framework needs the number of codes"
        config = ModelConfig(
            codebook_size=codes,
            dim=width,
            layers=depth,
            heads=heads,
            ffn=3 * width,
            text_dim=text[0],
            text_length=text[1],
            null="mask" if framework.null == "mask" else "caption",
            **{"qk_norm": "rms", "dropout": 0.0} | maskgil,
        )
        return MaskGIL(config)
    if maskgil:
        raise ValueError(f"{', '.join(maskgil)} belong to MaskGIL's trunk, which is categorical and single")
    encoder, decoder = (max(1, depth // 2),) * 2 if isinstance(depth, int) else depth
    trunk = EMIGMConfig(
        width=width,
        heads=heads,
        depth=encoder,
        decoder_depth=decoder,
        head_depth=head[0],
        head_width=head[1],
        channels=channels,
        grid=grid,
        buffer=text[1],
        classes=None,
        text_dim=text[0],
        null=framework.null,
        mae=framework.trunk == "mae",
        dropout=0.0,
        blocks=blocks,
        ffn=3 * width if blocks == "llama" else None,
    )
    if framework.conditional == "diffusion":
        return EMIGM(trunk)
    assert codes is not None, "a categorical framework needs the number of codes"
    return CodeTrunk(trunk, codes)
