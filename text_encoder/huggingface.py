"""Any Hugging Face encoder as a text encoder: the T5 family by its encoder, others (Gemma, BERT, ...) by AutoModel.

The model always runs right-padded, which every one of them was trained with or cannot tell (attention is causal or
masked); `padding="left"` moves the states afterwards, as LlamaGen does. Prompts longer than `length` tokens are cut
there, as in the training of the models that use these encoders; `check` refuses them for whoever promised to read all.

Axes: B prompts, L tokens (of the longest prompt), E width.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, MT5EncoderModel, T5EncoderModel, UMT5EncoderModel

from maskgil.condition import Condition
from maskgil.fileio import parse_json, replace_file
from text_encoder.pretrained import UNREADABLE, first_line, load_pretrained, validate_config
from text_encoder.small_t5 import validate_length

ENCODERS = {"t5": T5EncoderModel, "mt5": MT5EncoderModel, "umt5": UMT5EncoderModel}  # encoders without their decoder


class HuggingFaceEncoder(nn.Module):
    """Frozen; states are last hidden states times mask, in float32 whatever `dtype` the weights are held in."""

    kind = "huggingface"

    def __init__(
        self,
        name: str = "google/flan-t5-xl",
        length: int = 120,
        padding: Literal["left", "right"] = "right",
        dtype: torch.dtype = torch.bfloat16,
        **load: Any,
    ):
        """`name`: a hub id or a folder; `load`: further arguments of transformers' from_pretrained.

        Raises ValueError when it can be neither found nor downloaded.
        """
        super().__init__()
        self.name, self.length, self.padding = name, length, padding
        try:
            config = AutoConfig.from_pretrained(name)
            validate_config(config.get_text_config())
            self.tokenizer = AutoTokenizer.from_pretrained(name, padding_side="right")
            family = ENCODERS.get(config.model_type, AutoModel)
            model = load_pretrained(family, name, dtype=dtype, **load)
        except UNREADABLE as error:
            where = (
                "its folder holds no model and tokenizer that can be read"
                if Path(name).is_dir()
                else "it is no folder with a model and tokenizer, it is not in the Hugging Face cache, and it could "
                "not be downloaded"
            )
            raise ValueError(f"no text encoder {name!r}: {where} ({first_line(error)})") from None
        whole = family is AutoModel and config.is_encoder_decoder
        self.model = (model.get_encoder() if whole else model).eval().requires_grad_(False)
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        self.width = config.get_text_config().hidden_size

    def check(self, prompt: str) -> None:
        """Raises ValueError for a prompt that would be cut."""
        # verbose: transformers would warn that it is longer than the model reads
        validate_length(prompt, len(self.tokenizer(prompt, verbose=False)["input_ids"]), self.length)

    def tokenize(self, prompts: Sequence[str]) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
        """Ids padded on the chosen side to the longest prompt; mask True on real tokens."""
        if isinstance(prompts, str):
            raise ValueError("tokenize takes a list of prompts, not one string")
        batch = self.tokenizer(
            list(prompts), padding="longest", truncation=True, max_length=self.length, return_tensors="pt"
        )
        ids, mask = batch["input_ids"], batch["attention_mask"].bool()
        return (ids, mask) if self.padding == "right" else (left(ids, mask), left(mask, mask))

    def forward(self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B L E"]:
        """States of the tokens, zero at padding."""
        ids, right_mask = right(ids, mask), right(mask, mask)
        states = self.model(input_ids=ids, attention_mask=right_mask.long()).last_hidden_state
        states = states.float() * right_mask[..., None]
        return states if self.padding == "right" else left(states, right_mask)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Condition:
        """The prompts' states, on this encoder's device."""
        ids, mask = (tensor.to(self.model.device) for tensor in self.tokenize(prompts))
        return Condition(self(ids, mask), mask)

    def identity(self) -> dict[str, Tensor]:
        """Rows of the token embedding and the last vector of the model: enough to tell encoders apart.

        Hashing all of flan-t5-xl would take longer than encoding with it.
        """
        last = [tensor for tensor in self.model.parameters() if tensor.ndim == 1][-1]
        return {"embedding": self.model.get_input_embeddings().weight[:1024], "last": last}

    def save(self, folder: str | Path) -> None:
        """Write a folder that names this encoder; its weights stay in the Hugging Face cache."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        entries = {"kind": self.kind, "name": self.name, "length": self.length, "padding": self.padding}
        replace_file(folder / "config.json", (json.dumps(entries, indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: str | Path, **load: Any) -> "HuggingFaceEncoder":
        """The encoder that a folder names: one that lies in it, or a hub id or folder elsewhere. `load` as above."""
        entries = parse_json((Path(folder) / "config.json").read_text(encoding="utf-8"))
        try:
            inside = Path(folder) / entries["name"]
            name = str(inside) if inside.is_dir() else entries["name"]
            return cls(name, entries["length"], entries["padding"], **load)
        except KeyError as error:
            raise ValueError(f"{folder}/config.json lacks {error}") from None


def right(rows: Tensor, mask: Bool[Tensor, "B L"]) -> Tensor:
    """Each row's real entries moved to its front, in their order."""
    return rows.take_along_dim(index(rows, (~mask).long().argsort(dim=1, stable=True)), dim=1)


def left(rows: Tensor, mask: Bool[Tensor, "B L"]) -> Tensor:
    """Each row's real entries moved to its end, in their order."""
    return rows.take_along_dim(index(rows, mask.long().argsort(dim=1, stable=True)), dim=1)


def index(rows: Tensor, order: Int[Tensor, "B L"]) -> Tensor:
    """`order` with as many axes as `rows` has."""
    return order.reshape(*order.shape, *[1] * (rows.ndim - 2))
