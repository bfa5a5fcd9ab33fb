"""The processes of a run: joining the group, stopping on a signal, leaving the group."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import torch.distributed as dist
from accelerate import Accelerator


@contextlib.contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM or the first Ctrl-C sets: the current step is finished and saved. A second Ctrl-C stops at
    once. The previous signal handlers are restored afterwards."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def shutdown_distributed() -> None:
    """End the process group in all processes while the interpreter runs. A gloo thread needs the interpreter to free
    its last buffers; in a process that is already exiting this would abort it (SIGABRT)."""
    if dist.is_initialized():
        dist.barrier()  # no process closes a connection that another one still reads
        dist.destroy_process_group()


def join_processes() -> Accelerator:
    """This process's place among those of the run. ValueError when a launcher started processes that are not joined."""
    accelerator = Accelerator()
    if (started := int(os.environ.get("WORLD_SIZE", 1))) > accelerator.num_processes:
        raise ValueError(
            f"{started} processes were started and none would know of the others: without GPUs, set "
            "ACCELERATE_USE_CPU=true"
        )
    return accelerator
