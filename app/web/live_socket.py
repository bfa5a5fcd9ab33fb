"""The live socket: a microphone up, words and images down. This file admits sockets; live_session.py serves one."""

import asyncio

from starlette.websockets import WebSocketDisconnect

from app.serving.services import get_services
from app.web.health import is_stopping
from app.web.live_protocol import ProtocolError, SocketLike
from app.web.live_session import LiveSession, wait_until_saved
from app.web.public_message import message_text, public_message
from app.web.visitors import same_origin

__all__ = ["finish_all", "serve_socket", "sessions", "wait_until_saved"]

MAX_SOCKETS = 8
MAX_ENDING = 8  # more, whose visitors have finished speaking: their words are still transcribed and drawn
MAX_SOCKETS_PER_VISITOR = 2

STOPPING = "the server is shutting down: press the microphone again in a minute"

sessions: set[LiveSession] = set()  # open sockets


async def serve_socket(socket: SocketLike, owner: str | None) -> None:
    """Serve one visitor's microphone until it is closed."""
    if not same_origin(socket.headers) or owner is None:
        await socket.close(4403, "open the studio's own page first")
        return
    await socket.accept()
    if is_stopping():
        await _refuse(socket, STOPPING)
        return
    services = await asyncio.to_thread(get_services)
    speaking = [session for session in sessions if not session.ending]
    if sum(session.owner == owner for session in speaking) >= MAX_SOCKETS_PER_VISITOR:
        await _refuse(socket, f"{MAX_SOCKETS_PER_VISITOR} of your pages are listening already: stop one of them first")
        return
    if len(speaking) >= MAX_SOCKETS or len(sessions) >= MAX_SOCKETS + MAX_ENDING:
        await _refuse(socket, f"{MAX_SOCKETS} people are speaking already: try again in a minute")
        return
    session = LiveSession(socket, owner, services)
    sessions.add(session)
    try:
        await session.run()
    except ProtocolError as refusal:
        await _refuse(socket, str(refusal))
    finally:
        sessions.discard(session)
        session.stop()


async def finish_all(seconds: float) -> None:
    """Treat all that was said so far as final: transcribe, draw and save it, at most for so long; then close all."""

    async def finish(session: LiveSession) -> None:
        await session.send(type="error", message=STOPPING)
        await session.finish()

    open_sessions = [session for session in sessions if not session.ending]
    if open_sessions:
        await asyncio.wait([asyncio.ensure_future(finish(session)) for session in open_sessions], timeout=seconds)


async def _refuse(socket: SocketLike, reason: str) -> None:
    try:
        await socket.send_text(message_text({"type": "error", "message": reason}))
        await socket.close(1008, public_message(reason)[:120])
    except (RuntimeError, OSError, WebSocketDisconnect):
        return  # the client closed first
