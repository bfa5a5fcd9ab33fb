"""Which preset of sampling options (maskgil/params.py) a model is drawn with where nobody chooses one.

    released layouts    as they were released: amused, meissonic
    LlamaGen with text  llamagen
    scenes in codes     default: without guidance, measured on them (docs/results.md); guided where guidance has a task
    all others          guided: 8 guided steps; drawing without guidance was measured only on scenes

This module imports no torch.
"""

from pathlib import Path
from typing import Any

from maskgil.fileio import parse_json
from maskgil.params import LEGACY_VALUES
from maskgil.released import layout

DEFAULT, GUIDED, LLAMAGEN = "default", "guided", "llamagen"
REFERENCE, EMIGM = "reference", "emigm"  # `emigm` names a preset and a kind of generator


def preset_of(folder: Path) -> str:
    """The name of the preset. ValueError for a folder in a released layout that cannot be read."""
    if layout.is_released(folder):
        return layout.ReleasedFolder.open(folder).sampler
    about, vocabulary = _json(folder / "generator" / "config.json"), _json(folder / "vocabulary.json")
    config = about.get("config")
    if about.get("kind") == "llamagen" and isinstance(config, dict) and config.get("text_dim"):
        return LLAMAGEN
    return DEFAULT if about.get("kind") == "maskgil" and vocabulary.get("objects") else GUIDED


def sampler_for(folder: Path, asked: str | None) -> str:
    """The name of the preset that `asked` means for a model: its own where None. `reference` is the sampler of the
    released code of the model's method, MaskGIL or eMIGM. ValueError as `preset_of`."""
    if asked is None:
        return preset_of(folder)
    asked = LEGACY_VALUES["sampler"].get(asked, asked)
    if asked == REFERENCE and _json(folder / "generator" / "config.json").get("kind") == EMIGM:
        return EMIGM
    return asked


def preset_for(preset: str, mode: str | None = None, negative: str = "") -> str:
    """The preset that counts where nobody chooses one, of a model whose own is `preset`.

    `default` does not guide. A negative prompt has no effect on the tokens without guidance, and the autoregressive
    model was measured with it (maskgil/sampling/ar_prefix.py): for these it is `guided`. `mode` None: masked.
    """
    needs_guidance = bool(negative.strip()) or mode in ("hybrid", "ar")
    return GUIDED if preset == DEFAULT and needs_guidance else preset


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read, which loading complains of."""
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
