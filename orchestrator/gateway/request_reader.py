"""Bytes of a client become whole HTTP/1.1 requests, or the reason why what comes is none.

Strict where two servers could read two things: what is refused here reaches no engine, and what is
passed on has been read whole and is written anew.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

import httptools

from orchestrator.engines.http import Headers
from orchestrator.gateway.errors import ApiError, bad_request
from orchestrator.gateway.http import DRAIN, too_large

HEAD_BYTES_MAX = 64 << 10
# RFC 9110 7.6.1: of one connection only; and what is said anew.
HOP = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer"),
        *(b"transfer-encoding", b"upgrade", b"host", b"content-length", b"expect"),
    )
)


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request. `target` is a path with its query, or *; names are lower case."""

    method: bytes
    target: bytes
    headers: Headers  # all but those of the connection alone
    body: bytes
    keep: bool  # whether the connection goes on behind its answer
    chunks: bool  # whether the client reads chunked answers


class Phase(Enum):
    """What comes next."""

    IDLE = auto()  # a request's first byte
    HEAD = auto()
    BODY = auto()


class RequestReader:
    """The requests of one connection, in their order."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._parser = httptools.HttpRequestParser(self)
        self.whole: deque[Request | ApiError] = deque()  # those that have arrived; take them
        self.refusal: ApiError | None = None  # what follows those cannot be read
        self.phase = Phase.IDLE
        self.turns = 0  # of the phase
        self.owes_continue = False  # the sender of a body waits until it is asked for
        # the request that arrives
        self._just_begun = False
        self._bytes = 0  # of it as it was sent, but for those it began with
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._keep_alive = False
        self._parts: list[bytes] = []
        self._body_bytes = 0
        self._unparsed_bytes = 0  # of its body that the parser will not see

    def feed(self, data: bytes) -> None:
        """Takes what has come; nothing after a refusal."""
        rest = data
        while rest:
            if self._unparsed_bytes:
                rest = self._take_unparsed(rest)
                continue
            try:
                self._parser.feed_data(rest)
                break
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]  # not taken up, as a server may (RFC 9110 7.8)
            except httptools.HttpParserError as error:
                self.refusal = bad_request(f"The request is not HTTP/1.1: {error}")
                return
        if self.phase is not Phase.IDLE:
            self._count(len(data))

    def _take_unparsed(self, data: bytes) -> bytes:
        """Takes what of this is a body that the parser left; returns the rest."""
        body, rest = data[: self._unparsed_bytes], data[self._unparsed_bytes :]
        self._unparsed_bytes -= len(body)
        self.on_body(body)
        if not self._unparsed_bytes:
            self._complete()
        return rest

    def _count(self, size: int) -> None:
        """So much more has come of a request, if it did not begin with that."""
        if self._just_begun:
            self._just_begun = False
            return
        self._bytes += size
        if self.phase is Phase.HEAD:
            if self._bytes > HEAD_BYTES_MAX:
                self.refusal = ApiError(431, f"The head is larger than {HEAD_BYTES_MAX} bytes")
        elif self._bytes > DRAIN * self._max_body_bytes:
            self.refusal = too_large(self._max_body_bytes)

    def _turn(self, phase: Phase) -> None:
        self.phase = phase
        self.turns += 1

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._turn(Phase.HEAD)
        self._just_begun = True
        self._bytes = 0
        self._target = b""
        self._headers = []
        self._parts = []
        self._body_bytes = 0
        self.owes_continue = False

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.phase is Phase.HEAD:  # a trailer could say anything
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._turn(Phase.BODY)
        self._keep_alive = self._parser.should_keep_alive()  # which it forgets afterwards
        for name, value in self._headers:
            if name == b"expect" and value.lower() == b"100-continue":
                self.owes_continue = True
        if self.owes_continue and self._announced_bytes() > self._max_body_bytes:
            self.refusal = too_large(self._max_body_bytes)

    def _announced_bytes(self) -> int:
        return int(dict(self._headers).get(b"content-length", b"0"))

    def on_body(self, body: bytes) -> None:
        self.owes_continue = False
        self._body_bytes += len(body)
        if self._body_bytes <= self._max_body_bytes:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():  # it takes what follows for another protocol's
            self._unparsed_bytes = self._announced_bytes()
        if not self._unparsed_bytes:
            self._complete()

    def _complete(self) -> None:
        self._turn(Phase.IDLE)
        if self.refusal is None:
            self.whole.append(self._read())

    def _read(self) -> Request | ApiError:
        """The request that has arrived, or why it is none."""
        if self._body_bytes > self._max_body_bytes:
            return too_large(self._max_body_bytes)
        chunks = self._parser.get_http_version() == "1.1"
        method = self._parser.get_method()
        named: set[bytes] = set()
        for name, value in self._headers:
            if name == b"connection":
                named.update(token.strip() for token in value.lower().split(b","))
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked" or not chunks:
                    return ApiError(501, "Of transfer encodings only chunked is known, in HTTP/1.1")
                if self._parser.should_upgrade():
                    return bad_request("A chunked body cannot come with an upgrade")
        if method == b"CONNECT":
            return ApiError(501, "This server connects to nobody")
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
