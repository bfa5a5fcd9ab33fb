"""Released weights -> model folders of this project: LlamaGen's tokenizers and GPTs, Chameleon's tokenizer.

A released file fits exactly or is refused: every tensor of it is used, nothing is left over, and an error says which
tensor, under the name that the file gives it. Nothing is copied before the folder is written: most results are views.

LlamaGen: arXiv 2406.06525, code MIT. Chameleon: arXiv 2405.09818, VQGAN in the naming of taming-transformers.
"""

import argparse
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from maskgil.checkpoint import DTYPES, build_module, compare, shapes, write
from maskgil.models.config import ModelConfig, released_layout
from maskgil.tokenizers.vq import VQ_PRESETS, VQConfig


@dataclass(frozen=True)
class Converted:
    """What a model folder is written from."""

    kind: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    card: str


@dataclass(frozen=True)
class Converter:
    """keys: where the tensors lie; LlamaGen's loader tries these, in order. `with_options`: `run` takes the options of
    the training command, too, which a file may keep as `args`."""

    about: str
    run: Callable[..., Converted]  # (tensors of the file, its name for messages)
    keys: tuple[str, ...] = ("model", "module", "state_dict")
    with_options: bool = False


def convert(name: str, path: Path) -> Converted:
    """The file at `path` through the converter of that name. ValueError when the file is not what it should be."""
    converter = CONVERTERS[name]
    tensors = without_tables(without_wrappers(read_released_file(path, converter.keys)))
    options = (training_options(path),) if converter.with_options else ()
    return converter.run(tensors, str(path), *options)


def without_wrappers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names of the model itself, where DDP (`module.`) or torch.compile (`_orig_mod.`) wrapped it."""
    for _ in range(2):
        for prefix in ("module.", "_orig_mod."):
            if tensors and all(name.startswith(prefix) for name in tensors):
                tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


COMPUTED = re.compile(r"(^|\.)(freqs_cis|causal_mask|kv_cache\.[kv]_cache)$")


def without_tables(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors but for those that a model computes by itself: rotations, the causal mask, an empty key-value cache."""
    return {name: tensor for name, tensor in tensors.items() if not COMPUTED.search(name)}


def convert_file(name: str, source: Path, folder: Path, dtype: Literal["fp32", "bf16"] = "fp32") -> None:
    """Write a released weight file as a model folder. ValueError when a tensor is missing, left over or of another
    shape."""
    result = convert(name, source)
    print(f"writing {sum(t.numel() for t in result.tensors.values()):,} numbers to {folder}", flush=True)
    write(folder, result.tensors, result.kind, result.config, result.card, DTYPES[dtype])


def read_released_file(path: Path, keys: Iterable[str]) -> dict[str, Tensor]:
    """The tensors of a released file: safetensors, or a torch file read with weights_only=True.

    A torch file holds them under the first of `keys` that it has, or flat (FSDP). Raises ValueError for a file that is
    missing, cut, foreign, or that would have to run code.
    """
    if not path.is_file():
        raise ValueError(f"no file {path}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is cut or not a safetensors file: {error}") from None
    content = _content(path)
    for key in keys:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} holds no tensors by name")
    others = [f"{name} ({type(value).__name__})" for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(f"{path} is no plain table of weights; it also holds {', '.join(others[:6])}")
    return dict(content)


def _content(path: Path) -> Any:
    try:
        # A training script's arguments lie beside the weights; a Namespace only holds values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0][:200]
        raise ValueError(
            f"{path} is cut, not a torch file, or holds objects that could run code, which are refused ({reason})"
        ) from None


def training_options(path: Path) -> dict[str, Any]:
    """What a torch file keeps as `args`: the options of the command that trained it. Empty where it keeps none."""
    content = {} if path.suffix == ".safetensors" else _content(path)
    held = content.get("args") if isinstance(content, Mapping) else None
    return vars(held) if isinstance(held, argparse.Namespace) else dict(held) if isinstance(held, Mapping) else {}


def llamagen_vq(tensors: dict[str, Tensor], source: str) -> Converted:
    """vq_ds16_c2i.pt, vq_ds16_t2i.pt (VQ-16) or vq_ds8_c2i.pt (VQ-8), told apart by their levels."""
    levels = _count(tensors, r"encoder\.conv_blocks\.(\d+)\.")
    if levels not in (4, 5):
        raise ValueError(
            f"{source} is no LlamaGen tokenizer: it has {levels} encoder.conv_blocks, VQ-8 has 4, VQ-16 has 5"
        )
    config = VQ_PRESETS["llamagen-vq8" if levels == 4 else "llamagen-vq16"]
    size = f"VQ-{config.downsample}"
    return Converted(
        "vq",
        config.to_dict(),
        _fit(tensors, build_module("vq", config.to_dict(), source), source),
        _card(f"LlamaGen {size}", source, "LlamaGen (FoundationVision, arXiv 2406.06525); its code is MIT."),
    )


def chameleon_vq(tensors: dict[str, Tensor], source: str, config: VQConfig = VQ_PRESETS["chameleon-vq"]) -> Converted:
    """vqgan.ckpt of Chameleon. Its training losses (discriminator, LPIPS), if the file has them, are left out."""
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith("loss.")}
    last = len(config.channels) - 1
    return Converted(
        "vq",
        config.to_dict(),
        _fit(weights, build_module("vq", config.to_dict(), source), source, lambda name: taming_name(name, last)),
        _card("Chameleon VQ", source, "Chameleon (Meta, arXiv 2405.09818); its licence is a gated research licence."),
    )


def taming_name(name: str, last: int) -> str:
    """What taming-transformers calls a tensor of VQModel; `last` is the number of the coarsest level.

    Both count the encoder's levels from the finest; the decoder's LlamaGen counts from the coarsest, taming as before.
    """
    name = re.sub(r"^encoder\.conv_blocks\.(\d+)\.", r"encoder.down.\1.", name)
    name = re.sub(r"^decoder\.conv_blocks\.(\d+)\.", lambda found: f"decoder.up.{last - int(found[1])}.", name)
    name = re.sub(r"\.res\.(\d+)\.", r".block.\1.", name)
    for ours, theirs in (("0", "block_1"), ("1", "attn_1"), ("2", "block_2")):
        name = name.replace(f".mid.{ours}.", f".mid.{theirs}.")
    return name


def llamagen_gpt(tensors: dict[str, Tensor], source: str) -> Converted:
    """A LlamaGen GPT, class-driven (c2i_*.pt) or text-driven (t2i_XL_*.pt), as the AR model."""
    config = llamagen_config(tensors, source)
    model = build_module("llamagen", config.to_dict(), source)
    return Converted(
        "llamagen",
        config.to_dict(),
        _fit(tensors, model, source),
        _card(f"LlamaGen GPT, {_driven(config)}", source, "LlamaGen (FoundationVision, arXiv 2406.06525); code MIT."),
    )


def llamagen_config(tensors: dict[str, Tensor], source: str) -> ModelConfig:
    """The sizes that a GPT file was made with. 64 numbers a head, but for LlamaGen's 3B and 7B, which have 32 heads."""

    def shape(name: str, axes: int) -> tuple[int, ...]:
        if name not in tensors or tensors[name].ndim != axes:
            found = f"has shape {tuple(tensors[name].shape)}" if name in tensors else "is missing"
            raise ValueError(
                f"{source} is no LlamaGen GPT: {name} {found}; it holds {', '.join(list(tensors)[:4])}, ..."
            )
        return tuple(tensors[name].shape)

    (dim,) = shape("norm.weight", 1)
    codes, _ = shape("tok_embeddings.weight", 2)
    kind: dict[str, Any]
    if "cls_embedding.embedding_table.weight" in tensors:
        kind = {"classes": shape("cls_embedding.embedding_table.weight", 2)[0] - 1}
    else:
        length, text_dim = shape("cls_embedding.uncond_embedding", 2)
        kind = {"text_dim": text_dim, "text_length": length, "null_length": length}
    heads = {3200: 32, 4096: 32}.get(dim, dim // 64)
    layers = _count(tensors, r"layers\.(\d+)\.")
    try:
        return ModelConfig(codebook_size=codes, dim=dim, layers=layers, heads=heads, causal=True, **kind)
    except ValueError as error:
        raise ValueError(f"{source} is no LlamaGen GPT: {error}") from None


def maskgil_from_llamagen(tensors: dict[str, Tensor], source: str) -> Converted:
    """A MaskGIL of the same size that starts from a LlamaGen GPT; it looks both ways and must be trained on.

    Embeddings of codes, classes and null are copied row by row; the mask gets a random row (N(0, 0.02), seed 0) between
    codes and classes, and a row of zeros, which is never scored, in the head.
    """
    ar_model = llamagen_gpt(tensors, source)
    config = replace(ModelConfig.from_dict(ar_model.config), causal=False)
    weights = dict(ar_model.tensors)
    codes = weights["tok_embeddings.weight"]
    mask = torch.randn(1, config.dim, generator=torch.Generator().manual_seed(0)) * 0.02
    rows = [codes, mask.to(codes.dtype)]
    if config.classes is not None:
        rows.append(weights.pop("cls_embedding.embedding_table.weight"))
    weights["tok_embeddings.weight"] = torch.cat(rows)
    head = weights["output.weight"]
    weights["output.weight"] = torch.cat([head, torch.zeros_like(head[:1])])
    weights = _fit(weights, build_module("maskgil", config.to_dict(), source), source)
    about = "LlamaGen (FoundationVision, arXiv 2406.06525); code MIT. A start for training: untrained it draws noise."
    return Converted("maskgil", config.to_dict(), weights, _card(f"MaskGIL, {_driven(config)}, warm", source, about))


def maskgil_published(tensors: dict[str, Tensor], source: str) -> Converted:
    """A class-driven checkpoint of the published MaskGIL trainer, in its own layout: rotation in one dimension, the
    class last."""
    table, head = tensors.get("tok_emb.weight"), tensors.get("output.weight")
    if table is None or head is None or table.ndim != 2 or head.ndim != 2:
        raise ValueError(
            f"{source} is no MaskGIL checkpoint: tok_emb.weight or output.weight is missing; it holds "
            f"{', '.join(list(tensors)[:4])}, ..."
        )
    codes, classes = head.shape[0] - 1, table.shape[0] - head.shape[0] - 1
    layers, dim = _count(tensors, r"layers\.(\d+)\."), table.shape[1]
    try:
        config = released_layout(
            ModelConfig(codebook_size=codes, dim=dim, layers=layers, heads=max(1, dim // 64), classes=classes)
        )
    except ValueError as error:
        raise ValueError(f"{source} is no MaskGIL checkpoint: {error}") from None
    model = build_module("maskgil", config.to_dict(), source)
    fitted = _fit(tensors, model, source, lambda name: "tok_emb.weight" if name == "tok_embeddings.weight" else name)
    about = "MaskGIL's published trainer (arXiv 2507.13032); draw with --sampler reference."
    return Converted("maskgil", config.to_dict(), fitted, _card(f"MaskGIL, {_driven(config)}", source, about))


def emigm(tensors: dict[str, Tensor], source: str, options: Mapping[str, Any] | None = None) -> Converted:
    """An eMIGM or MAR trunk with its diffusion head. `options`: of the training command, as the file keeps them."""
    from maskgil.converters import emigm

    config, weights = emigm.convert_emigm(tensors, options=options)
    return Converted("emigm", config.to_dict(), weights, _card("eMIGM", source, "the authors of eMIGM or MAR."))


def kl(tensors: dict[str, Tensor], source: str) -> Converted:
    """MAR's KL-16."""
    from maskgil.converters import emigm

    config, weights = emigm.convert_kl(tensors)
    return Converted("latent", config.to_dict(), weights, _card("KL-16", source, "the authors of MAR."))


def dc_ae(tensors: dict[str, Tensor], source: str) -> Converted:
    """DC-AE f32c32, in either of its two published layouts."""
    from maskgil.converters import emigm

    config, weights = emigm.convert_dc_ae(tensors)
    return Converted("latent", config.to_dict(), weights, _card("DC-AE", source, "the authors of DC-AE."))


AVERAGED = ("model_ema", "model", "state_dict")

CONVERTERS = {
    "llamagen-vq": Converter(
        "LlamaGen tokenizer: vq_ds16_c2i.pt, vq_ds16_t2i.pt, vq_ds8_c2i.pt; averaged weights where the file has them",
        llamagen_vq,
        ("ema", "model", "module", "state_dict"),
    ),
    "llamagen-gpt": Converter("LlamaGen GPT, B to XXL: c2i_B_256.pt ..., t2i_XL_stage1_256.pt, ...", llamagen_gpt),
    "chameleon-vq": Converter("Chameleon tokenizer: vqgan.ckpt", chameleon_vq),
    "maskgil-from-llamagen": Converter("a MaskGIL to train, started from a LlamaGen GPT", maskgil_from_llamagen),
    "maskgil": Converter(
        "class-driven checkpoint of the published MaskGIL trainer",
        maskgil_published,
        ("model_state_dict", "model", "state_dict"),
    ),
    "emigm": Converter(
        "eMIGM or MAR with its diffusion head; averaged weights where the file has them", emigm, AVERAGED, True
    ),
    "kl16": Converter("MAR's KL autoencoder: kl16.ckpt", kl, AVERAGED),
    "dc-ae": Converter("DC-AE f32c32: its .safetensors, original or for diffusers", dc_ae, AVERAGED),
}


def _fit(
    tensors: dict[str, Tensor], model: nn.Module, source: str, released: Callable[[str], str] = lambda name: name
) -> dict[str, Tensor]:
    """The tensors under the model's names; `released` gives the file's name of each."""
    wants = shapes(model)
    compare(shapes(tensors), {released(name): shape for name, shape in wants.items()}, source)
    return {name: tensors[released(name)] for name in wants}


def _count(names: Iterable[str], pattern: str) -> int:
    """One more than the largest number that `pattern` finds at the start of a name."""
    return 1 + max((int(found[1]) for name in names if (found := re.match(pattern, name))), default=-1)


def _driven(config: ModelConfig) -> str:
    drive = "text" if config.classes is None else f"{config.classes} classes"
    return f"dim {config.dim}, {config.layers} layers, {drive}"


def _card(title: str, source: str, origin: str) -> str:
    return f"# {title}\n\nConverted from `{Path(source).name}` by `maskgil convert`. From {origin}\n"
