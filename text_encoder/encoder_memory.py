"""Text encoders in less memory: weights in 16, 8 or 4 bits, or weights that are there only while a text is encoded.

    encoder = text_encoder.load("weights/mine/text_encoder", "8bit")

A text encoder reads a prompt once and then waits for the next. flan-t5-xl's encoder takes 4.9 GB in float32, about 1.3
GB in 8 bits and 0.8 GB in 4; offloaded it takes nothing between two prompts and is loaded again for each new one.
"""

import gc
import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskgil.condition import Condition

EncoderMemory = Literal["full", "bf16", "8bit", "4bit", "offload"]
ENCODER_MEMORY: tuple[str, ...] = get_args(EncoderMemory)


def available_memories() -> tuple[str, ...]:
    """The ways that can be chosen here: 8 and 4 bits need bitsandbytes."""
    if find_spec("bitsandbytes") is not None:
        return ENCODER_MEMORY
    return tuple(memory for memory in ENCODER_MEMORY if memory not in ("8bit", "4bit"))


def loading_arguments(memory: str) -> dict[str, Any]:
    """Arguments of transformers' from_pretrained for weights in bfloat16, in 8 bits (LLM.int8(), Dettmers et al. 2022,
    arXiv 2208.07339) or in 4 (NF4 of QLoRA, Dettmers et al. 2023, arXiv 2305.14314); none for the other ways.

    Raises ValueError for an unknown way, and where bitsandbytes, which does it, is not installed.
    """
    if memory not in ENCODER_MEMORY:
        raise ValueError(f"text encoder memory is {memory!r}: choose one of {', '.join(ENCODER_MEMORY)}")
    if memory == "bf16":
        return {"dtype": torch.bfloat16}
    if memory not in ("8bit", "4bit"):
        return {}
    if find_spec("bitsandbytes") is None:
        raise ValueError(
            f"a text encoder in {memory} needs the package bitsandbytes: pip install 'maskgil[low-memory]', or choose "
            "offload"
        )
    from transformers import BitsAndBytesConfig

    if memory == "8bit":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    return {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")}


class OffloadedEncoder(nn.Module):
    """An encoder whose model is loaded by `reload` for each call of `encode`, and let go of afterwards."""

    def __init__(self, encoder: Any, reload: Callable[[], nn.Module]):
        """`encoder`: has its weights in `model` (text_encoder/clip_text.py, huggingface.py)."""
        super().__init__()
        self.length, self.width, self.check = encoder.length, encoder.width, encoder.check
        self.encoder, self.reload, self.lock, self.device = encoder, reload, threading.Lock(), torch.device("cpu")
        self._release()

    def tokenize(self, prompts: Sequence[str]) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
        return self.encoder.tokenize(prompts)

    def forward(self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B S E"]:
        return self._loaded(lambda: self.encoder(ids, mask))

    def encode(self, prompts: Sequence[str]) -> Condition:
        return self._loaded(lambda: self.encoder.encode(prompts))

    def identity(self) -> dict[str, Tensor]:
        return self._loaded(lambda: {name: tensor.cpu().clone() for name, tensor in self.encoder.identity().items()})

    def to(self, device: torch.device | str) -> "OffloadedEncoder":
        """Encode on this device from now on."""
        self.device = torch.device(device)
        return self

    def _loaded(self, use: Callable[[], Any]) -> Any:
        with self.lock:
            self.encoder.model = self.reload().to(self.device)
            try:
                return use()
            finally:
                self._release()

    def _release(self) -> None:
        self.encoder.model = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
