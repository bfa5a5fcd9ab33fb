"""Stage 2: a text encoder that is trained to read captions before it is used with a generator.

A head over its states predicts the facts of a caption (answers.told_facts). A fact about a thing, such as its count,
its colour or its role, is the product of two predictions of one token: the thing, and the count, colour or role.

Axes: B captions, L text tokens, F facts.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from text_encoder.small_t5 import SmallT5Encoder, train_vocabulary
from train.data.caption_pieces import padded_pieces, word_pieces
from train.losses.label_probe import LabelProbe, label_probe_loss
from train.optim import OptimConfig
from train.recipe import OptimizedModule, Recipe
from train.world.answers import OF_A_SCENE, OF_A_THING, fact_count, told_facts
from train.world.phrases import frame_words, names_of, say
from train.world.scene_sampling import CROWDS, PAIRS, Shares, sample_scene
from train.world.thing_table import all_things, first_things
from train.world.world_data import open_pack

LENGTH = 64  # tokens of the longest caption, its end token included
PIECES = 4000  # of the vocabulary, at most


def world_sentences(drawings: str, count: int, seed: int) -> list[str]:
    """Sentences to train a vocabulary on: captions of all things of the table, and four times every name and every word
    of the grammar, so that each becomes a piece."""
    rng, pack, things = np.random.default_rng([seed, 4242]), open_pack(drawings), all_things()
    captions = [say(sample_scene(things, pack, 12, 12, rng, held_out=None), rng) for _ in range(count)]
    names = [name for thing in things for pair in names_of(thing).items() for name in pair]
    return captions + 4 * names + 4 * sorted(frame_words())


@dataclass(frozen=True)
class CaptionBatches:
    """{"ids", "mask": (B, L), "facts": (B, F) 0 or 1} of scenes that are not held out."""

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
        ids, mask = padded_pieces(word_pieces(self.vocabulary).encode([say(scene, rng) for scene in scenes]))
        facts = torch.zeros(self.batch, fact_count(self.things))
        for row, scene in zip(facts, scenes, strict=True):
            row[told_facts(scene, self.things)] = 1
        return {"ids": ids, "mask": mask, "facts": facts}


def world_label_kinds(things: int) -> tuple[int, int, int]:
    """How many things, labels of a thing and labels of a scene `told_facts` has, for a LabelProbe."""
    return things, len(OF_A_THING), len(OF_A_SCENE)


def reading_recipe(drawings: str, things: int, steps: int, batch: int, precision: str, vocabulary: Path) -> Recipe:
    """The recipe of the text encoder. `vocabulary`: a folder with spiece.model. Where it is missing it is made from the
    whole table, so that a later world of more things has the same pieces."""
    torch.manual_seed(0)
    if not (vocabulary / "spiece.model").is_file():
        train_vocabulary(world_sentences(drawings, 12000, seed=1), vocabulary, PIECES)
    encoder = SmallT5Encoder.fresh(vocabulary, dropout_rate=0.0, length=LENGTH)
    return Recipe(
        name="world-reading",
        steps=steps,
        modules=(
            OptimizedModule(
                LabelProbe(encoder, world_label_kinds(things)),
                label_probe_loss,
                OptimConfig(lr=2e-3, muon_lr=0.02, warmup=50, decay=0.6),
            ),
        ),
        batch_at=CaptionBatches(drawings, things, encoder.vocabulary, batch),
        precision=precision,
        ema=0.99,
        save_every=20,
        export=lambda average, folder: average.text_encoder.save(folder, torch.float32),
    )
