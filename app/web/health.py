"""GET /healthz, /readyz and /metrics, for whoever runs the server."""

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.core import paths
from app.serving import metrics
from app.web.public_message import public_message

if TYPE_CHECKING:  # it imports torch, which takes seconds
    from app.serving.services import AppServices

_stopping = False
_services: "AppServices | None" = None


def begin_stop() -> None:
    """From now on the server takes no new work."""
    global _stopping
    _stopping = True


def set_services(services: "AppServices") -> None:
    """The services of this process, once the warm-up has made them."""
    global _services
    _services = services


def loaded_services() -> "AppServices | None":
    """None before the warm-up has made them. It returns at once."""
    return _services


def is_stopping() -> bool:
    return _stopping


def not_ready_reason() -> str:
    """Why requests should go elsewhere; an empty text when the server can draw."""
    if _stopping:
        return "the server is shutting down"
    if _services is None or paths.default_model() not in _services.engine.loaded():
        return f"the model {public_message(paths.default_model())} is not loaded"
    return ""


async def healthz(request: Request) -> Response:
    """The process answers."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """The default model is in memory and the server takes work."""
    reason = not_ready_reason()
    return JSONResponse(
        {"status": "not ready", "reason": reason} if reason else {"status": "ready"}, 503 if reason else 200
    )


async def metrics_text(request: Request) -> Response:
    if _services is not None:
        status = _services.engine.status()
        metrics.QUEUE.set(status.queued)
        metrics.RUNNING.set(status.rows)
    return Response(metrics.render_metrics(), media_type=metrics.CONTENT_TYPE)


ROUTES = [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics_text)]
