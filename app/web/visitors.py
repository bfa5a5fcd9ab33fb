"""Visitors: the cookie that identifies a browser, and the same-origin check."""

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.gallery_store import OWNER, new_owner

COOKIE = "studio"
YEAR = 365 * 24 * 3600  # seconds


class VisitorCookieMiddleware:
    """Gives each browser a random gallery id in an HttpOnly cookie."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or known_cookie(scope):
            await self.app(scope, receive, send)
            return
        secure = "; Secure" if scope["scheme"] == "https" else ""
        cookie = f"{COOKIE}={new_owner()}; Path=/; Max-Age={YEAR}; HttpOnly; SameSite=Lax{secure}"

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                # 304: the browser has cached the page but has lost its cookie.
                if message["status"] == 304 or headers.get("content-type", "").startswith("text/html"):
                    headers.append("set-cookie", cookie)
            await send(message)

        await self.app(scope, receive, send_with_cookie)


def known_cookie(scope: Scope) -> str | None:
    """Returns the gallery id in this connection's cookie, or None if there is no valid one.

    All ports of localhost share their cookies, and http.cookies drops every cookie if one is malformed; starlette's
    parser does not.
    """
    for name, value in scope["headers"]:
        if name == b"cookie":
            owner = cookie_parser(value.decode("latin-1")).get(COOKIE, "")
            if OWNER.fullmatch(owner):
                return owner
    return None


def same_origin(headers: Mapping[str, str]) -> bool:
    """Whether the Origin header names this host. Other sites may not use a visitor's cookie."""
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] == headers.get("host")
