"""`maskgil eval` on tiny models: options in every usual spelling, settings that reach the
sampler."""

from dataclasses import replace
from pathlib import Path

import pytest
from commands import maskgil
from scored_model import tiny_scored_model

from maskgil.params import SAMPLERS, SamplingParams
from maskgil.pipeline import TextToImage
from train.eval import scene_score


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_scored_model(tmp_path_factory.mktemp("evaluate"))


def test_scenes_are_scored_with_the_settings_that_were_asked_for(folder: Path, capsys, monkeypatch):
    used = []
    draw = TextToImage.draw

    def spied(self, prompts, seeds, size, settings):
        used.append(settings)
        return draw(self, prompts, seeds, size, settings)

    monkeypatch.setattr(TextToImage, "draw", spied)
    common = ["eval", "scenes", f"--model={folder / 'model'}", f"--reader={folder / 'reader'}", "--n=1"]
    maskgil(*common, "--steps", "2", "3")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [line.split("|")[1].strip() for line in rows[1:]] == [
        "training, 2 steps",
        "training, 3 steps",
        "held out, 2 steps",
        "held out, 3 steps",
    ]
    assert len({line.count("|") for line in rows}) == 1 and used[0] == replace(SAMPLERS["guided"], steps=2)
    used.clear()
    maskgil(*common, "--steps=2", "--splits=training", "--sampler=released")
    said = capsys.readouterr().out
    assert set(used) == {replace(SAMPLERS["reference"], steps=2)} and "sampler released" in said
    assert "held out" not in said
    used.clear()
    words = "--temperature=0.8 --choice=1.5 --guidance=3 --order=halton --curve=cosine --interval 0.2 0.9 --shape=ramp"
    maskgil(*common, "--steps=2", "--splits=held out", *words.split())
    asked = SamplingParams(
        steps=2,
        guidance_scale=3.0,
        guidance_shape="ramp",
        guidance_interval=(0.2, 0.9),
        temperature=0.8,
        choice_temperature=1.5,
        order="halton",
        schedule="cosine",
    )
    assert set(used) == {asked}


def test_hybrid_prints_what_every_share_of_the_ar_model_scores(folder: Path, capsys, monkeypatch):
    used = []
    draw = TextToImage.draw

    def spied(self, prompts, seeds, size, settings):
        used.append(settings)
        return draw(self, prompts, seeds, size, settings)

    monkeypatch.setattr(TextToImage, "draw", spied)
    common = ["eval", "hybrid", "--model", str(folder / "model"), "--reader", str(folder / "reader"), "--n=1"]
    chart = folder / "new" / "chart.svg"
    ar_models = ["--ar-guidance-scale=1", "--ar-temperature=0.9", "--ar-top-k=5", "--ar-top-p=0.95"]
    maskgil(*common, "--steps=3", "--guidance=1", *ar_models, f"--out={chart}")
    title, head, line, *rows, last = capsys.readouterr().out.splitlines()
    assert "3 steps, guidance_scale 1, ar_guidance_scale 1" in title and last == f"chart: {chart}"
    assert {head.count("|"), line.count("|")} | {row.count("|") for row in rows} == {len(scene_score.KINDS) + 6}
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    assert [row[0] for row in cells] == ["none (0)", "1/8 (8)", "1/4 (16)", "1/2 (32)", "all (64)"]
    assert [row[-1] for row in cells] == ["6", "14", "22", "38", "64"], (
        "one a token, then 3 steps and a refinement pass"
    )
    assert all(0 <= float(row[9].strip("*")) <= 100 for row in cells)
    own = {"ar_guidance_scale": 1.0, "ar_temperature": 0.9, "ar_top_k": 5, "ar_top_p": 0.95}
    assert used[1:] == [
        SamplingParams(steps=3, guidance_scale=1.0, mode="hybrid", ar_tokens=tokens, **own)
        for tokens in (0, 8, 16, 32, 64)
    ]
    assert "seconds a picture" in chart.read_text() and "Fréchet" not in chart.read_text(), "no reference, no distance"
    for words, message in (
        ("--split=all", "--split all: choose one of held out, training"),
        ("--ar-tokens=3", "leave --mode and --ar-tokens out"),
    ):
        with pytest.raises(ValueError, match=message):
            maskgil(*common, words)


@pytest.mark.parametrize(
    "words, message",
    [
        ("--splits=all", "choose one of held out, training"),
        ("--sampler=refrence", "sampler is 'refrence': did you mean 'reference'"),
        ("--curve=straight", "schedule is 'straight': choose one of"),
        ("--order=listed", "order is 'listed': choose one of confidence, random, halton, raster"),
        ("--choice=much", "--choice"),
        ("--n=0", "n is 0"),
        ("--n=two", "Error parsing --n"),
        ("--candidates=0", "candidates is 0"),
        ("--guidance=-1", "guidance_scale is -1"),
        ("--modle=scenes", "did you mean --mode or --model"),
        ("model=scenes n=3", "maskgil eval scenes --model scenes --n 3"),
    ],
)
def test_what_is_no_option_is_one_line(words: str, message: str):
    with pytest.raises(ValueError, match=message) as refusal:
        maskgil("eval", "scenes", *words.split())
    assert "\n" not in str(refusal.value)
