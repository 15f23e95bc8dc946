"""Keep-alive HTTP/1.1 connections to one engine's server, and the calls on them."""

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
    """Who asked: told of the answer in this order, on the loop, and of nothing after its end.

    It may end its call from within `on_body`, and not from within the others.
    """

    def on_head(self, status: int, headers: Headers) -> None:
        """The answer begins; names are lower case."""
        ...

    def on_body(self, data: bytes) -> None:
        """More of its body, without its framing; never empty."""
        ...

    def on_end(self, data: bytes) -> None:
        """The answer is whole; `data` is the rest of its body, often empty."""
        ...

    def on_lost(self, cause: str) -> None:
        """There is no answer, or not all of it. `cause` is one sentence."""
        ...


def post(path: str, body: bytes) -> bytes:
    """The bytes of a request with a JSON body."""
    return (
        b"POST %b HTTP/1.1\r\nhost: engine\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (path.encode(), len(body), body)
    )


class Call:
    """One request at an engine. Whoever made it may hold up its answer, or end it."""

    __slots__ = ("_bodiless", "_exchange", "_kept", "_pool", "_request", "_upstream")

    def __init__(self, pool: "Pool", request: bytes, exchange: Exchange, bodiless: bool) -> None:
        self._pool = pool
        self._request = request
        self._exchange: Exchange | None = exchange
        self._bodiless = bodiless
        self._upstream: Upstream | None = None
        self._kept = False  # the connection has been used before

    @property
    def open(self) -> bool:
        """Whether anybody waits for it."""
        return self._exchange is not None

    def pause(self) -> None:
        """Takes no more of the answer until `resume`: whoever reads it is slow."""
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        """Takes more again."""
        if self._upstream is not None:
            self._upstream.resume()

    def cut(self) -> None:
        """Ends it, of which nothing more is told; the engine sees its client go."""
        self._exchange = None
        if self._upstream is not None:
            self._upstream.abandon()
            self._upstream = None

    # What the pool calls.

    def begin(self, upstream: "Upstream", *, kept: bool) -> None:
        """Asks on this connection."""
        assert self._exchange is not None
        self._upstream = upstream
        self._kept = kept
        upstream.begin(self, self._exchange, self._request, bodiless=self._bodiless)

    def ended(self) -> None:
        """Its answer is whole, and the connection is another call's from now on."""
        self._exchange = self._upstream = None

    def lost(self, cause: str, *, heard: bool) -> None:
        """Its connection has gone. An engine may close a kept one while we ask on it: once more."""
        self._upstream = None
        if self._kept and not heard:
            self._pool.dial(self)
        else:
            self.fail(cause)

    def fail(self, cause: str) -> None:
        """There is no answer."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.on_lost(cause)


class Upstream(asyncio.Protocol):
    """One connection, with one call at a time."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._call: Call | None = None
        self._exchange: Exchange | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._status = 0  # of a head that is still to be told of
        self._body: list[bytes] = []
        self.on_body = self._body.append  # which the parser calls
        self._parser = httptools.HttpResponseParser(self)
        self._bodiless = False
        self._complete = False
        self._keep = False
        self._heard = False  # anything since the call began
        self._paused = False

    @property
    def open(self) -> bool:
        """Whether a call may begin, as far as is known here."""
        return self._call is None and not self._transport.is_closing()

    def begin(self, call: Call, exchange: Exchange, request: bytes, *, bodiless: bool) -> None:
        """Sends a whole request; `bodiless` if its answer is a head alone, whatever that says."""
        assert self._call is None
        self._call = call
        self._exchange = exchange
        self._bodiless = bodiless
        self._heard = False
        self._transport.write(request)

    def pause(self) -> None:
        """Reads no more until `resume`."""
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Reads again."""
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def abandon(self) -> None:
        """Ends the connection without telling anybody."""
        self._call = self._exchange = None
        self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # TCP is both ways
        no_delay(self._transport)

    @override
    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:  # an answer to nothing
            self._transport.abort()
            return
        self._heard = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self._complete:
                self._lose(f"the engine sent no HTTP: {error}")
                return
            self._keep = False  # what comes behind a whole answer is nobody's
        if self._status:
            status, self._status = self._status, 0
            exchange.on_head(status, self._headers)
        body = b""
        if parts := self._body:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
        if self._complete:
            self._end(body)
        elif body:
            exchange.on_body(body)

    def _end(self, body: bytes) -> None:
        self._complete = False
        call, exchange = self._call, self._exchange
        assert call is not None
        assert exchange is not None
        self._call = self._exchange = None
        self.resume()
        if self._keep:
            self._pool.put(self)
        else:
            self._transport.close()
        call.ended()
        exchange.on_end(body)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._lose("the engine closed the connection" if exc is None else str(exc))

    def _lose(self, cause: str) -> None:
        call, self._call, self._exchange = self._call, None, None
        self._transport.abort()
        if call is not None:
            call.lost(cause, heard=self._heard)

    # What the parser calls, beside `on_body`.

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("an answer to nothing")
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:  # lower ones announce the answer
            self._status = status
            if self._bodiless:
                self._complete, self._keep = True, False  # the parser waits for a body

    def on_message_complete(self) -> None:
        if not self._bodiless:
            self._complete = self._parser.get_status_code() >= 200
            self._keep = self._parser.should_keep_alive()  # which it forgets afterwards


class Pool:
    """The connections to one engine; all on one event loop."""

    def __init__(self, address: str) -> None:
        """`address` is host:port."""
        self.address = address
        self._target = split_address(address)
        self._idle: list[Upstream] = []
        self._dialling: dict[asyncio.Task[None], None] = {}

    def ask(self, request: bytes, exchange: Exchange, *, bodiless: bool = False) -> Call:
        """Sends a whole request; the exchange hears of the answer, never before this returns.

        Uses the connection that was used last. If the engine closed that instead of answering, the
        request goes out once more on a new one. `bodiless` is for HEAD.
        """
        call = Call(self, request, exchange, bodiless)
        while self._idle:
            upstream = self._idle.pop()
            if upstream.open:
                call.begin(upstream, kept=True)
                return call
        self.dial(call)
        return call

    def dial(self, call: Call) -> None:
        """Asks on a new connection."""
        # bounded by CONNECT_S, and awaited by `close`
        task = asyncio.get_running_loop().create_task(self._dial(call))
        self._dialling[task] = None
        task.add_done_callback(self._dialling.pop)

    async def _dial(self, call: Call) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                _, upstream = await loop.create_connection(lambda: Upstream(self), *self._target)
        except OSError as error:  # a timeout too
            call.fail(f"cannot connect to {self.address}: {str(error) or 'timeout'}")
            return
        if call.open:
            call.begin(upstream, kept=False)
        else:  # cut meanwhile
            self.put(upstream)

    def put(self, upstream: Upstream) -> None:
        """Keeps a connection whose call has ended."""
        if len(self._idle) < IDLE_MAX:
            self._idle.append(upstream)
        else:
            upstream.abandon()

    async def close(self) -> None:
        """Ends the connections that nothing runs on, and those that are being made."""
        for task in list(self._dialling):
            task.cancel()
        await asyncio.gather(*self._dialling, return_exceptions=True)
        for upstream in self._idle:
            upstream.abandon()
        self._idle.clear()
