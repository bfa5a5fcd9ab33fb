"""Folders in the released layout with random weights, written by the libraries that the releases were written with."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from diffusers import AmusedScheduler, UVit2DModel, VQModel
from hub_stand_in import HubStandIn
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from maskgil.models.ar import ARTransformer
from maskgil.models.config import ModelConfig
from maskgil.models.meissonic import Meissonic, MeissonicConfig
from maskgil.released import download
from maskgil.released.catalog import released_model
from maskgil.tokenizers.vq import VQConfig
from maskgil.tokenizers.vq import VQModel as LlamaGenVQ

TINY_TRANSFORMER = {
    "hidden_size": 32,
    "encoder_hidden_size": 16,
    "cond_embed_dim": 16,
    "vocab_size": 40,
    "codebook_size": 32,
    "in_channels": 24,
    "block_out_channels": 48,
    "num_res_blocks": 2,
    "block_num_heads": 3,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 40,
}
TINY_MEISSONIC = {
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 32,
    "axes_dims_rope": [8, 4, 4],
    "vocab_size": 40,
    "codebook_size": 32,
}
FULL_MEISSONIC = {
    "num_layers": 14,
    "num_single_layers": 28,
    "attention_head_dim": 128,
    "num_attention_heads": 8,
    "joint_attention_dim": 1024,
    "pooled_projection_dim": 1024,
    "axes_dims_rope": [16, 56, 56],
    "vocab_size": 8256,
    "codebook_size": 8192,
}
TINY_VQ = {"block_out_channels": (32, 32, 64), "layers_per_block": 1, "latent_channels": 8, "num_vq_embeddings": 32}
FULL_VQ = {
    "block_out_channels": (128, 256, 256, 512, 768),
    "layers_per_block": 2,
    "latent_channels": 64,
    "num_vq_embeddings": 8192,
}
TINY_TEXT = {"hidden_size": 16, "projection_dim": 16, "intermediate_size": 24, "layers": 3, "heads": 2}
TINY_LLAMAGEN_VQ = VQConfig(
    codebook_size=32, codebook_dim=4, channels=(32, 32, 32, 32, 32), res_blocks=1, z_channels=32
)
TINY_LLAMAGEN = ModelConfig(
    codebook_size=32, dim=64, layers=2, heads=1, causal=True, text_dim=16, text_length=8, null_length=8
)
LLAMAGEN_WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "cat", "dog"]
CLIP_L = {"hidden_size": 768, "projection_dim": 768, "intermediate_size": 3072, "layers": 12, "heads": 12}
CLIP_H = {"hidden_size": 1024, "projection_dim": 1024, "intermediate_size": 4096, "layers": 24, "heads": 16}


def amused_folder(folder: Path, downsample: bool = False, full: bool = False) -> Path:
    """aMUSEd with random weights: tiny (images of 32 or 64 px), or of the released sizes."""
    torch.manual_seed(0)
    shape = {} if full else TINY_TRANSFORMER
    side = (16 if full else 8) * (2 if downsample else 1)
    transformer = UVit2DModel(**shape, downsample=downsample, upsample=downsample, sample_size=side)
    randomize(transformer, 0.02 if full else 0.3)
    transformer.save_pretrained(folder / "transformer")
    AmusedScheduler(mask_token_id=transformer.config.vocab_size - 1).save_pretrained(folder / "scheduler")
    save_vq(folder / "vqvae", FULL_VQ if full else TINY_VQ)
    save_clip(folder, CLIP_L if full else TINY_TEXT)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "AmusedPipeline"}))
    return folder


def meissonic_folder(folder: Path, downsample: bool = True, full: bool = False) -> Path:
    """Meissonic (or Monetico, which does not downsample) with random weights: tiny, or of the released sizes.

    The transformer's class is published in the authors' repository alone: its tensors are named as there
    (maskgil/models/meissonic.py; tests/maskgil/meissonic_second_writing.py reads them by name)."""
    torch.manual_seed(0)
    shape = (FULL_MEISSONIC if full else TINY_MEISSONIC) | {"downsample": downsample, "upsample": downsample}
    with torch.device("meta"):
        names = Meissonic(MeissonicConfig.from_released(shape)).state_dict()
    std = 0.02 if full else 0.2
    weights = {
        name: torch.randn(like.shape) * std + (1.0 if "norm" in name and like.dim() == 1 and "weight" in name else 0.0)
        for name, like in names.items()
    }
    (folder / "transformer").mkdir(parents=True)
    save_file(weights, folder / "transformer" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    config = {"_class_name": "Transformer2DModel", "in_channels": 64, **shape}
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    scheduler = {"_class_name": "Scheduler", "mask_token_id": shape["vocab_size"] - 1, "masking_schedule": "cosine"}
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    save_vq(folder / "vqvae", FULL_VQ if full else TINY_VQ)
    save_clip(folder, CLIP_H if full else TINY_TEXT | {"hidden_size": 32, "projection_dim": 32})
    return folder


def vq_model(shape: dict) -> VQModel:
    """diffusers' VQModel as aMUSEd and Meissonic have it."""
    levels = len(shape["block_out_channels"])
    return VQModel(
        **shape,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
    )


def save_vq(folder: Path, shape: dict) -> None:
    model = vq_model(shape)
    torch.nn.init.normal_(model.quantize.embedding.weight)
    model.save_pretrained(folder)


def save_clip(folder: Path, shape: dict) -> None:
    """A CLIP text model, and a tokenizer of single letters, whose end token has the highest id as CLIP's has."""
    letters = [chr(ord("!") + i) for i in range(94)]
    words = ["<|startoftext|>", *letters, *(f"{letter}</w>" for letter in letters), "<|endoftext|>"]
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer.from_pretrained(folder / "tokenizer", model_max_length=77).save_pretrained(folder / "tokenizer")
    clip_model(shape, len(words)).eval().save_pretrained(folder / "text_encoder")


def clip_model(shape: dict, words: int) -> CLIPTextModelWithProjection:
    """CLIP's text half with so many words, of which the last one ends a text."""
    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=shape["hidden_size"],
        projection_dim=shape["projection_dim"],
        intermediate_size=shape["intermediate_size"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        bos_token_id=0,
        eos_token_id=words - 1,
        pad_token_id=words - 1,
    )
    return CLIPTextModelWithProjection(config)


def randomize(model: torch.nn.Module, std: float) -> None:
    """Weights that say something: released initial values leave parts of a model at zero."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if parameter.dim() == 1 else 0.0, std=std)


def llamagen_repositories(root: Path) -> ARTransformer:
    """The files of LlamaGen's text-driven release and of flan-t5-xl with random weights, in `root`/t2i and `root`/t5;
    returns the generator."""
    (root / "t2i").mkdir()
    torch.manual_seed(0)
    gpt = ARTransformer(TINY_LLAMAGEN, zero_prefix=True)
    for parameter in gpt.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.save({"model": gpt.state_dict(), "steps": 3}, root / "t2i" / "t2i_XL_stage1_256.pt")
    torch.save({"model": LlamaGenVQ(TINY_LLAMAGEN_VQ).state_dict()}, root / "t2i" / "vq_ds16_t2i.pt")
    t5 = T5Config(vocab_size=len(LLAMAGEN_WORDS), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5EncoderModel(t5).save_pretrained(root / "t5")
    ids = {word: i for i, word in enumerate(LLAMAGEN_WORDS)}
    words = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(root / "t5")
    return gpt


def fetch_llamagen(root: Path, name: str) -> Path:
    """The folder of LlamaGen, fetched by the product from a stand-in of the hub that serves `llamagen_repositories`. It
    draws 16 tokens, so that a test is quick."""
    hub = HubStandIn({"peizesun/llamagen_t2i": root / "t2i", "google/flan-t5-xl": root / "t5"})
    folder = download.fetch(name, hub.endpoint)
    hub.close()
    (folder / "vocabulary.json").write_text('{"sizes": [[64, 64]]}')
    return folder


def write_sparse(file: Path, shapes: Mapping[str, Sequence[int]]) -> None:
    """A safetensors file of float32 tensors of these names and shapes, all zero, that takes no room on the disk."""
    head, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * math.prod(shape)
        head[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(head).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as data:
        data.write(len(text).to_bytes(8, "little") + text)
        data.truncate(8 + len(text) + end)


def sparse_folder(folder: Path, name: str) -> Path:
    """aMUSEd, Meissonic or Monetico with files of exactly the released names, configs and shapes, all zero: for what is
    decided by names and shapes. It takes some kilobytes."""
    halves = name in ("amused/amused-512", "MeissonFlow/Meissonic")
    with torch.device("meta"):
        if name.startswith("amused"):
            side = 32 if halves else 16
            transformer = UVit2DModel(downsample=halves, upsample=halves, sample_size=side)
            config, clip = dict(transformer.config), CLIP_L
        else:
            config = FULL_MEISSONIC | {"downsample": halves, "upsample": halves}
            transformer, clip = Meissonic(MeissonicConfig.from_released(config)), CLIP_H
        parts = {"transformer": transformer, "vqvae": vq_model(FULL_VQ), "text_encoder": clip_model(clip, 49408)}
    names = {part: "diffusion_pytorch_model" for part in parts} | {"text_encoder": "model"}
    for part, model in parts.items():
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        write_sparse(folder / part / f"{names[part]}.safetensors", shapes)
        if part != "transformer":
            model.config.save_pretrained(folder / part) if part == "text_encoder" else model.save_config(folder / part)
    (folder / "transformer" / "config.json").write_text(json.dumps(config, default=list))
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    return folder


def keep_as_fetched(name: str, make: Callable[[Path], Path]) -> None:
    """Write a folder where a released model is kept, with the record of a finished fetch."""
    folder = make(download.folder_of(released_model(name)))
    record = {"name": name, "license": "", "revisions": {}, "complete": True}
    (folder / download.RECORD).write_text(json.dumps(record))
