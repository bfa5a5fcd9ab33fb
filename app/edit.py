"""Paint over a part of a picture: its tokens outside the brushed cells stay, and so do its pixels.

A picture is cut into the cells of its tokens. What is brushed becomes holes that the model fills under new words; what
is not brushed is given to it, and the original pixels are put back there afterwards, to the last bit.

N tokens, H W pixels.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageOps
from torch import Tensor

from maskgil import noise
from maskgil.decoding import Canvas
from maskgil.pipeline import TextToImage


@dataclass(frozen=True)
class Start:
    """A picture that is drawn on: its tokens, the holes to fill, and its pixels."""

    tokens: Int[Tensor, " N"] | Float[Tensor, "N C"]
    hole: Bool[Tensor, " N"]
    grid: tuple[int, int]
    image: Image.Image

    def canvas(self, n: int) -> Canvas:
        """The same start for each of n pictures."""
        return Canvas(self.tokens[None].repeat_interleave(n, 0), self.hole.repeat(n, 1), self.grid)

    def paste_back(self, drawn: Image.Image) -> Image.Image:
        """The drawn picture with the original's pixels wherever nothing was brushed."""
        rows, columns = self.grid
        cells = Image.fromarray(self.hole.view(rows, columns).cpu().numpy().astype(np.uint8) * 255, "L")
        return Image.composite(drawn, self.image, cells.resize(drawn.size, Image.Resampling.NEAREST))


def fitted(image: Image.Image, sizes: Iterable[tuple[int, int]]) -> Image.Image:
    """The picture in the size (width, height) of the nearest shape, cut at the longer side; RGB on white."""
    rgba = image.convert("RGBA")
    flat = Image.new("RGB", image.size, "white")
    flat.paste(rgba, mask=rgba.getchannel("A"))
    sizes = list(sizes)
    if flat.size in sizes:
        return flat
    shape = image.width / image.height
    size = min(sizes, key=lambda s: (abs(np.log(s[0] / s[1] / shape)), -s[0] * s[1]))
    return ImageOps.fit(flat, size, Image.Resampling.LANCZOS)


@torch.no_grad()
def start(model: TextToImage, image: Image.Image, cells: Iterable[int]) -> Start:
    """A start from a picture of a size that the model draws. `cells`: those to fill, numbered line by line.

    Raises ValueError when no cell is brushed, or one that is not there.
    """
    grid = model.grid(model.checked_size(image.size))
    count, brushed = grid[0] * grid[1], sorted(set(cells))
    if not brushed:
        raise ValueError("nothing is brushed: paint over what should change")
    if brushed[0] < 0 or brushed[-1] >= count:
        raise ValueError(f"cell {brushed[-1]} of {count}: brush on the picture itself")
    array = torch.from_numpy(np.asarray(image.convert("RGB"), np.float32).copy()).permute(2, 0, 1)[None]
    tokens = model.tokenizer.encode((array / 127.5 - 1).to(model.device))[0]
    hole = torch.zeros(count, dtype=torch.bool, device=model.device)
    hole[brushed] = True
    return Start(tokens, hole, grid, image.convert("RGB"))


def scattered(share: float, seed: int, grid: tuple[int, int]) -> list[int]:
    """Cells for a variation: this share of them (at least one), anywhere."""
    count = grid[0] * grid[1]
    draw = noise.uniform(torch.tensor([seed]), noise.Stream.REPAINT, torch.tensor([0]), count, 1)[0, :, 0]
    return draw.argsort()[: max(1, round(share * count))].tolist()
