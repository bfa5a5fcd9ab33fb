"""The stages of the open world, on stand-in drawings and a few steps."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from world.stand_ins import write_stand_ins

import text_encoder
from maskgil import checkpoint
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.tokenizers.vq import VQConfig, VQModel
from text_encoder.small_t5 import SmallT5Encoder, train_vocabulary
from train.losses.codebook import CodebookRevival
from train.losses.label_probe import LabelProbe, label_probe_loss
from train.world.answers import CELL_ANSWERS, answer_counts, cell_answers, fact_count
from train.world.arrangement import SIDES
from train.world.code_stage import CODES, CodeLoss, CodesInTraining, begin_as
from train.world.drawing_stages import DECODER, GENERATOR
from train.world.reading_stage import LENGTH, CaptionBatches, world_label_kinds, world_sentences
from train.world.world_cache import CachedScenes, DecoderPictures, TokenBatches, encode, numbered_scene, write_cache
from train.world.world_data import CodeBatches, JudgePictures, WorldScenes
from train.world.world_judge import CELL, WorldJudge, WorldJudgeConfig, save_world_judge, world_judge_loss
from train.world.world_stages import assemble_model

THINGS = 24
TINY = VQConfig(
    codebook_size=32, codebook_dim=4, channels=(32, 32), res_blocks=1, z_channels=32, patch=6, decoder_channels=(32,),
    decoder_patch=12,
)  # fmt: skip


@pytest.fixture(scope="module")
def drawings(tmp_path_factory) -> str:
    return str(write_stand_ins(tmp_path_factory.mktemp("drawings")))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("codes")
    checkpoint.save(folder, VQModel(TINY), "vq", TINY.to_dict())
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory, drawings, tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    write_cache(tokenizer, drawings, THINGS, folder, total=40, shard=8)
    return folder


def test_every_batch_is_a_function_of_its_number(drawings):
    scenes = WorldScenes(drawings, THINGS, 3, seed=1, crowds=0.5)
    for batches in (CodeBatches(scenes, 12), JudgePictures(replace(scenes, held_out=None), 12)):
        a, b, c = batches(4), batches(4), batches(5)
        assert all(torch.equal(a[name], b[name]) for name in a)
        assert (
            not torch.equal(a["pixels"].flatten()[:100], c["pixels"].flatten()[:100])
            or a["pixels"].shape != c["pixels"].shape
        )


def test_cached_codes_are_those_of_their_scenes(drawings, tokenizer, cache):
    batches = CachedScenes(str(cache), drawings, THINGS, 4, seed=2)
    shape, tokens, scenes, _ = batches(0)
    model = checkpoint.load(tokenizer, "vq")
    assert tokens.shape == (4, shape[0] * shape[1])
    numbers = [
        next(n for n in range(40) if numbered_scene(n, shape, drawings, THINGS) == scene) for scene in scenes[:2]
    ]
    assert torch.equal(encode(model, numbers, shape, drawings, THINGS), tokens[:2])
    batch = DecoderPictures(batches, 24)(0)
    assert batch["pixels"].shape == (4, 3, shape[1] * 24, shape[0] * 24) and torch.equal(batch["tokens"], tokens)


def test_a_cache_of_another_world_is_refused(drawings, cache, tmp_path):
    with pytest.raises(ValueError, match="make it anew"):
        CachedScenes(str(cache), drawings, THINGS + 1, 4, seed=2)(0)
    with pytest.raises(ValueError, match="is no cache of scenes: make one with .* maskgil train world cache"):
        CachedScenes(str(tmp_path), drawings, THINGS, 4, seed=2)(0)


def test_generator_batches_have_answers_for_every_head(drawings, cache, tmp_path):
    vocabulary = train_vocabulary(world_sentences(drawings, 200, seed=1), tmp_path, 1500).read_bytes()
    batch = TokenBatches(CachedScenes(str(cache), drawings, THINGS, 4, seed=2), vocabulary)(1)
    assert batch["ids"].shape == batch["mask"].shape and batch["ids"].shape[1] <= LENGTH
    for name, count in zip(CELL_ANSWERS, answer_counts(THINGS), strict=True):
        assert batch[name].shape == batch["tokens"].shape and int(batch[name].max()) < count


def test_the_codebook_starts_from_latents_and_unused_codes_move(drawings):
    torch.manual_seed(0)
    training = CodesInTraining(VQModel(TINY), THINGS)
    data = CodeBatches(WorldScenes(drawings, THINGS, 2, seed=7, crowds=1.0, square=True), 12)
    start = CodebookRevival(2, data, every=3)
    generator = torch.Generator().manual_seed(0)
    before = training.model.quantize.embedding.weight.clone()
    start(training, {}, generator, 0)
    assert torch.equal(before, training.model.quantize.embedding.weight)
    start(training, {}, generator, 1)
    started = training.model.quantize.embedding.weight.clone()
    assert not torch.equal(before, started)
    for step in (0, 3):
        loss, report = CodeLoss(2)([training], data(step), generator, step)
        loss.backward()
        assert torch.isfinite(loss) and set(report) >= {"loss", "l1", "accuracy/things"}
    assert all(p.grad is not None for p in training.model.encoder.parameters())


def test_an_encoder_begins_as_that_of_larger_patches_and_rests():
    torch.manual_seed(0)
    known, model = VQModel(replace(TINY, patch=8, decoder_patch=16)), VQModel(TINY)
    begin_as(model, known)
    pixels = F.interpolate(torch.rand(2, 3, 4, 4) * 2 - 1, size=(96, 96), mode="bilinear")
    small = F.interpolate(pixels, size=(72, 72), mode="bilinear", antialias=True)
    alike = F.cosine_similarity(known.latents(pixels), model.latents(small), dim=-1)
    assert alike.median() > 0.95
    assert F.cosine_similarity(known.latents(pixels), VQModel(TINY).latents(small), dim=-1).median() < 0.9
    training = CodesInTraining(model, THINGS)
    batch = {"pixels": (small * 127 + 127).to(torch.uint8), **{n: torch.zeros(2, 6, 6).long() for n in CELL_ANSWERS}}
    for step, learns in ((0, False), (1, True)):
        training.zero_grad()
        CodeLoss(0, frozen=1)([training], batch, torch.Generator(), step)[0].backward()
        assert (model.encoder.conv_in.weight.grad is not None) == learns
        assert training.heads[0].weight.grad is not None
    with pytest.raises(ValueError, match="other shapes"):
        begin_as(model, VQModel(replace(TINY, channels=(64, 32), patch=8, decoder_patch=16)))


def test_a_text_encoder_learns_to_tell_facts(drawings, tmp_path):
    torch.manual_seed(0)
    train_vocabulary(world_sentences(drawings, 300, seed=1), tmp_path, 1500)
    encoder = SmallT5Encoder.fresh(tmp_path, dropout_rate=0.0, length=LENGTH, d_model=32, d_ff=64, num_layers=1)
    probe = LabelProbe(encoder, world_label_kinds(THINGS))
    batch = CaptionBatches(drawings, THINGS, encoder.vocabulary, 16)(0)
    assert batch["facts"].shape == (16, fact_count(THINGS)) and (batch["facts"].sum(1) >= 5).all()
    optimizer, losses = torch.optim.Adam(probe.parameters(), 1e-2), []
    for step in range(12):
        loss, _ = label_probe_loss([probe], batch, torch.Generator(), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_the_judge_learns_a_picture_and_reads_it_back(drawings, tmp_path):
    torch.manual_seed(0)
    judge = WorldJudge(WorldJudgeConfig(THINGS, (32, 32, 32), 1))
    data = JudgePictures(WorldScenes(drawings, THINGS, 2, seed=3, held_out=None, square=True), CELL)
    batch, optimizer = data(0), torch.optim.Adam(judge.parameters(), 1e-2)
    for step in range(120):
        loss, _ = world_judge_loss([judge], batch, torch.Generator().manual_seed(step), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pixels = batch["pixels"].float().div(127.5).sub(1)
    seen = judge.eval().read(pixels)
    for scene, thing in zip(seen, batch["thing"], strict=True):
        assert {t.thing + 1 for t in scene.things} & set(thing[thing > 0].tolist())
        assert all(t.side in SIDES for t in scene.things)
    save_world_judge(judge, tmp_path)
    again = checkpoint.load(tmp_path, "world-judge", torch.bfloat16)
    assert again.config == judge.config


def test_the_models_of_the_stages_fit_together():
    assert DECODER.encoded == CODES.encoded and DECODER.downsample == 2 * CODES.downsample == 24
    assert GENERATOR.codebook_size == CODES.codebook_size and GENERATOR.text_length == LENGTH
    decoder = VQModel(DECODER)
    missing = decoder.load_state_dict(VQModel(CODES).identity(), strict=False)
    assert not missing.unexpected_keys
    pixels = decoder.decode(torch.zeros(1, 12 * 12, dtype=torch.long), (12, 12))
    assert pixels.shape == (1, 3, 288, 288)


def test_labels_of_scenes_of_one_shape_stack(drawings):
    scenes, _ = WorldScenes(drawings, THINGS, 3, seed=5, square=True)(0)
    told = cell_answers(scenes)
    assert tuple(told) == CELL_ANSWERS and all(t.shape == (3, 144) for t in told.values())
    assert all((told[name] == told[name][:, :1]).all() for name in ("grounds", "styles", "times", "weathers"))


@pytest.mark.slow
def test_the_plan_of_an_accelerator_resumes_and_ends(drawings, tmp_path):
    """The script's first call is cut off; later ones finish every stage and carry the weights away."""
    steps = {"CODES_STEPS": "4", "READING_STEPS": "2", "CACHE_SCENES": "1", "GENERATOR_STEPS": "2", "JUDGE_STEPS": "2",
             "DECODER_STEPS": "2"}  # fmt: skip
    batches = {
        name: "2" for name in ("CODES_BATCH", "READING_BATCH", "GENERATOR_BATCH", "DECODER_BATCH", "JUDGE_BATCH")
    }
    root = Path(__file__).parents[3]
    environment = steps | batches | {
        "RUNS": str(tmp_path / "runs"), "CACHE": str(tmp_path / "tokens"), "DRAWINGS": drawings, "THREADS": "1",
        "PYTHON": sys.executable, "PATH": "/usr/bin:/bin", "OUT": str(tmp_path / "out"), "PYTHONPATH": str(root),
    }  # fmt: skip
    plan = ["sh", str(root / "train" / "world" / "gpu_plan.sh")]
    for seconds in ("75", "1200", "1200"):
        done = subprocess.run([*plan, seconds, str(THINGS)], env=environment, cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count(": over") == 5, done.stdout[-2000:]
    assert list((tmp_path / "out").glob("weights.tar.part-*"))
    model = TextToImage.load(assemble_model(tmp_path / "runs", THINGS), text_encoder.load)
    pictures = model.images(["a car left of a bus"], [1], settings=SamplingParams(steps=2, refinement_passes=0))
    assert [picture.size for picture in pictures] == [(288, 288)]


def test_numbers_give_the_same_scene_in_every_process(drawings):
    scenes = [numbered_scene(n, (12, 12), drawings, THINGS) for n in range(10)]
    assert scenes == [numbered_scene(n, (12, 12), drawings, THINGS) for n in range(10)]
    assert len({tuple(np.round([p.x for p in s.placed], 3)) for s in scenes}) > 5
