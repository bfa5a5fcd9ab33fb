"""Reads a run's batches in worker processes, from any batch number on."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from safetensors import SafetensorError
from torch.utils.data import DataLoader, Dataset

from train.recipe import Recipe


class _Batches(Dataset):
    def __init__(self, batch_at: Callable[[int], dict], start: int, stop: int, rank: int, world: int):
        self.batch_at, self.start, self.stop, self.rank, self.world = batch_at, start, stop, rank, world

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> dict:
        return self.batch_at((self.start + index) * self.world + self.rank)


def _quiet(_: int) -> None:
    """Let a worker use one core and ignore signals. Ctrl-C and Slurm signal every process of a run; without workers
    the main process could not finish its step and save."""
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def open_loader(recipe: Recipe, first: int, count: int, rank: int, world: int) -> Iterator[dict]:
    """`count` batches of process `rank` of `world`: numbers (first + i) * world + rank.

    PyTorch's SIGCHLD handler raises an error at whatever line the run executes when a worker dies, even inside a
    checkpoint or an optimizer step. It is removed here; `fetch_batches` sets a handler while it waits.
    """
    before = signal.getsignal(signal.SIGCHLD)
    loader = iter(
        DataLoader(
            _Batches(recipe.batch_at, first, first + count, rank, world),
            batch_size=None,
            num_workers=recipe.workers,
            prefetch_factor=4 if recipe.workers else None,
            worker_init_fn=_quiet,
        )
    )
    if threading.current_thread() is threading.main_thread():  # the only one that may set a handler
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
    return loader


def fetch_batches(loader: Iterator[dict], count: int) -> tuple[list[dict], str]:
    """The next batches. ValueError when they cannot be read: a missing or cut file, a worker that was killed."""
    try:
        with _interrupted_by_dead_worker(loader):
            return [next(loader) for _ in range(count)], ""
    except (OSError, EOFError, SafetensorError, RuntimeError) as error:
        # A batch that a dead worker was sending fails as a broken connection.
        if dead := _dead_worker(loader, wait=0.1):
            return [], dead
        if isinstance(error, RuntimeError | EOFError):
            raise
        lines = str(error).strip().splitlines() or [repr(error)]
        return [], lines[-1]


@contextlib.contextmanager
def _interrupted_by_dead_worker(loader: Any) -> Iterator[None]:
    """Raise RuntimeError as soon as a worker dies. A worker that dies while it writes leaves half a batch, and reading
    the rest would never return. Only the main thread can be interrupted."""
    if not hasattr(loader, "_workers") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)

    def check(*_: object) -> None:
        if dead := _dead_worker(loader):
            raise RuntimeError(dead)

    signal.signal(signal.SIGCHLD, check)
    try:
        check()  # one that died before
        yield
    finally:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


def _dead_worker(loader: Any, wait: float = 0.0) -> str:
    """Which worker process of a loader was killed, and why; empty if none. `wait`: seconds to wait for each worker,
    because one that has closed its connection may still be ending."""
    for worker in getattr(loader, "_workers", ()):
        worker.join(wait)
        if worker.exitcode is not None and worker.exitcode < 0:
            how = f"killed by signal: {signal.strsignal(-worker.exitcode)}"
            return (
                f"DataLoader worker {worker.pid} is {how}: a file was cut while it was read (Bus error), or memory has "
                "run out (Killed)"
            )
        if worker.exitcode:
            return f"DataLoader worker {worker.pid} ended with status {worker.exitcode}: its own message is above"
    return ""


def stop_workers(loader: Any, recipe: Recipe) -> None:
    """End the workers of a loader. A traceback may keep the loader alive, and the workers ignore SIGTERM (_quiet), so
    without this call the exit of the process would never return."""
    if recipe.workers:
        loader._shutdown_workers()
