"""One framework for masked image generation (eMIGM, 2503.07197, section 3): MaskGIT, MAR, MDM, MaskGIL and eMIGM differ
in seven choices, which are independent of each other.

    loss = E over t, x_t ~ q(x_t | x_0) of  w(t) * sum over masked i of -log p(x_0^i | x_t)

As in the released code the sum is divided by the number of masked tokens of the batch.

Axes: B batch, N tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

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

Masking = Literal["exact", "independent"]
Weighting = Literal["one", "bound"]
Conditional = Literal["categorical", "diffusion"]
TrunkKind = Literal["single", "mae"]
Null = Literal["token", "mask"]


@dataclass(frozen=True)
class MaskedGenerationConfig:
    """The seven choices of a method.

    masking      q(x_t | x_0): exactly ceil(N gamma) tokens, or each with probability gamma
    weighting    w(t): 1, or the likelihood bound's gamma'/gamma
    conditional  p(x_0^i | x_t): softmax over codes, or the diffusion head over vectors
    curve        gamma(t)
    trunk        one network over all tokens, or an encoder of the known ones and a decoder (masked autoencoder)
    null         the token for no text in guidance: a learned one, or the mask token
    t_min        times below it are raised to it, so that less training goes to nearly finished pictures
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
        """The hidden tokens, and the time in (0, 1] of each row; on the CPU. `generator` is a CPU generator.

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
    """The same number of hidden tokens in each row at other places: places with a larger `early`, in [0, 1], are more
    likely to be hidden (random_mask)."""
    order = (torch.rand(hidden.shape, generator=generator) - early).argsort(1).argsort(1)
    return order < hidden.sum(1, keepdim=True)


# The choices of the papers. MaskGIL's code also smooths labels and scores visible tokens, which the framework does not
# cover (train/losses/masked_token.py has them). MAR draws its mask ratio from a truncated normal distribution around 1;
# eMIGM's table counts it as cosine.
METHODS: dict[str, MaskedGenerationConfig] = {
    "maskgit": MaskedGenerationConfig("exact", "one", "categorical", cosine),
    "mar": MaskedGenerationConfig("exact", "one", "diffusion", cosine, trunk="mae"),
    "mdm": MaskedGenerationConfig("independent", "bound", "categorical", linear),
    "maskgil": MaskedGenerationConfig("independent", "one", "categorical", arccos),
    "emigm": MaskedGenerationConfig("independent", "one", "diffusion", exp, trunk="mae", null="mask", t_min=0.2),
}


def method(name: str, **choices: str | float | None) -> MaskedGenerationConfig:
    """A row of METHODS with some choices changed, by their names on the command line; empty choices stay.

    ValueError for an unknown name or choice.
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


def training_mask(
    batch: int,
    tokens: int,
    curve: MaskSchedule,
    t_min: float,
    generator: torch.Generator,
    hide: Callable[[Float[Tensor, " M"], Float[Tensor, "M N"]], Bool[Tensor, "M N"]] = independent_mask,
) -> tuple[Bool[Tensor, "B N"], Float[Tensor, ""]]:
    """(hidden tokens of a training batch, its time u in (0, 1] for the weight w(u)); on the CPU.

    The released rule: t ~ U(0, 1) raised to t_min, u = 0.999 t + 0.001, each of N tokens hidden with probability
    gamma(u), drawn again when fewer than 2 are hidden. `hide` may be another rule: exact_mask. The rows of the batch
    share time and count (one encoder length), but not the places.
    Raises ValueError when t_min is outside [0, 1] or there are fewer than 2 tokens.
    """
    if not 0 <= t_min <= 1 or tokens < 2:
        raise ValueError(f"t_min must lie in [0, 1] and tokens be at least 2; got {t_min} and {tokens}")
    while True:
        u = 0.999 * torch.rand((), generator=generator).clamp(min=t_min) + 0.001
        row = hide(curve.gamma(u)[None], torch.rand(1, tokens, generator=generator))[0]
        if int(row.sum()) >= 2:
            break
    return torch.stack([row[torch.randperm(tokens, generator=generator)] for _ in range(batch)]), u
