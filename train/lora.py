"""LoRA (Hu et al. 2021) on a folder of captioned pictures, through peft: a text-driven model learns a thing or a style.

    python -m train lora model=weights/mine pictures=holiday out=runs/holiday
    python -m train.lora merge model=weights/mine adapter=runs/holiday/export out=weights/holiday

The model's own weights stay as they are, in bfloat16, and go into no checkpoint; each linear map of its blocks gets two
thin matrices of rank r beside it. Those alone are exported, in peft's files; `merge` adds them to the model.

For XL at rank 16: the frozen weights and their copy in the average take 3.1 GB, and 12.8M numbers move, 0.3 GB with
gradients, AdamW's moments and average. With recomputed activations the rest is a few hundred MB a picture of 256 px.
"""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import PartialState
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import text_encoder
from maskgil import checkpoint
from maskgil.buckets import buckets
from maskgil.generator import MaskGIL
from train.features import FeatureCache, Features, Maker, write
from train.large import Options, sampler
from train.loop import Player, Recipe
from train.masked import Driven, MaskedFeatures
from train.optim import OptimConfig
from train.pictures import source

TARGETS = ["wqkv", "wo", "w1", "w2", "w3"]  # the linear maps of every block
PREFIX = "base_model.model."  # what peft's files call the model
WEIGHTS = "adapter_model.safetensors"


def adapted(model: MaskGIL, rank: int) -> LoraConfig:
    """Give every block adapters, in place: they start as nothing (B = 0), are float32, and alone move."""
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS)
    model.requires_grad_(False)
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
    return config


def adapters(model: MaskGIL) -> dict[str, Tensor]:
    """The thin matrices, under peft's names."""
    return {
        PREFIX + name.replace(".default.", "."): p.detach().cpu().contiguous()
        for name, p in model.named_parameters()
        if "lora_" in name
    }


def save_adapters(model: MaskGIL, config: LoraConfig, base: str, folder: Path) -> None:
    """Write a folder that peft reads too."""
    folder.mkdir(parents=True, exist_ok=True)
    config.base_model_name_or_path = base
    config.save_pretrained(folder)
    partial = folder / f"{WEIGHTS}.partial"
    save_file(adapters(model), partial, metadata={"format": "pt"})
    os.replace(partial, folder / WEIGHTS)


def merged(model: MaskGIL, folder: str | Path) -> MaskGIL:
    """The model with a folder's adapters added to its weights. ValueError when they do not fit it."""
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise ValueError(f"{folder} holds no adapters: {WEIGHTS} is missing")
    try:
        held = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is cut or not a safetensors file: {error}") from None
    plain = MaskGIL(model.config)
    plain.load_state_dict(model.state_dict())
    adapted(plain, LoraConfig.from_pretrained(folder).r)
    checkpoint.compare(checkpoint.shapes(held), checkpoint.shapes(adapters(plain)), str(path))
    names = {name.replace(".default.", "."): name for name, _ in plain.named_parameters()}
    plain.load_state_dict({names[name.removeprefix(PREFIX)]: t for name, t in held.items()}, strict=False)
    for module in plain.modules():
        if isinstance(module, LoraLayer):
            module.merge()
    weights = {n.replace(".base_layer.", "."): t for n, t in plain.state_dict().items() if "lora_" not in n}
    result = MaskGIL(model.config)
    result.load_state_dict(weights)
    return result.eval()


def lora_recipe(
    model: str, pictures: str, size: int, rank: int, cache: str, options: Options, show: Callable
) -> Recipe:
    """Adapters for the text-to-image folder `model`; tokens and states of the pictures are computed into `cache` first.

    Raises ValueError when the folder has no captioned pictures, or the model is no text-driven one.
    """
    folder = checkpoint.resolve(model)
    torch.manual_seed(options.seed)
    generator = checkpoint.load(folder / "generator", "maskgil", torch.bfloat16)
    if generator.config.text_dim is None:
        raise ValueError(f"{model} is driven by classes; adapters are learnt from captions")
    place = Path(cache or f"{pictures.rstrip('/')}-cache-{size}")
    with PartialState().main_process_first():  # who comes second finds it done
        tokenizer = checkpoint.load(folder / "tokenizer", "vq").requires_grad_(False)
        encoder = text_encoder.load(folder / "text_encoder")
        write(Maker(source(pictures), tokenizer, encoder, place, buckets(size), batch=8))
        del tokenizer, encoder
    note = FeatureCache.open(place).note
    config = adapted(generator, rank)
    generator.tok_dropout = nn.Dropout(options.token_dropout)
    objective = MaskedFeatures(options.caption_dropout, options.smoothing, options.everywhere, seed=options.seed)
    rates = OptimConfig(
        lr=options.lr, weight_decay=options.weight_decay, warmup=options.warmup, decay=0.0, clip=options.clip
    )
    return Recipe(
        name="lora",
        steps=options.steps,
        players=(Player(Driven(generator.train()), objective, rates),),
        batch_at=Features(str(place), options.micro, options.seed),
        seed=options.seed,
        batches=options.batch // options.micro,
        precision="bf16",
        recompute=options.recompute,
        compile=options.compile,
        ema=options.ema,
        workers=options.workers,
        save_every=options.save_every,
        sample_every=options.sample_every,
        sample=sampler(str(place), str(folder / "tokenizer"), note, show),
        export=lambda average, target: save_adapters(average.generator, config, str(model), target),
    )


def merge(model: str, adapter: str, out: str) -> None:
    """Write `out`: the text-to-image folder `model` with the adapters in its generator."""
    folder, target = checkpoint.resolve(model), Path(out)
    result = merged(checkpoint.load(folder / "generator", "maskgil"), adapter)
    if target.exists():
        raise ValueError(f"{out} is there already: give another folder")
    notes = {k: v for k, v in checkpoint.describe(folder / "generator").items() if k not in ("kind", "config")}
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("generator"))
    checkpoint.save(target / "generator", result, "maskgil", result.config.to_dict(), **notes)
    print(f"{target}: {model} with {adapter} merged into it")


def main(arguments: list[str]) -> None:
    options = dict(a.split("=", 1) for a in arguments[1:] if "=" in a)
    if arguments[:1] != ["merge"] or set(options) != {"model", "adapter", "out"}:
        raise ValueError("usage: python -m train.lora merge model=FOLDER adapter=FOLDER out=FOLDER")
    merge(**options)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as error:
        print(f"train.lora: {error}", file=sys.stderr)
        sys.exit(2)
