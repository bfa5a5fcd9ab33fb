"""The text grows and the picture with it: what the new words do not contradict stays, the rest is masked again.

    changed = reconsider(generator, canvas, old, new, seeds)     # "a cat" -> "a cat on the beach"
    sample(sampler, changed.canvas, plan(draws, changed, seeds, SamplingParams()))

Each decided token is hidden once, with the others of its mask, and scored from what is then visible, under the old
text and under the new one. A token that the new text makes no less likely is kept; so a picture morphs and does not
jump, and a text that says the same changes nothing.

B pictures, N tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskgil.condition import Condition
from maskgil.generator import Generator
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.sampling import counter_rng
from maskgil.sampling.loop import StepParams
from maskgil.sampling.token_grid import TokenGrid

# One mask hides the whole picture, and a token is judged only by the words. With more, its neighbours, which the old
# words left, speak for it: of 60 pictures whose sentence grew 40% came out right with one mask (37% afresh), 8% with
# two, 5% with four (maskgil eval remasking --n 20 --masks ...).
NUM_MASKINGS = 1

# Nats by which a token may fall and stay: a tenth less likely is no contradiction. It must be above the rounding of two
# evaluations whose texts have different lengths (bfloat16 knows a logit of 10 to 0.03), and is far below what a token
# loses when the new words speak of its place.
MARGIN = 0.1


@dataclass(frozen=True)
class RemaskResult:
    """A canvas in which what fell is masked; kept tokens keep all that is known of them.

    change  log-probability of each token under the new text less that under the old one; 0 where a token was masked
    kept    share of each picture's decided tokens that stay (1 where none was decided)
    nfe     evaluations of the model that this cost each picture
    first   steps that were made before: where those to come go on counting, so that no noise is drawn twice
    """

    canvas: TokenGrid
    change: Float[Tensor, "B N"]
    kept: Float[Tensor, " B"]
    nfe: int
    first: int


@torch.no_grad()
def remask_changed(
    model: Generator,
    canvas: TokenGrid,
    old: Condition,
    new: Condition,
    seeds: Sequence[int],
    masks: int = NUM_MASKINGS,
    margin: float = MARGIN,
) -> RemaskResult:
    """Score every decided token of a canvas that was drawn after `old`, now that the text is `new`.

    The canvas may be finished or have masked tokens, which stay hidden throughout. Texts and seeds: one for each
    picture. No guidance: it sharpens differences to the empty text, and here two texts are compared with each other.
    """
    if len(seeds) != len(canvas):
        raise ValueError(f"{len(seeds)} seeds for {len(canvas)} pictures: give one for each")
    decided = ~canvas.mask
    group = complementary(decided, torch.as_tensor(seeds, device=decided.device), masks)
    used = min(masks, int(decided.sum(1).max()))
    change = torch.zeros(decided.shape, device=decided.device)
    # Two experts differ by more than what the words changed: one of them reads both texts.
    expert = torch.maximum(old.experts, new.experts)
    texts = Condition.cat([old.drawn_by(expert), new.drawn_by(expert)])
    for number in range(used):
        hidden = group == number
        twice = TokenGrid.cat([canvas] * 2)
        both = model.token_space.log_likelihood(model, twice, hidden.repeat(2, 1), texts)
        before, now = both.chunk(2)
        change = torch.where(hidden, now - before, change)
    keep = decided & (change >= -margin)
    kept = torch.where(decided.any(1), keep.sum(1) / decided.sum(1).clamp_min(1), 1.0)
    after = TokenGrid(
        tokens=canvas.tokens,
        mask=~keep,
        grid=canvas.grid,
        unmasked_at=canvas.unmasked_at.masked_fill(~keep, -1),
        confidence=canvas.confidence.masked_fill(~keep, 0.0),
    )
    return RemaskResult(after, change, kept, nfe=2 * used, first=int(canvas.unmasked_at.max()) + 1)


def complementary(decided: Bool[Tensor, "B N"], seeds: Int[Tensor, " B"], masks: int) -> Int[Tensor, "B N"]:
    """The mask, 0 to masks - 1, of each decided token, drawn by its picture's seed and equally often; -1 for masked
    tokens."""
    if masks < 1:
        raise ValueError(f"{masks} masks: give at least 1")
    step = torch.ones_like(seeds)  # step 0 of this stream are the cells of a variation (maskgil/inpainting.py)
    draw = counter_rng.uniform(seeds, counter_rng.RngStream.REMASK, step, decided.shape[1], 1)[..., 0]
    order = draw.masked_fill(~decided, 2.0).argsort(dim=1, stable=True)
    place = torch.arange(decided.shape[1], device=decided.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, place)
    return torch.where(decided, rank % masks, -1)


def remask_plan(
    draws: TextToImage, changed: RemaskResult, seeds: Sequence[int], settings: SamplingParams
) -> list[StepParams]:
    """The ordinary plan for the masked tokens, entered where a plan from a blank canvas would stand with as much
    decided.

    A picture that keeps everything has nothing to be done to it, and a company of such pictures needs no step.
    Raises ValueError for an impossible seed or setting.
    """
    if not any(changed.canvas.num_masked()):
        return []
    return draws.plan(changed.canvas, seeds, settings, first=changed.first, end=True)
