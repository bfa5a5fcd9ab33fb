"""Edits of pictures of any size through a window of a size that the model draws.

A window is a part of the picture, scaled where needed. Its tokens under the mask are drawn anew and the result is
pasted back into the whole picture. Pixels that the mask does not touch stay to the last bit. An extension is an edit of
a larger picture whose new part is masked.

N tokens, C channels of a continuous one. Sizes are (width, height) and boxes (left, top, right, bottom) in pixels.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image, ImageChops, ImageFilter
from torch import Tensor

from maskgil.image_io import flatten
from maskgil.inpainting import InpaintingInput, pick_share
from maskgil.pipeline import TextToImage
from maskgil.seam_blending import blend_seam, image_to_tensor

Size = tuple[int, int]
Box = tuple[int, int, int, int]

TOUCHED = 0.06  # share of a cell's pixels, weighted by the mask, from which its token is drawn anew
FEATHER = 3.0  # pixels over which the border of a mask is softened
SIDES = ("left", "right", "up", "down")
MIN_AMOUNT, MAX_AMOUNT = 32, 256  # pixels of one extension
MAX_WINDOW = 384  # pixels a side of the grid that an extension is drawn on
MAX_SIDE = 4096  # pixels of an extended picture


@dataclass(frozen=True, kw_only=True)
class WindowedInput(InpaintingInput):
    """The part of a picture that is drawn on. `image` is the window at the model's size.

    whole    the picture, RGB
    box      where the window lies in it
    opacity  mode L, of the size of the box: how much of the drawn pixels is used at each place
    """

    whole: Image.Image
    box: Box
    opacity: Image.Image

    def paste_back(self, drawn: Image.Image) -> Image.Image:
        """The whole picture with the drawn window in it."""
        rows, columns = self.grid
        cells = Image.fromarray(self.mask.view(rows, columns).cpu().numpy().astype(np.uint8) * 255, "L")
        blended = blend_seam(drawn, self.image, cells.resize(drawn.size, Image.Resampling.NEAREST))
        if blended.size != self.opacity.size:
            blended = blended.resize(self.opacity.size, Image.Resampling.LANCZOS)
        result = self.whole.copy()
        result.paste(blended, self.box[:2], self.opacity)
        return result

    def cell_image(self, cells: Image.Image, size: Size) -> Image.Image:
        """Values of cells (mode L, a pixel each) as a picture of the whole; 255 outside the window."""
        left, top, right, bottom = self.box
        result = Image.new("L", size, 255)
        result.paste(cells.resize((right - left, bottom - top), Image.Resampling.NEAREST), (left, top))
        return result


def windowed_input(
    model: TextToImage,
    image: Image.Image,
    mask: Image.Image,
    strength: float = 1.0,
    seed: int = 0,
) -> WindowedInput:
    """The start of an edit.

    image     a picture of any size
    mask      mode L, of the same size: 255 where it is drawn anew; in between the new pixels are mixed in
    strength  share of the tokens under the mask that are drawn anew, chosen by the seed

    Raises ValueError when the mask is empty or has another size, and for a strength outside (0, 1].
    """
    if mask.size != image.size:
        raise ValueError(f"the mask is {mask.size} and the picture {image.size}: make them alike")
    touched = mask.point(lambda level: 255 * (level > 8)).getbbox()
    if touched is None:
        raise ValueError("nothing is brushed: paint over what should change")
    box, size = choose_window(image.size, touched, model.sizes)
    cells = share_of(masked_cells(mask.crop(box), model.grid(size)), strength, seed)
    opacity = _opacity(mask.crop(box), cells, FEATHER)
    return _start(model, flatten(image), (box, size), cells, opacity)


def extended_input(model: TextToImage, image: Image.Image, side: str, amount: int) -> WindowedInput:
    """The start of an extension of a picture of any size to one side by `amount` pixels.

    It is drawn on a grid that holds the picture and its new part, larger than those of the model's sizes, so that the
    model sees all of the picture; of a large one the nearest MAX_WINDOW pixels.

    Raises ValueError for an unknown side and an impossible amount.
    """
    if side not in SIDES:
        raise ValueError(f"unknown side {side!r}: choose one of {', '.join(SIDES)}")
    if not MIN_AMOUNT <= amount <= MAX_AMOUNT:
        raise ValueError(f"{amount} pixels: a picture is extended by {MIN_AMOUNT} to {MAX_AMOUNT} pixels at a time")
    across = side in ("left", "right")
    width, height = image.width + amount * across, image.height + amount * (not across)
    if max(width, height) > MAX_SIDE:
        raise ValueError(f"{width} × {height} is too large: extended pictures have at most {MAX_SIDE} pixels a side")
    whole = Image.new("RGB", (width, height))
    whole.paste(flatten(image), (amount * (side == "left"), amount * (side == "up")))
    mask = Image.new("L", whole.size, 255)
    mask.paste(0, (amount * (side == "left"), amount * (side == "up"), *_corner(image.size, side, amount)))
    box, size = _extension_window(model, whole.size, side, amount)
    cells = masked_cells(mask.crop(box), (size[1] // _cell(model), size[0] // _cell(model)))
    return _start(model, whole, (box, size), cells, mask.crop(box))


def _corner(size: Size, side: str, amount: int) -> Size:
    """Where the old picture ends in the larger one."""
    return size[0] + amount * (side == "left"), size[1] + amount * (side == "up")


def _extension_window(model: TextToImage, size: Size, side: str, amount: int) -> tuple[Box, Size]:
    """(box at the new edge, size of its grid in pixels)."""
    across = side in ("left", "right")
    scale = max(1.0, (size[1] if across else size[0]) / MAX_WINDOW)
    length = min(size[0] if across else size[1], max(round(MAX_WINDOW * scale), amount + _cell(model)))
    box = {
        "left": (0, 0, length, size[1]),
        "right": (size[0] - length, 0, *size),
        "up": (0, 0, size[0], length),
        "down": (0, size[1] - length, *size),
    }[side]
    if getattr(model.generator.config, "grid", None):  # a model of only one grid
        return box, model.sizes[0]
    width, height = (max(1, round((box[i + 2] - box[i]) / scale / _cell(model))) * _cell(model) for i in range(2))
    return box, (width, height)


def choose_window(size: Size, touched: Box, sizes: Iterable[Size]) -> tuple[Box, Size]:
    """(the window's box in a picture, the model's size that it is drawn in).

    The window holds all that is touched. It lies at the picture's own scale where a size of the model fits into the
    picture; then the one with the most to see around what is touched is taken. Otherwise it is scaled.
    """
    need = touched[2] - touched[0], touched[3] - touched[1]
    fitting = [s for s in sizes if all(n <= a <= b for n, a, b in zip(need, s, size, strict=True))]
    if fitting:
        chosen = max(fitting, key=lambda s: s[0] * s[1])
        return _place(chosen, touched, size), chosen
    # The smallest scale at which a size holds what is touched, with a margin, and stays inside the picture.
    options = []
    for width, height in sizes:
        scale = max(1.25 * need[0] / width, 1.25 * need[1] / height)
        inside = min(size[0] / width, size[1] / height)
        options.append((max(need[0] / width, need[1] / height) > inside, abs(min(scale, inside) - 1), (width, height)))
    overflows, _, (width, height) = min(options)
    if overflows:  # what is touched is as long as the picture: the window takes all of it, and its shape is changed
        aspect = size[0] / size[1]
        nearest = min(sizes, key=lambda s: abs(np.log(s[0] / s[1] / aspect)))
        return (0, 0, *size), nearest
    scale = min(max(1.25 * need[0] / width, 1.25 * need[1] / height), size[0] / width, size[1] / height)
    return _place((max(need[0], round(scale * width)), max(need[1], round(scale * height))), touched, size), (
        width,
        height,
    )


def masked_cells(mask: Image.Image, grid: tuple[int, int]) -> Bool[Tensor, "R C"]:
    """The cells of a window of which the mask touches enough."""
    rows, columns = grid
    shares = mask.resize((columns, rows), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(shares, np.float32) / 255) >= TOUCHED


def share_of(cells: Bool[Tensor, "R C"], strength: float, seed: int) -> Bool[Tensor, "R C"]:
    """This share of the marked cells, as `pick_share` chooses them."""
    chosen = torch.zeros(cells.numel(), dtype=torch.bool)
    chosen[pick_share(cells.flatten().nonzero()[:, 0].tolist(), strength, seed, cells.numel())] = True
    return chosen.view_as(cells)


@torch.no_grad()
def _start(
    model: TextToImage, whole: Image.Image, place: tuple[Box, Size], cells: Bool[Tensor, "R C"], opacity: Image.Image
) -> WindowedInput:
    """The window at its place (box in the picture, size of the grid in pixels), with these cells to be drawn."""
    box, size = place
    window = whole.crop(box).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return WindowedInput(
        tokens=model.tokenizer.encode(image_to_tensor(window).to(model.device))[0],
        mask=cells.flatten().to(model.device),
        grid=(cells.shape[0], cells.shape[1]),
        image=window,
        whole=whole,
        box=box,
        opacity=opacity,
    )


def _cell(model: TextToImage) -> int:
    """Pixels a side of a token's cell."""
    return model.tokenizer.config.downsample


def _place(window: Size, touched: Box, size: Size) -> Box:
    """The window's box around the middle of what is touched, moved into the picture."""
    left, top = (min(max(0, (touched[i] + touched[i + 2] - window[i]) // 2), size[i] - window[i]) for i in range(2))
    return left, top, left + window[0], top + window[1]


def _opacity(mask: Image.Image, cells: Bool[Tensor, "R C"], feather: float) -> Image.Image:
    """The mask with a soft border, and nothing outside the cells that are drawn anew."""
    drawn = Image.fromarray(cells.numpy().astype(np.uint8) * 255, "L").resize(mask.size, Image.Resampling.NEAREST)
    soft = ImageChops.darker(mask, mask.filter(ImageFilter.GaussianBlur(feather))) if feather else mask
    return ImageChops.darker(soft, drawn)
