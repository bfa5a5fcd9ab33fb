"""The autoregressive twin of the large models, on the same caches: python -m train t2i-xl-ar data=CACHE out=FOLDER

Everything but the loss and the drawing is train/large.py's. The export is the twin's folder itself, which
`python -m train.publish ar` puts beside its model.

Axes: B batch, N image tokens, K codes.
"""

import torch
import torch.nn.functional as F

from maskgil import noise
from maskgil.autoregressive import Autoregressive, RasterPainter
from maskgil.condition import Condition
from maskgil.config import ModelConfig
from maskgil.decoding import Canvas, fill, raster
from maskgil.guidance import Guidance
from train.large import Trunk
from train.loop import Part, unwrapped
from train.masked import MASKS


class NextFeatures:
    """Cross-entropy of every token given the condition and those before it.

    caption_dropout  share of pictures that see the null condition, for guidance
    smoothing        label smoothing
    """

    def __init__(self, caption_dropout: float = 0.1, smoothing: float = 0.0, seed: int = 0):
        self.caption_dropout, self.smoothing, self.seed = caption_dropout, smoothing, seed

    def __call__(self, modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[Part, dict]:
        model, tokens = modules[0], batch["tokens"]
        seeds = batch["numbers"] + (self.seed << 44)  # a picture's own, however many processes share the work
        drop = noise.uniform(seeds, MASKS, torch.zeros_like(seeds), 1, 1)[:, 0, 0] < self.caption_dropout
        if unwrapped(model).generator.config.null == "none" and not self.caption_dropout:
            drop = None  # such a model cannot be asked to drop anything
        condition = {name: batch[name] for name in ("states", "mask", "labels") if name in batch}
        logits = model(tokens, tuple(batch["grid"]), drop, **condition)
        total = F.cross_entropy(
            logits.flatten(0, 1).float(), tokens.flatten(), label_smoothing=self.smoothing, reduction="sum"
        )
        right = (logits.detach().argmax(-1) == tokens).float().mean()
        return Part(total, torch.tensor(tokens.numel(), device=tokens.device)), {"right": right}


def _built(config: ModelConfig, before: Autoregressive | None) -> Autoregressive:
    """A converted LlamaGen goes on as one, with its handling of condition tokens."""
    return Autoregressive(config, zero_prefix=before is not None and before.zero_prefix)


def _token_by_token(
    model: Autoregressive, condition: Condition, canvas: Canvas, guidance: Guidance | None
) -> Canvas:
    rows, tokens = canvas.hole.shape
    plan = raster(tokens, guidance=guidance, seeds=list(range(rows)), device=canvas.hole.device)
    *_, last = fill(RasterPainter(model, condition), canvas, plan)
    return last


CAUSAL = Trunk(
    kinds=("autoregressive", "llamagen"),
    build=_built,
    objective=lambda o: NextFeatures(o.caption_dropout, o.smoothing, o.seed),
    draw=_token_by_token,
    folder="",
)
