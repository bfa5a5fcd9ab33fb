"""Recipes of the networks that judge pictures of scenes: the scene score's reader and the perceptual loss's network."""

import torch

from maskgil import checkpoint
from train.data.scene_datasets import JudgeBatches, ScenePixels
from train.losses.perceptual import PerceptualNet, perceptual_net_loss, save_perceptual_net
from train.optim import OptimConfig
from train.recipe import OptimizedModule, Recipe
from train.recipes.shared_options import Batch, Drawings, Steps
from train.scenes.judge import SceneJudge, judge_loss, save_judge, with_more_things
from train.scenes.sprites import things
from train.warm_start import resume_seed


def scenes_reader(sprites: Drawings = None, steps: Steps = 2500, batch: Batch = 24, init: str = "") -> Recipe:
    """Train the judge of the scene score: it detects objects, sizes, colors, background and style of a picture.

    Args:
        init: Judge to continue from, which may know fewer things.
    """
    torch.manual_seed(0)
    model = with_more_things(checkpoint.load(init, "reader"), len(things())).train() if init else SceneJudge()
    seed = resume_seed(model) if init else 0
    model = model.to(memory_format=torch.channels_last)
    return Recipe(
        name="scenes-reader",
        steps=steps,
        modules=(OptimizedModule(model, judge_loss, OptimConfig(lr=1e-3, muon_lr=0.02, warmup=50, decay=0.6)),),
        batch_at=JudgeBatches(sprites, batch, seed=1 + seed),
        seed=seed,
        ema=0.99,
        export=save_judge,
    )


def scenes_perceptual_net(sprites: Drawings = None, steps: Steps = 3000, batch: Batch = 32) -> Recipe:
    """Train the network of the perceptual loss: it classifies what scenes show (train/losses/perceptual.py)."""
    torch.manual_seed(0)
    model = PerceptualNet(len(things())).to(memory_format=torch.channels_last)
    return Recipe(
        name="scenes-perceptual-net",
        steps=steps,
        modules=(
            OptimizedModule(model, perceptual_net_loss, OptimConfig(lr=1e-3, muon_lr=0.02, warmup=50, decay=0.6)),
        ),
        batch_at=ScenePixels(sprites, batch, seed=50),
        ema=0.99,
        export=save_perceptual_net,
    )
