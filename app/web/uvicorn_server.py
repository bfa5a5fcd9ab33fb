"""uvicorn with a timeout for request heads, and a stop that finishes or cancels drawings within seconds."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from socket import socket
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 15.0  # for the request line and all headers
MAX_HEAD = 2**16  # bytes of them
CLOSE_SECONDS = 1  # for connections to close once all jobs are over


class HeadTimeoutProtocol(HttpToolsProtocol):
    """Closes a connection whose request head is not complete after HEAD_SECONDS or MAX_HEAD bytes.

    What comes of a body after its answer is left aside for HEAD_SECONDS: a client that still sends would lose the
    answer if the connection were closed at once.
    """

    transport: asyncio.Transport
    cycle: Any
    head_timer: asyncio.TimerHandle | None = None
    head_bytes = 0
    is_in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if self.has_request:
            super().data_received(data)
            return
        if self.head_timer is None:
            self._expect_head()
        if self.is_in_body:  # of a request that is answered
            super().data_received(data)
            return
        self.head_bytes += len(data)
        super().data_received(data)
        if self.has_request or self.transport.get_protocol() is not self:  # the head is complete
            self._stop_timer()
        elif self.head_bytes > MAX_HEAD:
            self.transport.close()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self.is_in_body = True

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.is_in_body = False

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    @property
    def has_request(self) -> bool:
        """Whether a request whose head is complete is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_head(self) -> None:
        self.head_bytes = 0
        self.head_timer = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._close_headless)

    def _close_headless(self) -> None:
        self.head_timer = None
        if not self.has_request and self.transport.get_protocol() is self:
            self.transport.close()

    def _stop_timer(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None


class GracefulServer(uvicorn.Server):
    """Stops on SIGINT or SIGTERM: closes its sockets, awaits `drain`, then closes the connections. A second
    SIGINT ends the process at once."""

    def __init__(self, config: uvicorn.Config, begin_stop: Callable[[], None], drain: Callable[[], Awaitable[None]]):
        super().__init__(config)
        self._begin_stop, self._drain = begin_stop, drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and sig == signal.SIGINT:
            sys.stderr.write("stopped at once\n")
            sys.stderr.flush()
            os._exit(130)  # without the interpreter's shutdown, which would wait for threads
        self.should_exit = True
        self._begin_stop()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Unlike uvicorn's own, it does not raise the signal again when the server has stopped."""
        handlers = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await self._drain()
        await super().shutdown(sockets)
