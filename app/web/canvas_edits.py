"""What a canvas asks for, as requests to the engine: drawings, edits of kept pictures, and larger copies of them; and
how a model reads a prompt."""

import base64
import binascii
import io
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

from app.core import paths, png, registry
from app.core.edit_request import EditRequest
from app.core.gallery_store import GalleryEntry
from app.core.picture_edit import VARIATION, EditPlan, PictureEdit, caution
from app.core.prompt_admission import admit, words_of
from app.core.request import MAX_PROMPT, GenerationRequest, random_seed
from app.serving.admission import served_model
from app.serving.engine import Engine
from app.serving.jobs import Job, Status
from app.serving.services import AppServices
from maskgil.inpainting import TokenStart, fit_to_size
from maskgil.upscaling import has_upscaler, upscale
from text_encoder.prompt_reader import PromptReading

REFINED_SHARE = 0.6  # of a draft's tokens, the least certain first, that its refinement draws anew
AMOUNT = 64  # pixels of an extension that says none
START = 0.8  # share of a start picture's tokens that are drawn anew
MAX_MASK_SIDE = 1024  # pixels of a mask that a page sends
ONE_PICTURE = {"n": 1, "candidates": 1}  # settings of what is drawn while somebody types


def given_settings(message: dict[str, Any]) -> dict[str, Any]:
    settings = message.get("settings")
    return settings if isinstance(settings, dict) else {}


def parse_request(message: dict[str, Any], services: AppServices) -> GenerationRequest:
    """The request of a draw message. It reads files: no event loop may wait for it. Raises ValueError for an impossible
    one."""
    settings = {name: value for name, value in given_settings(message).items() if value is not None}
    request = GenerationRequest.read({"seed": random_seed(), **settings, "prompt": str(message.get("prompt", ""))})
    model = served_model(services.engine, request.model)
    request = replace(request, prompt=request.prompt.strip(), edit="", drawn="", drawn_negative="")
    return admit(request, model).request


def begin_edit(services: AppServices, owner: str, message: dict[str, Any]) -> tuple[Job, list[str]]:
    """(the drawing on a kept picture, what is to be said about it). Raises ValueError for an impossible edit.

    It takes as long as a model takes to load and to read the picture: no event loop may wait for it.
    """
    entry = services.gallery.get(owner, str(message.get("id", "")))
    if message.get("kind") == "start":
        return _begin_from(services, owner, entry, message), []
    prompt = str(message.get("prompt", "")).strip() or entry.prompt
    asked = {**message, "prompt": prompt, "settings": {**given_settings(message), "n": 1, "size": None}}
    request = parse_request(asked, services)
    loaded = services.engine.load(request.model)
    edit = PictureEdit(
        kind=str(message.get("kind", "")),
        image=png.read_picture(services.gallery.png(entry))[0],
        name=entry.id,
        prompt=request.text,
        previous=words_of(entry.prompt, request.model) if entry.prompt.strip() else "",
        mask=_mask(message.get("mask")),
        strength=_number(message, "strength", VARIATION if message.get("kind") == "vary" else 1.0),
        side=str(message.get("side", "")),
        amount=int(_number(message, "amount", AMOUNT)),
    )
    vocabulary = registry.find_local(request.model).vocabulary
    start = edit.start(loaded.model, loaded.encode, vocabulary, request.seed)
    request = replace(request, size=loaded.sizes[0], edit=edit.note(start))
    note = caution(vocabulary, loaded.sizes, edit.plan)
    return services.draw(request, owner, start), [note] if note else []


def _begin_from(services: AppServices, owner: str, entry: GalleryEntry, message: dict[str, Any]) -> Job:
    """A drawing of the prompt that starts from a kept picture (image-to-image), which is scaled and cut to its size."""
    request = parse_request(message, services)
    loaded = services.engine.load(request.model)
    size = request.size if request.size in loaded.sizes else loaded.sizes[0]
    image = fit_to_size(png.read_picture(services.gallery.png(entry))[0], [size])
    edit = EditRequest(image, None, "", _number(message, "strength", START))
    start, request = edit.begin(loaded.model, loaded.encode, request)
    return services.draw(request, owner, start)


def describe_caution(services: AppServices, owner: str, message: dict[str, Any]) -> str:
    """What is to be said of an edit before it is drawn: see app/core/picture_edit.py. The page measures its picture and
    what is brushed. It reads files: no event loop may wait for it."""
    entry = services.gallery.get(owner, str(message.get("id", "")))
    found = served_model(services.engine, str(given_settings(message).get("model") or paths.default_model()))
    plan = EditPlan(
        kind=str(message.get("kind", "")),
        size=_pair(message, "size"),
        prompt=str(message.get("prompt", "")).strip()[:MAX_PROMPT] or entry.prompt,
        previous=entry.prompt,
        side=str(message.get("side", "")),
        amount=int(_number(message, "amount", AMOUNT)),
        brushed=_number(message, "brushed", 0.0),
        extent=_pair(message, "extent"),
    )
    return caution(found.vocabulary, found.sizes, plan)


@dataclass(frozen=True)
class RefinedDraft(TokenStart):
    """The tokens of a draft, of which the least certain are drawn anew."""


def refined_draft(draft: Job | None, request: GenerationRequest) -> RefinedDraft | None:
    """A start from a finished draft of the same words; None where there is none."""
    if draft is None or draft.status is not Status.DONE or draft.request.text != request.text:
        return None
    grid = draft.frames[-1].grid
    if grid.tokens.is_floating_point() or (request.size or draft.request.size) != draft.request.size:
        return None
    least = grid.confidence[0].argsort()[: max(1, round(REFINED_SHARE * grid.confidence.shape[1]))]
    mask = torch.zeros_like(grid.mask[0])
    mask[least] = True
    return RefinedDraft(grid.tokens[0], mask, grid.grid, draft.pictures()[0])


def draws_the_same(job: Job, asked: GenerationRequest, seed_counts: bool) -> bool:
    """Whether a request is of the words, the options and, where `seed_counts`, the seed of a job. The numbers of
    pictures and of candidates do not count, and an edit has the size of the picture that was edited."""
    params = replace(job.requested.params, candidates=asked.params.candidates)
    before = replace(job.requested, n=asked.n, params=params)
    is_edit = job.start is not None and not isinstance(job.start, RefinedDraft)

    def compared(request: GenerationRequest) -> GenerationRequest:
        return replace(
            request,
            prompt=request.text,
            negative_prompt=request.negative_text,
            drawn="",
            drawn_negative="",
            edit="",
            seed=request.seed if seed_counts else 0,
            size=None if is_edit else request.size,
        )

    return compared(asked) == compared(before)


def upscaled(services: AppServices, owner: str, message: dict[str, Any]) -> tuple[GalleryEntry, Image.Image, str]:
    """(the larger picture in the gallery, its pixels, what is to be said about it)."""
    entry = services.gallery.get(owner, str(message.get("id", "")))
    factor = int(_number(message, "factor", 2))
    name = served_model(services.engine, str(given_settings(message).get("model") or paths.default_model())).name
    tokenizer = services.engine.load(name).model.tokenizer
    image = upscale(tokenizer, png.read_picture(services.gallery.png(entry))[0], factor)
    note = "" if has_upscaler(tokenizer) else f"The model {name} has no upscaler: the picture was only interpolated."
    request = entry.request and replace(entry.request, n=1, edit=f"upscaled {factor} times from {entry.id}")
    return services.gallery.add(owner, image, request), image, note


def describe_reading(engine: Engine, model: str, prompt: str) -> dict[str, Any]:
    """How a model reads a prompt: its stretches, what becomes of each, what may be said instead, and what is drawn.

    It reads files: no event loop may wait for it. Raises UnknownModelError.
    """
    found = served_model(engine, model)
    return describe_spans(found, found.reader.read(prompt))


def describe_spans(found: registry.ModelInfo, reading: PromptReading) -> dict[str, Any]:
    """The same of a reading by this model."""
    prompt, reader = reading.prompt, found.reader
    if found.classes is not None or not prompt.strip():
        return {"prompt": prompt, "spans": [], "chips": [], "drawn": prompt, "refused": ""}
    spans = [
        {"text": s.text, "status": s.status, "by": s.by, "why": s.why, "instead": reader.alternatives(s)}
        for s in reading.spans
    ]
    scene = reading.scene
    groups = [(f"{g.count} ×" if g.count > 1 else "", g.size, g.color, g.name) for g in scene.groups]
    chips = [" ".join(filter(None, group)) for group in groups] + [*scene.backgrounds, *filter(None, [scene.style])]
    refused = as_sentence(reading.refused) if reading.refused else ""
    return {"prompt": prompt, "spans": spans, "chips": chips, "drawn": reading.drawn, "refused": refused}


def as_sentence(text: str) -> str:
    """The text with a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?', '!')) else '.'}"


def _mask(text: Any) -> Image.Image | None:
    """The mask of a message: a PNG in base 64 whose alpha is the mask. Raises ValueError for anything else."""
    if text is None:
        return None
    try:
        data = base64.b64decode(str(text).rpartition(",")[2], validate=True)
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        if max(image.size) > MAX_MASK_SIDE:
            raise ValueError(f"the mask has more than {MAX_MASK_SIDE} pixels a side")
        return image.convert("RGBA").getchannel("A")
    except (binascii.Error, OSError, SyntaxError) as error:
        raise ValueError(f"the mask cannot be read ({error}): reload the page") from None


def _pair(message: dict[str, Any], name: str) -> tuple[int, int]:
    """Width and height in pixels."""
    values = message.get(name)
    if not isinstance(values, list) or len(values) != 2 or not all(type(value) is int for value in values):
        return 0, 0
    return values[0], values[1]


def _number(message: dict[str, Any], name: str, default: float) -> float:
    value = message.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e6:
        raise ValueError(f"{name} is {str(value)[:40]!r}: give a number")
    return float(value)
