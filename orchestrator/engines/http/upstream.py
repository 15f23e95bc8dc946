"""Keep-alive HTTP/1.1 connections to one engine's server, and the exchanges on them."""

import asyncio
from collections.abc import Sequence
from typing import Protocol, cast

import httptools
from typing_extensions import override

from orchestrator.engines.channel.sockets import no_delay, split_address

CONNECT_S = 5.0
IDLE_MAX = 256  # connections kept to one engine while nothing runs on them

Headers = Sequence[tuple[bytes, bytes]]


class Exchange(Protocol):
    """Who asked: told of the answer in this order, on the loop, and of nothing after its end."""

    def on_head(self, status: int, headers: Headers) -> None:
        """The answer begins; names are lower case."""
        ...

    def on_body(self, data: bytes) -> None:
        """More of its body, without its framing; never empty."""
        ...

    def on_end(self) -> None:
        """The answer was whole."""
        ...

    def on_lost(self, cause: str) -> None:
        """The connection broke before the end. `cause` is one sentence."""
        ...


def post(path: str, body: bytes) -> bytes:
    """The bytes of a request with a JSON body."""
    return (
        b"POST %b HTTP/1.1\r\nhost: engine\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (path.encode(), len(body), body)
    )


class Upstream(asyncio.Protocol):
    """One connection, with one exchange at a time."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._exchange: Exchange | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._complete = False
        self._keep = False
        self.heard = False  # anything since the exchange began
        self._paused = False

    @property
    def open(self) -> bool:
        """Whether an exchange may begin, as far as is known here."""
        return self._exchange is None and not self._transport.is_closing()

    def begin(self, request: bytes, exchange: Exchange) -> None:
        """Sends a whole request."""
        assert self._exchange is None
        self._exchange = exchange
        self.heard = False
        self._transport.write(request)

    def pause(self) -> None:
        """Takes no more of the answer until `resume`: whoever reads it is slow."""
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Takes more again."""
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def cut(self) -> None:
        """Ends the exchange, of which nothing more is told, and the connection."""
        self._exchange = None
        self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # TCP is both ways
        no_delay(self._transport)

    @override
    def data_received(self, data: bytes) -> None:
        if self._exchange is None:  # an answer to nothing
            self._transport.abort()
            return
        self.heard = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._lose(f"the engine sent no HTTP: {error}")
            return
        exchange = self._exchange
        if self._body:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._body.clear()
            exchange.on_body(body)
        if self._complete and self._exchange is not None:
            self._complete = False
            self._exchange = None
            self.resume()
            if self._keep:
                self._pool.put(self)
            else:
                self._transport.close()
            exchange.on_end()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._lose("the engine closed the connection" if exc is None else str(exc))

    def _lose(self, cause: str) -> None:
        exchange, self._exchange = self._exchange, None
        self._transport.abort()
        if exchange is not None:
            exchange.on_lost(cause)

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and self._exchange is not None:  # the others announce the answer
            self._exchange.on_head(status, self._headers)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._complete = self._parser.get_status_code() >= 200
        self._keep = self._parser.should_keep_alive()  # which it forgets afterwards


class Pool:
    """The connections to one engine; all on one event loop."""

    def __init__(self, address: str) -> None:
        """`address` is host:port."""
        self.address = address
        self._target = split_address(address)
        self._idle: list[Upstream] = []

    def idle(self) -> Upstream | None:
        """A connection that is there, the one used last; the engine may be closing it."""
        while self._idle:
            upstream = self._idle.pop()
            if upstream.open:
                return upstream
        return None

    async def fresh(self) -> Upstream:
        """A new connection. Raises OSError, a timeout included."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_S):
            _, upstream = await loop.create_connection(lambda: Upstream(self), *self._target)
        return upstream

    def put(self, upstream: Upstream) -> None:
        """Keeps a connection whose exchange has ended."""
        if len(self._idle) < IDLE_MAX:
            self._idle.append(upstream)
        else:
            upstream.cut()

    def close(self) -> None:
        """Ends the connections that nothing runs on."""
        for upstream in self._idle:
            upstream.cut()
        self._idle.clear()
