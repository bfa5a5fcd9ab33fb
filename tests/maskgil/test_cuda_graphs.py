"""Recorded evaluations: the same logits, one recording a shape, and few of them kept."""

from collections import Counter

import pytest
import torch
from conftest import TINY

from maskgil.condition import Condition
from maskgil.models.maskgil import MaskGIL
from maskgil.sampling.cuda_graphs import KEPT, TEXT, CUDAGraphRunner

GRID = (4, 4)


@pytest.fixture
def model() -> MaskGIL:
    torch.manual_seed(0)
    model = MaskGIL(TINY).eval().requires_grad_(False)
    torch.nn.init.normal_(model.output.weight)
    return model


def asked(rows: int, length: int, drop: bool = True, device: str = "cpu") -> tuple:
    """Tokens, grid, condition and drop of an evaluation."""
    tokens = torch.randint(TINY.codebook_size + 1, (rows, 16))
    mask = torch.arange(length) < torch.randint(1, length + 1, (rows, 1))
    condition = Condition(torch.randn(rows, length, TINY.text_dim), mask).to(device)
    return tokens.to(device), GRID, condition, (torch.rand(rows) < 0.5).to(device) if drop else None


class Recorder:
    """Counts recordings and replays, and evaluates where a GPU would replay."""

    def __init__(self):
        self.recorded, self.replays = [], Counter()

    def __call__(self, run, inputs):
        name = tuple(inputs[1].shape)
        self.recorded.append(name)

        def replay(given):
            self.replays[name] += 1
            return run(*given)

        return replay


def test_a_shape_is_recorded_when_it_comes_again(model):
    recorder = Recorder()
    graphs = CUDAGraphRunner(model, recorder)
    for _ in range(4):
        graphs(*asked(2, 3))
    assert len(recorder.recorded) == 1 and recorder.replays.total() == 3


def test_texts_of_like_length_share_a_recording_and_read_the_same(model):
    recorder = Recorder()
    graphs, longest = CUDAGraphRunner(model, recorder), min(TEXT, TINY.text_length)
    for length in (2, 3, longest):
        evaluation = asked(2, length)
        assert torch.allclose(graphs(*evaluation), model(*evaluation), atol=1e-5)
    assert recorder.recorded == [(2, longest, TINY.text_dim)]


def test_a_guided_step_and_an_unguided_one_are_two_shapes(model):
    recorder = Recorder()
    graphs = CUDAGraphRunner(model, recorder)
    for drop in (True, False) * 2:
        graphs(*asked(2, 3, drop))
    assert len(recorder.recorded) == 2


def test_only_the_shapes_that_came_last_are_kept(model):
    recorder = Recorder()
    graphs = CUDAGraphRunner(model, recorder)
    for rows in [*range(1, KEPT + 3)] * 2:
        graphs(*asked(rows, 3))
    assert len(graphs.graphs) == KEPT
    graphs(*asked(KEPT + 2, 3))
    assert len(recorder.recorded) == KEPT + 2, "what came last was forgotten"
    graphs(*asked(1, 3))
    assert len(recorder.recorded) == KEPT + 3


def test_without_room_for_a_recording_it_is_drawn_all_the_same(model):
    def full(run, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    graphs = CUDAGraphRunner(model, full)
    for _ in range(3):
        evaluation = asked(2, 3)
        assert torch.allclose(graphs(*evaluation), model(*evaluation), atol=1e-5)


def test_a_text_too_long_is_refused_as_by_the_model(model):
    with pytest.raises(ValueError, match="at most"):
        CUDAGraphRunner(model, Recorder())(*asked(1, TINY.text_length + 1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_a_gpu_replays_what_the_model_computes(model):
    model, graphs = model.cuda(), CUDAGraphRunner(model.cuda())
    for rows in (1, 3, 1, 3, 1, 3):
        evaluation = asked(rows, 4, device="cuda")
        first = graphs(*evaluation)
        kept = first.clone()
        graphs(*asked(rows, 4, device="cuda"))
        assert torch.equal(first, kept), "a later replay overwrote what an earlier one gave"
        assert torch.allclose(first, model(*evaluation), atol=1e-5)
    assert len(graphs.graphs) == 2
