"""GET /healthz, /readyz and /metrics, for whoever runs the server."""

import sys

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.core import paths
from app.serving import metrics

_stopping = False


def begin_stop() -> None:
    """From now on the server takes no new work."""
    global _stopping
    _stopping = True


def is_stopping() -> bool:
    return _stopping


def not_ready_reason() -> str:
    """Why requests should go elsewhere; an empty text when the server can draw."""
    if _stopping:
        return "the server is shutting down"
    services = sys.modules.get("app.serving.services")  # imported by the warm-up, with torch
    existing = None if services is None else services.existing_services()
    if existing is None or paths.default_model() not in existing.engine.loaded():
        return f"the model {paths.default_model()} is not loaded"
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
    services = sys.modules.get("app.serving.services")
    existing = None if services is None else services.existing_services()
    if existing is not None:
        status = existing.engine.status()
        metrics.QUEUE.set(status.queued)
        metrics.RUNNING.set(status.rows)
    return Response(metrics.render(), media_type=metrics.CONTENT_TYPE)


ROUTES = [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics_text)]
