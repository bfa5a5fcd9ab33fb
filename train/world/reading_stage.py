"""Stage 2: a text encoder that can read, before it has to help anyone draw.

A head over its states must tell the facts of a caption (answers.told_facts). That a thing has a number, a colour or a
role is told by a token that tells the thing and tells the number: two answers, not one for each pair.

Axes: B captions, L text tokens, F facts.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from text_encoder.small_t5 import SmallT5Encoder, train_vocabulary
from train.optim import OptimConfig
from train.recipe import OptimizedModule, Recipe
from train.world.answers import OF_A_SCENE, OF_A_THING, fact_count, told_facts
from train.world.phrases import frame_words, names_of, say
from train.world.scene_sampling import CROWDS, PAIRS, Shares, sample_scene
from train.world.thing_table import all_things, first_things
from train.world.token_cache import padded, word_pieces
from train.world.world_data import open_pack

LENGTH = 64  # tokens of the longest caption, its end token included
PIECES = 4000  # of the vocabulary, at most


def world_sentences(drawings: str, count: int, seed: int) -> list[str]:
    """Captions of all things of the table, and every name and word once more, so that each becomes a piece."""
    rng, pack, things = np.random.default_rng([seed, 4242]), open_pack(drawings), all_things()
    captions = [say(sample_scene(things, pack, 12, 12, rng, held_out=None), rng) for _ in range(count)]
    names = [name for thing in things for pair in names_of(thing).items() for name in pair]
    return captions + 4 * names + 4 * sorted(frame_words())


@dataclass(frozen=True)
class CaptionBatches:
    """{"ids", "mask": (B, L), "facts": (B, F) 0 or 1} of scenes that training may see."""

    drawings: str
    things: int
    vocabulary: bytes
    batch: int
    seed: int = 4

    def __call__(self, index: int) -> dict:
        rng = np.random.default_rng([self.seed, index])
        pack, things = open_pack(self.drawings), first_things(self.things)
        kinds = (Shares(), Shares(), PAIRS, CROWDS)
        scenes = [sample_scene(things, pack, 12, 12, rng, shares=kinds[i % 4]) for i in range(self.batch)]
        ids, mask = padded(word_pieces(self.vocabulary).encode([say(scene, rng) for scene in scenes]))
        facts = torch.zeros(self.batch, fact_count(self.things))
        for row, scene in zip(facts, scenes, strict=True):
            row[told_facts(scene, self.things)] = 1
        return {"ids": ids, "mask": mask, "facts": facts}


class WorldFactProbe(nn.Module):
    """A text encoder and a head over its states: a fact holds if some token tells it."""

    def __init__(self, text_encoder: nn.Module, things: int):
        super().__init__()
        self.text_encoder = text_encoder
        self.kinds = (things, len(OF_A_THING), len(OF_A_SCENE))
        self.head = nn.Linear(text_encoder.width, sum(self.kinds))
        nn.init.constant_(self.head.bias, -7.0)  # about the share of facts that hold, over a caption's tokens
        nn.init.constant_(self.head.bias[: sum(self.kinds[:2])], -3.0)  # a pair needs both halves

    def forward(self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B F"]:
        """Logits."""
        thing, what, scene = self.head(self.text_encoder(ids, mask)).float().split(self.kinds, dim=-1)
        thing, what = -thing[..., :, None], -what[..., None, :]
        # sigmoid(t) sigmoid(w) as a logit: -log(e^-t + e^-w + e^-(t + w))
        pairs = -torch.logaddexp(torch.logaddexp(thing, what), thing + what)
        told = torch.cat([pairs.flatten(2), scene], dim=-1)
        return told.masked_fill(~mask[..., None], float("-inf")).logsumexp(1)


def reading_loss(modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[Tensor, dict]:
    """Cross-entropy of each fact, summed over the facts of a caption."""
    logits = modules[0](batch["ids"], batch["mask"])
    loss = F.binary_cross_entropy_with_logits(logits, batch["facts"], reduction="sum") / len(logits)
    with torch.no_grad():
        right = ((logits > 0) == (batch["facts"] > 0.5)).all(1).float().mean()
    return loss, {"loss": loss.item(), "caption_exact_match": right.item()}


def reading_recipe(drawings: str, things: int, steps: int, batch: int, precision: str, vocabulary: Path) -> Recipe:
    """The text encoder alone. `vocabulary`: a folder whose spiece.model is made from the whole table if it is missing,
    so that a larger world later reads with the same pieces."""
    torch.manual_seed(0)
    if not (vocabulary / "spiece.model").is_file():
        train_vocabulary(world_sentences(drawings, 12000, seed=1), vocabulary, PIECES)
    encoder = SmallT5Encoder.fresh(vocabulary, dropout_rate=0.0, length=LENGTH)
    return Recipe(
        name="world-reading",
        steps=steps,
        modules=(
            OptimizedModule(
                WorldFactProbe(encoder, things), reading_loss, OptimConfig(lr=2e-3, muon_lr=0.02, warmup=50, decay=0.6)
            ),
        ),
        batch_at=CaptionBatches(drawings, things, encoder.vocabulary, batch),
        precision=precision,
        ema=0.99,
        save_every=20,
        export=lambda average, folder: average.text_encoder.save(folder, torch.float32),
    )
