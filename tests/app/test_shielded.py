"""Work on threads whose task is cancelled: nothing that it began is left behind."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.serving.shielded import run_or_undo

SECONDS = 60


@pytest.mark.parametrize("fails", [False, True])
def test_a_result_that_nobody_takes_is_undone(fails: bool):
    begun, go, undone = threading.Event(), threading.Event(), []

    def work(value: str) -> str:
        begun.set()
        assert go.wait(SECONDS)
        if fails:
            raise ValueError("no result")
        return value

    async def cancelled(executor: ThreadPoolExecutor) -> None:
        task = asyncio.create_task(run_or_undo(undone.append, work, "job", executor=executor))
        assert await asyncio.to_thread(begun.wait, SECONDS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not undone, "the work goes on"
        go.set()

    with ThreadPoolExecutor(1) as executor:  # it ends when the work has
        asyncio.run(cancelled(executor))
    assert undone == ([] if fails else ["job"])


def test_work_that_is_cancelled_before_its_thread_is_free_is_not_done():
    go, done = threading.Event(), []

    async def cancelled(executor: ThreadPoolExecutor) -> None:
        executor.submit(go.wait, SECONDS)
        task = asyncio.create_task(run_or_undo(done.append, done.append, "job", executor=executor))
        await asyncio.sleep(0)  # it waits for the thread
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()

    with ThreadPoolExecutor(1) as executor:
        asyncio.run(cancelled(executor))
    assert done == []


def test_a_result_that_is_taken_stays():
    undone: list[int] = []
    assert asyncio.run(run_or_undo(undone.append, lambda: 5)) == 5 and undone == []
