"""The plain end of HTTP: reading a body within bounds, sending a head, sending an error."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from orchestrator.gateway.errors import ApiError, bad_request, error_body

BODY_S = 120.0  # for all of a body to arrive; 8 MiB at half a megabit a second
DRAIN = 8  # times the limit: what is still read of a body too large, so that its sender listens


async def read_body(receive: Receive, limit_bytes: int) -> bytes | ApiError | None:
    """The whole body, or why it is refused; None if the client has gone."""
    try:
        async with asyncio.timeout(BODY_S):
            return await _read_body(receive, limit_bytes)
    except TimeoutError:
        return bad_request(f"The request body did not arrive within {BODY_S:g} s")


async def _read_body(receive: Receive, limit_bytes: int) -> bytes | ApiError | None:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part: bytes = message.get("body", b"")
        size += len(part)
        if size <= limit_bytes:
            parts.append(part)
        if not message.get("more_body", False) or size > DRAIN * limit_bytes:
            break
    if size > limit_bytes:
        return too_large(limit_bytes)
    return b"".join(parts)


def too_large(limit_bytes: int) -> ApiError:
    """The error of a body that is not read."""
    return bad_request(f"The request body is larger than {limit_bytes} bytes")


def header(scope: Scope, name: bytes) -> str | None:
    """A header of the request; None if it is not there."""
    value: bytes | None = dict(scope["headers"]).get(name)
    return None if value is None else value.decode("latin-1")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the clients of one API prove who they are, and hear of what is wrong."""

    authorization: Callable[[Scope], str | None]  # as an `Authorization` header has it
    error: Callable[[ApiError], tuple[int, bytes]]  # status and body


def _error(error: ApiError) -> tuple[int, bytes]:
    return error.status, error_body(error)


DEEPSEEK = Dialect(lambda scope: header(scope, b"authorization"), _error)


def response_start(
    status: int,
    content_type: str,
    length: int | None,
    more: tuple[tuple[bytes, bytes], ...] = (),
) -> dict[str, object]:
    """The ASGI message that begins a response; without a length the body is chunked."""
    headers = [(b"content-type", content_type.encode()), (b"cache-control", b"no-cache"), *more]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    return {"type": "http.response.start", "status": status, "headers": headers}


async def send_body(send: Send, body: bytes) -> None:
    """The whole answer to a request that needed no engine."""
    await send_whole(send, 200, body)


async def send_error(send: Send, error: ApiError, dialect: Dialect) -> None:
    """The whole answer to a request that failed before anything was sent."""
    status, body = dialect.error(error)
    more: tuple[tuple[bytes, bytes], ...] = ()
    if error.retry_after_s is not None:
        more = ((b"retry-after", str(error.retry_after_s).encode()),)
    await send_whole(send, status, body, more)


async def send_whole(
    send: Send,
    status: int,
    body: bytes,
    more: tuple[tuple[bytes, bytes], ...] = (),
    content_type: str = "application/json",
) -> None:
    """A whole answer."""
    await send(response_start(status, content_type, len(body), more))
    await send({"type": "http.response.body", "body": body})
