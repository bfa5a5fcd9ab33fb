"""What a benchmark measures with: clocks, memory, counted operations, and the machine that it runs on."""

import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Precision = Literal["fp32", "bf16"]


DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


PATIENCE = 120.0  # seconds after which a stage is not repeated any more


LONG = 15.0  # seconds of a warm-up that is measured, too


@dataclass(frozen=True)
class Machine:
    """What was measured of it: `bandwidth` in bytes/s, `rate` in floating-point operations/s of large matrices."""

    name: str
    bandwidth: float
    rate: float


@dataclass(frozen=True)
class Stage:
    """Something to time. `bytes` and `operations` are what it cannot do without."""

    name: str
    run: Callable[[], object]
    bytes: float
    operations: float
    machine: Machine | None = None  # what it runs on, if not what the generator does; a precision has a rate of its own


@dataclass(frozen=True)
class Timed:
    stage: Stage
    seconds: float  # median
    runs: int
    peak: float  # bytes

    def floor(self, machine: Machine) -> float:
        """Seconds."""
        machine = self.stage.machine or machine
        return max(self.stage.bytes / machine.bandwidth, self.stage.operations / machine.rate)


def measure_machine(device: torch.device, dtype: torch.dtype, side: int | None = None, megabytes: int = 256) -> Machine:
    """Bandwidth by copying, rate by multiplying square matrices of `side`: the best of five. A GPU reaches its rate
    only in large ones."""
    side = side or (8192 if device.type == "cuda" else 2048)
    source = torch.ones(megabytes * 2**20 // 4, device=device)
    target = torch.empty_like(source)
    a = torch.randn(side, side, device=device).to(dtype)
    copying = min(seconds_of(lambda: target.copy_(source), device) for _ in range(6))
    multiplying = min(seconds_of(lambda: a @ a, device) for _ in range(6))
    return Machine(machine_name(device), 2 * source.nbytes / copying, 2 * side**3 / multiplying)


def machine_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return f"{cpu}, {torch.get_num_threads()} of {os.cpu_count()} cores"


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    _finish(device)
    since = time.perf_counter()
    run()
    _finish(device)
    return time.perf_counter() - since


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget_peak(device: torch.device) -> None:
    """Start to measure peak memory anew, where the system lets us."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: sets VmHWM back to what is used now
    except OSError:
        pass  # the peak is then that of the whole run, which is said too high rather than too low


def peak_memory(device: torch.device) -> float:
    """Bytes: of the device, or of the process (weights and libraries included)."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    if status.is_file():
        found = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        if found:
            return float(found[0]) * 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


def timed(stage: Stage, repeats: int, device: torch.device) -> Timed:
    """Warm up once, then run `repeats` times, or until PATIENCE is over. A warm-up longer than LONG counts as the first
    run: what it does but once is little of it."""
    forget_peak(device)
    warm_up = seconds_of(stage.run, device)
    seconds = [warm_up] if warm_up > LONG else []
    while not seconds or (len(seconds) < repeats and sum(seconds) < PATIENCE):
        seconds.append(seconds_of(stage.run, device))
    return Timed(stage, statistics.median(seconds), len(seconds), peak_memory(device))


def operations_of(run: Callable[[], object]) -> float:
    """Floating-point operations of matrix products, convolutions and attention in one run."""

    def attention(query, key, value, *rest, out_shape=None, **options) -> int:
        return 4 * query[0] * query[1] * query[2] * key[2] * query[3]

    on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        run()
    return float(counter.get_total_flops())


def weight_bytes(module: object) -> float:
    """Parameters that every call reads: all but tables of embeddings."""
    if not isinstance(module, nn.Module):
        return 0.0
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    return float(sum(p.numel() * p.element_size() for p in module.parameters() if id(p) not in tables))


def precision_of(module: object) -> torch.dtype | None:
    """Of its weights; None for what has none."""
    return next((p.dtype for p in module.parameters()), None) if isinstance(module, nn.Module) else None


def default_dtype(device: torch.device) -> Precision:
    return "bf16" if device.type == "cuda" else "fp32"
