"""One picture of a data set with its captions or class, decoded from files."""

import codecs
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from PIL import Image

from maskgil.image_io import ReadLimits, flatten, open_image

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
CAPTIONS = (".txt", ".caption", ".json")  # endings of caption files, in the order in which they are looked for
LIMITS = ReadLimits(bytes=2**30, side=2**16, pixels=178_000_000)  # Pillow itself refuses more pixels
CAPTION_KEYS = ("caption", "text", "prompt", "TEXT", "captions")

Report = Callable[[str], None]


@dataclass(frozen=True)
class ImageExample:
    """An RGB image with one or several captions, or the number of its class.

    along    the share of its unit that has been read with it
    content  a hash of picture, name and captions or class: equal ones give equal rows of a cache
    digest   a hash of only the picture's file
    place    the picture's file, for messages; empty where it is a part of another file
    """

    key: str
    image: Image.Image
    captions: tuple[str, ...] = ()
    label: int | None = None
    along: float = 0.0
    content: str = ""
    digest: str = ""
    place: str = ""

    @property
    def caption(self) -> str | None:
        """The first of the captions."""
        return self.captions[0] if self.captions else None


@runtime_checkable
class ImageSource(Protocol):
    """Units of pictures.

    names    of the units; equal names mean equal pictures
    classes  names of the labels; None: the pictures have captions
    origin   where the pictures are"""

    names: list[str]
    classes: list[str] | None
    origin: str

    def read(self, unit: int, report: Report) -> Iterator[ImageExample]: ...


def make_example(
    key: str,
    data: bytes,
    *,
    captions: tuple[str, ...] = (),
    label: int | None = None,
    along: float,
    upright: bool = True,
    place: str = "",
) -> ImageExample:
    """An example of an encoded picture. ValueError when it is broken or cut."""
    words = captions[0] if len(captions) == 1 else list(captions) or None
    told = json.dumps([key, words, label, upright]).encode()
    digest = hashlib.sha256(data)
    content = hashlib.sha256(told + digest.digest()).hexdigest()[:20]
    image, digits = open_example(data, upright), digest.hexdigest()[:20]
    return ImageExample(key, image, captions, label, along, content, digits, place)


def open_example(data: bytes, upright: bool = True) -> Image.Image:
    """RGB pixels of an encoded picture, transparent ones over white, turned as its camera noted (`upright`).

    ValueError when it is broken, cut or beyond LIMITS, without the advice for a person who uploads one.
    """
    try:
        return flatten(open_image(data, upright, LIMITS))
    except ValueError as error:
        reason, _, advice = str(error).rpartition(": ")
        raise ValueError(reason or advice) from None


def _text(data: bytes) -> str:
    """UTF-8, with or without a byte order mark, or UTF-16 with one."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def captions_of(name: str, data: bytes, key: str) -> tuple[str, ...]:
    """The captions of a file: the whole text, or the entry `key` (else one of CAPTION_KEYS) of a .json, which may be a
    list.

    ValueError when there is none.
    """
    try:
        text = _text(data)
        entries = json.loads(text) if name.lower().endswith(".json") else text
    except ValueError:
        raise ValueError(f"{name} cannot be read: write captions as UTF-8") from None
    if isinstance(entries, dict):
        entries = next((entries[k] for k in (key, *CAPTION_KEYS) if entries.get(k)), None)
    return several(entries)


def several(captions: object) -> tuple[str, ...]:
    """The different captions of a string or a list of strings. ValueError where there is none."""
    found = [caption for caption in captions if caption] if isinstance(captions, list | tuple) else [captions]
    return tuple(dict.fromkeys(cleaned(caption) for caption in found)) or (cleaned(None),)


def cleaned(text: object) -> str:
    """A caption with single spaces. ValueError when it is no string, or empty."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError("no caption")
    return " ".join(text.split())
