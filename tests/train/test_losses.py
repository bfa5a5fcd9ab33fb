"""Losses: masks are exact, the codebook starts alive, tiny models overfit one batch."""

import pytest
import torch

from maskgil.condition import Condition
from maskgil.models.config import ModelConfig
from maskgil.models.maskgil import MaskGIL
from maskgil.sampling.schedules import exact_mask
from maskgil.tokenizers.vq import VQConfig, VQModel
from train.eval.scene_score import KINDS, asked_scenes, frechet, moments
from train.losses.codebook import CodebookRevival, quantize_with_gradient, spread_codebook
from train.losses.conditioned import Conditioned, WithLayoutHeads
from train.losses.masked_token import MaskedTokenLoss, Teacher
from train.losses.tokenizer_losses import TokenizerLoss, TokenizerWithCellHead
from train.recipes.scenes_tokenizers import scenes_tokenizer
from train.scenes.scene import is_held_out

VQ = VQConfig(codebook_size=64, codebook_dim=4, channels=(32, 32), res_blocks=1, z_channels=32, patch=8)


def masks(rows: int, tokens: int, **options) -> torch.Tensor:
    batch = {"tokens": torch.zeros(rows, tokens, dtype=torch.long), "numbers": torch.arange(rows)}
    batch["things"] = (torch.arange(tokens) < tokens // 4).long().expand(rows, tokens)
    return MaskedTokenLoss(**options).masks(batch)[0]


def test_masks_have_exactly_the_count_of_their_ratio():
    ratio = torch.tensor([0.0, 0.01, 0.5, 0.999, 1.0])
    assert exact_mask(ratio, torch.rand(5, 40)).sum(1).tolist() == [1, 1, 20, 40, 40]


def test_the_mean_mask_ratio_is_that_of_the_published_code():
    """arccos: 0.637. Masks that are independent may be empty, exact ones never are."""
    exact, free = masks(4000, 64), masks(4000, 64, independent=True)
    assert exact.float().mean() == pytest.approx(0.637 + 0.5 / 64, abs=0.02) and exact.any(1).all()
    assert free.float().mean() == pytest.approx(0.637, abs=0.02) and not free.any(1).all()


def test_things_are_masked_first():
    plain, first = masks(2000, 40), masks(2000, 40, things_first=True)
    assert torch.equal(plain.sum(1), first.sum(1)), "as many, elsewhere"
    share = [m[:, :10].sum() / m.sum() for m in (plain, first)]
    assert share[0] == pytest.approx(0.25, abs=0.02) and share[1] > 0.3
    assert torch.equal(first[3:5], masks(5, 40, things_first=True)[3:5]), "a function of the picture's number"


class Words(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(10, 12)

    def forward(self, ids, mask):
        return self.table(ids) * mask[..., None]


TINY = ModelConfig(codebook_size=32, dim=64, layers=2, heads=2, ffn=128, text_dim=12, text_length=8, qk_norm="rms",
                   dropout=0.0)  # fmt: skip


def test_a_teacher_knows_pictures_of_few_things_all_of_which_are_its_own():
    cells = torch.tensor([[0, 1, 2, 2, 0], [0, 1, 3, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 2, 0, 1, 2]])
    teacher = Teacher(Conditioned(MaskGIL(TINY), Words()), things=2)
    assert teacher.knows(cells).tolist() == [True, False, True, True, True]
    assert Teacher(teacher.driven, things=2, kinds=1).knows(cells).tolist() == [False, False, True, True, False]


def test_a_student_that_equals_its_teacher_has_nothing_to_learn_in_the_pictures_that_the_teacher_knows():
    torch.manual_seed(2)
    driven = Conditioned(MaskGIL(TINY).eval(), Words())
    student = WithLayoutHeads(driven, (4,)).eval()
    batch = {
        "tokens": torch.randint(32, (2, 16)), "numbers": torch.arange(2), "grid": (4, 4),
        "ids": torch.randint(10, (2, 3)), "mask": torch.ones(2, 3, dtype=torch.bool),
        "things": torch.ones(2, 16, dtype=torch.long),
    }  # fmt: skip

    def gradient(things: int) -> float:
        loss = MaskedTokenLoss(teacher=Teacher(driven, things=things, weight=1.0))
        student.zero_grad()
        total = loss([student], batch, torch.Generator(), 0)[0].total
        total.backward()
        return sum(p.grad.abs().sum().item() for p in driven.generator.parameters() if p.grad is not None)

    assert gradient(things=1) < 1e-3 < 1.0 < gradient(things=0)


def test_a_tiny_model_overfits_one_batch():
    torch.manual_seed(1)
    model = Conditioned(MaskGIL(TINY), Words())
    ids = torch.tensor([[1, 2, 3], [4, 5, 0]])
    batch = {"tokens": torch.randint(0, 32, (2, 12)), "grid": (3, 4), "ids": ids, "mask": ids != 0}
    objective = MaskedTokenLoss(caption_dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(800):
        part, metrics = objective([model], batch | {"numbers": 2 * step + torch.arange(2)}, torch.Generator(), step)
        loss = part.mean
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 and metrics["accuracy"] > 0.95
    blank = torch.full((2, 12), 32)
    told = model.generator(blank, (3, 4), Condition(model.text_encoder(ids, ids != 0), ids != 0)).argmax(-1)
    assert (told == batch["tokens"]).float().mean() > 0.9


def test_gradient_passes_the_codebook():
    model = VQModel(VQ)
    z = model.latents(torch.rand(1, 3, 32, 32)).requires_grad_()
    straight, tokens, loss = quantize_with_gradient(model, z)
    assert torch.allclose(straight, model.quantize.codebook()[tokens], atol=1e-6)
    gradient = torch.autograd.grad(straight.sum(), z, retain_graph=True)[0]
    assert torch.allclose(gradient, torch.ones_like(gradient)) and loss > 0


def test_codebook_starts_as_clusters_and_stays_in_use():
    model = VQModel(VQ)
    centres = torch.nn.functional.normalize(torch.randn(64, 4), dim=-1)
    latents = centres.repeat(30, 1)
    spread_codebook(model, latents, torch.Generator().manual_seed(0), rounds=12)
    nearest = (latents @ model.quantize.codebook().T).max(1)
    assert nearest.values.mean() > 0.98 and len(nearest.indices.unique()) > 32


def test_tokenizer_learns_pixels_and_names():
    torch.manual_seed(0)
    named = TokenizerWithCellHead(VQModel(VQ), things=3)
    covers = torch.randint(0, 4, (4, 2, 2))
    colours = torch.tensor([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)
    pixels = colours[covers].permute(0, 3, 1, 2).repeat_interleave(16, 2).repeat_interleave(16, 3)
    batch = {"pixels": pixels, "covers": covers}
    objective, care = TokenizerLoss(quantize_from=20), CodebookRevival(20, lambda i: batch, every=10)
    optimizer = torch.optim.AdamW(named.parameters(), 2e-3)
    first = None
    for step in range(80):
        generator = torch.Generator().manual_seed(step)
        loss, metrics = objective([named], batch, generator, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        care(named, batch, generator, step)
        first = first or metrics
    assert metrics["l1"] < 0.4 * first["l1"] and metrics["cell_accuracy"] > 0.9


def test_asked_scenes_are_fixed_and_in_their_split():
    for held_out in (False, True):
        asked = asked_scenes(6, held_out)
        assert asked == asked_scenes(6, held_out) and {k for k, *_ in asked} == set(KINDS)
        for kind, scene, _ in asked:
            if kind != "single" and scene.style != "sketch":
                assert is_held_out(scene) == held_out, (kind, scene)
            assert min(item.size for item in scene.items) >= 24


def test_frechet_distance_of_known_gaussians():
    mean, eye = torch.zeros(3), torch.eye(3)
    assert frechet((mean, eye), (mean, eye)) == pytest.approx(0, abs=1e-6)
    assert frechet((mean, eye), (mean + 2, eye)) == pytest.approx(12)
    assert frechet((mean, eye), (mean, 4 * eye)) == pytest.approx(3)  # 3 (1 - 2)^2
    assert moments(torch.randn(50, 3))[1].shape == (3, 3)


def test_the_bundled_tokenizers_own_shape_is_trained_and_in_any_number_of_processes(tmp_path):
    """Its decoder is wider than its encoder and paints twice the size; what DDP would wrap is called as one module."""
    recipe = scenes_tokenizer(steps=8, batch=2)
    player = recipe.modules[0]
    called = []
    player.module.register_forward_hook(lambda *_: called.append(1))
    for step in (0, 7):  # before there are codes, and with them
        loss, report = player.loss([player.module], recipe.batch_at(step), torch.Generator().manual_seed(step), step)
        loss.backward()
        assert torch.isfinite(loss) and report["l1"] > 0
    assert len(called) == 2
    assert all(p.grad is not None for p in player.module.model.decoder.upscaler.parameters())
    recipe.sample(player.module.eval(), tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 1000
