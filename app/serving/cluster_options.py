"""The options of `maskgil serve` about its replicas."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg


@dataclass(frozen=True)
class ClusterOptions:
    """How many replicas draw and transcribe, and where."""

    replicas: int = 2
    """Replicas that draw. Each has its own copy of the models."""
    recognizers: int = 1
    """Replicas that transcribe."""
    threads: int = 0
    """PyTorch threads and CPUs of a replica. 0: an equal share of this machine's cores; in a cluster 1."""
    gpus: float = 0.0
    """GPUs of a replica that draws; 0.5 puts two of them on one GPU."""
    cluster: Annotated[str | None, arg(metavar="ADDRESS")] = None
    """A Ray cluster, such as auto or 10.0.0.1:6379, where replicas run or are started. Left out: only this machine."""
    waiting: int = 64
    """Jobs that may wait in this server; further ones are refused with status 429."""

    def __post_init__(self) -> None:
        if self.replicas < 1 or self.recognizers < 1 or self.waiting < 1:
            raise ValueError("--replicas, --recognizers and --waiting must be at least 1")
        if self.threads < 0 or self.gpus < 0:
            raise ValueError("--threads and --gpus must not be below 0")
