"""The image endpoints of the HTTP API: generations, edits and variations, answered whole or as a stream of events."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from PIL import Image
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.core import png
from app.core.edit_request import EditRequest
from app.core.prompt_admission import admit
from app.core.registry import ModelInfo
from app.core.request import GenerationRequest
from app.serving.admission import served_model
from app.serving.jobs import Job, Status
from app.serving.services import AppServices
from app.serving.shielded import run_or_undo
from app.web import health
from app.web.api_errors import ApiError, shutting_down
from app.web.image_fields import MEDIA_TYPES, AnswerOptions, brief_json, parse_form_fields, read_image_fields
from app.web.image_links import ImageLinks
from app.web.public_message import public_message
from app.web.uploads import Form, UploadPlaces, read_form, read_json_body
from maskgil.aspect_buckets import nearest_bucket

NO_BUFFER = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # a proxy would keep the events until the end

places = UploadPlaces()
links = ImageLinks()
_submitter = ThreadPoolExecutor(2, thread_name_prefix="submitter")  # a model may have to be loaded
_image_reader = ThreadPoolExecutor(2, thread_name_prefix="image reader")  # so many uploaded images are decoded at once
_encoder = ThreadPoolExecutor(2, thread_name_prefix="image encoder")


@dataclass(frozen=True)
class Caller:
    """Who asks: `name` for limits and the engine, `base_url` for links."""

    name: str
    base_url: str


@dataclass(frozen=True)
class ImageCall:
    """A checked call. `edit` reads what is edited, which takes time and memory: a file of few bytes may have 4096
    pixels a side."""

    request: GenerationRequest
    options: AnswerOptions
    kind: str = "image_generation"
    edit: Callable[[], EditRequest] | None = None


async def generations(call: Request, services: AppServices, caller: Caller) -> Response:
    """Draw from nothing."""
    request, options = read_image_fields(await read_json_body(call))
    return await _drawn(call, services, caller, ImageCall(request, options))


async def edits(call: Request, services: AppServices, caller: Caller) -> Response:
    """Draw on an image."""
    with places.place(caller.name):
        return await _drawn(call, services, caller, _edit_call(await read_form(call)))


async def variations(call: Request, services: AppServices, caller: Caller) -> Response:
    """Draw the words of an image again, with another seed."""
    with places.place(caller.name):
        form = await read_form(call)
        image = form.file("image")
        if image is None or set(form.files) - {"image"}:
            raise ValueError("send one image, as the file `image`: a PNG of this server, which has its prompt inside")
        texts = dict(form.texts)
        if "prompt" not in texts:
            loop = asyncio.get_running_loop()
            edit = await loop.run_in_executor(_image_reader, EditRequest.read, image.data)
            if not edit.previous_prompt:
                raise ValueError("the image has no prompt inside: add the field prompt with what it shows")
            texts["prompt"] = edit.previous_prompt
        request, options = read_image_fields(parse_form_fields(texts))
        return await _drawn(call, services, caller, ImageCall(request, options, "image_variation"))


def _edit_call(form: Form) -> ImageCall:
    """Raises ValueError."""
    if stray := sorted(set(form.files) - {"image", "mask"}):
        raise ValueError(f"{stray[0][:40]!r} is a file: image and mask are the only ones")
    if lists := sorted(set(form.lists) - {"image"}):
        raise ValueError(f"{lists[0][:40]!r} is a list: give one value")
    image, mask = form.file("image"), form.file("mask")
    if image is None:
        raise ValueError("image is missing: send a picture to draw on (png, jpeg, webp)")
    texts = dict(form.texts)
    previous_prompt, size = texts.pop("was", None), texts.pop("size", None)
    fields = parse_form_fields(texts)
    strength = fields.pop("strength", None)
    if strength is not None and (isinstance(strength, bool) or not isinstance(strength, int | float)):
        raise ValueError(f"strength is {brief_json(strength)}: give a share above 0 and at most 1")
    request, options = read_image_fields(fields)
    notes = list(options.notes)
    if len(form.files["image"]) > 1:
        notes.append(f"{len(form.files['image'])} images were sent: the first one is edited, the others are not used")
    if size not in (None, "auto"):
        notes.append(f"size {size[:20]} is not used: an edit keeps the image's own size")
    options = replace(options, notes=tuple(notes))
    mask_data = None if mask is None else mask.data
    edit = partial(EditRequest.read, image.data, mask_data, previous_prompt, strength)
    return ImageCall(request, options, "image_edit", edit)


async def _drawn(call: Request, services: AppServices, caller: Caller, asked: ImageCall) -> Response:
    """All images of a call, or a stream of them. Raises ApiError and ValueError."""
    if call.scope.get("log_prompts"):
        call.scope.setdefault("log", {})["prompt"] = json.dumps(asked.request.prompt)
    executor = _image_reader if asked.edit else _submitter
    with services.engine.place(caller.name):  # a full queue is told here, on no thread
        arguments = (services, caller, asked)
        job, notes = await run_or_undo(lambda result: result[0].cancel(), _submit, *arguments, executor=executor)
    if asked.options.stream:
        return JobStream(job, _events(job, caller, asked, notes))
    drawing, leaving = asyncio.ensure_future(_is_over(job)), asyncio.ensure_future(_left(call))
    try:
        await asyncio.wait({drawing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not drawing.done():
            raise ClientDisconnect
        loop = asyncio.get_running_loop()
        return JSONResponse(await loop.run_in_executor(_encoder, _result, job, caller, asked.options, notes))
    finally:
        leaving.cancel()
        drawing.cancel()
        job.cancel()  # a job that is over stays as it is


def _submit(services: AppServices, caller: Caller, asked: ImageCall) -> tuple[Job, list[str]]:
    """(the job, notes on how the call was understood)."""
    model = served_model(services.engine, asked.request.model)
    if model.classes is not None:
        model.check_classes(asked.request.prompt, asked.request.negative_prompt)
    try:
        admitted = admit(asked.request, model, strict=asked.options.strict)
    except ValueError as error:
        raise ApiError(400, public_message(error), "unknown_words") from None
    notes, request, start = [*asked.options.notes, *admitted.notes], admitted.request, None
    if asked.edit is not None:
        loaded = services.engine.load(request.model)
        start, request = asked.edit().begin(loaded.model, loaded.encode, request)
    else:
        request, note = _nearest_size(model, request)
        notes += [note] if note else []
    job = services.engine.submit(request, caller.name, start)
    return job, [*notes, *([job.size_note] if job.size_note else [])]


def _nearest_size(model: ModelInfo, request: GenerationRequest) -> tuple[GenerationRequest, str]:
    """(the request in a size that the model draws, a note where that is not the size asked for)."""
    size = request.size
    if size is None or size in model.sizes or not model.sizes or model.size_classes or min(size) < 1:
        return request, ""
    width, height = nearest = nearest_bucket(size, list(model.sizes))
    note = f"{size[0]}x{size[1]} is drawn as {width}x{height}, the nearest size of this model"
    return replace(request, size=nearest), note


async def _is_over(job: Job) -> None:
    async for _ in job.changes():
        pass


async def _left(call: Request) -> None:
    """Returns when the caller hangs up."""
    while (await call.receive())["type"] != "http.disconnect":
        pass


def _result(job: Job, caller: Caller, options: AnswerOptions, notes: list[str]) -> dict[str, Any]:
    """The finished job as an answer. Raises ApiError for one that failed or was cancelled."""
    if job.status is Status.CANCELLED and health.is_stopping():
        raise shutting_down()
    if job.status is not Status.DONE:  # mistakes of the caller are found before a job begins
        raise ApiError(500, public_message(job.error or "the job was cancelled"), "failed")
    data = []
    for index, (image, seed) in enumerate(zip(job.pictures(), job.request.seeds, strict=True)):
        metadata = job.request.single(index) if options.metadata else None
        file = png.encode_image(image, options.output_format, metadata, options.output_compression)
        data.append(_image_fields(file, caller, options) | {"seed": seed})
    return {"created": int(time.time()), "data": data} | _about(job, options) | ({"notes": notes} if notes else {})


def _image_fields(file: bytes, caller: Caller, options: AnswerOptions) -> dict[str, str]:
    """b64_json and url, or the one that was asked for."""
    fields = {}
    if options.response_format in (None, "b64_json"):
        fields["b64_json"] = base64.b64encode(file).decode()
    if options.response_format in (None, "url"):
        token = links.add(file, MEDIA_TYPES[options.output_format])
        fields["url"] = f"{caller.base_url}/v1/images/files/{token}.{options.output_format}"
    return fields


def _about(job: Job, options: AnswerOptions) -> dict[str, Any]:
    """What every answer says about its job."""
    assert job.request.size is not None
    width, height = job.request.size
    nfe = job.frames[-1].nfe if job.frames else 0
    about = {"model": job.request.model, "size": f"{width}x{height}", "output_format": options.output_format}
    return about | {"nfe": nfe, "background": "opaque", "quality": "auto"}


class JobStream(StreamingResponse):
    """The events of a job, which is cancelled when the caller hangs up; a job that is over stays as it is.

    The generator of the events cannot see to that: where the caller leaves before its first event, none of its code
    runs.
    """

    def __init__(self, job: Job, events: AsyncIterator[str]):
        super().__init__(events, media_type="text/event-stream", headers=NO_BUFFER)
        self.job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.job.cancel()


async def _events(job: Job, caller: Caller, asked: ImageCall, notes: list[str]) -> AsyncIterator[str]:
    """Server-sent events: partial images, evenly over the steps, then each finished one; or one error."""
    options, kind, loop = asked.options, asked.kind, asyncio.get_running_loop()

    def event(type: str, **values: Any) -> str:
        return f"event: {type}\ndata: {json.dumps({'type': type, 'created_at': int(time.time())} | values)}\n\n"

    try:
        sent = 0
        async for _ in job.changes():
            last = (job.preview_steps or [-1])[-1]
            if job.is_done or last < 0:
                continue
            frame = job.frames[last]
            due = min(frame.step * (options.partial_images + 1) // frame.total, options.partial_images)
            if due <= sent:
                continue
            sent = due
            images = await loop.run_in_executor(_encoder, _encoded_preview, job, last)
            for index, shown in enumerate(images):
                about = _about(job, options) | {"index": index, "step": frame.step, "of": frame.total}
                about |= {"output_format": "png", "partial_image_index": sent - 1}
                yield event(f"{kind}.partial_image", b64_json=shown, **about)
        try:
            in_stream = replace(options, response_format=options.response_format or "b64_json")
            result = await loop.run_in_executor(_encoder, _result, job, caller, in_stream, notes)
        except ApiError as problem:
            yield event("error", **problem.body())
            return
        data = result.pop("data")
        for index, image in enumerate(data):
            yield event(f"{kind}.completed", index=index, **image, **result)
    finally:
        job.cancel()  # the caller has hung up, or the job is over and stays as it is


def _encoded_preview(job: Job, frame: int) -> list[str]:
    """PNGs of a step in base64."""

    def encoded(image: Image.Image) -> str:
        return base64.b64encode(png.encode_png(image)).decode()

    return [encoded(image) for image in job.preview(frame)]


async def linked_file(name: str) -> Response:
    """The image of an expiring address, `TOKEN.FORMAT`. Raises ApiError 404."""
    file = links.find(name.partition(".")[0])
    if file is None:
        raise ApiError(404, "there is no image at this address: it has expired", "not_found")
    return Response(file.data, media_type=file.media_type, headers={"Cache-Control": "private, max-age=3600"})
