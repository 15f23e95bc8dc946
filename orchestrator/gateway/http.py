"""The plain end of HTTP: reading a body within bounds, sending a head, sending an error."""

from starlette.types import Receive, Scope, Send

from orchestrator.gateway.errors import ApiError, bad_request, error_body

_DRAIN = 8  # times the limit: what is still read of a body too large, so that its sender listens


async def read_body(receive: Receive, limit_bytes: int) -> bytes | ApiError | None:
    """The whole body, or why it is refused; None if the client has gone."""
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
        if not message.get("more_body", False) or size > _DRAIN * limit_bytes:
            break
    if size > limit_bytes:
        return bad_request(f"The request body is larger than {limit_bytes} bytes")
    return b"".join(parts)


def header(scope: Scope, name: bytes) -> str | None:
    """A header of the request; None if it is not there."""
    value: bytes | None = dict(scope["headers"]).get(name)
    return None if value is None else value.decode("latin-1")


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


async def send_error(send: Send, error: ApiError) -> None:
    """The whole answer to a request that failed before anything was sent."""
    body = error_body(error)
    more: tuple[tuple[bytes, bytes], ...] = ()
    if error.retry_after_s is not None:
        more = ((b"retry-after", str(error.retry_after_s).encode()),)
    await send(response_start(error.status, "application/json", len(body), more))
    await send({"type": "http.response.body", "body": body})
