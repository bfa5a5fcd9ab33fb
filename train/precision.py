"""Which number format a device multiplies fast, found by a short measurement.

A processor with AVX2 only multiplies bfloat16 about 80 times slower than float32; one with AMX several times faster.
"""

import os
import time
from functools import cache

import torch

SIDE = 512  # of the matrices that are multiplied
SECONDS = 0.4  # for each format
GAIN = 1.1  # bfloat16 must be so many times as fast as float32


def _fastest(dtype: torch.dtype) -> float:
    """Seconds of one product on the CPU: the minimum over as many as fit into SECONDS, at least two."""
    a = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(dtype)
    times, end = [], time.perf_counter() + SECONDS
    while len(times) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return min(times)


@cache
def bfloat16_gain(device_type: str) -> float:
    """Speed of matrix products in bfloat16 relative to float32 on the device, measured once a process.

    A CUDA device is not measured: infinity if it has bfloat16 units, else 0.
    """
    if device_type == "cuda":
        return float("inf") if torch.cuda.is_bf16_supported(including_emulation=False) else 0.0
    if device_type != "cpu":
        return 0.0
    return _fastest(torch.float32) / _fastest(torch.bfloat16)


def training_device() -> torch.device:
    """The device that a run of this process will use, as accelerate chooses it."""
    forced = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return torch.device("cuda" if torch.cuda.is_available() and not forced else "cpu")


def chosen_precision(precision: str, device: torch.device | None = None) -> str:
    """ "bf16" or "no" (float32) for "auto", by measurement; anything else is returned as it is.

    device  None: the one that a run of this process will use.
    """
    if precision != "auto":
        return precision
    return "bf16" if bfloat16_gain((device or training_device()).type) >= GAIN else "no"


def precision_line(precision: str, device: torch.device) -> str:
    """Which precision "auto" chose and why, for the first line of a run."""
    gain = bfloat16_gain(device.type)
    name = "bfloat16" if precision == "bf16" else "float32"
    if device.type == "cuda":
        return f"precision {name}: this GPU has {'' if gain else 'no '}bfloat16 units"
    return f"precision {name}: this processor multiplies bfloat16 at {gain:.2g} times the speed of float32"
