"""The outermost ASGI layer: checks each request and socket before anything else reads it, and logs it.

Order: path prefix of --root-path, trusted proxy, Host, path, charset, Origin. Then the response gets a request id and
the security headers, and one line goes to the log.
"""

import asyncio
import json
import logging
import secrets
import time
from html import escape

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.serving import metrics
from app.web import health
from app.web.access import IS_LOCAL, AccessPolicy, parse_origin
from app.web.api_errors import ApiError, shutting_down

log = logging.getLogger("maskgil.access")

UTF8 = {"utf-8", "utf8", "us-ascii"}
QUIET_PATHS = ("/static/", "/_stcore/", "/media/", "/component/", "/healthz", "/readyz", "/metrics")  # not logged
API = "/v1"

# Streamlit's bundle needs inline styles and scripts, and WebAssembly; players and pictures are data: and blob: URLs.
# Nothing is loaded from another host.
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "frame-src 'self' blob: data:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Guard:
    """Wraps an ASGI application. `root_path`: the prefix of a reverse proxy, which is removed where it comes."""

    def __init__(self, app: ASGIApp, policy: AccessPolicy, root_path: str = ""):
        self.app, self.policy, self.root_path = app, policy, "/" + root_path.strip("/") if root_path.strip("/") else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        scope = self._behind_proxy(dict(scope))
        scope["request_id"] = f"req_{secrets.token_hex(12)}"
        start = time.monotonic()
        status, size = 0, 0

        async def watched_send(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers["x-request-id"] = scope["request_id"]
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            elif message["type"] in ("websocket.accept", "websocket.close") and not status:
                status = 101 if message["type"] == "websocket.accept" else 403
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is None:
                scope["public_base"] = self.policy.public_base(scope) + self.root_path
            if refusal is not None:
                await _refuse(refusal, scope, receive, watched_send)
            else:
                await self.app(scope, receive, watched_send)
        except asyncio.CancelledError:
            if status or scope["type"] != "http" or not health.is_stopping():
                raise
            # The stop of the server cuts off what has not been answered by then.
            await _refuse(shutting_down(), scope, receive, watched_send)
        finally:
            seconds = time.monotonic() - start
            metrics.count_request(scope["path"], scope.get("method", "WEBSOCKET"), status, seconds)
            if not scope["path"].startswith(QUIET_PATHS):
                log.info("%s", _log_line(scope, status, seconds, size))

    def _behind_proxy(self, scope: Scope) -> Scope:
        """The scope as the visitor's browser sees it: without the prefix and, from a trusted proxy, with the host,
        scheme and address of the visitor."""
        headers = Headers(scope=scope)
        peer = scope["client"][0] if scope.get("client") else ""
        raw = [(name, value) for name, value in scope["headers"] if name != IS_LOCAL.encode()]
        local = self.policy.is_local(peer, headers)
        if self.policy.trusts(peer):
            client = self._forwarded_client(headers.getlist("x-forwarded-for"))
            if client:
                scope["client"] = (client, 0)
            if (scheme := headers.get("x-forwarded-proto", "").strip().lower()) in ("http", "https"):
                secure = {"http": "ws", "https": "wss"}
                scope["scheme"] = scheme if scope["type"] == "http" else secure[scheme]
            if host := headers.get("x-forwarded-host", "").partition(",")[0].strip():
                raw = [(name, value) for name, value in raw if name != b"host"]
                raw.append((b"host", host.encode("latin-1")))
        raw.append((IS_LOCAL.encode(), b"1" if local else b"0"))
        scope["headers"] = raw
        path = scope["path"]
        if self.root_path and (path == self.root_path or path.startswith(f"{self.root_path}/")):
            scope["path"] = path[len(self.root_path) :] or "/"
            scope["raw_path"] = scope["path"].encode()
        return scope

    def _forwarded_client(self, values: list[str]) -> str:
        """The last address of X-Forwarded-For that is no trusted proxy; the ones before it can be made up."""
        addresses = [text.strip() for value in values for text in value.split(",") if text.strip()]
        return next((address for address in reversed(addresses) if not self.policy.trusts(address)), "")

    def _refusal(self, scope: Scope) -> ApiError | None:
        """Why this request is refused. Where its Origin is allowed and names another host than Host (a proxy that does
        not pass Host), the scope's Host becomes that of the origin, so that no later check compares the two."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.policy.host_allowed(hosts[0], scope["scheme"]):
            return ApiError(403, self._host_message(hosts), "wrong_host")
        if any(ord(char) < 32 or ord(char) == 127 for char in scope["path"]):  # no route means such a path
            return ApiError(404, "the path has control characters: there is nothing at such an address", "not_found")
        if scope["path"].startswith(API) and any(part in scope["path"] for part in ("//", "..", "\\")):
            return ApiError(404, f"there is no {scope['path'][:80]}: the path has //, .. or \\", "not_found")
        for value in headers.getlist("content-type"):
            charset = parse_options_header(value)[1].get(b"charset", b"utf-8").decode("latin-1")  # as forms are parsed
            if charset.lower() not in UTF8:
                return ApiError(400, f"the charset is {charset[:40]!r}: send UTF-8", "wrong_charset")
        origins = headers.getlist("origin")
        if not origins:
            return None
        if len(origins) != 1 or not self.policy.origin_allowed(origins[0], hosts[0], scope["scheme"]):
            return ApiError(403, self._origin_message(origins[0], hosts[0]), "cross_origin")
        host = origins[0].partition("://")[2]
        if host != hosts[0]:
            scope["headers"] = [(name, host.encode() if name == b"host" else value) for name, value in scope["headers"]]
        return None

    def _host_message(self, hosts: list[str]) -> str:
        name = hosts[0][:80] if hosts else "missing"
        return (
            f"the Host header is {name!r}, and this server is {self.policy.describe_hosts()}: open one of these "
            "addresses, or start the server with --public-url and the address that browsers use"
        )

    def _origin_message(self, origin: str, host: str) -> str:
        message = f"a page of {origin[:80]!r} may not use this server, which is opened as {host[:80]!r}"
        page = parse_origin(origin)
        if page is None:
            return f"{message}: open the page by its own address"
        return f"{message}: if that page is this server behind a proxy, start the server with --public-url {page}"


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the error: JSON for programs, a page for browsers, a refused handshake for sockets."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4403, "reason": error.message[:120]})
        return
    if scope["path"].startswith(API):
        await error.response()(scope, receive, send)
        return
    html = "text/html" in Headers(scope=scope).get("accept", "")
    message = escape(error.message)
    body = f"<!doctype html><title>Refused</title><p>{message}</p>" if html else error.message + "\n"
    kind = b"text/html; charset=utf-8" if html else b"text/plain; charset=utf-8"
    await send({"type": "http.response.start", "status": error.status, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body.encode()})


def _log_line(scope: Scope, status: int, seconds: float, size: int) -> str:
    """One request: no prompt, no query and no cookie."""
    path = json.dumps(scope["path"][:120])[1:-1]
    details = " ".join(f"{name}={value}" for name, value in scope.get("log", {}).items())
    parts = [scope.get("method", "WEBSOCKET"), path, str(status), f"{1000 * seconds:.0f} ms", f"{size} B", details]
    return " ".join(part for part in [*parts, scope["request_id"]] if part)
