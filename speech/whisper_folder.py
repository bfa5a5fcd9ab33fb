"""A Whisper as a folder: config.json (sizes and windows), model.safetensors (weights), README.md (card).

    save_whisper("weights/whisper-tiny-en", model, windows=(10.0, 30.0), card=card)
    model, windows = load_whisper("weights/whisper-tiny-en")

Weight matrices are stored in int8 with one scale a row ("NAME.rows"), which takes 38 MB for tiny.en and changes its
word error rate by less than 0.3 points; everything else is float16. The loaded model computes in float32.
A folder that Hugging Face's transformers wrote for a Whisper is read, too.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor
from whisper.model import ModelDimensions, Whisper

KIND = "whisper"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
ROWS = ".rows"  # after the name of an int8 tensor: the scale of each of its rows
SMALLEST = 10_000  # numbers of a tensor that is worth storing in int8
WINDOWS = (30.0,)  # seconds: the only window that a released Whisper is trained for


def is_whisper_folder(folder: Path) -> bool:
    """Whether config.json of the folder describes a Whisper, in this project's form or in that of transformers."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and KIND in (config.get("kind"), config.get("model_type"))


def save_whisper(
    folder: str | Path,
    model: Whisper,
    windows: Sequence[float] = WINDOWS,
    card: str = "",
    source: str = "",
    int8: bool = True,
) -> None:
    """Writes the folder whole or not at all: a new folder takes the place of the old one.

    `windows`: lengths in seconds to which sound may be padded for the encoder, the shortest first.
    `source`: where the weights come from, kept in config.json. Raises ValueError when the disk refuses.
    """
    folder = Path(folder)
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if int8 and tensor.dim() > 1 and tensor.numel() >= SMALLEST and not name.endswith("positional_embedding"):
            tensors[name], tensors[name + ROWS] = _to_int8(tensor)
        else:
            tensors[name] = tensor.detach().to("cpu", torch.float16).contiguous()
    config = {
        "kind": KIND,
        "source": source,
        "config": {
            "dims": asdict(model.dims),
            "windows": list(windows),
            "alignment_heads": model.alignment_heads.to_dense().nonzero().tolist(),
        },
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
            new = Path(place) / "new"
            new.mkdir()
            (new / WEIGHTS).write_bytes(to_bytes(tensors, {"format": "pt"}))
            (new / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            (new / CARD).write_text(card, encoding="utf-8")
            if folder.exists():
                os.replace(folder, Path(place) / "old")
            os.replace(new, folder)
    except (OSError, SafetensorError, shutil.Error) as error:
        raise ValueError(f"could not write the recognizer {folder}: {error}") from None


def load_whisper(folder: str | Path, device: str = "cpu") -> tuple[Whisper, tuple[float, ...]]:
    """The model in float32 and its windows in seconds. Raises ValueError for a folder that is incomplete or foreign."""
    folder = Path(folder)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if not (folder / WEIGHTS).is_file():
            raise FileNotFoundError(2, "no such file", str(folder / WEIGHTS))
        tensors = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise ValueError(f"the recognizer {folder} is incomplete: {Path(error.filename).name} is missing") from None
    except (ValueError, OSError, SafetensorError) as error:
        raise ValueError(f"the recognizer {folder} cannot be read ({error}): restore or download it again") from None
    try:
        if config.get("kind") == KIND:
            entries = config["config"]
            dims = ModelDimensions(**entries["dims"])
            windows, heads = tuple(float(w) for w in entries["windows"]), entries["alignment_heads"]
            state = {name: _restored(name, tensors) for name in tensors if not name.endswith(ROWS)}
        else:
            dims, state = _dims_of_transformers(config), openai_names(tensors)
            windows, heads = WINDOWS, None
        model = Whisper(dims)
        missing, foreign = model.load_state_dict(state, strict=False)
        if missing or foreign:
            raise ValueError(f"{len(missing)} tensors are missing ({missing[:3]}), {len(foreign)} foreign")
        if not windows or list(windows) != sorted(windows) or windows[0] <= 0:
            raise ValueError(f"windows are {windows}, not rising lengths in seconds")
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise ValueError(f"the recognizer {folder} does not hold a Whisper: {reason}") from None
    if heads:
        set_alignment_heads(model, heads)
    return model.to(device).eval(), windows


def set_alignment_heads(model: Whisper, heads: Sequence[Sequence[int]]) -> None:
    """The decoder's attention heads, as (layer, head), that follow the sound; word times are read from them."""
    mask = torch.zeros(model.dims.n_text_layer, model.dims.n_text_head, dtype=torch.bool)
    for layer, head in heads:
        mask[layer, head] = True
    model.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)


def openai_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of transformers' WhisperForConditionalGeneration under the names of openai-whisper."""
    renames = (
        ("model.", ""), (".layers.", ".blocks."), ("embed_positions.weight", "positional_embedding"),
        ("embed_tokens", "token_embedding"), (".self_attn_layer_norm", ".attn_ln"), (".self_attn.", ".attn."),
        (".encoder_attn_layer_norm", ".cross_attn_ln"), (".encoder_attn.", ".cross_attn."), (".q_proj", ".query"),
        (".k_proj", ".key"), (".v_proj", ".value"), (".out_proj", ".out"), (".final_layer_norm", ".mlp_ln"),
        (".fc1", ".mlp.0"), (".fc2", ".mlp.2"), ("encoder.layer_norm", "encoder.ln_post"),
        ("decoder.layer_norm", "decoder.ln"),
    )  # fmt: skip
    renamed = {}
    for name, tensor in tensors.items():
        if name == "proj_out.weight":  # tied to the token embedding
            continue
        for theirs, ours in renames:
            name = name.replace(theirs, ours)
        renamed[name] = tensor.float()
    return renamed


def _dims_of_transformers(config: Mapping[str, Any]) -> ModelDimensions:
    return ModelDimensions(
        n_mels=config["num_mel_bins"],
        n_audio_ctx=config["max_source_positions"],
        n_audio_state=config["d_model"],
        n_audio_head=config["encoder_attention_heads"],
        n_audio_layer=config["encoder_layers"],
        n_vocab=config["vocab_size"],
        n_text_ctx=config["max_target_positions"],
        n_text_state=config["d_model"],
        n_text_head=config["decoder_attention_heads"],
        n_text_layer=config["decoder_layers"],
    )


def _to_int8(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """(int8, float32 scale of each row): LLM.int8() (Dettmers et al., 2022, arXiv 2208.07339), section 2.1."""
    tensor = tensor.detach().float().cpu()
    scales = (tensor.flatten(1).abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
    return (tensor / scales.view(-1, *(1,) * (tensor.dim() - 1))).round().to(torch.int8).contiguous(), scales


def _restored(name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    tensor = tensors[name].float()
    if name + ROWS not in tensors:
        return tensor
    return tensor * tensors[name + ROWS].view(-1, *(1,) * (tensor.dim() - 1))
