"""LoRA (Hu et al. 2021) on a folder of captioned pictures, through peft: a text-driven model learns a thing or a style.

    maskgil train lora --model weights/mine --pictures holiday --out runs/holiday
    maskgil export lora --model weights/mine --adapter runs/holiday/export --out weights/holiday

The model's weights are frozen, in bfloat16, and are not part of checkpoints. Each linear map of its blocks gets two
matrices of rank r beside it. Only these are exported, in peft's format; `merge` adds them to the model.

Memory for XL at rank 16: the frozen weights and their copy in the average take 3.1 GB; the 12.8M trained numbers take
0.3 GB with gradients, AdamW's moments and average. Two pictures of 256 px take 6 GB of activations, or a few hundred MB
if these are recomputed. The sum is under 12 GB. Captions are encoded before training, on the GPU if there is one.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import text_encoder
from maskgil import checkpoint
from maskgil.aspect_buckets import aspect_buckets
from maskgil.fileio import atomic_write
from maskgil.models.maskgil import MaskGIL
from train.data.image_cache import CacheWriter, fill_cache
from train.data.image_sources import source
from train.losses.conditioned import Conditioned
from train.precision import chosen_precision
from train.recipe import Recipe
from train.recipes.pretrain import PretrainOptions, check_norms, noted, over_cache

TARGETS = ["wqkv", "wo", "w1", "w2", "w3"]  # the linear maps of every block
PREFIX = "base_model.model."  # what peft's files call the model
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def adapted(model: MaskGIL, rank: int) -> LoraConfig:
    """Give every block adapters, in place: they start with B = 0, are float32, and are the only trained weights."""
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS)
    _adapt(model, config)
    return config


def _adapt(model: MaskGIL, config: LoraConfig) -> None:
    model.requires_grad_(False)
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)


def adapters(model: MaskGIL) -> dict[str, Tensor]:
    """The adapters' matrices, by peft's names."""
    return {
        PREFIX + name.replace(".default.", "."): p.detach().cpu().contiguous()
        for name, p in model.named_parameters()
        if "lora_" in name
    }


def save_adapters(model: MaskGIL, config: LoraConfig, base: str, folder: Path) -> None:
    """Write a folder that peft reads. ValueError on a full disk; existing adapters in it stay."""
    config.base_model_name_or_path = base
    checkpoint.validate_finite(adapters(model), f"the adapters for {folder}")
    try:
        with atomic_write(folder / WEIGHTS) as partial:
            save_file(adapters(model), partial, metadata={"format": "pt"})
            config.save_pretrained(folder)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"could not write {folder}: {error}; free space, the last checkpoint is untouched") from None


def merged(model: MaskGIL, folder: str | Path) -> MaskGIL:
    """The model with a folder's adapters added to its weights, at the scale that its config says (alpha / r).

    ValueError when they do not fit the model.
    """
    path = Path(folder) / WEIGHTS
    for part in (path, Path(folder) / CONFIG):
        if not part.is_file():
            raise ValueError(f"{folder} holds no adapters: {part.name} is missing")
    try:
        held = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is cut or not a safetensors file: {error}") from None
    plain = MaskGIL(model.config)
    plain.load_state_dict(model.state_dict())
    _adapt(plain, LoraConfig.from_pretrained(folder))
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
    model: str,
    pictures: str,
    size: int,
    rank: int,
    cache: str,
    options: PretrainOptions,
    show: Callable,
    valid: str = "",
) -> Recipe:
    """Adapters for the text-to-image folder `model`; tokens and states of the pictures are computed into `cache` first.

    `valid` is a cache for the validation loss. Raises ValueError when the folder has no captioned pictures, the model
    is no text-driven one, or an option does not apply.
    """
    options.check()
    if options.shard:
        raise ValueError("--shard divides what is trained, and of adapters that is little: leave it out")
    if options.tokenizer:
        raise ValueError(f"tokenizer={options.tokenizer}: adapters learn with the one of {model}; leave it out")
    if rank < 1:
        raise ValueError(f"rank={rank}: give 1 or more")
    folder = checkpoint.resolve(model)
    torch.manual_seed(options.seed)
    kind = torch.bfloat16 if chosen_precision(options.precision) == "bf16" else torch.float32
    generator = checkpoint.load(folder / "generator", "maskgil", kind)
    if generator.config.text_dim is None:
        raise ValueError(f"{model} is driven by classes; adapters are learnt from captions")
    check_norms(generator.config, model, options)
    place = Path(cache or f"{pictures.rstrip('/')}-cache-{size}")
    # Units take long, and processes that have no more units wait for the others
    state = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=12))])
    tokenizer = checkpoint.load(folder / "tokenizer", "vq").requires_grad_(False).to(state.device)
    encoder = text_encoder.load(folder / "text_encoder").to(state.device)
    maker = CacheWriter(source(pictures), tokenizer, encoder, place, aspect_buckets(size), batch=8)
    fill_cache(maker, state.process_index, state.num_processes)
    state.wait_for_everyone()
    del maker, tokenizer, encoder
    if state.device.type == "cuda":
        torch.cuda.empty_cache()  # frees the memory of a large text encoder
    config = adapted(generator, rank)
    generator.tok_dropout = nn.Dropout(options.token_dropout)

    def export(average: Conditioned, target: Path) -> None:
        save_adapters(average.generator, config, str(model), target)

    own = replace(options, tokenizer=str(folder / "tokenizer"))
    return over_cache("lora", generator.train(), str(place), noted(str(place), valid), valid, own, show, export)


def merge(model: str, adapter: str, out: str) -> None:
    """Write `out`: the text-to-image folder `model` with the adapters in its generator."""
    folder, target = checkpoint.resolve(model), Path(out)
    result = merged(checkpoint.load(folder / "generator", "maskgil"), adapter)
    if target.exists():
        raise ValueError(f"{out} is there already: give another folder")
    notes = {k: v for k, v in checkpoint.describe(folder / "generator").items() if k not in ("kind", "config")}
    try:
        shutil.copytree(folder, target, ignore=shutil.ignore_patterns("generator"))
        checkpoint.save(target / "generator", result, "maskgil", result.config.to_dict(), **notes)
    except (OSError, ValueError) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise ValueError(f"could not write {out}: {error}; free space and run it again") from None
    print(f"{target}: {model} with {adapter} merged into it")


if __name__ == "__main__":
    raise SystemExit("error: this command is `maskgil export lora` now")
