"""The OpenAPI description of the HTTP API, made of the tables that the API itself reads."""

from typing import Any

from app.core.request import MAX_IMAGES, MAX_PROMPT, MAX_SEED
from app.web.audio_calls import FORMATS, GRANULARITIES
from app.web.image_fields import ANSWER, MAPPED, MEDIA_TYPES
from maskgil.option_checks import Option
from maskgil.params import SAMPLER_HELP, SAMPLERS, defaults, option_types, options

TYPES = {str: "string", int: "integer", bool: "boolean"}
STATUSES = {
    "400": "a field is wrong: the message says what to do",
    "401": "the server has API keys, and the request has none of them",
    "403": "Host or Origin is not this server's",
    "404": "no such model, file or path",
    "405": "the path takes another method",
    "408": "the body did not come in time",
    "411": "the upload has no length",
    "413": "the body is too large",
    "415": "the body is of another type",
    "429": "the queue, the caller's places or the key's minute is full: see Retry-After",
    "500": "a fault of the server",
    "503": "the server is shutting down, or cannot open a model or its recognizer: see Retry-After",
}


def describe_api(version: str) -> dict[str, Any]:
    """The description as JSON has it (OpenAPI 3.1)."""
    image_fields = _image_properties()
    edit_fields = image_fields | {
        "image": {"type": "string", "contentMediaType": "application/octet-stream", "description": "the picture"},
        "mask": {
            "type": "string",
            "contentMediaType": "application/octet-stream",
            "description": "a picture of the same size: what is transparent in it is drawn anew",
        },
        "was": {"type": "string", "description": "without a mask: the prompt that the picture was drawn after"},
        "strength": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "description": "the share of the tokens, of those under the mask where there is one, that is drawn anew",
        },
    }
    variation_fields = image_fields | {"image": edit_fields["image"]}
    paths = {
        "/v1/models": {"get": _operation("Models", None, {"application/json": {"type": "object"}})},
        "/v1/models/{name}": {
            "get": _operation("One model", None, {"application/json": {"type": "object"}})
            | {"parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]}
        },
        "/v1/images/generations": {
            "post": _operation("Draw", _body("application/json", image_fields, ["prompt"]), IMAGES)
        },
        "/v1/images/edits": {
            "post": _operation(
                "Draw on a picture", _body("multipart/form-data", edit_fields, ["prompt", "image"]), IMAGES
            )
        },
        "/v1/images/variations": {
            "post": _operation(
                "Draw a picture's words again", _body("multipart/form-data", variation_fields, ["image"]), IMAGES
            )
        },
    }
    summaries = {"transcriptions": "Transcribe a recording", "translations": "Write a recording in English"}
    for name, summary in summaries.items():
        body = _body("multipart/form-data", _audio_properties(), ["file"])
        paths[f"/v1/audio/{name}"] = {"post": _operation(summary, body, TRANSCRIPTS)}
    paths["/v1/images/files/{name}"] = {
        "get": _operation("An image of response_format url", None, dict.fromkeys(MEDIA_TYPES.values(), BYTES))
        | {"parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]}
    }
    paths |= HEALTH
    return {
        "openapi": "3.1.0",
        "info": {"title": "MaskGIL", "version": version, "description": "Images and transcripts, as OpenAI's API."},
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": ERROR},
        },
        "security": [{}, {"key": []}],
    }


BYTES = {"type": "string", "contentMediaType": "application/octet-stream"}
STATE = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}


def _state(summary: str, media_type: str, schema: dict[str, Any], **others: str) -> dict[str, Any]:
    """A path that monitors ask. `others`: statuses with the same answer, such as s503="why"."""
    answer = {"content": {media_type: {"schema": schema}}}
    texts = {"s200": "done", **others}
    refused = {"description": STATUSES["403"], "content": {"text/plain": {"schema": {"type": "string"}}}}
    responses = {name[1:]: {"description": text} | answer for name, text in texts.items()} | {"403": refused}
    return {"get": {"summary": summary, "responses": responses, "security": [{}]}}


HEALTH = {
    "/healthz": _state("The process answers", "application/json", STATE),
    "/readyz": _state("The server can draw", "application/json", STATE, s503="not yet, or no more: see reason"),
    "/metrics": _state("Counters in Prometheus' format", "text/plain", {"type": "string"}),
}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}
IMAGES = {
    "application/json": {
        "type": "object",
        "required": ["created", "data", "model", "size"],
        "properties": {
            "created": {"type": "integer"},
            "data": {"type": "array", "items": {"type": "object"}},
            "model": {"type": "string"},
            "size": {"type": "string"},
            "notes": {"type": "array", "items": {"type": "string"}},
        },
    },
    "text/event-stream": {"type": "string"},
}
TRANSCRIPTS = {
    "application/json": {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
    "text/plain": {"type": "string"},
    "text/vtt": {"type": "string"},
    "application/x-subrip": {"type": "string"},
    "text/event-stream": {"type": "string"},
}


def _image_properties() -> dict[str, Any]:
    properties: dict[str, Any] = {
        "prompt": {"type": "string", "maxLength": MAX_PROMPT, "description": "what to draw"},
        "negative_prompt": {"type": "string", "maxLength": MAX_PROMPT, "description": "what to avoid"},
        "adapters": {"type": "string", "description": "LoRA adapters with their weights, such as ink:0.8, holiday"},
        "model": {"type": "string", "description": "a name of /v1/models; OpenAI's names mean the default model"},
        "n": {"type": "integer", "minimum": 1, "maximum": MAX_IMAGES, "default": 1},
        "seed": {"type": "integer", "minimum": 0, "maximum": MAX_SEED, "description": "left out: a random one"},
        "sampler": {"type": "string", "enum": list(SAMPLERS), "description": SAMPLER_HELP},
    }
    types, values = option_types(), defaults()
    for name, about in options().items():
        properties[name] = _option_schema(types[name], about) | {"default": values[name], "description": about.help}
    for name, (kind, choices) in (ANSWER | MAPPED).items():
        properties[name] = {"type": TYPES[kind]}
        if kind is int and choices:
            properties[name] |= {"minimum": choices[0], "maximum": choices[-1]}
        elif choices:
            properties[name]["enum"] = list(choices)
    properties["size"]["description"] = "auto or WIDTHxHEIGHT: the nearest size of the model is drawn"
    return properties


def _option_schema(kind: Any, about: Option) -> dict[str, Any]:
    """The JSON schema of a sampling option."""
    text = str(kind)
    if "tuple" in text:
        item = {"type": "number", "minimum": about.low, "maximum": about.high}
        return {"type": "array", "items": item, "minItems": 2, "maxItems": 2}
    if about.choices is not None:
        return {"type": "string"} if "poly" in about.help else {"type": "string", "enum": list(about.choices)}
    name = "number" if "float" in text else "integer" if "int" in text else "boolean" if "bool" in text else "string"
    schema: dict[str, Any] = {"type": [name, "null"] if "None" in text else name}
    return schema | ({} if about.low is None else {"minimum": about.low, "maximum": about.high})


def _audio_properties() -> dict[str, Any]:
    return {
        "file": {"type": "string", "contentMediaType": "application/octet-stream"},
        "model": {"type": "string", "description": "whisper-1 means the default recognizer"},
        "response_format": {"type": "string", "enum": list(FORMATS), "default": "json"},
        "stream": {"type": "boolean", "default": False},
        "language": {"type": "string", "description": "a code such as en; others need a multilingual recognizer"},
        "temperature": {"type": "number", "minimum": 0, "maximum": 1},
        "prompt": {"type": "string"},
        "timestamp_granularities[]": {"type": "array", "items": {"type": "string", "enum": list(GRANULARITIES)}},
    }


def _body(media_type: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "required": required, "properties": properties, "additionalProperties": False}
    return {"required": True, "content": {media_type: {"schema": schema}}}


def _operation(summary: str, body: dict[str, Any] | None, answers: dict[str, Any]) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses: dict[str, Any] = {
        "200": {"description": "done", "content": {kind: {"schema": schema} for kind, schema in answers.items()}}
    }
    responses |= {status: {"description": text, "content": error} for status, text in STATUSES.items()}
    operation: dict[str, Any] = {"summary": summary, "responses": responses}
    if body is not None:
        operation["requestBody"] = body
    return operation
