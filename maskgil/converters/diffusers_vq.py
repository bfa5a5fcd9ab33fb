"""The VQ-GAN of aMUSEd and Meissonic, which diffusers' VQModel holds, as the project's VQModel.

Both have the layers of taming-transformers' VQGAN without attention, so that only names differ: the project's name of a
tensor is translated to taming's (`taming_name`) and from there to diffusers' (`kl_name`).
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maskgil.checkpoint import build_module, compare, shapes
from maskgil.converters import taming_name
from maskgil.converters.emigm import kl_name
from maskgil.models.uvit_layers import read_config
from maskgil.tokenizers.vq import VQConfig

FIXED: dict[str, object] = {
    "act_fn": "silu",
    "in_channels": 3,
    "lookup_from_codebook": True,
    "mid_block_add_attention": False,
    "norm_num_groups": 32,
    "norm_type": "group",
    "out_channels": 3,
}
NAMES = ("block_out_channels", "layers_per_block", "latent_channels", "num_vq_embeddings", "vq_embed_dim")


def vq_config(values: Mapping[str, Any]) -> VQConfig:
    """The config of a released vqvae/config.json. ValueError for a variant that the project does not build."""
    read = read_config(dict(values), NAMES, FIXED, "VQ")
    if missing := [name for name in NAMES if name not in read and name != "vq_embed_dim"]:
        raise ValueError(f"this VQ config lacks {', '.join(missing)}")
    for side, plain in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        if any(kind != plain for kind in values.get(side, ())):
            raise ValueError(f"this VQ config has {side} other than {plain}, which is not supported")
    return VQConfig(
        codebook_size=read["num_vq_embeddings"],
        codebook_dim=read.get("vq_embed_dim") or read["latent_channels"],
        channels=tuple(read["block_out_channels"]),
        res_blocks=read["layers_per_block"],
        z_channels=read["latent_channels"],
        l2_norm=False,
        level_attention=False,
        middle_attention=False,
        unit_pixels=True,
    )


def diffusers_name(name: str, levels: int) -> str:
    """What diffusers calls a tensor of the project's VQModel with so many resolution levels."""
    return kl_name(taming_name(name, levels - 1), levels)


def vq_tensors(tensors: Mapping[str, Tensor], config: VQConfig, source: str) -> dict[str, Tensor]:
    """The released tensors under the project's names. ValueError where they do not fit the config exactly."""
    wants = shapes(build_module("vq", config.to_dict(), source))
    released = {name: diffusers_name(name, len(config.channels)) for name in wants}
    compare(shapes(tensors), {released[name]: shape for name, shape in wants.items()}, source)
    return {name: tensors[released[name]] for name in wants}
