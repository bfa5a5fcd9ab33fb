"""Files of exactly the released names and shapes: counted, compared and refused by their heads alone."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from released_folders import sparse_folder, write_sparse

from app.core import registry
from app.core.released_models import catalog_sizes
from maskgil.checkpoint import shapes
from maskgil.models.ar import ARTransformer
from maskgil.models.config import PRESETS
from maskgil.released import catalog, layout, loader
from maskgil.released.catalog import ReleasedModel
from maskgil.released.conversion import convert_llamagen
from maskgil.tokenizers.vq import VQ_PRESETS, VQModel

MASKED = [model for model in catalog.MODELS if not model.converted]


@pytest.fixture(scope="module", params=MASKED, ids=lambda model: model.name)
def released(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ReleasedModel, Path]:
    return request.param, sparse_folder(tmp_path_factory.mktemp("sparse") / "model", request.param.name)


def unread(files, dtype):
    """In the place of `read_tensors`: the tensors without their numbers."""
    return {name: torch.empty(shape, device="meta", dtype=dtype) for name, shape in loader.read_shapes(files).items()}


def test_the_catalog_counts_what_the_files_hold(released):
    """So that what fits is said rightly before a model is fetched."""
    model, folder = released
    found = registry.find_local(str(folder))
    assert found.parts_sizes == catalog_sizes(model) and found.sizes == (model.size,)


def test_all_tensors_have_their_place(released, monkeypatch):
    _, folder = released
    monkeypatch.setattr(loader, "read_tensors", unread)
    opened = layout.ReleasedFolder.open(folder)
    generator = loader.load_generator(opened, torch.bfloat16)
    assert next(generator.parameters()).dtype == torch.bfloat16
    assert sum(tensor.numel() for tensor in loader.load_vq(opened).state_dict().values()) == catalog.AMUSED_VQ


@pytest.mark.parametrize("part", ["transformer", "vqvae"])
@pytest.mark.parametrize("change", ["gone", "shape", "foreign"])
def test_other_shapes_are_refused_before_anything_is_read(released, tmp_path, monkeypatch, part, change):
    """Gigabytes that do not fit are not read first."""
    folder = Path(shutil.copytree(released[1], tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors")))
    for file in released[1].rglob("*.safetensors"):
        found = dict(loader.read_shapes([file]))
        if file.parent.name == part:
            name = next(name for name, shape in found.items() if len(shape) == 2)
            rows, columns = found.pop(name)
            changes = {"shape": {name: (rows + 1, columns)}, "foreign": {name: (rows, columns), "x": (1,)}}
            found |= changes.get(change, {})
        write_sparse(folder / file.relative_to(released[1]), found)
    monkeypatch.setattr(loader, "read_tensors", lambda *_: pytest.fail("the tensors were read"))
    opened = layout.ReleasedFolder.open(folder)
    with pytest.raises(ValueError, match=f"{part} does not fit the model"):
        loader.load_generator(opened) if part == "transformer" else loader.load_vq(opened)


@pytest.mark.slow
def test_llamagen_is_converted_at_its_released_shapes(tmp_path):
    """t2i_XL_stage1_256.pt and vq_ds16_t2i.pt with all their tensors, of which each holds one number many times."""
    folder = tmp_path / "model"
    (folder / "released").mkdir(parents=True)
    with torch.device("meta"):
        gpt = ARTransformer(replace(PRESETS["t2i-xl-llamagen"], causal=True), zero_prefix=True)
        vq = VQModel(VQ_PRESETS["llamagen-vq16"])
    for name, module in (("t2i_XL_stage1_256", gpt), ("vq_ds16_t2i", vq)):
        repeated = {key: torch.full((), 0.5).expand(shape) for key, shape in shapes(module).items()}
        torch.save({"model": repeated, "steps": 1}, folder / "released" / f"{name}.pt")
    convert_llamagen(folder, 256)
    model = catalog.released_model("LlamaGen/t2i-XL-256")
    sizes = registry.find_local(str(folder)).parts_sizes
    assert (sizes.generator, sizes.tokenizer) == (model.generator, model.tokenizer)
    assert json.loads((folder / "vocabulary.json").read_text())["sizes"] == [[256, 256]]
