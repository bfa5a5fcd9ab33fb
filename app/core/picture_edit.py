"""Edits of a picture on the page, turned into what the sampler gets: a brushed part, other words, a variation, an
extension. The pictures may have any size (maskgil/windowed_edit.py)."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from app.core.edit_request import edit_note
from maskgil import windowed_edit
from maskgil.aspect_buckets import nearest_bucket
from maskgil.condition import Condition
from maskgil.inpainting import InpaintingInput
from maskgil.pipeline import TextToImage
from maskgil.sampling import remasking
from maskgil.sampling.loop import TokenGrid
from maskgil.seam_blending import image_to_tensor
from text_encoder.prompt_reader import PromptVocabulary, VocabularyEntry

KINDS = ("paint", "words", "vary", "extend")
THING_NATS = -1.5  # change of a token's log-likelihood below which its cell shows a thing (see `other_things`)
VARIATION = 0.4  # share of the tokens that a variation draws anew
MUCH = 0.6  # share of a picture from which on little is left for a brushed part to fit to

Encode = Callable[[str], Condition]


@dataclass(frozen=True)
class EditPlan:
    """What is known of an edit before it is begun. `kind`, `prompt`, `previous`, `side` and `amount` as in PictureEdit.

    size     (width, height) of the picture in pixels
    brushed  share of the picture that is brushed
    extent   (width, height) in pixels of the box around what is brushed
    """

    kind: str
    size: tuple[int, int]
    prompt: str
    previous: str = ""
    side: str = ""
    amount: int = 0
    brushed: float = 0.0
    extent: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class PictureEdit:
    """What to do with a picture.

    kind      one of KINDS
    image     the picture, of any size
    name      its id, for the note in the file
    prompt    what the whole picture shows afterwards
    previous  what it was drawn after; empty where that is not known
    mask      mode L, of its size: what is brushed (paint), or None
    strength  share of the tokens under the mask that are drawn anew (paint, vary)
    side, amount  where an extension goes, in pixels
    """

    kind: str
    image: Image.Image
    name: str
    prompt: str
    previous: str = ""
    mask: Image.Image | None = None
    strength: float = 1.0
    side: str = ""
    amount: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown edit {self.kind[:40]!r}: choose one of {', '.join(KINDS)}")

    def start(self, model: TextToImage, encode: Encode, vocabulary: PromptVocabulary, seed: int) -> InpaintingInput:
        """The sampler's input. Raises ValueError when there is nothing to draw."""
        if self.kind == "extend":
            return windowed_edit.extended_input(model, self.image, self.side, self.amount)
        strength = self.strength if self.kind in ("paint", "vary") else 1.0
        mask = self._mask(model, encode, vocabulary, seed)
        return windowed_edit.windowed_input(model, self.image, mask, strength, seed)

    @property
    def plan(self) -> EditPlan:
        """What can be said of it before it is drawn."""
        mask = None if self.mask is None else self.mask.resize(self.image.size).point(lambda level: 255 * (level > 24))
        left, top, right, bottom = (mask and mask.getbbox()) or (0, 0, 0, 0)
        brushed = 0.0 if mask is None else float(np.asarray(mask).mean() / 255)
        about = (self.kind, self.image.size, self.prompt, self.previous, self.side, self.amount)
        return EditPlan(*about, brushed, (right - left, bottom - top))

    def note(self, start: InpaintingInput) -> str:
        """The note in the file about the edit."""
        how = {
            "paint": "brushed" if self.strength == 1.0 else f"brushed, a share of {self.strength:g}",
            "vary": f"a share of {self.strength:g}",
            "words": f"new words for “{self.previous}”, margin {remasking.MARGIN:g}",
            "extend": f"extended {self.side} by {self.amount} from {self.image.width}x{self.image.height}",
        }
        return edit_note(start, self.name, how[self.kind])

    def _mask(self, model: TextToImage, encode: Encode, vocabulary: PromptVocabulary, seed: int) -> Image.Image:
        if self.kind == "vary":
            return Image.new("L", self.image.size, 255)
        if self.kind == "paint":
            if self.mask is None:
                raise ValueError("nothing is brushed: paint over what should change")
            return self.mask.resize(self.image.size, Image.Resampling.BILINEAR)
        if not self.previous.strip():
            raise ValueError("it is not known after which words the picture was drawn: brush over it instead")
        if model.autoregressive:
            raise ValueError("this model draws line by line and cannot tell what new words change: brush over it")
        cells = words_mask(model, encode, vocabulary, self, seed)
        return cells.resize(self.image.size, Image.Resampling.NEAREST)


def words_mask(
    model: TextToImage, encode: Encode, vocabulary: PromptVocabulary, edit: PictureEdit, seed: int
) -> Image.Image:
    """What other words change, one pixel for each cell: the cells that they make less likely; with another place also
    all cells but the middle of the things, and with another style all. Raises ValueError when there are none."""
    image = windowed_edit.flatten(edit.image)
    image = image.resize(nearest_bucket(image.size, model.sizes), Image.Resampling.LANCZOS)
    rows, columns = model.grid(image.size)
    tokens = model.tokenizer.encode(image_to_tensor(image).to(model.device))
    given = TokenGrid(tokens, torch.zeros(1, rows * columns, dtype=torch.bool, device=model.device), (rows, columns))

    def change(new: str) -> np.ndarray:
        """Of each cell, by how many nats the new words make its token more likely."""
        result = remasking.remask_changed(model.generator, given, encode(edit.previous), encode(new), [seed])
        return result.change.view(rows, columns).float().cpu().numpy()

    changed = change(edit.prompt) < -remasking.MARGIN
    if named(vocabulary.styles, edit.previous) != named(vocabulary.styles, edit.prompt):
        changed[:] = True
    elif named(vocabulary.backgrounds, edit.previous) != named(vocabulary.backgrounds, edit.prompt):
        others = other_things(vocabulary, edit.previous)
        changed |= ~middle_of_things(np.mean([change(other) for other in others], axis=0)) if others else True
    if not changed.any():
        raise ValueError("the new words contradict nothing in the picture: brush over what should change")
    return Image.fromarray(changed.astype(np.uint8) * 255, "L")


def _thing_names(vocabulary: PromptVocabulary) -> dict[str, str]:
    """What things are called, plurals and synonyms included, in small letters: word -> the thing."""
    return {
        name.lower(): thing.name
        for thing in vocabulary.objects
        for name in (thing.plural, thing.name, *thing.synonyms)
        if name
    }


def _thing_pattern(names: Iterable[str]) -> re.Pattern:
    """Finds things in a prompt, the longest name first."""
    longest = sorted(map(re.escape, names), key=len, reverse=True)
    return re.compile(r"\b(" + "|".join(longest) + r")\b", re.IGNORECASE)


def things_in(vocabulary: PromptVocabulary, prompt: str) -> list[str]:
    """The things that a prompt names, each once."""
    names = _thing_names(vocabulary)
    found = _thing_pattern(names).findall(prompt) if names else []
    return list(dict.fromkeys(names[each.lower()] for each in found))


def other_things(vocabulary: PromptVocabulary, prompt: str, number: int = 3) -> list[str]:
    """The prompt with its things replaced by others: cells that these make unlikely show the things."""
    if not (present := things_in(vocabulary, prompt)):
        return []
    pattern = _thing_pattern(_thing_names(vocabulary))
    free = [thing for thing in vocabulary.objects if thing.name not in present]
    chosen = free[:: max(1, len(free) // number)][:number]
    plurals = {thing.plural for thing in vocabulary.objects if thing.plural}
    return [
        pattern.sub(lambda m, other=other: (m[0].lower() in plurals and other.plural) or other.name, prompt)
        for other in chosen
    ]


def middle_of_things(change: np.ndarray) -> np.ndarray:
    """The cells that show nothing but things: those whose neighbors show things, too. Cells at the border of a thing
    show the place as well and are drawn anew. `change` is that of `other_things` in nats."""
    things = np.pad(change < THING_NATS, 1, constant_values=True)
    middle = things[1:-1, 1:-1] & things[:-2, 1:-1] & things[2:, 1:-1] & things[1:-1, :-2] & things[1:-1, 2:]
    if middle.any():
        return middle
    return change <= min(THING_NATS, float(np.sort(change, axis=None)[:3].max()))


def named(entries: tuple[VocabularyEntry, ...], prompt: str) -> dict[str, str]:
    """The places or styles that a prompt names: name -> the words that it says it with."""
    found = {}
    for entry in entries:
        for phrase in sorted(entry.say or (entry.name,), key=len, reverse=True):
            if re.search(rf"\b{re.escape(phrase)}\b", prompt, re.IGNORECASE):
                found[entry.name] = phrase
                break
    return found


def caution(vocabulary: PromptVocabulary, sizes: Iterable[tuple[int, int]], plan: EditPlan) -> str:
    """What an edit does not do well, in one sentence; empty where nothing is to be said. `sizes`: (width, height) in
    pixels that the model draws."""
    if plan.kind == "words":
        return _caution_of_words(vocabulary, plan)
    if plan.kind == "extend":
        return _caution_of_extension(vocabulary, plan)
    if plan.kind == "paint" and plan.brushed > MUCH:
        return "Most of the picture is brushed: little is left for the new part to fit to."
    width, height = plan.extent if plan.kind == "paint" else plan.size
    if not any(width <= widest and height <= highest for widest, highest in sizes):
        return f"{width} × {height} is more than the model draws at once: what is new comes out less sharp."
    return ""


def _caution_of_extension(vocabulary: PromptVocabulary, plan: EditPlan) -> str:
    own = plan.size[0] if plan.side in ("left", "right") else plan.size[1]
    if plan.amount > own:
        return f"{plan.amount} pixels are more than the picture's own {own}: most of the new part is a guess."
    if things := things_in(vocabulary, plan.prompt):
        return f"The new part is drawn from the same words: it may show another {' or '.join(things)}."
    return ""


def _caution_of_words(vocabulary: PromptVocabulary, plan: EditPlan) -> str:
    if named(vocabulary.styles, plan.previous) != named(vocabulary.styles, plan.prompt):
        return "Another style draws the whole picture anew."
    if named(vocabulary.backgrounds, plan.previous) != named(vocabulary.backgrounds, plan.prompt):
        return "Another place draws all around the things anew, and their borders, too: they may change a little."
    if _counts(vocabulary, plan.previous) != _counts(vocabulary, plan.prompt):
        return "Another number of things often leaves parts of the old ones: brush over what is left of them."
    return ""


def _counts(vocabulary: PromptVocabulary, prompt: str) -> list[str]:
    words = {*vocabulary.counts, "one", "two", "three", "four", "a", "an"}
    return [{"a": "one", "an": "one"}.get(word, word) for word in re.findall(r"\w+", prompt.lower()) if word in words]
