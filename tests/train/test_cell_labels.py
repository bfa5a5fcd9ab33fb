"""A cell classifier: silent until a decoder hears it, it learns what cells show from tokens alone, and painting leaves
it be."""

from dataclasses import replace

import pytest
import torch

from maskgil import checkpoint
from maskgil.tokenizers.vq import VQConfig, VQModel
from train.data.cache_files import write_note
from train.data.scene_cache import corpus, write_scenes
from train.data.scene_datasets import SceneCells
from train.data.token_cache import NOTE
from train.losses.cell_labels import CellClassifier, CellClassifierLoss
from train.losses.token_targets import neighbor_targets
from train.recipes.scenes_tokenizers import CORRECTED, scenes_cell_classifier, scenes_decoder
from train.scenes.labels import CELLS, cells, kinds
from train.scenes.scene import Item, Scene
from train.scenes.sprites import Sprites, things

PLAIN = VQConfig(codebook_size=64, codebook_dim=4, channels=(32,), res_blocks=1, z_channels=32, patch=16)
NAMED = replace(PLAIN, naming_channels=32, naming_blocks=1, recall=64)


def saved(model: VQModel, folder, **note) -> VQModel:
    """The model as its file has it, beside the note of a cache that it made."""
    checkpoint.save(folder, model, "vq", model.config.to_dict())
    model = checkpoint.load(folder, "vq").eval()
    write_note(folder / NOTE, {"corpus": corpus(), "tokenizer": checkpoint.fingerprint(model.identity())} | note)
    return model


def test_a_new_one_is_not_heard(tmp_path):
    """The recipe puts it into a tokenizer that lacks one: same tokens, same pictures; the next run goes on with it."""
    torch.manual_seed(0)
    plain, tokens = saved(VQModel(PLAIN), tmp_path), torch.randint(64, (2, 6))
    recipe = scenes_cell_classifier(str(tmp_path), str(tmp_path), steps=10)
    namer = recipe.modules[0].module
    torch.nn.init.normal_(namer.naming.conv_in.weight)
    recipe.export(namer, tmp_path / "named")
    named = checkpoint.load(tmp_path / "named", "vq").eval()
    assert named.identity().keys() == plain.identity().keys() and named.config.naming_channels
    assert torch.allclose(named.decode(tokens, (2, 3)), plain.decode(tokens, (2, 3)), atol=1e-5)
    again = scenes_cell_classifier(str(tmp_path / "named"), str(tmp_path)).modules[0].module
    assert all(torch.equal(t, again.naming.state_dict()[name]) for name, t in named.naming.state_dict().items())
    with pytest.raises(ValueError, match="holds tokens of tokenizer"):
        saved(VQModel(PLAIN), tmp_path / "other")
        scenes_cell_classifier(str(tmp_path / "other"), str(tmp_path))


def test_it_learns_to_tell_what_tokens_show():
    torch.manual_seed(0)
    model = VQModel(NAMED)
    scenes = [Scene(128, 128, (Item(things()[i], 16 * i, 32, 64, colour="blue" if i % 2 else ""),), "beach")
              for i in range(4)]  # fmt: skip
    batch = {"tokens": torch.randint(64, (4, 64)), "grid": (8, 8)} | cells(scenes)
    namer = CellClassifier(model, kinds())
    loss = CellClassifierLoss(CELLS, neighbor_targets(model.quantize.codebook().detach(), 4), corruption=0.0)
    optimizer = torch.optim.AdamW(namer.parameters(), 5e-3)
    for step in range(60):
        value, report = loss([namer], batch, torch.Generator().manual_seed(step), step)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert set(report) == {"loss", *CELLS} and min(report[kind] for kind in CELLS) > 0.95
    assert not any(p.grad is not None for p in model.decoder.parameters())


@pytest.mark.journey
def test_batches_say_what_cached_cells_show(tmp_path):
    model = VQModel(PLAIN)
    write_scenes(model, Sprites(), tmp_path, 1024, checkpoint.fingerprint(model.identity()))
    batch, again = (SceneCells(str(tmp_path), 8)(3) for _ in range(2))
    assert set(batch) == {"tokens", "grid", *CELLS} and len(CELLS) == len(kinds())
    assert all(torch.equal(batch[kind], again[kind]) for kind in ("tokens", *CELLS))
    rows, columns = batch["grid"]
    assert all(batch[kind].shape == (8, rows * columns) for kind in ("tokens", *CELLS))
    assert all(int(batch[kind].max()) < answers for kind, answers in zip(CELLS, kinds(), strict=True))


def test_a_decoder_listens_and_leaves_it_as_it_is(tmp_path):
    torch.manual_seed(0)
    corrected = {part: 32 if "channels" in part else 1 for part in CORRECTED}
    model = saved(VQModel(replace(NAMED, **corrected)), tmp_path)
    recipe = scenes_decoder(str(tmp_path), str(tmp_path), str(tmp_path))
    decoder_only, tokens = recipe.modules[0].module, torch.randint(64, (2, 4))
    decoder_only(tokens, (2, 2)).square().mean().backward()
    assert all(p.grad is None for p in decoder_only.naming.parameters())
    assert decoder_only.decoder.hear.weight.grad.abs().max() > 0
    assert decoder_only.decoder.recall.value.weight.grad.abs().max() > 0
    for part in (decoder_only.decoder.hear, decoder_only.decoder.recall.value):
        torch.nn.init.normal_(part.weight, std=0.1)
    recipe.export(decoder_only, tmp_path / "export")
    heard = checkpoint.load(tmp_path / "export", "vq").eval()
    assert not torch.allclose(heard.decode(tokens, (2, 2)), model.decode(tokens, (2, 2)), atol=0.01)
    assert (
        all(torch.equal(heard.cell_branch_state()[name], tensor) for name, tensor in model.cell_branch_state().items())
        and model.cell_branch_state()
    )
    with torch.no_grad():
        shown = decoder_only(tokens, (2, 2)).clamp(-1, 1)
    assert torch.allclose(heard.decode(tokens, (2, 2)), shown, atol=0.05), "half precision in the file, no more"


def test_a_coarse_decoder_paints_at_the_encoder_s_size_and_leaves_what_corrects_it(tmp_path):
    torch.manual_seed(0)
    corrected = {part: 32 if "channels" in part else 1 for part in CORRECTED}
    model = saved(VQModel(replace(NAMED, **corrected)), tmp_path)
    recipe = scenes_decoder(str(tmp_path), str(tmp_path), str(tmp_path), coarse=True)
    decoder_only = recipe.modules[0].module
    pixels = decoder_only(torch.randint(64, (2, 4)), (2, 2))
    assert pixels.shape == (2, 3, 32, 32) and recipe.batch_at.scale == 1 and model.config.downsample == 32
    pixels.square().mean().backward()
    assert decoder_only.decoder.conv_out.weight.grad.abs().max() > 0
    for part in (decoder_only.decoder.refiner, decoder_only.decoder.upscaler):
        assert not any(p.requires_grad for p in part.parameters())
    with pytest.raises(ValueError, match="leave one out"):
        scenes_decoder(str(tmp_path), str(tmp_path), str(tmp_path), coarse=True, adversarial_from=0)


def test_a_recall_adds_whole_cells():
    with pytest.raises(ValueError, match="give the decoder one level"):
        replace(PLAIN, channels=(32, 32), patch=8, recall=64)
