"""One small request and its whole answer: for what is asked before, and beside, the load."""

import json
from dataclasses import dataclass
from typing import Any

import gevent
from gevent import socket

from loadtest.target import Target

_BYTES_MAX = 1 << 26


@dataclass(frozen=True, slots=True)
class Answer:
    """What came: the status and the body."""

    status: int
    body: bytes

    @property
    def message(self) -> str:
        """The server's own words for what is wrong, in one line."""
        try:
            told = json.loads(self.body)["error"]
            text = told["message"] if isinstance(told, dict) else told
        except (ValueError, KeyError, TypeError):
            text = self.body.decode("utf-8", "replace")
        return " ".join(str(text).split())[:200]


def get(target: Target, path: str, timeout_s: float) -> Answer:
    """Asks for a path; raises OSError, whose words are those of what does not work."""
    return exchange(target, target.head("GET", path, close=True), timeout_s)


def exchange(target: Target, request: bytes, timeout_s: float) -> Answer:
    """Sends bytes on a connection of their own and reads until it is closed."""
    with gevent.Timeout(timeout_s, TimeoutError(f"no answer within {timeout_s:g} s")):
        sock: Any = socket.create_connection((target.addresses[0], target.port), timeout_s)
        try:
            if target.tls is not None:
                sock = target.tls.wrap_socket(sock, server_hostname=target.host)
            sock.sendall(request)
            parts: list[bytes] = []
            size = 0
            while size < _BYTES_MAX and (part := sock.recv(1 << 16)):
                parts.append(part)
                size += len(part)
        finally:
            sock.close()
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise OSError("what answers there speaks no HTTP")
    if b"transfer-encoding: chunked" in head.lower():
        body = _dechunked(body)
    return Answer(int(words[1]), body)


def _dechunked(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        try:
            length = int(size.partition(b";")[0], 16)
        except ValueError:
            break
        if not length:
            break
        parts.append(rest[:length])
        body = rest[length + 2 :]
    return b"".join(parts)
