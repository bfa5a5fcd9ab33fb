"""Training without a cache: pictures and captions encoded in each step learn what their cache would teach."""

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import maskgil
from PIL import Image
from test_trainer import losses

from maskgil import checkpoint
from maskgil.tokenizers.vq import VQConfig, VQModel
from train.data.cached_batches import CachedBatches
from train.data.picture_batches import PictureBatches, PictureIndex

WORDS = Path(__file__).resolve().parents[2] / "weights" / "scenes" / "text_encoder"
SIZE = 64


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    model = VQModel(VQConfig(codebook_size=32, channels=(32,), res_blocks=1, z_channels=32, patch=16)).eval()
    folder = tmp_path_factory.mktemp("tokenizer")
    checkpoint.save(folder, model, "vq", model.config.to_dict())
    return folder


def pictures(folder: Path, count: int = 9, side: tuple[int, int] = (SIZE, SIZE)) -> Path:
    draw = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for number in range(count):
        Image.fromarray(draw.integers(0, 256, (side[1], side[0], 3), np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"{'two cats' if number % 2 else 'a dog'} on the beach")
    return folder


def train(out: Path, *more: object) -> Path:
    maskgil("train", "t2i", "--dim", 32, "--layers", 1, "--heads", 2, "--preset", "tiny", "--batch", 4, "--micro", 4,
            "--steps", 5, "--lr", "1e-3", "--warmup", 1, "--workers", 0, "--token-dropout", 0, "--precision", "no",
            "--out", out, *more)  # fmt: skip
    return out


def test_it_learns_what_a_cache_would_teach(tmp_path, tokenizer):
    """Pictures of the bucket's own size are not cut, so that their tokens are those of the cache."""
    held, parts = pictures(tmp_path / "in"), ("--tokenizer", tokenizer, "--text-encoder", WORDS)
    maskgil(
        "data", "images", "--source", held, *parts, "--size", SIZE, "--shape", "square", "--out", tmp_path / "cache"
    )
    cached = train(tmp_path / "cached", "--data", tmp_path / "cache")
    live = train(tmp_path / "live", "--data", held, "--encode", SIZE, "--valid", held, "--sample-every", 4, *parts)
    # states are bfloat16 in a cache
    assert losses(live) == pytest.approx(losses(cached), rel=2e-3) and len(losses(live)) == 5
    with Image.open(live / "samples" / "0000004.png") as sheet:
        assert sheet.size[1] == 2 * SIZE, "the captions' pictures, above the true ones"
    assert checkpoint.describe(live / "export" / "generator") == checkpoint.describe(cached / "export" / "generator")


def test_batches_are_a_function_of_their_number_and_an_epoch_is_every_picture_once(tmp_path):
    held = str(pictures(tmp_path / "in", side=(80, 64)))
    batches = PictureBatches(held, SIZE, 4, seed=3)
    assert all(torch.equal(batches(i)["pixels"], PictureBatches(held, SIZE, 4, seed=3)(i)["pixels"]) for i in (0, 5))
    first = [batches(i) for i in range(3)]
    assert [len(batch["captions"]) for batch in first] in ([4, 4, 1], [4, 1, 4], [1, 4, 4])
    said = [caption for batch in first for caption in batch["captions"]]
    assert said.count("a dog on the beach") == 5 and said.count("two cats on the beach") == 4
    seen = {
        batches(i)["pixels"][row].numpy().tobytes() for i in range(30) for row in range(len(batches(i)["captions"]))
    }
    assert len(seen) > 45, "nine pictures, cut at another place in each of ten epochs"


def test_rows_come_in_the_order_of_a_cache(tmp_path, tokenizer):
    held = pictures(tmp_path / "in")
    maskgil("data", "images", "--source", held, "--tokenizer", tokenizer, "--text-encoder", WORDS, "--size", SIZE,
            "--shape", "square", "--out", tmp_path / "cache")  # fmt: skip
    model = checkpoint.load(tokenizer, "vq")
    live, cached = PictureBatches(str(held), SIZE, 4, seed=1), CachedBatches(str(tmp_path / "cache"), 4, seed=1)
    for index in range(6):
        pixels = live(index)["pixels"].float().div(127.5).sub(1)
        assert torch.equal(model.encode(pixels).long(), cached(index)["tokens"])
        assert torch.equal(live(index)["numbers"], cached(index)["numbers"])


def test_what_cannot_be_used_is_left_out(tmp_path):
    held = pictures(tmp_path / "in", 3)
    (held / "no-caption.png").write_bytes((held / "0.png").read_bytes())
    (held / "text.png").write_text("no picture")
    (held / "text.txt").write_text("a text")
    Image.new("RGB", (400, 8)).save(held / "line.png")
    (held / "line.txt").write_text("a line")
    (held / "1.png").write_bytes((held / "1.png").read_bytes()[:900])  # its head is whole
    indexed = PictureIndex.open(str(held), SIZE)
    for name in ("no-caption.png", "text.png", "line.png"):
        assert sum(name in line for line in indexed.left_out) == 1, name
    batch = PictureBatches(str(held), SIZE, 3)(0)
    assert (len(batch["captions"]), len(batch["pixels"]), batch["left_out"]) == (2, 2, 1)
    (held / "2.png").unlink()
    with pytest.raises(OSError, match=r"2\.png"):
        PictureBatches(str(held), SIZE, 3)(0)


def test_what_is_needed_is_said(tmp_path, tokenizer):
    held, parts = pictures(tmp_path / "in", 2), ("--tokenizer", tokenizer, "--text-encoder", WORDS)
    with pytest.raises(ValueError, match="--encode needs --tokenizer and --text-encoder"):
        train(tmp_path / "run", "--data", held, "--encode", SIZE)
    with pytest.raises(ValueError, match="give a multiple of 32"):
        train(tmp_path / "run", "--data", held, "--encode", 100, *parts)
    (tmp_path / "classes" / "ant").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(tmp_path / "classes" / "ant" / "1.png")
    with pytest.raises(ValueError, match="takes a folder or table of pictures with captions"):
        train(tmp_path / "run", "--data", tmp_path / "classes", "--encode", SIZE, *parts)
    for path in held.glob("*.txt"):
        path.unlink()
    with pytest.raises(ValueError, match="holds no pictures|can be used"):
        train(tmp_path / "run", "--data", held, "--encode", SIZE, *parts)
