"""The released text-to-image models that the project draws with: where they come from, what they take, whose they are.

This module imports no torch: the list is printed without it.
"""

import difflib
from dataclasses import dataclass

BYTES_PER_NUMBER = 4  # weights are released in float32


@dataclass(frozen=True)
class RepositoryFiles:
    """Files of a Hugging Face repository: those that match `patterns`, written under `into` of the model's folder."""

    repo: str
    patterns: tuple[str, ...]
    into: str = ""


@dataclass(frozen=True)
class ReleasedModel:
    """A model that `maskgil models get` fetches.

    name        by which it is asked for everywhere: its id on Hugging Face, where a repository holds one model
    good_for    what somebody chooses it for, in a few words
    size        of its images, (width, height) in pixels
    generator, text_encoder, tokenizer  numbers that each part has learned
    exact       of the text encoder's, those that 8 and 4 bits leave as they are: tables of words, norms, biases
    clip        whether the text encoder is CLIP's, else T5's
    license     of the weights
    steps       of its sampler, as released
    download    gigabytes that are fetched; 0: its parameters in float32
    untested    of this model, besides what is untested of all: that the released weights draw what is asked for
    converted   it is fetched in files that are converted to a model folder (maskgil/released/conversion.py)
    """

    name: str
    good_for: str
    size: tuple[int, int]
    generator: int
    text_encoder: int
    tokenizer: int
    license: str
    steps: int
    repositories: tuple[RepositoryFiles, ...]
    download: float = 0.0
    converted: bool = False
    exact: int = 0
    clip: bool = True
    untested: str = ""

    @property
    def cpu_seconds(self) -> float | None:
        """An image on two x86-64 cores in float32, as released; None where it was not measured."""
        return CPU_SECONDS.get(self.name)

    @property
    def parameters(self) -> int:
        return self.generator + self.text_encoder + self.tokenizer

    @property
    def gigabytes(self) -> float:
        """About what is fetched."""
        return self.download or self.parameters * BYTES_PER_NUMBER / 1e9


# Seconds of an image, by `maskgil bench released` (docs/released-models.md says on what, and when).
CPU_SECONDS = {
    "amused/amused-256": 40.7,
    "amused/amused-512": 55.7,
    "MeissonFlow/Meissonic": 1481.5,
    "Collov-Labs/Monetico": 1046.2,
}

DIFFUSERS_FILES = (
    "README.md",
    "model_index.json",
    "scheduler/*.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model*.safetensors",
    "vqvae/config.json",
    "vqvae/diffusion_pytorch_model*.safetensors",
    "text_encoder/config.json",
    "text_encoder/model*.safetensors*",  # the index of several files, too
    *(f"tokenizer/*.{kind}" for kind in ("json", "txt", "model")),
)
CLIP_FILES = ("config.json", "model.safetensors")  # of a whole CLIP, of which the text half is read
T5_FILES = ("config.json", "model*.safetensors*", "special_tokens_map.json", "spiece.model", "tokenizer*.json")
VARIANTS = ("*.fp16.*", "*.fp8.*", "*.non_ema.*", "*.bf16.*")  # the same weights once more: not fetched
CLIP_L, CLIP_H, T5_XL = 123_650_304, 354_032_640, 1_223_527_424  # T5: only the encoder
CLIP_L_EXACT, CLIP_H_EXACT, T5_EXACT = 38_715_648, 52_042_752, 65_899_520
AMUSED_VQ, LLAMAGEN_VQ, LLAMAGEN_XL = 146_244_675, 71_883_403, 777_923_840
T5_XL_DOWNLOAD = 11.4  # GB: encoder and decoder


def _llamagen(name: str) -> tuple[RepositoryFiles, ...]:
    return (
        RepositoryFiles("peizesun/llamagen_t2i", (f"{name}.pt", "vq_ds16_t2i.pt"), "released"),
        RepositoryFiles("google/flan-t5-xl", T5_FILES, "text_encoder/flan-t5-xl"),
    )


def _diffusers(repo: str) -> tuple[RepositoryFiles, ...]:
    return (RepositoryFiles(repo, DIFFUSERS_FILES),)


MODELS = (
    ReleasedModel(
        "amused/amused-256",
        "fast small images",
        (256, 256),
        603_537_664,
        CLIP_L,
        AMUSED_VQ,
        "OpenRAIL++",
        12,
        _diffusers("amused/amused-256"),
        exact=CLIP_L_EXACT,
    ),
    ReleasedModel(
        "amused/amused-512",
        "fast images of medium size",
        (512, 512),
        608_257_792,
        CLIP_L,
        AMUSED_VQ,
        "OpenRAIL++",
        12,
        _diffusers("amused/amused-512"),
        exact=CLIP_L_EXACT,
    ),
    ReleasedModel(
        "MeissonFlow/Meissonic",
        "large detailed images",
        (1024, 1024),
        1_006_946_304,
        CLIP_H,
        AMUSED_VQ,
        "Apache 2.0",
        48,
        (
            RepositoryFiles("MeissonFlow/Meissonic", tuple(f for f in DIFFUSERS_FILES if "text_encoder" not in f)),
            # The authors draw with the text encoder of this repository (their inference.py).
            RepositoryFiles("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", CLIP_FILES, "text_encoder"),
        ),
        exact=CLIP_H_EXACT,
        untested="its text encoder from another repository",
        download=8.6,  # the text encoder's repository holds the vision half too, 2.5 GB
    ),
    ReleasedModel(
        "Collov-Labs/Monetico",
        "detailed images of medium size",
        (512, 512),
        998_555_648,
        CLIP_H,
        AMUSED_VQ,
        "Apache 2.0",
        48,
        _diffusers("Collov-Labs/Monetico"),
        exact=CLIP_H_EXACT,
    ),
    *(
        ReleasedModel(
            f"LlamaGen/t2i-XL-{side}",
            good_for,
            (side, side),
            LLAMAGEN_XL,
            T5_XL,
            LLAMAGEN_VQ,
            "MIT",
            (side // 16) ** 2,
            _llamagen(name),
            download=T5_XL_DOWNLOAD + 3.4,
            converted=True,
            untested="captions as they are typed, where the release cleans them",
            exact=T5_EXACT,
            clip=False,
        )
        for side, name, good_for in (
            (256, "t2i_XL_stage1_256", "small images, token by token"),
            (512, "t2i_XL_stage2_512", "images of medium size, token by token"),
        )
    ),
)


def find_model(name: str) -> ReleasedModel | None:
    """The model of this name, in any case of letters; None when there is none."""
    return next((model for model in MODELS if model.name.lower() == name.lower()), None)


def released_model(name: str) -> ReleasedModel:
    """The model of this name. ValueError, with the nearest name, when there is none."""
    if (model := find_model(name)) is not None:
        return model
    names = [model.name for model in MODELS]
    near = difflib.get_close_matches(name, names, 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    raise ValueError(f"no released model is named {name!r}: {hint}")
