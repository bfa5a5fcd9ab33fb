"""Sample sheets of the large recipes: the same captions or prompts each time, so that sheets can be compared.

Axes: B pictures.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

import text_encoder as encoders
from maskgil import checkpoint
from maskgil.condition import Condition
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.token_grid import TokenGrid
from train.data.cached_batches import largest_batch
from train.data.mixed_batches import data_batches

SHOWN = 8  # pictures of a sheet
SCALE = 3.5  # of guidance


@runtime_checkable
class SheetModel(Protocol):
    """The fields of ModelSpec (train/recipes/pretrain.py) that draw a sheet."""

    tokenizer: str
    blank: Callable[[Any, int, tuple[int, int], torch.device], TokenGrid]
    draw: Callable[[Any, Condition, TokenGrid, Guidance | None], TokenGrid]


def condition_of(batch: dict[str, Tensor]) -> Condition:
    return Condition.classes(batch["labels"]) if "labels" in batch else Condition(batch["states"], batch["mask"])


def encoded_prompts(path: Path, text_encoder: str, made_by: str) -> Condition:
    """The states of the first prompts of a file, one a line. ValueError for an empty file, a prompt that is too long,
    and a text encoder other than the one that made the cache."""
    if not text_encoder:
        raise ValueError("--prompts needs --text-encoder: the one that the cache was made with")
    try:
        prompts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()][:SHOWN]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--prompts {path} cannot be read: {error}") from None
    if not prompts:
        raise ValueError(f"--prompts {path} holds no prompt: write one a line")
    encoder = encoders.load(text_encoder)
    if checkpoint.fingerprint(encoder.identity()) != made_by:
        raise ValueError(f"the cache was made with another text encoder than {text_encoder}")
    with torch.no_grad():
        return encoder.encode(prompts)


def sheet_sampler(
    data: str,
    tokenizer: str,
    note: dict[str, Any],
    show: Callable,
    trunk: SheetModel,
    prompted: Condition | None = None,
    batches: Callable[[int], dict[str, Any]] | None = None,
) -> Callable[[nn.Module, Path], None]:
    """Draws what `prompted` asks for; without it what the cache's captions ask for, above the cached pictures.
    `batches`: those of SHOWN pictures and captions, where `data` is no cache.

    Raises ValueError when the tokenizer is not the one of the cache.
    """
    model = checkpoint.load(checkpoint.resolve(tokenizer), trunk.tokenizer).requires_grad_(False)
    if checkpoint.fingerprint(model.identity()) != note["tokenizer"]:
        raise ValueError(f"{data} was made with another tokenizer than {tokenizer}")

    @torch.no_grad()
    def sample(average: nn.Module, path: Path) -> None:
        weight = next(average.generator.parameters())
        device = weight.device
        with torch.autocast(device.type, enabled=False):  # it cannot join float16
            shown = largest_batch(batches or data_batches(data, SHOWN, seed=99))
        batch = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in shown.items()}
        grid, config = batch["grid"], average.generator.config
        condition = (condition_of(batch) if prompted is None else prompted).to(device, weight.dtype)
        canvas = trunk.blank(config, len(condition), grid, device)
        guidance = Guidance(SCALE) if config.null != "none" else None
        rows = [trunk.draw(average.generator, condition, canvas, guidance).tokens]
        rows += [] if prompted is not None else [batch["tokens"]]
        model.to(device)
        with torch.autocast(device.type, enabled=False):
            pictures = [model.decode(tokens, grid) for tokens in rows]
        show(pictures, path)

    return sample
