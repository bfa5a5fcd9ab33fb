"""The mean of two Whispers, weight by weight: one that was tuned, and the one that it was tuned from.

    maskgil convert whisper-mean runs/released runs/tuned/export FOLDER --share 0.5

What tuning forgot comes back, and most of what it taught stays (WiSE-FT, Wortsman et al., 2022, arXiv 2109.01903).
The decoder, which holds the language, may have a share of its own.
"""

from pathlib import Path

import torch

from speech.ctranslate2_format import LICENSE
from speech.whisper_folder import load_whisper, save_whisper


def mean_whisper(released: Path, tuned: Path, folder: Path, share: float, decoder_share: float | None = None) -> None:
    """Writes the folder of the mean: `share` (0 to 1) of `tuned`, the rest of `released`, with the windows of `tuned`.

    `decoder_share`: of the decoder's weights; None: as `share`. Raises ValueError for another share, and for two models
    of different sizes.
    """
    shares = {"encoder": share, "decoder": share if decoder_share is None else decoder_share}
    for value in shares.values():
        if not 0 <= value <= 1:
            raise ValueError(f"share={value:g} of the tuned weights: give 0 (none of them) to 1 (those alone)")
    first, _ = load_whisper(released)
    second, windows = load_whisper(tuned)
    if first.dims != second.dims:
        raise ValueError(
            f"{released} and {tuned} are Whispers of different sizes: give one that was tuned from the other"
        )
    other = second.state_dict()
    mean = {
        name: torch.lerp(tensor, other[name], shares[name.partition(".")[0]])
        for name, tensor in first.state_dict().items()
    }
    first.load_state_dict(mean)
    said = " and ".join(f"{value:g} of its {part}" for part, value in shares.items())
    card = (
        f"# {folder.name}\n\nThe mean of two Whispers, weight by weight: `{tuned}` ({said}) and `{released}` (the "
        f"rest), made by `maskgil convert whisper-mean`.\n\n```\n{LICENSE}```\n"
    )
    save_whisper(folder, first, windows, card, f"{released.name}; {tuned.name}: {said}")
