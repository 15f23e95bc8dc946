"""Streams over sockets: one process, one loop, as little as can be for each piece that comes.

A greenlet connects and sends, and ends; what comes is read in the loop's own callbacks, without a
switch for each piece. Needs no patching.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import gevent
from gevent import socket
from gevent.ssl import SSLWantReadError

from loadtest.stream import StreamReader
from loadtest.target import Target

_READ = 1  # libev's EV_READ
_BYTES = 1 << 16
_IDLE_MAX = 4096  # connections kept
CONNECT_S = 30.0


@dataclass(slots=True)
class _Wire:
    """One connection, between or during requests."""

    # `gevent.socket.socket` or `gevent.ssl.SSLSocket`, which have no types.
    sock: Any
    watcher: Any
    used: bool = False


class Connections:
    """Implements `Server` on one target; connections are kept and used again."""

    def __init__(self, target: Target, now: Callable[[], float]) -> None:
        self._target = target
        self._now = now
        self._idle: list[_Wire] = []
        self._addresses = cycle(target.addresses)
        self._loop = gevent.get_hub().loop
        self._closed = False
        self.encrypted = target.tls is not None

    def send(
        self, body: bytes, reader: StreamReader, done: Callable[[], None]
    ) -> Callable[[], None]:
        """As `Server` has it."""
        stream = _Stream(self, self._target.request(body), reader, done)
        stream.begin()
        return stream.give_up

    def close(self) -> None:
        """Closes what is idle, and will be."""
        self._closed = True
        while self._idle:
            _close(self._idle.pop())

    def take(self) -> _Wire | None:
        """An idle connection whose other end has not been closed, as far as can be seen."""
        while self._idle:
            wire = self._idle.pop()
            if _silent(wire, encrypted=self.encrypted):
                return wire
            _close(wire)
        return None

    def keep(self, wire: _Wire) -> None:
        """It has read a reply to its end."""
        if len(self._idle) < _IDLE_MAX and not self._closed:
            wire.used = True
            self._idle.append(wire)
        else:
            _close(wire)

    def connect(self) -> _Wire:
        """A new one; raises OSError."""
        target = self._target
        sock = socket.create_connection((next(self._addresses), target.port), CONNECT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if target.tls is not None:
            sock = target.tls.wrap_socket(sock, server_hostname=target.host)
        return _Wire(sock, self._loop.io(sock.fileno(), _READ))

    def now(self) -> float:
        """The run's instant."""
        return self._now()


class _Stream:
    """One request on its way."""

    def __init__(
        self,
        connections: Connections,
        request: bytes,
        reader: StreamReader,
        done: Callable[[], None],
    ) -> None:
        self._connections = connections
        self._request = request
        self._reader = reader
        self._done = done
        self._wire: _Wire | None = None
        self._greenlet: Any = None
        self._given_up = False
        self._retried = False

    def begin(self) -> None:
        self._greenlet = gevent.spawn(self._ask)

    def give_up(self) -> None:
        self._given_up = True
        if self._wire is not None:
            _close(self._wire)
            self._wire = None
        self._greenlet.kill(block=False)

    def _ask(self) -> None:
        try:
            wire = self._connections.take() if not self._retried else None
            wire = wire or self._connections.connect()
            self._wire = wire
            wire.sock.settimeout(CONNECT_S)
            wire.sock.sendall(self._request)
            wire.sock.settimeout(0.0)
        except OSError as error:
            self._broken(error)
            return
        wire.watcher.start(self._readable)
        if self._connections.encrypted:
            self._readable()  # what came with the handshake is in no socket any more

    def _readable(self) -> None:
        wire = self._wire
        if wire is None:
            return
        recv, feed, reader = wire.sock.recv, self._reader.feed, self._reader
        while True:
            try:
                data = recv(_BYTES)
            except (BlockingIOError, SSLWantReadError):
                return
            except OSError as error:
                self._broken(error)
                return
            if not data:
                self._broken(None)
                return
            feed(data, self._connections.now())
            if reader.done:
                self._end()
                return
            if not self._connections.encrypted:
                return  # the loop calls again if there is more

    def _broken(self, error: OSError | None) -> None:
        """The connection has ended, or none could be made."""
        wire, self._wire = self._wire, None
        if wire is not None:
            _close(wire)
            if wire.used and not self._reader.heard and not self._retried:
                self._retried = True  # the server closed a kept connection while we took it
                self.begin()
                return
        if self._given_up:
            return
        now = self._connections.now()
        if error is None:
            self._reader.closed(now)
        elif isinstance(error, TimeoutError) and wire is None:
            self._reader.fail("connection", "no connection in time", now)
        else:
            cut = self._reader.heard
            self._reader.fail("cut" if cut else "connection", str(error), now)
        self._done()

    def _end(self) -> None:
        wire, self._wire = self._wire, None
        assert wire is not None
        wire.watcher.stop()
        if self._reader.reusable:
            self._connections.keep(wire)
        else:
            _close(wire)
        self._done()


def _silent(wire: _Wire, *, encrypted: bool) -> bool:
    """Whether an idle connection has neither ended nor said anything."""
    try:
        wire.sock.settimeout(0.0)
        if encrypted:
            wire.sock.recv(1)
        else:
            wire.sock.recv(1, socket.MSG_PEEK)
    except (BlockingIOError, SSLWantReadError):
        return True
    except OSError:
        return False
    return False


def _close(wire: _Wire) -> None:
    wire.watcher.stop()
    wire.watcher.close()
    wire.sock.close()
