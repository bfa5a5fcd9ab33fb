"""Batches of drawn scenes: functions of a batch's number, so that a resumed run continues exactly where it stopped."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from train.data.caption_pieces import padded_pieces, word_pieces
from train.data.scene_cache import open_codes, scene_number
from train.data.token_cache import TokenCache
from train.scenes.captions import caption
from train.scenes.judge import covers, targets
from train.scenes.labels import FACTS, cells, facts
from train.scenes.render import render
from train.scenes.scene import BACKGROUNDS, STYLES, crowded, random_scene, sample_size, several
from train.scenes.sprites import Sprites


@cache
def sprites(folder: str | None) -> Sprites:
    return Sprites(folder)


@dataclass(frozen=True)
class ScenePixels:
    """Pictures for the tokenizer: {"pixels": (B, 3, H, W) uint8, "covers": (B, h, w) thing classes}, and the index of
    each one's "background" and "style".

    A share `crowd` of the scenes is crowded with objects. A batch has one size; sizes other than 128 x 128 are rarer.
    `scale`: pixels of a picture for each pixel of its scene."""

    sprites: str | None
    batch: int = 16
    seed: int = 0
    crowd: float = 0.6
    snap: int = 16
    scale: int = 1

    def __call__(self, index: int) -> dict:
        rng = np.random.default_rng([self.seed, index])
        width, height = sample_size(rng)
        scenes, drawn = [], []
        for _ in range(self.batch):
            scene = (
                crowded(rng, width, height, self.snap)
                if rng.random() < self.crowd
                else random_scene(rng, width, height, snap=self.snap)
            )
            scenes.append(scene)
            drawn.append(render(scene, sprites(self.sprites), rng, self.scale))
        return {
            "pixels": torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2),
            "covers": torch.from_numpy(np.stack([covers(scene) for scene in scenes])),
            "background": torch.tensor([BACKGROUNDS.index(scene.background) for scene in scenes]),
            "style": torch.tensor([STYLES.index(scene.style) for scene in scenes]),
        }


@dataclass(frozen=True)
class JudgeBatches:
    """Pictures and the answers of the judge: all combinations, with things on and off the lattice of cells."""

    sprites: str | None
    batch: int = 32
    seed: int = 1

    def __call__(self, index: int) -> dict:
        rng = np.random.default_rng([self.seed, index])
        width, height = sample_size(rng)
        pixels, truth = [], []
        for _ in range(self.batch):
            snap = 16 if rng.random() < 0.7 else 2
            scene = (
                crowded(rng, width, height, snap)
                if rng.random() < 0.6
                else random_scene(rng, width, height, held_out=None, snap=snap)
            )
            pixels.append(render(scene, sprites(self.sprites), rng))
            truth.append(targets(scene))
        return {"pixels": torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)} | {
            answer: torch.from_numpy(np.stack([scene[answer] for scene in truth])) for answer in truth[0]
        }


@cache
def _opened(folder: str) -> TokenCache:
    return open_codes(folder)


@dataclass(frozen=True)
class SceneFacts:
    """Captions of training scenes and their facts: {"ids", "mask": (B, L), "facts": (B, F) 0 or 1}.

    `several`: the share of scenes with three or four things, most of them new."""

    vocabulary: bytes
    batch: int = 256
    seed: int = 4
    several: float = 0.0

    def __call__(self, index: int) -> dict:
        rng = np.random.default_rng([self.seed, index])
        crowds = round(self.several * self.batch)
        scenes = [(several if i < crowds else random_scene)(rng, *sample_size(rng)) for i in range(self.batch)]
        ids, mask = padded_pieces(word_pieces(self.vocabulary).encode([caption(scene, rng) for scene in scenes]))
        told = torch.zeros(self.batch, FACTS)
        for row, scene in zip(told, scenes, strict=True):
            row[facts(scene)] = 1
        return {"ids": ids, "mask": mask, "facts": told}


@dataclass(frozen=True)
class SceneTokens:
    """Cached tokens and fresh captions: {"tokens": (B, N), "grid": (rows, columns), "ids": (B, L), "mask": (B, L)},
    and what each cell shows (`cells` in train/scenes/labels.py).

    A batch has one size. `vocabulary` is the bytes of the encoder's sentencepiece model; PAD is 0 and END 1, as in T5.
    `alike`: so many times the scenes of a batch are drawn, and those with captions of similar length form the batch.
    That saves a CPU the padding, a sixth of its work; for a GPU it costs more time to write the captions.
    """

    folder: str
    vocabulary: bytes
    batch: int = 64
    seed: int = 2
    cell: int = 16
    alike: int = 4

    def __call__(self, index: int) -> dict:
        rng = np.random.default_rng([self.seed, index])
        (width, height), rows = _opened(self.folder).draw(self.alike * self.batch, rng)
        scenes = [scene_number(number, width, height)[0] for number in rows["numbers"].tolist()]
        pieces = word_pieces(self.vocabulary).encode([caption(scene, rng) for scene in scenes])
        start = int(rng.integers(self.alike)) * self.batch
        alike = np.argsort([len(p) for p in pieces], kind="stable")[start : start + self.batch]
        ids, mask = padded_pieces([pieces[i] for i in alike])
        return {
            "tokens": rows["tokens"][torch.from_numpy(alike)].long(),
            "numbers": torch.arange(index * self.batch, (index + 1) * self.batch),
            "ids": ids,
            "mask": mask,
            "grid": (height // self.cell, width // self.cell),
        } | cells([scenes[i] for i in alike])


@dataclass(frozen=True)
class SceneCells:
    """Cached tokens and what each cell shows (`cells` in train/scenes/labels.py): {"tokens": (B, N), "grid", ...}."""

    folder: str
    batch: int = 64
    seed: int = 5
    cell: int = 16

    def __call__(self, index: int) -> dict:
        rng = np.random.default_rng([self.seed, index])
        (width, height), rows = _opened(self.folder).draw(self.batch, rng)
        scenes = [scene_number(number, width, height)[0] for number in rows["numbers"].tolist()]
        return {"tokens": rows["tokens"].long(), "grid": (height // self.cell, width // self.cell)} | cells(scenes)


@dataclass(frozen=True)
class DecoderBatches:
    """Cached tokens and the pictures they were made of, for the decoder: {"tokens", "grid", "pixels", "covers"}.

    `folders` are caches; each batch comes from one of them and has one size. `scale`: pixels of a picture for each
    pixel of its scene.
    """

    folders: tuple[str, ...]
    sprites: str | None
    batch: int = 16
    seed: int = 3
    cell: int = 16
    scale: int = 1

    def __call__(self, index: int) -> dict:
        rng = np.random.default_rng([self.seed, index])
        opened = _opened(self.folders[int(rng.integers(len(self.folders)))])
        (width, height), rows = opened.draw(self.batch, rng)
        pixels, covered = [], []
        for number in rows["numbers"].tolist():
            scene, drawing = scene_number(number, width, height)
            pixels.append(render(scene, sprites(self.sprites), drawing, self.scale))
            covered.append(covers(scene))
        return {
            "tokens": rows["tokens"].long(),
            "pixels": torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2),
            "covers": torch.from_numpy(np.stack(covered)),
            "grid": (height // self.cell, width // self.cell),
        }
