"""A loss whose pictures and captions are encoded in each step, by a tokenizer and a text encoder that are not trained.

Axes: B pictures, H W pixels, N tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskgil.tokenizers.vq import VQModel
from text_encoder import TextEncoder
from train.data.long_captions import cut_caption
from train.recipe import SumAndCount

Objective = Callable[[list, dict, torch.Generator, int], tuple[Tensor | SumAndCount, dict]]


@dataclass(frozen=True)
class EncodedStep:
    """`objective` on the tokens and text states of {"pixels" (B, 3, H, W) uint8, "captions", ...}.

    Tokenizer and text encoder move to the device of the pixels and stay there.
    """

    objective: Objective
    tokenizer: VQModel
    encoder: TextEncoder

    def __call__(
        self, modules: list, batch: dict[str, Any], generator: torch.Generator, step: int
    ) -> tuple[Tensor | SumAndCount, dict]:
        loss, report = self.objective(modules, self.encoded(batch), generator, step)
        return loss, report | {"left_out": batch.get("left_out", 0)}

    @torch.no_grad()
    def encoded(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch as a cache would give it. Captions that the encoder cannot read whole are cut at a word."""
        pixels, side = batch["pixels"], self.tokenizer.config.downsample
        self.tokenizer.to(pixels.device), self.encoder.to(pixels.device)
        with torch.autocast(pixels.device.type, enabled=False):
            tokens = self.tokenizer.encode(pixels.float().div(127.5).sub(1))
            condition = self.encoder.encode([self._readable(caption) for caption in batch["captions"]])
        condition = condition.to(pixels.device, torch.float32)
        rest = {name: value for name, value in batch.items() if name not in ("pixels", "captions", "left_out")}
        grid = (pixels.shape[2] // side, pixels.shape[3] // side)
        return rest | {"tokens": tokens.long(), "grid": grid, "states": condition.states, "mask": condition.mask}

    def _readable(self, caption: str) -> str:
        try:
            self.encoder.tokenize([caption])
        except ValueError:
            return cut_caption(self.encoder, caption)
        return caption
