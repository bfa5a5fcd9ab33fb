"""From a folder of captioned pictures to a folder that draws what it was told, in a minute."""

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import maskgil
from PIL import Image

import text_encoder
from maskgil.pipeline import SamplingParams, TextToImage
from train.data.cache_files import write_note, write_shard
from train.data.cached_batches import NOTE
from train.recipes.text_to_image import SHAPES, text_to_image_config

SCENES = Path(__file__).resolve().parents[2] / "weights" / "scenes"
WALLS = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (30, 50, 200)}


@pytest.mark.slow
def test_sixty_pictures_become_a_model_that_draws(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(60):
        name = list(WALLS)[number % 3]
        pixels = np.clip(np.array(WALLS[name]) + rng.normal(0, 8, (256, 256, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number}.png")
        (tmp_path / "in" / f"{number}.txt").write_text(f"a cat on a {name} background")
    (tmp_path / "prompts.txt").write_text("".join(f"a cat on a {name} background\n" for name in WALLS))
    tokenizer, encoder = SCENES / "tokenizer", SCENES / "text_encoder"
    maskgil("data", "images", "--source", tmp_path / "in", "--tokenizer", tokenizer, "--text-encoder", encoder,
            "--shape", "square", "--out", tmp_path / "cache")  # fmt: skip
    maskgil("train", "t2i", "--preset", "tiny", "--dim", 64, "--layers", 2, "--heads", 2, "--data", tmp_path / "cache",
            "--batch", 20, "--micro", 20, "--steps", 150, "--lr", "3e-3", "--warmup", 10, "--ema", 0.9, "--smoothing",
            0, "--token-dropout", 0, "--workers", 0, "--out", tmp_path / "run", "--tokenizer", tokenizer,
            "--text-encoder", encoder, "--prompts", tmp_path / "prompts.txt", "--sample-every", 100)  # fmt: skip
    with Image.open(tmp_path / "run" / "samples" / "0000100.png") as sheet:
        assert sheet.size == (3 * 256, 256), "the prompts alone"
    maskgil("export", "text", "--generator", tmp_path / "run" / "export", "--tokenizer", tokenizer, "--text-encoder",
            encoder, "--size", 256, "--shape", "square", "--out", tmp_path / "model")  # fmt: skip
    model = TextToImage.load(tmp_path / "model", text_encoder.load)
    for name, color in WALLS.items():
        picture = model.images([f"a cat on a {name} background"], [1], (256, 256), SamplingParams(steps=4))[0]
        mean = np.asarray(picture.convert("RGB")).mean((0, 1))
        nearest = min(WALLS, key=lambda wall: float(np.abs(mean - np.array(WALLS[wall])).sum()))
        assert nearest == name, (name, mean, color)


@pytest.mark.parametrize("preset", SHAPES)
def test_presets_are_the_papers_architecture(preset):
    config = text_to_image_config(preset)
    assert (config.qk_norm, config.norm, config.rope, config.causal) == ("layer", "post", "2d", False)
    assert text_to_image_config(preset, heads=config.heads // 2).heads == config.heads // 2
    with pytest.raises(ValueError, match="2-D rotation needs a multiple of 4"):
        text_to_image_config(preset, dim=config.heads * 6)


def test_a_model_that_goes_on_keeps_its_shape(tmp_path):
    with pytest.raises(ValueError, match="keeps its own shape"):
        maskgil("train", "t2i", "--data", tmp_path, "--init", "scenes", "--dim", 64, "--out", tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "needs --tokenizer"),
        (["--tokenizer", SCENES / "tokenizer"], "needs --text-encoder"),
        (["--tokenizer", SCENES / "tokenizer", "--text-encoder", SCENES / "text_encoder"], "holds no prompt"),
    ],
)
def test_prompts_of_a_sheet_need_what_reads_and_draws_them(tmp_path, options, message):
    cache = tmp_path / "cache"
    note = {"tokenizer": "x", "codes": 64, "downsample": 16, "shapes": [[32, 32]], "text_encoder": "y", "width": 8}
    write_note(cache / NOTE, note)
    write_shard(
        {"32x32/tokens": torch.zeros(2, 4).to(torch.uint16), "32x32/states": torch.zeros(2, 8).bfloat16(),
         "32x32/ends": torch.tensor([1, 2])}, cache / "a.safetensors",
    )  # fmt: skip
    (tmp_path / "prompts.txt").write_text("\n")
    with pytest.raises(ValueError, match=message):
        maskgil("train", "t2i", "--preset", "tiny", "--dim", 16, "--layers", 1, "--heads", 2, "--data", cache,
                "--prompts", tmp_path / "prompts.txt", *options, "--out", tmp_path / "run")  # fmt: skip
