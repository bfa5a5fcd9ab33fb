"""One command replaces the bundled scene models, or leaves all of them as they are."""

import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch
from app_fixtures import tiny_ar_model
from commands import maskgil

import text_encoder
from maskgil import checkpoint
from maskgil.models.config import ModelConfig
from maskgil.models.emigm import EMIGM, EMIGMConfig
from maskgil.models.maskgil import MaskGIL
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.tokenizers.vq import VQConfig, VQModel
from maskgil.tokenizers.vq_latents import VQLatentTokenizer
from text_encoder.small_t5 import SmallT5Encoder, train_vocabulary
from train import export as part_export
from train.bundled_export import check_scores
from train.scenes.captions import sentences, spoken_names, vocabulary
from train.scenes.judge import SceneJudge, SceneJudgeConfig, save_judge
from train.scenes.sprites import Sprites, sprite_file, things
from train.scenes.vocabulary_growth import grow_vocabulary
from train.stand_ins.families import family_lines
from train.stand_ins.stand_in_builder import read_senses
from train.stand_ins.word_vectors import SIZE

CODES = 32
SCORES = ["--old-things", "97.5", "95.5", "--held-out", "91.9", "92"]


def fingerprint(folder: Path) -> str:
    return checkpoint.fingerprint(text_encoder.load(folder).identity())


def save_generator(folder: Path, tokenizer: VQModel, encoder: SmallT5Encoder) -> None:
    config = ModelConfig(
        codebook_size=CODES, dim=32, layers=1, heads=2, ffn=64, text_dim=16, text_length=24, qk_norm="rms"
    )
    model = MaskGIL(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    made_of = {"tokenizer": tokenizer, "text_encoder": encoder}
    hashes = {f"{name}_hash": checkpoint.fingerprint(part.identity()) for name, part in made_of.items()}
    checkpoint.save(folder / "generator", model, "maskgil", config.to_dict(), **hashes)
    encoder.save(folder / "text_encoder")


def save_latents(folder: Path, run: Path, tokenizer: VQModel) -> None:
    """eMIGM over the vectors of the tokenizer, which borrows it and the text encoder of `scenes`."""
    config = EMIGMConfig(
        width=16, heads=2, depth=1, head_depth=1, head_width=16, channels=tokenizer.config.codebook_dim, grid=(2, 2),
        buffer=24, classes=None, text_dim=16, dropout=0.0,
    )  # fmt: skip
    hashes = {
        "tokenizer_hash": checkpoint.fingerprint(VQLatentTokenizer(tokenizer).identity()),
        "text_encoder_hash": fingerprint(folder / "scenes" / "text_encoder"),
    }
    checkpoint.save(run / "generator", EMIGM(config), "emigm", config.to_dict(), **hashes)
    given = ["--text-encoder", folder / "scenes" / "text_encoder", "--tokenizer", folder / "scenes" / "tokenizer"]
    maskgil("export", "emigm", *given, "--generator", run, "--borrow", "scenes", "--out", folder / "scenes-emigm")


def save_wordnet(folder: Path) -> None:
    """The files of a WordNet that has the meanings of all things and families, and a poodle, which is a dog."""
    keys = [key.rpartition(" ") for senses in read_senses().values() for key in senses if key]
    wanted = Counter({"dog": 1})
    for lemma, number in [(lemma, int(n)) for lemma, _, n in keys] + [(lemma, n) for lemma, n, _ in family_lines()]:
        wanted[lemma] = max(wanted[lemma], number)
    senses, lines = defaultdict(list), []
    for lemma, count in wanted.items():
        for _ in range(count):
            senses[lemma].append(len(lines) + 1)
            lines.append(f"{len(lines) + 1:08} 05 n 01 {lemma.replace(' ', '_')} 0 000 | x")
    senses["poodle"].append(len(lines) + 1)
    lines.append(f"{len(lines) + 1:08} 05 n 01 poodle 0 001 @ {senses['dog'][0]:08} n 0000 | x")
    folder.mkdir()
    (folder / "data.noun").write_text("\n".join(lines))
    index = [
        f"{lemma.replace(' ', '_')} n {len(offsets)} 0 {len(offsets)} 0 {' '.join(f'{o:08}' for o in offsets)}"
        for lemma, offsets in senses.items()
    ]
    (folder / "index.noun").write_text("\n".join(index))
    for name in ("index.verb", "index.adj", "index.adv", "cntlist.rev"):
        (folder / name).write_text("")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """weights/ with four tiny models, and runs/ with what is to replace them."""
    root = tmp_path_factory.mktemp("bundled")
    weights, runs = root / "weights", root / "runs"
    torch.manual_seed(0)
    tokenizer = VQModel(VQConfig(codebook_size=CODES, channels=(32,), res_blocks=1, z_channels=8, patch=16)).eval()
    checkpoint.save(weights / "scenes" / "tokenizer", tokenizer, "vq", tokenizer.config.to_dict())
    tokenizer = checkpoint.load(weights / "scenes" / "tokenizer", "vq")
    train_vocabulary(sentences(500, seed=1), root, 800)
    old = SmallT5Encoder.fresh(root, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, length=24).eval()
    save_generator(weights / "scenes", tokenizer, old)
    known = vocabulary() | {"objects": vocabulary()["objects"][:50]}
    (weights / "scenes" / "vocabulary.json").write_text(json.dumps(known))
    (weights / "scenes" / "README.md").write_text("# The card\n")
    tiny_ar_model(weights / "scenes")
    save_latents(weights, runs / "emigm", tokenizer)
    save_judge(SceneJudge(SceneJudgeConfig(widths=(16, 16, 16), blocks=1, things=50)), weights / "scenes-reader")

    old = SmallT5Encoder.load(weights / "scenes" / "text_encoder")
    grown = grow_vocabulary(old, ["zeppelin"], ["two cats on the beach"])
    save_generator(runs / "generator", tokenizer, grown)
    shutil.copytree(weights / "scenes" / "tokenizer", runs / "tokenizer")
    for name, count in (("reader", len(things())), ("narrow", 50)):
        judge = SceneJudge(SceneJudgeConfig(widths=(16, 16, 16), blocks=1, things=count))
        save_judge(judge, runs / name)
    save_generator(runs / "expert", tokenizer, grow_vocabulary(old, ["blimp"], ["two cats on the beach"]))
    other = SmallT5Encoder.fresh(root, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, length=24).eval()
    save_generator(runs / "unlike", tokenizer, other)
    (root / "sprites" / "3d").mkdir(parents=True)
    for thing in things():
        for number in range(thing.drawings):
            Sprites().original(thing, "flat", number).save(root / "sprites" / "3d" / sprite_file(thing, number))
    save_wordnet(root / "wordnet")
    vectors = {word: [float(i == place) for i in range(SIZE)] for place, word in enumerate(("dog", "poodle", "cat"))}
    (root / "vectors.json").write_text(json.dumps({"vectors": vectors}))
    signs = {"🐩": {"tts": ["poodle"], "default": ["dog"]}}
    (root / "annotations.json").write_text(json.dumps({"annotations": {"annotations": signs}}))
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "root")
    return tmp_path / "root"


def export(root: Path, *scores: str, **changes: str) -> None:
    given = {
        "tokenizer": "runs/tokenizer", "generator": "runs/generator", "reader": "runs/reader", "sprites": "sprites",
        "vectors": "vectors.json", "annotations": "annotations.json", "wordnet": "wordnet", "weights": "weights",
    } | changes  # fmt: skip
    options = [word for name, path in given.items() for word in (f"--{name}".replace("_", "-"), root / path)]
    maskgil("export", "bundled", *options, "--reference", 2, *(scores or SCORES))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_bundled_model_is_replaced_and_fits_the_others(root: Path):
    weights = root / "weights"
    before = contents(weights)
    export(root)
    after, encoder = contents(weights), fingerprint(weights / "scenes" / "text_encoder")
    assert encoder == fingerprint(root / "runs" / "generator" / "text_encoder")
    scenes = TextToImage.load(weights / "scenes", text_encoder.load)
    assert scenes.vocabulary == vocabulary() and after["scenes/README.md"] == before["scenes/README.md"]
    table = json.loads(after["scenes/stand_ins.json"])
    assert table["things"] == [thing.name for thing in things()] and table["nouns"]["poodle"][0] == "dog"
    assert table["emoji"] == {"🐩": "poodle"} and len(after["scenes/things.webp"]) > 1000
    assert checkpoint.load(weights / "scenes-reader", "reader").config.things == len(things())
    assert "scenes-reader/reference.safetensors" in after

    for name in ("scenes-ar", "scenes-emigm/generator"):
        assert after[f"{name}/model.safetensors"] == before[f"{name}/model.safetensors"]
        then, now = (json.loads(files[f"{name}/config.json"]) for files in (before, after))
        assert now == then | {"text_encoder_hash": encoder} and now != then
    hybrid = SamplingParams(steps=2, mode="hybrid", ar_tokens=4)
    assert scenes.images(["a cat"], [1], settings=hybrid)
    latents = TextToImage.load(weights / "scenes-emigm", text_encoder.load)
    assert latents.images(["a cat"], [1], settings=SamplingParams(steps=2))
    assert {path.name for path in weights.iterdir()} == {"scenes", "scenes-ar", "scenes-emigm", "scenes-reader"}


def test_an_ar_model_that_is_given_takes_the_place_of_the_bundled_one(root: Path):
    tiny_ar_model(root / "runs" / "generator")  # beside it, as generator-ar
    before = contents(root / "weights" / "scenes-ar")
    export(root, ar_model="runs/generator-ar")
    after = contents(root / "weights" / "scenes-ar")
    assert after["model.safetensors"] == before["model.safetensors"], "the same random numbers"
    assert (
        json.loads(after["config.json"])["text_encoder_hash"] != json.loads(before["config.json"])["text_encoder_hash"]
    )


def test_an_expert_is_put_beside_the_bundled_generator_and_leaves_with_the_next_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    """`--expert` with the bundled folder as the generator: texts without the last thing are drawn as before."""
    monkeypatch.setattr(part_export, "KNOWN_THINGS", len(things()) - 1)
    name = spoken_names(things()[-1])[0]
    weights, settings = root / "weights", SamplingParams(steps=2)
    export(root, generator="weights/scenes")  # the tokenizer of the run, the generator that is there
    *_, before = TextToImage.load(weights / "scenes", text_encoder.load).draw(["a cat"], [3], settings=settings)
    held = contents(weights)
    export(root, generator="weights/scenes", expert="runs/expert")
    after, encoder = contents(weights), fingerprint(root / "runs" / "expert" / "text_encoder")
    assert after["scenes/generator/model.safetensors"] == held["scenes/generator/model.safetensors"]
    run = checkpoint.load(root / "runs" / "expert" / "generator").state_dict()
    expert = checkpoint.load(weights / "scenes" / "experts" / "1").state_dict()
    assert all(torch.equal(expert[key], tensor) for key, tensor in run.items())
    for folder in ("scenes/generator", "scenes/experts/1", "scenes-ar", "scenes-emigm/generator"):
        assert json.loads(after[f"{folder}/config.json"])["text_encoder_hash"] == encoder
    draws = TextToImage.load(weights / "scenes", text_encoder.load)
    assert draws.condition(["a cat", f"a cat and a {name}"]).experts.tolist() == [0, 1]
    *_, drawn = draws.draw(["a cat"], [3], settings=settings)
    assert torch.equal(drawn.canvas.tokens, before.canvas.tokens)
    hybrid = SamplingParams(steps=2, mode="hybrid", ar_tokens=4)
    assert draws.images(["a cat"], [1], settings=hybrid)
    with pytest.raises(ValueError, match="the autoregressive model has not learned"):
        draws.images([f"a {name}"], [1], settings=hybrid)

    export(root, generator="runs/expert")  # one generator for all things takes the place of both
    assert not (weights / "scenes" / "experts").exists()
    assert TextToImage.load(weights / "scenes", text_encoder.load).images([f"a {name}"], [1], settings=settings)


@pytest.mark.parametrize("generator", ["weights/scenes", "runs/generator"])
@pytest.mark.parametrize("expert", ["runs/unlike", "weights/scenes"])
def test_an_expert_is_refused_that_reads_other_words_or_where_there_is_no_new_thing(
    root: Path, monkeypatch: pytest.MonkeyPatch, generator: str, expert: str
):
    fits = generator == expert
    monkeypatch.setattr(part_export, "KNOWN_THINGS", len(things()) - (not fits))
    before = contents(root / "weights")
    message = "an expert would draw nothing" if fits else "runs/unlike.* is not the generator's|scenes.* is not the gen"
    with pytest.raises(ValueError, match=message):
        export(root, generator=generator, expert=expert)
    assert contents(root / "weights") == before


@pytest.mark.parametrize(
    ("scores", "changes", "message"),
    [
        (["--old-things", "97.5", "95.4", "--held-out", "91.9", "92"], {}, r"score 95.4 where .* 97.5 \(training\)"),
        (["--old-things", "97.5", "97.5", "--held-out", "91.9", "80"], {}, r"score 80 where .* 91.9 \(held out\)"),
        (SCORES, {"reader": "runs/narrow"}, "judges 50 things, the corpus has .* set CORPUS_THINGS"),
        (SCORES, {"generator": "runs/unlike"}, "is not the bundled one with more words"),
        (SCORES, {"ar_model": "weights/scenes-ar"}, "trained with another text encoder"),
        (SCORES, {"wordnet": "sprites"}, "holds no WordNet"),  # after the models are made
        (SCORES, {"sprites": "wordnet"}, "holds no sprites"),  # at the very end
    ],
)
def test_after_a_refusal_everything_is_as_it_was(root: Path, scores: list[str], changes: dict, message: str):
    before = contents(root / "weights")
    with pytest.raises(ValueError, match=message):
        export(root, *scores, **changes)
    assert contents(root / "weights") == before
    assert not [path for path in (root / "weights").iterdir() if path.name.startswith(".")]


def test_a_model_that_lies_beside_others_by_mistake_is_named(root: Path):
    path = root / "weights" / "scenes-ar" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"text_encoder_hash": "another"}))
    with pytest.raises(ValueError, match="scenes-ar was trained with the text encoder another, the bundled one is"):
        export(root)


def test_two_points_may_be_lost_and_no_more():
    check_scores({"training": (97.5, 95.5), "held out": (91.9, 99.0)})
    with pytest.raises(ValueError, match="at most 2 points may be lost: train on"):
        check_scores({"training": (97.5, 95.49)})
    with pytest.raises(ValueError, match="give percent, 0 to 100"):
        check_scores({"training": (0.975, 975.0)})
