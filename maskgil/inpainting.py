"""Paint over a part of a picture: its tokens outside the mask stay, and so do its pixels.

A picture is cut into the cells of its tokens. Some of them are masked, and the model fills them under new words: those
that are brushed, any, those that the new words contradict, or new ones beyond the edge. The others are given to it, and
the original pixels are put back there afterwards, to the last bit. A picture of a size that the model does not draw is
scaled first, and that is said.

N tokens, C channels of a continuous one, H W pixels. Sizes are (width, height) in pixels.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageOps
from torch import Tensor

from maskgil.aspect_buckets import nearest_bucket
from maskgil.condition import Condition
from maskgil.option_checks import brief
from maskgil.pipeline import TextToImage
from maskgil.sampling import counter_rng, remasking
from maskgil.sampling.token_grid import TokenGrid
from maskgil.seam_blending import blend_seam


@dataclass(frozen=True)
class InpaintingInput:
    """A picture that is drawn on: its tokens, the masked tokens, and its pixels. `brought`: the size that it had, where
    it was scaled to be drawn on."""

    tokens: Int[Tensor, " N"] | Float[Tensor, "N C"]
    mask: Bool[Tensor, " N"]
    grid: tuple[int, int]
    image: Image.Image
    foreign: tuple[int, int] | None = None

    @property
    def scaled(self) -> str:
        """What became of a picture of another size; empty where it is as it was brought."""
        if self.foreign is None or self.foreign == self.image.size:
            return ""
        return "the picture was scaled from {}x{} to {}x{}, which the model draws".format(
            *self.foreign, *self.image.size
        )

    @property
    def cells(self) -> str:
        """The masked tokens, numbered line by line, in runs: "3-5 17"."""
        runs: list[list[int]] = []
        for cell in self.mask.nonzero()[:, 0].tolist():
            if runs and runs[-1][1] == cell - 1:
                runs[-1][1] = cell
            else:
                runs.append([cell, cell])
        return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)

    def token_grid(self, n: int) -> TokenGrid:
        """The same start for each of n pictures."""
        return TokenGrid(self.tokens[None].repeat_interleave(n, 0), self.mask.repeat(n, 1), self.grid)

    def cell_image(self, cells: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Values of cells (mode L, one pixel each) at the size of the picture."""
        return cells.resize(size, Image.Resampling.NEAREST)

    def paste_back(self, drawn: Image.Image) -> Image.Image:
        """The drawn picture with the original's pixels wherever no cell was masked; the colors of the new part are led
        into them."""
        rows, columns = self.grid
        cells = Image.fromarray(self.mask.view(rows, columns).cpu().numpy().astype(np.uint8) * 255, "L")
        new = cells.resize(drawn.size, Image.Resampling.NEAREST)
        return Image.composite(blend_seam(drawn, self.image, new), self.image, new)


@dataclass(frozen=True)
class TokenStart(InpaintingInput):
    """A picture of which only the tokens stay that are not masked: all pixels are decoded anew."""

    def paste_back(self, drawn: Image.Image) -> Image.Image:
        """The drawn picture as it is."""
        return drawn


@dataclass(frozen=True)
class Outpainting:
    """More room around a picture: the side to which it goes on, the size that it then has, and where in that it lies,
    in cells from the left and from the top."""

    side: str
    size: tuple[int, int]
    left: int
    top: int


def fit_to_size(image: Image.Image, sizes: Iterable[tuple[int, int]]) -> Image.Image:
    """The picture in the nearest size (width, height), cut at the longer side; RGB on white."""
    rgba = image.convert("RGBA")
    flat = Image.new("RGB", image.size, "white")
    flat.paste(rgba, mask=rgba.getchannel("A"))
    sizes = list(sizes)
    if flat.size in sizes:
        return flat
    return ImageOps.fit(flat, nearest_bucket(image.size, sizes), Image.Resampling.LANCZOS)


@torch.no_grad()
def inpainting_input(model: TextToImage, image: Image.Image, cells: Iterable[int]) -> InpaintingInput:
    """A start from a picture of a size that the model draws. `cells`: those to fill, numbered line by line.

    Raises ValueError when no cell is brushed, or one that is not there.
    """
    grid = model.grid(model.validate_size(image.size))
    count, brushed = grid[0] * grid[1], sorted(set(cells))
    if not brushed:
        raise ValueError("nothing is brushed: paint over what should change")
    if brushed[0] < 0 or brushed[-1] >= count:
        raise ValueError(f"cell {brushed[-1]} of {count}: brush on the picture itself")
    masked = torch.zeros(count, dtype=torch.bool, device=model.device)
    masked[brushed] = True
    return InpaintingInput(_tokens(model, image), masked, grid, image.convert("RGB"))


def start_from(model: TextToImage, image: Image.Image, strength: float, seed: int) -> TokenStart:
    """Image-to-image: a start from a picture of a size that the model draws, of whose tokens the share `strength` is
    drawn anew; the seed chooses them. Raises ValueError for a share outside (0, 1]."""
    rows, columns = model.grid(model.validate_size(image.size))
    start = inpainting_input(model, image, pick_share(range(rows * columns), strength, seed, rows * columns))
    return TokenStart(start.tokens, start.mask, start.grid, start.image)


def mask_to_tokens(mask: Image.Image, image: Image.Image, grid: tuple[int, int], fit: tuple[int, int]) -> list[int]:
    """The cells of a picture, `fitted` to the size `fit` of this grid, that a mask wants to be filled: those with a
    pixel that is transparent in it or, where nothing is, white. A line however thin marks the cells that it crosses.

    Raises ValueError for a mask of another size than the picture's, and for one that marks nothing.
    """
    if mask.size != image.size:
        raise ValueError(
            f"the mask is {mask.width}x{mask.height} and the picture {image.width}x{image.height}: make them alike"
        )
    alpha = mask.convert("RGBA").getchannel("A")
    wanted = ImageOps.invert(alpha) if np.asarray(alpha).min() < 128 else mask.convert("L")
    marked = np.asarray(wanted) > 127
    scale = min(image.width / fit[0], image.height / fit[1])  # what is beyond the edges of `fit` was cut off
    lines, across = (
        [_range((side - scale * kept) / 2, scale * kept / count, i, side) for i in range(count)]
        for side, kept, count in zip(marked.shape, fit[::-1], grid, strict=True)
    )
    found = [
        row * grid[1] + column
        for row, line in enumerate(lines)
        for column, part in enumerate(across)
        if marked[line, part].any()
    ]
    if not found:
        raise ValueError("the mask marks nothing: make what should change transparent in it, or white")
    return found


def _range(start: float, step: float, number: int, side: int) -> slice:
    """The pixels, one at least, of a cell: number `number` of those that are `step` wide, from `start` on."""
    first = min(int(start + number * step + 1e-6), side - 1)
    return slice(first, max(first + 1, int(np.ceil(start + (number + 1) * step - 1e-6))))


def outpaintings(size: tuple[int, int], sizes: Iterable[tuple[int, int]], cell: int) -> list[Outpainting]:
    """The ways in which a picture of this size can go on, given the sizes that the model draws and its cells' side.

    It goes on to one side where the other measure stays, and around onto any size that holds it.
    """
    found = []
    for width, height in sizes:
        right, down = (width - size[0]) // cell, (height - size[1]) // cell
        if min(right, down) < 0 or (width, height) == tuple(size):
            continue
        places = {"around": (right // 2, down // 2)}
        if not down:
            places |= {"right": (0, 0), "left": (right, 0)}
        if not right:
            places |= {"down": (0, 0), "up": (0, down)}
        found += [Outpainting(side, (width, height), *place) for side, place in places.items()]
    return found


def fill_gaps(size: tuple[int, int], ways: Iterable[Outpainting]) -> str:
    """Why a picture cannot go on to the sides to which there is no way, to be read; empty when it can to all."""
    open_to, (width, height) = {way.side for way in ways}, size
    if not open_to:
        return f"It cannot be extended: the model draws nothing that {width} × {height} pixels fit into."
    reasons = []
    if "left" not in open_to:
        reasons.append(f"Not to the left or right: the model draws nothing wider that is {height} pixels high.")
    if "up" not in open_to:
        reasons.append(f"Not up or down: the model draws nothing higher that is {width} pixels wide.")
    return " ".join(reasons)


@torch.no_grad()
def outpaint(model: TextToImage, image: Image.Image, way: Outpainting) -> InpaintingInput:
    """A start from a picture that lies on a larger grid, whose other cells are masked."""
    (rows, columns), (height, width) = model.grid(model.validate_size(way.size)), model.grid(image.size)
    tokens = _tokens(model, image)
    inside = (slice(way.top, way.top + height), slice(way.left, way.left + width))
    placed = tokens.new_zeros(rows, columns, *tokens.shape[1:])
    placed[inside] = tokens.unflatten(0, (height, width))
    masked = torch.ones(rows, columns, dtype=torch.bool, device=model.device)
    masked[inside] = False
    side = model.tokenizer.config.downsample
    room = Image.new("RGB", way.size)
    room.paste(image.convert("RGB"), (way.left * side, way.top * side))
    return InpaintingInput(placed.flatten(0, 1), masked.flatten(), (rows, columns), room)


@torch.no_grad()
def reword(
    model: TextToImage, image: Image.Image, old: Condition, new: Condition, seed: int, margin: float
) -> InpaintingInput:
    """A start from a picture of the old words: its masked tokens are the cells that the new words make less likely, by
    more than `margin` nats (maskgil/sampling/remasking.py).

    Raises ValueError when there are none, and for an autoregressive model, which cannot tell.
    """
    if model.autoregressive:
        raise ValueError("this model draws line by line and cannot tell what new words change: brush over it")
    tokens, grid = _tokens(model, image), model.grid(model.validate_size(image.size))
    given = TokenGrid(tokens[None], torch.zeros(1, len(tokens), dtype=torch.bool, device=model.device), grid)
    masked = remasking.remask_changed(model.generator, given, old, new, [seed], margin=margin).canvas.mask[0]
    if not masked.any():
        raise ValueError("the new words contradict nothing in the picture: brush over what should change")
    return InpaintingInput(tokens, masked, grid, image.convert("RGB"))


def validate_strength(strength: float) -> float:
    """The share of the tokens that image-to-image draws anew. Raises ValueError outside (0, 1]."""
    if not 0.0 < strength <= 1.0:
        raise ValueError(f"strength is {brief(strength)}: give a share above 0 and at most 1")
    return strength


def pick_share(cells: Iterable[int], strength: float, seed: int, count: int) -> list[int]:
    """This share of the given cells, at least one of them, chosen by the seed. `count`: cells of the whole grid.

    Raises ValueError for a share outside (0, 1].
    """
    validate_strength(strength)
    draw = counter_rng.uniform(torch.tensor([seed]), counter_rng.RngStream.REMASK, torch.tensor([0]), count, 1)[0, :, 0]
    ordered = sorted(cells, key=draw.tolist().__getitem__)
    return ordered[: max(1, round(strength * len(ordered)))]


def _tokens(model: TextToImage, image: Image.Image) -> Int[Tensor, " N"] | Float[Tensor, "N C"]:
    array = torch.from_numpy(np.asarray(image.convert("RGB"), np.float32).copy()).permute(2, 0, 1)[None]
    return model.tokenizer.encode((array / 127.5 - 1).to(model.device))[0]
