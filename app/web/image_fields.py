"""The fields of the image endpoints: which there are, what they may be, and what each becomes.

A field is done, mapped with a note, or refused by name. Settings go to the request; options are about the answer;
OpenAI's fields that no model here has an equivalent for are accepted with the values that change nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.core import paths
from app.core.request import GenerationRequest, random_seed
from app.web.public_message import public_message
from maskgil.params import LEGACY, current_names, defaults, options, unknown_option
from maskgil.picture_sizes import parse_size

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
MAX_PARTIAL = 8  # partial images of a stream
# Fields of the request itself; the other settings are the options of maskgil/params.py.
OWN = ("prompt", "model", "n", "seed", "negative_prompt", "adapters", "sampler")
# Fields about the answer, with the values that they may have; None: any of the type.
ANSWER: dict[str, tuple[type, tuple[Any, ...] | None]] = {
    "size": (str, None),
    "stream": (bool, None),
    "partial_images": (int, tuple(range(MAX_PARTIAL + 1))),
    "response_format": (str, ("b64_json", "url")),
    "output_format": (str, tuple(MEDIA_TYPES)),
    "output_compression": (int, tuple(range(101))),
    "metadata": (bool, None),
    "strict": (bool, None),
    "anyway": (bool, None),  # of version 0.1, which refused unknown words without it
}
# Fields of OpenAI's API, with the values that are accepted.
MAPPED: dict[str, tuple[type, tuple[Any, ...] | None]] = {
    "quality": (str, ("auto", "low", "medium", "high", "standard", "hd")),
    "style": (str, ("vivid", "natural")),
    "background": (str, ("auto", "opaque")),
    "moderation": (str, ("auto", "low")),
    "input_fidelity": (str, ("low", "high")),
    "user": (str, None),
}
REMEDIES = {"background": "images have no transparency"}
QUALITY_STEPS = {"low": 4, "high": 16, "hd": 16}  # steps; the others have the default
# Names of OpenAI's models, which clients send by default: the default model is meant.
MODEL_ALIASES = ("", "dall-e-2", "dall-e-3", "gpt-image-1", "gpt-image-1-mini")
TEXTS = {"prompt", "model", "negative_prompt", "adapters", "sampler"}
TEXTS |= {name for name, value in defaults().items() if isinstance(value, str)}


@dataclass(frozen=True)
class AnswerOptions:
    """How an image call is answered.

    response_format  b64_json or url; None: both
    partial_images   0 to MAX_PARTIAL images of unfinished steps in a stream
    metadata         whether the files have the settings inside
    strict           refuse a prompt of which something is left out or replaced
    notes            how fields were mapped
    """

    stream: bool = False
    partial_images: int = 0
    response_format: str | None = None
    output_format: str = "png"
    output_compression: int | None = None
    metadata: bool = True
    strict: bool = False
    notes: tuple[str, ...] = ()


def read_image_fields(fields: Mapping[str, Any]) -> tuple[GenerationRequest, AnswerOptions]:
    """(what to draw, how to answer). The request's size is the one asked for; None is auto.

    Raises ValueError for a field that is unknown, and for a value that cannot be done.
    """
    fields = current_names(fields)
    known = known_fields()
    for name in fields:
        if name not in known:
            raise ValueError(unknown_option(name, known))
    fields = {name: value for name, value in fields.items() if value is not None}
    if "prompt" not in fields:
        raise ValueError("prompt is missing: say what to draw, for example 'two cats on the beach'")
    for name, (kind, values) in (ANSWER | MAPPED).items():
        if name in fields:
            _check_value(name, fields[name], kind, values)
    if fields.get("partial_images") and not fields.get("stream"):
        raise ValueError('partial_images come in a stream: add "stream": true')
    if fields.get("output_compression", 100) != 100 and fields.get("output_format", "png") == "png":
        raise ValueError("output_compression is for jpeg and webp: add output_format, or leave it out")
    settings, notes = _settings(fields)
    answer = AnswerOptions(
        fields.get("stream", False),
        fields.get("partial_images", 0),
        fields.get("response_format"),
        fields.get("output_format", "png"),
        fields.get("output_compression"),
        fields.get("metadata", True),
        fields.get("strict", False),
        tuple(notes),
    )
    return GenerationRequest.read(settings), answer


def _settings(fields: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """(fields of GenerationRequest, notes on what was mapped)."""
    given = {name: value for name, value in fields.items() if name not in ANSWER | MAPPED}
    notes = []
    if given.get("model") in MODEL_ALIASES:
        if name := given.pop("model"):
            notes.append(f"{name} is not served here: {public_message(paths.default_model())} draws")
    quality = fields.get("quality")
    if quality in QUALITY_STEPS and "steps" not in given:
        given["steps"] = QUALITY_STEPS[quality]
        notes.append(f"quality {quality} is {given['steps']} steps")
    for name in ("style", "input_fidelity"):
        if name in fields:
            notes.append(f"{name} {fields[name]} changes nothing: the models here have no such setting")
    size = fields.get("size", "auto")
    base = {
        "model": paths.default_model(),
        "seed": random_seed(),
        "size": None if size == "auto" else parse_size(size),
    }
    return base | given, notes


def known_fields() -> list[str]:
    """The names that a call may have."""
    return sorted({*OWN, *options(), *ANSWER, *MAPPED})


def parse_form_fields(texts: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a form. Texts stay as they are; numbers, pairs and truths are written as in JSON.

    Raises ValueError for one that cannot be read.
    """
    fields: dict[str, Any] = {}
    for name, text in texts.items():
        current = LEGACY.get(name, name)
        if current in TEXTS or (ANSWER | MAPPED).get(current, (None,))[0] is str:
            fields[name] = text
            continue
        try:
            fields[name] = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError(f"{name[:40]} is {brief_json(text)}: write it as in JSON, 8 or true or [0.1, 1]") from None
    return fields


def _check_value(name: str, value: Any, kind: type, values: tuple[Any, ...] | None) -> None:
    """Raises ValueError that says what the field may be."""
    if type(value) is kind and (values is None or value in values):
        return
    if values is None:
        allowed = {str: "a text", bool: "true or false"}[kind]
    else:
        allowed = f"{values[0]} to {values[-1]}" if kind is int else f"{', '.join(values[:-1])} or {values[-1]}"
    remedy = f" ({REMEDIES[name]})" if name in REMEDIES else ""
    raise ValueError(f"{name} is {brief_json(value)}: give {allowed}{remedy}")


def brief_json(value: Any) -> str:
    """A value as JSON, at most 40 characters."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."
