"""One client's connection under HTTP/1.1: whole requests go out of it, answers into it.

There is no task for a request: bytes that arrive end in a call of the handler, and an answer is
written from wherever it comes. One request is answered at a time, in the order they came.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from math import inf
from typing import Protocol, cast

from typing_extensions import override

from orchestrator.engines.channel.sockets import no_delay
from orchestrator.engines.http import Headers
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.http import BODY_S, DEEPSEEK
from orchestrator.gateway.request_reader import HOP, Phase, Request, RequestReader

IDLE_S = 60.0  # a connection on which no request begins for so long is closed
HEAD_S = 15.0  # for all of a request's head to arrive
_WAITS_S = {Phase.IDLE: IDLE_S, Phase.HEAD: HEAD_S, Phase.BODY: BODY_S}
_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus
}


class Flow(Protocol):
    """Where an answer comes from: told how the client takes it."""

    def on_gone(self) -> None:
        """The client has gone: nothing more may be written, and nothing more is told."""
        ...

    def on_slow(self) -> None:
        """What was written waits; more of it should not come before `on_ready`."""
        ...

    def on_ready(self) -> None:
        """The client reads again."""
        ...


@dataclass(slots=True)
class Clients:
    """The connections of one server, and what it allows them."""

    on_request: Callable[["ClientConnection", Request], None]
    stall_s: float  # a client that reads nothing for so long is cut
    max_body_bytes: int
    open: dict["ClientConnection", None]

    def expire(self, now: float) -> None:
        """Ends what took too long; call it every second or so."""
        for client in [client for client in self.open if client.due_at <= now]:
            client.expire(now)


class ClientConnection(asyncio.Protocol):
    """The handler answers with `answer`, or with `start`, `write` and `end`, then or later."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._loop = asyncio.get_running_loop()
        self._reader = RequestReader(clients.max_body_bytes)
        self._turns = 0  # of the reader's phase, as `due_at` knows it
        self.due_at = self._loop.time() + IDLE_S  # when what it waits for has taken too long
        self._paused = False
        # the one that is being answered
        self.flow: Flow | None = None  # the handler sets it if the answer comes later
        self._request: Request | None = None
        self._busy = False
        self._head = b""  # of its answer, not sent yet
        self._chunked = self._bodiless = False
        self._keep = True
        self._draining = False
        self._waiting_bytes = 0  # for a client that did not read, when it was last looked at

    # What the handler calls.

    def start(self, status: int, headers: Headers) -> None:
        """The head of the answer, sent with what follows it; names are lower case, and headers of
        a connection alone are left out.
        """
        request = self._request
        lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        length = None
        for name, value in headers:
            if name not in HOP:
                lines.append(b"%b: %b\r\n" % (name, value))
            elif name == b"content-length":
                length = value
        self._bodiless = status in {204, 304} or (request is not None and request.method == b"HEAD")
        self._chunked = False
        if length is not None:
            lines.append(b"content-length: %b\r\n" % length)
        elif not self._bodiless:
            self._chunked = request is not None and request.chunks
            if self._chunked:
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self._keep = False  # the end of the connection is the body's
        if not self._keep:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        self._head = b"".join(lines)

    def write(self, data: bytes) -> None:
        """More of the body; not empty."""
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._head:
            data, self._head = self._head + data, b""
        self._transport.write(data)

    def end(self, data: bytes) -> None:
        """The rest of the body, which may be empty: the answer is whole."""
        if self._chunked:
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        elif self._bodiless:
            data = b""
        if self._head:
            data, self._head = self._head + data, b""
        self._transport.write(data)
        self.flow = self._request = None
        self._busy = False
        if not self._keep:
            self._close()
            return
        self._turns = -1
        if self._reader.whole or self._reader.refusal is not None:
            self._loop.call_soon(self._serve)
            return
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        self._await_more()

    def answer(
        self, status: int, body: bytes, content_type: str = "application/json", *more: bytes
    ) -> None:
        """A whole answer; `more` are names and values of headers, in turn."""
        headers = [
            (b"content-type", content_type.encode()),
            (b"content-length", b"%d" % len(body)),
            *zip(more[::2], more[1::2], strict=True),
        ]
        self.start(status, headers)
        self.end(body)

    def fail(self, error: ApiError) -> None:
        """A whole answer that says what is wrong."""
        status, body = DEEPSEEK.error(error)
        wait_s = error.retry_after_s
        more = () if wait_s is None else (b"retry-after", b"%d" % wait_s)
        self.answer(status, body, "application/json", *more)

    def cut(self) -> None:
        """Breaks off, so that the client sees an answer without its end."""
        self.flow = None
        self._transport.abort()

    # What the server calls.

    def drain(self) -> None:
        """Takes no request after those that have begun."""
        self._draining = True
        self._keep = False
        if not self._busy and not self._reader.whole and self._reader.phase is Phase.IDLE:
            self._close()

    def abort(self) -> None:
        """Ends the connection at once."""
        self._transport.abort()

    def expire(self, now: float) -> None:
        """`due_at` has come."""
        if self._transport.is_closing():
            self._transport.abort()
        elif self._busy:
            waiting_bytes = self._transport.get_write_buffer_size()
            if waiting_bytes < self._waiting_bytes:  # slow, but it reads
                self._waiting_bytes = waiting_bytes
                self.due_at = now + self._clients.stall_s
            else:
                self.abort()
        elif self._reader.phase is Phase.IDLE:
            self._close()
        else:
            self._reader.refusal = ApiError(408, "The request did not arrive in time")
            self._serve()

    # What the event loop calls.

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # TCP is both ways
        no_delay(transport)
        self._clients.open[self] = None

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._clients.open.pop(self, None)
        self._busy = True  # nothing is answered any more
        flow, self.flow = self.flow, None
        if flow is not None:
            flow.on_gone()

    @override
    def pause_writing(self) -> None:
        self._waiting_bytes = self._transport.get_write_buffer_size()
        self.due_at = self._loop.time() + self._clients.stall_s
        if self.flow is not None:
            self.flow.on_slow()

    @override
    def resume_writing(self) -> None:
        if self._busy and not self._transport.is_closing():
            self.due_at = inf
        if self.flow is not None:
            self.flow.on_ready()

    @override
    def data_received(self, data: bytes) -> None:
        if self._reader.refusal is None and not self._transport.is_closing():
            self._reader.feed(data)
            self._serve()

    def _serve(self) -> None:
        whole, refusal = self._reader.whole, self._reader.refusal
        while whole and not self._busy:
            request = whole.popleft()
            self._busy = True
            self.due_at = inf
            if isinstance(request, ApiError):
                self._keep = False
                self.fail(request)
                return
            self._request = request
            self._keep = request.keep and not self._draining
            self._clients.on_request(self, request)
        if self._busy:
            if whole and not self._paused:  # more than one at a time is not held
                self._paused = True
                self._transport.pause_reading()
        elif refusal is not None:
            self._busy, self._keep = True, False
            self.fail(refusal)
        else:
            self._await_more()

    def _await_more(self) -> None:
        """More of a request, or a new one, for a time that begins with each phase of it."""
        reader = self._reader
        if reader.turns != self._turns:
            self._turns = reader.turns
            self.due_at = self._loop.time() + _WAITS_S[reader.phase]
        if reader.owes_continue and reader.phase is Phase.BODY:
            reader.owes_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _close(self) -> None:
        self._busy = True  # nothing is answered any more
        self.due_at = self._loop.time() + self._clients.stall_s
        self._transport.close()
