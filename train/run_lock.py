"""One run a folder: a lock that a second run into the same folder meets before it writes anything."""

import fcntl
import os
import socket
from pathlib import Path
from typing import TextIO

import torch
import torch.distributed as dist

FILE = "run.lock"


class RunLock:
    """Held by the first process of a run, from `acquire` to `release`.

    A record lock: the system frees it when the process ends, however it ends, and data workers do not inherit it.
    """

    def __init__(self, folder: Path):
        self.path = folder / FILE
        self.file: TextIO | None = None

    def acquire(self, rank: int, device: torch.device) -> None:
        """ValueError in every process of the run when another run holds the folder."""
        holder = self._acquire() if rank == 0 else ""
        if dist.is_initialized():
            held = torch.tensor(float(bool(holder)), device=device)
            dist.all_reduce(held, op=dist.ReduceOp.MAX)
            holder = holder or ("another run" if held else "")
        if holder:
            raise ValueError(
                f"{holder} is training in {self.path.parent}: wait for its end, stop it, or give another folder"
            )

    def _acquire(self) -> str:
        """Empty when the lock was taken, else who holds it."""
        file = self.path.open("a+")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            name = file.read().strip()
            file.close()
            return name or "another run"
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        self.file = file
        return ""

    def release(self) -> None:
        if self.file is not None:
            self.file.truncate(0)
            self.file.close()  # the file stays: whoever opened it before a removal would hold another one's lock
            self.file = None
