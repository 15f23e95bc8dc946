"""One client's connection under HTTP/1.1: whole requests go out of it, answers into it.

There is no task for a request: bytes that arrive end in a call of the handler, and an answer is
written from wherever it comes. One request is answered at a time, in the order they came.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from math import inf
from typing import Protocol, cast

import httptools
from typing_extensions import override

from orchestrator.engines.channel.sockets import no_delay
from orchestrator.engines.http import Headers
from orchestrator.gateway.errors import ApiError, bad_request
from orchestrator.gateway.http import BODY_S, DEEPSEEK, DRAIN, too_large

IDLE_S = 60.0  # a connection on which no request begins for so long is closed
HEAD_S = 15.0  # for all of a request's head to arrive
HEAD_BYTES_MAX = 64 << 10
# RFC 9110 7.6.1: of one connection only; and what is said anew.
HOP = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer"),
        *(b"transfer-encoding", b"upgrade", b"host", b"content-length", b"expect"),
    )
)
_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus
}


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request. `target` is a path with its query, or *; names are lower case."""

    method: bytes
    target: bytes
    headers: Headers  # all but those of the connection alone
    body: bytes
    keep: bool  # whether the connection goes on behind its answer
    chunks: bool  # whether the client reads chunked answers


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
        self._parser = httptools.HttpRequestParser(self)
        self.due_at = self._loop.time() + IDLE_S  # when what it waits for has taken too long
        # the request that arrives
        self._in_head = self._in_body = False
        self._just_begun = False
        self._bytes = 0  # of it as it was sent, but for those it began with
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []
        self._body_bytes = 0
        self._owes_continue = False
        self._keep_alive = False
        self._refusal: ApiError | None = None  # what follows cannot be read: the last answer
        # those that have arrived
        self._whole: deque[Request | ApiError] = deque()
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
        waits_s = BODY_S if self._in_head or self._in_body else IDLE_S
        self.due_at = self._loop.time() + waits_s
        if self._whole or self._refusal is not None:
            self._loop.call_soon(self._serve)
        elif self._paused:
            self._paused = False
            self._transport.resume_reading()
        self._continue()

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
        if not (self._busy or self._whole or self._in_head or self._in_body):
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
        elif self._in_head or self._in_body:
            self._refuse(ApiError(408, "The request did not arrive in time"))
        else:
            self._close()

    # What the event loop calls.

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # TCP is both ways
        no_delay(transport)
        self._clients.open[self] = None

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._clients.open.pop(self, None)
        self._whole.clear()
        self._refusal = None
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
        if self._refusal is not None or self._transport.is_closing():
            return
        rest = data
        while rest:
            try:
                self._parser.feed_data(rest)
                break
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]  # not taken up, as a server may (RFC 9110 7.8)
            except httptools.HttpParserError as error:
                self._refuse(bad_request(f"The request is not HTTP/1.1: {error}"))
                return
        if self._in_head or self._in_body:
            self._count(len(data))
        self._serve()

    def _count(self, size: int) -> None:
        """So much more has come of a request, if it did not begin with that."""
        if self._just_begun:
            self._just_begun = False
            return
        self._bytes += size
        limit_bytes = self._clients.max_body_bytes
        if self._in_head:
            if self._bytes > HEAD_BYTES_MAX:
                self._refusal = ApiError(431, f"The head is larger than {HEAD_BYTES_MAX} bytes")
        elif self._bytes > DRAIN * limit_bytes:
            self._refusal = too_large(limit_bytes)

    def _serve(self) -> None:
        while self._whole and not self._busy:
            request = self._whole.popleft()
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
            if self._whole and not self._paused:  # more than one at a time is not held
                self._paused = True
                self._transport.pause_reading()
        elif self._refusal is not None:
            self._busy, self._keep = True, False
            self.fail(self._refusal)
        else:
            self._continue()

    def _refuse(self, error: ApiError) -> None:
        self._refusal = error
        self._in_head = self._in_body = False
        self._serve()

    def _close(self) -> None:
        self._whole.clear()
        self._busy = True  # nothing is answered any more
        self.due_at = self._loop.time() + self._clients.stall_s
        self._transport.close()

    def _continue(self) -> None:
        """Asks for the body that its sender holds back, unless another answer is being written."""
        if self._owes_continue and not self._busy and self._in_body:
            self._owes_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._in_head = True
        self._just_begun = True
        self._bytes = 0
        self._target = b""
        self._headers = []
        self._parts = []
        self._body_bytes = 0
        self._owes_continue = False
        if not self._busy:
            self.due_at = self._loop.time() + HEAD_S

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # a trailer could say anything
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._in_body = True
        self._keep_alive = self._parser.should_keep_alive()  # which it forgets afterwards
        if not self._busy:
            self.due_at = self._loop.time() + BODY_S
        for name, value in self._headers:
            if name == b"expect" and value.lower() == b"100-continue":
                self._owes_continue = True
        if self._owes_continue:
            size = dict(self._headers).get(b"content-length", b"0")
            if int(size) > self._clients.max_body_bytes:
                self._refusal = too_large(self._clients.max_body_bytes)

    def on_body(self, body: bytes) -> None:
        self._owes_continue = False
        self._body_bytes += len(body)
        if self._body_bytes <= self._clients.max_body_bytes:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        if self._refusal is None:
            self._whole.append(self._read())

    def _read(self) -> Request | ApiError:
        """The request that has arrived, or why it is none."""
        if self._body_bytes > self._clients.max_body_bytes:
            return too_large(self._clients.max_body_bytes)
        chunks = self._parser.get_http_version() == "1.1"
        method = self._parser.get_method()
        named: set[bytes] = set()
        for name, value in self._headers:
            if name == b"connection":
                named.update(token.strip() for token in value.lower().split(b","))
            elif name == b"transfer-encoding" and (value.lower() != b"chunked" or not chunks):
                return ApiError(501, "Of transfer encodings only chunked is known, in HTTP/1.1")
        if self._parser.should_upgrade() and (method == b"CONNECT" or _has_body(self._headers)):
            return bad_request("This server speaks HTTP/1.1 alone: ask without an upgrade")
        target = self._target
        if not target.startswith(b"/") and target != b"*":
            try:
                url = httptools.parse_url(target)  # a proxy's form of it
            except httptools.HttpParserInvalidURLError:
                return bad_request("The request's target is no path")
            target = (url.path or b"/") + (b"?" + url.query if url.query else b"")
        left_out = HOP | named if named else HOP
        headers = [header for header in self._headers if header[0] not in left_out]
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        return Request(method, target, headers, body, self._keep_alive and chunks, chunks)


def _has_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name in {b"content-length", b"transfer-encoding"} for name, _ in headers)
