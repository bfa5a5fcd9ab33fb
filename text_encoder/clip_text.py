"""CLIP's text encoder as aMUSEd and Meissonic read it: the pooled vector, then all 77 tokens with their padding.

The generators were trained on the last layer but one, without a mask: padding is read like text. So every prompt gives
the same shape, and all of it is real.

B prompts, L = 78 states (pooled, then 77 tokens), E width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from maskgil.condition import Condition
from text_encoder.pretrained import UNREADABLE, first_line, load_pretrained, validate_config
from text_encoder.small_t5 import validate_length

TOKENS = 77  # of CLIP: what its position table has


class ClipTextEncoder(nn.Module):
    """Frozen. `tokenizer`: the folder of the tokenizer's files; left out: the model's own."""

    kind = "clip_text"
    length = TOKENS + 1

    def __init__(
        self, name: str | Path, tokenizer: str | Path | None = None, dtype: torch.dtype = torch.float32, **load: Any
    ):
        """`name`: a folder or hub id; `load`: further arguments of transformers' from_pretrained.

        Raises ValueError when it can be neither found nor downloaded, and for a projection of another width than the
        states.
        """
        super().__init__()
        self.name = str(name)
        try:
            validate_config(CLIPTextConfig.from_pretrained(name), least_layers=2)  # the last but one is read
            self.tokenizer = CLIPTokenizer.from_pretrained(str(tokenizer or name))
            model = load_pretrained(CLIPTextModelWithProjection, name, dtype=dtype, **load)
        except UNREADABLE as error:
            raise ValueError(f"no CLIP text encoder {str(name)!r}: {first_line(error)}") from None
        self.model = model.eval().requires_grad_(False)
        self.width = model.config.hidden_size
        if model.config.projection_dim != self.width:
            raise ValueError(
                f"the text encoder {name} projects to {model.config.projection_dim} numbers and its states have "
                f"{self.width}: no released generator reads such a one"
            )

    def check(self, prompt: str) -> None:
        """Raises ValueError for a prompt that would be cut."""
        validate_length(prompt, len(self.tokenizer(prompt, verbose=False)["input_ids"]), TOKENS)

    def tokenize(self, prompts: Sequence[str]) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """Ids, padded or cut to 77; all count as real, as in training."""
        if isinstance(prompts, str):
            raise ValueError("tokenize takes a list of prompts, not one string")
        ids = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        )["input_ids"]
        return ids, torch.ones_like(ids, dtype=torch.bool)

    def forward(self, ids: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B L E"]:
        """The pooled, projected vector and the states of the last layer but one, in float32."""
        read = self.model(input_ids=ids, output_hidden_states=True)
        return torch.cat([read.text_embeds[:, None], read.hidden_states[-2]], dim=1).float()

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Condition:
        """The prompts' states, on this encoder's device."""
        ids, mask = (tensor.to(self.model.device) for tensor in self.tokenize(prompts))
        states = self(ids, mask)
        return Condition(states, torch.ones_like(states[..., 0], dtype=torch.bool))

    def identity(self) -> dict[str, Tensor]:
        """Rows of the token embedding and the projection: enough to tell encoders apart."""
        return {
            "embedding": self.model.get_input_embeddings().weight[:1024],
            "projection": self.model.text_projection.weight,
        }
