"""LoRA adapters (Hu et al. 2021, arXiv 2106.09685) beside a generator: several, each with a weight, and none merged.

    adapters = [(load_adapter("holiday", generator), 0.8), (load_adapter("ink.safetensors", generator), 0.5)]
    generator = AdaptedGenerator(generator, adapters)

Files are peft's (adapter_config.json, adapter_model.safetensors) or diffusers' (pytorch_lora_weights.safetensors). The
generator's own weights stay as they are: the same one serves requests with other adapters, or with none, at once.

r rank, I inputs, O outputs of a linear layer.
"""

import fnmatch
import math
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from maskgil.adapter_folder import DIFFUSERS_WEIGHTS, PEFT_CONFIG, PEFT_WEIGHTS
from maskgil.experts import adapted_layers
from maskgil.fileio import parse_json
from maskgil.generator import TokenSpace

PEFT_PREFIX = "base_model.model."
DIFFUSERS_PREFIXES = ("transformer.", "unet.")
DIFFUSERS_METADATA = "lora_adapter_metadata"
LARGEST_WEIGHT = 10.0
DOWN, UP = (".lora_A.weight", ".lora.down.weight"), (".lora_B.weight", ".lora.up.weight")


@dataclass(frozen=True)
class LowRankUpdate:
    """What is added to a layer's output: scale * up(down(input))."""

    down: Float[Tensor, "r I"]
    up: Float[Tensor, "O r"]
    scale: float


@dataclass(frozen=True)
class LoraAdapter:
    """The updates of an adapter by the names of the generator's layers."""

    name: str
    updates: Mapping[str, LowRankUpdate]

    @property
    def parameters(self) -> int:
        return sum(update.down.numel() + update.up.numel() for update in self.updates.values())


# The updates in force on this thread: of each layer (low-rank update, its weight). Threads have contexts of their own.
_ACTIVE: ContextVar[Mapping[nn.Module, Sequence[tuple[LowRankUpdate, float]]] | None] = ContextVar("lora", default=None)


class AdaptedGenerator(nn.Module):
    """A generator with adapters in force, called like the generator itself. Weights are those of the generator, and of
    all its experts, if it has any (maskgil/experts.py).

    Raises ValueError for a weight that is not a number from -10 to 10.
    """

    def __init__(self, generator: nn.Module, adapters: Sequence[tuple[LoraAdapter, float]]):
        super().__init__()
        self.generator: Any = generator
        self.config = generator.config
        parts = adapted_layers(generator)
        device, dtype = next((p.device, p.dtype) for p in generator.parameters())
        self.updates: dict[nn.Module, list[tuple[LowRankUpdate, float]]] = {}
        for adapter, weight in adapters:
            validate_weight(adapter.name, weight)
            for name, update in adapter.updates.items():
                moved = LowRankUpdate(update.down.to(device, dtype), update.up.to(device, dtype), update.scale)
                for layers in parts:
                    self.updates.setdefault(layers[name], []).append((moved, weight))
        for layer in self.updates:
            if _add_updates not in layer._forward_hooks.values():
                layer.register_forward_hook(_add_updates)

    @property
    def token_space(self) -> TokenSpace:
        """The generator's tokens."""
        return self.generator.token_space

    def forward(self, *arguments: Any, **named: Any) -> Tensor:
        token = _ACTIVE.set(self.updates)
        try:
            return self.generator(*arguments, **named)
        finally:
            _ACTIVE.reset(token)


def _add_updates(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    for update, weight in (_ACTIVE.get() or {}).get(layer, ()):
        output = output + update.scale * weight * F.linear(F.linear(inputs[0], update.down), update.up)
    return output


def validate_weight(name: str, weight: float) -> None:
    """ValueError for a weight out of bounds."""
    if (
        isinstance(weight, bool)
        or not isinstance(weight, int | float)
        or not -LARGEST_WEIGHT <= weight <= LARGEST_WEIGHT
    ):
        raise ValueError(f"adapter {name} has weight {weight!r}: give a number from -10 to 10, 1 is usual")


def load_adapter(path: str | Path, generator: nn.Module) -> LoraAdapter:
    """An adapter for this generator from a folder of peft's or diffusers', or from a safetensors file.

    Raises ValueError for files that are missing, cut or of another kind of adapter, and for layers that the generator
    does not have or has in another shape. The message goes to whoever asked for the adapter, perhaps over the network:
    it names the adapter and its file, not the folder that they lie in.
    """
    path = Path(path)
    file, scales = _find_files(path)
    tensors, metadata = _read(file)
    told = _told(file)
    groups = _group(tensors, told)
    layers = {name: layer for name, layer in adapted_layers(generator)[0].items() if isinstance(layer, nn.Linear)}
    updates: dict[str, LowRankUpdate] = {}
    for name, parts in groups.items():
        if name not in layers:
            raise ValueError(
                f"{told} changes {name}, which is no linear layer of this generator: it is for another one"
            )
        down, up = parts["down"], parts["up"]
        if down.dim() != 2 or up.dim() != 2 or not len(down):
            raise ValueError(f"{told}: {name} has no two matrices, but {tuple(down.shape)} and {tuple(up.shape)}")
        if not all(matrix.is_floating_point() and bool(matrix.isfinite().all()) for matrix in (down, up)):
            raise ValueError(f"{told}: {name} holds numbers that are not finite, or whole numbers: it draws nothing")
        layer, rank = layers[name], len(down)
        wanted, found = ((rank, layer.in_features), (layer.out_features, rank)), (tuple(down.shape), tuple(up.shape))
        if wanted != found:
            raise ValueError(
                f"{told}: the matrices of {name} are {found[0]} and {found[1]}, expected {wanted[0]} and {wanted[1]}"
            )
        try:
            scale = scales.of(name, rank) if scales else _diffusers_scale(name, rank, parts, metadata)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{told}: the scale of {name} cannot be read: {_reason(error)}") from None
        updates[name] = LowRankUpdate(down, up, scale)
    return LoraAdapter(path.stem, updates)


@dataclass(frozen=True)
class PeftScales:
    """How peft scales its updates: alpha / r, or alpha / sqrt(r) with use_rslora; patterns may name layers."""

    alpha: float
    alpha_pattern: Mapping[str, float]
    rank_stabilized: bool

    @staticmethod
    def read(path: Path) -> "PeftScales":
        """From adapter_config.json. ValueError for what is no LoRA, or a variant that this code does not apply."""
        try:
            config = parse_json(path.read_text(encoding="utf-8"))
            kind = config.get("peft_type", "LORA")
            if kind != "LORA" or config.get("use_dora") or config.get("bias", "none") != "none":
                raise ValueError(
                    f"it is {kind} with use_dora {config.get('use_dora', False)} and bias {config.get('bias')}"
                )
            return PeftScales.of_notes(config)
        except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{_told(path)} describes no adapter that can be used: {_reason(error)}; plain LoRA is supported"
            ) from None

    @staticmethod
    def of_notes(notes: Mapping[str, Any], prefix: str = "") -> "PeftScales":
        """From values under their names in peft. ValueError, KeyError or TypeError for what is no number."""
        patterns = dict(notes.get(f"{prefix}alpha_pattern") or {})
        alphas = {_literal(pattern): float(alpha) for pattern, alpha in patterns.items()}
        alpha = float(notes[f"{prefix}lora_alpha"])
        if not all(map(math.isfinite, (alpha, *alphas.values()))):
            raise ValueError("its alpha is not finite")
        return PeftScales(alpha, alphas, bool(notes.get(f"{prefix}use_rslora")))

    def of(self, layer: str, rank: int) -> float:
        """The factor of a layer's update."""
        alpha = next((a for pattern, a in self.alpha_pattern.items() if _names(pattern, layer)), self.alpha)
        return alpha / (math.sqrt(rank) if self.rank_stabilized else rank)


def _literal(pattern: str) -> str:
    """A pattern of peft's as a name with * for anything. ValueError for another regular expression: one from a file
    could take for ever."""
    literal = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".").replace(".*", "*")
    if not re.fullmatch(r"[\w.*-]+", literal):
        raise ValueError(f"alpha_pattern {pattern[:40]!r} is an expression; names of layers are supported")
    return literal


def _names(literal: str, layer: str) -> bool:
    """Whether a pattern names this layer: all of its name, or its end."""
    return fnmatch.fnmatchcase(layer, literal) or fnmatch.fnmatchcase(layer, f"*.{literal}")


def _told(file: Path) -> str:
    """A file in a message: its name, after that of its folder where an adapter is a folder."""
    return (
        f"{file.parent.name}/{file.name}" if file.name in (PEFT_CONFIG, PEFT_WEIGHTS, DIFFUSERS_WEIGHTS) else file.name
    )


def _reason(error: Exception) -> str:
    """What went wrong, without the path that an OSError tells."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _find_files(path: Path) -> tuple[Path, PeftScales | None]:
    """(the file of the matrices, how they are scaled where peft says so)."""
    if path.is_file() and path.suffix == ".safetensors":
        beside = path.with_name(PEFT_CONFIG)
        return path, PeftScales.read(beside) if path.name == PEFT_WEIGHTS and beside.is_file() else None
    if (path / PEFT_WEIGHTS).is_file():
        return path / PEFT_WEIGHTS, PeftScales.read(path / PEFT_CONFIG)
    if (path / DIFFUSERS_WEIGHTS).is_file():
        return path / DIFFUSERS_WEIGHTS, None
    raise ValueError(
        f"{path} holds no LoRA adapter: give a folder with {PEFT_WEIGHTS} or {DIFFUSERS_WEIGHTS}, or one .safetensors"
    )


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file, and what diffusers notes of them."""
    try:
        with safe_open(file, "pt") as held:
            tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118, it is no dict
            notes = parse_json((held.metadata() or {}).get(DIFFUSERS_METADATA, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{_told(file)} is cut or not a safetensors file: {_reason(error)}") from None
    return tensors, notes if isinstance(notes, dict) else {}


def _group(tensors: Mapping[str, Tensor], source: str) -> dict[str, dict[str, Tensor]]:
    """{layer: {"down", "up" and perhaps "alpha"}}. ValueError for other tensors, and for half a pair."""
    groups: dict[str, dict[str, Tensor]] = {}
    foreign = []
    for name, tensor in tensors.items():
        layer = name.removeprefix(PEFT_PREFIX)
        layer = next((layer.removeprefix(p) for p in DIFFUSERS_PREFIXES if layer.startswith(p)), layer)
        for part, endings in (("down", DOWN), ("up", UP), ("alpha", (".alpha",))):
            if (ending := next((e for e in endings if layer.endswith(e)), None)) is not None:
                groups.setdefault(layer.removesuffix(ending), {})[part] = tensor
                break
        else:
            foreign.append(name)
    foreign += [
        f"{layer} without its other half" for layer, parts in groups.items() if not {"down", "up"} <= parts.keys()
    ]
    if foreign or not groups:
        raise ValueError(f"{source} holds tensors that are no LoRA: {', '.join(foreign[:4]) or 'none at all'}")
    if texts := [layer for layer in groups if layer.startswith("text_encoder")]:
        raise ValueError(f"{source} also changes the text encoder ({texts[0]}), which is not supported")
    return groups


def _diffusers_scale(layer: str, rank: int, parts: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> float:
    """alpha / r, where the file tells alpha: beside the matrices, or in its metadata. Else 1."""
    if "alpha" in parts:
        if not math.isfinite(alpha := float(parts["alpha"])):
            raise ValueError("alpha is not finite")
        return alpha / rank
    for prefix in (*DIFFUSERS_PREFIXES, ""):
        if metadata.get(f"{prefix}lora_alpha") is not None:
            return PeftScales.of_notes(metadata, prefix).of(layer, rank)
    return 1.0
