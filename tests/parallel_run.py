"""One process of a run of many, for test_processes.py: torchrun parallel_run.py FOLDER shard|whole [die]

With `die`, the second process is killed (SIGKILL) in the middle of the second step, or, when the model is sharded, the
first one when it has written the second checkpoint and not yet put it into place.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

if __name__ == "__main__":  # run by torchrun, not by pytest
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from maskgil.models.config import ModelConfig
from maskgil.models.maskgil import MaskGIL
from train.losses.conditioned import Conditioned
from train.losses.masked_token import MaskedTokenLoss
from train.optim import OptimConfig
from train.processes import shutdown_distributed
from train.recipe import OptimizedModule, Recipe
from train.trainer import train

CONFIG = ModelConfig(
    codebook_size=16, dim=16, layers=2, heads=2, ffn=32, text_dim=4, text_length=6, qk_norm="rms", dropout=0.0
)


class Rows:
    """Batch `index` of `rows` pictures: each is a function of its number, and captions differ in length."""

    def __init__(self, rows: int):
        self.rows = rows

    def __call__(self, index: int) -> dict:
        numbers = torch.arange(index * self.rows, (index + 1) * self.rows)
        each = [torch.Generator().manual_seed(int(n)) for n in numbers]
        tokens = torch.stack([torch.randint(0, 16, (12,), generator=g) for g in each])
        states = torch.stack([torch.randn(5, 4, generator=g) for g in each])
        mask = torch.arange(5) < (1 + numbers % 5)[:, None]
        return {"tokens": tokens, "states": states, "mask": mask, "numbers": numbers, "grid": (3, 4)}


def recipe(rows: int = 2, batches: int = 4, **options) -> Recipe:
    torch.manual_seed(0)
    model = Conditioned(MaskGIL(CONFIG))
    torch.nn.init.normal_(model.generator.output.weight, std=0.3)
    rates = OptimConfig(lr=3e-3, warmup=1, decay=0, clip=0, weight_decay=0.1)
    player = OptimizedModule(model, MaskedTokenLoss(smoothing=0.1), rates)
    defaults = {"precision": "no", "workers": 0, "save_every": 1, "ema": 0.9}
    return Recipe("tiny", 4, (player,), Rows(rows), batches=batches, **(defaults | options))


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(folder: str, how: str, die: bool) -> None:
    made = recipe(shard=how == "shard")
    rank = int(os.environ["RANK"])
    player = made.modules[0]

    def dying(modules, batch, generator, step):
        if die and how == "whole" and rank == 1 and step == 1:
            kill()
        return player.loss(modules, batch, generator, step)

    if die and how == "shard" and rank == 0:
        put = os.replace
        os.replace = lambda a, b: kill() if str(b).endswith("0000002") else put(a, b)
    made = replace(made, modules=(replace(player, loss=dying),))
    average = train(made, Path(folder), stop_at=3)
    for name, model in (("model", player.module), ("average", average)):
        weight = model.generator.layers[0].attention.wqkv.weight
        piece = tuple(weight.to_local().shape) if how == "shard" else tuple(weight.shape)
        print(f"process {rank} of {torch.distributed.get_world_size()}: {name} holds {piece} of {tuple(weight.shape)}")
    shutdown_distributed()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "die" in sys.argv)
