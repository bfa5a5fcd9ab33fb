"""The VQ-GAN of aMUSEd and Meissonic, which diffusers' VQModel holds, as the project's VQModel.

Both have the layers of taming-transformers' VQGAN without attention, so that only names differ: the project's name of a
tensor is translated to taming's (`taming_name`) and from there to diffusers' (`kl_name`).
"""

from collections.abc import Mapping
from typing import Any

from maskgil.checkpoint import Shapes, build_module, compare, shapes
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
# The released sizes, which tell what kind of value each is.
USUAL = {
    "block_out_channels": (128, 256, 256, 512, 768),
    "layers_per_block": 2,
    "latent_channels": 64,
    "num_vq_embeddings": 8192,
    "vq_embed_dim": 64,
}


def vq_config(values: Mapping[str, Any]) -> VQConfig:
    """The config of a released vqvae/config.json. ValueError for a variant that the project does not build."""
    given = {name: value for name, value in values.items() if value is not None or name != "vq_embed_dim"}
    read = read_config(given, USUAL, FIXED, "VQ")
    if missing := [name for name in USUAL if name not in read and name != "vq_embed_dim"]:
        raise ValueError(f"this VQ config lacks {', '.join(missing)}")
    for side, plain in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        if values.get(side, []) not in ([], [plain] * len(read["block_out_channels"])):
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


def released_names(config: VQConfig, has: Shapes, source: str) -> dict[str, str]:
    """The name that diffusers gives each tensor of the project's VQModel. ValueError where the released tensors, of the
    shapes `has`, do not fit the config exactly."""
    wants = shapes(build_module("vq", config.to_dict(), source))
    names = {name: diffusers_name(name, len(config.channels)) for name in wants}
    compare(has, {names[name]: shape for name, shape in wants.items()}, source)
    return names
