"""The engine: jobs in a queue, rows of several jobs in one batch, cancel by id, one job's fault its own."""

import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from app_fixtures import tiny_ar_model, tiny_classes, tiny_model
from test_text_encoder import make_t5

import text_encoder
from app.core import png
from app.core.gallery_store import Gallery
from app.core.request import GenerationRequest
from app.serving import services as app_services
from app.serving.batching import Batch, RunningJob
from app.serving.job_table import MAX_JOB_BYTES, MAX_JOBS_KEPT, MAX_WAITING
from app.serving.jobs import Job, Status, StepSnapshot
from app.serving.local_engine import LocalEngine
from app.serving.model_pool import LoadedModel
from app.serving.recognizer import SpeechRecognizer
from app.serving.services import AppServices
from maskgil import inpainting
from maskgil.pipeline import TextToImage
from maskgil.sampling import remasking
from text_encoder import HuggingFaceEncoder

SECONDS = 120  # that anything here may take on a busy machine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    return TextToImage.load(tiny_model(Path(tmp_path_factory.mktemp("weights")) / "scenes"), text_encoder.load)


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    """The same model with its AR model."""
    folder = tiny_model(Path(tmp_path_factory.mktemp("paired")) / "scenes")
    tiny_ar_model(folder)
    return TextToImage.load(folder, text_encoder.load)


@pytest.fixture
def engine(model: TextToImage):
    engine = LocalEngine(lambda name: model, waiting=3, rows=4)
    yield engine
    engine.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """The engine makes one step for each release."""
    gate, together = threading.Semaphore(0), Batch._together

    def gated(batch: Batch, drawings: list[RunningJob]) -> None:
        gate.acquire(timeout=SECONDS)
        together(batch, drawings)

    monkeypatch.setattr(Batch, "_together", gated)
    return gate


def request(prompt: str = "a red cat", **settings) -> GenerationRequest:
    return GenerationRequest.read({"prompt": prompt, "seed": 7, "steps": 4, "refinement_passes": 0} | settings)


def until(condition) -> None:
    """Wait for what another thread is about to do."""
    done = threading.Event()
    for _ in range(SECONDS * 100):
        if condition():
            return
        done.wait(0.01)
    raise AssertionError("it never came true")


def test_a_job_draws_what_the_pipeline_draws(engine: LocalEngine, model: TextToImage):
    query = request(n=2)
    job = engine.submit(query)
    assert job.wait(SECONDS) and job.status is Status.DONE, job.error
    expected = model.images([query.prompt] * 2, [7, 8], settings=query.params)
    assert [image.tobytes() for image in job.pictures()] == [image.tobytes() for image in expected]
    assert job.request.size == (64, 64)


def test_every_step_is_an_event(engine: LocalEngine):
    seen = []
    job = engine.submit(request(guidance=4.0, interval=(0.0, 1.0)))
    job.on_change(lambda: seen.append((job.status, len(job.frames))))
    assert job.wait(SECONDS)
    assert [(frame.step, frame.total, frame.nfe) for frame in job.frames] == [
        (1, 4, 2),
        (2, 4, 4),
        (3, 4, 6),
        (4, 4, 8),
    ]
    assert seen[-1] == (Status.DONE, 4)
    masked = [int(frame.grid.mask.sum()) for frame in job.frames]
    assert masked == sorted(masked, reverse=True) and masked[-1] == 0
    alpha = torch.tensor(list(job.preview(0)[0].getchannel("A").get_flattened_data()))
    assert (alpha < 255).sum() == masked[0] * 64, "a masked token is a transparent cell of 8 x 8 pixels"


def test_revisions_are_told_apart_and_who_makes_none_says_so(engine: LocalEngine):
    job = engine.submit(request(refinement_passes=2, guidance=2.0))
    assert (
        job.wait(SECONDS) and [frame.total for frame in job.frames] == [6] * 6 and job.frames[-1].refinement_passes == 2
    )
    assert job.frames[-1].nfe == 7 + 3 + 3, "the last step lies outside the interval, and so does a refinement pass"
    assert not job.frames[3].grid.mask.any() and (job.frames[-1].grid.unmasked_at >= 4).any()


def test_the_best_of_several_candidates_is_shown_from_its_beginning(engine: LocalEngine, model: TextToImage):
    query = request(n=2, candidates=2, refinement_passes=1, temperature=1.0, seed=8, guidance=2.0)
    job = engine.submit(query)
    assert job.wait(SECONDS) and job.status is Status.DONE, job.error
    *_, last = model.draw([query.prompt] * 2, [8, 9], settings=query.params)
    expected = model.images_of(last.canvas)
    assert [image.tobytes() for image in job.pictures()] == [image.tobytes() for image in expected]
    assert job.frames[-1].nfe == last.nfe == 2 * (7 + 3 + 2) and len(job.frames) == 5
    final = job.frames[-1].grid
    for frame in job.frames:  # what was decided by then, and not remasked later, is what it became
        kept = ~frame.grid.mask & (frame.grid.unmasked_at == final.unmasked_at)
        assert len(frame.grid) == 2 and kept.any() and torch.equal(frame.grid.tokens[kept], final.tokens[kept])
    alone = engine.submit(request(n=2, refinement_passes=1, temperature=1.0, seed=8))
    assert alone.wait(SECONDS)
    assert any(not torch.equal(frame.grid.tokens, other.grid.tokens)
               for frame, other in zip(job.frames, alone.frames, strict=True)), "another candidate won"  # fmt: skip


def test_candidates_take_room_and_growing_pictures_have_them_too(engine: LocalEngine):
    with pytest.raises(ValueError, match="5 pictures with 4 candidates each are 20 drawings, and at most 16"):
        request(n=5, candidates=4)
    with pytest.raises(ValueError, match="candidates is 0"):
        request(candidates=0)
    first = engine.submit(request(candidates=2))
    assert first.wait(SECONDS)
    grown = engine.submit(request("a red cat on the beach", candidates=4), after=first)
    assert grown.wait(SECONDS) and grown.status is Status.DONE and grown.previous is not None, grown.error
    assert len(grown.frames[-1].grid) == 1 and not grown.frames[-1].grid.mask.any()
    small = LocalEngine(lambda name: engine.load(name).model, rows=3)
    with pytest.raises(ValueError, match="4 pictures at once: at most 3"):
        small.submit(request(candidates=4))


def test_an_unguided_job_costs_half(engine: LocalEngine):
    job = engine.submit(request(guidance=1.0))
    assert job.wait(SECONDS) and job.frames[-1].nfe == 4


def test_rows_of_several_jobs_share_a_step_and_draw_what_they_draw_alone(model: TextToImage):
    requests = [
        request("a red cat", steps=6, seed=1, guidance=2.0),
        request("two dogs on the beach at night", steps=3, seed=2, guidance=1.0, n=2),
        request("an apple", steps=5, seed=3, order="halton", temperature=0.5, guidance=2.0, interval=(0.3, 0.9)),
    ]

    def begin(query: GenerationRequest) -> RunningJob:
        query = query.fit(list(model.sizes), 8)
        return RunningJob.begin(model, lambda prompt: model.condition([prompt]), query)

    def finish(batch: Batch) -> None:
        assert not list(batch.step())
        batch.drawings = [drawing for drawing in batch.drawings if not drawing.is_done]

    alone = [begin(query) for query in requests]
    for drawing in alone:
        batch = Batch(model)
        batch.drawings.append(drawing)
        while batch.drawings:
            finish(batch)
    company, batch = [begin(query) for query in requests], Batch(model)
    for drawing in company:  # each joins while the others are on their way
        batch.drawings.append(drawing)
        finish(batch)
    while batch.drawings:
        finish(batch)
    for one, other in zip(alone, company, strict=True):
        assert torch.equal(one.grid.tokens, other.grid.tokens)
        assert one.nfe == other.nfe


@pytest.fixture
def four_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judged by the words alone, all that a tiny model has drawn fits all words: here its neighbours have a say."""
    monkeypatch.setattr(remasking, "remask_changed", functools.partial(remasking.remask_changed, masks=4))


def test_a_job_goes_on_from_anothers_canvas(engine: LocalEngine, four_masks: None):
    first = engine.submit(request(guidance=1.0))
    assert first.wait(SECONDS)
    second = engine.submit(request("two dogs on the beach at night", guidance=1.0), after=first)
    assert second.wait(SECONDS) and second.status is Status.DONE, second.error
    before, after = first.frames[-1].grid, second.frames[-1].grid
    kept = after.unmasked_at < 4
    assert 0 < kept.float().mean() < 1, "these words leave something, and not everything"
    assert torch.equal(after.tokens[kept], before.tokens[kept]) and not after.mask.any()
    last = second.frames[-1]
    assert last.nfe == 8 + last.total and last.total <= 4, (
        "four masks under two texts, then the unguided steps that are left"
    )
    assert second.request.edit == "grown out of “a red cat”"


def test_a_job_of_the_same_words_is_done_at_once(engine: LocalEngine, four_masks: None):
    first = engine.submit(request(n=2))
    assert first.wait(SECONDS)
    again = engine.submit(request(n=2), after=first)
    assert again.wait(SECONDS) and again.status is Status.DONE, again.error
    assert [(frame.step, frame.total, frame.nfe) for frame in again.frames] == [(1, 1, 8)]
    assert [image.tobytes() for image in again.pictures()] == [image.tobytes() for image in first.pictures()]


def test_a_job_goes_on_from_a_canvas_that_is_not_finished(engine: LocalEngine, gate: threading.Semaphore):
    first = engine.submit(request())
    gate.release()
    until(lambda: first.frames)
    second = engine.submit(request("a red cat on grass"), after=first)
    third = engine.submit(request("a red cat on grass at night"), after=second)
    assert second.previous is not None and third.previous is second.previous, "the second had not begun"
    first.cancel()
    second.cancel()
    gate.release(9)
    assert third.wait(SECONDS) and third.status is Status.DONE, third.error


@pytest.mark.parametrize("change", [{"size": (96, 64)}, {"n": 2}])
def test_a_job_of_another_kind_begins_afresh(engine: LocalEngine, change: dict):
    first = engine.submit(request())
    assert first.wait(SECONDS)
    second = engine.submit(request("a dog", **change), after=first)
    assert second.previous is None and second.request.edit == ""


def test_jobs_that_wait_are_drawn_in_their_order_and_together(engine: LocalEngine, gate: threading.Semaphore):
    first = engine.submit(request(n=4))
    until(lambda: first.status is Status.RUNNING)
    waiting = [engine.submit(request(seed=seed)) for seed in (1, 2, 3)]
    assert [job.position for job in waiting] == [1, 2, 3]
    with pytest.raises(ValueError, match="3 jobs are waiting"):
        engine.submit(request())
    gate.release(4 + 4)  # the four steps of the first; then four steps that the other three share
    assert all(job.wait(SECONDS) and job.status is Status.DONE for job in [first, *waiting])
    assert not gate.acquire(blocking=False), "the three shared their steps"


def test_cancel_takes_effect_before_the_next_step_and_for_that_job_alone(
    engine: LocalEngine, gate: threading.Semaphore
):
    kept, dropped = engine.submit(request(seed=1)), engine.submit(request(seed=2))
    gate.release()
    until(lambda: kept.frames and not kept.is_done)
    assert engine.cancel(dropped.id)
    gate.release(8)
    assert dropped.wait(SECONDS) and dropped.status is Status.CANCELLED
    assert len(dropped.frames) <= 2, "at most the step that was being made"
    assert kept.wait(SECONDS) and kept.status is Status.DONE
    assert not engine.cancel(dropped.id) and not engine.cancel("nobody")


def test_a_waiting_job_can_be_cancelled(engine: LocalEngine, gate: threading.Semaphore):
    first, second = engine.submit(request(n=4)), engine.submit(request())
    engine.cancel(second.id)
    assert second.wait(SECONDS) and second.status is Status.CANCELLED and not second.frames
    gate.release(4)
    assert first.wait(SECONDS) and first.status is Status.DONE


def test_a_fault_in_one_job_ends_that_job_alone(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch):
    together = Batch._together

    def faulty(batch: Batch, drawings: list[RunningJob]) -> None:
        if any(13 in drawing.plan[0].seeds.tolist() for drawing in drawings):
            raise RuntimeError("a bug")
        together(batch, drawings)

    monkeypatch.setattr(Batch, "_together", faulty)
    good, bad, later = (engine.submit(request(seed=seed)) for seed in (1, 13, 2))
    assert all(job.wait(SECONDS) for job in (good, bad, later))
    assert (good.status, bad.status, later.status) == (Status.DONE, Status.FAILED, Status.DONE)
    assert "a bug" in bad.error and "try again" in bad.error


def test_what_follows_a_job_cannot_harm_the_engine(engine: LocalEngine):
    def spoil(job) -> None:
        raise OSError("disk full")

    assert engine.submit(request(), finished=spoil).wait(SECONDS)
    finished = []
    job = engine.submit(request(), finished=finished.append)
    assert job.wait(SECONDS) and finished == [job]


def test_a_text_is_read_once(engine: LocalEngine):
    jobs = [engine.submit(request("a dog", seed=seed, negative="a cat")) for seed in (1, 2)]
    assert all(job.wait(SECONDS) and job.status is Status.DONE for job in jobs)
    assert engine.load("scenes").encode.cache_info().misses == 2


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        (request(size=(65, 64)), "cannot draw 65x64"),
        (request(steps=65), "at most 64 steps"),
        (request(n=5), "at most 4"),
    ],
)
def test_what_the_model_cannot_draw_is_refused_at_once(engine: LocalEngine, query: GenerationRequest, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        engine.submit(query)


@pytest.mark.parametrize("texts", [{"prompt": "cat " * 100}, {"negative_prompt": "cat " * 100}])
def test_a_text_of_too_many_words_is_refused_at_once_in_the_encoders_own_line(
    engine: LocalEngine, texts: dict[str, str]
):
    with pytest.raises(ValueError, match="has 101 tokens, this text encoder reads 24") as refusal:
        engine.submit(replace(request(), **texts))
    assert "\n" not in str(refusal.value)


def test_a_text_that_an_encoder_would_cut_is_refused_at_once(model: TextToImage, tmp_path: Path):
    """Encoders of Hugging Face cut captions in training; what a person says is read to its end, or not at all."""
    make_t5(tmp_path, d_model=16)
    encoder = HuggingFaceEncoder(str(tmp_path), length=5)
    cutting = TextToImage(model.generator, encoder, model.tokenizer, model.sizes, model.vocabulary)
    engine = LocalEngine(lambda name: cutting)
    try:
        for texts in ({"prompt": "cat " * 6}, {"negative_prompt": "cat " * 6}):
            with pytest.raises(ValueError, match="has 6 tokens, this text encoder reads 5: shorten it"):
                engine.submit(replace(request(), **texts))
        job = engine.submit(request("cat " * 5))
        assert job.wait(SECONDS) and job.status is Status.DONE
    finally:
        engine.close()


def test_a_model_that_is_not_there_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MASKGIL_WEIGHTS", str(tmp_path))
    with pytest.raises(ValueError, match="no model named .scenes.*maskgil train"):
        LocalEngine().submit(request())


def test_a_browser_finds_its_own_jobs_and_an_old_one_is_forgotten(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.serving.job_table.MAX_JOBS_KEPT", 2)
    jobs = []
    for seed in range(4):
        jobs.append(engine.submit(request(seed=seed), owner="me"))
        assert jobs[-1].wait(SECONDS)
    assert engine.jobs("me") == jobs[-2:] and engine.jobs("you") == []
    assert engine.job(jobs[-1].id) is jobs[-1] and engine.job(jobs[0].id) is None


def test_jobs_that_are_over_hold_no_more_than_the_bound(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch):
    """Counted in bytes: pictures with a preview, and every step of the batch they were part of."""
    first = engine.submit(request(n=2), owner="me")
    assert first.wait(SECONDS)
    # Of 64 tokens each: a code, the step that decided it (8 bytes each), how surely (4), whether it is a masked token
    # (1).
    assert 2 * 64 * 64 * 4 * 3 + 4 * 2 * 64 * 21 <= first.weight <= 2 * 64 * 64 * 4 * 3 + 6 * 2 * 64 * 21
    monkeypatch.setattr("app.serving.job_table.MAX_JOB_BYTES", 2 * first.weight)
    jobs = [first]
    for seed in range(4):
        jobs.append(engine.submit(request(n=2, seed=seed), owner="me"))
        assert jobs[-1].wait(SECONDS)
        until(lambda: sum(job.weight for job in engine.jobs("me")) <= 2 * first.weight)
    assert engine.jobs("me") == jobs[-2:]
    monkeypatch.setattr("app.serving.job_table.MAX_JOB_BYTES", 1)
    jobs.append(engine.submit(request(seed=9), owner="me"))
    assert jobs[-1].wait(SECONDS)
    until(lambda: engine.jobs("me") == jobs[-1:])  # whoever waited for it can still look at it


def test_two_hundred_jobs_of_one_visitor_leave_room_for_another(model: TextToImage, gate: threading.Semaphore):
    engine = LocalEngine(lambda name: model)
    first = engine.submit(request(n=16), owner="crowd")
    until(lambda: first.status is Status.RUNNING)
    taken, refused = [], 0
    for seed in range(200):
        try:
            taken.append(engine.submit(request(seed=seed), owner="crowd"))
        except ValueError as error:
            assert "8 jobs of yours are waiting" in str(error)
            refused += 1
    assert (len(taken), refused) == (8, 192)
    other = engine.submit(request(), owner="other")
    assert other.position == 9
    gate.release(8)  # four steps of the first, four that all others share
    assert all(job.wait(SECONDS) and job.status is Status.DONE for job in [first, *taken, other])
    engine.close()


def test_closing_ends_what_is_going_on(model: TextToImage, gate: threading.Semaphore):
    engine = LocalEngine(lambda name: model)
    job = engine.submit(request())
    gate.release(4)
    engine.close()
    assert job.is_done
    with pytest.raises(ValueError, match="shut down"):
        engine.submit(request())


@pytest.fixture
def duet(paired: TextToImage):
    engine = LocalEngine(lambda name: paired)
    yield engine
    engine.close()


@pytest.mark.parametrize(
    "query",
    [
        request(mode="ar", n=2),
        request(mode="hybrid", ar_tokens=20, n=2, guidance=2.0, temperature=0.7),
        request(mode="hybrid", ar_tokens=64),
        request(mode="hybrid", ar_tokens=0),
        request(mode="hybrid", ar_tokens=5, negative="a dog"),
        request(mode="hybrid", ar_tokens=20, n=2, refinement_passes=1),
    ],
    ids=["all", "some", "all of them", "none", "against a text", "revised"],
)
def test_with_the_ar_model_a_job_draws_what_the_pipeline_draws(
    duet: LocalEngine, paired: TextToImage, query: GenerationRequest
):
    job = duet.submit(query)
    assert job.wait(SECONDS) and job.status is Status.DONE, job.error
    *_, told = paired.draw([query.prompt] * query.n, query.seeds, None, query.params, negative=query.negative_prompt)
    last = job.frames[-1]
    assert torch.equal(last.grid.tokens, told.canvas.tokens)
    assert (last.step, last.total, last.nfe) == (told.step, told.of, told.nfe)
    assert [frame.step for frame in job.frames] == list(range(1, told.of + 1))


def test_half_of_the_tokens_are_the_ar_models_when_nothing_else_is_said(duet: LocalEngine):
    assert duet.submit(request(mode="ar", refinement_passes=1)).request.params.refinement_passes == 0, (
        "the AR model alone makes none"
    )
    job = duet.submit(request(mode="hybrid"))
    assert job.request.params.ar_tokens == 32 and job.wait(SECONDS) and job.frames[-1].total == 32 + 4


def test_of_the_ar_models_steps_one_a_line_is_shown(duet: LocalEngine):
    job = duet.submit(request(mode="hybrid", ar_tokens=20))
    assert job.wait(SECONDS)
    assert [job.frames[i].step for i in job.preview_steps] == [8, 16, 20, 21, 22, 23, 24]
    first = job.preview(7)
    assert job.preview(7) is first, "to look again costs nothing"
    assert job.preview(15)[0].tobytes() != first[0].tobytes() and job.preview(7)[0].tobytes() == first[0].tobytes()


def test_after_its_ar_model_a_job_shares_the_batch_of_the_others(paired: TextToImage, monkeypatch: pytest.MonkeyPatch):
    """Four jobs: two that their AR models begin, two of MaskGIL alone. The AR models go by themselves and hold nobody
    up."""
    steps, together, begun = [], Batch._together, threading.Event()

    def watched(batch: Batch, drawings: list[RunningJob]) -> None:
        begun.wait(SECONDS)
        steps.append([(int(drawing.plan[0].seeds[0]), drawing.done) for drawing in drawings])
        together(batch, drawings)

    monkeypatch.setattr(Batch, "_together", watched)
    engine = LocalEngine(lambda name: paired)
    requests = [request(seed=seed, mode="hybrid", ar_tokens=8, steps=6) for seed in (1, 2)]
    requests += [request(seed=seed, steps=16) for seed in (3, 4)]
    jobs = [engine.submit(query) for query in requests]
    begun.set()
    assert all(job.wait(SECONDS) and job.status is Status.DONE for job in jobs)
    engine.close()
    written = [step for step in steps if any(seed < 3 and done < 8 for seed, done in step)]
    assert len(written) == 16 and all(len(step) == 1 for step in written)
    shared = [step for step in steps if step not in written]
    assert max(len(step) for step in shared) == 4, "all four took a step together"
    for seed in (1, 2):
        assert [done for step in shared for one, done in step if one == seed] == list(range(8, 14))
    while steps and steps[-1] not in written:
        steps.pop()
    turns = [step in written for step in steps]
    assert not any(all(turns[i : i + 4]) for i in range(1, len(turns) - 3)), (
        "between two rounds of AR models, the others"
    )
    for job, query in zip(jobs, requests, strict=True):
        (alone,) = paired.images([query.prompt], [query.seed], settings=query.params)
        assert job.pictures()[0].tobytes() == alone.tobytes()


@pytest.mark.parametrize("after", [5, 10])
def test_a_job_is_cancelled_in_either_phase(duet: LocalEngine, gate: threading.Semaphore, after: int):
    job = duet.submit(request(mode="hybrid", ar_tokens=8, steps=8))
    gate.release(after)
    until(lambda: len(job.frames) == after)
    job.cancel()
    gate.release(20)
    assert job.wait(SECONDS) and job.status is Status.CANCELLED and len(job.frames) <= after + 1
    until(lambda: not duet._batches)


def test_a_painted_over_part_can_be_begun_by_the_ar_model(duet: LocalEngine, paired: TextToImage):
    query, image = request(mode="hybrid", ar_tokens=3), paired.images(["a cat"], [1])[0]
    start = inpainting.inpainting_input(paired, image, [0, 9, 10, 30, 63])
    job = duet.submit(query, start=start)
    assert job.wait(SECONDS) and job.status is Status.DONE, job.error
    assert [frame.total for frame in job.frames] == [3 + 2] * 5
    assert torch.equal(job.frames[-1].grid.tokens[0, ~start.mask], start.tokens[~start.mask])


def test_without_an_ar_model_one_line_says_so_at_once(engine: LocalEngine):
    for mode in ("ar", "hybrid"):
        with pytest.raises(ValueError, match="no AR model.*draw in mode masked"):
            engine.submit(request(mode=mode))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"mode": "both"}, "choose one of masked, hybrid, ar"),
        ({"ar_tokens": 4}, "mode is masked: ar_tokens needs mode hybrid"),
        ({"mode": "ar", "ar_tokens": 4}, "mode is ar: ar_tokens needs mode hybrid"),
        ({"mode": "hybrid", "ar_tokens": 65}, "a 64x64 picture has 64 tokens, give 0 to 64"),
        ({"mode": "hybrid", "ar_tokens": -1}, "ar_tokens is -1"),
    ],
    ids=str,
)
def test_modes_that_do_not_go_together_are_refused(duet: LocalEngine, change: dict, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        duet.submit(request(**change))


def test_three_d_is_read_as_the_model_learned_to_write_it(model: TextToImage):
    words = TextToImage(
        model.generator, model.text_encoder, model.tokenizer, model.sizes,
        model.vocabulary | {"words": [*model.vocabulary["words"], "3d"]},
    )  # fmt: skip
    spoken, written = ("a three d cat", "a Three-D dog"), ("a 3d cat", "a 3d dog")
    for one, other in zip(spoken, written, strict=True):
        assert torch.equal(LoadedModel(words).encode(one).states, model.condition([other]).states)
        assert torch.equal(LoadedModel(model).encode(one).states, model.condition([one]).states), "a word it never saw"


def test_a_class_driven_folder_is_drawn_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MASKGIL_WEIGHTS", str(tmp_path))
    tiny_classes(tmp_path / "animals")
    engine = LocalEngine()
    by_number, by_name = (engine.submit(request(prompt, model="animals", guidance=2.0)) for prompt in ("1", "Goldfish"))
    with pytest.raises(ValueError, match="no class is called 'a cat'"):
        engine.submit(request("a cat", model="animals"))
    assert all(job.wait(SECONDS) for job in (by_number, by_name))
    engine.close()
    assert by_number.pictures()[0].tobytes() == by_name.pictures()[0].tobytes()


def test_a_precision_that_there_is_no_memory_for_takes_nobodys_model_away(engine: LocalEngine):
    there, found = engine.load("scenes"), []

    def find(name: str, dtype: torch.dtype = torch.float32) -> TextToImage:
        found.append(dtype)
        if dtype != torch.float32:
            raise ValueError("it takes 3 GB")
        return there.model

    crowded = LocalEngine(find)
    before = crowded.load("scenes")
    with pytest.raises(ValueError, match="3 GB"):
        crowded.load("scenes", torch.bfloat16)
    assert crowded.load("scenes") is before and crowded.loaded() == ["scenes"]
    crowded.unload("scenes")
    assert crowded.load("scenes").model is there.model and found == [torch.float32, torch.bfloat16, torch.float32]


def test_a_page_that_looks_again_gets_what_was_encoded_before(engine: LocalEngine):
    job = engine.submit(request(n=2))
    assert job.wait(SECONDS)
    first = job.data_urls()
    assert job.data_urls() is first and len(first) == 2
    assert first == [png.data_uri(image) for image in job.pictures()]
    for frame in job.preview_steps:
        alone, among = (np.asarray(image, int) for image in (job.preview_of_row(frame, 1), job.preview(frame)[1]))
        assert np.abs(alone - among).max() <= 1, "decoded by itself, but for rounding"


def test_a_listener_that_fails_harms_nobody(engine: LocalEngine):
    def spoil() -> None:
        if job.frames:
            raise FileNotFoundError("no gallery")

    job = engine.submit(request())
    job.on_change(spoil)
    other = engine.submit(request(seed=2))
    assert job.wait(SECONDS) and other.wait(SECONDS)
    assert (job.status, other.status) == (Status.DONE, Status.DONE), "its picture is there all the same"
    later = engine.submit(request(seed=3))
    assert later.wait(SECONDS) and later.status is Status.DONE, "the worker is alive"


def test_a_picture_that_cannot_be_kept_is_a_note_and_not_the_end(model: TextToImage, tmp_path: Path):
    gallery = Gallery(tmp_path / "gallery")
    services = AppServices(LocalEngine(lambda name: model), SpeechRecognizer("nobody"), gallery)
    gallery.add = lambda *picture: (_ for _ in ()).throw(FileNotFoundError("the folder is gone"))  # fails as it is used
    job = services.draw(request(), "me-1234567")
    assert job.wait(SECONDS) and job.status is Status.DONE
    assert "cannot be kept (FileNotFoundError: the folder is gone)" in job.note
    services.engine.close()


def test_two_who_keep_a_job_at_once_keep_it_once(model: TextToImage, tmp_path: Path):
    services = AppServices(LocalEngine(lambda name: model), SpeechRecognizer("nobody"), Gallery(tmp_path / "gallery"))
    job = services.engine.submit(request(), "me-1234567")
    assert job.wait(SECONDS)
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(services.keep, [job] * 8))
    assert sorted(map(len, kept)) == [0] * 7 + [1] and len(services.gallery.entries("me-1234567")) == 1
    services.engine.close()


def test_a_fault_between_two_steps_ends_that_job_alone(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch):
    after = StepSnapshot.after

    def faulty(drawing: RunningJob) -> StepSnapshot:
        if 13 in drawing.plan[0].seeds.tolist():
            raise KeyError("a bug")
        return after(drawing)

    monkeypatch.setattr(StepSnapshot, "after", staticmethod(faulty))
    good, bad, later = (engine.submit(request(seed=seed)) for seed in (1, 13, 2))
    assert all(job.wait(SECONDS) for job in (good, bad, later))
    assert (good.status, bad.status, later.status) == (Status.DONE, Status.FAILED, Status.DONE)
    assert "KeyError" in bad.error


def test_a_fault_of_a_batch_ends_its_jobs_and_not_the_worker(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch):
    step = Batch.step

    def faulty(batch: Batch):
        if batch.drawings[0].grid.grid == (8, 12):
            raise MemoryError("no room")
        return step(batch)

    monkeypatch.setattr(Batch, "step", faulty)
    bad, good = engine.submit(request(size=(96, 64))), engine.submit(request())
    assert bad.wait(SECONDS) and bad.status is Status.FAILED and "MemoryError" in bad.error
    assert good.wait(SECONDS) and good.status is Status.DONE


def test_while_a_model_loads_those_in_memory_are_drawn_with(model: TextToImage):
    """And two who want the same one wait for one loading of it."""
    asked, there = [], threading.Event()

    def find(name: str) -> TextToImage:
        asked.append(name)
        if name == "slow":
            assert there.wait(SECONDS)
        if name == "broken":
            raise ValueError("no model 'broken'")
        return model

    engine = LocalEngine(find)
    engine.load("scenes")
    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(engine.load, "slow") for _ in range(2)]
        until(lambda: "slow" in asked)
        job = engine.submit(request())
        assert job.wait(SECONDS) and job.status is Status.DONE and engine.loaded() == ["scenes"]
        engine.load("other")  # nor does another model wait for it
        with pytest.raises(ValueError, match="broken"):
            engine.load("broken")
        assert not any(loading.done() for loading in slow)
        there.set()
        assert slow[0].result(SECONDS) is slow[1].result(SECONDS)
    assert sorted(asked) == ["broken", "other", "scenes", "slow"] and not engine.models.loading
    engine.close()


def test_two_hundred_jobs_of_two_hundred_visitors(model: TextToImage, gate: threading.Semaphore):
    """What waits is bounded, whoever it is of; those beyond are told, and those taken are drawn."""
    engine = LocalEngine(lambda name: model)
    first = engine.submit(request(n=16), owner="first")
    until(lambda: first.status is Status.RUNNING)

    def ask(seed: int) -> Job | str:
        try:
            return engine.submit(request(seed=seed, steps=1), owner=f"visitor {seed}")
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, range(200)))
    taken = [answer for answer in answers if isinstance(answer, Job)]
    refused = {answer for answer in answers if isinstance(answer, str)}
    assert len(taken) == MAX_WAITING
    assert refused == {"64 jobs are waiting, which is all there is room for: try again soon"}
    gate.release(4 + 64)
    assert all(job.wait(SECONDS) and job.status is Status.DONE for job in [first, *taken])
    until(lambda: len(engine.table.jobs) <= MAX_JOBS_KEPT and not engine._batches and not engine._job_of)
    assert sum(job.weight for job in engine.table.jobs.values()) <= MAX_JOB_BYTES
    engine.close()


def test_whoever_comes_first_builds_the_house_and_others_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def slow(folder: Path) -> Gallery:
        threading.Event().wait(0.2)  # many pictures to read
        return Gallery(folder)

    monkeypatch.setattr(app_services, "Gallery", slow)
    monkeypatch.setenv("MASKGIL_GALLERY", str(tmp_path / "gallery"))
    app_services.forget_services()
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: app_services.get_services(), range(4)))) == 1
    app_services.forget_services()
