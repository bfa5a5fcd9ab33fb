"""Errors of the HTTP API, in OpenAI's error object."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

RETRY_SECONDS = 2


class ApiError(Exception):
    """An answer other than success: an HTTP status, a message for the caller, and a code for programs.

    `retry_after`: seconds of the Retry-After header of 429 and 503.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str = "invalid_request",
        retry_after: float = RETRY_SECONDS,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.retry_after = status, message, code, retry_after
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": None, "code": self.code}}

    def response(self) -> Response:
        headers = dict(self.headers)
        if self.status in (429, 503):
            headers["Retry-After"] = str(max(1, round(self.retry_after)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)


def shutting_down() -> ApiError:
    """The answer of a server that stops."""
    return ApiError(503, "the server is shutting down: try again in a minute", "shutting_down", 30)
