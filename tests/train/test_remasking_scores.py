"""Scores of remasking: sentences grow by words of the grammar, both ways are measured on the same ones."""

from dataclasses import replace

import pytest
import torch
from conftest import TINY, make_tiny
from test_pipeline import Letters

from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.tokenizers.vq import VQConfig, VQModel
from train.eval import remasking_scores
from train.scenes.captions import known_words
from train.scenes.judge import SceneJudge, SceneJudgeConfig
from train.scenes.scene import is_held_out

SETTINGS = SamplingParams(steps=4)


@pytest.fixture(scope="module")
def draws() -> TextToImage:
    tokenizer = VQModel(VQConfig(codebook_size=32, channels=(32,), res_blocks=1, z_channels=8, patch=16)).eval()
    generator = make_tiny(replace(TINY, text_length=60))
    return TextToImage(generator, Letters(), tokenizer.requires_grad_(False), [(128, 128)])


def test_sentences_grow_and_say_their_scenes():
    chains = remasking_scores.chains(12)
    for chain in chains:
        (first, text), (placed, there), (two, both), (styled, whole) = chain
        assert there.startswith(text) and whole.startswith(both) and both.startswith("two ")
        assert (first.background, placed.background) == ("plain", two.background) and styled.style != two.style == "3d"
        assert [len(scene.items) for scene, _ in chain] == [1, 1, 2, 2] and len({s.groups[0][0] for s, _ in chain}) == 1
        assert all(not is_held_out(scene) and known_words() >= set(words.split()) for scene, words in chain)
    assert chains == remasking_scores.chains(12) and chains[:5] == remasking_scores.chains(5)


def test_the_same_sentence_costs_its_masks_alone_and_changes_nothing(draws):
    first = remasking_scores.afresh(draws, "a cat", 3, SETTINGS)
    again = remasking_scores.remasked(draws, first.canvas, "a cat", "a cat", 3, SETTINGS, masks=3, margin=0.1)
    assert torch.equal(again.canvas.tokens, first.canvas.tokens) and (again.nfe, again.kept) == (6, 1.0)
    changed = remasking_scores.remasked(draws, first.canvas, "a cat", "two dogs", 3, SETTINGS, masks=3, margin=-1e9)
    assert changed.kept == 0 and changed.nfe == 6 + first.nfe, "all of it anew, after it was remasked"


def test_every_growth_is_measured_in_both_ways(draws):
    reader = SceneJudge(SceneJudgeConfig(widths=(16, 16), blocks=1)).eval()
    found = list(remasking_scores.measure_remasking(draws, reader, remasking_scores.chains(2), SETTINGS, masks=4))
    assert [growth for growth, *_ in found] == list(remasking_scores.GROWTHS)
    for _, ours, fresh in found[1:]:
        assert ours.same >= ours.kept > 0, "what is kept looks as before"
        assert 8 <= ours.nfe <= 8 + fresh.nfe and fresh.kept == 0 and min(ours.seconds, fresh.seconds) > 0
    rows = [remasking_scores.growth_row(*each) for each in found]
    assert len({line.count("|") for line in [remasking_scores.HEAD, *rows]}) == 1
