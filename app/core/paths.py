"""Where things lie on disk. Each place has a default and an environment variable that moves it; ~ is expanded."""

import os
from pathlib import Path

from app.core import model_names
from maskgil import model_folder
from maskgil.model_folder import path_from_environment

WEIGHTS = model_folder.WEIGHTS
GALLERY = "MASKGIL_GALLERY"
MODEL = "MASKGIL_MODEL"
RECOGNIZER = "MASKGIL_RECOGNIZER"
LEGACY_RECOGNIZER = "MASKGIL_EAR"  # its former name, still read where the other is not set
TEXT_ENCODER = "MASKGIL_TEXT_ENCODER"


def gallery_folder() -> Path:
    """The folder that keeps people's pictures: of a checkout its gallery/, of an installed package the user's data."""
    if chosen := path_from_environment(GALLERY):
        return chosen
    if root := model_folder.checkout():
        return root / "gallery"
    return (path_from_environment("XDG_DATA_HOME") or Path("~/.local/share").expanduser()) / "maskgil" / "gallery"


def default_model() -> str:
    """The model of whoever names none: a bundled one, or the name of the folder that is given (model_names)."""
    return model_names.name_of(os.path.expanduser(os.environ.get(MODEL) or "scenes"))


def default_recognizer() -> str:
    """The recognizer that transcribes speech: a bundled name, a file, or a released Whisper size."""
    chosen = os.environ.get(RECOGNIZER) or os.environ.get(LEGACY_RECOGNIZER)
    return os.path.expanduser(chosen or "whisper-tiny-en")


def text_encoder_memory() -> str:
    """How text encoders are held: full, bf16, 8bit, 4bit or offload (text_encoder/encoder_memory.py)."""
    return os.environ.get(TEXT_ENCODER) or "full"
