"""A tiny HTTP/1.0 responder: `GET /metrics` and `GET /health` of one process of ours."""

import asyncio
from collections.abc import Callable, Iterator
from typing import cast

from typing_extensions import override

_REQUEST_BYTES_MAX = 8192
_REQUEST_S_MAX = 5.0

Health = Callable[[], str | None]
Pieces = Callable[[], Iterator[bytes]]


class MetricsResponder(asyncio.Protocol):
    """Answers one request and closes. `health` returns why the process cannot serve, or None.

    Of the metrics a piece is made and sent in each turn of the loop, since streams share it.
    """

    def __init__(self, pieces: Pieces, health: Health) -> None:
        self._pieces = pieces
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
            self._head(200)
            self._send(self._pieces())
        elif path == b"/health":
            cause = self._health()
            self._answer(200 if cause is None else 503, f"{cause or 'ok'}\n".encode())
        else:
            self._answer(404, b"there are /metrics and /health\n")

    def _send(self, pieces: Iterator[bytes]) -> None:
        """The next piece now, the others in later turns."""
        assert self._transport is not None
        if self._transport.is_closing():
            return
        piece = next(pieces, None)
        if piece is None:
            self._transport.close()
            return
        self._transport.write(piece)
        asyncio.get_running_loop().call_soon(self._send, pieces)

    def _answer(self, status: int, body: bytes) -> None:
        assert self._transport is not None
        self._head(status, f"Content-Length: {len(body)}\r\n")
        self._transport.write(body)
        self._transport.close()

    def _head(self, status: int, more: str = "") -> None:
        assert self._transport is not None
        self._transport.write(
            f"HTTP/1.0 {status} {'OK' if status == 200 else 'Error'}\r\n"
            f"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n{more}"
            "Connection: close\r\n\r\n".encode()
        )
