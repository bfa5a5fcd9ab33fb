"""Edits of pictures of any size: what is not edited stays, seams are led over, extensions and larger copies."""

from pathlib import Path

import numpy as np
import pytest
import torch
from app_fixtures import tiny_model
from PIL import Image

import text_encoder
from maskgil import windowed_edit
from maskgil.pipeline import TextToImage
from maskgil.seam_blending import blend_seam
from maskgil.upscaling import has_upscaler, upscale


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    return TextToImage.load(tiny_model(Path(tmp_path_factory.mktemp("weights")) / "scenes"), text_encoder.load)


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def mask_of(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", image.size)
    mask.paste(255, box)
    return mask


@pytest.mark.parametrize("size", [(64, 64), (200, 90), (70, 300), (40, 50)])
def test_what_the_mask_does_not_touch_stays_to_the_bit(model: TextToImage, size: tuple[int, int]):
    image = noise(*size)
    box = (size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2)
    start = windowed_edit.windowed_input(model, image, mask_of(image, box))
    result = np.asarray(start.paste_back(Image.new("RGB", start.image.size, "red")))
    changed = (result != np.asarray(image)).any(-1)
    inside = np.zeros_like(changed)
    inside[box[1] : box[3], box[0] : box[2]] = True
    assert result.shape == np.asarray(image).shape and changed.any() and not changed[~inside].any()


def test_a_share_of_the_marked_tokens_is_drawn_and_the_seed_chooses_it(model: TextToImage):
    image = noise(64, 64)
    full = Image.new("L", image.size, 255)
    starts = [windowed_edit.windowed_input(model, image, full, 0.25, seed) for seed in (1, 1, 2)]
    assert [int(start.mask.sum()) for start in starts] == [16, 16, 16]
    assert torch.equal(starts[0].mask, starts[1].mask) and not torch.equal(starts[0].mask, starts[2].mask)


@pytest.mark.parametrize("side", windowed_edit.SIDES)
@pytest.mark.parametrize("size", [(64, 64), (100, 70)])
def test_an_extension_keeps_the_picture_and_adds_to_one_side(model: TextToImage, side: str, size: tuple[int, int]):
    image = noise(*size)
    start = windowed_edit.extended_input(model, image, side, 32)
    result = start.paste_back(Image.new("RGB", start.image.size, "blue"))
    left, top = 32 * (side == "left"), 32 * (side == "up")
    assert result.size == (size[0] + 32 * (side in ("left", "right")), size[1] + 32 * (side in ("up", "down")))
    kept = result.crop((left, top, left + size[0], top + size[1]))
    assert np.array_equal(np.asarray(kept), np.asarray(image)) and 0 < int(start.mask.sum()) < len(start.mask)


@pytest.mark.parametrize(
    ("side", "amount", "reason"), [("north", 32, "choose one of left"), ("left", 5000, "32 to 256")]
)
def test_an_impossible_extension_is_refused(model: TextToImage, side: str, amount: int, reason: str):
    with pytest.raises(ValueError, match=reason):
        windowed_edit.extended_input(model, noise(64, 64), side, amount)


def test_an_empty_mask_and_one_of_another_size_are_refused(model: TextToImage):
    with pytest.raises(ValueError, match="nothing is brushed"):
        windowed_edit.windowed_input(model, noise(64, 64), Image.new("L", (64, 64)))
    with pytest.raises(ValueError, match="make them alike"):
        windowed_edit.windowed_input(model, noise(64, 64), Image.new("L", (32, 64), 255))


def test_a_seam_between_two_shades_becomes_a_slope():
    original, drawn = Image.new("RGB", (96, 32), (100, 100, 100)), Image.new("RGB", (96, 32), (140, 140, 140))
    new = Image.new("L", (96, 32))
    new.paste(255, (48, 0, 96, 32))
    row = np.asarray(blend_seam(drawn, original, new))[16, 48:, 0].astype(int)
    assert abs(row[0] - 100) <= 8 and abs(row[-1] - 140) <= 1 and (np.diff(row) >= 0).all()


def test_an_upscaled_picture_has_the_colors_of_the_original(model: TextToImage):
    image = noise(24, 16).resize((48, 32), Image.Resampling.BICUBIC)
    for factor in (2, 4):
        large = upscale(model.tokenizer, image, factor)
        assert large.size == (48 * factor, 32 * factor)
        error = np.asarray(large.resize(image.size, Image.Resampling.BOX), int) - np.asarray(image, int)
        assert np.abs(error).mean() < 8
    assert not has_upscaler(model.tokenizer)
    with pytest.raises(ValueError, match="2 or 4 times"):
        upscale(model.tokenizer, image, 3)
    with pytest.raises(ValueError, match="too large"):
        upscale(model.tokenizer, Image.new("RGB", (2000, 2000)), 4)
