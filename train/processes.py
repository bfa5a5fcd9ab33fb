"""The processes of a run: how they find each other, are asked to stop, and part."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import torch.distributed as dist
from accelerate import Accelerator


@contextlib.contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """Set by SIGTERM or the first Ctrl-C: the step in hand is finished and saved. A second Ctrl-C stops at once.
    Afterwards the signals mean again what they meant before."""
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
    """End the group of processes, all of them, while Python still runs: what a gloo thread holds of the last exchange
    needs the interpreter to be freed, and a process that is already closing down is aborted (SIGABRT) for it."""
    if dist.is_initialized():
        dist.barrier()  # nobody closes a connection that another one still reads
        dist.destroy_process_group()


def join_processes() -> Accelerator:
    """This process among those of the run. ValueError when others were started that it would not know of."""
    accelerator = Accelerator()
    if (started := int(os.environ.get("WORLD_SIZE", 1))) > accelerator.num_processes:
        raise ValueError(
            f"{started} processes were started and none would know of the others: without GPUs, set "
            "ACCELERATE_USE_CPU=true"
        )
    return accelerator
