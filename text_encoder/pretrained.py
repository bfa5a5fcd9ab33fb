"""Models of Hugging Face's transformers, refused where their files do not hold all of their weights."""

import re
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

# What transformers and torch raise for configs and weights that are damaged.
UNREADABLE = (
    *(ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    *(SafetensorError, StrictDataclassError),
)
MOST_LAYERS = 256
LAYER = re.compile(r"(text_model\.)?encoder\.(layers|block)\.\d+\.")
OPTIONAL = ("pooler.",)  # heads that some encoders are saved without, and that no state depends on


def load_pretrained(family: Any, name: str | Path, **load: Any) -> Any:
    """A model of this class, from a folder or by its hub id. `load`: arguments of transformers' from_pretrained.

    transformers fills in tensors that are missing with random numbers; here they are an error. Raises ValueError for a
    model that cannot be found or read, and for weights that are cut, missing or of another shape.
    """
    try:
        model, found = family.from_pretrained(str(name), output_loading_info=True, **load)
    except UNREADABLE as error:
        raise ValueError(f"its weights cannot be read: {first_line(error)}") from None
    missing = sorted(key for key in found["missing_keys"] if not key.startswith(OPTIONAL))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"its files lack the weights {missing[0]}{more}: fetch it again")
    if left := [key for key in found["unexpected_keys"] if LAYER.match(key)]:
        raise ValueError(f"its files hold {left[0]}, a layer more than its config says: fetch it again")
    if wrong := sorted(str(each[0] if isinstance(each, tuple) else each) for each in found["mismatched_keys"]):
        raise ValueError(f"its weights {wrong[0]} have another shape than its config says: fetch it again")
    return model


def validate_config(config: Any, least_layers: int = 1) -> None:
    """ValueError for the config of an encoder that has fewer or far more layers than any model, or no attention heads:
    nothing is built by it."""
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    if not least_layers <= layers <= MOST_LAYERS:
        raise ValueError(f"its config says num_hidden_layers = {layers}; {least_layers} to {MOST_LAYERS} are expected")
    if heads < 1 or config.hidden_size < 1:
        raise ValueError(f"its config says {heads} attention heads and a hidden size of {config.hidden_size}")


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or repr(error)).splitlines()[0]
