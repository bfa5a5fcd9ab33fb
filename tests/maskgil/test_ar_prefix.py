"""The AR model beside MaskGIL: it learns, it is exported with what it belongs to, and a picture that both
draw keeps the AR model's tokens to the bit, from none of them (MaskGIL alone) to all (the AR model alone)."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from app_fixtures import tiny_classes, tiny_latents, tiny_model
from commands import maskgil
from conftest import TINY, make_tiny
from PIL import Image
from safetensors.torch import save_file
from test_converters import full, gpt_file
from test_pipeline import Letters, Shades

import text_encoder
from app.cli import main as app
from maskgil import checkpoint
from maskgil.models.ar import ARSampler, ARTransformer
from maskgil.params import SAMPLERS, SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.sampling.ar_prefix import ARPrefix
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.loop import sample
from maskgil.sampling.plans import raster_plan
from maskgil.sampling.progress import SamplingProgress
from maskgil.sampling.token_grid import TokenGrid
from maskgil.tokenizers.vq import VQConfig, VQModel
from text_encoder import SmallT5Encoder, train_vocabulary
from train import export
from train.data.scene_cache import corpus
from train.losses.conditioned import Conditioned
from train.losses.next_token import NextTokenLoss
from train.recipes import scenes as recipes
from train.trainer import train

CAUSAL = replace(TINY, causal=True)


class Words(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(10, 12)

    def forward(self, ids, mask):
        return self.table(ids) * mask[..., None]


def test_the_ar_model_overfits_one_batch():
    model = Conditioned(ARTransformer(replace(CAUSAL, dim=64, ffn=128)), Words())
    ids = torch.tensor([[1, 2, 3], [4, 5, 0]])
    batch = {"tokens": torch.randint(0, 32, (2, 12)), "grid": (3, 4), "ids": ids, "mask": ids != 0,
             "numbers": torch.arange(2)}  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(120):
        part, metrics = NextTokenLoss(caption_dropout=0.0)([model], batch, torch.Generator(), step)
        loss = part.mean
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert step or loss.item() == pytest.approx(torch.tensor(32.0).log().item()), "at first every code is as likely"
    assert loss.item() < 0.1 and metrics["accuracy"] == 1


def test_dropped_captions_teach_the_null_caption():
    model = Conditioned(ARTransformer(CAUSAL), Words())
    torch.nn.init.normal_(model.generator.output.weight)
    ids = torch.tensor([[1, 2, 3], [4, 5, 0]])
    batch = {"tokens": torch.randint(0, 32, (2, 12)), "grid": (3, 4), "ids": ids, "mask": ids != 0,
             "numbers": torch.arange(2)}  # fmt: skip
    for share, learns in ((0.0, False), (1.0, True)):
        model.zero_grad()
        NextTokenLoss(share)([model], batch, torch.Generator(), 0)[0].mean.backward()
        assert bool(model.generator.cls_embedding.uncond_embedding.grad.any()) == learns
        assert bool(model.text_encoder.table.weight.grad.any()) != learns


def test_the_recipe_trains_the_ar_model_alone_and_exports_what_it_belongs_to(tmp_path: Path, monkeypatch):
    codes = VQModel(VQConfig(codebook_size=32, channels=(32,), res_blocks=1, z_channels=8, patch=4))
    checkpoint.save(tmp_path / "tokenizer", codes, "vq", codes.config.to_dict())
    tokenizer = checkpoint.fingerprint(checkpoint.load(tmp_path / "tokenizer", "vq").identity())
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "cache.json").write_text(json.dumps({"tokenizer": tokenizer, "corpus": corpus()}))
    tokens = torch.randint(0, 32, (16, 64)).to(torch.uint16)
    save_file({"tokens": tokens, "numbers": torch.arange(16)}, cache / "128x128-0000.safetensors")
    train_vocabulary(["two cats on the beach", "a red car at night"] * 20, tmp_path, 80)
    encoder = SmallT5Encoder.fresh(tmp_path, d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    encoder.save(tmp_path / "text_encoder")
    monkeypatch.setitem(recipes.PRESETS, "scenes", replace(TINY, text_length=120))
    folders = {"text_encoder": str(tmp_path / "text_encoder"), "tokenizer": str(tmp_path / "tokenizer")}
    recipe = recipes.scenes_ar(**folders, cache=str(cache), steps=3, batch=4)
    before = copy.deepcopy(recipe.modules[0].module.driven.text_encoder.state_dict())
    average = train(replace(recipe, workers=0), tmp_path / "run")
    for module in (average, recipe.modules[0].module):
        kept = module.driven.text_encoder.state_dict()
        assert all(torch.equal(before[n], t) for n, t in kept.items()), "frozen to the bit"
    notes = checkpoint.describe(tmp_path / "run" / "export")
    assert notes["kind"] == "autoregressive" and notes["tokenizer_hash"] == tokenizer
    kept = SmallT5Encoder.load(tmp_path / "text_encoder")
    assert notes["text_encoder_hash"] == checkpoint.fingerprint(kept.identity())
    assert checkpoint.load(tmp_path / "run" / "export").config == replace(TINY, text_length=120, causal=True)

    (cache / "cache.json").write_text(json.dumps({"tokenizer": "another", "corpus": corpus()}))
    with pytest.raises(ValueError, match="holds tokens of tokenizer another"):
        recipes.scenes_ar(**folders, cache=str(cache))


def test_an_ar_model_begins_as_a_generator(tmp_path: Path, monkeypatch):
    codes = VQModel(VQConfig(codebook_size=32, channels=(32,), res_blocks=1, z_channels=8, patch=4))
    checkpoint.save(tmp_path / "tokenizer", codes, "vq", codes.config.to_dict())
    made_by = checkpoint.fingerprint(codes.identity())
    (tmp_path / "cache.json").write_text(json.dumps({"tokenizer": made_by, "corpus": corpus()}))
    save_file({"tokens": torch.zeros(4, 64, dtype=torch.uint16), "numbers": torch.arange(4)},
              tmp_path / "128x128-0000.safetensors")  # fmt: skip
    train_vocabulary(["two cats on the beach", "a red car at night"] * 20, tmp_path, 80)
    sizes = {"d_model": 12, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "length": 200}
    SmallT5Encoder.fresh(tmp_path, **sizes).save(tmp_path / "text_encoder")
    generator = make_tiny()
    checkpoint.save(tmp_path / "generator", generator, "maskgil", generator.config.to_dict())
    monkeypatch.setitem(recipes.PRESETS, "scenes", generator.config)
    recipe = recipes.scenes_ar(str(tmp_path / "text_encoder"), str(tmp_path), str(tmp_path / "tokenizer"),
                               init=str(tmp_path))  # fmt: skip
    ar_model, kept = recipe.modules[0].module.driven.generator, checkpoint.load(tmp_path / "generator").state_dict()
    assert len(ar_model.tok_embeddings.weight) == 32 and len(kept["tok_embeddings.weight"]) == 33
    fitted = [name for name in kept if "fc1" in name or "uncond" in name]  # to its own encoder: all but the same
    for name, tensor in ar_model.state_dict().items():
        assert torch.allclose(tensor, kept[name][: len(tensor)], atol=0.1 if name in fitted else 0), name

    recipe.export(recipe.modules[0].module, tmp_path / "ar_model")  # and goes on, with pictures of its own
    folders = str(tmp_path / "text_encoder"), str(tmp_path), str(tmp_path / "tokenizer")
    on = recipes.scenes_ar(*folders, init=str(tmp_path), ar_model=str(tmp_path / "ar_model"))
    for name, tensor in on.modules[0].module.driven.generator.state_dict().items():
        assert torch.allclose(tensor, ar_model.state_dict()[name], atol=0.1 if name in fitted else 0), name
    assert on.batch_at.seed != recipe.batch_at.seed
    with pytest.raises(ValueError, match="needs --init, the model folder"):
        recipes.scenes_ar(*folders, ar_model=str(tmp_path / "ar_model"))


PLAIN = SamplingParams(steps=3, guidance_scale=3.0, guidance_interval=(0.1, 1.0), refinement_passes=0)
GUIDED = Guidance(2.0)


def begun_by_ar(tokens: int) -> SamplingParams:
    """PLAIN, with the first tokens by the autoregressive model."""
    return replace(PLAIN, mode="hybrid", ar_tokens=tokens, ar_guidance_scale=GUIDED.scale)


def make_ar_model(config=CAUSAL) -> ARTransformer:
    ar_model = ARTransformer(config).eval()
    for parameter in ar_model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return ar_model.requires_grad_(False)


@pytest.fixture
def draws() -> TextToImage:
    return TextToImage(make_tiny(), Letters(), Shades(), [(16, 16), (24, 16)], ar_model=make_ar_model())


def drawn(model: TextToImage, tokens: int | None, **arguments) -> list[SamplingProgress]:
    settings = PLAIN if tokens is None else begun_by_ar(tokens)
    return list(model.draw(["cat", "a dog"], [1, 2], (24, 16), settings, **arguments))


def test_no_prefix_is_maskgil_alone(draws):
    for one, other in zip(drawn(draws, None), drawn(draws, 0), strict=True):
        assert torch.equal(one.canvas.tokens, other.canvas.tokens) and one.nfe == other.nfe
    assert torch.equal(drawn(TextToImage(make_tiny(), Letters(), Shades(), [(24, 16)]), 0)[-1].canvas.tokens,
                       drawn(draws, None)[-1].canvas.tokens)  # fmt: skip


def test_a_prefix_of_everything_is_the_ar_model_alone(draws):
    *_, alone = sample(
        ARSampler(draws.ar_model, draws.condition(["cat", "a dog"])),
        draws.blank(2, (24, 16)),
        raster_plan(24, ARPrefix.temperature, guidance=GUIDED, seeds=[1, 2]),
    )
    told = drawn(draws, 24)
    assert len(told) == 24 and torch.equal(told[-1].canvas.tokens, alone.tokens) and not told[-1].canvas.mask.any()


@pytest.mark.parametrize("tokens", [1, 6, 23])
def test_the_prefix_stays_to_the_bit_and_the_rest_is_maskgils(draws, tokens):
    alone, told = drawn(draws, 24)[-1].canvas, drawn(draws, tokens)
    steps = min(PLAIN.steps, 24 - tokens)
    assert [(p.step, p.of) for p in told] == [(i + 1, tokens + steps) for i in range(tokens + steps)]
    for progress in told[tokens - 1 :]:
        assert torch.equal(progress.canvas.tokens[:, :tokens], alone.tokens[:, :tokens])
    last = told[-1].canvas
    assert not last.mask.any() and int(last.tokens.max()) < TINY.codebook_size
    assert last.unmasked_at[:, :tokens].tolist() == [list(range(tokens))] * 2
    assert (last.unmasked_at[:, tokens:] >= tokens).all(), "steps go on counting, so that no noise is drawn twice"


def test_a_revision_may_put_right_what_the_ar_model_wrote(draws):
    """But not what was given."""
    masked = torch.ones(1, 24, dtype=torch.bool)
    masked[0, [0, 9]] = False
    given = TokenGrid(torch.arange(24)[None] % 32, masked, (4, 6))
    settings = replace(begun_by_ar(10), refinement_passes=1, remask_fraction=1.0)
    *_, last = draws.draw(["cat", "a dog"], [1, 2], (24, 16), settings, canvas=given)
    revised = last.canvas.unmasked_at == last.of - 1
    assert revised.sum(1).tolist() == [12, 12] and revised[:, :12].any() and not revised[:, [0, 9]].any()
    assert torch.equal(last.canvas.tokens[:, [0, 9]], given.tokens[:, [0, 9]].expand(2, -1))


def test_evaluations_of_both_phases_are_counted(draws):
    assert [p.nfe for p in drawn(draws, 3)] == [2, 4, 6, 8, 10, 11]  # MaskGIL's last step lies outside the interval


def test_the_batch_does_not_matter(draws):
    both = drawn(draws, 10)[-1].canvas.tokens
    settings = begun_by_ar(10)
    *_, one = draws.draw(["a dog"], [2], (24, 16), settings)
    assert torch.equal(one.canvas.tokens[0], both[1])


def test_given_tokens_and_a_negative_text(draws):
    masked = torch.zeros(1, 24, dtype=torch.bool)
    masked[0, [3, 4, 9, 20, 21]] = True
    given = TokenGrid(torch.arange(24)[None] % 32, masked, (4, 6))
    for tokens, steps in ((2, 2 + 3), (24, 5)):
        told = drawn(draws, tokens, canvas=given, negative="sun")
        assert len(told) == steps and not told[-1].canvas.mask.any()
        assert torch.equal(told[-1].canvas.tokens[:, ~masked[0]], given.tokens[:, ~masked[0]].expand(2, -1))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"settings": SamplingParams(mode="hybrid", ar_tokens=25)}, "prefix of 25 tokens: the picture has 24"),
        ({"seeds": [1, -5]}, "seed -5"),
        (
            {"canvas": TokenGrid(torch.zeros(2, 24).long(), torch.eye(2, 24).bool(), (4, 6))},
            "same masked tokens together",
        ),
    ],
    ids=str,
)
def test_bad_input_is_one_line_before_anything_is_drawn(draws, change, message):
    arguments = {
        "prompts": ["a", "b"],
        "seeds": [1, 2],
        "size": (24, 16),
        "settings": SamplingParams(mode="hybrid", ar_tokens=3),
    }
    with pytest.raises(ValueError, match=message):
        draws.draw(**(arguments | change))


def test_parameters_say_what_the_prefix_is():
    assert ARPrefix.of(SamplingParams(), 64) is None
    guided = SAMPLERS["guided"]
    assert ARPrefix.of(replace(guided, mode="ar"), 64) == ARPrefix(64)
    for tokens in (32, None):
        assert ARPrefix.of(replace(guided, mode="hybrid", ar_tokens=tokens), 64) == ARPrefix(32)
    own = SamplingParams(mode="ar", ar_guidance_scale=3.0, ar_guidance_shape="ramp", ar_temperature=0.9, ar_top_k=5)
    assert ARPrefix.of(own, 64) == ARPrefix(64, Guidance(3.0, "ramp"), 0.9, 5)


def test_an_ar_model_is_found_beside_its_model_and_checked(tmp_path: Path):
    folder = tmp_path / "tiny"
    tokenizer = VQModel(VQConfig(codebook_size=32, channels=(32,), res_blocks=1, z_channels=8, patch=4)).eval()
    checkpoint.save(folder / "tokenizer", tokenizer, "vq", tokenizer.config.to_dict())
    train_vocabulary(["a red cat", "two dogs on the beach"] * 20, tmp_path, 60)
    sizes = {"d_model": 12, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "length": 8}
    encoder = SmallT5Encoder.fresh(tmp_path, **sizes)
    encoder.save(folder / "text_encoder")
    parts = {"tokenizer_hash": tokenizer, "text_encoder_hash": encoder}
    hashes = {name: checkpoint.fingerprint(part.identity()) for name, part in parts.items()}
    checkpoint.save(folder / "generator", make_tiny(), "maskgil", TINY.to_dict(), **hashes)
    (folder / "vocabulary.json").write_text(json.dumps({"sizes": [[16, 16]]}))
    draws = TextToImage.load(folder, text_encoder.load)
    assert not draws.has_ar_model
    with pytest.raises(ValueError, match="no AR model"):
        draws.draw(["cat"], [1], settings=SamplingParams(mode="hybrid", ar_tokens=4))

    ar_model = make_ar_model()
    checkpoint.save(tmp_path / "export", ar_model, ar_model.kind, CAUSAL.to_dict(), **hashes)
    export.export_ar(str(tmp_path / "export"), str(folder), str(tmp_path / "tiny-ar"))
    draws = TextToImage.load(folder, text_encoder.load)
    assert (
        draws.has_ar_model and len(draws.images(["cat"], [1], settings=SamplingParams(mode="hybrid", ar_tokens=4))) == 1
    )
    other = tmp_path / "other"
    checkpoint.save(other, ar_model, ar_model.kind, CAUSAL.to_dict(), **(hashes | {"tokenizer_hash": "000000000000"}))
    with pytest.raises(ValueError, match="another tokenizer than this model has"):
        _ = TextToImage.load(folder, text_encoder.load, ar_model=other).ar_model
    narrow = make_ar_model(replace(CAUSAL, codebook_size=16))
    checkpoint.save(other, narrow, narrow.kind, narrow.config.to_dict(), **hashes)
    with pytest.raises(ValueError, match="does not fit: codes 16, the generator's are 32"):
        _ = TextToImage.load(folder, text_encoder.load, ar_model=other).ar_model
    checkpoint.save(other, make_tiny(), "maskgil", TINY.to_dict(), **hashes)
    with pytest.raises(ValueError, match="kind 'maskgil', not an AR model"):
        export.export_ar(str(other), str(folder), str(tmp_path / "never"))
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("driven", ["text", "classes"])
def test_a_converted_gpt_is_taken_as_an_ar_model_on_ones_word(tmp_path: Path, capsys, monkeypatch, driven: str):
    """From a released file to a picture, by the commands that a person gives."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASKGIL_WEIGHTS", str(tmp_path))
    kind = {"text": (24, 16)} if driven == "text" else {"classes": 3}
    tiny_model(tmp_path / "model") if driven == "text" else tiny_classes(tmp_path / "model")
    codes = checkpoint.describe(tmp_path / "model" / "generator")["config"]["codebook_size"]
    torch.save({"model": full(gpt_file(64, 1, 256, codes=codes, **kind))}, "gpt.pt")
    maskgil("convert", "llamagen-gpt", "gpt.pt", "converted")
    told = ["export", "ar", "--ar-model=converted", "--model=model", "--out=model-ar"]
    with pytest.raises(ValueError, match="does not say which tokenizer it was trained with.* --adopt"):
        maskgil(*told)
    assert not Path("model-ar").exists()
    capsys.readouterr()
    maskgil(*told, "--adopt")
    warned = capsys.readouterr().err.splitlines()
    assert len(warned) == (2 if driven == "text" else 1) and all("on your word" in line for line in warned)
    assert checkpoint.describe("model-ar")["kind"] == "llamagen"
    assert "LlamaGen" in Path("model-ar/README.md").read_text(), "whose it is stays with it"
    what = ["a red cat"] if driven == "text" else ["--class", "1"]
    drawing = ["generate", *what, "--model", "model", "--steps", "2", "--seed", "3"]
    assert app([*drawing, "--mode", "hybrid", "--ar-tokens", "12", "--out", "both.png"]) == 0
    assert app([*drawing, "--out", "alone.png"]) == 0
    one, other = (Image.open(name).tobytes() for name in ("both.png", "alone.png"))
    assert len(one) == len(other) and one != other

    for change, message in (({"codes": codes // 2}, "codes 32"), ({"text": (9, 16)}, "texts of 9 tokens")):
        if driven == "text":
            torch.save({"model": full(gpt_file(64, 1, 256, **({"codes": codes} | kind | change)))}, "gpt.pt")
            maskgil("convert", "llamagen-gpt", "gpt.pt", "other")
            with pytest.raises(ValueError, match=f"does not fit: .*{message}"):
                maskgil("export", "ar", "--ar-model=other", "--model=model", "--out=never", "--adopt")
    checkpoint.save("claims", checkpoint.load("converted"), "llamagen", checkpoint.describe("converted")["config"],
                    tokenizer_hash="another")  # fmt: skip
    with pytest.raises(ValueError, match="trained with another tokenizer than this model has: fingerprint another"):
        maskgil("export", "ar", "--ar-model=claims", "--model=model", "--out=never", "--adopt")
    assert not Path("never").exists()


def test_a_model_of_vectors_has_no_ar_model(tmp_path: Path):
    with pytest.raises(ValueError, match="draws vectors, and an AR model writes codes"):
        model = tiny_latents(tmp_path / "latents")
        maskgil("export", "ar", f"--ar-model={tmp_path}", f"--model={model}", f"--out={tmp_path / 'x'}")
