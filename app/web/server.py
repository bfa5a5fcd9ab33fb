"""The web server: the Streamlit page, the live socket and the HTTP API on one port."""

import asyncio
import errno
import logging
import os
import socket
import sys
import threading
import time
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import streamlit as st
import uvicorn
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket
from streamlit import config as streamlit_config

from app.core import paths
from app.web import health
from app.web.access import WILDCARDS, AccessPolicy, is_loopback, set_policy
from app.web.api_keys import ApiKeys
from app.web.connection_notice import CONNECTION_ROUTES, ConnectionNotice
from app.web.guard import Guard
from app.web.options import ServerOptions
from app.web.page_uploads import MAX_FILE, UploadLimits, free_closed_sessions
from app.web.uvicorn_server import CLOSE_SECONDS, GracefulServer, HeadTimeoutProtocol
from app.web.visitors import VisitorCookieMiddleware, known_cookie

PAGE = Path(__file__).parents[1] / "studio" / "main.py"
THEME = Path(__file__).parents[1] / ".streamlit" / "config.toml"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")  # an API route refuses what it does not take
# MB of one WebSocket message, where Streamlit's default is 200; files come another way. The largest message of the page
# is the token player's: all steps of an image of 1024 pixels a side, about 3 MB each.
MAX_MESSAGE = 64
MAX_OPEN_FILES = 65_536
DRAIN_SECONDS = 3.0  # for running jobs to finish before they are cancelled

PAGE_CONFIG: dict[str, Any] = {
    "server.headless": True,
    "server.fileWatcherType": "none",
    "server.maxUploadSize": MAX_FILE // 2**20,
    "server.maxMessageSize": MAX_MESSAGE,
    "server.enableCORS": True,
    "server.enableXsrfProtection": True,
    "browser.gatherUsageStats": False,
    "client.toolbarMode": "minimal",
    "client.allowedOrigins": [],  # Streamlit would let pages of its own cloud send commands to this one
    "client.showErrorDetails": "none",
    "logger.hideWelcomeMessage": True,
    # Streamlit would run Python's collector over every object in memory after each run of a page: 0.3 s with the models
    # loaded, in which nothing else runs. Python collects by itself when it must.
    "runner.postScriptGC": False,
    "global.disableWidgetStateDuplicationWarning": True,  # both are wanted: see app/studio/widget_state.py
}


class StudioApp:
    """The ASGI application: Guard, then the page, the live socket and the HTTP API.

    Raises ValueError for options that cannot be used.
    """

    def __init__(self, options: ServerOptions):
        policy = AccessPolicy.of(options)
        self.keys = None if options.api_keys is None else ApiKeys.read(options.api_keys)
        if policy.is_public and self.keys is None and not options.no_auth:
            raise ValueError(
                "other machines reach this server, and its HTTP API has no keys: give --api-keys FILE, or --no-auth to "
                "serve everybody"
            )
        set_policy(policy)
        options_from_flags = (
            PAGE_CONFIG | theme_options() | {"server.address": options.address, "server.port": options.port}
        )
        streamlit_config.get_config_options(force_reparse=True, options_from_flags=options_from_flags)
        self.options = options
        self.app: ASGIApp = Guard(self._page(), policy, options.root_path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)

    def _page(self) -> st.App:
        async def microphone(websocket: WebSocket) -> None:
            handler = await asyncio.to_thread(_live_socket_handler)
            await handler(websocket, known_cookie(websocket.scope))

        async def canvas(websocket: WebSocket) -> None:
            handler = await asyncio.to_thread(_canvas_socket_handler)
            await handler(websocket, known_cookie(websocket.scope))

        async def pictures(call: Request) -> Response:
            handler = await asyncio.to_thread(_pictures_handler)
            return await handler(call)

        async def programs(call: Request) -> Response:
            call.scope["api_keys"], call.scope["log_prompts"] = self.keys, self.options.log_prompts
            handler = await asyncio.to_thread(_api_handler)
            return await handler(call)

        async def description(call: Request) -> Response:
            handler = await asyncio.to_thread(_description_handler)
            return await handler(call)

        routes = [
            WebSocketRoute("/live", microphone),
            WebSocketRoute("/canvas", canvas),
            Route("/pictures/{path:path}", pictures, methods=["GET", "POST"]),
            Route("/openapi.json", description),
            Route("/v1", programs, methods=list(METHODS)),
            Route("/v1/{path:path}", programs, methods=list(METHODS)),
            *health.ROUTES,
            *CONNECTION_ROUTES,
        ]
        middleware = [Middleware(VisitorCookieMiddleware), Middleware(ConnectionNotice), Middleware(UploadLimits)]
        return st.App(PAGE, routes=routes, middleware=middleware, lifespan=_lifespan)


def theme_options() -> dict[str, Any]:
    """The page's colors and shapes, as Streamlit's options: 'theme.light.primaryColor' and so on."""
    values: dict[str, Any] = {}

    def add(prefix: str, table: dict[str, Any]) -> None:
        for name, value in table.items():
            if isinstance(value, dict):
                add(f"{prefix}{name}.", value)
            else:
                values[prefix + name] = value

    add("", tomllib.loads(THEME.read_text(encoding="utf-8")))
    return values


@asynccontextmanager
async def _lifespan(app: st.App) -> AsyncIterator[None]:
    threading.Thread(target=_warm_up, name="warm-up", daemon=True).start()
    async with free_closed_sessions():
        yield


def build_app() -> StudioApp:
    """The ASGI application with the default options, for any ASGI server."""
    return StudioApp(ServerOptions())


def run_server(options: ServerOptions, prepare: Callable[[], None] = lambda: None) -> int:
    """Serve until SIGINT or SIGTERM; the process ends with exit code 0 then. `prepare` is called before the first
    request, once the options have been found usable.

    Raises ValueError for options that cannot be used: address, port, certificate, keys, URLs.
    """
    app = StudioApp(options)
    _check_certificate(options)
    raise_file_limit()
    listener = bind(options.address, options.port)
    port = listener.getsockname()[1]
    prepare()
    streamlit_config.set_option("server.port", port)
    _log_to_stderr()
    print(f"The studio is at {page_url(options, port)}   (stop it with Ctrl-C)", flush=True)
    config = uvicorn.Config(
        app,
        host=options.address,
        port=port,
        http=HeadTimeoutProtocol,
        ws_max_size=MAX_MESSAGE * 2**20,
        ws_ping_interval=30,
        ws_ping_timeout=30,
        ws_per_message_deflate=False,
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,  # Guard reads them
        timeout_graceful_shutdown=CLOSE_SECONDS,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
    )
    server = GracefulServer(config, health.begin_stop, _drain)
    try:
        server.run(sockets=[listener])
    finally:
        listener.close()
    print("stopped", flush=True)
    sys.stdout.flush()
    sys.stderr.flush()
    # The interpreter's own shutdown would wait for the threads of models, which may be in the middle of a step.
    os._exit(0 if server.started else 1)


def bind(address: str, port: int) -> socket.socket:
    """A listening socket. Raises ValueError that names the option at fault: --address or --port."""
    if not address:
        raise ValueError("the address is empty: give --address 127.0.0.1, or 0.0.0.0 for all networks")
    if not 0 <= port <= 65535:
        raise ValueError(f"port {port} is not between 0 and 65535: choose another with --port")
    try:
        family, _, _, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise ValueError(
            f"{address!r} is no address of this machine ({error}): choose another with --address"
        ) from None
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6 and address != "::":
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        listener.bind(where)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        option = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--address"
        raise ValueError(f"cannot serve on {address}:{port} ({error.strerror}): choose another with {option}") from None
    return listener


def raise_file_limit() -> None:
    """Lets this process open as many files as the system allows it: an open page takes about four, and the usual limit
    is 1024."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # forbidden: the limit stays
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def page_url(options: ServerOptions, port: int) -> str:
    """The address to open in a browser."""
    if options.public_url:
        return options.public_url[0].rstrip("/") + (f"/{options.root_path.strip('/')}" if options.root_path else "")
    host = "localhost" if options.address in WILDCARDS or is_loopback(options.address) else options.address
    host = f"[{host}]" if ":" in host else host
    return f"{'https' if options.tls_cert else 'http'}://{host}:{port}"


def _check_certificate(options: ServerOptions) -> None:
    if (options.tls_cert is None) != (options.tls_key is None):
        missing = "--tls-key" if options.tls_key is None else "--tls-cert"
        raise ValueError(f"{missing} is missing: HTTPS needs both --tls-cert and --tls-key")
    if options.tls_cert is None or options.tls_key is None:
        return
    import ssl

    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(
            f"the certificate {options.tls_cert} with the key {options.tls_key} cannot be used ({error}): "
            "docs/serving.md says how to make one"
        ) from None


def _log_to_stderr() -> None:
    """Warnings of everything, and a line for each request."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a warning for each form that is cut or damaged
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name, level in (("app", logging.WARNING), ("maskgil.access", logging.INFO)):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False


# The handlers import torch and the models, which takes seconds: they are imported at the first request, on a thread, so
# that the event loop keeps serving pages.


def _live_socket_handler() -> Callable[[Any, str | None], Awaitable[None]]:
    from app.web import live_socket

    return live_socket.serve_socket


def _canvas_socket_handler() -> Callable[[Any, str | None], Awaitable[None]]:
    from app.web import canvas_socket

    return canvas_socket.serve_canvas


def _pictures_handler() -> Callable[[Request], Awaitable[Response]]:
    from app.web import pictures_api

    return pictures_api.respond_pictures


def _api_handler() -> Callable[[Request], Awaitable[Response]]:
    from app.web import openai_api

    return openai_api.answer


def _description_handler() -> Callable[[Request], Awaitable[Response]]:
    from app.web import openai_api

    return openai_api.openapi_description


def _warm_up() -> None:
    """Load the default model and the speech recognizer before the first request."""
    from app.serving.services import get_services

    services = get_services()
    health.set_services(services)
    if services.gallery_problem:
        print(f"note: images are not saved: {services.gallery_problem}", flush=True)
    for load in (lambda: services.engine.load(paths.default_model()), services.recognizer.load):
        try:
            load()
        except ValueError as error:
            print(f"note: {error}", flush=True)  # the page shows it too


async def _drain() -> None:
    """Finish what runs within DRAIN_SECONDS and cancel the rest; what is finished is saved."""
    end = time.monotonic() + DRAIN_SECONDS
    services = health.loaded_services()
    if services is None:
        return
    live = sys.modules.get("app.web.live_socket")  # imported by the first microphone
    has_sessions = bool(getattr(live, "sessions", ()))
    if live is not None and has_sessions:
        await live.finish_all(DRAIN_SECONDS / 2)
    await asyncio.to_thread(services.close, max(0.5, end - time.monotonic()))
    if live is not None and has_sessions:
        await asyncio.to_thread(live.wait_until_saved)
