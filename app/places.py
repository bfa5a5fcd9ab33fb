"""Where things lie on disk. Each place has a default beside the code and an environment variable that moves it."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = "MASKGIL_WEIGHTS"
GALLERY = "MASKGIL_GALLERY"
MODEL = "MASKGIL_MODEL"
EAR = "MASKGIL_EAR"


def weights() -> Path:
    """The folder that holds one folder per bundled model."""
    return Path(os.environ.get(WEIGHTS) or ROOT / "weights")


def gallery() -> Path:
    """The folder that keeps people's pictures."""
    return Path(os.environ.get(GALLERY) or ROOT / "gallery")


def model() -> str:
    """The model of whoever names none: a bundled name or a folder."""
    return os.environ.get(MODEL) or "scenes"


def ear() -> str:
    """The recogniser that writes down speech: a bundled name, a file, or a released Whisper size."""
    return os.environ.get(EAR) or "whisper-scenes"
