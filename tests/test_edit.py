"""Painting over: what is not brushed stays, to the last bit of token and pixel."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from app_fixtures import tiny_model
from PIL import Image

from app import edit
from app.engine import Engine, Status
from app.request import Request
from maskgil.pipeline import TextToImage

SECONDS = 120


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    return TextToImage.load(tiny_model(Path(tmp_path_factory.mktemp("weights")) / "scenes"))


@pytest.fixture
def engine(model: TextToImage) -> Iterator[Engine]:
    engine = Engine(lambda name: model)
    yield engine
    engine.close()


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8), "RGB")


def test_what_is_not_brushed_stays_to_the_last_bit(engine: Engine, model: TextToImage, photo: Image.Image):
    cells = [0, 1, 12, 13, 95]  # of 8 rows and 12 columns
    start = edit.start(model, photo, cells)
    job = engine.submit(Request("a cat", 3, size=(96, 64), steps=4, n=2), start=start)
    assert job.wait(SECONDS) and job.status is Status.DONE, job.error
    brushed = torch.zeros(96, dtype=torch.bool)
    brushed[cells] = True
    for row in job.frames[-1].canvas.tokens:
        assert torch.equal(row[~brushed], start.tokens[~brushed])
    pixels = np.kron(brushed.view(8, 12).numpy(), np.ones((8, 8), bool))
    for image in job.pictures():
        assert image.size == photo.size
        assert np.array_equal(np.asarray(image)[~pixels], np.asarray(photo)[~pixels])
        assert not np.array_equal(np.asarray(image)[pixels], np.asarray(photo)[pixels])


def test_a_step_shows_the_picture_with_its_holes(engine: Engine, model: TextToImage, photo: Image.Image):
    start = edit.start(model, photo, range(0, 96, 2))
    job = engine.submit(Request("a cat", 3, size=(96, 64), steps=4), start=start)
    assert job.wait(SECONDS)
    first = np.asarray(job.preview(0)[0])
    alpha = first[::8, ::8, 3].reshape(-1)
    assert (alpha[1::2] == 255).all() and (alpha[0::2] < 255).any()
    assert np.array_equal(first[:8, 8:16, :3], np.asarray(photo)[:8, 8:16])


def test_a_few_cells_take_no_more_steps_than_cells(engine: Engine, model: TextToImage, photo: Image.Image):
    job = engine.submit(Request("a cat", 3, size=(96, 64), steps=8), start=edit.start(model, photo, [5, 6]))
    assert job.wait(SECONDS) and [frame.of for frame in job.frames] == [2, 2]


@pytest.mark.parametrize(("cells", "complaint"), [([], "nothing is brushed"), ([96], "cell 96"), ([-1, 2], "brush on")])
def test_cells_that_are_not_there_are_refused(model: TextToImage, photo: Image.Image, cells: list, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        edit.start(model, photo, cells)


def test_a_variation_scatters_the_share_it_was_asked_for():
    cells = edit.scattered(0.25, seed=4, grid=(8, 12))
    assert len(set(cells)) == 24 and set(cells) <= set(range(96))
    assert cells == edit.scattered(0.25, seed=4, grid=(8, 12)) != edit.scattered(0.25, seed=5, grid=(8, 12))
    assert len(edit.scattered(0.001, 1, (8, 12))) == 1


@pytest.mark.parametrize(
    ("size", "becomes"), [((64, 64), (64, 64)), ((300, 200), (96, 64)), ((50, 400), (64, 64)), ((10, 9), (64, 64))]
)
def test_any_picture_is_fitted_to_the_nearest_shape(size: tuple[int, int], becomes: tuple[int, int]):
    fitted = edit.fitted(Image.new("RGBA", size, (0, 0, 0, 0)), [(64, 64), (96, 64)])
    assert fitted.size == becomes and fitted.getpixel((1, 1)) == (255, 255, 255), "transparent is white"
