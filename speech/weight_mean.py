"""The mean of two Whispers, weight by weight: one that was tuned, and the one that it was tuned from.

    maskgil convert whisper-mean runs/released runs/tuned/export FOLDER --share 0.7

What tuning forgot comes back, and most of what it taught stays (WiSE-FT, Wortsman et al., 2022, arXiv 2109.01903).
"""

from pathlib import Path

import torch

from speech.ctranslate2_format import LICENSE
from speech.whisper_folder import load_whisper, save_whisper


def mean_whisper(released: Path, tuned: Path, folder: Path, share: float) -> None:
    """Writes the folder of the mean: `share` (0 to 1) of `tuned`, the rest of `released`, with the windows of `tuned`.

    Raises ValueError for another share, and for two models of different sizes.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share:g} of the tuned weights: give 0 (none of them) to 1 (those alone)")
    first, _ = load_whisper(released)
    second, windows = load_whisper(tuned)
    if first.dims != second.dims:
        raise ValueError(
            f"{released} and {tuned} are Whispers of different sizes: give one that was tuned from the other"
        )
    other = second.state_dict()
    mean = {name: torch.lerp(tensor, other[name], share) for name, tensor in first.state_dict().items()}
    first.load_state_dict(mean)
    source = f"{1 - share:g} of {released.name} and {share:g} of {tuned.name}"
    card = (
        f"# {folder.name}\n\nThe mean of two Whispers, weight by weight: {1 - share:g} of `{released}` and "
        f"{share:g} of `{tuned}`, made by `maskgil convert whisper-mean`.\n\n```\n{LICENSE}```\n"
    )
    save_whisper(folder, first, windows, card, source)
