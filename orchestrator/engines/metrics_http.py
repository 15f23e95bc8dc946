"""A tiny HTTP/1.0 responder: `GET /metrics` and `GET /health` of one engine process."""

import asyncio
from collections.abc import Callable
from typing import cast

from typing_extensions import override

_REQUEST_BYTES_MAX = 8192
_REQUEST_S_MAX = 5.0

Health = Callable[[], str | None]


class MetricsResponder(asyncio.Protocol):
    """Answers one request and closes. `health` returns why the engine cannot serve, or None."""

    def __init__(self, metrics: Callable[[], bytes], health: Health) -> None:
        self._metrics = metrics
        self._health = health
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._limit: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # TCP is both ways
        loop = asyncio.get_running_loop()
        self._limit = loop.call_later(_REQUEST_S_MAX, self._transport.abort)

    @override
    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._received += data
        if len(self._received) > _REQUEST_BYTES_MAX:
            self._answer(431, b"the request is too long\n")
        elif b"\r\n\r\n" in self._received or b"\n\n" in self._received:
            self._respond()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._limit is not None:
            self._limit.cancel()

    def _respond(self) -> None:
        method, _, rest = self._received.partition(b" ")
        path = rest.split(maxsplit=1)[0].partition(b"?")[0] if rest.strip() else b""
        if method != b"GET":
            self._answer(405, b"only GET\n")
        elif path == b"/metrics":
            self._answer(200, self._metrics())
        elif path == b"/health":
            cause = self._health()
            self._answer(200 if cause is None else 503, f"{cause or 'ok'}\n".encode())
        else:
            self._answer(404, b"there are /metrics and /health\n")

    def _answer(self, status: int, body: bytes) -> None:
        assert self._transport is not None
        head = (
            f"HTTP/1.0 {status} {'OK' if status == 200 else 'Error'}\r\n"
            "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        self._transport.write(head.encode() + body)
        self._transport.close()
