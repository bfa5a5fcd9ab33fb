"""Tells a visitor why the page cannot connect: a proxy that passes no WebSockets, or an address that is not allowed.

A script that the server adds to the page opens a WebSocket at /connection. Where that fails, it asks the same path over
HTTP and shows what is wrong: the server's refusal, or that the proxy passes no WebSockets.
"""

from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

SCRIPT = Path(__file__).parents[1] / "studio" / "connection_check.js"
END = b"</body>"


class ConnectionNotice:
    """ASGI middleware that adds the script to every HTML page."""

    def __init__(self, app: ASGIApp):
        self.app = app
        self._script = b"<script>\n" + SCRIPT.read_bytes() + b"</script>\n"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        if any(name == b"accept" and b"text/html" in value for name, value in scope["headers"]):
            # The page comes uncompressed, so that the script can be added.
            headers = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
            scope = dict(scope) | {"headers": headers}
        start: Message | None = None
        body = bytearray()

        async def send_with_script(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                kind, coding = headers.get("content-type", ""), headers.get("content-encoding")
                if message["status"] == 200 and kind.startswith("text/html") and coding is None:
                    start = message
                    return
            elif start is not None and message["type"] == "http.response.body":
                body.extend(message.get("body", b""))
                if message.get("more_body"):
                    return
                page = bytes(body).replace(END, self._script + END, 1)
                MutableHeaders(scope=start)["content-length"] = str(len(page))
                await send(start)
                message = {"type": "http.response.body", "body": page}
                start = None
            await send(message)

        await self.app(scope, receive, send_with_script)


async def _greet(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


async def _reached(request: Request) -> Response:
    return Response(status_code=204)


CONNECTION_ROUTES = [WebSocketRoute("/connection", _greet), Route("/connection", _reached, methods=["POST"])]
