"""The page, the microphone's socket and what programs ask for, on one port."""

import asyncio
import importlib
import socket
import threading
from collections.abc import Mapping
from pathlib import Path

import streamlit as st
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request, cookie_parser
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from app.core import paths
from app.core.gallery_store import OWNER, new_owner

PAGE = Path(__file__).parents[1] / "studio" / "main.py"
COOKIE = "studio"
YEAR = 365 * 24 * 3600  # seconds
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")  # of programs; the answer says which of them are taken
# MB that a browser may send over any socket at once, where 200 are usual; files come another way. It binds the page
# too, whose largest message is the token player's: all steps of a picture of 1024 pixels a side, about 3 MB each.
MAX_MESSAGE = 64


class VisitorCookieMiddleware:
    """Gives each browser a random id in a cookie that scripts cannot read: the name of its gallery."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or known_cookie(scope):
            await self.app(scope, receive, send)
            return
        cookie = f"{COOKIE}={new_owner()}; Path=/; Max-Age={YEAR}; HttpOnly; SameSite=Lax"

        async def welcome(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                # 304: the browser has the page, but lost its cookie.
                if message["status"] == 304 or headers.get("content-type", "").startswith("text/html"):
                    headers.append("set-cookie", cookie)
            await send(message)

        await self.app(scope, receive, welcome)


def known_cookie(scope: Scope) -> str | None:
    """The id that this connection's cookie carries, whatever other cookies of this host stand beside it: every port of
    localhost has the same ones, and Python's own parser gives up all of them for one that it does not like."""
    for name, value in scope["headers"]:
        if name == b"cookie":
            owner = cookie_parser(value.decode("latin-1")).get(COOKIE, "")
            if OWNER.fullmatch(owner):
                return owner
    return None


def same_origin(headers: Mapping[str, str]) -> bool:
    """Whether the page that calls came from this very host: another site may not use a visitor's cookie."""
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] == headers.get("host")


def build() -> st.App:
    """The whole application, to be served by `serve` or any ASGI server."""

    async def microphone(socket: WebSocket) -> None:
        # On a thread: it imports the models, which takes seconds, and no page may wait for that.
        live = await asyncio.to_thread(importlib.import_module, "app.web.live_socket")
        await live.serve(socket, known_cookie(socket.scope))

    async def programs(call: Request) -> Response:
        api = await asyncio.to_thread(importlib.import_module, "app.web.openai_api")
        return await api.answer(call)

    routes = [WebSocketRoute("/live", microphone), Route("/v1/{path:path}", programs, methods=list(METHODS))]
    return st.App(PAGE, routes=routes, middleware=[Middleware(VisitorCookieMiddleware)])


def serve(address: str, port: int) -> int:
    """Serve until interrupted. Raises ValueError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except (OSError, OverflowError) as error:
            raise ValueError(f"cannot serve on {address}:{port} ({error}): choose another with --port") from None
    shown = "localhost" if address in ("0.0.0.0", "::", "127.0.0.1") else f"[{address}]" if ":" in address else address
    print(f"The studio is at http://{shown}:{port}   (stop it with Ctrl-C)", flush=True)
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


def _warm_up() -> None:
    """Load the models while the first visitor is still on the way."""
    from app.serving.services import get_services

    for load in (lambda: get_services().engine.load(paths.default_model()), get_services().recognizer.load):
        try:
            load()
        except ValueError as error:
            print(f"note: {error}", flush=True)  # the page says so too, to whoever needs it
