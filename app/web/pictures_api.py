"""A visitor's pictures for the page, below /pictures; the cookie says whose.

    GET  /pictures/list?search=&sort=&starred=&everyone=&offset=&limit=   {"count", "pictures": [...]}
    GET  /pictures/file/ID.png|jpg|webp?settings=1&thumb=0&download=0      the picture
    GET  /pictures/settings/ID                                             the request that drew it
    GET  /pictures/replay/JOB/ROW                                          every step of a drawing, for the token player
    GET  /pictures/things/MODEL                                            small pictures of what a model can draw
    GET  /pictures/zip?ids=A,B&settings=1                                  several pictures in one file
    POST /pictures/delete | restore {"ids"}, star {"ids", "on"}            change some
    POST /pictures/import?name=                                            a PNG file: keep it with its settings

What cannot be done is {"error": message} with 400, 403, 404, 408, 413, 429 or, for a model that cannot be opened, 503.
"""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any

from PIL import Image
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from app.core import png
from app.core.gallery_store import GalleryEntry, slug
from app.core.registry import UnavailableError
from app.serving.admission import UnknownModelError, served_model
from app.serving.jobs import Status
from app.serving.services import AppServices, get_services
from app.web.api_errors import ApiError
from app.web.public_message import public_message
from app.web.uploads import MAX_JSON, UploadPlaces, read_body
from app.web.visitors import known_cookie, same_origin
from text_encoder.prompt_reader import THINGS_PICTURE

MAX_IDS = 500
MAX_PAGE = 200  # pictures of one list
THUMB = 256  # pixels of the longer side
FORMATS = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
_places = UploadPlaces()  # for pictures that visitors bring
UNCHANGING = {"Cache-Control": "private, max-age=31536000, immutable"}  # a picture never changes under its id


class PictureError(ValueError):
    """What is wrong with a call, with its HTTP status."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


async def respond_pictures(call: Request) -> Response:
    """The answer to any call below /pictures."""
    owner = known_cookie(call.scope)
    try:
        if owner is None:
            raise PictureError(403, "open the studio's own page first, with cookies allowed")
        name, *rest = call.path_params["path"].split("/")
        handlers = READ if call.method in ("GET", "HEAD") else WRITE
        if name not in handlers:
            raise PictureError(404, f"there is no {call.method} /pictures/{name[:40]}")
        if handlers is WRITE and not same_origin(call.headers):
            raise PictureError(403, "another site's page may not change pictures")
        services = await asyncio.to_thread(get_services)
        return await handlers[name](call, services, owner, rest)
    except PictureError as error:
        return JSONResponse({"error": str(error)}, error.status)
    except ApiError as error:
        return JSONResponse({"error": error.message}, error.status)
    except ClientDisconnect:
        return Response(status_code=499)  # nobody reads it
    except ValueError as error:
        status = 503 if isinstance(error, UnavailableError) else 400
        return JSONResponse({"error": public_message(error)}, status)


async def _list(call: Request, services: AppServices, owner: str, rest: list[str]) -> Response:
    query = call.query_params
    search, sort = query.get("search", ""), query.get("sort", "newest")
    everyone, starred = query.get("everyone") == "1", query.get("starred") == "1"
    offset, limit = _number(query.get("offset", "0")), min(MAX_PAGE, _number(query.get("limit", "20")))

    def find() -> dict[str, Any]:
        gallery = services.gallery
        entries = gallery.entries(owner, search, limit, offset, everyone, starred, sort)
        count = gallery.count(owner, search, everyone, starred)
        return {"count": count, "pictures": [describe_picture(entry, owner) for entry in entries]}

    return JSONResponse(await asyncio.to_thread(find), headers={"Cache-Control": "no-store"})


async def _file(call: Request, services: AppServices, owner: str, rest: list[str]) -> Response:
    """The picture in the format that its address ends in; JPG and WebP hold no settings."""
    id, _, kind = "".join(rest[:1]).rpartition(".")
    if kind not in FORMATS:
        raise PictureError(404, f"pictures come as {', '.join(FORMATS)}, not as {kind[:20]!r}")
    query = call.query_params

    def read() -> tuple[GalleryEntry, bytes]:
        entry = services.gallery.get(owner, id)
        data = services.gallery.png(entry, query.get("settings", "1") == "1")
        return entry, data if kind == "png" and query.get("thumb") != "1" else convert_picture(
            data, kind, THUMB if query.get("thumb") == "1" else None
        )

    try:
        entry, data = await asyncio.to_thread(read)
    except ValueError as error:
        raise PictureError(404, public_message(error)) from None
    headers = dict(UNCHANGING)
    if query.get("download") == "1":
        headers["Content-Disposition"] = f'attachment; filename="{file_name(entry, kind)}"'
    return Response(data, media_type=FORMATS[kind], headers=headers)


async def _settings(call: Request, services: AppServices, owner: str, rest: list[str]) -> Response:
    entry = await asyncio.to_thread(services.gallery.get, owner, "".join(rest[:1]))
    return JSONResponse(entry.request.to_dict() if entry.request else None)


async def _replay(call: Request, services: AppServices, owner: str, rest: list[str]) -> Response:
    """The steps of one picture of a job that is remembered, as the token player takes them."""
    job = services.engine.job("".join(rest[:1]))
    row = _number("".join(rest[1:2]) or "0")
    if job is None or job.owner != owner or job.status is not Status.DONE or row >= job.request.n:
        raise PictureError(404, "the steps of this picture are no longer in memory: draw it again to replay it")

    def steps() -> dict[str, Any]:
        last = job.frames[-1].grid
        shown = job.preview_steps
        return {
            "prompt": job.request.prompt,
            "frames": [png.data_uri(job.preview_of_row(frame, row)) for frame in shown],
            "steps": [job.frames[frame].step for frame in shown],
            "rows": last.grid[0],
            "columns": last.grid[1],
            "revealed": last.unmasked_at[row].tolist(),
            # The likelihood of a continuous token is not computed: it would take as long again as drawing it.
            "confidence": None if last.tokens.is_floating_point() else last.confidence[row].tolist(),
        }

    return JSONResponse(await asyncio.to_thread(steps))


async def _things(call: Request, services: AppServices, owner: str, rest: list[str]) -> Response:
    """The tiles of the Draw page's list (maskgil export things). The name of a model may have slashes."""

    def read() -> bytes:
        try:
            path = served_model(services.engine, "/".join(rest)).folder / THINGS_PICTURE
        except UnknownModelError as error:
            raise PictureError(404, public_message(error)) from None
        if not path.is_file():
            raise PictureError(404, "this model has no pictures of its things")
        return path.read_bytes()

    return Response(await asyncio.to_thread(read), media_type="image/webp", headers=UNCHANGING)


async def _archive(call: Request, services: AppServices, owner: str, rest: list[str]) -> Response:
    ids = _ids(call.query_params.get("ids", "").split(","))
    notes = call.query_params.get("settings", "1") == "1"
    data = await asyncio.to_thread(lambda: services.gallery.zip([services.gallery.get(owner, id) for id in ids], notes))
    headers = {"Content-Disposition": 'attachment; filename="pictures.zip"', "Cache-Control": "no-store"}
    return Response(data, media_type="application/zip", headers=headers)


async def _delete(call: Request, services: AppServices, owner: str, rest: list[str]) -> Response:
    """Discard pictures; those that are gone already are no error."""
    ids = _ids((await _fields(call)).get("ids"))

    def discard() -> list[str]:
        entries = [entry for id in ids if (entry := _find(services, owner, id)) is not None]
        services.gallery.discard(owner, entries)
        return [entry.id for entry in entries]

    return JSONResponse({"ids": await asyncio.to_thread(discard)})


async def _restore(call: Request, services: AppServices, owner: str, rest: list[str]) -> Response:
    ids = _ids((await _fields(call)).get("ids"))
    entries = await asyncio.to_thread(services.gallery.restore, owner, ids)
    return JSONResponse({"ids": [entry.id for entry in entries]})


async def _star(call: Request, services: AppServices, owner: str, rest: list[str]) -> Response:
    fields = await _fields(call)
    ids = [id for id in _ids(fields.get("ids")) if _find(services, owner, id) is not None]
    await asyncio.to_thread(services.gallery.star, owner, ids, fields.get("on") is True)
    return JSONResponse({"ids": ids})


async def _bring(call: Request, services: AppServices, owner: str, rest: list[str]) -> Response:
    """Keep a PNG from outside; its settings are read if it has some."""
    with _places.place(owner):
        data = await read_body(call, png.MAX_BYTES)

        def keep() -> dict[str, Any]:
            image, request = png.read_picture(data)
            return describe_picture(services.gallery.add(owner, image, request), owner)

        return JSONResponse(await asyncio.to_thread(keep))


def describe_picture(entry: GalleryEntry, owner: str) -> dict[str, Any]:
    """What a page shows of a picture."""
    request = entry.request
    return {
        "id": entry.id,
        "prompt": entry.prompt,
        "created": entry.created,
        "starred": entry.starred,
        "own": entry.owner == owner,
        "settings": request.to_dict() if request else None,
        "name": file_name(entry, ""),
    }


def file_name(entry: GalleryEntry, kind: str) -> str:
    """'two-cats-7.png': the words and the seed."""
    seed = f"-{entry.request.seed}" if entry.request else f"-{entry.id[-8:]}"
    return f"{slug(entry.prompt)}{seed}{kind and '.'}{kind}"


def convert_picture(data: bytes, kind: str, longest: int | None = None) -> bytes:
    """PNG bytes in another format, or smaller; transparency becomes white in a JPG."""
    image = png.read_picture(data)[0]
    if longest is not None:
        image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    if kind == "jpg":
        rgba = image.convert("RGBA")
        flat = Image.new("RGB", image.size, "white")
        flat.paste(rgba, mask=rgba.getchannel("A"))
        flat.save(out, "JPEG", quality=95, subsampling=0)
    else:
        image.save(out, kind.upper(), **({"quality": 95, "method": 2} if kind == "webp" else {}))
    return out.getvalue()


def _find(services: AppServices, owner: str, id: str) -> GalleryEntry | None:
    try:
        return services.gallery.get(owner, id)
    except ValueError:
        return None


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise ValueError(f"{text[:20]!r} is no whole number")
    return int(text)


def _ids(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(id, str) and len(id) < 64 for id in values):
        raise ValueError("ids must be a list of picture ids")
    if len(values) > MAX_IDS:
        raise ValueError(f"{len(values)} pictures at once: select at most {MAX_IDS}")
    return [id for id in values if id]


async def _fields(call: Request) -> dict[str, Any]:
    try:
        fields = json.loads(await read_body(call, MAX_JSON))
    except (ValueError, RecursionError):
        raise ValueError("the body is no JSON object") from None
    return fields if isinstance(fields, dict) else {}


Handler = Callable[[Request, AppServices, str, list[str]], Awaitable[Response]]
READ: dict[str, Handler] = {
    "list": _list,
    "file": _file,
    "settings": _settings,
    "replay": _replay,
    "things": _things,
    "zip": _archive,
}
WRITE: dict[str, Handler] = {"delete": _delete, "restore": _restore, "star": _star, "import": _bring}
