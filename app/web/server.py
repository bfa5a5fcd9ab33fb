"""The web server: the Streamlit page, the live socket and the HTTP API on one port."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from app.core import paths
from app.web.visitors import VisitorCookieMiddleware, known_cookie

PAGE = Path(__file__).parents[1] / "studio" / "main.py"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")  # of the HTTP API; 405 for those that an endpoint refuses
# MB that a browser may send over any socket at once, where 200 are usual; files come another way. It binds the page
# too, whose largest message is the token player's: all steps of a picture of 1024 pixels a side, about 3 MB each.
MAX_MESSAGE = 64


def build() -> st.App:
    """Returns the ASGI application, for `serve` or any other ASGI server."""

    async def microphone(socket: WebSocket) -> None:
        handler = await asyncio.to_thread(_live_socket_handler)
        await handler(socket, known_cookie(socket.scope))

    async def canvas(socket: WebSocket) -> None:
        handler = await asyncio.to_thread(_canvas_socket_handler)
        await handler(socket, known_cookie(socket.scope))

    async def pictures(call: Request) -> Response:
        handler = await asyncio.to_thread(_pictures_handler)
        return await handler(call)

    async def programs(call: Request) -> Response:
        handler = await asyncio.to_thread(_api_handler)
        return await handler(call)

    routes = [
        WebSocketRoute("/live", microphone),
        WebSocketRoute("/canvas", canvas),
        Route("/pictures/{path:path}", pictures, methods=["GET", "POST"]),
        Route("/v1/{path:path}", programs, methods=list(METHODS)),
    ]
    return st.App(PAGE, routes=routes, middleware=[Middleware(VisitorCookieMiddleware)])


def serve(address: str, port: int) -> int:
    """Serve until interrupted. Raises ValueError when the address cannot be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except (OSError, OverflowError) as error:
            raise ValueError(f"cannot serve on {address}:{port} ({error}): choose another with --port") from None
    host = "localhost" if address in ("0.0.0.0", "::", "127.0.0.1") else f"[{address}]" if ":" in address else address
    print(f"The studio is at http://{host}:{port}   (stop it with Ctrl-C)", flush=True)
    threading.Thread(target=_warm_up, name="warm-up", daemon=True).start()
    build().run(
        config={
            "server.address": address,
            "server.port": port,
            "server.headless": True,
            "server.fileWatcherType": "none",
            "server.maxUploadSize": 32,
            "server.maxMessageSize": MAX_MESSAGE,
            "browser.gatherUsageStats": False,
            "client.toolbarMode": "minimal",
            "client.showErrorDetails": "none",
            "logger.hideWelcomeMessage": True,
            # Streamlit would walk every object in memory after each run of a page, in every one of its looks at a job:
            # 0.3 s with the models loaded, in which nothing else runs. Python collects by itself when it must.
            "runner.postScriptGC": False,
            "global.disableWidgetStateDuplicationWarning": True,  # both are wanted: see app/studio/widget_state.py
        }
    )
    return 0


# The handlers import torch and the models, which takes seconds: they are imported at the first request, on a thread, so
# that the event loop keeps serving pages.


def _live_socket_handler() -> Callable[[WebSocket, str | None], Awaitable[None]]:
    from app.web import live_socket

    return live_socket.serve


def _canvas_socket_handler() -> Callable[[WebSocket, str | None], Awaitable[None]]:
    from app.web import canvas_socket

    return canvas_socket.serve_canvas


def _pictures_handler() -> Callable[[Request], Awaitable[Response]]:
    from app.web import pictures_api

    return pictures_api.respond_pictures


def _api_handler() -> Callable[[Request], Awaitable[Response]]:
    from app.web import openai_api

    return openai_api.answer


def _warm_up() -> None:
    """Load the default model and the speech recognizer before the first request."""
    from app.serving.services import get_services

    for load in (lambda: get_services().engine.load(paths.default_model()), get_services().recognizer.load):
        try:
            load()
        except ValueError as error:
            print(f"note: {error}", flush=True)  # the page says so too, to whoever needs it
