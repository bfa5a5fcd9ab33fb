"""Autoregressive models of the large generators, on the same caches: maskgil train t2i-xl-ar --data CACHE --out FOLDER

Only loss and sampling differ from train/recipes/pretrain.py. The export is a model folder, which `maskgil export ar`
puts beside the folder of its generator.
"""

from maskgil.condition import Condition
from maskgil.models.ar import ARSampler, ARTransformer
from maskgil.models.config import ModelConfig
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.loop import sample
from maskgil.sampling.plans import raster_plan
from maskgil.sampling.token_grid import TokenGrid
from train.losses.next_token import NextTokenLoss
from train.recipes.pretrain import ModelSpec


def _built(config: ModelConfig, before: ARTransformer | None) -> ARTransformer:
    """A new AR model; after a converted LlamaGen it keeps LlamaGen's handling of condition tokens."""
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
    objective=lambda o: NextTokenLoss(o.caption_dropout, o.smoothing, o.seed),
    draw=_token_by_token,
    folder="",
)
