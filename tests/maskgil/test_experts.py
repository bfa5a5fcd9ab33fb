"""Experts: each text is drawn exactly as its own generator alone draws it, in every mode, whatever is beside it."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from app_fixtures import tiny_ar_model, tiny_model
from conftest import TINY, make_condition, make_tiny
from test_lora_adapters import trained
from test_pipeline import SIZES, Letters, Shades

import text_encoder
from maskgil import checkpoint
from maskgil.condition import Condition
from maskgil.experts import ExpertGenerator, ExpertRouter
from maskgil.lora_adapters import AdaptedGenerator, load_adapter
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.sampling import remasking
from maskgil.sampling.token_grid import TokenGrid

EXPERTS = [{"names": ["truck", "trucks", "cloud", "clouds"], "except": ["fire truck", "above the clouds"]}]
KNOWN, NEW = "a cat", "a truck"


@pytest.fixture
def generators():
    return make_tiny(seed=1), make_tiny(seed=2)


def pipeline(generator, experts=()) -> TextToImage:
    return TextToImage(generator, Letters(), Shades(), SIZES, {"experts": experts})


@pytest.mark.parametrize(
    ("text", "expert"),
    [
        ("a cat", 0), ("a truck", 1), ("Two TRUCKS and a cat", 1), ("a fire truck", 0), ("a truck and a fire truck", 1),
        ("a cat above the clouds", 0), ("three clouds", 1), ("a truckload", 0), ("", 0),
    ],
)  # fmt: skip
def test_a_text_goes_to_the_expert_whose_name_it_has(text, expert):
    routed = ExpertRouter(EXPERTS).route([text])
    assert routed is not None and routed.tolist() == [expert]


def test_a_model_without_experts_routes_nothing():
    assert ExpertRouter(()).route([NEW]) is None
    assert pipeline(make_tiny()).condition([NEW]).expert is None


@pytest.mark.parametrize("entries", [3, ["truck"], [{"except": []}], [{"names": [3]}]])
def test_entries_of_another_form_are_named(entries):
    with pytest.raises(ValueError, match="no list of experts"):
        ExpertRouter(entries)


def test_each_row_has_the_logits_of_its_generator(generators):
    condition = make_condition((3, 5, 2, 8))
    tokens = torch.randint(0, TINY.codebook_size + 1, (4, 6))
    drop = torch.tensor([False, True, False, True])
    mixed = ExpertGenerator(generators)(tokens, (2, 3), condition.drawn_by(torch.tensor([0, 1, 1, 0])), drop)
    for row, number in enumerate((0, 1, 1, 0)):
        one = slice(row, row + 1)
        alone = generators[number](tokens[one], (2, 3), condition.rows(one).trim(), drop[one])
        torch.testing.assert_close(mixed[one], alone, atol=1e-4, rtol=1e-4)
    assert torch.equal(
        ExpertGenerator(generators)(tokens, (2, 3), condition), generators[0](tokens, (2, 3), condition)
    ), "a condition that names no expert is of the first generator"


def test_experts_are_of_one_configuration(generators):
    with pytest.raises(ValueError, match="one configuration"):
        ExpertGenerator([generators[0], make_tiny(replace(TINY, layers=1))])
    with pytest.raises(ValueError, match="two or more"):
        ExpertGenerator(generators[:1])


@pytest.mark.parametrize("negative", ["", "a dog"])
def test_a_picture_is_that_of_its_generator_alone(generators, negative):
    both = pipeline(ExpertGenerator(generators), EXPERTS)
    settings = SamplingParams(
        steps=4, guidance_scale=3.0, guidance_interval=(0.0, 1.0), refinement_passes=1, candidates=2
    )
    mixed = both.images([KNOWN, NEW, KNOWN], [5, 6, 7], settings=settings, negative=negative)
    for image, text, seed, generator in zip(
        mixed, (KNOWN, NEW, KNOWN), (5, 6, 7), (generators[0], generators[1], generators[0]), strict=True
    ):
        (alone,) = pipeline(generator).images([text], [seed], settings=settings, negative=negative)
        assert image.tobytes() == alone.tobytes()


@pytest.mark.parametrize(("old", "new", "number"), [(KNOWN, "a kitten", 0), (KNOWN, NEW, 1), (NEW, KNOWN, 1)])
def test_changed_words_are_judged_by_one_generator(generators, old, new, number):
    both = pipeline(ExpertGenerator(generators), EXPERTS)
    grid = TokenGrid(torch.randint(0, TINY.codebook_size, (1, 16)), torch.zeros(1, 16, dtype=torch.bool), (4, 4))
    found = remasking.remask_changed(both.generator, grid, both.condition([old]), both.condition([new]), [3])
    alone = pipeline(generators[number])
    wanted = remasking.remask_changed(alone.generator, grid, alone.condition([old]), alone.condition([new]), [3])
    torch.testing.assert_close(found.change, wanted.change, atol=1e-4, rtol=1e-4)


def test_conditions_keep_their_experts():
    condition = make_condition((2, 4)).drawn_by(torch.tensor([0, 1]))
    for moved in (condition.pad(8), condition.trim(), condition.to("cpu", torch.bfloat16)):
        assert moved.expert is not None and moved.expert.tolist() == [0, 1]
    assert condition.repeat(2).experts.tolist() == [0, 0, 1, 1]
    assert condition.rows(torch.tensor([True, False])).experts.tolist() == [0]
    both = Condition.cat([make_condition((3,)), condition])
    assert both.experts.tolist() == [0, 0, 1]


def test_adapters_change_every_expert(tmp_path):
    _, folder = trained(tmp_path / "adapter")
    base, other = make_tiny(), make_tiny(seed=9)
    experts = ExpertGenerator([base, other])
    adapter = load_adapter(folder, experts)
    condition = make_condition((3, 3)).drawn_by(torch.tensor([0, 1]))
    tokens = torch.full((2, 6), base.config.mask_id)
    changed = AdaptedGenerator(experts, [(adapter, 1.0)])(tokens, (2, 3), condition)
    for row, generator in enumerate((base, other)):
        one = slice(row, row + 1)
        alone = AdaptedGenerator(generator, [(adapter, 1.0)])(tokens[one], (2, 3), condition.rows(one).drawn_by(None))
        torch.testing.assert_close(changed[one], alone, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(alone, generator(tokens[one], (2, 3), condition.rows(one).drawn_by(None)), atol=1e-3)


def test_a_folder_opens_with_its_expert(tmp_path):
    folder = tiny_model(tmp_path / "model")
    about = checkpoint.describe(folder / "generator")
    first = checkpoint.load(folder / "generator", "maskgil")
    expert = make_tiny(first.config, seed=4)
    notes = {key: about[key] for key in ("tokenizer_hash", "text_encoder_hash")}
    checkpoint.save(folder / "experts" / "1", expert, "maskgil", expert.config.to_dict(), dtype=torch.float32, **notes)
    words = json.loads((folder / "vocabulary.json").read_text())
    (folder / "vocabulary.json").write_text(json.dumps(words | {"experts": [{"names": ["dog"]}]}))
    opened = TextToImage.load(folder, text_encoder.load)
    assert opened.condition(["a cat", "a dog"]).experts.tolist() == [0, 1]
    cat, dog = opened.images(["a cat", "a dog"], [1, 1])
    assert cat.tobytes() != dog.tobytes()
    tiny_ar_model(folder)
    hybrid = SamplingParams(steps=3, mode="hybrid", ar_tokens=4)
    opened = TextToImage.load(folder, text_encoder.load)
    (together,) = opened.images(["a cat"], [1], settings=hybrid)
    with pytest.raises(ValueError, match="has not learned all things of this prompt: draw it in mode masked"):
        opened.images(["a dog"], [1], settings=hybrid)
    shutil.copytree(folder, tmp_path / "alone", ignore=shutil.ignore_patterns("experts"))
    (tmp_path / "alone" / "vocabulary.json").write_text(json.dumps(words))
    tiny_ar_model(tmp_path / "alone")
    (cat,) = TextToImage.load(tmp_path / "alone", text_encoder.load).images(["a cat"], [1], settings=hybrid)
    assert together.tobytes() == cat.tobytes()
    other = notes | {"text_encoder_hash": "0" * 12}
    checkpoint.save(folder / "experts" / "1", expert, "maskgil", expert.config.to_dict(), **other)
    with pytest.raises(ValueError, match="experts/1 was trained with another text encoder than .*generator"):
        TextToImage.load(folder, text_encoder.load)
