"""FLOPs of a training step of a transformer, and peak FLOP/s of devices.

Axes: B rows, N image tokens, S tokens in all, D width.
"""

import platform
import time

import torch

from maskgil.models.config import ModelConfig

# Dense bfloat16 FLOP/s. The first entry that is part of the device's name counts, so variants of a chip come first
SHEETS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}


def step_flops(config: ModelConfig, pictures: int, tokens: int, frozen: bool = False, text: int | None = None) -> float:
    """FLOPs of forward and backward: 6 for each weight and token, and 12 D S^2 a layer for attention.

    frozen  weights get no gradient: 4 instead of 6; low-rank adapters are not counted
    text    tokens of the condition; None: the most that the model reads
    """
    text = config.text_length if text is None else text
    length = tokens + text
    blocks = config.layers * (4 * config.dim**2 + 3 * config.dim * config.hidden)
    head = config.codebook_size * config.dim
    caption = config.dim * ((config.text_dim or 0) + config.dim)
    weights = (4 if frozen else 6) * (blocks * length + head * tokens + caption * text)
    return pictures * (weights + 12 * config.layers * config.dim * length**2)


BYTES_KEPT = 120  # bytes of a block's activations for each token and channel: an upper estimate, under autocast


def kept_bytes(config: ModelConfig, tokens: int) -> float:
    """Bytes that a forward pass of one picture keeps for the backward pass: blocks, and logits in float32 with their
    gradient and softmax."""
    length = tokens + config.text_length
    return BYTES_KEPT * config.layers * config.dim * length + 3 * 4.0 * tokens * config.codebook_size


def chip(device: torch.device, precision: str = "bf16") -> tuple[str, float, str]:
    """(name, FLOP/s, where that number is from): a data sheet's bfloat16 rate, or a matrix product in the run's own
    precision, measured here."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        sheet = next((rate for key, rate in SHEETS.items() if key in name), None)
        if sheet:
            return name, sheet, "data sheet"
    else:
        name = f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"
    side = 8192 if device.type == "cuda" else 512
    a = torch.ones(side, side, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    times = []
    for _ in range(5):
        wait_for(device)
        start = time.perf_counter()
        a @ a
        wait_for(device)
        times.append(time.perf_counter() - start)
    return name, 2 * side**3 / min(times), f"measured, {side} x {side} matrices"


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
