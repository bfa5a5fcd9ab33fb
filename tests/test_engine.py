"""The engine: jobs in a queue, rows of several jobs in one batch, cancel by id, one job's fault its own."""

import threading
from pathlib import Path

import pytest
import torch
from app_fixtures import tiny_model

from app.engine import Engine, Status
from app.lane import Lane, Sketch, settings
from app.request import Request
from maskgil.pipeline import Settings, TextToImage

SECONDS = 120  # that anything here may take on a busy machine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    return TextToImage.load(tiny_model(Path(tmp_path_factory.mktemp("weights")) / "scenes"))


@pytest.fixture
def engine(model: TextToImage):
    engine = Engine(lambda name: model, waiting=3, rows=4)
    yield engine
    engine.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """The engine makes one step for each release."""
    gate, together = threading.Semaphore(0), Lane._together

    def gated(lane: Lane, sketches: list[Sketch]) -> None:
        gate.acquire(timeout=SECONDS)
        together(lane, sketches)

    monkeypatch.setattr(Lane, "_together", gated)
    return gate


def request(prompt: str = "a red cat", **settings) -> Request:
    return Request(**{"prompt": prompt, "seed": 7, "steps": 4} | settings)


def until(condition) -> None:
    """Wait for what another thread is about to do."""
    done = threading.Event()
    for _ in range(SECONDS * 100):
        if condition():
            return
        done.wait(0.01)
    raise AssertionError("it never came true")


def test_defaults_are_those_of_the_pipeline():
    wish, usual = settings(request(steps=Request.steps)), Settings()
    assert wish == usual


def test_a_job_draws_what_the_pipeline_draws(engine: Engine, model: TextToImage):
    wish = request(n=2)
    job = engine.submit(wish)
    assert job.wait(SECONDS) and job.status is Status.DONE, job.error
    expected = model.images([wish.prompt] * 2, [7, 8], settings=settings(wish))
    assert [image.tobytes() for image in job.pictures()] == [image.tobytes() for image in expected]
    assert job.request.size == (64, 64)


def test_every_step_is_an_event(engine: Engine):
    seen = []
    job = engine.submit(request(guidance=4.0, interval=(0.0, 1.0)))
    job.on_change(lambda: seen.append((job.status, len(job.frames))))
    assert job.wait(SECONDS)
    assert [(frame.step, frame.of, frame.nfe) for frame in job.frames] == [(1, 4, 2), (2, 4, 4), (3, 4, 6), (4, 4, 8)]
    assert seen[-1] == (Status.DONE, 4)
    holes = [int(frame.canvas.hole.sum()) for frame in job.frames]
    assert holes == sorted(holes, reverse=True) and holes[-1] == 0
    alpha = torch.tensor(list(job.preview(0)[0].getchannel("A").get_flattened_data()))
    assert (alpha < 255).sum() == holes[0] * 64, "a hole is a transparent cell of 8 x 8 pixels"


def test_an_unguided_job_costs_half(engine: Engine):
    job = engine.submit(request(guidance=1.0))
    assert job.wait(SECONDS) and job.frames[-1].nfe == 4


def test_rows_of_several_jobs_share_a_step_and_draw_what_they_draw_alone(model: TextToImage):
    wishes = [
        request("a red cat", steps=6, seed=1),
        request("two dogs on the beach at night", steps=3, seed=2, guidance=1.0, n=2),
        request("an apple", steps=5, seed=3, order="halton", temperature=0.5, interval=(0.3, 0.9)),
    ]

    def begin(wish: Request) -> Sketch:
        wish = wish.fit(list(model.sizes), 8)
        return Sketch.begin(model, lambda prompt: model.condition([prompt]), wish)

    def finish(lane: Lane) -> None:
        assert not list(lane.step())
        lane.sketches = [sketch for sketch in lane.sketches if not sketch.over]

    alone = [begin(wish) for wish in wishes]
    for sketch in alone:
        lane = Lane(model)
        lane.sketches.append(sketch)
        while lane.sketches:
            finish(lane)
    company, lane = [begin(wish) for wish in wishes], Lane(model)
    for sketch in company:  # each joins while the others are on their way
        lane.sketches.append(sketch)
        finish(lane)
    while lane.sketches:
        finish(lane)
    for one, other in zip(alone, company, strict=True):
        assert torch.equal(one.canvas.tokens, other.canvas.tokens)
        assert one.nfe == other.nfe


def test_jobs_that_wait_are_drawn_in_their_order_and_together(engine: Engine, gate: threading.Semaphore):
    first = engine.submit(request(n=4))
    until(lambda: first.status is Status.RUNNING)
    waiting = [engine.submit(request(seed=seed)) for seed in (1, 2, 3)]
    assert [job.position for job in waiting] == [1, 2, 3]
    with pytest.raises(ValueError, match="3 jobs are waiting"):
        engine.submit(request())
    gate.release(4 + 4)  # the four steps of the first; then four steps that the other three share
    assert all(job.wait(SECONDS) and job.status is Status.DONE for job in [first, *waiting])
    assert not gate.acquire(blocking=False), "the three shared their steps"


def test_cancel_takes_effect_before_the_next_step_and_for_that_job_alone(engine: Engine, gate: threading.Semaphore):
    kept, dropped = engine.submit(request(seed=1)), engine.submit(request(seed=2))
    gate.release()
    until(lambda: kept.frames and not kept.over)
    assert engine.cancel(dropped.id)
    gate.release(8)
    assert dropped.wait(SECONDS) and dropped.status is Status.CANCELLED
    assert len(dropped.frames) <= 2, "at most the step that was being made"
    assert kept.wait(SECONDS) and kept.status is Status.DONE
    assert not engine.cancel(dropped.id) and not engine.cancel("nobody")


def test_a_waiting_job_can_be_cancelled(engine: Engine, gate: threading.Semaphore):
    first, second = engine.submit(request(n=4)), engine.submit(request())
    engine.cancel(second.id)
    assert second.wait(SECONDS) and second.status is Status.CANCELLED and not second.frames
    gate.release(4)
    assert first.wait(SECONDS) and first.status is Status.DONE


def test_a_fault_in_one_job_ends_that_job_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    together = Lane._together

    def faulty(lane: Lane, sketches: list[Sketch]) -> None:
        if any(13 in sketch.plan[0].seeds.tolist() for sketch in sketches):
            raise RuntimeError("a bug")
        together(lane, sketches)

    monkeypatch.setattr(Lane, "_together", faulty)
    good, bad, later = (engine.submit(request(seed=seed)) for seed in (1, 13, 2))
    assert all(job.wait(SECONDS) for job in (good, bad, later))
    assert (good.status, bad.status, later.status) == (Status.DONE, Status.FAILED, Status.DONE)
    assert "a bug" in bad.error and "try again" in bad.error


def test_what_follows_a_job_cannot_harm_the_engine(engine: Engine):
    def spoil(job) -> None:
        raise OSError("disk full")

    assert engine.submit(request(), finished=spoil).wait(SECONDS)
    finished = []
    job = engine.submit(request(), finished=finished.append)
    assert job.wait(SECONDS) and finished == [job]


def test_a_text_is_read_once(engine: Engine):
    jobs = [engine.submit(request("a dog", seed=seed, negative="a cat")) for seed in (1, 2)]
    assert all(job.wait(SECONDS) and job.status is Status.DONE for job in jobs)
    assert engine.load("scenes").encode.cache_info().misses == 2


@pytest.mark.parametrize(
    ("wish", "complaint"),
    [
        (request(size=(65, 64)), "cannot draw 65x64"),
        (request(steps=65), "at most 64 steps"),
        (request(n=5), "at most 4"),
    ],
)
def test_what_the_model_cannot_draw_is_refused_at_once(engine: Engine, wish: Request, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        engine.submit(wish)


def test_a_prompt_of_too_many_words_fails_with_the_encoders_own_line(engine: Engine):
    job = engine.submit(request("cat " * 100))
    assert job.wait(SECONDS) and job.status is Status.FAILED
    assert "tokens" in job.error and "\n" not in job.error


def test_a_model_that_is_not_there_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MASKGIL_WEIGHTS", str(tmp_path))
    with pytest.raises(ValueError, match="no model named 'scenes'.*python -m train"):
        Engine().submit(request())


def test_a_browser_finds_its_own_jobs_and_an_old_one_is_forgotten(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.engine.MAX_REMEMBERED", 2)
    jobs = []
    for seed in range(4):
        jobs.append(engine.submit(request(seed=seed), owner="me"))
        assert jobs[-1].wait(SECONDS)
    assert engine.jobs("me") == jobs[-2:] and engine.jobs("you") == []
    assert engine.job(jobs[-1].id) is jobs[-1] and engine.job(jobs[0].id) is None


def test_closing_ends_what_is_going_on(model: TextToImage, gate: threading.Semaphore):
    engine = Engine(lambda name: model)
    job = engine.submit(request())
    gate.release(4)
    engine.close()
    assert job.over
    with pytest.raises(ValueError, match="shut down"):
        engine.submit(request())
