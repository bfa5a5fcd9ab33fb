"""The autoregressive twin of the large models, on the same caches: python -m train t2i-xl-ar data=CACHE out=FOLDER

Everything but the loss and the drawing is train/recipes/pretrain.py's. The export is the twin's folder itself, which
`python -m train.export ar` puts beside its model.

Axes: B batch, N image tokens, K codes.
"""

import torch
import torch.nn.functional as F

from maskgil.condition import Condition
from maskgil.models.ar import ARSampler, ARTransformer
from maskgil.models.config import ModelConfig
from maskgil.sampling import counter_rng
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.loop import TokenGrid, raster_plan, sample
from train.losses.masked import MASKS
from train.recipe import SumAndCount
from train.recipes.pretrain import ModelSpec
from train.training_step import unwrapped


class NextFeatureLoss:
    """Cross-entropy of every token given the condition and those before it.

    caption_dropout  share of pictures that see the null condition, for guidance
    smoothing        label smoothing
    """

    def __init__(self, caption_dropout: float = 0.1, smoothing: float = 0.0, seed: int = 0):
        self.caption_dropout, self.smoothing, self.seed = caption_dropout, smoothing, seed

    def __call__(self, modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[SumAndCount, dict]:
        model, tokens = modules[0], batch["tokens"]
        seeds = batch["numbers"] + (self.seed << 44)  # a picture's own, however many processes share the work
        drop = counter_rng.uniform(seeds, MASKS, torch.zeros_like(seeds), 1, 1)[:, 0, 0] < self.caption_dropout
        if unwrapped(model).generator.config.null == "none" and not self.caption_dropout:
            drop = None  # such a model cannot be asked to drop anything
        condition = {name: batch[name] for name in ("states", "mask", "labels") if name in batch}
        logits = model(tokens, tuple(batch["grid"]), drop, **condition)
        total = F.cross_entropy(
            logits.flatten(0, 1).float(), tokens.flatten(), label_smoothing=self.smoothing, reduction="sum"
        )
        right = (logits.detach().argmax(-1) == tokens).float().mean()
        return SumAndCount(total, torch.tensor(tokens.numel(), device=tokens.device)), {"right": right}


def _built(config: ModelConfig, before: ARTransformer | None) -> ARTransformer:
    """A converted LlamaGen goes on as one, with its handling of condition tokens."""
    return ARTransformer(config, zero_prefix=before is not None and before.zero_prefix)


def _token_by_token(
    model: ARTransformer, condition: Condition, canvas: TokenGrid, guidance: Guidance | None
) -> TokenGrid:
    rows, tokens = canvas.mask.shape
    plan = raster_plan(tokens, guidance=guidance, seeds=list(range(rows)), device=canvas.mask.device)
    *_, last = sample(ARSampler(model, condition), canvas, plan)
    return last


CAUSAL = ModelSpec(
    kinds=("autoregressive", "llamagen"),
    build=_built,
    objective=lambda o: NextFeatureLoss(o.caption_dropout, o.smoothing, o.seed),
    draw=_token_by_token,
    folder="",
)
