"""Evaluation as the field does it, on tiny models: samples resume, scores equal torchmetrics', layouts are as asked."""

import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from app_fixtures import tiny_latents
from commands import flags, maskgil
from conftest import TINY, make_tiny
from PIL import Image
from test_pipeline import (
    Letters,
    saved,  # noqa: F401, a fixture: a whole tiny model folder
)
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from maskgil import checkpoint
from maskgil.fileio import replace_file
from maskgil.models.ar import ARTransformer
from maskgil.models.config import PRESETS
from maskgil.params import SAMPLERS, SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.tokenizers.vq import VQConfig, VQModel
from train.eval import ar_prefix_scores, clip_score, fid, geneval, sample_images, scene_score
from train.eval.sample_images import SamplerOptions
from train.scenes.judge import SceneJudge, SceneJudgeConfig, save_judge

FEW = SamplingParams(steps=2)
ROOT = Path(__file__).resolve().parents[2]


class Colours(nn.Module):
    """Features of a picture without a network."""

    num_features = 6

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.float() / 255
        return torch.cat([x.mean((2, 3)), x.std((2, 3))], 1)


def extract(pixels: Tensor) -> fid.InceptionOutput:
    return fid.InceptionOutput(Colours()(pixels), 4 * Colours()(pixels))


def pictures(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    ends = torch.rand(n, 2, 3, 1, 1, generator=generator) * 255
    return (ends[:, 0] + (ends[:, 1] - ends[:, 0]) * torch.rand(n, 3, 8, 8, generator=generator)).byte()


def batches(pixels: Tensor):
    return iter(pixels.split(7))


def test_distances_and_inception_scores_equal_torchmetrics():
    ours, theirs = pictures(40, 0), pictures(50, 1)
    one, other = (fid.statistics(batches(p), extract, len(p), "test") for p in (ours, theirs))
    found = fid.scores(one, other)
    metric = FrechetInceptionDistance(feature=Colours())
    metric.update(ours, real=False)
    metric.update(theirs, real=True)
    assert found["FID"] == pytest.approx(float(metric.compute()), rel=1e-4)

    class Logits(Colours):
        def forward(self, pixels: Tensor) -> Tensor:
            return 4 * super().forward(pixels)

    whole = InceptionScore(feature=Logits(), splits=1)
    whole.update(ours)
    assert fid.inception_score(one.logits, splits=1)[0] == pytest.approx(float(whole.compute()[0]), rel=1e-4)


def test_scores_of_a_set_with_itself_and_with_a_far_one():
    near = torch.randn(60, 4)
    assert fid.precision_recall(near, near.clone()) == (1.0, 1.0)
    assert fid.precision_recall(near, near + 100) == (0.0, 0.0)
    half = torch.cat([near[:30], near[:30] + 100])
    assert fid.precision_recall(half, near)[0] == 0.5


def test_references_are_folders_or_npz_files_without_pickles(tmp_path: Path):
    pixels = pictures(9, 2).permute(0, 2, 3, 1).numpy()
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / "folder" / "inside" / f"{i}.png")
    np.savez(tmp_path / "pictures.npz", arr_0=pixels)
    folder, file = (
        fid.reference_statistics(tmp_path / name, extract, 4, (8, 8)) for name in ("folder", "pictures.npz")
    )
    assert torch.allclose(folder.mean, file.mean) and torch.allclose(folder.features, file.features)
    np.savez(tmp_path / "moments.npz", mu=folder.mean.numpy(), sigma=folder.covariance.numpy())
    known = fid.reference_statistics(tmp_path / "moments.npz", extract, 4, (8, 8))
    assert set(fid.scores(folder, known)) == {"FID", "IS", "IS deviation"}
    assert fid.scores(folder, known)["FID"] == pytest.approx(0, abs=1e-6)
    np.savez(tmp_path / "narrow.npz", mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(ValueError, match="has 3 features, the samples have 6"):
        fid.scores(folder, fid.reference_statistics(tmp_path / "narrow.npz", extract, 4, (8, 8)))
    np.savez(tmp_path / "pickled.npz", arr_0=np.array([{}], dtype=object))
    np.savez(tmp_path / "empty.npz", other=np.zeros(3))
    (tmp_path / "text.npz").write_text("no")
    (tmp_path / "nothing").mkdir()
    for name, message in (
        ("pickled.npz", "neither a folder nor an npz"),
        ("text.npz", "neither a folder nor an npz"),
        ("empty.npz", "holds neither arr_0 nor mu"),
        ("missing.npz", "neither a folder nor an npz"),
        ("nothing", "0 pictures, at least 2"),
    ):
        with pytest.raises(ValueError, match=message):
            fid.reference_statistics(tmp_path / name, extract, 4, (8, 8))


class Stub(nn.Module):
    """Called like torchmetrics' Inception, with the layer that sFID reads; 2x2 places instead of 17x17."""

    def __init__(self, name: str, outputs: list[str], antialias: bool = True):
        super().__init__()
        assert name == "inception-v3-compat" and not antialias, "ADM's network resizes without it"
        self.outputs = outputs
        self.Mixed_6d = nn.Module()
        self.Mixed_6d.branch1x1 = nn.Conv2d(3, 192, 4, 4)
        with torch.no_grad():
            for i, weight in enumerate(self.Mixed_6d.branch1x1.weight):
                weight.fill_(1 + i % 5)

    def forward(self, pixels: Tensor) -> Tensor:
        places = self.Mixed_6d.branch1x1(pixels.float() / 255)
        return places.mean((2, 3))[:, : 8 if self.outputs == ["2048"] else 3]


def test_spatial_distances_are_of_seven_channels_at_every_place(tmp_path: Path, monkeypatch):
    import torchmetrics.image.fid as metrics

    monkeypatch.setattr(metrics, "NoTrainInceptionV3", Stub)
    network = fid.inception()
    one, other = pictures(30, 0), pictures(40, 1)
    seen = network(one)
    weight, bias = network.layer.weight.detach(), network.layer.bias.detach()
    for number, (row, column, channel) in enumerate(
        (row, column, channel) for row in (0, 1) for column in (0, 1) for channel in range(7)
    ):
        place = one[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].float() / 255
        expected = (place * weight[channel]).sum((1, 2, 3)) + bias[channel]
        assert torch.allclose(seen.spatial[:, number], expected, atol=1e-3)
    assert seen.spatial.shape == (30, 2 * 2 * 7) and seen.logits.shape == (30, 3)
    ours, theirs = (fid.statistics(batches(p), network, len(p), "test") for p in (one, other))
    found = fid.scores(ours, theirs)
    by_hand = scene_score.frechet(*(scene_score.moments(network(p).spatial.double()) for p in (one, other)))
    assert found["sFID"] == pytest.approx(by_hand) and found["sFID"] > 1
    assert set(found) == {"FID", "sFID", "IS", "IS deviation", "precision", "recall"}
    names = ("mu", "sigma", "mu_s", "sigma_s")
    np.savez(tmp_path / "adm.npz", **dict(zip(names, (theirs.mean, theirs.covariance, *theirs.spatial), strict=True)))
    known = fid.reference_statistics(tmp_path / "adm.npz", network, 4, (8, 8))
    assert fid.scores(ours, known)["sFID"] == pytest.approx(found["sFID"])
    np.savez(tmp_path / "old.npz", mu=theirs.mean, sigma=theirs.covariance)
    assert "sFID" not in fid.scores(ours, fid.reference_statistics(tmp_path / "old.npz", network, 4, (8, 8)))
    np.savez(tmp_path / "other.npz", mu=theirs.mean, sigma=theirs.covariance, mu_s=np.zeros(5), sigma_s=np.eye(5))
    with pytest.raises(ValueError, match="has 5 spatial features, the samples have 28"):
        fid.scores(ours, fid.reference_statistics(tmp_path / "other.npz", network, 4, (8, 8)))


def test_without_torch_fidelity_one_line_says_so(monkeypatch):
    import torchmetrics.image.fid as metrics

    def absent(*_, **__):
        raise ModuleNotFoundError("torch_fidelity")

    monkeypatch.setattr(metrics, "NoTrainInceptionV3", absent)
    with pytest.raises(ValueError, match="torch-fidelity, which is not installed") as error:
        fid.inception()
    assert "\n" not in str(error.value)


def same_pictures(one: Path, other: Path, wanted: list[sample_images.Sample]) -> bool:
    """But for the last bit: sums of floats depend on the size of a batch."""
    both = [[np.asarray(Image.open(folder / s.path), dtype=int) for folder in (one, other)] for s in wanted]
    return all(abs(a - b).max() <= 1 for a, b in both)


def test_samples_resume_and_do_not_depend_on_batches_or_shares(saved: Path, tmp_path: Path):  # noqa: F811
    wanted = sample_images.numbered(["a red cat", "two dogs", "the beach", "a cat", "dogs"])
    assert sample_images.draw_samples(str(saved), wanted, tmp_path / "whole", FEW, batch=5)
    parts = tmp_path / "parts"
    assert not sample_images.draw_samples(str(saved), wanted, parts, FEW, batch=1, share="2/2")
    assert sorted(path.name for path in parts.glob("*.png")) == ["000001.png", "000003.png"]
    kept = (parts / "000001.png").stat().st_mtime_ns
    (parts / "000003.png").unlink()  # as after a kill
    assert sample_images.draw_samples(str(saved), wanted, parts, FEW, batch=2)
    assert same_pictures(tmp_path / "whole", parts, wanted)
    assert (parts / "000001.png").stat().st_mtime_ns == kept, "what was finished is not drawn again"
    assert not list(parts.glob("*.partial"))
    with pytest.raises(ValueError, match="pictures of another settings"):
        sample_images.draw_samples(str(saved), wanted, parts, SamplingParams(steps=3))
    with pytest.raises(ValueError, match="share=3/2"):
        sample_images.draw_samples(str(saved), wanted, parts, FEW, share="3/2")


def test_pictures_of_other_prompts_seeds_or_ar_models_are_not_taken_for_those_asked_for(saved: Path, tmp_path: Path):  # noqa: F811
    out, prompts = tmp_path / "out", ["a red cat", "two dogs"]
    assert sample_images.draw_samples(str(saved), sample_images.numbered(prompts), out, FEW)
    written = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert sample_images.draw_samples(str(saved), sample_images.numbered([*prompts, "the beach"]), out, FEW), (
        "a larger n goes on"
    )
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    with pytest.raises(ValueError, match=r'000001.png was drawn for \["two dogs", 1\], now \["dogs", 1\]') as refusal:
        sample_images.draw_samples(str(saved), sample_images.numbered(["a red cat", "dogs"]), out, FEW)
    assert "\n" not in str(refusal.value)
    with pytest.raises(ValueError, match="now .* 7. is asked for"):
        sample_images.draw_samples(str(saved), [sample_images.Sample("a red cat", 7, "000000.png")], out, FEW)
    Image.new("RGB", (16, 16)).save(out / "000003.png")
    with pytest.raises(ValueError, match="drawn for nobody knows what"):
        sample_images.draw_samples(str(saved), [sample_images.Sample("a red cat", 3, "000003.png")], out, FEW)
    (out / "000003.png").write_text("no")
    with pytest.raises(ValueError, match="000003.png is no picture"):
        sample_images.draw_samples(str(saved), [sample_images.Sample("a red cat", 3, "000003.png")], out, FEW)

    model, begun = tmp_path / "model", replace(FEW, mode="hybrid", ar_tokens=2)
    shutil.copytree(saved, model)
    hashes = {k: v for k, v in checkpoint.describe(saved / "generator").items() if k.endswith("_hash")}
    for seed in (0, 1):
        torch.manual_seed(seed)
        ar_model = ARTransformer(replace(TINY, causal=True))
        checkpoint.save(tmp_path / "model-ar", ar_model, ar_model.kind, ar_model.config.to_dict(), **hashes)
        if seed == 0:
            assert sample_images.draw_samples(str(model), sample_images.numbered(prompts), tmp_path / "hybrid", begun)
    with pytest.raises(ValueError, match="pictures of another weights"):
        sample_images.draw_samples(str(model), sample_images.numbered(prompts), tmp_path / "hybrid", begun)


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_full_disk_is_one_line(saved: Path, tmp_path: Path, processes: str):  # noqa: F811
    """A limit on the size of files stands for it; pictures are larger, and what is there already is kept."""
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a red cat"}\n{"prompt": "two dogs"}\n')
    options = [f"--model={saved}", f"--prompts={tmp_path / 'prompts.jsonl'}", f"--out={tmp_path / 'out'}", "--steps=1"]
    maskgil("eval", "geneval-prompts", *options, "--n=1")
    command = [
        sys.executable,
        "-m",
        "app",
        "eval",
        "geneval-prompts",
        *options,
        "--n=2",
        f"--processes={processes}",
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    *bars, last = done.stderr.replace("\r", "\n").strip().splitlines()
    assert last.startswith("error: ") and "could not write" in last and "File too large" in last
    assert not [line for line in bars if not line.startswith("drawing") and line.strip()], done.stderr
    assert sorted(p.name for p in (tmp_path / "out").rglob("*0000.png")) == ["0000.png"] * 2
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_a_folder_that_an_earlier_version_began_goes_on():
    """Its recipe.json names the guidance and the prefix apart, and no candidates when there was one."""
    before = {
        "steps": 4, "temperature": 0.6, "choice_temperature": 2.0, "order": "confidence", "top_k": None, "top_p": None,
        "refinement_passes": 1, "remask_fraction": 0.25, "schedule": "arccos",
        "guidance": {"scale": 3.0, "shape": "ramp", "interval": [0.1, 1.0], "power": 3.0},
        "ar_prefix": {"tokens": 3, "guidance": {"scale": 2.0, "shape": "constant", "interval": [0.0, 1.0],
                      "power": 3.0}, "temperature": 0.6, "top_k": None, "top_p": None},
    }  # fmt: skip
    now = SamplingParams(
        steps=4, guidance_scale=3.0, guidance_shape="ramp", mode="hybrid", ar_tokens=3, ar_guidance_scale=2.0,
        ar_temperature=0.6,
    )  # fmt: skip
    assert sample_images.current_settings(before) == sample_images.current_settings(now.to_dict()) == now.to_dict()


@pytest.mark.slow
def test_two_processes_draw_what_one_draws(saved: Path, tmp_path: Path):  # noqa: F811
    wanted = sample_images.numbered(["a red cat", "two dogs", "the beach"])
    for processes in (1, 2):
        assert sample_images.draw_samples(str(saved), wanted, tmp_path / str(processes), FEW, processes=processes)
    assert same_pictures(tmp_path / "1", tmp_path / "2", wanted)


def test_prompts_and_settings_come_from_words(tmp_path: Path):
    (tmp_path / "lines.txt").write_text("a cat\n\n a dog \n")
    (tmp_path / "some.jsonl").write_text('{"prompt": "a cat", "tag": "single"}\n')
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n{"text": "b"}\n')
    (tmp_path / "none.txt").write_text("\n")
    assert sample_images.prompts_for(TINY, str(tmp_path / "lines.txt"), 3) == ["a cat", "a dog", "a cat"]
    assert sample_images.prompts_for(TINY, str(tmp_path / "some.jsonl"), 1) == ["a cat"]
    assert sample_images.prompts_for(PRESETS["b"], "", 1001)[-2:] == ["999", "0"]
    assert len(sample_images.prompts_for(TINY, "scenes", 4)) == 4
    vectors = sample_images.generator_config(str(tiny_latents(tmp_path / "vectors")))
    assert len(sample_images.prompts_for(vectors, "scenes", 4)) == 4 and vectors.classes is None
    for source, n, message in (
        ("", 1, "needs --prompts FILE"),
        ("bad.jsonl", 1, 'line 2 has no "prompt"'),
        ("none.txt", 1, "holds no prompts"),
        ("missing.txt", 1, "cannot read the prompts"),
        ("lines.txt", 0, "n is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            sample_images.prompts_for(TINY, str(tmp_path / source) if source else "", n)
    assert SamplerOptions().params() == SamplingParams()
    changed = SamplerOptions(sampler="released", guidance_scale=2.0, ar_tokens=3).params(steps=4)
    assert changed == replace(SAMPLERS["reference"], steps=4, guidance_scale=2.0, mode="hybrid", ar_tokens=3)
    with pytest.raises(ValueError, match="candidates is 0"):
        SamplerOptions(candidates=0).params()
    assert SamplerOptions(candidates=4).params() == SamplingParams(candidates=4)


def test_fid_of_a_model_in_the_readers_features(saved: Path, tmp_path: Path, capsys):  # noqa: F811
    save_judge(SceneJudge(SceneJudgeConfig(widths=(16, 16), blocks=1)), tmp_path / "reader")
    (tmp_path / "real").mkdir()
    for i, picture in enumerate(pictures(6, 3).permute(0, 2, 3, 1).numpy()):
        Image.fromarray(picture).resize((40, 24)).save(tmp_path / "real" / f"{i}.png")
    options = {"model": str(saved), "out": str(tmp_path / "out"), "n": "4", "steps": "2", "prompts": "scenes"}
    (tmp_path / "words.txt").write_text("a red cat\ntwo dogs\n")
    options["prompts"] = str(tmp_path / "words.txt")
    maskgil("eval", "fid", *flags(**options), "--share=1/2")
    assert "others are missing" in capsys.readouterr().out
    options |= {"reference": str(tmp_path / "real"), "features": str(tmp_path / "reader")}
    maskgil("eval", "fid", *flags(**options))
    said = capsys.readouterr().out
    assert "4 samples of 16x16" in said and "| FID | precision | recall |" in said
    with pytest.raises(ValueError, match="give --reference FOLDER"):
        fid.fid(str(saved), str(tmp_path / "out"), prompts=options["prompts"])


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    vocabulary = {word: number for number, word in enumerate(words)}
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    side = {"shortest_edge": 16}
    CLIPImageProcessorPil(size=side, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = sizes | {"vocab_size": len(words), "max_position_embeddings": 12, "eos_token_id": 1, "bos_token_id": 0}
    config = CLIPConfig(text_config=text, vision_config=sizes | {"image_size": 16, "patch_size": 8}, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    return folder


def test_clip_scores_belong_to_pairs_and_lie_in_range(tiny_clip: Path):
    score = clip_score.ClipScore(str(tiny_clip))
    images = [Image.new("RGB", (20, 30), colour) for colour in ("red", "blue", "white")]
    prompts = ["a red cat", "blue", "a very long text about a white picture without anything on it"]
    together = score(images, prompts)
    assert together.shape == (3,) and (together >= 0).all() and (together <= 100).all()
    for i in range(3):
        assert score(images[i : i + 1], prompts[i : i + 1])[0] == pytest.approx(float(together[i]), abs=1e-3)


def test_clip_score_of_a_model(saved: Path, tiny_clip: Path, tmp_path: Path, capsys):  # noqa: F811
    (tmp_path / "words.txt").write_text("a red cat\ntwo dogs\n")
    options = [f"--model={saved}", f"--out={tmp_path / 'out'}", f"--prompts={tmp_path / 'words.txt'}", "--steps=2"]
    maskgil("eval", "clip", *options, f"--clip={tiny_clip}")
    assert "2 pictures" in (said := capsys.readouterr().out) and "CLIP score" in said
    with pytest.raises(ValueError, match="no CLIP model"):
        clip_score.ClipScore(str(tmp_path))


def test_geneval_gets_its_own_layout(saved: Path, tmp_path: Path):  # noqa: F811
    lines = [{"tag": "single_object", "include": [], "prompt": "a red cat"}, {"tag": "two", "prompt": "two dogs"}]
    (tmp_path / "prompts.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    options = [f"--model={saved}", f"--prompts={tmp_path / 'prompts.jsonl'}", f"--out={tmp_path / 'out'}"]
    maskgil("eval", "geneval-prompts", *options, "--n=3", "--steps=2")
    found = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert found == {"recipe.json"} | {f"0000{i}/metadata.jsonl" for i in (0, 1)} | {
        f"0000{i}/samples/000{k}.png" for i in (0, 1) for k in (0, 1, 2)
    }
    assert json.loads((tmp_path / "out" / "00001" / "metadata.jsonl").read_text()) == lines[1]
    seeds = [sample.seed for sample in geneval.geneval_samples(lines, 3)]
    assert len(set(seeds)) == 6, "no two pictures share a seed"
    assert set(geneval.geneval_samples(lines, 2)) < set(geneval.geneval_samples(lines, 3)), "a larger n goes on"


def test_hybrid_is_measured_and_drawn_as_a_chart(tmp_path: Path):
    config = replace(TINY, text_length=60)
    tokenizer = VQModel(VQConfig(codebook_size=32, channels=(32,), res_blocks=1, z_channels=8, patch=16)).eval()
    ar_model = ARTransformer(replace(config, causal=True)).eval()
    draws = TextToImage(make_tiny(config), Letters(), tokenizer.requires_grad_(False), [(128, 128)], ar_model=ar_model)
    reader = SceneJudge(SceneJudgeConfig(widths=(16, 16), blocks=1)).eval()
    asked = scene_score.asked_scenes(1, False)
    reference = {"mean": torch.zeros(32), "covariance": torch.eye(32)}
    with torch.no_grad():
        found = ar_prefix_scores.measure_ar_prefix(
            draws, reader, asked, SamplingParams(steps=2, ar_guidance_scale=1.0), reference
        )
    assert [m.tokens for m in found] == [0, 8, 16, 32, 64] and found[-1].nfe == 64
    assert all(m.distance is not None and m.seconds > 0 for m in found)
    lines = ar_prefix_scores.share_table(found).splitlines()
    assert len(lines) == 7 and len({line.count("|") for line in lines}) == 1
    drawing = ar_prefix_scores.chart([("score", [1.0, 3.0]), ("s", [0.0, 0.0])], ["none", "<all>"], "a & b")
    replace_file(tmp_path / "in" / "chart.svg", drawing.encode())
    import xml.etree.ElementTree as xml

    circles = [e for e in xml.parse(tmp_path / "in" / "chart.svg").iter() if e.tag.endswith("circle")]
    assert len(circles) == 4 and float(circles[1].get("cy")) < float(circles[0].get("cy")), "more is higher"


def test_an_unknown_measure_is_refused():
    with pytest.raises(ValueError, match="geneval-prompts"):
        maskgil("eval", "beauty")
