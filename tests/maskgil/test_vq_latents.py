"""A VQ tokenizer as a continuous one, and folders that borrow theirs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from app_fixtures import tiny_ar_model, tiny_latents, tiny_model
from commands import maskgil

import text_encoder
from app.core import registry
from maskgil import checkpoint
from maskgil.models.emigm import EMIGM, EMIGMConfig
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.tokenizers import vq_latents
from maskgil.tokenizers.autoencoder import validate_scale
from maskgil.tokenizers.vq import VQModel
from maskgil.tokenizers.vq_latents import VQLatentTokenizer
from train.data.latent_cache import LatentCache, write_latents
from train.data.scene_cache import KINDS, open_codes
from train.eval import sample_images
from train.scenes.sprites import Sprites


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "owner")


@pytest.fixture(scope="module")
def vq(model: Path) -> VQModel:
    return checkpoint.load(model / "tokenizer", "vq")


@torch.no_grad()
def test_tokens_are_latents_of_deviation_one_and_decode_as_their_codes(vq: VQModel):
    continuous = VQLatentTokenizer(vq)
    pixels = torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokens, grid = continuous.encode(pixels), continuous.grid(32, 64)
    assert tokens.shape == (2, grid[0] * grid[1], vq.config.codebook_dim)
    assert torch.allclose(tokens.square().mean(-1), torch.ones(tokens.shape[:2]), atol=1e-4), "on the sphere"
    assert torch.equal(continuous.decode(tokens, grid), vq.decode(vq.encode(pixels), grid))
    beside = continuous.decode(1.3 * tokens + 1e-4, grid)
    assert torch.equal(beside, vq.decode(vq.encode(pixels), grid)), "how long a vector is says nothing"
    assert torch.equal(continuous.codes(tokens), vq.encode(pixels))
    ours, theirs = (checkpoint.fingerprint(one.identity()) for one in (continuous, vq))
    assert ours != theirs, "no recipe of codes takes its tokens, no AR model of codes its model"
    with pytest.raises(ValueError, match="do not fill a grid"):
        continuous.decode(tokens, (1, 1))
    with pytest.raises(ValueError, match="tokens of 1 channels"):
        continuous.decode(tokens[..., :1], grid)
    with pytest.raises(ValueError, match="unit sphere"):
        VQLatentTokenizer(VQModel(replace(vq.config, l2_norm=False)))


@pytest.fixture(scope="module")
def cached(vq: VQModel, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cache")
    write_latents(VQLatentTokenizer(vq), Sprites(), out / "scenes", total=16, shard=16)
    write_latents(VQLatentTokenizer(vq), Sprites(), out / "paired", total=16, shard=16, first=KINDS["paired"])
    return out


def test_its_caches_hold_the_codes_too_and_are_mixed(cached: Path, vq: VQModel):
    both = LatentCache.open(f"{cached / 'scenes'},{cached / 'paired'}")
    table = both.table
    assert (
        len(table["numbers"]) == 32 and int(table["numbers"].max()) == KINDS["paired"] + 15 and not table["std"].any()
    )
    validate_scale(table["mean"], vq.config.codebook_dim**0.5, table["std"])
    assert both.codes_of == checkpoint.fingerprint(vq.identity())
    latents = torch.nn.functional.normalize(table["mean"].float(), dim=-1)[:, :, None]
    side = vq.quantize.nearest(latents)[..., 0]
    assert (side == table["codes"]).float().mean() > 0.95, "rounding of float16 aside"
    with pytest.raises(ValueError, match="holds latents, .*codes are wanted here"):
        open_codes(cached / "scenes")
    with pytest.raises(ValueError, match="another kind of scenes"):
        write_latents(VQLatentTokenizer(vq), Sprites(), cached / "scenes", total=16, shard=16, first=KINDS["paired"])


def test_a_folder_may_borrow_its_tokenizer(model: Path, vq: VQModel, tmp_path: Path):
    encoder = text_encoder.load(model / "text_encoder")
    rows, columns = vq.grid(32, 32)
    config = EMIGMConfig(
        width=16, heads=2, depth=1, head_depth=1, head_width=16, channels=vq.config.codebook_dim, grid=(rows, columns),
        buffer=24, classes=None, text_dim=encoder.width, dropout=0.0,
    )  # fmt: skip
    hashes = {
        "tokenizer_hash": checkpoint.fingerprint(VQLatentTokenizer(vq).identity()),
        "text_encoder_hash": checkpoint.fingerprint(encoder.identity()),
    }
    checkpoint.save(tmp_path / "run" / "generator", EMIGM(config), "emigm", config.to_dict(), **hashes)
    arguments = [f"--tokenizer={model / 'tokenizer'}", f"--generator={tmp_path / 'run'}"]
    arguments += [f"--text-encoder={model / 'text_encoder'}"]
    own, shared = tmp_path / "own", model.parent / "shared"
    maskgil("export", "emigm", *arguments, f"--out={own}")
    maskgil("export", "emigm", *arguments, f"--borrow={model.name}", f"--out={shared}")
    assert not list((shared / "tokenizer").glob("*.safetensors")) and list((own / "tokenizer").glob("*.safetensors"))
    two_steps = SamplingParams(steps=2)
    one, two = (
        TextToImage.load(folder, text_encoder.load).images(["a cat"], [1], settings=two_steps)[0]
        for folder in (own, shared)
    )
    near = np.abs(np.asarray(one, np.int16) - np.asarray(two, np.int16)).mean()
    assert one.size == (32, 32) and near < 2, "what paints in a byte a number aside"
    assert registry.find(str(own)).parameters == registry.find(str(shared)).parameters > 0
    assert sample_images.draw_samples(str(shared), sample_images.numbered(["a cat"]), tmp_path / "drawn", two_steps)
    tiny_ar_model(model)
    with pytest.raises(ValueError, match="another tokenizer|was trained with"):
        TextToImage.load(shared, text_encoder.load, ar_model=model.with_name(f"{model.name}-ar")).ar_model  # noqa: B018
    (model / "tokenizer" / "config.json").rename(model / "tokenizer" / "away")
    with pytest.raises(ValueError, match=f"borrows the tokenizer of {model.name}, but .* holds none"):
        TextToImage.load(shared, text_encoder.load)
    with pytest.raises(ValueError, match="tokenizer/config.json missing"):
        registry.find(str(shared))
    (model / "tokenizer" / "away").rename(model / "tokenizer" / "config.json")


def test_a_latent_tokenizer_is_opened_as_it_is(tmp_path: Path):
    assert not isinstance(
        vq_latents.load_latent_tokenizer(tiny_latents(tmp_path / "vectors") / "tokenizer"), VQLatentTokenizer
    )
