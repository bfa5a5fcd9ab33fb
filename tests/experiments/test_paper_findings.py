"""Reproduction: findings are sound data, verdicts follow the numbers, and a killed run goes on."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from app_fixtures import scene_words, tiny_latents, tiny_model
from commands import maskgil
from safetensors.torch import save_file

import text_encoder
from experiments.paper_findings.arm_flops import arm_step_flops
from experiments.paper_findings.arm_runner import ArmRunner, output_norm
from experiments.paper_findings.arms import Arm, Claim, Draw, Finding, Small, arm_record
from experiments.paper_findings.findings import FINDINGS
from experiments.paper_findings.measure_findings import Night, choose_findings, current_rows, measure_findings
from experiments.paper_findings.merged_codes import merge_codes
from experiments.paper_findings.night_plan import SeedLimits, open_measurements, seconds_left
from experiments.paper_findings.verdicts import append_row, assess_claim, findings_table, read_rows
from maskgil import checkpoint
from maskgil.models.diffusion_samplers import DDPM
from maskgil.params import SAMPLERS
from maskgil.pipeline import TextToImage
from maskgil.tokenizers.vq import VQConfig, VQModel
from train.data.latent_cache import write_latents
from train.data.scene_cache import corpus
from train.scenes.sprites import Sprites


def rows(**arms: list[float]) -> dict:
    metrics = ("score", "seconds", "distance", "loss", "nfe")
    return {arm: {s: dict.fromkeys(metrics, v) for s, v in enumerate(values)} for arm, values in arms.items()}


# --- the data ---------------------------------------------------------------------------------------------------------


def test_findings_compare_arms_that_they_have():
    assert len({finding.name for finding in FINDINGS}) == len(FINDINGS)
    for finding in FINDINGS:
        names = [arm.name for arm in finding.arms]
        assert len(set(names)) == len(names) and finding.claims
        for claim in finding.claims:
            assert {claim.better, claim.worse} <= set(names), (finding.name, str(claim))
            assert claim.metric != "norm" or finding.kind == "training"
        for arm in finding.arms:
            arm.draw.settings(), arm.draw.sampler()  # refuse what cannot be


@pytest.mark.journey
def test_arms_of_equal_compute_are_of_equal_compute():
    """As torch counts it, the head included."""
    finding = next(f for f in FINDINGS if f.name == "equal-compute")
    costs = [arm.model.steps * arm_step_flops(arm.model) for arm in finding.arms]
    assert max(costs) < 1.02 * min(costs)


def test_arms_draw_by_the_guided_preset_but_for_its_refinement_pass():
    ours, guided = Draw().settings(), SAMPLERS["guided"]
    assert replace(ours, refinement_passes=1, ar_guidance_scale=None, ar_temperature=None) == guided
    assert Draw().sampler() == TextToImage.head and Draw(head=-100).sampler() == DDPM(100, clip=5.0)


def test_findings_are_chosen_by_name_and_kind():
    assert [f.name for f in choose_findings("cfg,steps", "")] == ["steps", "cfg"]
    assert {f.kind for f in choose_findings("", "training")} == {"training"}
    with pytest.raises(ValueError, match="no finding is called magic: there are mar-against-ar"):
        choose_findings("magic", "")
    with pytest.raises(ValueError, match="choose sampling or training"):
        choose_findings("", "both")


# --- verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "a, b, metric, no_worse, expected",
    [
        ([60, 61, 62], [50, 51, 52], "score", False, "confirmed"),
        ([50, 51, 52], [60, 61, 62], "score", False, "not confirmed"),
        ([60, 50, 55], [50, 58, 54], "score", False, "undecided"),
        ([60, 61], [50, 51], "score", False, "undecided"),  # two seeds say nothing
        ([50.4, 49.8, 50.2], [50.0, 50.1, 50.0], "score", False, "equivalent"),
        ([50.4, 49.8, 50.2], [50.0, 50.1, 50.0], "score", True, "confirmed"),  # equivalent is no worse
        ([40, 41, 40], [60, 61, 60], "score", True, "not confirmed"),
        ([46, 47, 52], [52, 51, 50], "score", True, "undecided"),
        ([1.0, 1.01, 1.0], [1.0, 1.01, 1.0], "distance", True, "confirmed"),
        ([1.0, 1.2, 1.1], [1.0, 1.0, 1.1], "distance", True, "undecided"),
        ([1.2, 1.22, 1.21], [1.0, 1.01, 1.01], "distance", True, "not confirmed"),
        ([1.0, 1.1, 1.0], [2.0, 2.1, 2.0], "seconds", False, "confirmed"),  # lower is better
        ([3.001, 3.0, 2.999], [3.0, 3.0, 3.0], "loss", False, "equivalent"),  # within one percent
        ([1], [2], "nfe", False, "confirmed"),  # the same for every seed
    ],
)
def test_verdicts_follow_the_numbers(a, b, metric, no_worse, expected):
    found = assess_claim(Claim(metric, "a", "b", no_worse), rows(a=a, b=b))
    assert found.verdict == expected and found.low <= found.gain <= found.high and found.seeds == len(a)


def test_arms_without_a_seed_in_common_are_not_compared():
    assert assess_claim(Claim("seconds", "a", "b"), rows(a=[], b=[1.0])) is None


def test_seeds_are_compared_in_pairs():
    """What a seed does to both arms is no noise."""
    claim = Claim("distance", "a", "b")
    assert assess_claim(claim, rows(a=[17, 50, 88], b=[20, 52, 91])).verdict == "confirmed"
    assert assess_claim(claim, rows(a=[17, 50, 88], b=[52, 91, 20])).verdict == "undecided"


def test_a_score_is_never_surer_than_its_pictures():
    close = rows(a=[60, 60, 60], b=[55, 55, 55])  # alike by chance
    few, many = (assess_claim(Claim("score", "a", "b"), close, pictures) for pictures in (20, 20_000))
    assert few.verdict == "undecided" and many.verdict == "confirmed" and many.width < few.width


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Of 2,000 made-up experiments with five seeds, 95% hold the true difference of 2 points."""
    draw = torch.Generator().manual_seed(0)
    a, b = 50 + 3 * torch.randn(2, 2000, 5, generator=draw) + torch.tensor([2.0, 0.0])[:, None, None]
    found = [
        assess_claim(Claim("score", "a", "b"), rows(a=x, b=y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)
    ]
    assert 0.94 < sum(each.low <= 2 <= each.high for each in found) / len(found) < 0.96


# --- the plan of a night ----------------------------------------------------------------------------------------------

ONE, TWO = Arm("one", "m", Draw(2)), Arm("two", "m", Draw(4))
PLANNED = Finding("f", "", (ONE, TWO), (Claim("score", "one", "two"),))


def measured(arm: Arm, seed: int, score: float, **more: object) -> dict:
    told = {"metrics": {"score": score}, "took": 10.0, "n": 20, "train": 1.0, "batch": 64}
    return {"key": f"{arm.name}{seed}", "arm": arm_record(arm), "seed": seed, "name": arm.name} | told | more


def planned(rows: list[dict], **limits: int) -> list[tuple[str, int]]:
    left = open_measurements([PLANNED], rows, (20, 1.0, 64), SeedLimits(**limits))
    return [(each.arm.name, each.seed) for each in left]


def test_every_arm_gets_its_least_seeds_in_rounds():
    assert planned([]) == [(name, seed) for seed in range(3) for name in ("one", "two")]
    assert planned([measured(ONE, 0, 50), measured(TWO, 0, 50)])[0] == ("one", 1)


def test_seeds_are_added_until_the_interval_is_narrow_enough():
    narrow = [measured(ONE, s, 50 + s / 10) for s in range(3)] + [measured(TWO, s, 55) for s in range(3)]
    assert planned(narrow) == []
    wide = [measured(ONE, s, 50 + 3 * (s % 2)) for s in range(4)] + [measured(TWO, s, 50) for s in range(4)]
    more = planned(wide)
    assert len(more) > 4 and more[:2] == [("one", 4), ("two", 4)]
    assert planned(wide, most=5) == [("one", 4), ("two", 4)] and planned(wide, most=4) == []
    seconds, unknown = seconds_left(open_measurements([PLANNED], wide, (20, 1.0, 64), SeedLimits(most=5)), wide)
    assert (seconds, unknown) == (20.0, 0)


def test_what_failed_is_no_open_measurement_and_other_settings_do_not_count():
    assert ("one", 0) not in planned([measured(ONE, 0, 50, failed="it broke")])
    assert ("one", 0) in planned([measured(ONE, 0, 50, n=5)])


def test_findings_share_an_arm_under_other_names():
    again = Finding("again", "", (replace(ONE, name="the same"),), ())
    left = open_measurements([PLANNED, again], [], (20, 1.0, 64), SeedLimits())
    assert len(left) == 6


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_line_that_was_cut_off_costs_only_itself(tmp_path):
    path = tmp_path / "new" / "results.jsonl"
    append_row(path, {"key": "one"})
    append_row(path, {"key": "two"})
    whole = path.read_bytes()
    for cut in range(len(whole) // 2 + 1, len(whole)):
        path.write_bytes(whole[:cut])
        append_row(path, {"key": "three"})
        keys = [row["key"] for row in read_rows(path)]
        assert keys[0] == "one" and keys[-1] == "three"


# --- running ----------------------------------------------------------------------------------------------------------

ONCE = Night(SeedLimits(least=1, most=1))
READER = Path(__file__).resolve().parents[2] / "weights" / "scenes-reader"


def sized(folder: Path) -> Path:
    """As the folder of a model that draws 128 x 128."""
    path = folder / "vocabulary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sizes": [[128, 128]]}))
    return folder


@pytest.fixture(scope="module")
def codes(tmp_path_factory) -> tuple[Path, Path]:
    """(model folder, cache) of codes: 64 tokens of 16 px."""
    folder = sized(tiny_model(tmp_path_factory.mktemp("codes") / "model"))
    torch.manual_seed(0)
    tokenizer = VQModel(VQConfig(codebook_size=64, channels=(32,), res_blocks=1, z_channels=32, patch=16)).eval()
    checkpoint.save(folder / "tokenizer", tokenizer, "vq", tokenizer.config.to_dict())
    made_by = checkpoint.fingerprint(tokenizer.identity())
    config = checkpoint.describe(folder / "generator")
    generator = checkpoint.load(folder / "generator")
    words = checkpoint.fingerprint(scene_words(folder / "text_encoder").identity())
    hashes = {"text_encoder_hash": words, "tokenizer_hash": made_by}
    checkpoint.save(folder / "generator", generator, "maskgil", config["config"], **hashes)
    cache = tmp_path_factory.mktemp("cache")
    (cache / "cache.json").write_text(json.dumps({"tokenizer": made_by, "corpus": corpus(), "total": 8}))
    for size, count in (("128x128", 64), ("96x96", 36)):
        tokens = torch.randint(64, (8, count)).to(torch.uint16)
        save_file({"tokens": tokens, "numbers": torch.arange(8)}, cache / f"{size}-0000.safetensors")
    return folder, cache


@pytest.fixture(scope="module")
def latents(tmp_path_factory) -> tuple[Path, Path]:
    """(folder with the parts that small models use, cache) of latents."""
    folder, cache = tiny_latents(tmp_path_factory.mktemp("latents") / "model"), tmp_path_factory.mktemp("cache")
    tokenizer = checkpoint.load(folder / "tokenizer", "latent")
    deviation = tokenizer.posterior(torch.rand(4, 3, 64, 64) * 2 - 1)[1].mean().item()
    scaled = replace(tokenizer.config, scale=round(1 / deviation, 3))
    checkpoint.save(folder / "tokenizer", tokenizer, "latent", scaled.to_dict())
    tokenizer = checkpoint.load(folder / "tokenizer", "latent")
    notes = checkpoint.describe(folder / "generator")
    generator = checkpoint.load(folder / "generator")
    hashes = {"text_encoder_hash": checkpoint.fingerprint(scene_words(folder / "text_encoder").identity())}
    hashes["tokenizer_hash"] = checkpoint.fingerprint(tokenizer.identity())
    checkpoint.save(folder / "generator", generator, "emigm", notes["config"], **hashes)
    write_latents(tokenizer, Sprites(), cache, total=16, shard=16)
    return folder, cache


def bench(tmp_path: Path, codes: tuple[Path, Path], latents: tuple[Path, Path] | None = None) -> ArmRunner:
    other = latents or (Path("none"), Path("none"))
    return ArmRunner(
        tmp_path / "runs", n=1, train=0.002, batch=2, reader=str(READER), codes=str(codes[1]), latents=str(other[1]),
        homes=(str(codes[0]), str(other[0])),
    )  # fmt: skip


def test_a_run_goes_on_where_it_was_stopped_and_measures_nothing_twice(tmp_path, codes):
    path, model = tmp_path / "results.jsonl", str(codes[0])
    arms = (Arm("two", model, Draw(2)), Arm("four", model, Draw(4, interval=(0.0, 1.0))))
    finding = Finding(
        "steps", "more is dearer", arms, (Claim("nfe", "two", "four"), Claim("score", "two", "four", True))
    )
    again = Finding("again", "the same arm", arms[:1], ())
    first = measure_findings([finding, again], bench(tmp_path, codes), ONCE, path)
    assert next(first).startswith("steps, two, seed 0: score")
    first.close()  # as a kill does
    lines = list(measure_findings([finding, again], bench(tmp_path, codes), ONCE, path))
    assert len(lines) == 1 and lines[0].startswith("steps, four") and len(read_rows(path)) == 2
    assert not list(measure_findings([finding, again], bench(tmp_path, codes), ONCE, path))
    shown = findings_table([finding, again], read_rows(path), n=1)
    assert "nfe: two before four: **confirmed** (+62.5) (62% of the evaluations saved)" in shown
    assert len(shown.splitlines()) == 4 and len(findings_table([finding, again], read_rows(path)).splitlines()) == 2, (
        "n=20"
    )
    assert [row["metrics"]["nfe"] for row in read_rows(path)] == [3, 8]  # the last of two steps is outside the interval


def test_small_models_of_codes_are_trained_and_judged(tmp_path, codes):
    path, small = tmp_path / "results.jsonl", Small("maskgil", width=16, depth=2, norm="post")
    arms = (Arm("all", small, Draw(2, scale=1.0)), Arm("few", replace(small, merged=8), Draw(2, scale=1.0)))
    lines = list(measure_findings([Finding("f", "", arms, ())], bench(tmp_path, codes), ONCE, path))
    assert ["norm" in line and "through" in line and "loss" in line for line in lines] == [True, True], lines
    assert [step for step, _ in read_rows(path)[0]["norms"]] == [1]
    assert {row["metrics"]["nfe"] for row in read_rows(path)} == {2}
    left = {f.name for f in (tmp_path / "runs").iterdir()}
    assert left == {"locks", f"cache-{json.loads((codes[1] / 'cache.json').read_text())['tokenizer']}"}


def test_small_models_of_latents_are_trained_and_judged(tmp_path, codes, latents):
    path, small = tmp_path / "results.jsonl", Small("emigm", (("t_min", 0.4), ("trunk", "single")), width=16, depth=2)
    bench_ = bench(tmp_path, codes, latents)
    (line,) = measure_findings(
        [Finding("f", "", (Arm("single", small, Draw(2, "exp", 1.0, head=2)),), ())], bench_, ONCE, path
    )
    assert "distance" in line and read_rows(path)[0]["arm"]["model"]["choices"] == [["t_min", 0.4], ["trunk", "single"]]


@pytest.mark.parametrize("trunk", ["mae", "single"])
def test_codes_under_either_trunk_are_trained_and_judged(trunk, tmp_path, codes):
    path = tmp_path / "results.jsonl"
    choices = (("t_min", 0.2), ("trunk", trunk), ("weighting", "bound"))
    small = Small("maskgil", choices, width=16, depth=2, qk_norm="", norm="")
    (line,) = measure_findings(
        [Finding("f", "", (Arm("a", small, Draw(2, scale=1.0)),), ())], bench(tmp_path, codes), ONCE, path
    )
    assert "distance" in line


def test_what_fails_is_shown_and_tried_again_by_other_code_alone(tmp_path, codes, monkeypatch):
    path, model = tmp_path / "results.jsonl", str(codes[0])
    findings = [Finding("f", "it works", (Arm("two", model, Draw(2)), Arm("one", model, Draw(1))), ())]
    right = ArmRunner.scored

    def wrong(self, model, draw, seed):
        if draw.steps == 2:
            raise torch.linalg.LinAlgError("eigh has not converged\nand more")
        return right(self, model, draw, seed) | {"distance": float("nan")}

    monkeypatch.setattr(ArmRunner, "scored", wrong)
    lines = list(measure_findings(findings, bench(tmp_path, codes), ONCE, path))
    assert "failed" in lines[0] and "eigh has not converged" in lines[0] and "distance is not a number" in lines[1]
    shown = findings_table(findings, read_rows(path), n=1)
    assert "two: failed with seed 0" in shown and "and more" not in shown
    assert not list(measure_findings(findings, bench(tmp_path, codes), ONCE, path))
    monkeypatch.setattr(ArmRunner, "scored", right)
    monkeypatch.setattr("experiments.paper_findings.measure_findings.source_hash", lambda: "other")
    assert len(list(measure_findings(findings, bench(tmp_path, codes), ONCE, path))) == 2
    assert "failed" not in findings_table(findings, read_rows(path), n=1)


def test_a_run_that_was_asked_to_stop_is_not_judged(tmp_path, codes, monkeypatch):
    monkeypatch.setattr("experiments.paper_findings.arm_runner.read_log", lambda out: 0)
    arm = Arm("a", Small("maskgil", width=16, depth=2), Draw(2))
    with pytest.raises(KeyboardInterrupt):
        list(measure_findings([Finding("f", "", (arm,), ())], bench(tmp_path, codes), ONCE, tmp_path / "results.jsonl"))
    assert not read_rows(tmp_path / "results.jsonl")


def test_what_is_missing_is_waited_for(tmp_path, codes):
    path = tmp_path / "results.jsonl"
    arms = (
        Arm("AR", str(codes[0]), Draw(2, ar_tokens=64)),
        Arm("latents", Small("emigm")),
        Arm("unknown", "no-such-model"),
    )
    lines = list(measure_findings([Finding("f", "", arms, ())], bench(tmp_path, codes), ONCE, path))
    assert len(lines) == 3 and all("waits, since" in line for line in lines) and not read_rows(path)


@pytest.mark.journey
def test_two_workers_share_the_night_and_a_table_is_of_the_weights_that_are_there(tmp_path, codes):
    path, model = tmp_path / "results.jsonl", str(codes[0])
    arms = tuple(Arm(str(n), model, Draw(n)) for n in (2, 3, 4))
    finding = Finding("shared", "", arms, (Claim("nfe", "2", "4"), Claim("score", "2", "3", True)))
    night, runner = Night(SeedLimits(least=2, most=2), processes=2), bench(tmp_path, codes)
    lines: list[list[str]] = [[], []]

    def work(own: list[str]) -> None:
        own.extend(measure_findings([finding], bench(tmp_path, codes), night, path))

    threads = [threading.Thread(target=work, args=(own,)) for own in lines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = read_rows(path)
    assert sorted((row["name"], row["seed"]) for row in rows) == [("2", 0), ("2", 1), ("3", 0), ("3", 1), ("4", 0)]
    stale = [row | {"key": "of other weights", "seed": 7} for row in rows]
    assert len(current_rows([finding], runner, [*rows, *stale])) == len(rows)


def test_merged_codes_stand_for_their_neighbours(codes):
    tokenizer = TextToImage.load(codes[0], text_encoder.load).tokenizer
    few, group = merge_codes(tokenizer, 8)
    assert group.shape == (64,) and 0 <= int(group.min()) <= int(group.max()) < 8 and few.config.codebook_size == 8
    assert (group[few.stands] == torch.arange(8)).float().mean() > 0.7
    codebook = torch.nn.functional.normalize(tokenizer.quantize.codebook(), dim=-1)
    near = (codebook * codebook[few.stands[group]]).sum(-1).mean()
    far = (codebook @ codebook.T).mean()
    assert near > far + 0.2
    pixels = torch.rand(1, 3, 128, 128) * 2 - 1
    assert few.decode(few.encode(pixels), (8, 8)).shape == pixels.shape


def test_the_output_norm_is_that_of_the_trunk(codes):
    model = TextToImage.load(codes[0], text_encoder.load)
    before = output_norm(model)
    for layer in model.generator.layers:
        for parameter in layer.parameters():
            parameter.data.mul_(3)
    assert output_norm(model) > 1.2 * before


def test_wrong_words_are_refused(tmp_path, capsys):
    for words, match in (
        (["--table-only", "--magic=1"], "unknown: --magic=1"),
        (["--n=many"], "Error parsing --n"),
        (["--n=0"], "give more than 0"),
        (["--kind=trainning"], "did you mean training"),
    ):
        with pytest.raises(ValueError, match=match):
            maskgil("bench", "paper-findings", *words)
    maskgil("bench", "paper-findings", "--table-only", f"--results={tmp_path / 'none.jsonl'}")
    assert capsys.readouterr().out.startswith("| finding |")
