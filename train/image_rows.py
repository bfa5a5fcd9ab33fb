"""Rows of pictures as one PNG: the sample sheets of a run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from maskgil.fileio import atomic_write


def write_image_rows(rows: Sequence[Float[Tensor, "B 3 H W"]], path: Path) -> None:
    """Write rows of pixels in [-1, 1], all of one size, as one sheet. OSError where that cannot be written."""
    sheet = torch.cat([torch.cat(list(row.float().cpu()), -1) for row in rows], -2)
    array = sheet.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
    with atomic_write(path) as partial:
        Image.fromarray(np.ascontiguousarray(array)).save(partial, "PNG")
