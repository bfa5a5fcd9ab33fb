"""Images and transcripts over HTTP, for programs; fields, answers and errors are those of OpenAI's API.

    GET  /v1/models, /v1/models/NAME     what can be drawn with
    POST /v1/images/generations          JSON in
    POST /v1/images/edits                a form with `image` and `mask`: what is transparent in the mask is drawn anew;
                                         without one, what the prompt contradicts
    POST /v1/images/variations           a form with `image`: its words with another seed
    GET  /v1/images/files/TOKEN          an image of response_format url
    POST /v1/audio/transcriptions        a form with `file`
    POST /v1/audio/translations          the same, of English

docs/http-api.md lists the fields. An error is {"error": {"message", "type", "param", "code"}} with 400 (wrong), 401 (no
key), 403 (another site), 404 (not here), 408, 413 (too large), 415, 429 (too busy), 500 (a fault of the server) or 503
(shutting down; a model or a recognizer cannot be opened). A caller that hangs up ends its job. Images are in nobody's
gallery.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from app.core.registry import UnavailableError
from app.serving import metrics
from app.serving.admission import UnknownModelError, served_models
from app.serving.job_table import QueueFullError
from app.serving.services import AppServices, existing_services, get_services
from app.web import health
from app.web.api_errors import ApiError, shutting_down
from app.web.api_keys import ApiKeys
from app.web.audio_calls import transcriptions, translations
from app.web.image_calls import Caller, edits, generations, linked_file, variations
from app.web.openapi import describe_api
from app.web.public_message import public_message

log = logging.getLogger(__name__)

FILES = "/v1/images/files/"
MODELS = "/v1/models"
UNAVAILABLE_SECONDS = 30  # until a caller may ask again: somebody has to mend the server

Endpoint = Callable[[Request, AppServices, Caller], Awaitable[Response]]


async def answer(call: Request) -> Response:
    """The answer to any call below /v1."""
    try:
        return await _dispatch(call)
    except ApiError as error:
        problem = error
    except QueueFullError as error:
        problem = ApiError(429, str(error), "busy")
    except UnknownModelError as error:
        problem = ApiError(404, public_message(error), "model_not_found")
    except UnavailableError as error:
        log.warning("%s cannot be answered: %s", call.url.path, error)
        problem = ApiError(503, public_message(error), "unavailable", UNAVAILABLE_SECONDS)
    except ValueError as error:
        problem = ApiError(400, public_message(error))
    except ClientDisconnect:
        return Response(status_code=499)  # nobody reads it
    except Exception as error:
        log.exception("%s failed", call.url.path)
        problem = ApiError(500, f"it failed ({type(error).__name__}): the server's log says why", "failed")
    metrics.ERRORS.labels(problem.code).inc()
    return problem.response()


async def _dispatch(call: Request) -> Response:
    if health.is_stopping():
        raise shutting_down()
    path = call.scope["path"].rstrip("/")
    method = "GET" if call.method == "HEAD" else call.method
    if path.startswith(FILES) and method == "GET":  # the address itself is the secret
        return await linked_file(path.removeprefix(FILES))
    key = _check_key(call)
    if path.startswith(f"{MODELS}/"):
        methods: dict[str, Endpoint] = {"GET": model_details}
    elif path in ENDPOINTS:
        methods = ENDPOINTS[path]
    else:
        raise ApiError(404, f"there is no {path[:80]}: there are {', '.join(ENDPOINTS)}", "not_found")
    if method not in methods:
        allowed = " or ".join(methods)
        raise ApiError(405, f"{path} takes {allowed}, not {method}", "wrong_method", headers={"Allow": allowed})
    services = existing_services() or await asyncio.to_thread(get_services)
    host = call.client.host if call.client else "somewhere"
    base_url = call.scope.get("public_base") or str(call.base_url).rstrip("/")
    caller = Caller(f"key {key}" if key else f"program at {host}", base_url)
    return await methods[method](call, services, caller)


def _check_key(call: Request) -> str:
    """The name of the call's API key, or an empty text on a server without keys. Raises ApiError when the server has
    keys and the call has none of them, or is over its limit."""
    keys: ApiKeys | None = call.scope.get("api_keys")
    if keys is None:
        return ""
    key = keys.find(call.headers.get("authorization"))
    if key is None:
        raise ApiError(401, 'send a key of this server as "Authorization: Bearer KEY"', "invalid_api_key")
    call.scope.setdefault("log", {})["key"] = key.name
    if seconds := keys.seconds_until_free(key):
        message = f"the key {key.name} may ask {key.limit} times a minute: try again in {seconds:.0f} s"
        raise ApiError(429, message, "rate_limit_exceeded", seconds)
    return key.name


async def openapi_description(call: Request) -> Response:
    """GET /openapi.json."""
    return JSONResponse(describe_api(installed_version()))


def installed_version() -> str:
    try:
        return metadata.version("maskgil")
    except metadata.PackageNotFoundError:  # run from a checkout
        return "development"


async def models(call: Request, services: AppServices, caller: Caller) -> Response:
    """What there is to draw with, and the recognizer."""
    data = await asyncio.to_thread(_model_list, services)
    return JSONResponse({"object": "list", "data": data})


async def model_details(call: Request, services: AppServices, caller: Caller) -> Response:
    """One of the models. Raises ApiError 404."""
    name = call.scope["path"].rstrip("/").removeprefix(f"{MODELS}/")
    for model in await asyncio.to_thread(_model_list, services):
        if model["id"] == name:
            return JSONResponse(model)
    raise ApiError(404, f"no model {name[:80]!r}: GET {MODELS} lists them", "model_not_found")


def _model_list(services: AppServices) -> list[dict[str, Any]]:
    return [
        {
            "id": model.name,
            "object": "model",
            "created": int(model.folder.stat().st_mtime),
            "owned_by": "maskgil",
            "draws": model.reads,
            "sizes": [f"{width}x{height}" for width, height in model.sizes],
            "words": sorted(model.vocabulary.words),
        }
        for model in served_models(services.engine)
    ]


ENDPOINTS: dict[str, dict[str, Endpoint]] = {
    MODELS: {"GET": models},
    "/v1/images/generations": {"POST": generations},
    "/v1/images/edits": {"POST": edits},
    "/v1/images/variations": {"POST": variations},
    "/v1/audio/transcriptions": {"POST": transcriptions},
    "/v1/audio/translations": {"POST": translations},
}
