"""Pictures and transcripts over HTTP, for programs; the fields and the answers are those of OpenAI's API.

    GET  /v1/models                  {"data": [{"id", "draws", "sizes", "words"}]}
    POST /v1/images/generations      JSON in; {"created", "data": [{"b64_json", "seed"}], "size", ...} out, or, with
                                     "stream": true server-sent events, partial pictures first
    POST /v1/images/edits            the same of a form with the picture `image`, and `mask`: what is transparent in it
                                     is drawn anew; without one, what the prompt contradicts (in `was`, the old words)
    POST /v1/audio/transcriptions    a form with `file`; {"text"} out, or the bare text with response_format=text

Partial pictures of a drawing with `candidates` are of the first one, the finished picture of the one that was chosen.
A field is obeyed or refused: nothing is left aside in silence. What cannot be done is {"error": {"message", "type",
"code"}} with 400 (wrong), 404 (not here), 413 (too large), 429 (too busy) or 500 (our fault). A caller that hangs up
takes its drawing along. Pictures are in nobody's gallery. A browser may ask from this very page, from no other.
"""

import asyncio
import base64
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as Call
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from app.core import paths, png, registry
from app.core.edit_request import EditRequest
from app.core.request import GenerationRequest, parse_size, random_seed
from app.serving.engine import QueueFullError
from app.serving.jobs import Job, Status
from app.serving.services import get_services
from app.web import health
from app.web.api_errors import ApiError
from app.web.api_keys import ApiKeys
from maskgil.params import LEGACY, current_names, defaults, options, unknown_option

log = logging.getLogger(__name__)

MAX_JSON = 2**16  # bytes
MAX_FORM = 16 * 2**20  # bytes of a form with a recording or with pictures
MAX_WAIT = 60.0  # seconds for a caller to send all of it
MAX_PARTIAL = 8  # partial pictures of a stream
MAX_CONCURRENT_UPLOADS = 16  # calls with files at once ...
MAX_REQUESTS_PER_CALLER = 4  # ... and of one address
# Fields of the request itself; the other settings are the options of maskgil/params.py.
OWN = ("prompt", "model", "n", "seed", "negative_prompt", "sampler")
TEXTS = {"prompt", "model", "negative_prompt", "sampler"}
TEXTS |= {name for name, value in defaults().items() if isinstance(value, str)}
# Fields about the answer, with the values that they may have; None: any of the type.
ANSWER: dict[str, tuple[type, tuple[Any, ...] | None]] = {
    "size": (str, None),
    "stream": (bool, None),
    "partial_images": (int, tuple(range(MAX_PARTIAL + 1))),
    "response_format": (str, ("b64_json",)),
    "output_format": (str, ("png",)),
    "metadata": (bool, None),
    "anyway": (bool, None),
}

NO_BUFFER = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # or a proxy keeps the events until the end

_decoder = ThreadPoolExecutor(1, thread_name_prefix="ear of programs")
_painter = ThreadPoolExecutor(2, thread_name_prefix="eye of programs")  # so many pictures that are brought in memory
_bringing: Counter[str] = Counter()  # calls with files that are here, by address


async def answer(call: Call) -> Response:
    """The answer to any call below /v1."""
    try:
        if health.is_stopping():
            raise ApiError(503, "the server is shutting down: try again in a minute", "shutting_down", 30)
        _check_key(call)
        methods = ENDPOINTS.get(call.url.path)
        if methods is None:
            raise ApiError(404, f"there is no {call.url.path}: there are {', '.join(ENDPOINTS)}", "not_found")
        if call.method not in methods:
            raise ApiError(405, f"{call.url.path} takes {' or '.join(methods)}, not {call.method}", "wrong_method")
        return await methods[call.method](call)
    except ApiError as problem:
        return problem.response()
    except QueueFullError as error:
        return ApiError(429, str(error), "busy").response()
    except ValueError as error:
        return ApiError(400, " ".join(str(error).split())).response()
    except ClientDisconnect:
        return Response(status_code=499)  # nobody reads it
    except Exception as error:
        log.exception("%s failed", call.url.path)
        return ApiError(500, f"it failed ({type(error).__name__}): the server's log says why", "failed").response()


def _check_key(call: Call) -> None:
    """Raises ApiError when the server has API keys and the call has none of them, or is over its limit."""
    keys: ApiKeys | None = call.scope.get("api_keys")
    if keys is None:
        return
    key = keys.find(call.headers.get("authorization"))
    if key is None:
        raise ApiError(401, 'send a key of this server as "Authorization: Bearer KEY"', "invalid_api_key")
    call.scope.setdefault("log", {})["key"] = key.name
    call.scope["api_key"] = key.name
    if seconds := keys.seconds_until_free(key):
        message = f"the key {key.name} may ask {key.limit} times a minute: try again in {seconds:.0f} s"
        raise ApiError(429, message, "rate_limit_exceeded", seconds)


async def models(call: Call) -> Response:
    """What there is to draw with."""

    def listed() -> list[dict[str, Any]]:
        return [
            {
                "id": model.name,
                "object": "model",
                "owned_by": "this server",
                "draws": model.reads,
                "sizes": [f"{width}x{height}" for width, height in model.sizes],
                "words": sorted(model.vocabulary.words),
            }
            for model in registry.bundled()
        ]

    return JSONResponse({"object": "list", "data": await asyncio.to_thread(listed)})


def parse_json_body(body: bytes) -> dict[str, Any]:
    """The fields of a JSON object. Raises ValueError for any other body."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):  # bytes that are no text, too
        raise ValueError('the body is no JSON: send an object such as {"prompt": "two cats"}') from None
    if not isinstance(fields, dict):
        raise ValueError(f'the body is a {type(fields).__name__}: send an object such as {{"prompt": "two cats"}}')
    return fields


def parse_form(texts: dict[str, str]) -> dict[str, Any]:
    """The fields of a form, whose numbers, pairs and truths are written as in JSON. Raises ValueError for others."""
    fields: dict[str, Any] = {}
    for name, text in texts.items():
        if LEGACY.get(name, name) in TEXTS or ANSWER.get(name, (None,))[0] is str:
            fields[name] = text
            continue
        try:
            fields[name] = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError(f"{name[:40]} is {_brief(text)}: write it as in JSON, 8 or true or [0.1, 1]") from None
    return fields


def read(fields: dict[str, Any]) -> tuple[GenerationRequest, dict[str, Any]]:
    """(what to draw, how to answer). Raises ValueError for what is unknown or wrong."""
    fields = current_names(fields)
    for name in fields:
        if name not in known_fields():
            raise ValueError(unknown_option(name, known_fields()))
    fields = {name: value for name, value in fields.items() if value is not None}
    if "prompt" not in fields:
        raise ValueError("prompt is missing: say what to draw, for example 'two cats on the beach'")
    for name, (kind, values) in ANSWER.items():
        value = fields.get(name)
        if value is not None and (type(value) is not kind or (values is not None and value not in values)):
            may = f"{values[0]} to {values[-1]}" if kind is int else " or ".join(values or ())
            raise ValueError(f"{name} is {_brief(value)}: give {may or {str: 'a text', bool: 'true or false'}[kind]}")
    asked = {name: value for name, value in fields.items() if name not in ANSWER}
    size = fields.get("size", "auto")
    known = {
        "model": paths.default_model(),
        "seed": random_seed(),
        "size": None if size == "auto" else parse_size(size),
    }
    return GenerationRequest.read(known | asked), fields


def known_fields() -> list[str]:
    """The names that a call may have: the request's own, the sampling options, and those about the answer."""
    return sorted({*OWN, *options(), *ANSWER})


def _brief(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


async def images(call: Call) -> Response:
    """Draw, and answer with all pictures, or stream them."""
    if call.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "send JSON, with Content-Type: application/json", "wrong_type")
    request, how = read(parse_json_body(await _body(call, MAX_JSON)))
    return await _drawn(call, request, how)


async def edits(call: Call) -> Response:
    """Draw on a picture, and answer as `images` does."""
    with _place(call):
        return await _drawn(call, *await _edit(call))


async def _edit(call: Call) -> tuple[GenerationRequest, dict[str, Any], Callable[[], EditRequest]]:
    """(what to draw, how to answer, on what) of a form. The last is read when it is called, which takes time and, for
    as long as it is kept, memory: a PNG of few bytes may have 4096 pixels a side. Raises ValueError or Problem."""
    async with await _form(call) as form:
        files = {name: form.get(name) for name in ("image", "mask")}
        texts = {name: value for name, value in form.items() if name not in files}
        if stray := next((name for name, value in texts.items() if not isinstance(value, str)), None):
            raise ValueError(f"{stray[:40]} is a file: image and mask are the only ones")
        if not isinstance(files["image"], UploadFile):
            raise ValueError("image is missing: send a PNG to draw on")
        if files["mask"] is not None and not isinstance(files["mask"], UploadFile):
            raise ValueError("mask is no file: send a PNG that is transparent where the picture should change")
        data = {name: await file.read() for name, file in files.items() if file is not None}
    was = texts.pop("was", None)
    if "size" in texts:
        raise ValueError("size goes with a picture that is drawn from nothing: an edit keeps the picture's own")
    request, how = read(parse_form(texts))
    return request, how, lambda: EditRequest.read(data["image"], data.get("mask"), was)


async def _drawn(
    call: Call, request: GenerationRequest, how: dict[str, Any], change: Callable[[], EditRequest] | None = None
) -> Response:
    """All pictures of a request, or a stream of them. `change` reads what is drawn on, if that is no blank canvas."""
    if how.get("partial_images") and not how.get("stream"):
        raise ValueError('partial_images come in a stream: add "stream": true')
    rooms = await asyncio.to_thread(get_services)

    def begin() -> tuple[Job, list[str]]:
        """Off the event loop: a model may have to be loaded."""
        there = {model.name: model for model in registry.bundled()}
        if (
            request.model not in there and request.model != paths.default_model()
        ):  # no caller opens other folders of this disk
            raise ApiError(404, f"no model {request.model[:80]!r}: there is {', '.join(there)}", "model_not_found")
        model = registry.find_local(request.model)
        complaint = model.vocabulary.unknown_words_message(f"{request.prompt} {request.negative_prompt}")
        if complaint and not how.get("anyway"):
            raise ApiError(400, f'{complaint}: say it in its words, or add "anyway": true', "unknown_words")
        model.check_classes(request.prompt, request.negative_prompt)
        start, wish = None, request
        if change is not None:
            loaded = rooms.engine.load(request.model)
            start, wish = change().begin(loaded.model, loaded.encode, request)
        job = rooms.engine.submit(wish, f"program at {_caller(call)}", start)
        written, note = model.vocabulary.normalize(request.prompt), model.vocabulary.color_note(request.prompt)
        read_as = f"read as: {written}" if written != request.prompt else ""
        return job, [said for said in (read_as, note, complaint, job.size_note) if said]

    job, notes = await asyncio.get_running_loop().run_in_executor(_painter if change else None, begin)
    if how.get("stream"):
        kind = "image_edit" if change else "image_generation"
        return StreamingResponse(_events(job, how, notes, kind), media_type="text/event-stream", headers=NO_BUFFER)
    drawing, leaving = asyncio.ensure_future(_over(job)), asyncio.ensure_future(_left(call))
    try:
        await asyncio.wait({drawing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not drawing.done():
            raise ClientDisconnect
        return JSONResponse(await asyncio.to_thread(_result, job, how, notes))
    finally:
        leaving.cancel()
        drawing.cancel()
        job.cancel()  # one that is over stays as it is


async def _over(job: Job) -> None:
    async for _ in job.changes():
        pass


async def _left(call: Call) -> None:
    """Returns when the caller hangs up."""
    while (await call.receive())["type"] != "http.disconnect":
        pass


def _result(job: Job, how: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """The finished job as an answer. Raises Problem for one that failed."""
    if job.status is not Status.DONE:
        # a person's mistakes are found before a job begins; what is left is ours, or a shutdown
        raise ApiError(500, job.error or "the drawing was cancelled: the server is shutting down", "failed")
    request = job.request
    shown = [request.single(i) if how.get("metadata", True) else None for i in range(request.n)]
    data = [
        {"b64_json": base64.b64encode(png.encode_png(image, note)).decode(), "seed": seed}
        for image, note, seed in zip(job.pictures(), shown, request.seeds, strict=True)
    ]
    return {"created": int(time.time()), "data": data} | _about(job) | ({"notes": notes} if notes else {})


def _about(job: Job) -> dict[str, Any]:
    """What every answer tells of a drawing."""
    width, height = job.request.size
    nfe = job.frames[-1].nfe if job.frames else 0
    return {"model": job.request.model, "size": f"{width}x{height}", "output_format": "png", "nfe": nfe}


async def _events(job: Job, how: dict[str, Any], notes: list[str], kind: str) -> AsyncIterator[str]:
    """Server-sent events: partial pictures, evenly over the steps, then each finished one; or one error."""

    def event(type: str, **values: Any) -> str:
        return f"event: {type}\ndata: {json.dumps({'type': type, 'created_at': int(time.time())} | values)}\n\n"

    try:
        partial, sent = how.get("partial_images", 0), 0
        async for _ in job.changes():
            last = (job.preview_steps or [-1])[-1]
            if job.is_done or last < 0:
                continue
            frame = job.frames[last]
            due = min(frame.step * (partial + 1) // frame.total, partial)
            if due <= sent:
                continue
            sent = due
            for i, image in enumerate(await asyncio.to_thread(job.preview, last)):
                shown = base64.b64encode(await asyncio.to_thread(png.encode_png, image)).decode()
                about = _about(job) | {"index": i, "step": frame.step, "of": frame.total}
                yield event(f"{kind}.partial_image", b64_json=shown, partial_image_index=sent - 1, **about)
        try:
            result = await asyncio.to_thread(_result, job, how, notes)
        except ApiError as problem:
            yield event("error", **problem.body())
            return
        data = result.pop("data")
        for i, done in enumerate(data):
            yield event(f"{kind}.completed", index=i, **done, **result)
    finally:
        job.cancel()  # the caller has hung up, or it is over and stays as it is


async def transcriptions(call: Call) -> Response:
    """Write down a recording. What holds no speech is an empty text, and `reason` says why."""
    rooms = await asyncio.to_thread(get_services)
    with _place(call):
        async with await _form(call) as form:
            sound, shape = await _recording(form, rooms.recognizer.name)
        heard = await asyncio.get_running_loop().run_in_executor(_decoder, rooms.recognizer.transcribe, sound)
    if shape == "text":
        return PlainTextResponse(heard.text + "\n")
    return JSONResponse({"text": heard.text} | ({"reason": heard.reason} if heard.no_speech else {}))


@contextmanager
def _place(call: Call) -> Iterator[None]:
    """One of the places for calls that bring files. Raises Problem when there is none left."""
    caller = _caller(call)
    if _bringing[caller] >= MAX_REQUESTS_PER_CALLER or _bringing.total() >= MAX_CONCURRENT_UPLOADS:
        raise ApiError(429, f"{_bringing.total()} calls with files are here: try again soon", "busy")
    _bringing[caller] += 1
    try:
        yield
    finally:
        _bringing[caller] -= 1
        if not _bringing[caller]:
            del _bringing[caller]


async def _recording(form: FormData, ear: str) -> tuple[bytes, str]:
    """(sound, response_format) of a form. Raises ValueError, or Problem for a recogniser that is not here."""
    if unknown := sorted(set(form) - {"file", "model", "response_format"}):
        raise ValueError(f"unknown field {unknown[0][:40]!r}: there are file, model, response_format")
    if form.get("model", ear) != ear:
        raise ApiError(404, f"this server listens with {ear}", "model_not_found")
    if (shape := form.get("response_format", "json")) not in ("json", "text"):
        raise ValueError(f"response_format is {_brief(shape)}: give json or text")
    recording = form.get("file")
    if not isinstance(recording, UploadFile):
        raise ValueError("file is missing: send a recording of someone speaking (wav, mp3, m4a, webm, ...)")
    return await recording.read(), shape


async def _form(call: Call) -> AbstractAsyncContextManager[FormData]:
    """The fields and files of a form, once all of it is here. Raises ValueError or Problem."""
    if not call.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(415, "send a form, with Content-Type: multipart/form-data (curl -F)", "wrong_type")
    body = await _body(call, MAX_FORM)

    async def again() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return _parsed(Call(call.scope, again))


@asynccontextmanager
async def _parsed(call: Call) -> AsyncIterator[FormData]:
    try:
        async with call.form(max_files=2, max_fields=len(known_fields()) + 1) as form:
            yield form
    except HTTPException as error:
        raise ValueError(f"the form cannot be read: {error.detail}") from None


async def _body(call: Call, most: int) -> bytes:
    """All that a caller sends. Raises Problem for more than `most` bytes, and for what takes too long."""
    held = bytearray()
    try:
        async with asyncio.timeout(MAX_WAIT):
            async for chunk in call.stream():
                held += chunk
                if len(held) > most:
                    raise ApiError(413, f"more than {most:,} bytes: send less", "too_large")
    except TimeoutError:
        raise ApiError(408, f"the body did not come within {MAX_WAIT:.0f} s", "too_slow") from None
    return bytes(held)


def _caller(call: Call) -> str:
    return call.client.host if call.client else "somewhere"


ENDPOINTS: dict[str, dict[str, Callable[[Call], Awaitable[Response]]]] = {
    "/v1/models": {"GET": models},
    "/v1/images/generations": {"POST": images},
    "/v1/images/edits": {"POST": edits},
    "/v1/audio/transcriptions": {"POST": transcriptions},
}
