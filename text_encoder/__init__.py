"""Text encoders and the prompt reader.

    encoder = text_encoder.load("google/flan-t5-xl")      # or a folder, bundled or Hugging Face
    condition = encoder.encode(["two cats on the beach"])  # Condition(states (B L E), mask (B L))

The encoders need torch and transformers, which take seconds to import, so they are imported when they are first asked
for; prompts are read without them (text_encoder/prompt_reader).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from text_encoder.encoders import (
        ENCODER_MEMORY,
        ClipTextEncoder,
        HuggingFaceEncoder,
        SmallT5Config,
        SmallT5Encoder,
        TextEncoder,
        load,
        train_vocabulary,
    )

__all__ = [
    "ENCODER_MEMORY",
    "ClipTextEncoder",
    "HuggingFaceEncoder",
    "SmallT5Config",
    "SmallT5Encoder",
    "TextEncoder",
    "load",
    "train_vocabulary",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from text_encoder import encoders

    value = getattr(encoders, name)
    globals()[name] = value
    return value
