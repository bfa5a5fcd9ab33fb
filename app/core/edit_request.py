"""A request to edit a picture: read from PNG bytes, turned into what the sampler gets (maskgil/inpainting.py)."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from PIL import Image

from app.core import png
from app.core.prompt_admission import words_of
from app.core.request import MAX_PROMPT, GenerationRequest
from maskgil.condition import Condition
from maskgil.inpainting import (
    InpaintingInput,
    fit_to_size,
    inpainting_input,
    mask_to_tokens,
    pick_share,
    reword,
    start_from,
    validate_strength,
)
from maskgil.pipeline import TextToImage
from maskgil.sampling import remasking


@dataclass(frozen=True)
class EditRequest:
    """A picture and what to change in it.

    image            the picture, of any size
    mask             marks the pixels to draw anew; None: the tokens that the new prompt contradicts are drawn anew
    previous_prompt  the prompt that the picture was drawn after; needed with neither a mask nor a strength
    strength         share of the tokens under the mask that are drawn anew, chosen by the seed; without a mask, of all
                     tokens (image-to-image: all pixels are decoded anew). None: all under the mask

    Raises ValueError for a strength outside (0, 1].
    """

    image: Image.Image
    mask: Image.Image | None
    previous_prompt: str
    strength: float | None = None

    def __post_init__(self) -> None:
        if self.strength is not None:
            validate_strength(self.strength)

    @staticmethod
    def read(
        image: bytes, mask: bytes | None = None, previous_prompt: str | None = None, strength: float | None = None
    ) -> "EditRequest":
        """An edit of picture files. Without `previous_prompt` the prompt in the picture's metadata is taken.

        Raises ValueError for bytes that are not a picture.
        """
        picture, request = png.read_picture(image)
        marked = None if mask is None else png.read_picture(mask)[0]
        if previous_prompt is None:
            previous_prompt = request.text if request else ""
        if len(previous_prompt) > MAX_PROMPT:
            length = f"{len(previous_prompt):,} characters"
            raise ValueError(f"the prompt before has {length} and at most {MAX_PROMPT:,} are read: shorten it")
        return EditRequest(picture, marked, previous_prompt, strength)

    def begin(
        self, model: TextToImage, encode: Callable[[str], Condition], request: GenerationRequest
    ) -> tuple[InpaintingInput, GenerationRequest]:
        """The input of the sampler, and the request with the size of the picture and a note about the edit.

        Raises ValueError when no token would be drawn, and when neither a mask, a strength nor the previous prompt is
        known.
        """
        picture = fit_to_size(self.image, model.sizes)
        rows, columns = model.grid(picture.size)
        share = "" if self.strength is None else f"a share of {self.strength:g}"
        if self.mask is not None:
            tokens = mask_to_tokens(self.mask, self.image, (rows, columns), picture.size)
            if self.strength is not None:
                tokens = pick_share(tokens, self.strength, request.seed, rows * columns)
            edited, how = inpainting_input(model, picture, tokens), f"masked{share and ', '}{share}"
        elif self.strength is not None:
            edited, how = start_from(model, picture, self.strength, request.seed), share
        elif self.previous_prompt.strip():
            before, after = encode(words_of(self.previous_prompt, request.model)), encode(request.text)
            edited = reword(model, picture, before, after, request.seed, remasking.MARGIN)
            how = f"new words for “{self.previous_prompt}”, margin {remasking.MARGIN:g}"
        else:
            raise ValueError(
                "it is not known after which words the picture was drawn: say so, mask what should change, or give a "
                "strength, the share that is drawn anew"
            )
        edited = replace(edited, foreign=self.image.size)
        return edited, replace(request, size=picture.size, edit=edit_note(edited, image_id(self.image.tobytes()), how))


def edit_note(edited: InpaintingInput, name: str, how: str = "") -> str:
    """The note in a picture's metadata about the edit that made it; `name` is the id of the picture before."""
    return f"{int(edited.mask.sum())} of {len(edited.mask)} cells of {name}: {edited.cells}{how and '; '}{how}"


def image_id(data: bytes) -> str:
    """Returns the first 12 hexadecimal digits of the SHA-256 hash of a picture."""
    return hashlib.sha256(data).hexdigest()[:12]
