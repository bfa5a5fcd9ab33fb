"""What decoders are trained by: reconstruction, perceptual and adversarial losses."""

import json
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from maskgil import checkpoint
from maskgil.tokenizers.vq import VQConfig, VQModel
from train.losses.perceptual import PerceptualNet, load_perceptual_net, perceptual_net_loss, save_perceptual_net
from train.losses.reconstruction import PatchGAN, ReconstructionLoss, patchgan_loss, reconstruction, shifted
from train.losses.token_targets import neighbor_targets
from train.losses.tokenizer_losses import DecoderLoss, DecoderOnly, corrupt_codes
from train.optim import OptimConfig
from train.recipe import OptimizedModule, Recipe
from train.trainer import train

VQ = VQConfig(codebook_size=64, codebook_dim=4, channels=(32,), res_blocks=1, z_channels=8, patch=16)


def tiny_perceptual_net() -> PerceptualNet:
    torch.manual_seed(0)
    return PerceptualNet(3, (8, 8, 16)).eval().requires_grad_(False)


def test_distance_is_zero_for_equals_symmetric_and_grows_with_blur():
    network, picture = tiny_perceptual_net(), torch.rand(2, 3, 64, 64) * 2 - 1
    soft = F.avg_pool2d(picture, 3, 1, 1)
    softer = F.avg_pool2d(picture, 7, 1, 3)
    assert network.distance(picture, picture) < 1e-10
    near, far = (network.distance(other, picture) for other in (soft, softer))
    assert 0 < near < far
    assert torch.allclose(network.distance(picture, soft), near)


def test_the_perceptual_net_learns_what_covers_a_cell_and_is_kept_whole(tmp_path):
    torch.manual_seed(0)
    network = PerceptualNet(3, (8, 16, 32))
    covers = torch.randint(0, 4, (8, 4, 4))
    colours = torch.tensor([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)
    pixels = colours[covers].permute(0, 3, 1, 2).repeat_interleave(16, 2).repeat_interleave(16, 3)
    batch = {"pixels": pixels, "covers": covers, "background": torch.arange(8), "style": torch.arange(8) % 5}
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
    for step in range(80):
        loss, report = perceptual_net_loss([network], batch, torch.Generator().manual_seed(step), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert report["accuracy"] > 0.9
    save_perceptual_net(network, tmp_path)
    again = load_perceptual_net(tmp_path)
    assert not any(p.requires_grad for p in again.parameters())
    picture = pixels.float().div(127.5).sub(1)
    assert again.distance(picture, picture.flip(0)) > 0.1  # bf16 in the file: the same eyes
    assert torch.allclose(again(picture)[0].argmax(1), network(picture)[0].argmax(1))
    assert checkpoint.describe(tmp_path)["kind"] == "observer"


def test_a_judge_sees_every_pixel_in_every_place_of_its_lattice():
    pixels = torch.arange(12.0 * 16).view(1, 1, 12, 16).expand(1, 3, 12, 16)
    corners = [shifted(pixels, step)[0, 0, 0, 0].item() for step in range(16)]
    assert sorted(corners) == [16.0 * y + x for y in range(4) for x in range(4)]
    assert all(shifted(pixels, step).shape == (1, 3, 8, 12) for step in range(16))


def test_finer_pictures_are_looked_at_in_the_size_of_scenes():
    network, picture = tiny_perceptual_net(), torch.rand(2, 3, 32, 32) * 2 - 1
    other = picture.flip(3)
    larger = [p.repeat_interleave(2, 2).repeat_interleave(2, 3) for p in (picture, other)]
    known, finer = (ReconstructionLoss(network, finer=k) for k in (1, 2))
    _, told = known(other, {}, picture, [], nn.Parameter(), 0)
    _, same = finer(larger[1], {}, larger[0], [], nn.Parameter(), 0)
    assert told["loss/perceptual"] == pytest.approx(same["loss/perceptual"], rel=1e-4) and told["loss/perceptual"] > 0


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="it is there")
def test_without_vgg_there_is_one_line_that_says_what_to_do():
    with pytest.raises(ValueError, match="torchvision.*scenes-perceptual-net"):
        load_perceptual_net("lpips")


def test_weights_say_where_an_error_counts():
    picture, off = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    off[..., :4] = 0.5
    left = torch.zeros(1, 1, 8, 8)
    left[..., :4] = 1
    assert reconstruction(off, picture, left) > 0
    assert reconstruction(off, picture, 1 - left) == 0


def test_the_game_begins_at_its_step_and_weighs_as_much_as_the_rest():
    torch.manual_seed(0)
    last, judge = nn.Conv2d(4, 3, 3, padding=1), PatchGAN(8)
    pixels = torch.rand(2, 3, 32, 32)
    likeness = ReconstructionLoss(adversarial_from=5, adversarial=0.5)
    seen = torch.randn(2, 4, 32, 32)

    def gradient(step: int, batch: dict) -> torch.Tensor:
        loss, _ = likeness(last(seen), batch, pixels, [last, judge], last.weight, step)
        return torch.autograd.grad(loss, last.weight)[0]

    early, late = {}, {}
    alone = gradient(4, early)
    assert not early and patchgan_loss([last, judge], early, torch.Generator(), 4)[0] == 0
    game = gradient(5, late) - alone
    assert torch.allclose(game.norm(), 0.5 * alone.norm(), rtol=0.05)  # VQGAN, eq. 7
    painted, real = late["painted"]
    assert not painted.requires_grad and torch.equal(real, pixels)


def test_patchgan_learns_to_tell_soft_from_sharp():
    torch.manual_seed(0)
    judge = PatchGAN(16)
    optimizer = torch.optim.AdamW(judge.parameters(), 2e-3)
    for step in range(120):
        sharp = torch.randint(0, 2, (4, 3, 32, 32)).float() * 2 - 1
        batch = {"painted": (F.avg_pool2d(sharp, 3, 1, 1), sharp)}
        loss, report = patchgan_loss([None, judge], batch, torch.Generator(), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert report["d/accuracy"] > 0.95 and loss < 0.2


def test_corrupted_tokens_are_near_ones_and_as_few_as_said():
    codebook = F.normalize(torch.randn(64, 4), dim=-1)
    near = neighbor_targets(codebook, neighbours=4, temperature=1.0)
    tokens = torch.randint(0, 64, (400, 16))
    other = corrupt_codes(tokens, near, 0.4, torch.Generator().manual_seed(0))
    assert (near[0][tokens] == other[..., None]).any(-1).all()
    changed = (other != tokens).float().mean(1)
    assert 0.02 < changed.mean() < 0.1  # half the pictures, half of 0.4 on average, a code may stand for itself
    assert (changed == 0).float().mean() > 0.5
    assert torch.equal(corrupt_codes(tokens, near, 0.0, torch.Generator()), tokens)


class Batches:
    """Tokens and the pictures that they stand for."""

    def __call__(self, index: int) -> dict:
        drawn = torch.Generator().manual_seed(index)
        tokens = torch.randint(0, 64, (4, 4), generator=drawn)
        shades = (tokens * 3).to(torch.uint8).view(4, 1, 2, 2).expand(4, 3, 2, 2)
        pixels = shades.repeat_interleave(16, 2).repeat_interleave(16, 3)
        return {"tokens": tokens, "grid": (2, 2), "pixels": pixels, "covers": (tokens > 20).long().view(4, 2, 2)}


def test_a_decoder_in_the_game_goes_on_as_if_it_had_never_stopped(tmp_path):
    def recipe() -> Recipe:
        torch.manual_seed(0)
        model = VQModel(VQ)
        near = neighbor_targets(model.quantize.codebook().detach())
        loss = DecoderLoss(ReconstructionLoss(tiny_perceptual_net(), 0.5, adversarial_from=6), near, corruption=0.3)
        return Recipe(
            name="game",
            steps=12,
            modules=(
                OptimizedModule(DecoderOnly(model), loss, OptimConfig(lr=1e-3, muon_lr=0.02, warmup=1)),
                OptimizedModule(PatchGAN(8), patchgan_loss, OptimConfig(lr=1e-3, warmup=1)),
            ),
            batch_at=Batches(),
            precision="no",
            workers=0,
        )

    whole = train(recipe(), tmp_path / "whole")
    train(recipe(), tmp_path / "parts", stop_at=8)
    parts = train(recipe(), tmp_path / "parts")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
    logged = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert logged[-1]["d/loss"] > 0 and logged[-1]["loss/perceptual"] > 0
