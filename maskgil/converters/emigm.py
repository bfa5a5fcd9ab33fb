"""Released continuous models as ours: eMIGM and MAR trunks with their heads, MAR's KL-16, DC-AE.

Each function takes the state dict of a file and gives the config that its shapes tell, and the tensors by our names.
ValueError, with the names and shapes at fault, for a file that is something else.
"""

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from maskgil.checkpoint import compare, shapes
from maskgil.models.emigm import EMIGM, EMIGM_PRESETS, EMIGMConfig
from maskgil.tokenizers.autoencoder import AUTOENCODER_PRESETS, AutoencoderConfig, AutoencoderTokenizer

log = logging.getLogger(__name__)

# A file does not say how many heads it has; every released width has one answer.
HEADS = {config.width: config.heads for config in EMIGM_PRESETS.values()}


def check_switches(options: Mapping[str, object], tied: bool) -> None:
    """ValueError, by name, for switches of the training command that the model here does not have. A file keeps them as
    `args` beside its weights; a file without them is taken to be trained as the released ones.

    tied  whether the file's unconditional token is its mask token, as its shape says
    """
    if options.get("use_mae", True) is False:
        raise ValueError(
            "this eMIGM was trained with --use_mae false: its encoder sees masked tokens, which this model's does not; "
            "it cannot be converted"
        )
    if (patch := options.get("patch_size", 1)) != 1:
        raise ValueError(f"this eMIGM was trained with --patch_size {patch}: only 1 can be converted")
    unsupervised = options.get("use_unsup_cfg")
    if unsupervised is not None and bool(unsupervised) != tied:
        raise ValueError(
            f"this eMIGM says --use_unsup_cfg {unsupervised}, and its mask_token has the shape of a model trained "
            f"{'with' if tied else 'without'} it: the file is inconsistent"
        )


def convert_emigm(
    state: Mapping[str, Tensor], heads: int | None = None, options: Mapping[str, object] | None = None
) -> tuple[EMIGMConfig, dict[str, Tensor]]:
    """An eMIGM or MAR trunk with its head. `heads` is needed only for widths that were never released; `options` are
    those of the training command, where the file keeps them (`check_switches`).

    eMIGM ties its unconditional token to `mask_token`, but its files keep both entries, of which training averaged one
    alone. Its loader copies `mask_token` last, over both; so do we, and log when they differ. MAR's two are two.
    """
    config = _emigm_config(state, heads)
    check_switches(options or {}, config.null == "mask")
    tensors = dict(state)
    if config.null == "mask":
        fake, mask = tensors.pop("fake_latent", None), tensors.get("mask_token")
        if fake is None or mask is None:
            raise ValueError("the file does not fit the model: fake_latent or mask_token is missing")
        if fake.shape == mask.shape and not torch.equal(fake, mask):
            gap = (fake.float() - mask.float()).abs().max().item()
            log.warning("fake_latent and mask_token differ by up to %.3g: mask_token serves in both roles", gap)
    else:
        tensors["mask_token"] = tensors["mask_token"].flatten(0, 1)
    _check(tensors, EMIGM, config)
    return config, tensors


def _emigm_config(state: Mapping[str, Tensor], heads: int | None) -> EMIGMConfig:
    needed = ("z_proj.weight", "class_emb.weight", "mask_token", "encoder_pos_embed_learned")
    needed += ("diffusion_pos_embed_learned", "diffloss.net.input_proj.weight")
    if missing := [name for name in needed if name not in state]:
        raise ValueError(
            f"this is no eMIGM checkpoint: {', '.join(missing)} missing; it holds {', '.join(list(state)[:4])}, ..."
        )
    width, channels = state["z_proj.weight"].shape
    tokens = state["diffusion_pos_embed_learned"].shape[1]
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise ValueError(f"an eMIGM checkpoint of {tokens} tokens: not a square, so its grid is unknown")
    if heads is None and width not in HEADS:
        raise ValueError(f"an eMIGM checkpoint of width {width}; released ones are {', '.join(map(str, HEADS))} wide")
    return EMIGMConfig(
        width=width,
        heads=heads or HEADS[width],
        depth=_count(state, r"encoder_blocks\.(\d+)\."),
        head_depth=_count(state, r"diffloss\.net\.res_blocks\.(\d+)\."),
        head_width=state["diffloss.net.input_proj.weight"].shape[0],
        channels=channels,
        grid=(side, side),
        buffer=state["encoder_pos_embed_learned"].shape[1] - tokens,
        classes=state["class_emb.weight"].shape[0],
        null="mask" if state["mask_token"].dim() == 2 else "token",  # MAR's has a third dimension
    )


def convert_kl(state: Mapping[str, Tensor]) -> tuple[AutoencoderConfig, dict[str, Tensor]]:
    """MAR's KL autoencoder: the names of the original VAE code to diffusers'. Other entries (its training loss) go."""
    if "encoder.conv_in.weight" not in state or "post_quant_conv.weight" not in state:
        raise ValueError(f"this is no KL autoencoder: it holds {', '.join(list(state)[:4])}, ...")
    levels = _count(state, r"encoder\.down\.(\d+)\.")
    firsts = [f"encoder.down.{i}.block.0.conv1.weight" for i in range(levels)]
    if lost := [name for name in firsts or ["encoder.down.0.block.0.conv1.weight"] if name not in state]:
        raise ValueError(f"this KL autoencoder lacks {', '.join(lost)}: it is cut, or has other names than MAR's")
    config = replace(
        AUTOENCODER_PRESETS["kl16"],
        channels=state["post_quant_conv.weight"].shape[0],
        widths=tuple(state[name].shape[0] for name in firsts),
        layers=_count(state, r"encoder\.down\.0\.block\.(\d+)\."),
    )
    parts = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
    tensors = {}
    for name, tensor in state.items():
        if name.startswith(parts):
            name = kl_name(name, levels)
            # Attention's 1 x 1 convolutions are linear layers there.
            linear = tensor.dim() == 4 and re.search(r"\.to_(q|k|v|out\.0)\.weight$", name)
            tensors["net." + name] = tensor[:, :, 0, 0] if linear else tensor
    _check(tensors, AutoencoderTokenizer, config)
    return config, tensors


def kl_name(name: str, levels: int) -> str:
    """A tensor of the original VAE code by its name in diffusers."""
    name = re.sub(r"\bdown\.(\d+)\.", r"down_blocks.\1.", name)
    name = re.sub(r"\bup\.(\d+)\.", lambda match: f"up_blocks.{levels - 1 - int(match[1])}.", name)
    name = re.sub(r"\bmid\.block_([12])\.", lambda match: f"mid_block.resnets.{int(match[1]) - 1}.", name)
    name = re.sub(r"\bmid\.attn_1\.", "mid_block.attentions.0.", name)
    name = re.sub(r"\bblock\.(\d+)\.", r"resnets.\1.", name)
    name = re.sub(r"\battn\.(\d+)\.", r"attentions.\1.", name)
    name = re.sub(r"\b(down|up)sample\.conv\.", r"\1samplers.0.conv.", name)
    name = re.sub(r"(attentions\.\d+)\.norm\.", r"\1.group_norm.", name)
    name = re.sub(r"(attentions\.\d+)\.([qkv])\.", r"\1.to_\2.", name)
    name = re.sub(r"(attentions\.\d+)\.proj_out\.", r"\1.to_out.0.", name)
    return name.replace("nin_shortcut", "conv_shortcut").replace("norm_out", "conv_norm_out")


def convert_dc_ae(state: Mapping[str, Tensor]) -> tuple[AutoencoderConfig, dict[str, Tensor]]:
    """DC-AE f32c32: the `-diffusers` file as it is, the original single file through diffusers' own renaming."""
    if any(name.startswith("encoder.project_in.") for name in state):
        from diffusers.loaders.single_file_utils import convert_autoencoder_dc_checkpoint_to_diffusers

        state = convert_autoencoder_dc_checkpoint_to_diffusers(dict(state))
    config = AUTOENCODER_PRESETS["dc-ae-f32c32"]
    tensors = {"net." + name: tensor for name, tensor in state.items()}
    _check(tensors, AutoencoderTokenizer, config)
    return config, tensors


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many different numbers the pattern's group takes among the names."""
    return len({match[1] for match in map(re.compile(pattern).match, state) if match})


def _check(tensors: Mapping[str, Tensor], model: type[nn.Module], config: EMIGMConfig | AutoencoderConfig) -> None:
    with torch.device("meta"):
        wants = shapes(model(config))
    compare(shapes(tensors), wants, "the file")
