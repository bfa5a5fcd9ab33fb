"""A lock that keeps a second run from writing into the folder of a run."""

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

    It is a record lock: the system releases it when the process ends for any reason, and data workers do not inherit
    it.
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
        """An empty string when the lock was taken, else who holds it."""
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
            # The file stays: a process that opened it before a removal would lock a file that is gone.
            self.file.close()
            self.file = None
