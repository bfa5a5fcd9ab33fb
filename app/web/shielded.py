"""Work on a thread that is done to its end, whatever becomes of the task that waits for it."""

import asyncio
from collections.abc import Callable
from typing import Any


async def run_to_end(work: Callable[..., Any], *arguments: Any) -> Any:
    """Runs `work` on a thread, also if this task is cancelled before the thread is free."""
    return await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, work, *arguments))
