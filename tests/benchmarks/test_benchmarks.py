"""The benchmarks on tiny models: every stage is timed, floors follow from what was counted, crowds are served."""

import contextlib
import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from app_fixtures import tiny_latents, tiny_model
from commands import maskgil
from conftest import TINY
from test_transcriber import VOCABULARY, saved
from test_transcriber import tiny as tiny_whisper

import text_encoder
from app.core.request import GenerationRequest
from app.serving.jobs import Status
from benchmarks import generation, machine, serving_load, speech_to_image_latency
from benchmarks.machine import Machine, Stage, Timed
from maskgil.command_line import parse
from maskgil.condition import Condition
from maskgil.models.ar import ARSampler, ARTransformer
from maskgil.pipeline import TextToImage
from maskgil.sampling.ar_prefix import ARPrefix
from maskgil.sampling.loop import sample
from maskgil.sampling.plans import raster_plan
from maskgil.sampling.token_grid import TokenGrid
from maskgil.tokenizers.vq import VQConfig, VQModel
from speech.audio import RATE
from speech.transcriber import SmallWhisperBackend, Transcriber
from tools import screenshots

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> TextToImage:
    tokenizer = VQModel(VQConfig(codebook_size=32, channels=(32,), res_blocks=1, z_channels=8, patch=4))
    encoder = generation.RandomText(5, d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=2, vocab_size=20)
    return generation.random_model(TINY, tokenizer, encoder, (16, 16), CPU, torch.float32)


@pytest.fixture(scope="module")
def said() -> generation.RecognizerBench:
    """A second of noise that a tiny recognizer with random weights takes for speech."""
    samples = 0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    return generation.RecognizerBench(Transcriber(SmallWhisperBackend(tiny_whisper(), VOCABULARY)), samples)


def test_a_report_has_every_stage_at_every_batch(model, said, monkeypatch, capsys):
    machine = Machine("a machine", 1e9, 1e9)
    monkeypatch.setattr(generation, "measure_machine", lambda device, dtype: machine)
    generation.report_generation(
        model, said, [1, 2], steps=3, repeats=2, size=(16, 16), ar_model_name="random AR model"
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    stages = ["listen", "encode text", "MaskGIL, 3 steps", "random AR model with KV cache, 16 tokens", "decode"]
    assert [line.split("|")[1].strip() for line in lines] == ["batch 1", *stages, "batch 2", *stages]
    assert lines[3].split("|")[4].strip().endswith("x") and float(lines[4].split("|")[6]) > 0


def test_floors_are_those_of_each_stages_precision(model, said, monkeypatch, capsys):
    """A folder's tokenizer and text encoder stay in float32, whatever the generator runs in."""
    rates = {torch.bfloat16: Machine("", 1e9, 1e12), torch.float32: Machine("", 1e9, 1e3)}
    monkeypatch.setattr(generation, "measure_machine", lambda device, dtype: rates[dtype])
    halved = [copy.deepcopy(part).bfloat16() for part in (model.generator, model.ar_model)]
    mixed = TextToImage(halved[0], model.text_encoder, model.tokenizer, model.sizes, ar_model=halved[1])
    generation.report_generation(mixed, said, [1], steps=1, repeats=1, size=(16, 16), ar_model_name="AR model")
    shown = capsys.readouterr().out
    assert "TFLOP/s for what stays in float32" in shown
    mine = generation.stages(mixed, 1, 1, (16, 16), "AR model", {torch.float32: rates[torch.float32]})
    assert [stage.machine for stage in mine] == [rates[torch.float32], None, None, rates[torch.float32]]


def test_listening_reads_its_model_for_each_sentence(said):
    one, three = said.stage(1), said.stage(3)
    model = said.recognizer.scribe.model
    assert one.bytes > machine.weight_bytes(model.encoder) > 0 and three.bytes == 3 * one.bytes
    assert one.operations > 0 and three.operations == 3 * one.operations
    assert len(three.run()) == 3
    here, there = Machine("", 1e3, 1e3), Machine("", 1e6, 1e6)
    elsewhere = Timed(said.stage(1, there), 1.0, 1, 0.0)
    assert elsewhere.floor(here) == Timed(one, 1.0, 1, 0.0).floor(there) > 0


def test_what_a_stage_cannot_do_without_is_counted(model):
    one, four = (generation.stages(model, batch, 2, (16, 16), "AR model") for batch in (1, 4))
    for small, large in zip(one, four, strict=True):
        assert small.operations > 0 and large.operations == pytest.approx(4 * small.operations, rel=0.35), small.name
    table = model.generator.tok_embeddings.weight
    weights = sum(p.numel() for p in model.generator.parameters()) - table.numel()
    assert one[1].bytes == four[1].bytes == 2 * 4 * weights
    assert isinstance(model.ar_model, ARTransformer) and four[2].bytes > one[2].bytes  # its caches grow with the batch


def test_operations_of_a_product_and_of_attention():
    a, q = torch.randn(3, 5), torch.randn(2, 4, 6, 8)
    assert machine.operations_of(lambda: a @ a.T) == 2 * 3 * 5 * 3
    with torch.no_grad():
        found = machine.operations_of(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q))
    assert found == 4 * 2 * 4 * 6 * 6 * 8


def test_a_floor_is_the_longer_of_reading_and_multiplying():
    machine = Machine("", bandwidth=100.0, rate=10.0)
    for size, operations, floor in ((500.0, 20.0, 5.0), (100.0, 20.0, 2.0)):
        assert Timed(Stage("", lambda: None, size, operations), 1.0, 1, 0.0).floor(machine) == floor


def test_a_machine_is_measured_and_named():
    measured = machine.measure_machine(CPU, torch.float32, side=64, megabytes=1)
    assert measured.bandwidth > 0 and measured.rate > 0 and "cores" in measured.name
    machine.forget_peak(CPU)
    assert machine.peak_memory(CPU) > 2**20


def test_a_model_without_ar_model_gets_a_random_one(model):
    alone = TextToImage(model.generator, model.text_encoder, model.tokenizer, model.sizes)
    paired, name = generation.with_ar_model(alone)
    assert (
        name == "random AR model" and paired.has_ar_model and generation.with_ar_model(paired) == (paired, "AR model")
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--preset=b", "--recognizer="], "no preset 'b' reads"),
        (["--dtype=fp16"], "did you mean bf16"),
        (["--speed=9"], "unknown: --speed=9"),
        (["--recognizer=nobody"], "no recognizer 'nobody'"),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    with pytest.raises(ValueError, match=message):
        maskgil("bench", "generation", *arguments)


def test_a_crowd_is_served_in_both_ways_and_gets_the_same_pictures(model, monkeypatch, capsys):
    monkeypatch.setattr(serving_load, "measure_machine", lambda device, dtype: Machine("a machine", 1e9, 1e9))
    serving_load.report_serving({"fp32": model}, [2.0, math.inf], jobs=5, rows=3, steps=2, repeats=1, size=(16, 16))
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    assert [row[1] for row in cells] == ["way", "solo", "shared", "solo", "shared"]
    assert cells[3][0] == cells[4][0] == "all at once" and cells[1][3] == cells[3][3] == "1.00x"
    for row in cells[1:]:
        assert float(row[2]) > 0 and 0 < float(row[4]) <= float(row[5]) and float(row[7]) > 0
    assert lines[-1] == "fp32: 100.00% of tokens and 100% of pictures are the same alone and in company of 3"


def test_a_crowd_is_served_vectors_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(serving_load, "measure_machine", lambda device, dtype: Machine("a machine", 1e9, 1e9))
    vectors = TextToImage.load(tiny_latents(tmp_path / "scenes-emigm"), text_encoder.load)
    monkeypatch.setattr(serving_load, "PROMPTS", ("a cat",))
    serving_load.report_serving({"fp32": vectors}, [math.inf], jobs=3, rows=3, steps=2, repeats=1, size=(64, 64))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("fp32: ") and "tokens" in lines[-1]
    assert sum(line.startswith("| all at once") for line in lines) == 2


@pytest.mark.parametrize(
    ("has_ended", "status"), [(True, Status.FAILED), (True, Status.CANCELLED), (False, Status.QUEUED)]
)
def test_a_first_job_that_is_not_drawn_ends_the_load(model, monkeypatch, has_ended: bool, status: Status):
    asked = []
    job = SimpleNamespace(status=status, error="no memory", wait=lambda seconds: has_ended)
    engine = SimpleNamespace(submit=lambda request: asked.append(request) or job)
    monkeypatch.setattr(serving_load, "LocalEngine", lambda *args, **options: engine)
    with pytest.raises(RuntimeError, match="a job of the benchmark is .*: no memory"):
        serving_load.serve_load(model, [GenerationRequest("a cat", seed=0)] * 3, [0.0] * 3, rows=1)
    assert len(asked) == 1


def test_jobs_arrive_at_their_rate_and_at_the_same_times_again():
    times = serving_load.arrivals(2000, 4.0)
    assert times[0] == 0 and times == sorted(times) and times == serving_load.arrivals(2000, 4.0)
    assert times[-1] / 1999 == pytest.approx(1 / 4, rel=0.1)
    assert serving_load.arrivals(3, math.inf) == [0, 0, 0]


def test_in_company_the_weights_are_read_for_all_at_once():
    machine, picture = Machine("", bandwidth=100.0, rate=10.0), Stage("", lambda: None, 500.0, 20.0)
    assert [serving_load.floor(picture, machine, rows) for rows in (1, 2, 16)] == [5.0, 2.5, 2.0]


@pytest.mark.parametrize("arguments", [["--rates=0"], ["--jobs=0"], ["--dtype=int4"], ["--speed=9"], ["--rates=fast"]])
def test_a_crowd_of_nonsense_is_one_line(arguments):
    with pytest.raises(ValueError):
        maskgil("bench", "serving", *arguments)


def note(at: float, type: str, **more: object) -> dict:
    return {"at": at, "type": type, **more}


def test_what_a_page_notes_becomes_times_after_the_end_of_speech():
    """Two sentences: one drawn from its pause on, one that was guessed before it ended."""
    notes = [
        note(0.5, "loud"),
        note(2.0, "loud"),
        note(2.2, "words", committed=["a"], pending=["dog"]),
        note(2.25, "words", committed=["a", "cat"], pending=[]),
        note(2.4, "final", text="a cat"),
        note(2.5, "step", job="1"),
        note(3.0, "picture", job="1"),
        note(3.1, "kept", job="1"),
        note(6.9, "words", committed=["a", "cat"], pending=[]),
        note(6.95, "step", job="2"),
        note(7.0, "loud"),
        note(7.3, "final", text="a cat"),
        note(7.4, "picture", job="2"),
        note(7.5, "kept", job="2"),
        note(9.0, "loud"),
    ]
    first, second = speech_to_image_latency.spoken_runs(notes, pause=0.1)
    assert (first.known, first.words, first.first, first.last) == pytest.approx((0.25, 0.4, 0.5, 1.0))
    assert (second.known, second.words, second.first, second.last) == pytest.approx((-0.1, 0.3, -0.05, 0.4))
    assert list(first.stages(0.1).values()) == pytest.approx([0.1, 0.15, 0.25, 0.5])
    assert list(second.stages(0.1).values()) == pytest.approx([0.1, 0.0, 0.0, 0.3])
    lines = speech_to_image_latency.latency_table(
        [first, second], (0.4, 0.6, 0.5), (0.3, 0.2, 0.5), pause=0.1
    ).splitlines()
    assert "| final words | 0.35 | 0.39 | 0.30 | 0.40 | 0.4 reached | 0.30 | 1.2 |" in lines
    assert "| final picture | 0.70 | 0.95 | 0.40 | 1.00 | 0.5 missed by 0.20 | 0.50 | 1.4 |" in lines
    assert sum(int(line.split("|")[4].strip(" %")) for line in lines[-4:]) == pytest.approx(100, abs=2)


def test_a_sentence_that_begins_before_the_last_ones_words_is_not_taken_for_their_end():
    notes = [note(2.0, "loud"), note(3.0, "loud"), note(3.05, "final", text="a cat"), note(3.5, "kept", job="1")]
    with pytest.raises(ValueError, match="the next sentence began before the words of 'a cat' came: give a longer gap"):
        speech_to_image_latency.spoken_runs(notes, pause=0.1)


@pytest.mark.parametrize(
    "arguments",
    [["--n=0"], ["--end=5"], ["--gap=1"], ["--end=2", "--gap=3"], ["--targets=1"], ["--speed=9"], ["--model=nobody"]],
)
def test_listening_to_nonsense_is_one_line(arguments):
    with pytest.raises(ValueError):
        maskgil("bench", "speech-to-image", *arguments)


class Stop(Exception):
    """So far, and no further."""


def test_the_floor_is_measured_with_the_model_and_the_recognizer_that_the_server_takes(tmp_path, monkeypatch):
    tiny_model(tmp_path / "scenes")
    saved(tiny_whisper(), tmp_path / "another recognizer")
    monkeypatch.setenv("MASKGIL_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("MASKGIL_RECOGNIZER", "another recognizer")
    sound, measured = tmp_path / "said.wav", []
    soundfile.write(sound, np.zeros(RATE, np.float32), RATE)

    def alone(model: TextToImage, recognizer: Transcriber, *rest: object) -> dict:
        measured.extend([model, recognizer])
        raise Stop

    monkeypatch.setattr(speech_to_image_latency, "CHROMIUM", str(sound))
    monkeypatch.setattr(speech_to_image_latency, "start_server", lambda name, folder: contextlib.nullcontext(""))
    monkeypatch.setattr(speech_to_image_latency, "watch", lambda *rest: [])
    monkeypatch.setattr(
        speech_to_image_latency,
        "spoken_runs",
        lambda notes, pause: [speech_to_image_latency.SpokenRun("a cat", 0.0, 0.0, 0.0, 0.0)] * 2,
    )
    monkeypatch.setattr(speech_to_image_latency, "latency_alone", alone)
    with pytest.raises(Stop):
        speech_to_image_latency.report_latency(
            "scenes", "", str(sound), n=1, steps=2, end=0.3, gap=4, targets=(1, 1, 1)
        )
    assert measured[0].sizes == [(64, 64), (96, 64)] and measured[1].name == "another recognizer"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--shape=round"], "unknown: --shape"),
        (["--only=galery"], "did you mean gallery"),
        (["--seed=-1"], "whole number"),
    ],
)
def test_screenshots_of_nonsense_are_one_line(arguments: list[str], complaint: str):
    with pytest.raises(ValueError, match=complaint):
        parse(screenshots.SCREENSHOTS, "screenshots", arguments)()


@pytest.mark.parametrize("kind", [{"text_dim": 16, "text_length": 9}, {"classes": 7, "text_dim": None}])
def test_operations_of_a_written_picture_are_those_that_a_counter_finds(kind):
    ar_model = ARTransformer(replace(TINY, causal=True, **kind)).eval()
    condition = Condition.classes(torch.tensor([1, 2, 3]))
    if "classes" not in kind:
        condition = Condition(torch.randn(3, 5, 16), torch.ones(3, 5, dtype=torch.bool))
    plan = raster_plan(16, guidance=ARPrefix(16).guidance, seeds=[1, 2, 3])
    blank = TokenGrid.blank(3, (4, 4), TINY.codebook_size)
    counted = machine.operations_of(lambda: list(sample(ARSampler(ar_model, condition), blank, plan)))
    assert generation.writing_operations(ar_model, condition.length, 16, 6) == counted
