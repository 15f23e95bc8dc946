"""Writes of a stream's body straight to its socket, past the coroutines of ASGI.

A gateway that streams writes once for each client and engine step. Through `send` that is three
coroutines and a task switch; as an extension of the scope, it is one call from the engine's output
to the socket. Where the server does not offer it, and while a client reads slowly, `send` serves.
"""

import asyncio
from typing import cast

from starlette.types import Scope
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_EXTENSION = "r1_serve.direct"


class DirectBody:
    """The body of one response whose start and first part went out through `send`."""

    __slots__ = ("_cycle", "_loop")

    def __init__(self, cycle: RequestResponseCycle, loop: asyncio.AbstractEventLoop) -> None:
        self._cycle = cycle
        self._loop = loop

    def ready(self) -> bool:
        """Whether `write` may be called now, from this thread; it never is between two `send`s."""
        cycle = self._cycle
        return (
            cycle.chunked_encoding is True
            and not cycle.flow.write_paused
            and not cycle.disconnected
            and not cycle.response_complete
        )

    def write(self, data: bytes) -> None:
        """One chunk of the body; not empty, which would end it."""
        self._cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def cut(self) -> None:
        """Ends the connection without another byte: its client does not read."""
        self._cycle.transport.abort()

    @property
    def on_this_loop(self) -> bool:
        """Whether the server runs on the running loop: a server in another thread cannot be used
        from here.
        """
        return asyncio.get_running_loop() is self._loop


class DirectProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which offers each request's scope the direct way."""

    @override
    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.cycle.scope is self.scope:
            direct = DirectBody(self.cycle, self.loop)
            # ASGI's types know extensions as dictionaries only
            self.scope["extensions"] = {_EXTENSION: cast(dict[object, object], direct)}


def direct_body(scope: Scope) -> DirectBody | None:
    """The direct way to the client of this request, if the server offers one that can be used."""
    found = scope.get("extensions", {}).get(_EXTENSION)
    body = cast(DirectBody | None, found)
    return body if body is not None and body.on_this_loop else None
