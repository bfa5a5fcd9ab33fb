"""A model as a folder: config.json (what to build), model.safetensors (its weights), README.md (its card).

    save("weights/mine", model, "maskgil", model.config.to_dict(), card, tokenizer_hash=...)
    model = load("weights/mine")                 # the class that config.json's "kind" names
    maskgil convert llamagen-vq vq_ds16_c2i.pt weights/llamagen-vq16

A save is whole or not at all. New files are written beside the old ones as *.new, config.json.new last: once that
exists the save counts, and whoever opens the folder next finishes the renaming. A process killed anywhere leaves the
old model or the new one, never a mixture; other files in the folder stay as they are.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from maskgil.fileio import parse_json, sync
from maskgil.model_folder import weights_folder
from maskgil.released.catalog import find_model
from maskgil.released.download import find_fetched, how_to_fetch
from maskgil.shared_parts import resolve_part

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
ROWS = ".rows"  # after the name of a tensor in bytes: the scale of each of its rows
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}

Shapes = dict[str, tuple[int, ...]]


def _maskgil(config: dict[str, Any]) -> nn.Module:
    from maskgil.models.config import ModelConfig
    from maskgil.models.maskgil import MaskGIL

    return MaskGIL(ModelConfig.from_dict(config))


def _autoregressive(config: dict[str, Any]) -> nn.Module:
    from maskgil.models.ar import ARTransformer
    from maskgil.models.config import ModelConfig

    return ARTransformer(ModelConfig.from_dict(config))


def _llamagen(config: dict[str, Any]) -> nn.Module:
    from maskgil.models.ar import ARTransformer
    from maskgil.models.config import ModelConfig

    return ARTransformer(ModelConfig.from_dict(config), zero_prefix=True)


def _vq(config: dict[str, Any]) -> nn.Module:
    from maskgil.tokenizers.vq import VQConfig, VQModel

    return VQModel(VQConfig.from_dict(config))


def _emigm(config: dict[str, Any]) -> nn.Module:
    from maskgil.models.emigm import EMIGM, EMIGMConfig

    return EMIGM(EMIGMConfig.from_dict(config))


def _latent(config: dict[str, Any]) -> nn.Module:
    from maskgil.tokenizers.autoencoder import AutoencoderConfig, AutoencoderTokenizer

    return AutoencoderTokenizer(AutoencoderConfig.from_dict(config))


# Imported when asked for: a program that only reads prompts need not load the tokenizer's code.
KINDS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "maskgil": _maskgil,
    "autoregressive": _autoregressive,
    "llamagen": _llamagen,  # the AR model with LlamaGen's handling of condition tokens
    "vq": _vq,
    "emigm": _emigm,
    "latent": _latent,  # continuous tokenizers: KL, DC-AE
}


def save(
    folder: str | Path,
    model: nn.Module,
    kind: str,
    config: dict[str, Any],
    card: str | None = None,
    dtype: torch.dtype = torch.bfloat16,
    bytewise: tuple[str, ...] = (),
    **notes: Any,
) -> None:
    """Write a model folder; `notes` (say tokenizer_hash) are kept in config.json beside kind and config.

    Floating tensors are stored in `dtype`; weights of layers whose names begin with one of `bytewise` in a byte a
    number, in 127th parts of the largest of each row (LLM.int8(), Dettmers et al. 2022, 2208.07339, section 2.1).
    Without a card an existing README.md stays.
    Raises ValueError when the files cannot be written; what the folder held is then untouched.
    """
    write(folder, model.state_dict(), kind, config, card, dtype, bytewise, **notes)


def write(
    folder: str | Path,
    tensors: Mapping[str, Tensor],
    kind: str,
    config: dict[str, Any],
    card: str | None = None,
    dtype: torch.dtype = torch.bfloat16,
    bytewise: tuple[str, ...] = (),
    **notes: Any,
) -> None:
    """`save` for a state dict without its module."""
    assert kind in KINDS, f"{kind!r} is none of {', '.join(KINDS)}"
    validate_finite(tensors, f"the model for {folder}")
    folder = Path(folder)
    entries = {"kind": kind, **notes, "config": config}
    stored = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in tensors.items()
    }
    for name in [name for name in stored if name.startswith(bytewise) and tensors[name].dim() > 1]:
        stored[name], stored[name + ROWS] = _to_bytes(tensors[name].detach().float().cpu())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _settle(folder)
        _discard(folder)  # of a save that was killed before it counted
        if card is not None:
            _new(folder, CARD).write_text(card, encoding="utf-8")
        save_file(stored, _new(folder, WEIGHTS), metadata={"format": "pt"})
        part = folder / f"{CONFIG}.part"
        part.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
        for path in (_new(folder, CARD), _new(folder, WEIGHTS), part):
            if path.exists():
                sync(path)
        os.replace(part, _new(folder, CONFIG))
    except (OSError, SafetensorError) as error:
        _discard(folder)
        raise ValueError(f"could not write the model {folder}: {error}; what it held is untouched") from None
    _settle(folder)


def load(folder: str | Path, kind: str | None = None, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The model of a folder, in `dtype` and evaluation mode, on the CPU.

    Raises ValueError for a folder that is missing, incomplete, cut, foreign or of another kind than the one asked for,
    and for weights that are not finite; where tensors do not fit it names them with both shapes.
    """
    folder = resolve_part(folder)
    entries = describe(folder)
    if kind is not None and entries["kind"] != kind:
        raise ValueError(f"{folder} holds a model of kind {entries['kind']!r}; {kind!r} is needed here")
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ValueError(f"the model {folder} is incomplete: {WEIGHTS} is missing")
    model = build_module(entries["kind"], entries["config"], str(folder / CONFIG))
    try:
        with safe_open(weights, "pt") as file:
            names = set(file.keys())
            scaled = {name for name in names if name + ROWS in names}
            names -= {name + ROWS for name in scaled}
            has = {name: tuple(file.get_slice(name).get_shape()) for name in sorted(names)}
            compare(has, shapes(model), str(weights))
            # Copies: a mapped file would pull the ground away if another program rewrote it in place.
            tensors = {}
            for name, like in model.state_dict().items():
                tensor = file.get_tensor(name)
                if name in scaled:
                    tensor = _from_bytes(tensor, file.get_tensor(name + ROWS), str(weights), name)
                tensors[name] = _cast(tensor, like.dtype, dtype)
    except SafetensorError as error:
        raise ValueError(f"{weights} is cut or not a safetensors file: {error}") from None
    validate_finite(tensors, str(weights))
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def describe(folder: str | Path) -> dict[str, Any]:
    """config.json of a model folder, or of the one that it is borrowed from: "kind", "config" and notes. ValueError
    when it is missing or not such a file."""
    if Path(folder).is_dir():
        _settle(Path(folder))
    folder = resolve_part(folder)
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder} is not a model folder: {CONFIG} is missing")
    try:
        entries = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(entries, dict) or entries.get("kind") not in KINDS or not isinstance(entries.get("config"), dict):
        kind = entries.get("kind") if isinstance(entries, dict) else None
        raise ValueError(f"{path} does not describe a model: kind is {kind!r}, known are {', '.join(KINDS)}")
    return entries


def build_module(kind: str, config: dict[str, Any], source: str) -> nn.Module:
    """The module without weights: its parameters take no memory (meta device) until tensors are assigned."""
    try:
        with torch.device("meta"):
            model = KINDS[kind](config)
        kept = model.state_dict().keys()
        if all(name in kept for name, _ in model.named_buffers()):
            return model
        return KINDS[kind](config)  # tables that are computed, not saved, must really be computed
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        said = str(error).partition("\n")[0]
        raise ValueError(f"{source} does not describe a {kind} model: {said}") from None


def shapes(tensors: nn.Module | Mapping[str, Tensor]) -> Shapes:
    """Names and shapes of a module or a state dict."""
    state = tensors.state_dict() if isinstance(tensors, nn.Module) else tensors
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def compare(has: Shapes, wants: Shapes, source: str, shown: int = 6) -> None:
    """ValueError naming what `has` lacks, has besides, or has in another shape."""
    missing = [f"{name} {wants[name]} is missing" for name in wants if name not in has]
    wrong = [f"{n} is {has[n]}, expected {wants[n]}" for n in wants if n in has and has[n] != wants[n]]
    foreign = [f"{name} {has[name]} is not part of the model" for name in has if name not in wants]
    faults = wrong + missing + foreign
    if faults:
        more = f"; and {len(faults) - shown} more" if len(faults) > shown else ""
        raise ValueError(f"{source} does not fit the model: {'; '.join(faults[:shown])}{more}")


def validate_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """ValueError naming what holds NaN or infinity: nothing can be drawn with it."""
    broken = [name for name, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    if broken:
        raise ValueError(
            f"{source} holds numbers that are not finite, in {len(broken)} of {len(tensors)} tensors (first "
            f"{broken[0]}): its training failed; go on from an earlier checkpoint"
        )


def fingerprint(tensors: Mapping[str, Tensor], *prefixes: str) -> str:
    """12 hex digits that stand for these tensors (those whose name starts with one of `prefixes`, if any are given).

    Floating numbers enter as bfloat16, so that a model has one fingerprint whichever type it is saved in.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        if prefixes and not name.startswith(prefixes):
            continue
        tensor = tensors[name].detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.to(torch.bfloat16).contiguous().view(torch.int16)
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def bundled_names() -> list[str]:
    """Names of the models that ship with the project."""
    folder = weights_folder()
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def resolve(name: str | Path) -> Path:
    """The folder of a bundled model, a local folder, a released model that was fetched (maskgil/released/download.py),
    or another Hugging Face id (downloaded once, then cached).

    Raises ValueError, with the bundled names, when it is none of them.
    """
    if str(name) in bundled_names():
        return weights_folder() / str(name)
    if Path(name).is_dir():
        return Path(name)
    if (released := find_model(str(name))) is not None:
        if (fetched := find_fetched(str(name))) is None:
            raise ValueError(how_to_fetch(released))
        return fetched
    reason = "nor does it look like a Hugging Face id (owner/name)"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)) and not str(name).startswith("."):
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(str(name)))
        except (OSError, ValueError) as error:
            reason = f"and Hugging Face could not give it ({(str(error).strip() or repr(error)).splitlines()[0]})"
    known = ", ".join(bundled_names()) or "none"
    raise ValueError(f"no model {str(name)!r}: it is not bundled ({known}), no folder has that name, {reason}")


def _to_bytes(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """(int8, the scale of each row), which multiplied are about the tensor."""
    scales = tensor.flatten(1).abs().amax(1) / 127
    rows = scales.clamp_min(torch.finfo(torch.float32).tiny).view(-1, *(1,) * (tensor.dim() - 1))
    return (tensor / rows).round().to(torch.int8).contiguous(), scales


def _from_bytes(tensor: Tensor, scales: Tensor, source: str, name: str) -> Tensor:
    if tensor.dtype != torch.int8 or tensor.dim() < 2 or tuple(scales.shape) != (tensor.shape[0],):
        raise ValueError(f"{source}: {name} and {name}{ROWS} do not belong together: get the file again")
    return tensor.float() * scales.float().view(-1, *(1,) * (tensor.dim() - 1))


def _cast(tensor: Tensor, like: torch.dtype, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype if like.is_floating_point else like, copy=True)


def _new(folder: Path, name: str) -> Path:
    return folder / f"{name}.new"


def _settle(folder: Path) -> None:
    """Finish a save that counts already. Two processes may do so at once."""
    if _new(folder, CONFIG).exists():
        for name in (CARD, WEIGHTS, CONFIG):
            try:
                os.replace(_new(folder, name), folder / name)
            except FileNotFoundError:
                pass  # no card was given, or the other process was quicker


def _discard(folder: Path) -> None:
    for name in (CARD, WEIGHTS, CONFIG):
        _new(folder, name).unlink(missing_ok=True)
    (folder / f"{CONFIG}.part").unlink(missing_ok=True)


if __name__ == "__main__":
    raise SystemExit("error: this command is `maskgil convert` now")
