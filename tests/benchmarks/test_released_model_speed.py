"""`maskgil bench released` on tiny parts of every family."""

from dataclasses import replace

import pytest
import torch
from commands import maskgil
from released_folders import TINY_LLAMAGEN, TINY_LLAMAGEN_VQ, TINY_MEISSONIC, TINY_TRANSFORMER

from benchmarks import released_model_speed
from benchmarks.generation import Machine, RandomText, operations_of, weight_bytes
from benchmarks.released_model_speed import HEAD, ReleasedParts, RepeatedNumbers, guided_step, released_times
from maskgil.models.amused import Amused, AmusedConfig
from maskgil.models.ar import ARTransformer
from maskgil.models.meissonic import Meissonic, MeissonicConfig
from maskgil.released import catalog
from maskgil.tokenizers.vq import VQModel


@pytest.mark.parametrize("name", [model.name for model in catalog.MODELS])
def test_an_image_of_a_released_model_is_the_sum_of_its_parts(name, monkeypatch):
    """On tiny parts of each family; the floor is the longer of reading the weights and multiplying."""
    model, parts = catalog.released_model(name), tiny_released_parts(name)
    found = released_times(replace(model, size=(64, 64), steps=5), parts, torch.device("cpu"), torch.float32, 2)
    parts_of_it = found.encode.seconds + found.first.seconds + 4 * found.step + found.decode.seconds
    assert found.image == pytest.approx(parts_of_it) and found.operations > 0 and found.first.runs == 2
    assert found.read == weight_bytes(parts.generator)
    machine = Machine("one", bandwidth=found.read, rate=found.operations / 3)
    assert found.floor(machine) == 3 and found.row(machine).count("|") == HEAD.count("|")


def test_released_models_are_measured_in_a_table(monkeypatch, capsys):
    monkeypatch.setattr(released_model_speed, "released_parts", lambda model: tiny_released_parts(model.name))
    monkeypatch.setattr(released_model_speed, "measure_machine", lambda *_: Machine("this one", 1e9, 1e10))
    maskgil("bench", "released", "--models", "amused/amused-256", "--repeats", "1", "--precision", "bf16")
    machine, measured, _, head, line, row = capsys.readouterr().out.splitlines()
    assert machine.startswith("this one; torch") and "bf16" in machine and "GB/s" in measured
    assert row.startswith("| `amused/amused-256` |") and row.count("|") == head.count("|") == line.count("|")
    for words, message in (
        ("--models=amused/amused256", "did you mean amused/amused-256"),
        ("--repeats=0", "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            maskgil("bench", "released", words)


def tiny_released_parts(name: str) -> ReleasedParts:
    """Parts of the family of this model that take no time."""
    if "LlamaGen" in name:
        generator = ARTransformer(TINY_LLAMAGEN, zero_prefix=True)
        text = RandomText(8, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=20)
        return ReleasedParts(generator, text, VQModel(TINY_LLAMAGEN_VQ))
    halves = name in ("amused/amused-512", "MeissonFlow/Meissonic")
    if "amused" in name:
        config = AmusedConfig.from_released(TINY_TRANSFORMER | {"downsample": halves, "upsample": halves}, 16)
        generator = Amused(config)
    else:
        config = MeissonicConfig.from_released(TINY_MEISSONIC | {"downsample": halves, "upsample": halves}, 16)
        generator = Meissonic(config)
    text = RandomText(8, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=20)
    return ReleasedParts(generator, text, VQModel(TINY_LLAMAGEN_VQ))


@pytest.mark.parametrize("name", [model.name for model in catalog.MODELS if not model.converted])
def test_operations_are_counted_as_they_are_done(name):
    """On the meta device nothing is computed, and as much is counted."""
    model, generator = catalog.released_model(name), tiny_released_parts(name).generator.eval()
    with torch.device("meta"):
        like = type(generator)(generator.config).eval()
    with torch.no_grad():
        counted, done = (
            operations_of(guided_step(each, model, (8, 8), torch.device(where)))
            for each, where in ((like, "meta"), (generator, "cpu"))
        )
    assert counted == pytest.approx(done, rel=1e-3) and done > 0


def test_repeated_numbers_fill_what_is_initialized():
    """A model is made in seconds, and its weights are none that would draw the same everywhere."""
    with RepeatedNumbers():
        layer = torch.nn.Linear(2048, 1025)
        other = torch.nn.init.normal_(torch.empty(3, 5))
    assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.05) and other.unique().numel() == 15
    assert torch.equal(layer.weight.flatten()[: 2**10], layer.weight.flatten()[2**20 : 2**20 + 2**10])
