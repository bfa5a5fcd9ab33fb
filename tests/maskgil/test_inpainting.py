"""Painting over, going on beyond the edge, changing with the words: what is no masked token stays, to the last bit of
token and pixel."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from app_fixtures import tiny_latents, tiny_model
from PIL import Image

import text_encoder
from app.core.edit_request import EditRequest
from app.core.request import GenerationRequest
from app.serving.jobs import Status
from app.serving.local_engine import LocalEngine
from maskgil import inpainting
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.sampling import remasking
from maskgil.sampling.token_grid import TokenGrid

SECONDS = 120


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    return TextToImage.load(tiny_model(Path(tmp_path_factory.mktemp("weights")) / "scenes"), text_encoder.load)


@pytest.fixture
def engine(model: TextToImage) -> Iterator[LocalEngine]:
    engine = LocalEngine(lambda name: model)
    yield engine
    engine.close()


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8), "RGB")


def test_the_border_of_what_is_new_has_no_edge(model: TextToImage):
    """The decoder is off by 40 levels everywhere: the new part begins with the colors of the old one."""
    start = inpainting.inpainting_input(
        model, Image.new("RGB", (96, 64), (100,) * 3), [r * 12 + c for r in range(8) for c in range(6, 12)]
    )
    row = np.asarray(start.paste_back(Image.new("RGB", (96, 64), (140,) * 3)))[32, :, 0].astype(int)
    assert (row[:48] == 100).all() and abs(row[48] - 100) <= 8 and abs(row[-1] - 140) <= 1


def test_what_is_not_brushed_stays_to_the_last_bit(engine: LocalEngine, model: TextToImage, photo: Image.Image):
    cells = [0, 1, 12, 13, 95]  # of 8 rows and 12 columns
    start = inpainting.inpainting_input(model, photo, cells)
    job = engine.submit(GenerationRequest("a cat", 3, size=(96, 64), n=2, params=SamplingParams(steps=4)), start=start)
    assert job.wait(SECONDS) and job.status is Status.DONE, job.error
    brushed = torch.zeros(96, dtype=torch.bool)
    brushed[cells] = True
    for row in job.frames[-1].grid.tokens:
        assert torch.equal(row[~brushed], start.tokens[~brushed])
    pixels = np.kron(brushed.view(8, 12).numpy(), np.ones((8, 8), bool))
    for image in job.pictures():
        assert image.size == photo.size
        assert np.array_equal(np.asarray(image)[~pixels], np.asarray(photo)[~pixels])
        assert not np.array_equal(np.asarray(image)[pixels], np.asarray(photo)[pixels])


def test_a_step_shows_the_picture_with_its_masked(engine: LocalEngine, model: TextToImage, photo: Image.Image):
    start = inpainting.inpainting_input(model, photo, range(0, 96, 2))
    job = engine.submit(GenerationRequest("a cat", 3, size=(96, 64), params=SamplingParams(steps=4)), start=start)
    assert job.wait(SECONDS)
    first = np.asarray(job.preview(0)[0])
    alpha = first[::8, ::8, 3].reshape(-1)
    assert (alpha[1::2] == 255).all() and (alpha[0::2] < 255).any()
    assert np.array_equal(first[:8, 8:16, :3], np.asarray(photo)[:8, 8:16])


def test_a_few_cells_take_no_more_steps_than_cells(engine: LocalEngine, model: TextToImage, photo: Image.Image):
    job = engine.submit(
        GenerationRequest("a cat", 3, size=(96, 64), params=SamplingParams(steps=8)),
        start=inpainting.inpainting_input(model, photo, [5, 6]),
    )
    assert job.wait(SECONDS) and [frame.total for frame in job.frames] == [2, 2]


def test_the_mask_is_written_in_runs(model: TextToImage, photo: Image.Image):
    start = inpainting.inpainting_input(model, photo, [95, 0, 1, 2, 12, 40, 41])
    assert start.cells == "0-2 12 40-41 95"


SIZES = [(256, 256), (192, 192), (320, 192), (192, 320)]  # those of the bundled model, whose cells are 32 px


def test_a_picture_goes_on_where_the_model_has_a_size_for_it():
    ways = {(way.side, way.size): (way.left, way.top) for way in inpainting.outpaintings((192, 192), SIZES, 32)}
    assert ways == {
        ("around", (256, 256)): (1, 1),
        ("around", (320, 192)): (2, 0),
        ("right", (320, 192)): (0, 0),
        ("left", (320, 192)): (4, 0),
        ("around", (192, 320)): (0, 2),
        ("down", (192, 320)): (0, 0),
        ("up", (192, 320)): (0, 4),
    }
    assert inpainting.fill_gaps((192, 192), inpainting.outpaintings((192, 192), SIZES, 32)) == ""
    assert inpainting.outpaintings((256, 256), SIZES, 32) == []
    assert "nothing that 256 × 256 pixels fit into" in inpainting.fill_gaps((256, 256), [])
    wider = inpainting.outpaintings((64, 64), [(64, 64), (96, 64)], 8)
    assert {way.side for way in wider} == {"left", "right", "around"}
    assert (
        inpainting.fill_gaps((64, 64), wider)
        == "Not up or down: the model draws nothing higher that is 64 pixels wide."
    )


@pytest.mark.parametrize(("side", "left"), [("right", 0), ("left", 4), ("around", 2)])
def test_beyond_the_edge_it_is_drawn_and_within_it_stays(engine: LocalEngine, model: TextToImage, side: str, left: int):
    photo = Image.effect_noise((64, 64), 90).convert("RGB")
    (way,) = [way for way in inpainting.outpaintings(photo.size, model.sizes, 8) if way.side == side]
    start = inpainting.outpaint(model, photo, way)
    job = engine.submit(GenerationRequest("a cat", 3, size=way.size, n=2, params=SamplingParams(steps=4)), start=start)
    assert job.wait(SECONDS) and job.status is Status.DONE, job.error
    given = inpainting.inpainting_input(model, photo, [0]).tokens.view(8, 8)
    for tokens, image in zip(job.frames[-1].grid.tokens, job.pictures(), strict=True):
        assert torch.equal(tokens.view(8, 12)[:, left : left + 8], given), "as the picture alone is read"
        assert image.size == (96, 64)
        assert image.crop((8 * left, 0, 8 * left + 64, 64)).tobytes() == photo.tobytes()
    assert int(start.mask.sum()) == 32 and not start.mask.view(8, 12)[:, left : left + 8].any()


def test_what_lies_beyond_the_edge_cannot_matter(engine: LocalEngine, model: TextToImage, photo: Image.Image):
    """The tokens under the masked tokens are placeholders: others draw the same picture."""
    start = inpainting.outpaint(model, photo.crop((0, 0, 64, 64)), inpainting.Outpainting("right", (96, 64), 0, 0))
    other = replace(start, tokens=torch.where(start.mask, 5, start.tokens))
    jobs = [
        engine.submit(GenerationRequest("a cat", 3, size=(96, 64), params=SamplingParams(steps=4)), start=each)
        for each in (start, other)
    ]
    assert all(job.wait(SECONDS) for job in jobs)
    assert jobs[0].pictures()[0].tobytes() == jobs[1].pictures()[0].tobytes()


def test_new_words_open_only_what_they_contradict(engine: LocalEngine, model: TextToImage, photo: Image.Image):
    old, new = model.condition(["a red cat"]), model.condition(["two dogs at night"])
    start = inpainting.reword(model, photo, old, new, 3, margin=0.0)
    given = inpainting.inpainting_input(model, photo, [0])
    assert torch.equal(start.tokens, given.tokens) and 0 < int(start.mask.sum()) < 96
    whole = TokenGrid(given.tokens[None], torch.zeros(1, 96, dtype=torch.bool), (8, 12))
    fell = remasking.remask_changed(model.generator, whole, old, new, [3], margin=0.0).canvas.mask[0]
    assert torch.equal(start.mask, fell)
    job = engine.submit(
        GenerationRequest("two dogs at night", 3, size=(96, 64), params=SamplingParams(steps=4)), start=start
    )
    assert job.wait(SECONDS) and job.status is Status.DONE, job.error
    assert torch.equal(job.frames[-1].grid.tokens[0][~start.mask], given.tokens[~start.mask])
    kept = np.kron(~start.mask.view(8, 12).numpy(), np.ones((8, 8), bool))
    assert np.array_equal(np.asarray(job.pictures()[0])[kept], np.asarray(photo)[kept])


def test_the_same_words_open_nothing_of_codes_and_of_vectors(model: TextToImage, photo: Image.Image, tmp_path: Path):
    words = model.condition(["a red cat"])
    with pytest.raises(ValueError, match="contradict nothing"):
        inpainting.reword(model, photo, words, words, 1, remasking.MARGIN)
    vectors = TextToImage.load(tiny_latents(tmp_path / "vectors"), text_encoder.load)
    words = vectors.condition(["a red cat"])
    for parameter in vectors.generator.parameters():
        parameter.mul_(4)  # words are heard
    square = photo.crop((0, 0, 64, 64))
    with pytest.raises(ValueError, match="contradict nothing"):
        inpainting.reword(vectors, square, words, words, 1, remasking.MARGIN)
    start = inpainting.reword(vectors, square, words, vectors.condition(["two dogs at night"]), 1, 0.0)
    assert start.tokens.shape == (16, 4) and 0 < int(start.mask.sum()) <= 16


@pytest.mark.parametrize(("cells", "complaint"), [([], "nothing is brushed"), ([96], "cell 96"), ([-1, 2], "brush on")])
def test_cells_that_are_not_there_are_refused(model: TextToImage, photo: Image.Image, cells: list, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        inpainting.inpainting_input(model, photo, cells)


def test_a_share_of_the_cells_is_chosen_by_the_seed():
    cells = inpainting.pick_share(range(96), 0.25, 4, 96)
    assert len(set(cells)) == 24 and set(cells) <= set(range(96))
    assert cells == inpainting.pick_share(range(96), 0.25, 4, 96) != inpainting.pick_share(range(96), 0.25, 5, 96)
    assert len(inpainting.pick_share(range(96), 0.001, 1, 96)) == 1
    some = inpainting.pick_share([7, 8, 40, 90], 0.5, 4, 96)
    assert len(some) == 2 and set(some) <= {7, 8, 40, 90}
    for strength in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            inpainting.pick_share(range(96), strength, 1, 96)


def test_of_a_start_picture_only_tokens_stay(model: TextToImage, photo: Image.Image):
    image = inpainting.fit_to_size(photo, model.sizes)
    start = inpainting.start_from(model, image, 0.25, 7)
    given = inpainting.inpainting_input(model, image, [0])
    assert int(start.mask.sum()) == round(0.25 * len(start.mask)) and start.tokens.equal(given.tokens)
    assert start.paste_back(drawn := Image.new("RGB", image.size, "red")) is drawn
    assert not start.mask.equal(inpainting.start_from(model, image, 0.25, 8).mask)


def test_the_thinnest_line_of_a_mask_marks_the_cells_that_it_crosses():
    """In a mask of the picture's own size, whatever becomes of that: 1,024 pixels a side here, 64 there."""
    mask = Image.new("L", (1024, 1024))
    mask.paste(255, (0, 515, 1024, 516))
    assert inpainting.mask_to_tokens(mask, mask, (8, 8), (64, 64)) == list(range(32, 40))
    wide = Image.new("L", (1200, 600))  # 96 x 64 shows 900 of it, from 150 on
    wide.paste(255, (0, 0, 149, 600))
    with pytest.raises(ValueError, match="marks nothing"):
        inpainting.mask_to_tokens(wide, wide, (8, 12), (96, 64))
    wide.putpixel((150, 599), 255)
    assert inpainting.mask_to_tokens(wide, wide, (8, 12), (96, 64)) == [84]
    tiny = Image.new("L", (3, 3), 255)
    assert inpainting.mask_to_tokens(tiny, tiny, (8, 8), (64, 64)) == list(range(64)), (
        "cells finer than the mask's pixels"
    )


def test_a_picture_that_had_to_be_scaled_is_said_to_be(engine: LocalEngine, model: TextToImage, photo: Image.Image):
    large, mask = photo.resize((192, 128)), Image.new("L", (192, 128), 255)
    for image, marked, said in (
        (large, mask, "the picture was scaled from 192x128 to 96x64, which the model draws"),
        (photo, mask.resize(photo.size), ""),
    ):
        change = EditRequest(image, marked, "")
        begun, query = change.begin(
            model, lambda text: model.condition([text]), GenerationRequest("a cat", 3, params=SamplingParams(steps=2))
        )
        job = engine.submit(query, start=begun)
        assert job.wait(SECONDS) and job.size_note == said and job.pictures()[0].size == (96, 64)


@pytest.mark.parametrize(
    ("size", "becomes"), [((64, 64), (64, 64)), ((300, 200), (96, 64)), ((50, 400), (64, 64)), ((10, 9), (64, 64))]
)
def test_any_picture_is_fitted_to_the_nearest_shape(size: tuple[int, int], becomes: tuple[int, int]):
    fitted = inpainting.fit_to_size(Image.new("RGBA", size, (0, 0, 0, 0)), [(64, 64), (96, 64)])
    assert fitted.size == becomes and fitted.getpixel((1, 1)) == (255, 255, 255), "transparent is white"
