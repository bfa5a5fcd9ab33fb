"""Candidates: of several drawings of the same words the likeliest is shown, and it is one of those."""

from dataclasses import replace

import pytest
import torch
from conftest import make_condition
from test_pipeline import draws  # noqa: F401, a fixture
from test_refinement import GRID, TRUTH, Knows

from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.sampling import best_of_n
from maskgil.sampling.code_sampler import CodeSampler
from maskgil.sampling.loop import SCORING_NFE
from maskgil.sampling.token_grid import TokenGrid

SETTINGS = SamplingParams(
    steps=4, guidance_scale=3.0, guidance_interval=(0.3, 1.0), refinement_passes=1, temperature=1.0
)


def drawn(tokens: torch.Tensor, given: int = 0) -> TokenGrid:
    """All of it by the model, but for the first tokens."""
    revealed = torch.zeros_like(tokens)
    revealed[:, :given] = -1
    return TokenGrid(tokens, torch.zeros_like(tokens, dtype=torch.bool), GRID, revealed)


def test_what_was_given_is_no_merit_and_no_fault():
    """Of two candidates the second is right where it was drawn; what was given is unlikely in both."""
    tokens = TRUTH.repeat(2, 1)
    tokens[:, :8] = 30
    tokens[0, 10] = 30
    critic = CodeSampler(Knows(), make_condition((3, 3)))
    assert best_of_n.best_candidates(critic, drawn(tokens, given=8), 2).tolist() == [1]
    assert best_of_n.best_candidates(critic, drawn(tokens, given=12), 2).tolist() == [0], "nothing was drawn"


def test_the_picture_whose_weakest_part_is_likeliest_is_best():
    """Of three candidates each: one stray token is better than two, and none than one; of equals, the first."""
    tokens = TRUTH.repeat(6, 1)
    tokens[0, 3], tokens[1, [3, 4]] = 30, 30  # the third of the first picture is right
    tokens[5, 0] = 30
    canvas = drawn(tokens)
    critic = CodeSampler(Knows(), make_condition((3,) * 6))
    assert best_of_n.best_candidates(critic, canvas, 3).tolist() == [2, 3]
    assert best_of_n.best_candidates(critic, canvas, 1).tolist() == [0, 1, 2, 3, 4, 5]
    assert best_of_n.best_candidates(critic, canvas, 2).tolist() == [0, 2, 4]


def test_an_easy_background_does_not_make_up_for_a_thing_gone_wrong():
    class Scores:
        def likelihood(self, canvas: TokenGrid, rows: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.0] * 9 + [-9.0] * 3, [-3.0] * 12])[rows]

    assert best_of_n.best_candidates(Scores(), drawn(TRUTH.repeat(2, 1)), 2).tolist() == [1]


def test_seeds_of_candidates_begin_with_the_picture_s_and_never_meet():
    own = [7, 8, 9]
    seeds = best_of_n.candidate_seeds(own, 4)
    assert seeds[::4] == own and len(set(seeds)) == 12 and best_of_n.candidate_seeds(own, 1) == own
    copies = [(copy << 32) + 5 for copy in range(4)]  # of one prompt, as train/eval/geneval.py numbers them
    assert len(set(best_of_n.candidate_seeds(copies, 64))) == 256
    assert all(0 <= seed < 2**63 for seed in best_of_n.candidate_seeds([2**63 - 1], 4))


def test_what_is_shown_is_one_of_the_candidates_and_the_likeliest(draws: TextToImage):  # noqa: F811
    prompts, seeds, each = ["cat", "a dog"], [1, 2], 3
    settings = replace(SETTINGS, candidates=each)
    *before, last = draws.draw(prompts, seeds, settings=settings)
    alone = [
        list(draws.draw([prompt], [seed], settings=SETTINGS))
        for prompt, own in zip(prompts, seeds, strict=True)
        for seed in best_of_n.candidate_seeds([own], each)
    ]
    tokens = torch.cat([steps[-1].canvas.tokens for steps in alone])
    condition = draws.condition(prompts).repeat(each)
    critic = draws.sampler(condition)
    best = best_of_n.best_candidates(critic, TokenGrid.cat([steps[-1].canvas for steps in alone]), each)
    assert torch.equal(last.canvas.tokens, tokens[best])
    cost = alone[0][-1].nfe
    assert last.nfe == each * (cost + SCORING_NFE) and (last.step, last.of) == (5, 5)
    for told, first, second in zip(before, alone[0], alone[each], strict=False):
        assert torch.equal(told.canvas.tokens, torch.cat([first.canvas.tokens, second.canvas.tokens]))
        assert told.nfe == each * first.nfe
    images = draws.images(prompts, seeds, settings=settings)
    assert [image.tobytes() for image in images] == [image.tobytes() for image in draws.images_of(last.canvas)]


def test_given_parts_stay_in_every_candidate(draws: TextToImage):  # noqa: F811
    given = draws.images(["cat"], [1], settings=SETTINGS)
    *_, drawn = draws.draw(["cat"], [1], settings=SETTINGS)
    masked = torch.zeros_like(drawn.canvas.mask)
    masked[:, :6] = True
    start = TokenGrid(drawn.canvas.tokens, masked, drawn.canvas.grid)
    *_, last = draws.draw(["a dog"], [4], settings=replace(SETTINGS, candidates=4), canvas=start)
    assert torch.equal(last.canvas.tokens[:, 6:], drawn.canvas.tokens[:, 6:]) and given


@pytest.mark.parametrize("number", [0, 65, True])
def test_no_number_of_candidates_is_refused(draws: TextToImage, number):  # noqa: F811
    with pytest.raises(ValueError, match="from 1 to 64"):
        draws.draw(["cat"], [1], settings=replace(SETTINGS, candidates=number))
