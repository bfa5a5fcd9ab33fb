"""Class-driven models draw through the same pipeline: numbers and names are prompts; the released sampler."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY, make_tiny
from test_pipeline import Shades

import text_encoder
from maskgil import checkpoint
from maskgil.class_labels import ClassLabels
from maskgil.condition import Condition
from maskgil.models.ar import ARTransformer
from maskgil.models.config import PRESETS
from maskgil.params import SAMPLERS, SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.sampling.code_sampler import CodeSampler
from maskgil.tokenizers.vq import VQConfig, VQModel

CLASSES = replace(TINY, text_dim=None, classes=7, qk_norm="none")
NAMES = [
    "tench, Tinca tinca",
    "goldfish",
    "crane",
    "golden retriever",
    "crane",
    "tabby, tabby cat",
    "great_white shark",
]


@pytest.fixture
def draws() -> TextToImage:
    names = ClassLabels(7, [[name] for name in ("a", "b", "c", "d", "e", "f", "g")])
    return TextToImage(make_tiny(CLASSES), names, Shades(), [(16, 16)])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classes") / "tiny"
    tokenizer = VQModel(VQConfig(codebook_size=32, channels=(32,), res_blocks=1, z_channels=8, patch=4)).eval()
    checkpoint.save(folder / "tokenizer", tokenizer, "vq", tokenizer.config.to_dict())
    made_by = checkpoint.fingerprint(tokenizer.identity())
    checkpoint.save(folder / "generator", make_tiny(CLASSES), "maskgil", CLASSES.to_dict(), tokenizer_hash=made_by)
    (folder / "vocabulary.json").write_text(json.dumps({"sizes": [[16, 16]]}))
    (folder / "class_names.json").write_text(json.dumps(NAMES))
    return folder


def test_a_folder_draws_a_class_by_number_and_by_name(saved):
    draws = TextToImage.load(saved, text_encoder.load)
    by_number, by_name, other = draws.images(["3", "Golden  Retriever", "5"], [1, 1, 1])
    assert by_number.tobytes() == by_name.tobytes() != other.tobytes()
    assert [draws.text_encoder.number(name) for name in ("tabby cat", "Great white_shark", "tinca TINCA")] == [5, 6, 0]


def test_folders_with_numbers_for_names_are_meant_by_their_names():
    """Sorted as words, 10 comes before 2; where names are words, a number is a number."""
    folders = sorted(str(number) for number in range(12))
    names = ClassLabels(12, [[name] for name in folders])
    assert [names.number(name) for name in folders] == list(range(12)) and names.number("2") == 4
    assert ClassLabels(12, [[f"n{i}"] for i in range(12)]).number("2") == 2


def test_the_label_reaches_the_model(draws):
    settings = SamplingParams(steps=1, temperature=0.0, guidance_scale=1.0, refinement_passes=0)
    *_, last = draws.draw(["6"], [4], settings=settings)
    logits = draws.generator(draws.blank(1).tokens, (4, 4), Condition.classes(torch.tensor([6])))
    assert torch.equal(last.canvas.tokens, logits.argmax(-1))


def test_the_released_sampler_is_what_the_released_code_does(draws):
    """8 steps of round(v / sum(v) 256) with v = arccos(r) / (pi / 2); w = 3 i / (T - 1), so that scale is 1 + w; noise
    4.5 (1 - i / (T - 1)). The first step has w = 0 and costs one evaluation."""
    released = SAMPLERS["reference"]
    canvas = replace_canvas(draws, 256)
    plan = draws.plan(canvas, [0], released)
    assert [int(step.num_unmask) for step in plan] == [1, 18, 26, 32, 38, 43, 48, 50]
    assert [float(step.scale) for step in plan] == pytest.approx([1 + 3 * i / 7 for i in range(8)])
    assert [float(step.choice_temperature) for step in plan] == pytest.approx([4.5 * (1 - i / 7) for i in range(8)])
    assert [len(step.guided) for step in plan] == [0] + [1] * 7
    *_, last = draws.draw(["2"], [1], settings=released)
    assert last.nfe == 15 and not last.canvas.mask.any()


def replace_canvas(draws: TextToImage, tokens: int):
    side = int(tokens**0.5)
    return type(draws.blank(1)).blank(1, (side, side), CLASSES.mask_id)


def test_a_class_can_be_led_away_from_and_an_ar_model_can_begin(draws):
    ar_model = ARTransformer(replace(CLASSES, causal=True)).eval()
    torch.nn.init.normal_(ar_model.output.weight)
    both = TextToImage(draws.generator, draws.text_encoder, draws.tokenizer, draws.sizes, ar_model=ar_model)
    *_, plain = both.draw(["2"], [1])
    *_, away = both.draw(["2"], [1], negative="3")
    *_, mixed = both.draw(["2"], [1], settings=SamplingParams(mode="hybrid", ar_tokens=8))
    assert not torch.allclose(plain.canvas.confidence, away.canvas.confidence) and not mixed.canvas.mask.any()
    assert isinstance(both.sampler(both.condition(["2"])), CodeSampler)


@pytest.mark.parametrize("name", ["b", "l", "xl", "xxl"])
def test_every_imagenet_preset_takes_every_class(name):
    names = ClassLabels(PRESETS[name].classes)
    assert names.encode(["0", "207", "999"]).states[:, 0, 0].tolist() == [0, 207, 999]


@pytest.mark.parametrize(
    "asked, message",
    [
        ("7", "class 7: this model has classes 0 to 6"),
        ("crane", "name of classes 2, 4: give the number"),
        ("golden retreiver", "did you mean golden retriever"),
        ("-1", "no class is called '-1'"),
    ],
)
def test_a_wrong_class_is_one_line(saved, asked, message):
    with pytest.raises(ValueError, match=message):
        TextToImage.load(saved, text_encoder.load).draw([asked], [1])


def test_names_come_as_a_list_or_by_number_or_not_at_all(tmp_path):
    assert ClassLabels.open(tmp_path, 2).number(" 1 ") == 1
    with pytest.raises(ValueError, match="it has no class_names.json"):
        ClassLabels.open(tmp_path, 2).number("cat")
    path = tmp_path / "class_names.json"
    path.write_text('{"0": ["n01", "cat"], "1": ["n02", "dog"]}')
    assert ClassLabels.open(tmp_path, 2).number("dog") == 1
    with pytest.raises(ValueError, match="2 class names for a model of 3 classes"):
        ClassLabels.open(tmp_path, 3)
    for broken in ("{", '{"1": "cat"}', "3"):
        path.write_text(broken)
        with pytest.raises(ValueError, match="no list of class names"):
            ClassLabels.open(tmp_path, 1)
