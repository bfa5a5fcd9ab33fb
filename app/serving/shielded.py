"""Work on a thread that outlives the task that waits for it.

A task that is cancelled while a thread works for it gets no result, though the thread goes on and may have one: a job
that nobody would ever cancel.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


async def run_to_end(work: Callable[..., Any], *arguments: Any) -> Any:
    """Runs `work` on a thread, also if this task is cancelled before the thread is free."""
    return await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, work, *arguments))


async def run_or_undo(
    undo: Callable[[Any], object], work: Callable[..., Any], *arguments: Any, executor: Executor | None = None
) -> Any:
    """Runs `work` on a thread. If this task is cancelled meanwhile, `undo` is called with the result once it is there.

    `undo` is called on the thread of the work; it is not called where the work raises. `executor`: None: the loop's.
    """
    done: Future[Any] = Future()  # of the work, whatever becomes of this task

    def run() -> Any:
        try:
            result = work(*arguments)
        except BaseException as error:
            done.set_exception(error)
            raise
        done.set_result(result)
        return result

    def undo_result(ended: "Future[Any]") -> None:
        if ended.exception() is None:
            undo(ended.result())

    try:
        return await asyncio.get_running_loop().run_in_executor(executor, run)
    except asyncio.CancelledError:
        done.add_done_callback(undo_result)  # at once where the work is done; never where it was not begun
        raise
